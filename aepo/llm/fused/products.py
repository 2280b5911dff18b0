"""Matrix products by the library whose sums are float32 whatever the operands, on any device.

Only a CUDA device multiplies half precision into float32; elsewhere the operands are widened first, which gives the
same sums. float32 operands multiply as they are.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def wide(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, float32 and never rounded to less."""
    if _half_on_gpu(left, right):
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()


def add(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, with total float32."""
    if _half_on_gpu(left, right):
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total.addmm_(left.float(), right.float())


def rounded(left: Tensor, right: Tensor, *, out: Tensor) -> None:
    """left @ right into out, rounded once, to its dtype."""
    if _half_on_gpu(left, right) and out.dtype == left.dtype:
        with _whole_sums():
            torch.mm(left, right, out=out)
    else:
        out.copy_(wide(left, right))


def _half_on_gpu(left: Tensor, right: Tensor) -> bool:
    return left.is_cuda and left.dtype == right.dtype and left.dtype in HALF


@contextlib.contextmanager
def _whole_sums() -> Iterator[None]:
    """Where the library splits a sum over blocks, it may by default round the parts to half precision first."""
    matmul = torch.backends.cuda.matmul
    names = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")
    before = [getattr(matmul, name) for name in names]
    for name in names:
        setattr(matmul, name, False)
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(matmul, name, value)
