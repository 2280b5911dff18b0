"""A rank that is gone is noticed while the others wait in something that notices nothing: real processes over gloo."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from aepo.llm.processes import heartbeat
from aepo.llm.processes.ports import free_port
from aepo.llm.settings import SettingsError, load

# Far above what a busy machine makes of a look's hundredth of a second, and far below PATIENCE.
LOST_AFTER, PATIENCE = 5.0, 300
RANK = """
import os, sys, threading, time
import torch.distributed as dist
from aepo.llm.processes import heartbeat

fate, rank, lost_after = sys.argv[1], int(os.environ["RANK"]), float(sys.argv[2])
dist.init_process_group("gloo")
print("met", flush=True)
try:
    with heartbeat.beating(lost_after):
        if fate == "busy" and rank == 1:
            # Twice as long as it may be silent, in one thread that leaves the interpreter to nobody by itself.
            until = time.monotonic() + 2 * lost_after
            while time.monotonic() < until:
                sum(range(1000))
        elif fate == "error" and rank == 1:
            raise ValueError("of this rank alone")
        elif fate == "busy" or (fate == "late" and rank == 0):
            time.sleep(2 * lost_after)
        elif fate in ("killed", "error"):
            # As in a kernel that waits for the other.
            threading.Event().wait()
except ValueError:
    sys.stdout.flush()
    os._exit(2)
# Without meeting at the end, as where the others are gone.
os._exit(0)
"""


def started(fate: str, world: int = 2) -> list[subprocess.Popen]:
    """The ranks, once they have met."""
    port = free_port()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, fate, str(LOST_AFTER)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        )
        for rank in range(world)
    ]  # fmt: skip
    assert [one.stdout.readline() for one in running] == ["met\n"] * world
    return running


def ended(running: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Exit code and standard error of each."""
    said = [one.communicate(timeout=PATIENCE)[1] for one in running]
    return [(one.returncode, text) for one, text in zip(running, said, strict=True)]


@pytest.mark.parametrize("lost", [1, pytest.param(0, marks=pytest.mark.slow, id="the one that keeps the store")])
def test_a_killed_rank_is_named_and_the_other_ends_with_code_7(lost):
    running = started("killed")
    running[lost].send_signal(signal.SIGKILL)
    found = ended(running)
    code, said = found[1 - lost]
    assert found[lost][0] == -signal.SIGKILL
    assert code == 7, said
    assert f"error: rank {1 - lost}: rank {lost} was lost or does not answer (no sign of life for 5 s" in said
    assert "--resume auto" in said


@pytest.mark.slow
def test_a_rank_that_leaves_by_an_error_is_missed():
    (code, said), other = ended(started("error"))
    assert other[0] == 2
    assert code == 7 and "rank 1 was lost" in said


@pytest.mark.slow
def test_a_rank_that_computes_for_long_is_not_lost():
    assert [code for code, _ in ended(started("busy"))] == [0, 0]


@pytest.mark.slow
def test_nobody_misses_a_rank_that_has_done_its_work():
    (code, said), other = ended(started("late"))
    assert (code, other[0]) == (0, 0), said


def test_alone_nobody_is_looked_for():
    def nobody():
        raise AssertionError("lost")

    for lost_after in (None, 1e-3):
        with heartbeat.beating(lost_after, on_lost=nobody):
            assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_how_long_is_a_setting_and_no_deadline_of_a_phase():
    settings = load("demo_cpu", ["watchdog.lost_after=7"])
    assert settings.watchdog.lost_after == 7 and "lost_after" not in settings.watchdog.deadlines
    assert load("demo_cpu", ["watchdog.lost_after=null"]).watchdog.lost_after is None
    assert load("demo_cpu", ["watchdog.lost_after=1e6"]).watchdog.longest == load("demo_cpu", []).watchdog.longest
    with pytest.raises(SettingsError, match=r"watchdog\.lost_after"):
        load("demo_cpu", ["watchdog.lost_after=0"])
