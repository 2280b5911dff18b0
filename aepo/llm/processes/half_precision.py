"""Many CPUs have no bfloat16 instructions: torch multiplies there too, up to a hundred times slower than in float32."""

import logging
import time

import torch

log = logging.getLogger("aepo")

SIZE = 256
"""Of the matrices that are timed: 0.05 s where bfloat16 is slow, next to nothing elsewhere."""
TOO_SLOW = 3
"""Times slower: a CPU with AVX-512 alone converts and is below; one without needs tens of times as long."""


def times_slower() -> float:
    """How many times as long as in float32 a matrix product takes this CPU in bfloat16."""

    def seconds(dtype: torch.dtype) -> float:
        one = torch.ones(SIZE, SIZE, dtype=dtype)
        found = []
        for _ in range(4):
            start = time.perf_counter()
            one @ one
            found.append(time.perf_counter() - start)
        # The first one may load or compile something.
        return min(found[1:])

    return seconds(torch.bfloat16) / seconds(torch.float32)


def warn_of_slow(dtype: torch.dtype, *, cure: str) -> None:
    """Say so where a model computes in bfloat16 on a CPU that is slow at it.

    Args:
        dtype: of the model's weights.
        cure: what to set.
    """
    if dtype != torch.bfloat16 or torch.cuda.is_available():
        return
    if (slower := times_slower()) > TOO_SLOW:
        log.warning("bfloat16: this CPU multiplies matrices %.0f times slower in it than in float32; %s", slower, cure)
