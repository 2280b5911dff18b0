"""The triton backend up to the launch, without a GPU: test_fused_triton.py runs this file in a process of its own.

Tensors have sizes and no memory, a driver only says which GPU there is, and every launch that the backend makes goes
through Triton's own binder, specialisation and compiler. Specialisation makes a constant of an integer that is 1, of
which the interpreter and kernels that are compiled by their types show nothing.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from aepo.llm.fused import triton_backend, triton_kernels
from aepo.llm.fused.chunked import Question, Upstream
from aepo.llm.fused.rows import Linear, Rows

KERNELS = {name for name, value in vars(triton_kernels).items() if isinstance(value, JITFunction) and "kernel" in name}
# (N, d, V): each is 1 beside small others, beside large ones and where all are 1. The vocabularies are a column, part
# of a tile, a whole one, one and a column of the next, three tiles, and Qwen2.5's. Sizes that Triton takes for equal
# are compiled once.
SIZES = (
    *((64, 64, v) for v in (1, 50, 128, 129, 300, 152_064)),
    *itertools.product((1, 8192), (3584,), (1, 50, 129, 152_064)),
    (1, 1, 1),
    (64, 1, 50),
    (8192, 1, 152_064),
)


class Driver:
    """What Triton asks before it launches."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        # Triton looks up by this number what it has compiled, and for what.
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


def launched_only() -> set[str]:
    """The names of the kernels launched so far, to be read later: from here on a launch ends with its compilation."""
    run, names = JITFunction.run, set()

    def compiled(self: JITFunction, *args: Any, **options: Any) -> None:
        names.add(self.__name__)
        run(self, *args, **(options | {"warmup": True}))

    JITFunction.run = compiled
    return names


def work(n: int, d: int, v: int, *, everything: bool = False) -> None:
    """Statistics and gradient of a layer, in bf16 what the trainer asks; or everything, with hidden states in float32
    and the vocabulary of a second process."""

    def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    linear = Linear(
        hidden=new(n, d, dtype=torch.float32 if everything else torch.bfloat16),
        weight=new(v, d, dtype=torch.bfloat16),
        bias=new(v) if everything else None,
        softcap=9.0 if everything else None,
        vocab_start=v if everything else 0,
        group=None,
    )
    question = Question(temperature=new(n, 1) if everything else None, entropy=True, entropy_tempered=everything)
    rows = Rows(total=n, index=None, label=new(n, dtype=torch.int64), question=question, dtype=torch.float32)
    upstream = Upstream(logp=new(n), logp_t=new(n) if everything else None, entropy=new(n))
    stats = triton_backend.statistics(linear, rows)
    triton_backend.gradient(linear, rows, stats, upstream, needs=(True, True, everything))


def failures(capability: int) -> Iterator[str]:
    """A line for each work that a GPU of this capability would not begin."""
    triton.runtime.driver.set_active(Driver(capability))
    torch.cuda.get_device_capability = lambda device: divmod(capability, 10)
    works = [(size, False) for size in SIZES] + [((1, 1, 1), True), ((64, 64, 50), True)]
    for size, everything in works:
        try:
            work(*size, everything=everything)
        except triton.CompilationError as error:
            yield f"sm_{capability} (N, d, V)={size} {everything=}: {str(error).strip().splitlines()[-1]}"


if __name__ == "__main__":
    names = launched_only()
    failed = [line for capability in triton_backend.CONFIGS for line in failures(capability)]
    print("\n".join(failed))
    print(f"launched {', '.join(sorted(names))}; not launched: {sorted(KERNELS - names)}; {len(failed)} failures")
    sys.exit(bool(failed or KERNELS - names))
