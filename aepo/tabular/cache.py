"""Finished runs on disk by content: a sweep that was killed goes on where it was.

A file's name is a hash of everything that shapes its numbers: configurations, seeds, and the source of the code that
runs them. It holds its own checksum; a file that does not match it is reported and computed again.
"""

import hashlib
import io
import logging
import pickle
from collections.abc import Sequence
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aepo
from aepo import atomic

log = logging.getLogger("aepo")

# Only what decides the numbers: how a sweep is drawn or told changes none.
SOURCES = ("*.py", "zoo/*.py", "tabular/**/[!_]*.py", "theory/floor.py")
PRESENTATION = {
    *("figures.py", "findings.py", "report.py", "terminal.py", "output.py", "sweep.py", "options.py"),
    *("errors.py", "suggest.py", "atomic.py"),
}


@once
def code_version() -> str:
    """Hash of the sources of the core, the zoo and the simulator, and of torch's and NumPy's versions."""
    digest = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    for path in sources():
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def sources() -> list[Path]:
    """The files that decide a run's numbers."""
    root = Path(aepo.__file__).parent
    return [p for pattern in SOURCES for p in sorted(root.glob(pattern)) if p.name not in PRESENTATION]


class Cache:
    """A folder of results. Writing is a rename, so no reader sees half a file, and two sweeps may share a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, batch: Sequence[Any], seeds: Sequence[int]) -> Path:
        """Where the results of these configurations over these seeds are kept."""
        key = hashlib.sha256(f"{code_version()}\n{batch!r}\n{list(seeds)}".encode()).hexdigest()
        return self.folder / f"{key[:32]}.run"

    def load(self, batch: Sequence[Any], seeds: Sequence[int]) -> Any | None:
        """What `save` kept, or None; a damaged file is named in a warning and counts as missing."""
        path = self.path(batch, seeds)
        if not path.exists():
            return None
        blob = path.read_bytes()
        checksum, content = blob[:32], blob[32:]
        if hashlib.sha256(content).digest() != checksum:
            log.warning("%s is damaged (its checksum does not match): computed again", path)
            return None
        return pickle.load(io.BytesIO(content))

    def save(self, batch: Sequence[Any], seeds: Sequence[int], results: Any) -> None:
        """Keep the results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = pickle.dumps(results, protocol=pickle.HIGHEST_PROTOCOL)
        blob = hashlib.sha256(content).digest() + content
        atomic.write_bytes(self.path(batch, seeds), blob, shared=True)
