"""The proofs in proofs/coq: nothing assumed in the text, only the classical reals underneath, statements that bite.

The first three tests read the files. The slow ones need coqc and Coquelicot: one build from scratch, what the headline
theorems rest on, and mutated statements that must not compile.
"""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

PROOFS = Path(__file__).parents[2] / "proofs" / "coq"
SOURCES = sorted(PROOFS.glob("*.v"))

# what Coq's own classical real numbers are built on; excluded middle comes with the intermediate value theorem
ALLOWED_AXIOMS = {
    "ClassicalDedekindReals.sig_forall_dec",
    "ClassicalDedekindReals.sig_not_dec",
    "FunctionalExtensionality.functional_extensionality_dep",
    "Classical_Prop.classic",
}

# ways to state without proving, or to switch a check of the kernel off
FORBIDDEN = re.compile(
    r"\b(Admitted|admit|give_up|Abort|Axioms?|Parameters?|Conjecture|bypass_check|type_in_type"
    r"|Unset\s+(Guard|Positivity|Universe)\s+Checking)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A theorem turned into a false statement by one replacement, in a file that must then not compile."""

    file: str
    old: str
    new: str


MUTATIONS = {
    "the sign of Delta H": Mutation(
        file="DeltaH.v",
        old="  - eta * Sum acts (fun a => policy acts z T a * r a * gap acts z a).",
        new="  eta * Sum acts (fun a => policy acts z T a * r a * gap acts z a).",
    ),
    "the sign of C": Mutation(
        file="DeltaH.v",
        old="R := dcov acts z a - Ccov acts z.",
        new="R := dcov acts z a + Ccov acts z.",
    ),
    "Theorem 4.3 for a signed reward": Mutation(
        file="Theorem_4_3.v",
        old="forall a, In a acts -> 0 <= r a.",
        new="forall a, In a acts -> -1 <= r a.",
    ),
    "Theorem 4.3 at every T > 0": Mutation(
        file="Theorem_4_3.v",
        old="0 < eta -> 1 <= T -> DH eta T < 0 -> 0 < Derive",
        new="0 < eta -> 0 < T -> DH eta T < 0 -> 0 < Derive",
    ),
    "Theorem 4.3 under the opposite premise": Mutation(
        file="Theorem_4_3.v",
        old="0 < eta -> 1 <= T -> DH eta T < 0 -> 0 < Derive",
        new="0 < eta -> 1 <= T -> 0 < DH eta T -> 0 < Derive",
    ),
    "the slope bounded by twice its bound": Mutation(
        file="Theorem_4_3.v",
        old="(tau0 - m) * Rabs (DH eta 1) <= Derive",
        new="2 * (tau0 - m) * Rabs (DH eta 1) <= Derive",
    ),
    "the threshold without e^H": Mutation(
        file="Threshold.v",
        old="W0 (c * exp (entropy acts (softmax acts z))).",
        new="W0 (c * entropy acts (softmax acts z)).",
    ),
    "C > 0 for constant logits": Mutation(
        file="Covariance.v",
        old="0 < C <-> ~ constant_on acts z.",
        new="0 < C <-> constant_on acts z.",
    ),
    "Lemma 4.1 strict for constant logits": Mutation(
        file="Lemma_4_1.v",
        old="lemma_4_1_strict T1 T2 : ~ constant_on acts z ->",
        new="lemma_4_1_strict T1 T2 : constant_on acts z ->",
    ),
    "no remainder": Mutation(
        file="Remainder.v",
        old="<= eta ^ 2 * success acts z r T ^ 2 * (1 + ln (INR (length acts))) / 2.",
        new="<= eta ^ 2 * success acts z r T ^ 2 * 0 / 2.",
    ),
    "the low half of Corollary 4.4 at every T < 1": Mutation(
        file="Corollary_4_4.v",
        old="exists eps, 0 < eps /\\ forall T, 1 - eps < T < 1 ->",
        new="exists eps, 0 < eps /\\ forall T, 0 < T < 1 ->",
    ),
    "half the Lipschitz constant": Mutation(
        file="Lipschitz.v",
        old="Rabs (cov acts p w v) <= half * ln K.",
        new="Rabs (cov acts p w v) <= half * ln K / 2.",
    ),
    "the ceiling without the binary entropy": Mutation(
        file="Ceiling.v",
        old="entropy acts p <= binary_entropy J + J * ln (INR (length correct)) + (1 - J)",
        new="entropy acts p <= J * ln (INR (length correct)) + (1 - J)",
    ),
    "a moving target held within the longest step alone": Mutation(
        file="MovingTarget.v",
        old="forall k, (n <= k)%nat -> error k <= B + delta.\nProof.\n  intros Far k Hk.",
        new="forall k, (n <= k)%nat -> error k <= B.\nProof.\n  intros Far k Hk.",
    ),
    "a target as fast as the authority is followed": Mutation(
        file="MovingTarget.v",
        old="Hypothesis authority : delta < eps.",
        new="Hypothesis authority : delta <= eps.",
    ),
    "a target as fast as the steps is lost": Mutation(
        file="MovingTarget.v",
        old="Theorem moving_target_lost : B < delta ->",
        new="Theorem moving_target_lost : B <= delta ->",
    ),
    "half the mean error of noise": Mutation(
        file="Noise.v",
        old="<= (H [] - target 0%nat) ^ 2 / (2 * (eps - delta) * INR n) + (B + delta) ^ 2 / (2 * (eps - delta)).",
        new="<= (H [] - target 0%nat) ^ 2 / (2 * (eps - delta) * INR n) + (B + delta) ^ 2 / (4 * (eps - delta)).",
    ),
    "noise whose drift may be nothing": Mutation(
        file="Noise.v",
        old="(H h < target (length h) -> eps <= drift h)",
        new="(H h < target (length h) -> 0 <= drift h)",
    ),
    "a floor that every mixture of controls is below": Mutation(
        file="Floor.v",
        old="least <= expect controls w (fun u => deviation outcomes (p u) (X u) target).",
        new="expect controls w (fun u => deviation outcomes (p u) (X u) target) <= least.",
    ),
    "a median with a third of the chance on each side": Mutation(
        file="Floor.v",
        old="1 / 2 <= at_most m /\\ 1 / 2 <= at_least m.",
        new="1 / 3 <= at_most m /\\ 1 / 3 <= at_least m.",
    ),
    "all correct: rising entropy at T < 1": Mutation(
        file="AllCorrect.v",
        old="0 < eta -> 0 < T < 1 -> DH eta T < 0.",
        new="0 < eta -> 0 < T < 1 -> 0 < DH eta T.",
    ),
}


def without_comments(text: str) -> str:
    """The text with Coq's comments, which nest, left out."""
    kept, depth = [], 0
    for piece in re.split(r"(\(\*|\*\))", text):
        if piece == "(*":
            depth += 1
        elif piece == "*)":
            depth -= 1
        elif depth == 0:
            kept.append(piece)
    return "".join(kept)


def in_dependency_order() -> list[str]:
    return re.findall(r"^\S+\.v$", (PROOFS / "_CoqProject").read_text(), re.MULTILINE)


def theorems() -> list[str]:
    pattern = re.compile(r"^(?:Theorem|Corollary)\s+(\w+)", re.MULTILINE)
    return [name for source in SOURCES for name in pattern.findall(without_comments(source.read_text()))]


def coqc(folder: Path, file: str) -> subprocess.CompletedProcess[str]:
    command = ["coqc", "-Q", ".", "AEPO", "-w", "-ambiguous-paths", file]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def missing_prover() -> str | None:
    if shutil.which("coqc") is None:
        return "needs coqc: apt-get install coq libcoq-coquelicot"
    where = subprocess.run(["coqc", "-where"], capture_output=True, text=True, check=True).stdout.strip()
    if not (Path(where) / "user-contrib" / "Coquelicot").is_dir():
        return "needs Coquelicot: apt-get install coq libcoq-coquelicot"
    return None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which every file is compiled, and what Assumptions.v printed there."""
    if reason := missing_prover():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("proofs")
    for source in SOURCES:
        shutil.copy(source, folder)
    printed = ""
    for file in in_dependency_order():
        result = coqc(folder, file)
        assert result.returncode == 0, f"{file}: {result.stderr}"
        printed = result.stdout
    return folder, printed


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_proof_file_assumes_nothing_and_says_what_it_proves(source: Path):
    text = source.read_text()
    assert re.match(r"\(\* [A-Z].{60,}?\*\)\n", text, re.DOTALL), "the first thing must be the explaining comment"
    code = without_comments(text)
    assert FORBIDDEN.search(code) is None
    depth = 0
    for line in code.splitlines():
        depth += bool(re.match(r"\s*Section\b", line)) - bool(re.match(r"\s*End\b", line))
        if re.match(r"\s*(Hypothes[ie]s|Variables?|Context)\b", line):
            assert depth > 0, f"outside of a section this is an axiom: {line}"


def test_every_file_is_built_and_every_theorem_is_in_assumptions():
    order = in_dependency_order()
    assert sorted(order) == [source.name for source in SOURCES]
    assert order[-1] == "Assumptions.v"
    listed = set(re.findall(r"[\w']+", without_comments((PROOFS / "Assumptions.v").read_text())))
    assert set(theorems()) <= listed
    assert len(theorems()) == len(set(theorems())) >= 60


def test_every_mutation_replaces_exactly_one_statement():
    for name, mutation in MUTATIONS.items():
        assert (PROOFS / mutation.file).read_text().count(mutation.old) == 1, name


@pytest.mark.slow
def test_the_theorems_rest_on_the_classical_reals_alone(built: tuple[Path, str]):
    _, printed = built
    # Theorems are printed in groups: each of the more than sixty must be a member of a printed one.
    text = without_comments((PROOFS / "Assumptions.v").read_text())
    asked = re.findall(r"^Print Assumptions (\w+)\.", text, re.MULTILINE)
    groups = dict(re.findall(r"^Definition (\w+) :=\s*\((.*?)\)\.", text, re.MULTILINE | re.DOTALL))
    printed_theorems = {name for group in asked for name in re.findall(r"@([\w']+)", groups[group])}
    assert set(theorems()) <= printed_theorems and len(printed_theorems) >= 60
    answers = re.findall(r"^(?:Axioms:|Closed under the global context)", printed, re.MULTILINE)
    axioms = set(re.findall(r"^([A-Za-z_][\w.']*)(?=\s*:|$)", printed, re.MULTILINE)) - {"Axioms"}
    assert len(answers) == len(asked) >= 1
    assert axioms <= ALLOWED_AXIOMS
    assert axioms, "the classical reals at least must be listed, or the output was not understood"


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_false_statement_does_not_compile(name: str, built: tuple[Path, str], tmp_path: Path):
    folder, _ = built
    mutation = MUTATIONS[name]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    mutant = tmp_path / mutation.file
    mutant.write_text(mutant.read_text().replace(mutation.old, mutation.new))
    result = coqc(tmp_path, mutation.file)
    assert result.returncode != 0
    assert "Error" in result.stderr
