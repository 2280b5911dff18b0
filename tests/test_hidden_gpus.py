"""Tests of the CPU see no GPU, also on a machine that has one; those marked `gpu` do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SAYS = """\
import os

print(repr(os.environ["CUDA_VISIBLE_DEVICES"]))


def test_it():
    pass
"""


@pytest.mark.parametrize(
    ("chosen", "hidden"),
    [
        (("-m", "not slow and not gpu"), True),
        (("-m", "slow and not gpu and not exhaustive"), True),
        (("-m", "slow"), True),
        (("-m", "gpu"), False),
        (("-m", "not slow"), False),
        ((), False),
    ],
)
def test_a_choice_without_the_tests_of_a_gpu_hides_it_before_any_file_is_read(tmp_path, chosen, hidden):
    (tmp_path / "test_says.py").write_text(SAYS)
    # Of the two files of this name, the one above.
    command = [sys.executable, "-m", "pytest", "-s", "-c", str(ROOT / "pyproject.toml"), "-o", "pythonpath="]
    done = subprocess.run(
        [*command, *chosen, "-p", "conftest", "-p", "no:cacheprovider", "--collect-only", "test_says.py"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "7", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert ("''" if hidden else "'7'") in done.stdout, done.stdout + done.stderr
