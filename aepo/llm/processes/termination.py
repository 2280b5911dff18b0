"""SIGTERM as a request: the step goes on to its end, then the run is saved and leaves with exit code 0."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from aepo.llm.processes import ranks


class Termination:
    """Whether this run was asked to end."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM asks, as long as this is open. More of them ask for the same: a queue tells every process of a job,
        and the launcher, which is one of them, tells its ranks again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGTERM)

        def ask(*_) -> None:
            self.asked = True

        signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def agreed(self) -> bool:
        """Whether any rank was asked; called by all ranks together, so that they end after the same step."""
        return ranks.anywhere(self.asked)
