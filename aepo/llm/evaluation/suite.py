r"""The paper's seven benchmarks: where they come from, how they are asked, and their questions and references.

Files are read as their publishers ship them, with these names, from one folder:

    python -m aepo.llm.evaluation.suite --download DIR      fetches all seven from the dataset hub into it
    python -m aepo.llm.evaluation.self_check --data DIR       tells whether every published answer passes its own check
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from aepo import atomic
from aepo.errors import AepoError
from aepo.home_path import at_home
from aepo.llm.grading.answer_lists import answers
from aepo.llm.grading.extraction import last_boxed
from aepo.llm.grading.reference import Reference
from aepo.llm.grading.units import leading
from aepo.llm.questions.conversations import Asked, asked, readable
from aepo.llm.questions.files import DataError, hub_rows, kind, listed, read, shown
from aepo.llm.questions.problems import decimal_text
from aepo.suggest import did_you_mean

ANSWER_TYPES = ("Numerical", "Expression", "Tuple", "Interval")
"""OlympiadBench's; its other types (Equation, Need_human_evaluate) are not in the English open-ended maths set."""
# The threshold of the Minerva authors' check of numbers as lm-evaluation-harness has it. That code applies it near zero
# only and asks for 1e-5 elsewhere, and the evaluation that the paper builds on for 1e-4; these answers have two or
# three digits, so that a calculation with one more digit in its constants would fail either.
MINERVA_RELATIVE_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a benchmark is sampled (the paper's Table 5 and Section 4.1)."""

    samples: int
    """Responses per problem for pass@1; their mean reward is avg@samples."""
    pass_ks: tuple[int, ...] = ()
    """The k of pass@k that the paper's Table 2 has; () where it has none."""
    temperature: float = 0.1
    """For pass@1."""
    pass_temperature: float = 1.0
    """For pass@k."""
    top_p: float = 0.95
    max_new_tokens: int = 8192


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One of the seven."""

    title: str
    """As the paper writes it."""
    file: str
    rows: tuple[int, ...]
    """How many there are; two counts where the hub's copy differs."""
    hub: str
    """Dataset id, ":config" added where it has several."""
    split: str
    protocol: Protocol


BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark(
        title="AIME24", file="aime24.jsonl", rows=(30,), hub="HuggingFaceH4/aime_2024", split="train",
        protocol=Protocol(samples=32, pass_ks=(512, 1024)),
    ),
    "aime25": Benchmark(
        title="AIME25", file="aime25.jsonl", rows=(30,), hub="math-ai/aime25", split="test",
        protocol=Protocol(samples=32, pass_ks=(512, 1024)),
    ),
    "amc23": Benchmark(
        title="AMC23", file="amc23.jsonl", rows=(40,), hub="math-ai/amc23", split="test",
        protocol=Protocol(samples=32),
    ),
    "gsm8k": Benchmark(
        title="GSM8K", file="gsm8k.jsonl", rows=(1319,), hub="openai/gsm8k:main", split="test",
        protocol=Protocol(samples=1),
    ),
    "math500": Benchmark(
        title="MATH500", file="math500.jsonl", rows=(500,), hub="HuggingFaceH4/MATH-500", split="test",
        protocol=Protocol(samples=1),
    ),
    "minerva": Benchmark(
        title="Minerva", file="minerva_math.jsonl", rows=(272,), hub="math-ai/minervamath", split="test",
        protocol=Protocol(samples=1, pass_ks=(128,)),
    ),
    # The hub's copy lacks one problem.
    "olympiadbench": Benchmark(
        title="OlympiadBench", file="olympiadbench.jsonl", rows=(675, 674),
        hub="Hothan/OlympiadBench:OE_TO_maths_en_COMP", split="train", protocol=Protocol(samples=1, pass_ks=(128,)),
    ),
}  # fmt: skip
"""In the paper's order."""

CORRECTIONS: Mapping[str, str] = {
    # "Determine all positive real t": a name fused with the interval.
    "$t(0,4]$": "(0,4]",
    # log_2 x - 2 log_2 y = 2 has one solution; the published list splits it at a comma that is none.
    r"$\frac{1}{2},\sqrt{x}$": r"\frac{1}{2} \sqrt{x}",
    # Python in place of LaTeX.
    "np.arcsin(10/13)": r"\arcsin(10/13)",
}
"""Published answers that cannot be meant as they stand, and what they say; the only changes to any."""


@dataclass(frozen=True, kw_only=True)
class Question(Asked):
    """One problem of a benchmark."""

    benchmark: str
    index: int
    """Its row in the file, from 0."""
    reference: str
    """An `aepo.llm.grading.reference.Reference` as JSON."""


def load(name: str, folder: str | Path, *, complete: bool = True) -> tuple[Question, ...]:
    """The questions of a benchmark, in its file's order; everything is read and checked before any is returned.

    Args:
        name: of BENCHMARKS.
        folder: that holds the benchmark's file.
        complete: False takes a file with other than the published number of rows.

    Raises:
        DataError: an unknown name, no such folder or file, a file that cannot be read or is cut off, a row without
            question or answer or with one of a wrong type. It names the file, the row and the cure.
    """
    if name not in BENCHMARKS:
        raise DataError(
            f"unknown benchmark {name!r}; expected one of {listed(BENCHMARKS)}{did_you_mean(name, BENCHMARKS)}"
        )
    benchmark = BENCHMARKS[name]
    folder = at_home(folder)
    path = folder / benchmark.file
    cure = f"python -m aepo.llm.evaluation.suite --download {folder} {name} fetches it"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder for the benchmarks' files; {cure}")
    if not path.exists():
        raise DataError(
            f"{path}: no such file, the folder holds {listed(sorted(p.name for p in folder.iterdir()))}; {cure}"
        )
    rows = read(str(path), benchmark.split)
    if not rows:
        raise DataError(f"{path}: no rows, expected {benchmark.rows[0]}; {cure}")
    questions = tuple(_question(name, path, row, values) for row, values in rows)
    if complete and len(rows) not in benchmark.rows:
        raise DataError(
            f"{path}: ends after row {rows[-1][0]} with {len(rows)} problems, {benchmark.title} has "
            f"{benchmark.rows[0]}: cut off, or not the published file; {cure}"
        )
    return questions


def _question(name: str, path: Path, row: int, values: dict[str, Any]) -> Question:
    where = f"{path}, row {row}"
    column, value = _first(values, ("problem", "question"), where)
    found = asked(value, place=where, field=column)
    context = values.get("context")
    if context is not None and not isinstance(context, str):
        raise DataError(f"{where}, column 'context': holds {kind(context)}; expected a text or null")
    question = f"{context.strip()}\n\n{found.question}" if context and context.strip() else found.question
    reference = _olympiad(values, where) if name == "olympiadbench" else _reference(name, values, where)
    return Question(
        benchmark=name, index=row - 1, question=question, before=found.before, reference=reference.to_json()
    )


def _first(values: dict[str, Any], columns: Sequence[str], where: str) -> tuple[str, Any]:
    """The first of the columns that the row has, and what is in it."""
    for column in columns:
        if column in values:
            return column, values[column]
    near = next((s for s in (did_you_mean(column, values) for column in columns) if s), "")
    raise DataError(
        f"{where}: none of the columns {listed(columns)}, found {listed(values)}; fetch the file again{near}"
    )


def _text(value: Any, where: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: empty; fill it in, or fetch the file again")
    if not isinstance(value, str):
        raise DataError(f"{where}: holds {kind(value)}; expected a text")
    return readable(value, where).strip()


def _reference(name: str, values: dict[str, Any], where: str) -> Reference:
    """Of a row with an answer or a solution; GSM8K's answer is a solution that ends in '#### 18'."""
    column, value = _first(values, ("answer", "solution"), where)
    where = f"{where}, column {column!r}"
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _made(decimal_text(value, where), where)
    text = _text(value, where)
    if name == "gsm8k":
        text, mark, answer = text.rpartition("####")
        if not mark or not answer.strip():
            raise DataError(
                f"{where}: no '#### answer' at the end of {shown(answer[-60:] or text[-60:])}; fetch the file again"
            )
        return _made(answer.strip(), where)
    relative = MINERVA_RELATIVE_TOLERANCE if name == "minerva" else 0.0
    if column == "solution":
        answer = last_boxed(text)
        if answer is None or not answer.strip():
            raise DataError(
                rf"{where}: no \boxed{{answer}} with balanced braces in {shown(text)}; fetch the file again"
            )
        after = text.rpartition(answer)[2].removeprefix("}")[:60]
        return _made(answer.strip(), where, relative=relative, after=after)
    return _made(text, where, relative=relative)


def _olympiad(values: dict[str, Any], where: str) -> Reference:
    for column in ("final_answer", "is_multiple_answer", "unit", "error", "answer_type"):
        _first(values, (column,), where)
    final = values["final_answer"]
    if not isinstance(final, list) or len(final) != 1:
        raise DataError(f"{where}, column 'final_answer': holds {kind(final)}; expected a list with one text")
    published = _text(final[0], f"{where}, column 'final_answer'")
    several = values["is_multiple_answer"]
    if not isinstance(several, bool):
        raise DataError(f"{where}, column 'is_multiple_answer': holds {kind(several)}; expected true or false")
    if values["answer_type"] not in ANSWER_TYPES:
        raise DataError(
            f"{where}, column 'answer_type': holds {kind(values['answer_type'])}; expected one of "
            f"{listed(ANSWER_TYPES)}, as in the English open-ended maths set"
        )
    unit, error = values["unit"], values["error"]
    if unit is not None and not isinstance(unit, str):
        raise DataError(f"{where}, column 'unit': holds {kind(unit)}; expected a text or null")
    try:
        absolute = 0.0 if error in (None, "") else float(error)
    except (TypeError, ValueError) as problem:
        raise DataError(
            f"{where}, column 'error': holds {kind(error)}; expected a number such as 1e-1, or null"
        ) from problem
    return _made(published, where, several=several, unit=(unit or "").strip(" $"), absolute=absolute)


def _made(
    published: str,
    where: str,
    *,
    several: bool | None = None,
    unit: str = "",
    absolute: float = 0.0,
    relative: float = 0.0,
    after: str = "",
) -> Reference:
    """The reference of a published answer.

    Args:
        several: whether it lists several answers; None where the publisher does not say.
        after: what follows it in the solution: its unit, if it starts with one.
    """
    answer = CORRECTIONS.get(published, published)
    parts = answers(answer) if several is not False or "=" in answer else (answer,)
    # 58,500 is one number.
    if not parts or re.fullmatch(r"[-\\$]*[0-9]{1,3}(,(\\!|\s)*[0-9]{3})+", answer) or answer != published:
        parts = (answer,)
    if not unit and leading(after) is not None:
        unit = after.strip()
    try:
        return Reference(answers=parts, published=published, unit=unit, absolute=absolute, relative=relative)
    except ValueError as problem:
        raise DataError(f"{where}: {problem}; fetch the file again") from problem


def download(folder: str | Path, names: Iterable[str] = tuple(BENCHMARKS)) -> list[Path]:
    """Fetch benchmarks from the dataset hub into a folder, each as the file that `load` reads; those there are kept.

    Raises:
        DataError: an unknown name, or the hub cannot be reached.
    """
    folder = at_home(folder)
    written = []
    for name in names:
        if name not in BENCHMARKS:
            raise DataError(f"unknown benchmark {name!r}; expected one of {listed(BENCHMARKS)}")
        path = folder / BENCHMARKS[name].file
        if path.exists():
            continue
        rows = hub_rows(BENCHMARKS[name].hub, BENCHMARKS[name].split)
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_text(path, "".join(json.dumps(values, default=str) + "\n" for _, values in rows))
        load(name, folder)
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the benchmarks' files from the dataset hub."""
    parser = argparse.ArgumentParser(prog="python -m aepo.llm.evaluation.suite", description=main.__doc__)
    parser.add_argument("--download", required=True, metavar="DIR", help="the folder to fill; files in it are kept")
    parser.add_argument("benchmarks", nargs="*", default=list(BENCHMARKS), help=f"of {', '.join(BENCHMARKS)}")
    options = parser.parse_args(arguments)
    try:
        written = download(options.download, options.benchmarks)
    except AepoError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print(f"fetched {listed(path.name for path in written)}; in {options.download} there is now all that was asked for")
    return 0


if __name__ == "__main__":
    sys.exit(main())
