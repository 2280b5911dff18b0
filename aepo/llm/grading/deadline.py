"""A deadline for one comparison, which rings until it is heard."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# math-verify's own default: nearly all comparisons take milliseconds, what takes longer never ends.
TIMEOUT_SECONDS = 5
# A deadline that was swallowed comes again after this long.
DEADLINE_REPEAT_SECONDS = 0.2


class _DeadlineError(BaseException):
    """Not an Exception: sympy and math-verify catch those and go on."""


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """TimeoutError in the body after that many seconds of wall-clock time; None sets none.

    math-verify's own alarm rings once, and what a signal handler raises inside a destructor or a callback of the
    garbage collector is lost: then nothing stops sympy. This one rings until the body is left.

    Raises:
        TimeoutError: the time is over.
        RuntimeError: off the main thread, where no alarm can be set.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "math_reward's deadline needs the main thread of its process (SIGALRM): grade in worker "
            "processes, or pass timeout_seconds=None and stop what hangs yourself"
        )

    def ring(number, frame):
        raise _DeadlineError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds, DEADLINE_REPEAT_SECONDS)
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    except _DeadlineError:
        raise TimeoutError from None
