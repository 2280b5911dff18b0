"""Samples on disk: lines appended as they finish, mended after a kill, and in the end one sorted parquet file.

Every rank appends to a file of its own, and who wrote a line is of no account when it is read: another number of ranks
goes on with what is there. Nothing is kept in memory but where each sample stands.
"""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aepo import atomic
from aepo.llm.settings import SettingsError

log = logging.getLogger("aepo")

SCHEMA = pa.schema(
    [
        ("benchmark", pa.string()),
        ("problem", pa.int64()),
        ("mode", pa.string()),
        ("sample", pa.int64()),
        ("seed", pa.uint64()),
        ("reward", pa.float64()),
        ("extracted", pa.string()),
        ("reason", pa.string()),
        ("response", pa.string()),
        ("response_tokens", pa.int64()),
        ("ended", pa.bool_()),
        ("mean_entropy", pa.float64()),
        ("temperature", pa.float64()),
    ]
)
"""Columns of samples.parquet, and keys of a line."""
# Of responses of 8192 tokens, about 8 MB.
ROW_GROUP = 256


@dataclass(frozen=True, kw_only=True)
class Table:
    """The samples of one set in one mode: problems x samples."""

    benchmark: str
    mode: str
    problems: Sequence[int]
    """Ascending."""
    n: int

    @property
    def size(self) -> int:
        return len(self.problems) * self.n


class Ledger:
    """The samples of one evaluation.

    Args:
        folder: of the .jsonl files; made where it is not there.
        tables: what belongs into it, sorted by benchmark and mode.
    """

    def __init__(self, folder: Path, tables: Sequence[Table]) -> None:
        self.folder = folder
        self.tables = tables
        starts = np.cumsum([0, *(table.size for table in tables)]).tolist()
        self._start = {(t.benchmark, t.mode): start for t, start in zip(tables, starts, strict=False)}
        self._row = {(t.benchmark, t.mode): {p: i for i, p in enumerate(t.problems)} for t in tables}
        self._n = {(t.benchmark, t.mode): t.n for t in tables}
        self.size = starts[-1]
        folder.mkdir(parents=True, exist_ok=True)

    def mend(self) -> int:
        """Cut off the half lines that a kill left; bytes cut. By one process, before anybody appends."""
        cut = 0
        for path in self._files():
            with path.open("rb+") as file:
                size = file.seek(0, os.SEEK_END)
                keep = _end_of_lines(file, size)
                if keep < size:
                    file.truncate(keep)
                    os.fsync(file.fileno())
                    cut += size - keep
        return cut

    def place(self, benchmark: str, mode: str, problem: int, sample: int) -> int:
        """Position of a sample in the sorted file; KeyError for one that does not belong into it."""
        key = (benchmark, mode)
        if not 0 <= sample < self._n[key]:
            raise KeyError(sample)
        return self._start[key] + self._row[key][problem] * self._n[key] + sample

    def find(self) -> "Found":
        """Where each sample stands.

        Raises:
            SettingsError: a line that is no sample of this evaluation, or one that is there twice.
        """
        files = self._files()
        where = Found(files=files, file=np.full(self.size, -1, np.int32), offset=np.zeros(self.size, np.int64))
        for number, path in enumerate(files):
            for line, offset, row in _rows(path):
                try:
                    place = self.place(row["benchmark"], row["mode"], row["problem"], row["sample"])
                except (KeyError, TypeError) as error:
                    raise SettingsError(
                        f"{path}, line {line}: no sample of this evaluation ({error} is unknown); delete the line, or "
                        "choose another --out"
                    ) from error
                if where.file[place] >= 0:
                    raise SettingsError(
                        f"{path}, line {line}: sample {row['sample']} of {row['benchmark']} {row['mode']} problem "
                        f"{row['problem']} is also in {files[where.file[place]]}; delete one of the lines"
                    )
                where.file[place], where.offset[place] = number, offset
        return where

    def append(self, rows: Sequence[Mapping[str, Any]], *, rank: int) -> None:
        """Write finished samples; they are on the disk when this returns.

        Raises:
            OSError: they are not.
        """
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        with (self.folder / f"rank_{rank:04d}.jsonl").open("ab", buffering=0) as file:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
            os.fsync(file.fileno())

    def write_parquet(self, path: Path) -> None:
        """All samples, sorted, as one file that is whole or not there; in memory is one row group at a time.

        Raises:
            ValueError: a sample is missing.
        """
        found = self.find()
        if len(found.missing):
            raise ValueError(f"{len(found.missing)} of {self.size} samples are missing")
        with atomic.written(path, durable=True) as beside:
            with pq.ParquetWriter(beside, SCHEMA, compression="zstd") as writer:
                for start in range(0, self.size, ROW_GROUP):
                    rows = list(found.rows(range(start, min(start + ROW_GROUP, self.size))))
                    writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), row_group_size=ROW_GROUP)

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where the samples of a ledger stand, by their position in the sorted file."""

    files: Sequence[Path]
    file: NDArray[np.int32]
    """Index into `files`; -1: missing."""
    offset: NDArray[np.int64]

    @property
    def missing(self) -> NDArray[np.int64]:
        """Positions of the samples that are not there, ascending."""
        return np.flatnonzero(self.file < 0)

    def rows(self, places: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The samples at these positions."""
        with contextlib.ExitStack() as stack:
            opened: dict[int, Any] = {}
            for place in places:
                number = int(self.file[place])
                if number not in opened:
                    opened[number] = stack.enter_context(self.files[number].open("rb"))
                opened[number].seek(self.offset[place])
                yield json.loads(opened[number].readline())


def _rows(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(line from 1, offset, sample)."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or set(row) != set(SCHEMA.names):
                    raise ValueError("not the columns of a sample")
            except ValueError as error:
                raise SettingsError(
                    f"{path}, line {number}: unreadable ({error}); delete the line, and the sample is drawn again"
                ) from error
            yield number, offset, row
            offset += len(line)


def _end_of_lines(file: Any, size: int) -> int:
    """Length of the file up to its last line end."""
    block = 1 << 16
    end = size
    while end:
        start = max(0, end - block)
        file.seek(start)
        at = file.read(end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
