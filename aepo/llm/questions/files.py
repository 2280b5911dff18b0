"""Rows of a file (.jsonl, .json, .parquet) or of a hub dataset, with the place of whatever cannot be read."""

import difflib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from aepo import extras
from aepo.errors import AepoError
from aepo.home_path import at_home
from aepo.number_text import vanishes

SUFFIXES = (".jsonl", ".json", ".parquet")
# Suffixes of data that we do not read: a source that ends so was meant as a file, not as a hub id.
OTHER_SUFFIXES = tuple(".csv .tsv .txt .ndjson .yaml .arrow .feather .pkl .gz .zip .zst .xz".split())


class DataError(AepoError, ValueError):
    """A data source that cannot be used: where, what was met, and the cure."""


# As many names as a person reads.
MOST_LISTED = 20

Rows = list[tuple[int, dict[str, Any]]]
"""(row number from 1, values by column)."""


def read(source: str, split: str) -> Rows:
    """The rows of a file, or of a hub dataset where the source does not look like a file.

    Raises:
        DataError: no such source, or one that cannot be read.
    """
    if not source.strip():
        raise DataError("an empty source; name a file or a hub dataset")
    path = at_home(source)
    suffix = path.suffix.lower()
    try:
        there = path.exists()
    # A name that no disk takes; where there is none of a link's end, and the like, it is False.
    except OSError as problem:
        raise DataError(f"{shown(repr(source))}: no such file ({problem.strerror})") from problem
    if path.is_dir():
        raise DataError(f"{source}: a folder; name one file of it{_files_nearby(path, '')}")
    if there and not path.is_file():
        raise DataError(f"{source}: no regular file but a pipe or a device; write what comes out of it to a file")
    if there:
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
        return json.loads(
            text,
            object_pairs_hook=lambda pairs: _once(pairs, where),
            parse_float=lambda number: _as_typed(number, where),
        )
    except DataError:
        raise
    # ValueError: malformed, or an integer of more than 4,300 digits.
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{where}: not valid JSON ({problem}), in {shown(text.strip())}; {cure}") from problem


def _as_typed(text: str, where: str) -> float | Decimal:
    """The number, as a Decimal where a float has not all of its digits; infinite where it is beyond any float.

    >>> _as_typed("0.1", ""), _as_typed("12345678901234567890.5", "")
    (0.1, Decimal('12345678901234567890.5'))
    """
    number = float(text)
    if vanishes(text):
        raise DataError(f"{where}: the number {shown(text)} is too small to be held; write it as a text")
    if number == 0 or math.isinf(number):
        return number
    exact = Decimal(text)
    return number if Decimal(repr(number)) == exact else exact


def _once(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """An object of which no key stands twice: the parser would take the last without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = _twice(name for name, _ in pairs)
        raise DataError(f"{where}: the key {shown(repr(name))} stands twice in one object; leave one")
    return found


def _twice(names: Iterable[str]) -> str | None:
    """A name that is there more than once; None where each is there once."""
    (name, count), *_ = Counter(names).most_common(1) or [("", 0)]
    return name if count > 1 else None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: holds {kind(value)}; expected an object with the columns of one problem")
    return value


def _parquet_rows(path: Path, source: str) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table, to which a folder called x=1 is a column of the file that lies in it.
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            twice = _twice(schema.names)
            values = [] if twice is not None else file.read().to_pylist()
    # A date beyond year 9999 is a ValueError of Python's own.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as problem:
        raise DataError(f"{source}: not a readable parquet file ({shown(str(problem))}); fetch it again") from problem
    if twice is not None:
        raise DataError(f"{source}: two columns {shown(repr(twice))}; rename one, or leave it out")
    return list(enumerate(_as_written(values, schema), 1))


def _as_written(rows: list[dict[str, Any]], schema: Any) -> list[dict[str, Any]]:
    """The rows, numbers of less than double precision with the digits that tell them apart: 0.1 for float32's 0.1."""
    shorter = {field.name: shorten for field in schema if (shorten := _shortening(field.type)) is not None}
    if not shorter:
        return rows
    return [{name: shorter[name](value) if name in shorter else value for name, value in row.items()} for row in rows]


def _shortening(arrow_type: Any) -> Callable[[Any], Any] | None:
    """What makes of a value of an Arrow type the number as it was written; None where nothing is to be done."""
    import pyarrow.types as of

    if of.is_float16(arrow_type) or of.is_float32(arrow_type):
        width = np.float16 if of.is_float16(arrow_type) else np.float32
        return lambda value: None if value is None else float(str(width(value)))
    if of.is_dictionary(arrow_type):
        return _shortening(arrow_type.value_type)
    lists = (of.is_list, of.is_large_list, of.is_fixed_size_list, of.is_list_view, of.is_large_list_view)
    if any(is_one(arrow_type) for is_one in lists):
        inner = _shortening(arrow_type.value_type)
        return None if inner is None else lambda value: value and [inner(one) for one in value]
    if of.is_map(arrow_type):
        inner = _shortening(arrow_type.item_type)
        return None if inner is None else lambda value: value and [(key, inner(one)) for key, one in value]
    if of.is_struct(arrow_type):
        inside = {field.name: shorten for field in arrow_type if (shorten := _shortening(field.type)) is not None}
        if inside:
            return lambda value: value and {k: inside[k](one) if k in inside else one for k, one in value.items()}
    return None


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
    return list(enumerate(_as_written([dict(values) for values in dataset], dataset.features.arrow_schema), 1))


def kind(value: Any) -> str:
    """What a value is, as a person says it."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return f"{names.get(type(value), f'a value of type {type(value).__name__}')} ({shown(repr(value))})"


def shown(text: str) -> str:
    """The text on one line, cut where it is long; what a terminal would take for a command is escaped.

    >>> shown("a\\nb")
    'a\\\\nb'
    """
    short = text if len(text) <= 80 else text[:77] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in short)


def listed(names: Any) -> str:
    """Names with commas, the first of many."""
    every = [shown(str(name)) for name in names]
    more = f" and {len(every) - MOST_LISTED} more" if len(every) > MOST_LISTED else ""
    return (", ".join(every[:MOST_LISTED]) or "nothing") + more


def _files_nearby(folder: Path, name: str) -> str:
    """The data files of a folder, those with the likest names first; or the nearest folder that exists."""
    if not folder.is_dir():
        while not folder.is_dir():
            folder = folder.parent
        return f"; its folder does not exist, the nearest that does is {folder}"
    files = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)
    near = difflib.get_close_matches(name, files, n=3, cutoff=0.4) or files[:3]
    return f"; nearest files there: {', '.join(near)}" if near else f"; no {', '.join(SUFFIXES)} file in {folder}"
