"""Time and memory of one call, on a GPU or on a CPU."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one call."""

    seconds: float
    peak_bytes: int
    """Allocated on the GPU at the highest; 0 on a CPU."""
    extra_bytes: int
    """The same beyond what was allocated before the call."""


def timed(run: Callable[[], Any], device: str) -> tuple[Cost, Any]:
    """What a call costs, and what it returned. The GPU has finished everything else before and this call after."""
    if device == "cpu":
        began = time.perf_counter()
        result = run()
        return Cost(seconds=time.perf_counter() - began, peak_bytes=0, extra_bytes=0), result
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    result = run()
    end.record()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return Cost(seconds=start.elapsed_time(end) / 1e3, peak_bytes=peak, extra_bytes=peak - before), result
