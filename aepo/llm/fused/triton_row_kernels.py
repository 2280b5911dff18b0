"""Triton kernels for rows of float32 logits: their statistics, and the gradient by them; row_kernel.cu without nvcc.

Letters: N rows, V columns of this process's vocabulary. One program takes a row, BLOCK columns at a time. Exponentials
are exp2, the hardware's own; sums are float32. No atomics: equal calls give equal bits.
"""

import triton
import triton.language as tl

from aepo.llm.fused.triton_kernels import LN2, LOG2E, LOWEST


@triton.jit
def row_sums_kernel(
    logits, label, temperature, partial, rows, columns, row_stride,
    TEMPERED: tl.constexpr, ENTROPY: tl.constexpr, ENTROPY_TEMPERED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A row's sums into partial (5, N): top, mass, mass_t, moment, label's logit (natural)."""
    row = tl.program_id(0)
    of_row = logits + row.to(tl.int64) * row_stride
    inverse_t = 1.0
    if TEMPERED:
        inverse_t = 1.0 / tl.load(temperature + row)
    top, mass, mass_t, moment = LOWEST, 0.0, 0.0, 0.0
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < columns
        z = tl.load(of_row + column, mask=inside, other=LOWEST) * LOG2E
        z = tl.where(z < LOWEST, LOWEST, z)
        # The maximum may pass a nan over; the sums do not.
        higher = tl.maximum(top, tl.max(z, 0))
        shift = top - higher
        scale = tl.exp2(shift)
        z = z - higher
        # Where every logit is as low as can be, so is what stands for the columns outside.
        e = tl.where(inside, tl.exp2(z), 0.0)
        if ENTROPY and not ENTROPY_TEMPERED:
            moment = scale * (moment + shift * mass) + tl.sum(e * z, 0)
        mass = scale * mass + tl.sum(e, 0)
        if TEMPERED:
            z = z * inverse_t
            scale = tl.exp2(shift * inverse_t)
            e = tl.where(inside, tl.exp2(z), 0.0)
            if ENTROPY_TEMPERED:
                moment = scale * (moment + shift * inverse_t * mass_t) + tl.sum(e * z, 0)
            mass_t = scale * mass_t + tl.sum(e, 0)
        top = higher
    target = tl.load(label + row)
    # Where the vocabulary is split, another process may hold the label's column.
    here = (target >= 0) & (target < columns)
    of_label = tl.load(of_row + target, mask=here, other=0.0)
    of_label = tl.where(of_label < LOWEST, LOWEST, of_label)
    at = partial + row
    # Triton makes a constant of an argument that is 1, and a constant has no methods.
    plane = tl.cast(rows, tl.int64)
    tl.store(at, top * LN2)
    tl.store(at + plane, mass)
    tl.store(at + 2 * plane, mass_t)
    tl.store(at + 3 * plane, moment * LN2)
    tl.store(at + 4 * plane, of_label)


@triton.jit
def row_gradient_kernel(
    logits, out, index, label, temperature, log_mass, log_mass_t, entropy, by_logp, by_logp_t, by_entropy,
    columns, row_stride, out_stride, softcap,
    HAS_INDEX: tl.constexpr, HAS_LOGP: tl.constexpr, HAS_LOGP_T: tl.constexpr, HAS_ENTROPY: tl.constexpr,
    ENTROPY_TEMPERED: tl.constexpr, HAS_CAP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient by row `index` of the logits into the program's row of out, in out's dtype.

    A program reads a block of columns, all its threads meet, and then it writes the block: a row of out may begin where
    its logits do, since what a block is written over was read with it or before it.
    """
    row = tl.program_id(0)
    place = tl.cast(row, tl.int64)
    if HAS_INDEX:
        place = tl.load(index + row)
    of_row = logits + place * row_stride
    to_row = out + tl.cast(row, tl.int64) * out_stride
    target = tl.load(label + row)
    of_label = 0.0
    constant, slope, constant_t, slope_t = 0.0, 0.0, 0.0, 0.0
    mass, mass_t, inverse_t = tl.load(log_mass + row), 0.0, 1.0
    if HAS_LOGP:
        constant = tl.load(by_logp + row)
        of_label += constant
    if HAS_ENTROPY and not ENTROPY_TEMPERED:
        slope = tl.load(by_entropy + row)
        constant += slope * tl.load(entropy + row)
    if HAS_LOGP_T or (HAS_ENTROPY and ENTROPY_TEMPERED):
        inverse_t = 1.0 / tl.load(temperature + row)
        mass_t = tl.load(log_mass_t + row)
    if HAS_LOGP_T:
        constant_t = tl.load(by_logp_t + row) * inverse_t
        of_label += constant_t
    if HAS_ENTROPY and ENTROPY_TEMPERED:
        slope_t = tl.load(by_entropy + row) * inverse_t
        constant_t += slope_t * tl.load(entropy + row)
    for start in range(0, columns, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < columns
        z = tl.load(of_row + column, mask=inside, other=0.0)
        z = tl.where(z < LOWEST, LOWEST, z)
        dz = tl.where(column == target, of_label, 0.0)
        if HAS_LOGP or (HAS_ENTROPY and not ENTROPY_TEMPERED):
            log_p = z - mass
            dz -= tl.exp2(log_p * LOG2E) * (constant + slope * log_p)
        if HAS_LOGP_T or (HAS_ENTROPY and ENTROPY_TEMPERED):
            log_p = z * inverse_t - mass_t
            dz -= tl.exp2(log_p * LOG2E) * (constant_t + slope_t * log_p)
        if HAS_CAP:
            capped = z / softcap
            dz *= 1.0 - capped * capped
        tl.debug_barrier()
        tl.store(to_row + column, dz.to(out.dtype.element_ty), mask=inside)
