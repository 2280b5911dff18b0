"""The phases of a step: how long each took, and a watchdog that ends a run which hangs in one.

Every rank watches itself. When one hangs, the others wait for it in the same phase, so all of them say where they are.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from aepo.errors import HUNG

# Between the stacks and the end, so that the other ranks get to print theirs before the launcher ends them.
GRACE = 10.0


def end() -> None:
    """Leave at once: a hung thread would never let an ordinary exit through."""
    time.sleep(GRACE)
    os._exit(HUNG)


class Phases:
    """Seconds by phase since `begin`; a phase over its deadline prints every thread's stack and ends the process.

    Args:
        deadlines: phase -> seconds, or None for no deadline.
        rank: of this process, named in the message.
        on_late: called after the stacks were printed.
    """

    def __init__(
        self, deadlines: Mapping[str, float | None], *, rank: int = 0, on_late: Callable[[], None] = end
    ) -> None:
        self.deadlines = dict(deadlines)
        self.rank = rank
        self.on_late = on_late
        self.begin(0)

    def begin(self, step: int) -> None:
        """A new step starts; its clock is 0."""
        self.step = step
        self.started = time.monotonic()
        self.laps: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Everything inside is the phase `name`; phases of one name add up, and do not nest.

        Raises:
            KeyError: a phase without an entry in `deadlines`.
        """
        deadline = self.deadlines[name]
        watch = None
        if deadline is not None:
            watch = threading.Timer(deadline, self._late, (name, deadline, self.step))
            watch.daemon = True
            watch.start()
            # A timer needs the interpreter; this one also fires where native code never gives it back.
            faulthandler.dump_traceback_later(deadline + 3 * GRACE, exit=True, file=_real_stderr())
        began = time.monotonic()
        try:
            yield
        finally:
            if watch is not None:
                watch.cancel()
                faulthandler.cancel_dump_traceback_later()
            self.laps[name] = self.laps.get(name, 0.0) + time.monotonic() - began

    def seconds(self) -> dict[str, float]:
        """time/PHASE of each, and time/step of everything since `begin`."""
        named = {f"time/{name}": seconds for name, seconds in self.laps.items()}
        return {**named, "time/step": time.monotonic() - self.started}

    def _late(self, name: str, deadline: float, step: int) -> None:
        print(
            f"error: rank {self.rank}: phase '{name}' of step {step} has run for {deadline:g} s "
            f"(watchdog.{name}={deadline:g}); where every thread is:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True, file=_real_stderr())
        self.on_late()


def _real_stderr():
    # faulthandler writes to a file descriptor, which a replaced stderr need not have.
    try:
        sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return sys.__stderr__
    return sys.stderr
