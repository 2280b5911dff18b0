"""Grading in processes that can be killed: a reward that hangs, crashes or fills the memory costs its own item only.

A worker is a fresh interpreter that imports the reward by its name: no torch, no CUDA, nothing of the trainer's state,
and the parent's `__main__` is not run again. Items go to it in chunks over a socket; a verdict comes back for each.
"""

import ctypes
import json
import math
import multiprocessing.connection
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from aepo.errors import AepoError
from aepo.llm.grading import Verdict, math_reward
from aepo.llm.grading.rewards import (
    Reward,
    RewardFunction,
    RewardSum,
    failed,
    functions_of,
    judged,
    load_reward,
    told,
    troubles,
    unhurried_math_reward,
)

__all__ = ["GradingPool", "judged", "load_reward", "troubles", "unhurried_math_reward"]

Item = tuple[str, str] | tuple[str, str, Mapping[str, Any]]
"""Response and answer, and columns of the row for a reward that takes some."""

# An easy item takes 50 microseconds, as a message does: chunks share that cost. Small, since its worker runs one alone.
CHUNK_ITEMS = 16
MEMORY_BYTES = 4 * 2**30
# sympy from a cold network disk, on every rank at once; a start that takes longer does not come.
START_SECONDS = 120.0
# A worker that ends before it takes its first items would do so for ever; one that was killed while idle does not.
MAX_FAILED_STARTS = 3
# What ended a process is known a moment after its socket closes.
EXIT_SECONDS = 2.0
PR_SET_PDEATHSIG = 1

# The parent's path comes first of all, so that the worker finds what the parent finds.
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"from {__name__} import _serve; _serve(int(sys.argv[2]), int(sys.argv[3]))"
)


@dataclass(kw_only=True, eq=False)
class _Worker:
    process: subprocess.Popen
    connection: Connection
    until: float
    """When it is given up, in seconds of time.monotonic()."""
    failed_starts: int
    """Of its predecessors in a row."""
    idle: bool = False
    grading: bool = False
    """Has taken its chunk: the first of `chunk` is being graded."""
    chunk: deque[int] = field(default_factory=deque)
    """Positions of the items it was given and has not answered."""


class WorkerError(AepoError, RuntimeError):
    """Workers that cannot start: nothing can be judged."""

    of_one_rank = True


class GradingPool:
    """Worker processes that grade, each killed and replaced when an item hangs or ends it.

    Starting is not waited for; workers are up a second or so later. They end with this process, however it ends
    (on Linux; elsewhere a busy one ends with its item). Linux takes the thread that started a worker for its parent,
    so call this from a thread that lives on, such as the main one, and from one at a time. What a reward prints is
    dropped; its processes are killed with the worker.

    Args:
        reward: a module-level function, or what else pickles by reference; not of `__main__`. Or what
            `aepo.llm.grading.rewards.chosen_reward` makes of such.
        workers: processes, >= 1.
        deadline_seconds: wall-clock time for one item, from when its worker starts on it; > 0.
        memory_bytes: address space that grading may take in a worker beyond what it holds when the reward is loaded,
            > 0; beyond it a MemoryError, which is an error of the item. Linux only.

    Raises:
        ValueError: an argument out of range, or a reward that a worker could not import.
    """

    def __init__(
        self,
        reward: Reward | RewardFunction | RewardSum = unhurried_math_reward,
        *,
        workers: int,
        deadline_seconds: float,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        if not 0 < deadline_seconds < math.inf:
            raise ValueError(f"deadline_seconds must be > 0 and finite, got {deadline_seconds}")
        if memory_bytes < 1:
            raise ValueError(f"memory_bytes must be >= 1, got {memory_bytes}")
        for one in functions_of(reward):
            if getattr(one.function, "__module__", None) == "__main__":
                raise ValueError(
                    f"reward must be in a module that workers can import, got {one.function!r} of __main__"
                )
            try:
                pickle.dumps(one.function)
            # Objects may say themselves how they are written down, and so may raise anything.
            except Exception as problem:
                raise ValueError(
                    f"reward must be a module-level function, got {one.name}, which other processes cannot be given "
                    f"({told(problem)}); define it with def, at the top of its module and under the name it is asked by"
                ) from problem
        self._task = pickle.dumps((memory_bytes, pickle.dumps(reward)))
        self.deadline_seconds = deadline_seconds
        self._workers: list[_Worker] = []
        try:
            for _ in range(workers):
                self._workers.append(self._started())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers and wait for their end; again does nothing."""
        for worker in self._workers:
            _end(worker)
        self._workers = []

    def grade(self, items: Sequence[Item]) -> list[Verdict]:
        """Verdicts of items, in their order.

        What an item does to its worker is its own verdict, with reward 0: "timeout" past the deadline, "error: the
        worker ended with SIGSEGV" and the like, "error: MemoryError: ...". Each of these costs a new worker.

        Raises:
            RuntimeError: the pool is closed.
            WorkerError: workers cannot start.
        """
        if not self._workers:
            raise RuntimeError("the grading pool is closed")
        # Only after an exception left the call before: its answers must not be taken for answers to this one.
        for worker in [w for w in self._workers if w.chunk or w.connection.closed]:
            self._replace(worker)
        verdicts: dict[int, Verdict] = {}
        waiting = deque(range(len(items)))
        while len(verdicts) < len(items):
            self._give(items, waiting)
            self._hear(verdicts, waiting)
        return [verdicts[i] for i in range(len(items))]

    def _give(self, items: Sequence[Item], waiting: deque[int]) -> None:
        for worker in [w for w in self._workers if w.idle]:
            # Less as the end comes near, so that no worker holds items which an idle one could take.
            size = min(CHUNK_ITEMS, math.ceil(len(waiting) / (2 * len(self._workers))))
            if size == 0:
                return
            worker.chunk.extend(waiting.popleft() for _ in range(size))
            worker.idle = worker.grading = False
            worker.until = time.monotonic() + START_SECONDS
            try:
                worker.connection.send([items[i] for i in worker.chunk])
            except OSError:
                self._lose(worker, waiting)

    def _hear(self, verdicts: dict[int, Verdict], waiting: deque[int]) -> None:
        """Wait for the next messages or deadline, and act on them."""
        busy = {worker.connection: worker for worker in self._workers if not worker.idle}
        timeout = min(worker.until for worker in busy.values()) - time.monotonic()
        for connection in multiprocessing.connection.wait(list(busy), max(0.0, timeout)):
            worker = busy.pop(connection)
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                guilty, how = self._lose(worker, waiting, grace=EXIT_SECONDS)
                if guilty is not None:
                    verdicts[guilty] = failed(f"the worker ended with {how}")
                continue
            if isinstance(message, str):
                raise WorkerError(
                    f"a grading worker cannot load its reward: {message}; its module must also be importable in a "
                    "process of its own, without this command's arguments"
                )
            worker.until = time.monotonic() + self.deadline_seconds
            if message is None and worker.chunk:
                worker.grading, worker.failed_starts = True, 0
            elif message is None:
                worker.idle = True
            else:
                verdicts[worker.chunk.popleft()] = message
                worker.idle = not worker.chunk
                # It may still hold what it had filled, and honest items would pay for that.
                if message.reason.startswith("error: MemoryError"):
                    waiting.extendleft(reversed(worker.chunk))
                    self._replace(worker)
        for worker in busy.values():
            if worker.until <= time.monotonic():
                guilty, _ = self._lose(worker, waiting)
                if guilty is not None:
                    verdicts[guilty] = Verdict(reward=0.0, extracted=None, reason="timeout")

    def _lose(self, worker: _Worker, waiting: deque[int], *, grace: float = 0.0) -> tuple[int | None, str]:
        """Replace a worker that died or is late: the item to blame, if it had taken one, and what ended it."""
        guilty = worker.chunk.popleft() if worker.grading else None
        # First in the queue again: they were next.
        waiting.extendleft(reversed(worker.chunk))
        failed_starts = worker.failed_starts + (guilty is None)
        how = self._replace(worker, failed_starts=failed_starts, grace=grace)
        if failed_starts >= MAX_FAILED_STARTS:
            raise WorkerError(
                f"{failed_starts} grading workers in a row ended before they took an item, the last with {how}; "
                "what they had to say is on this process's stderr"
            )
        return guilty, how

    def _replace(self, worker: _Worker, *, failed_starts: int = 0, grace: float = 0.0) -> str:
        how = _end(worker, grace=grace)
        self._workers[self._workers.index(worker)] = self._started(failed_starts)
        return how

    def _started(self, failed_starts: int = 0) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            # A worker that does not read must not hold us in a write for ever.
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(START_SECONDS), 0))
            path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
            # -P: a module in the working directory must not stand in for one of the standard library.
            command = [sys.executable, "-P", "-c", _START, path, str(theirs.fileno()), str(os.getpid())]
            # A session of its own: Ctrl-C is for the parent to handle, and the reward's processes end with the worker.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        worker = _Worker(
            process=process,
            connection=Connection(ours.detach()),
            until=time.monotonic() + START_SECONDS,
            failed_starts=failed_starts,
        )
        # One that is dead already is noticed when it is listened to.
        with suppress(OSError):
            worker.connection.send_bytes(self._task)
        return worker


def _end(worker: _Worker, *, grace: float = 0.0) -> str:
    """What ended the worker: itself within `grace` seconds, or a SIGKILL to it and all its processes."""
    worker.connection.close()
    # Not where it was waited for before: its number may be another process's by then.
    if worker.process.returncode is None:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(grace)
        # Its session may outlive it. macOS refuses where only zombies are left.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
    code = worker.process.wait()
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


def _serve(descriptor: int, parent: int) -> None:
    """A worker's life: load the reward, then grade chunks until the parent hangs up."""
    os.set_inheritable(descriptor, False)
    _die_with(parent)
    # Launchers send SIGTERM to every process under them, while the trainer still finishes its step. Handlers, as what
    # is ignored would stay ignored in a program that the reward starts.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, lambda *_: None)
    # A core file for each model answer that crashes sympy would fill the disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(descriptor)
    with suppress(EOFError, OSError):
        memory_bytes, pickled = pickle.loads(connection.recv_bytes())
        try:
            reward = pickle.loads(pickled)
        # Importing somebody else's module may raise anything; the parent says so and ends.
        except (Exception, SystemExit) as problem:
            connection.send(told(problem))
            return
        if any(one.function in (math_reward, unhurried_math_reward) for one in functions_of(reward)):
            # Loading sympy and its parser takes a second, which belongs to no item's deadline.
            unhurried_math_reward(r"\boxed{2n-2}", "2(n-1)")
            unhurried_math_reward(r"\boxed{(2, \infty)}", "x > 2")
        _limit_memory(memory_bytes)
        connection.send(None)
        # Up to here errors show; from here on nothing holds the launcher's pipe open.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        while True:
            chunk = connection.recv()
            connection.send(None)
            for item in chunk:
                connection.send(judged(reward, *item))


def _die_with(parent: int) -> None:
    """SIGKILL to this process when its parent ends: one that is busy in sympy does not see the parent hang up."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("the parent of this grading worker is gone")


def _limit_memory(more_bytes: int) -> None:
    """At most that much address space beyond what this process holds already."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as held:
            most = int(held.read().split()[0]) * resource.getpagesize() + more_bytes
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
