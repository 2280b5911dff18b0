"""Who may import whom, read from the sources; and what importing the package must not load."""

import ast
import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "aepo"
WORLDS = ("aepo.theory", "aepo.tabular", "aepo.llm", "aepo.integrations")
# What an integration may import besides the root: itself, its host, and what its host brings.
HOSTS = {
    "trl": {"trl", "torch", "transformers", "accelerate"},
    "verl": {"verl", "torch", "omegaconf", "transfer_queue"},
}
# Names that some version of a dependency owns even where this environment lacks it.
FOREIGN = {"kernels", "evaluate", "datasets", "types", "tokenize", "queue", "tokenizers", "vllm"}
# The rooms of aepo/llm and the modules beside them, lowest first: each imports only what stands in a line before.
LEVELS = (
    {"settings", "grading", "fused", "seeds"},
    {"processes", "questions"},
    {"policy", "model"},
    {"engines", "checkpoints", "doctor"},
    {"records", "evaluation"},
    {"trainer", "experiment", "gpu_check"},
    {"train", "demo"},
    {"probe"},
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or inside a function; relative ones by their full name."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(above + ([base] if base else []))
            # `from aepo import llm` imports aepo.llm: the names count as modules too.
            found |= {base} | {f"{base}.{name.name}" for name in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def offences(paths: list[Path], forbidden: tuple[str, ...], *, allowed: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{path.relative_to(PACKAGE.parent)} imports {module}"
        for path in paths
        for module in sorted(imports(path))
        if any(within(module, name) for name in forbidden) and not any(within(module, name) for name in allowed)
    ]


def upward(paths: list[Path]) -> list[str]:
    """The imports in aepo/llm of a room that is not below the importing one; one without a level is below none."""
    found = []
    for path in paths:
        room = module_of(path).split(".")[2]
        for other in sorted({module.split(".")[2] for module in imports(path) if module.startswith("aepo.llm.")}):
            if other != room and LEVEL.get(other, len(LEVELS)) >= LEVEL[room]:
                found.append(f"{path.relative_to(PACKAGE.parent)} imports {other}, which is not below {room}")
    return found


def rooms_and_modules(folder: Path) -> tuple[set[str], set[str]]:
    """The names of the folders with Python files that lie directly in a folder, and of its modules."""
    paths = [path.relative_to(folder) for path in folder.rglob("*.py")]
    return {path.parts[0] for path in paths if len(path.parts) > 1}, {p.stem for p in paths if len(p.parts) == 1}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((PACKAGE / folder).rglob("*.py"))]


def root_sources() -> list[Path]:
    return sorted(PACKAGE.glob("*.py")) + sources("zoo")


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "aepo")
    inner = tmp_path / "aepo" / "llm" / "x.py"
    inner.parent.mkdir(parents=True)
    inner.write_text("import a.b\nfrom aepo import theory\nfrom . import y\ndef f():\n    from ..tabular import z\n")
    assert imports(inner) >= {"a.b", "aepo.theory", "aepo.llm.y", "aepo.tabular", "aepo.tabular.z"}
    assert offences([inner], ("aepo.tabular",)) == [
        "aepo/llm/x.py imports aepo.tabular",
        "aepo/llm/x.py imports aepo.tabular.z",
    ]


def test_the_root_never_imports_a_world():
    assert len(root_sources()) > 10
    assert offences(root_sources(), WORLDS) == []


def test_theory_imports_nothing_of_aepo_and_no_torch():
    assert sources("theory")
    assert offences(sources("theory"), ("aepo", "torch"), allowed=("aepo.theory",)) == []


def test_tabular_and_llm_never_import_each_other():
    assert offences(sources("tabular"), ("aepo.llm",)) == []
    assert offences(sources("llm"), ("aepo.tabular",)) == []


def test_an_integration_imports_the_root_and_its_host_alone():
    hosts = sorted((PACKAGE / "integrations").iterdir())
    names = {path.stem for path in hosts if path.is_dir() or path.suffix == ".py"} - {"__init__", "__pycache__"}
    assert names == set(HOSTS)
    for name, allowed in HOSTS.items():
        paths = sources(f"integrations/{name}") or [PACKAGE / "integrations" / f"{name}.py"]
        own = f"aepo.integrations.{name}"
        assert offences(paths, ("aepo.theory", "aepo.tabular", "aepo.llm", "aepo.integrations"), allowed=(own,)) == []
        foreign = {module.split(".")[0] for path in paths for module in imports(path)}
        assert foreign - {"aepo"} - set(sys.stdlib_module_names) <= allowed


def test_nothing_imports_an_integration():
    others = [path for path in PACKAGE.rglob("*.py") if "integrations" not in path.relative_to(PACKAGE).parts]
    assert len(others) > 100
    assert offences(others, ("aepo.integrations",)) == []


def test_only_the_tabular_report_and_the_floor_take_anything_of_theory():
    own = {PACKAGE / "tabular" / "floor.py", *(PACKAGE / "tabular").rglob("report.py")}
    paths = [path for path in sources("tabular", "llm") if path not in own]
    assert offences(paths, ("aepo.theory",)) == []


def test_every_room_of_llm_has_one_level():
    rooms, modules = rooms_and_modules(PACKAGE / "llm")
    assert modules == {"__init__", "train", "trainer", "demo", "seeds"}
    assert len(rooms) > 10
    assert rooms | modules - {"__init__"} <= set(LEVEL)
    assert len(LEVEL) == sum(map(len, LEVELS)), "a name stands on two levels"


def test_a_room_of_llm_imports_only_rooms_below_it():
    paths = [path for path in sources("llm") if path != PACKAGE / "llm" / "__init__.py"]
    assert len(paths) > 80
    assert upward(paths) == []


def test_the_check_of_levels_sees_an_import_of_any_form_and_an_unknown_room(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "aepo")
    room = tmp_path / "aepo" / "llm" / "policy"
    room.mkdir(parents=True)
    (room / "a.py").write_text("from aepo.llm import train\nfrom ..engines.engine import Engine\n")
    (room / "b.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from aepo.llm.trainer import Trainer\n"
        "def f():\n    import aepo.llm.attic.x\n"
    )
    (room / "c.py").write_text("from aepo.llm.policy import a\nfrom . import b\nfrom ..settings import Settings\n")
    assert upward(sorted(room.iterdir())) == [
        "aepo/llm/policy/a.py imports engines, which is not below policy",
        "aepo/llm/policy/a.py imports train, which is not below policy",
        "aepo/llm/policy/b.py imports attic, which is not below policy",
        "aepo/llm/policy/b.py imports trainer, which is not below policy",
    ]


def test_the_tests_of_llm_lie_in_its_rooms_and_import_no_other_test_file():
    tests = Path(__file__).parent / "llm"
    assert rooms_and_modules(tests)[0] <= rooms_and_modules(PACKAGE / "llm")[0]
    paths = sorted(tests.rglob("*.py"))
    assert len(paths) > 40
    # What test files share stands in files of its own.
    assert [path.name for path in paths if any(module.startswith("test_") for module in imports(path))] == []


@pytest.mark.skipif(not (PACKAGE / "llm" / "fused").exists(), reason="aepo/llm/fused does not exist")
def test_the_fused_kernels_import_nothing_of_aepo_but_themselves():
    assert offences(sources("llm/fused"), ("aepo",), allowed=("aepo.llm.fused",)) == []


def test_nothing_directly_in_llm_shadows_a_package_or_a_standard_module():
    # `deepspeed aepo/llm/train.py` puts that folder first on the path, before everything that is installed.
    taken = FOREIGN | set(sys.stdlib_module_names) | set(packages_distributions()) - {"aepo"}
    names = {path.stem for path in (PACKAGE / "llm").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in names if not name.startswith("_")} & taken == set()


@pytest.mark.parametrize(
    "module, unwanted",
    [
        ("aepo", {"torch", "numpy", "transformers", "deepspeed", "vllm"}),
        ("aepo.theory", {"torch", "transformers", "deepspeed", "vllm", "matplotlib", "pandas"}),
    ],
)
def test_importing_the_package_loads_no_heavy_dependency(module, unwanted):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert module in loaded
    assert unwanted & set(loaded) == set()


def test_importing_the_shared_core_loads_no_trainer():
    code = "import sys, aepo.zoo, aepo.tracking, aepo.passk; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"transformers", "deepspeed", "vllm", "triton", "matplotlib"} & set(loaded) == set()


def test_the_tests_on_a_gpu_are_collected_where_torch_triton_and_pytest_are_all_there_is():
    lacking = ("hypothesis", "transformers", "deepspeed", "pydantic", "datasets", "pandas", "scipy")
    # A module that is None in sys.modules cannot be imported.
    code = f"import sys, pytest; sys.modules.update(dict.fromkeys({lacking})); sys.exit(pytest.main(sys.argv[1:]))"
    gpu = Path(__file__).parent / "llm" / "fused" / "test_fused_gpu.py"
    done = subprocess.run(
        [sys.executable, "-c", code, "-p", "no:cacheprovider", "--collect-only", str(gpu)],
        capture_output=True, text=True, env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "test_fused_gpu.py" in done.stdout


NAMED = re.compile(r"`(aepo(?:\.\w+)+)`")


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = dotted.split(".")
    for known in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:known]))
        except ModuleNotFoundError:
            continue
        return all((found := getattr(found, part, None)) is not None for part in parts[known:])
    return False


def test_what_docstrings_and_comments_name_by_its_module_is_there():
    named = {
        f"{path.relative_to(PACKAGE.parent)}: {dotted}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for dotted in NAMED.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 50
    assert [one for one in sorted(named) if not exists(one.partition(": ")[2])] == []
    assert exists("aepo.llm.engines.engine.Engine.sample") and not exists("aepo.llm.engine.Engine")
