"""The row kernel in Triton, for `gemm_backend` where nvcc is missing: the launches of `triton_row_kernels`.

Letters: N tokens, n of them, V vocabulary.
"""

import torch
from torch import Tensor

from aepo.llm.fused.chunked import Question, Stats, Upstream
from aepo.llm.fused.triton_row_kernels import row_gradient_kernel, row_sums_kernel

BLOCK, WARPS = 2048, 8
"""Columns that a program holds, 8 a thread, and its warps: at 32 registers a thread eight share a multiprocessor."""
INTERPRETED_BLOCK = 64
"""The interpreter runs in numpy; small, so that small vocabularies have several."""


def row_sums(logits: Tensor, index: Tensor | None, label: Tensor, question: Question) -> Tensor:
    """As `cuda_backend.row_sums`, of all rows in order.

    Raises:
        ValueError: an index, which nobody who sums rows here has.
    """
    if index is not None:
        raise ValueError("the Triton row kernel sums all rows in order: index must be None")
    partial = torch.empty(5, 1, len(label), dtype=torch.float32, device=logits.device)
    row_sums_kernel[(len(label),)](
        logits, label.contiguous(), _flat(question.temperature, logits), partial,
        len(label), logits.shape[1], logits.stride(0),
        TEMPERED=question.temperature is not None, ENTROPY=question.entropy,
        ENTROPY_TEMPERED=question.entropy_tempered, BLOCK=_block(logits), num_warps=WARPS,
    )  # fmt: skip
    return partial


def row_gradient(
    logits: Tensor, index: Tensor | None, label: Tensor, question: Question, stats: Stats, upstream: Upstream,
    out: Tensor, *, softcap: float | None,
) -> None:  # fmt: skip
    """As `cuda_backend.row_gradient`."""
    row_gradient_kernel[(len(label),)](
        logits, out, label if index is None else index.contiguous(), label.contiguous(),
        _flat(question.temperature, logits),
        *(_flat(x, logits) for x in (stats.log_mass, stats.log_mass_t, stats.entropy)),
        *(_flat(x, logits) for x in (upstream.logp, upstream.logp_t, upstream.entropy)),
        logits.shape[1], logits.stride(0), out.stride(0), softcap or 1.0,
        HAS_INDEX=index is not None, HAS_LOGP=upstream.logp is not None, HAS_LOGP_T=upstream.logp_t is not None,
        HAS_ENTROPY=upstream.entropy is not None, ENTROPY_TEMPERED=question.entropy_tempered,
        HAS_CAP=softcap is not None, BLOCK=_block(logits), num_warps=WARPS,
    )  # fmt: skip


def _block(logits: Tensor) -> int:
    return INTERPRETED_BLOCK if logits.device.type == "cpu" else BLOCK


def _flat(value: Tensor | None, like: Tensor) -> Tensor:
    # A kernel wants a pointer even for what it does not read.
    return like if value is None else value.reshape(-1).to(torch.float32).contiguous()
