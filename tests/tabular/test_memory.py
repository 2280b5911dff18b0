"""The process keeps what it frees: a large tensor made again costs no new pages."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from aepo.tabular.memory import keep_freed_memory
kept = {kept} and keep_freed_memory()
torch.ones(1 << 20, dtype=torch.float64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 23, dtype=torch.float64)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(kept: bool) -> tuple[bool, int]:
    out = subprocess.run([sys.executable, "-c", PROGRAM.format(kept=kept)], capture_output=True, text=True, check=True)
    told, count = out.stdout.split()
    return told == "True", int(count)


def test_freed_memory_is_used_again():
    told, count = faults(True)
    if not told:
        pytest.skip("this C library has no mallopt")
    # 64 MiB a tensor, 16,384 pages of 4 KiB: once, or ten times.
    assert count < 2 * faults(False)[1] / 10
