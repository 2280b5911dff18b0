"""What a stage found, written check by check, so that a stage that dies leaves what it had found."""

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aepo.errors import AepoError

ENDED = "the stage came to its end"
"""Last line of the record of a stage that was not cut short."""
Facts = Mapping[str, Any]
"""Name -> number, word or truth, as JSON takes them."""


class LeftOut(AepoError):
    """Raised with the reason why a check, or a whole stage, cannot be made here."""


class Wrong(AepoError):
    """Raised with what a check found wrong, and with the figures that show it."""

    def __init__(self, why: str, **facts: Any) -> None:
        super().__init__(why)
        self.facts = facts


class Findings:
    """The checks of one stage, each a line of JSON in a file."""

    def __init__(self, path: Path, *, seconds: float) -> None:
        self.path = path
        self._ends = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until the stage is ended."""
        return self._ends - time.monotonic()

    def check(self, what: str, run: Callable[[], Facts]) -> bool:
        """Make one check and write down how it ended; whether it passed.

        Args:
            what: the check in words, once a stage.
            run: returns the figures of a check that passed; what it raises makes the check failed or, if that is
                `LeftOut` or a package that is not installed, left out.
        """
        # Whoever reads the file of a stage that died sees by this line in which check it was.
        self._write(what, "begun")
        print(f"--- {what}", flush=True)
        try:
            facts = run()
        # The boundary of a check: one that fails must not keep the others from being made.
        except Exception as error:
            why_not = obstacle(error)
            if why_not is None:
                traceback.print_exc(file=sys.stdout)
                self._write(what, "failed", why=last_line(error), facts=getattr(error, "facts", {}))
            else:
                self._write(what, "left out", why=why_not)
            return False
        self._write(what, "passed", facts=facts)
        return True

    def left_out(self, what: str, why: str) -> None:
        """Write down a check that was not made, and why."""
        self._write(what, "left out", why=why)

    def ended(self) -> None:
        """Write down that nothing more is to come, which a stage that was cut short does not."""
        self._write(ENDED, "passed")

    def _write(self, what: str, status: str, *, why: str | None = None, facts: Facts | None = None) -> None:
        line = {"what": what, "status": status, "why": why, "facts": _as_json(dict(facts or {}))}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def obstacle(error: BaseException) -> str | None:
    """Why something cannot be done on this machine, or None if the error says something else."""
    if isinstance(error, LeftOut):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "aepo":
        return f"{error.name.partition('.')[0]} is not installed"
    return None


def last_line(error: BaseException) -> str:
    """An error in one line; of a compiler's message, which may be long, the last one."""
    lines = str(error).strip().splitlines()
    said = lines[-1].strip()[:400] if lines else ""
    return said if isinstance(error, Wrong) else f"{type(error).__name__}: {said}".rstrip(": ")


def _as_json(value: Any) -> Any:
    """The same, with numbers that JSON does not know as words."""
    if isinstance(value, dict):
        return {key: _as_json(one) for key, one in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
