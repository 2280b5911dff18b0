"""Files that are whole or not there: written beside their name, then renamed, which every reader sees at once.

What a killed process leaves is a hidden `.NAME.part`, which nothing reads. Folders that several ranks fill, as a
checkpoint's, do the same by themselves (`aepo.llm.checkpoints.checkpoint.save`).
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written(path: Path, *, shared: bool = False, durable: bool = False) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` when this is left; an error leaves `path` as it was.

    Args:
        path: of the file; its folder is there.
        shared: other processes may write it at the same time: each has a file of its own, and the last one stays.
        durable: the content is on the disk, not only in the system's cache, before it takes its place: after the
            machine went down there is the old file or the new one, none that is empty.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part" if shared else f".{path.name}.part")
    try:
        yield beside
        if durable:
            sync(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes, *, shared: bool = False, durable: bool = False) -> None:
    """A file of these bytes, as `written` does it."""
    with written(path, shared=shared, durable=durable) as beside:
        beside.write_bytes(content)


def write_text(path: Path, content: str, *, shared: bool = False, durable: bool = False) -> None:
    """A file of this text in UTF-8, its line ends as they are, as `written` does it."""
    write_bytes(path, content.encode(), shared=shared, durable=durable)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk and not in the system's cache only."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
