"""The Triton kernels without a GPU: run by the interpreter in a process of its own, compiled ahead of time, and
launched by the backend as far as that goes without one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton has no wheel for this platform")


def test_the_kernels_agree_with_whole_logits_under_the_interpreter():
    tests = Path(__file__).with_name("triton_interpreted.py")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tests]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def without_interpreter(*command: str | Path) -> str:
    """What a Python process says in which Triton compiles."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def compiled(*arguments: str) -> str:
    return without_interpreter("-m", "aepo.llm.fused.compiled", *arguments)


def test_every_launch_of_the_backend_compiles_for_both_gpus_also_where_a_size_is_1():
    said = without_interpreter(Path(__file__).with_name("triton_launched.py"))
    assert "launched gradient_kernel, statistics_kernel; not launched: []; 0 failures" in said


def test_the_largest_kernels_compile_for_both_gpus_without_spills():
    said = compiled("--few")
    assert "0 that spill" in said and "sm_80" in said and "sm_90" in said and "wgmma" in said


@pytest.mark.slow
def test_every_kernel_compiles_for_both_gpus_without_spills():
    assert "0 that spill" in compiled()
