r"""Questions with a reference answer, read from files as their publishers ship them, or from the dataset hub.

Files are .jsonl, .json (a list of objects) or .parquet. Any column or row that cannot be used is a DataError
that names the file, the row, the column, what was met and the cure; all of it before a model is built.
"""

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aepo.llm.grading import last_boxed

QUESTION_COLUMNS = ("question", "problem", "prompt")
ANSWER_COLUMNS = ("answer", "final_answer")
SOLUTION_COLUMN = "solution"
"""Where the answer stands in \\boxed{...}; only read if there is no column of ANSWER_COLUMNS."""
SUFFIXES = (".jsonl", ".json", ".parquet")
# Suffixes of data that we do not read: a source that ends so was meant as a file, not as a hub id.
OTHER_SUFFIXES = tuple(".csv .tsv .txt .ndjson .yaml .arrow .feather .pkl .gz .zip .zst .xz".split())

TEMPLATES = {
    "plain": "Question: {question}\nPut your final answer within \\boxed{}.\nAnswer:",
    # The chat format of Qwen2.5-Math, with the system prompt of its model card.
    "qwen_math": (
        "<|im_start|>system\n"
        "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
}
"""Prompt templates by name; {question} stands where the question goes, any other brace for itself."""


class DataError(ValueError):
    """A data source that cannot be used: where, what was met, and the cure."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A question and its reference answer."""

    question: str
    """Without white space around it, otherwise as published."""
    answer: str
    """The final answer alone, plain or LaTeX; never empty."""
    row: int
    """From 1: the line of a .jsonl, the position anywhere else."""


def load_problems(
    source: str, *, question_column: str | None = None, answer_column: str | None = None, split: str = "train"
) -> tuple[Problem, ...]:
    r"""Every problem of a file or hub dataset, in its order.

    Answers become text: 27.0 is "27", a list of one is its element, '... #### 18' (GSM8K) is "18", and a
    column whose name contains "solution" gives the content of its last \boxed{...}. Blank lines of a .jsonl
    are skipped.

    Args:
        source: a path (.jsonl, .json, .parquet), or a hub dataset "owner/name", ":config" added where it has several.
        question_column: None takes the one of QUESTION_COLUMNS that exists; several must agree in every row.
        answer_column: None takes the one of ANSWER_COLUMNS that exists, or else `solution`.
        split: of a hub dataset; files have none.

    Raises:
        DataError: no such source, a file that cannot be read, a missing column, a row without question or answer.
    """
    rows = _rows(source, split)
    if not rows:
        raise DataError(f"{source}: no rows; expected at least one problem")
    question_column = _column(rows, source, wanted=question_column, known=QUESTION_COLUMNS, option="question_column")
    known = ANSWER_COLUMNS if any(name in rows[0][1] for name in ANSWER_COLUMNS) else (SOLUTION_COLUMN,)
    answer_column = _column(rows, source, wanted=answer_column, known=known, option="answer_column")
    problems = []
    for row, values in rows:
        for column in (question_column, answer_column):
            if column not in values:
                raise DataError(
                    f"{source}, row {row}: no column {column!r}, found {_listed(values)}; add it, or remove the row"
                )
        question = _question(values[question_column], f"{source}, row {row}, column {question_column!r}")
        answer = _answer(values[answer_column], answer_column, f"{source}, row {row}, column {answer_column!r}")
        problems.append(Problem(question=question, answer=answer, row=row))
    return tuple(problems)


def prompt_text(question: str, template: str) -> str:
    r"""The prompt for a question.

    Args:
        question: as `Problem.question` holds it; its braces stay as they are.
        template: a name in TEMPLATES.

    Raises:
        DataError: an unknown template.

    >>> print(prompt_text("What is $1 + 1$?", "plain"))
    Question: What is $1 + 1$?
    Put your final answer within \boxed{}.
    Answer:
    """
    if template not in TEMPLATES:
        near = _suggestion(template, TEMPLATES)
        raise DataError(f"template must be one of {', '.join(TEMPLATES)}, got {template!r}{near}")
    before, after = TEMPLATES[template].split("{question}")
    return before + question + after


Rows = list[tuple[int, dict[str, Any]]]
"""(row number from 1, values by column)."""


def _rows(source: str, split: str) -> Rows:
    if not source.strip():
        raise DataError("an empty source; name a file or a hub dataset")
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{source}: a folder; name one file of it{_files_nearby(path, '')}")
    if path.exists():
        readers = {".jsonl": _jsonl_rows, ".json": _json_rows, ".parquet": _parquet_rows}
        if suffix not in readers:
            raise DataError(f"{source}: unsupported suffix {suffix!r}; expected one of {', '.join(SUFFIXES)}")
        return readers[suffix](path, source)
    if suffix in SUFFIXES + OTHER_SUFFIXES or source[0] in "./~" or source.count("/") > 1:
        raise DataError(f"{source!r}: no such file{_files_nearby(path.parent, path.name)}")
    return _hub_rows(source, split)


def _text(path: Path, source: str) -> str:
    try:
        raw = path.read_bytes()
    except OSError as problem:
        raise DataError(f"{source}: cannot be read ({problem.strerror}); check its permissions") from problem
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        row = raw.count(b"\n", 0, problem.start) + 1
        raise DataError(
            f"{source}, row {row}: byte 0x{raw[problem.start]:02x} at offset {problem.start} is not UTF-8; "
            f"save the file in UTF-8, uncompressed"
        ) from problem


def _jsonl_rows(path: Path, source: str) -> Rows:
    rows = []
    # Not splitlines(): it also splits at U+2028, which JSON strings may hold.
    for row, line in enumerate(_text(path, source).split("\n"), 1):
        if line.strip():
            value = _json(line, f"{source}, row {row}", "write one JSON object a line")
            rows.append((row, _object(value, f"{source}, row {row}")))
    return rows


def _json_rows(path: Path, source: str) -> Rows:
    text = _text(path, source)
    if not text.strip():
        return []
    values = _json(text, source, "write one list of objects, or one object a line in a .jsonl")
    if not isinstance(values, list):
        raise DataError(f"{source}: holds {_kind(values)}; expected a list of objects, one a problem")
    return [(row, _object(value, f"{source}, row {row}")) for row, value in enumerate(values, 1)]


def _json(text: str, where: str, cure: str) -> Any:
    try:
        return json.loads(text)
    # ValueError: malformed, or an integer of more than 4,300 digits.
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{where}: not valid JSON ({problem}), in {_shown(text.strip())}; {cure}") from problem


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds {_kind(value)}; expected an object with the columns of one problem")
    return value


def _parquet_rows(path: Path, source: str) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        values = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{source}: not a readable parquet file ({_shown(str(problem))}); fetch it again") from problem
    return list(enumerate(values, 1))


def _hub_rows(source: str, split: str) -> Rows:
    name, _, config = source.partition(":")
    try:
        import datasets
    except ImportError as problem:
        raise DataError(
            f"{source!r}: no such file, and reading it from the hub needs the package datasets; "
            f"pip install 'aepo[llm]', or name a {', '.join(SUFFIXES)} file"
        ) from problem
    try:
        dataset = datasets.load_dataset(name, config or None, split=split)
    # The network, the hub's answer and the dataset's own files raise dozens of types; all mean the same here.
    except Exception as problem:
        raise DataError(
            f"{source!r}: no such file, and the hub gave no split {split!r} of such a dataset "
            f"({type(problem).__name__}: {_shown(str(problem))}); check the id (owner/name, or "
            f"owner/name:config), the split and the network, or name a {', '.join(SUFFIXES)} file"
        ) from problem
    return [(row, dict(values)) for row, values in enumerate(dataset, 1)]


def _column(rows: Rows, source: str, *, wanted: str | None, known: Sequence[str], option: str) -> str:
    """The column to read: the one asked for, or the one known name that the first row has."""
    columns = rows[0][1]
    if wanted is not None:
        if wanted not in columns:
            near = _suggestion(wanted, columns)
            raise DataError(f"{source}: no column {wanted!r} ({option}), found {_listed(columns)}{near}")
        return wanted
    present = [name for name in known if name in columns]
    if not present:
        near = next((s for s in (_suggestion(name, columns) for name in known) if s), "")
        raise DataError(
            f"{source}: none of the columns {_listed(known)}, found {_listed(columns)}; name it with {option}{near}"
        )
    first, *others = present
    for row, values in rows:
        for other in others:
            if values.get(first) != values.get(other):
                raise DataError(
                    f"{source}, row {row}: columns {first!r} and {other!r} differ, found {_listed(columns)}; "
                    f"name the one to read with {option}"
                )
    return first


def _question(value: Any, where: str) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: empty question; fill it in, or remove the row")
    if not isinstance(value, str):
        raise DataError(f"{where}: holds {_kind(value)}; expected the question as text")
    return value.strip()


def _answer(value: Any, column: str, where: str) -> str:
    if isinstance(value, list):
        if len(value) > 1:
            raise DataError(
                f"{where}: a list of {len(value)} answers; expected one, so join them into one text (1,3,5)"
            )
        value = value[0] if value else None
    if value is None or (isinstance(value, str) and not value.strip()):
        raise DataError(f"{where}: empty answer; fill it in, or remove the row")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{where}: holds {_kind(value)}; expected the answer as text or number")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{where}: the answer is {value}; expected a finite number or a text")
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    return _final_answer(value, column, where)


def _final_answer(text: str, column: str, where: str) -> str:
    if "solution" in column.lower():
        answer = last_boxed(text)
        if answer is None:
            raise DataError(
                rf"{where}: no \boxed{{...}} with balanced braces in {_shown(text)}; name a column of final "
                "answers with answer_column, or remove the row"
            )
    else:
        answer = text.rsplit("####", 1)[-1]
    if not answer.strip():
        raise DataError(f"{where}: empty answer at the end of {_shown(text[-60:])}; fill it in, or remove the row")
    return answer.strip()


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return f"{names.get(type(value), f'a value of type {type(value).__name__}')} ({_shown(repr(value))})"


def _shown(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _listed(names: Any) -> str:
    return ", ".join(map(str, names)) or "nothing"


def _suggestion(wanted: str, names: Any) -> str:
    """'; did you mean ...?' for the nearest name, whatever its case; else nothing."""
    by_lower = {str(name).lower(): str(name) for name in names}
    near = difflib.get_close_matches(wanted.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def _files_nearby(folder: Path, name: str) -> str:
    """The data files of a folder, those with the likest names first; or the nearest folder that exists."""
    if not folder.is_dir():
        while not folder.is_dir():
            folder = folder.parent
        return f"; its folder does not exist, the nearest that does is {folder}"
    files = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    near = difflib.get_close_matches(name, files, n=3, cutoff=0.4) or files[:3]
    return f"; nearest files there: {', '.join(near)}" if near else f"; no {', '.join(SUFFIXES)} file in {folder}"
