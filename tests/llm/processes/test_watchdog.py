"""The clock of a step's phases, and the watchdog over them."""

import subprocess
import sys
import time

import pytest

from aepo.llm.processes.watchdog import Phases


def test_phases_add_up_and_a_new_step_starts_at_zero():
    phases = Phases({"generate": None, "update": 5.0})
    phases.begin(1)
    for _ in range(2):
        with phases("generate"):
            time.sleep(0.02)
    with phases("update"):
        pass
    seconds = phases.seconds()
    assert list(seconds) == ["time/generate", "time/update", "time/step"]
    assert 0.04 <= seconds["time/generate"] <= seconds["time/step"]
    phases.begin(2)
    assert list(phases.seconds()) == ["time/step"]
    with pytest.raises(KeyError, match="generat"), phases("generat"):
        pass


def test_a_phase_in_time_is_left_alone_and_an_error_passes_through():
    late = []
    phases = Phases({"update": 2.0}, on_late=lambda: late.append(1))
    with phases("update"):
        pass
    with pytest.raises(ZeroDivisionError), phases("update"):
        _ = 1 / 0
    time.sleep(2.5)
    assert not late


def test_a_late_phase_is_named_with_every_threads_stack_and_ends_the_process():
    program = """
import time
from aepo.llm.processes import watchdog as phases
phases.GRACE = 0.1
watch = phases.Phases({"generate": 0.3}, rank=3)
watch.begin(17)
def stuck_here():
    time.sleep(600)
with watch("generate"):
    stuck_here()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 4
    assert "error: rank 3: phase 'generate' of step 17 has run for 0.3 s (watchdog.generate=0.3)" in done.stderr
    assert "in stuck_here" in done.stderr


def test_native_code_that_never_gives_the_interpreter_back_is_ended_too():
    program = """
import ctypes
from aepo.llm.processes import watchdog as phases
phases.GRACE = 0.1
with phases.Phases({"update": 0.3})("update"):
    # PyDLL keeps the interpreter locked during the call.
    ctypes.PyDLL(None).sleep(600)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "Timeout (0:00:00.6" in done.stderr
