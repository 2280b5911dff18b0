"""What one process may do alone: write to a folder of results, and act for all ranks."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from aepo.llm.processes import ranks
from aepo.llm.settings import SettingsError

log = logging.getLogger("aepo")

LOCK = ".lock"


@contextlib.contextmanager
def alone(folder: Path, *, option: str) -> Iterator[None]:
    """Hold a folder; the lock ends with this process, however it ends.

    Args:
        folder: is made where it is not there.
        option: as a person names the folder, for the message.

    Raises:
        SettingsError: another process holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Not emptied before it is held: it says who holds it.
            file = stack.enter_context((folder / LOCK).open("a+"))
        except OSError as error:
            raise SettingsError(
                f"{option}={folder}: cannot be written ({error.strerror}); choose a folder on a disk that can"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise SettingsError(
                f"{option}={folder}: another run works there ({file.read().strip() or 'it does not say which'}); wait "
                "for it or end it, or choose another"
            ) from error
        except OSError as error:
            # Some network file systems have no locks.
            log.warning("%s cannot be locked (%s): see that no other run works there", folder, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def only_first(act: Callable[[], None]) -> None:
    """Rank 0 acts; what it cannot do stops every rank. Called by all ranks together.

    Raises:
        SettingsError: rank 0 could not; the others say so too.
    """
    problem = None
    if ranks.rank() == 0:
        try:
            act()
        except (SettingsError, OSError) as error:
            problem = error
    if ranks.anywhere(problem is not None):
        raise SettingsError(str(problem or "refused by rank 0"))
