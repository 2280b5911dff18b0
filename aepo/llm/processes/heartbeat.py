"""Whether the other ranks are alive: each gives signs of life, and a thread of each looks for the others'.

Between CPUs (gloo) an exchange with a rank that is gone fails at once. Between GPUs (NCCL) the others wait in a kernel
that notices nothing, up to the longest deadline of a phase.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch.distributed as dist

from aepo.errors import RANK_LOST
from aepo.llm.processes import ranks

LOOKS = 10
"""Looks for a new sign of life, one after the other, after which a rank without any is lost."""
LEFT = b"left"
"""What a rank that has done its work leaves in the place of a sign of life."""
LAST_WORD = 5.0
"""Seconds that leaving it may take: a rank that ends does not wait for a store that is gone."""
WHAT_TO_DO = "see what it said last, on its own node; then start every node again with --resume auto"


def end() -> None:
    """Leave at once: the main thread waits for a rank that never answers, and cannot be told."""
    os._exit(RANK_LOST)


@contextlib.contextmanager
def beating(lost_after: float | None, *, on_lost: Callable[[], None] = end) -> Iterator[None]:
    """Give signs of life and look for those of the others, as long as this is open; called by all ranks.

    A rank that leaves this without an error has done its work, and nobody misses it. One that leaves it by an error
    falls silent, so that those who wait for it end as well.

    Args:
        lost_after: seconds without a sign of life after which a rank is lost; None looks for nobody.
        on_lost: is called once the others were told, on standard error, who was lost.
    """
    if lost_after is None or ranks.world_size() == 1:
        yield
        return
    heart = _Heart(lost_after, on_lost)
    heart.start()
    try:
        yield
        heart.last_word = LEFT
    finally:
        heart.stopped.set()
        heart.join(LAST_WORD)


class _Heart(threading.Thread):
    """Writes this rank's sign of life and reads the others', over a connection of its own to the ranks' store.

    The connection of the process group will not do: a rank that waits at it for another keeps it for as long.
    """

    def __init__(self, lost_after: float, on_lost: Callable[[], None]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self.lost_after = lost_after
        self.on_lost = on_lost
        self.stopped = threading.Event()
        self.last_word: bytes | None = None
        # Read now: engines change the environment for a moment when they start.
        self.place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        self.store: dist.Store | None = None
        self.me = ranks.rank()
        others = [rank for rank in range(ranks.world_size()) if rank != self.me]
        self.signs = dict.fromkeys(others, b"")
        """The last sign of life of each other rank."""
        self.missed = dict.fromkeys(others, 0)
        """Looks since it was new. They are counted, and not the time: a process that was stopped for a while finds the
        signs of all others old."""

    def run(self) -> None:
        beats = 0
        while not self.stopped.wait(self.lost_after / LOOKS):
            beats += 1
            try:
                self._beat(str(beats).encode())
            except RuntimeError:
                # The store is rank 0's: of the others nothing is known without it.
                self.store = None
                if 0 in self.missed:
                    self.missed[0] += 1
            silent = [rank for rank, missed in self.missed.items() if missed >= LOOKS]
            if silent and not self.stopped.is_set():
                self._tell(silent)
                self.on_lost()
                return
        if self.last_word is not None:
            with contextlib.suppress(RuntimeError):
                self._connected().set(_key(self.me), self.last_word)

    def _beat(self, sign: bytes) -> None:
        """Give a sign, and look for each of the others'."""
        store = self._connected()
        store.set(_key(self.me), sign)
        for rank, last in self.signs.items():
            # Reading a sign that was never given would wait for it.
            self.signs[rank] = store.get(_key(rank)) if store.check([_key(rank)]) else b""
            new = self.signs[rank] != last or self.signs[rank] == LEFT
            self.missed[rank] = 0 if new else self.missed[rank] + 1

    def _connected(self) -> dist.Store:
        if self.store is None:
            host, port = self.place
            patience = timedelta(seconds=max(1.0, self.lost_after / LOOKS))
            self.store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=patience)
        return self.store

    def _tell(self, silent: list[int]) -> None:
        print(
            f"error: rank {self.me}: rank {', '.join(map(str, silent))} was lost or does not answer (no sign of life "
            f"for {self.lost_after:g} s, watchdog.lost_after): {WHAT_TO_DO}",
            file=sys.stderr,
            flush=True,
        )


def _key(rank: int) -> str:
    return f"aepo/heartbeat/{rank}"
