"""Rows of a file (.jsonl, .json, .parquet) or of a hub dataset, with the place of whatever cannot be read."""

import difflib
import json
from pathlib import Path
from typing import Any

from aepo import extras
from aepo.errors import AepoError

SUFFIXES = (".jsonl", ".json", ".parquet")
# Suffixes of data that we do not read: a source that ends so was meant as a file, not as a hub id.
OTHER_SUFFIXES = tuple(".csv .tsv .txt .ndjson .yaml .arrow .feather .pkl .gz .zip .zst .xz".split())


class DataError(AepoError, ValueError):
    """A data source that cannot be used: where, what was met, and the cure."""


Rows = list[tuple[int, dict[str, Any]]]
"""(row number from 1, values by column)."""


def read(source: str, split: str) -> Rows:
    """The rows of a file, or of a hub dataset where the source does not look like a file.

    Raises:
        DataError: no such source, or one that cannot be read.
    """
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
    return hub_rows(source, split)


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
        raise DataError(f"{source}: holds {kind(values)}; expected a list of objects, one a problem")
    return [(row, _object(value, f"{source}, row {row}")) for row, value in enumerate(values, 1)]


def _json(text: str, where: str, cure: str) -> Any:
    try:
        return json.loads(text)
    # ValueError: malformed, or an integer of more than 4,300 digits.
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{where}: not valid JSON ({problem}), in {shown(text.strip())}; {cure}") from problem


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds {kind(value)}; expected an object with the columns of one problem")
    return value


def _parquet_rows(path: Path, source: str) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        values = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{source}: not a readable parquet file ({shown(str(problem))}); fetch it again") from problem
    return list(enumerate(values, 1))


def hub_rows(source: str, split: str) -> Rows:
    """The rows of a hub dataset "owner/name" or "owner/name:config".

    Raises:
        DataError: the hub has none, or cannot be reached.
    """
    name, _, config = source.partition(":")
    try:
        import datasets
    except ImportError as problem:
        raise DataError(
            f"{source!r}: no such file, and reading it from the hub needs the package datasets; "
            f"{extras.install('llm')}, or name a {', '.join(SUFFIXES)} file"
        ) from problem
    try:
        dataset = datasets.load_dataset(name, config or None, split=split)
    # The network, the hub's answer and the dataset's own files raise dozens of types; all mean the same here.
    except Exception as problem:
        raise DataError(
            f"{source!r}: no such file, and the hub gave no split {split!r} of such a dataset "
            f"({type(problem).__name__}: {shown(str(problem))}); check the id (owner/name, or "
            f"owner/name:config), the split and the network, or name a {', '.join(SUFFIXES)} file"
        ) from problem
    return [(row, dict(values)) for row, values in enumerate(dataset, 1)]


def kind(value: Any) -> str:
    """What a value is, as a person says it."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return f"{names.get(type(value), f'a value of type {type(value).__name__}')} ({shown(repr(value))})"


def shown(text: str) -> str:
    """The text, cut where it is long."""
    return text if len(text) <= 80 else text[:77] + "..."


def listed(names: Any) -> str:
    """Names with commas."""
    return ", ".join(map(str, names)) or "nothing"


def _files_nearby(folder: Path, name: str) -> str:
    """The data files of a folder, those with the likest names first; or the nearest folder that exists."""
    if not folder.is_dir():
        while not folder.is_dir():
            folder = folder.parent
        return f"; its folder does not exist, the nearest that does is {folder}"
    files = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    near = difflib.get_close_matches(name, files, n=3, cutoff=0.4) or files[:3]
    return f"; nearest files there: {', '.join(near)}" if near else f"; no {', '.join(SUFFIXES)} file in {folder}"
