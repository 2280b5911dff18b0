"""A command whose output goes to the log as it comes, so that it is there if the stage is ended meanwhile."""

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aepo.errors import AepoError


class TooLong(AepoError):
    """A command was ended because its time was over."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    text: str
    """Everything that it printed."""

    @property
    def last_line(self) -> str:
        """The last line that is not empty; of a traceback that is the error."""
        return next((line.strip() for line in reversed(self.text.splitlines()) if line.strip()), "")


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    seconds: float | None = None,
) -> Ended:
    """Run a command to its end.

    Args:
        environment: variables beside those of this process.
        folder: where it runs; here if None.
        seconds: after so many it is ended.

    Raises:
        TooLong: it was ended.
    """
    process = subprocess.Popen(
        command,
        env=os.environ | (environment or {}),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    over = threading.Event()

    def end() -> None:
        over.set()
        process.kill()

    timer = None if seconds is None else threading.Timer(max(seconds, 1), end)
    if timer is not None:
        timer.start()
    lines = []
    with process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if timer is not None:
        timer.cancel()
    if over.is_set():
        raise TooLong(f"not done after {seconds:.0f} s")
    return Ended(code=process.returncode, text="".join(lines))
