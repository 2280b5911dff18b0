"""Triton kernels: a tile of logits in registers, then its statistics, or its gradient; logits are never stored.

Letters: N rows, V columns of this process's vocabulary, D hidden size, S splits of the vocabulary. Exponentials are
exp2, the hardware's own; sums are float32. No atomics: equal calls give equal bits.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# Below any logit and finite, so that no difference is inf - inf.
LOWEST = tl.constexpr(-1e30)


@triton.jit
def logits_tile(
    hidden, weight, bias, row, column, rows, columns, width, row_stride, column_stride, softcap,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """z of rows x columns, (BLOCK_N, BLOCK_V) float32, LOWEST outside the vocabulary."""
    inner = tl.arange(0, BLOCK_D)
    row_at = hidden + row.to(tl.int64)[:, None] * row_stride
    column_at = weight + column.to(tl.int64)[None, :] * column_stride
    z = tl.zeros((BLOCK_N, BLOCK_V), dtype=tl.float32)
    for start in range(0, width, BLOCK_D):
        k = start + inner
        h = tl.load(row_at + k[None, :], mask=(row < rows)[:, None] & (k < width)[None, :], other=0.0)
        w = tl.load(column_at + k[:, None], mask=(column < columns)[None, :] & (k < width)[:, None], other=0.0)
        if UPCAST:
            h, w = h.to(tl.float32), w.to(tl.float32)
        z = tl.dot(h, w, z, input_precision=PRECISION)
    if HAS_BIAS:
        z += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
        z = tl.where(z < LOWEST, LOWEST, z)
    if HAS_CAP:
        # tanh(x) = 1 - 2 / (1 + e^2x), which saturates without overflow.
        z = softcap * (1.0 - 2.0 / (1.0 + tl.exp2(z * (2.0 * LOG2E / softcap))))
    return tl.where((column < columns)[None, :], z, LOWEST)


@triton.jit
def statistics_kernel(
    hidden, weight, bias, label, temperature, partial, rows, columns, width, row_stride, column_stride, softcap,
    vocab_start, split_columns, splits,
    TEMPERED: tl.constexpr, ENTROPY: tl.constexpr, ENTROPY_TEMPERED: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One split's sums for BLOCK_N rows into partial (5, S, N): top, mass, mass_t, moment, label's logit (natural)."""
    split = tl.program_id(1)
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = row < rows
    target = tl.load(label + row, mask=inside, other=-1) - vocab_start
    # The last tile reaches beyond this process's columns, where another process's label may lie.
    target = tl.where(target < columns, target, -1)
    inverse_t = tl.full((BLOCK_N,), 1.0, dtype=tl.float32)
    if TEMPERED:
        inverse_t = 1.0 / tl.load(temperature + row, mask=inside, other=1.0)
    top = tl.full((BLOCK_N,), LOWEST, dtype=tl.float32)
    mass = tl.zeros((BLOCK_N,), dtype=tl.float32)
    mass_t = tl.zeros((BLOCK_N,), dtype=tl.float32)
    moment = tl.zeros((BLOCK_N,), dtype=tl.float32)
    of_label = tl.zeros((BLOCK_N,), dtype=tl.float32)
    first = split * split_columns
    for start in range(first, min(first + split_columns, columns), BLOCK_V):
        column = start + tl.arange(0, BLOCK_V)
        z = logits_tile(
            hidden, weight, bias, row, column, rows, columns, width, row_stride, column_stride, softcap,
            HAS_BIAS, HAS_CAP, UPCAST, PRECISION, BLOCK_N, BLOCK_V, BLOCK_D,
        )  # fmt: skip
        of_label += tl.sum(tl.where(column[None, :] == target[:, None], z, 0.0), 1)
        z = z * LOG2E
        # The maximum may pass a nan over; the sums do not.
        higher = tl.maximum(top, tl.max(z, 1))
        shift = top - higher
        scale = tl.exp2(shift)
        z = z - higher[:, None]
        e = tl.exp2(z)
        if ENTROPY and not ENTROPY_TEMPERED:
            moment = scale * (moment + shift * mass) + tl.sum(e * z, 1)
        mass = scale * mass + tl.sum(e, 1)
        if TEMPERED:
            z = z * inverse_t[:, None]
            scale = tl.exp2(shift * inverse_t)
            e = tl.exp2(z)
            if ENTROPY_TEMPERED:
                moment = scale * (moment + shift * inverse_t * mass_t) + tl.sum(e * z, 1)
            mass_t = scale * mass_t + tl.sum(e, 1)
        top = higher
    at = partial + split.to(tl.int64) * rows + row
    # Triton makes a constant of an argument that is 1, and a constant has no methods.
    plane = tl.cast(splits, tl.int64) * rows
    tl.store(at, top * LN2, mask=inside)
    tl.store(at + plane, mass, mask=inside)
    tl.store(at + 2 * plane, mass_t, mask=inside)
    tl.store(at + 3 * plane, moment * LN2, mask=inside)
    tl.store(at + 4 * plane, of_label, mask=inside)


@triton.jit
def gradient_kernel(
    hidden, weight, bias, label, temperature, log_mass, log_mass_t, entropy, by_logp, by_logp_t, by_entropy, out,
    rows, columns, width, row_stride, column_stride, out_stride, softcap, vocab_start,
    HAS_LOGP: tl.constexpr, HAS_LOGP_T: tl.constexpr, HAS_ENTROPY: tl.constexpr, ENTROPY_TEMPERED: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The gradient by the logits of a chunk of the vocabulary, (N, V), in out's dtype; by_...: gradients upstream."""
    row = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = row < rows
    z = logits_tile(
        hidden, weight, bias, row, column, rows, columns, width, row_stride, column_stride, softcap,
        HAS_BIAS, HAS_CAP, UPCAST, PRECISION, BLOCK_N, BLOCK_V, BLOCK_D,
    )  # fmt: skip
    dz = tl.zeros((BLOCK_N, BLOCK_V), dtype=tl.float32)
    of_label = tl.zeros((BLOCK_N,), dtype=tl.float32)
    if HAS_LOGP or (HAS_ENTROPY and not ENTROPY_TEMPERED):
        log_p = z - tl.load(log_mass + row, mask=inside, other=0.0)[:, None]
        factor = tl.zeros((BLOCK_N, BLOCK_V), dtype=tl.float32)
        if HAS_LOGP:
            g = tl.load(by_logp + row, mask=inside, other=0.0)
            of_label += g
            factor += g[:, None]
        if HAS_ENTROPY and not ENTROPY_TEMPERED:
            g = tl.load(by_entropy + row, mask=inside, other=0.0)
            factor += g[:, None] * (log_p + tl.load(entropy + row, mask=inside, other=0.0)[:, None])
        dz -= tl.exp2(log_p * LOG2E) * factor
    if HAS_LOGP_T or (HAS_ENTROPY and ENTROPY_TEMPERED):
        inverse_t = 1.0 / tl.load(temperature + row, mask=inside, other=1.0)
        log_p = z * inverse_t[:, None] - tl.load(log_mass_t + row, mask=inside, other=0.0)[:, None]
        factor = tl.zeros((BLOCK_N, BLOCK_V), dtype=tl.float32)
        if HAS_LOGP_T:
            g = tl.load(by_logp_t + row, mask=inside, other=0.0) * inverse_t
            of_label += g
            factor += g[:, None]
        if HAS_ENTROPY and ENTROPY_TEMPERED:
            g = tl.load(by_entropy + row, mask=inside, other=0.0) * inverse_t
            factor += g[:, None] * (log_p + tl.load(entropy + row, mask=inside, other=0.0)[:, None])
        dz -= tl.exp2(log_p * LOG2E) * factor
    target = tl.load(label + row, mask=inside, other=-1) - vocab_start
    dz += tl.where(column[None, :] == target[:, None], of_label[:, None], 0.0)
    if HAS_CAP:
        # Columns outside the vocabulary hold LOWEST, whose square is no float.
        capped = tl.where((column < columns)[None, :], z, 0.0) / softcap
        dz *= 1.0 - capped * capped
    at = out + row.to(tl.int64)[:, None] * out_stride + column[None, :]
    tl.store(at, dz.to(out.dtype.element_ty), mask=inside[:, None] & (column < columns)[None, :])
