"""The triton backend of `linear_token_stats`: launches, splits of the vocabulary, the products of the gradient.

Letters: N rows, V vocabulary, d hidden size, C columns of a chunk of it, S splits.
"""

import dataclasses
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from aepo.llm.fused.chunked import Running, Stats, Upstream
from aepo.llm.fused.rows import Linear, Rows
from aepo.llm.fused.triton_kernels import gradient_kernel, statistics_kernel

# float32 operands as three products of tensor cores, whose error is float32's; half precision is exact anyway.
PRECISION = "tf32x3"
# The gradient by a chunk of logits is stored in half precision: at most so many bytes of it at a time. With the sums in
# float32 beside it, 8,192 tokens of width 3,584 need under 400 MB.
CHUNK_BYTES = 128 << 20


@dataclass(frozen=True, kw_only=True)
class Config:
    """A kernel's tile and how a multiprocessor runs it."""

    rows: int
    columns: int
    width: int
    warps: int
    stages: int


@dataclass(frozen=True, kw_only=True)
class Configs:
    """Of one generation of GPUs."""

    statistics: Config
    gradient: Config
    wide: Config
    """Of both kernels for float32 operands."""
    splits: int
    """Of the vocabulary, so that few rows fill a GPU too."""

    def of(self, kernel: str, *, wide: bool) -> Config:
        """The configuration of `statistics` or `gradient`."""
        return self.wide if wide else getattr(self, kernel)


CONFIGS = {
    80: Configs(
        statistics=Config(rows=128, columns=128, width=32, warps=8, stages=3),
        gradient=Config(rows=128, columns=128, width=32, warps=8, stages=3),
        wide=Config(rows=64, columns=64, width=32, warps=4, stages=2),
        splits=8,
    ),
    90: Configs(
        statistics=Config(rows=128, columns=128, width=64, warps=8, stages=3),
        gradient=Config(rows=128, columns=128, width=64, warps=8, stages=3),
        wide=Config(rows=64, columns=64, width=32, warps=4, stages=2),
        splits=8,
    ),
}
"""Compute capability -> configurations; a newer GPU takes the newest."""

# The interpreter runs a program at a time in numpy.
INTERPRETED = Configs(
    statistics=Config(rows=16, columns=32, width=16, warps=1, stages=1),
    gradient=Config(rows=16, columns=32, width=16, warps=1, stages=1),
    wide=Config(rows=16, columns=32, width=16, warps=1, stages=1),
    splits=3,
)


def statistics(linear: Linear, rows: Rows) -> Stats:
    """Of the rows, over this process's columns and, with a group, over everybody's."""
    linear = _packed(linear)
    like = torch.empty((rows.count, 0), dtype=torch.float32, device=linear.hidden.device)
    running = Running(rows.question, like)
    if rows.count:
        columns, configs = len(linear.weight), _configs(linear.hidden.device)
        config = configs.of("statistics", wide=_wide(linear))
        blocks = triton.cdiv(columns, config.columns)
        splits = min(configs.splits, blocks)
        split_columns = triton.cdiv(blocks, splits) * config.columns
        splits = triton.cdiv(columns, split_columns)
        partial = like.new_empty(5, splits, rows.count)
        question = rows.question
        statistics_kernel[(triton.cdiv(rows.count, config.rows), splits)](
            *_operands(linear), rows.label, _flat(question.temperature, like), partial,
            rows.count, columns, linear.hidden.shape[1], linear.hidden.stride(0), linear.weight.stride(0),
            linear.softcap or 1.0, linear.vocab_start, split_columns, splits,
            TEMPERED=question.temperature is not None, ENTROPY=question.entropy,
            ENTROPY_TEMPERED=question.entropy_tempered, **_how(linear, config),
        )  # fmt: skip
        running.join(partial)
    if linear.group is not None:
        running.reduce(linear.group)
    return running.stats()


def gradient(
    linear: Linear, rows: Rows, stats: Stats, upstream: Upstream, *, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """By the rows' hidden states (float32), the weight and the bias, of which some are needed."""
    linear, (need_h, need_w, need_b) = _packed(linear), needs
    hidden, weight, bias = linear.hidden, linear.weight, linear.bias
    by_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device) if need_h else None
    make = torch.empty_like if rows.count else torch.zeros_like
    by_weight = make(weight) if need_w else None
    by_bias = make(bias) if need_b and bias is not None else None
    if not rows.count:
        return by_hidden, by_weight, by_bias
    # Half-precision operands multiply at full speed; wider ones keep their precision.
    dtype = hidden.dtype if hidden.dtype == weight.dtype else torch.float32
    chunk = max(1, CHUNK_BYTES // (rows.count * dtype.itemsize))
    chunk = min(len(weight), max(_configs(hidden.device).gradient.columns, chunk // 128 * 128))
    for start in range(0, len(weight), chunk):
        part = slice(start, min(start + chunk, len(weight)))
        dz = _logits_gradient(linear, part, rows, stats, upstream, dtype)
        if by_hidden is not None:
            by_hidden += _product(dz, weight[part])
        if by_weight is not None:
            by_weight[part] = _product(dz.mT, hidden).to(weight.dtype)
        if by_bias is not None:
            by_bias[part] = dz.sum(0, dtype=torch.float32).to(by_bias.dtype)
    return by_hidden, by_weight, by_bias


def _logits_gradient(
    linear: Linear, part: slice, rows: Rows, stats: Stats, upstream: Upstream, dtype: torch.dtype
) -> Tensor:
    """(n, C) of a chunk of the vocabulary."""
    config = _configs(linear.hidden.device).of("gradient", wide=_wide(linear))
    chunk = dataclasses.replace(
        linear,
        weight=linear.weight[part],
        bias=None if linear.bias is None else linear.bias[part],
        vocab_start=linear.vocab_start + part.start,
    )
    columns = part.stop - part.start
    out = torch.empty(rows.count, columns, dtype=dtype, device=linear.hidden.device)
    like, question = stats.log_mass, rows.question
    gradient_kernel[(triton.cdiv(rows.count, config.rows), triton.cdiv(columns, config.columns))](
        *_operands(chunk), rows.label, _flat(question.temperature, like),
        *(_flat(x, like) for x in (stats.log_mass, stats.log_mass_t, stats.entropy)),
        *(_flat(x, like) for x in (upstream.logp, upstream.logp_t, upstream.entropy)),
        out, rows.count, columns, linear.hidden.shape[1], linear.hidden.stride(0), chunk.weight.stride(0),
        out.stride(0), linear.softcap or 1.0, chunk.vocab_start,
        HAS_LOGP=upstream.logp is not None, HAS_LOGP_T=upstream.logp_t is not None,
        HAS_ENTROPY=upstream.entropy is not None, ENTROPY_TEMPERED=question.entropy_tempered, **_how(linear, config),
    )  # fmt: skip
    return out


def _configs(device: torch.device) -> Configs:
    if device.type == "cpu":
        return INTERPRETED
    major, minor = torch.cuda.get_device_capability(device)
    return CONFIGS[max((known for known in CONFIGS if known <= 10 * major + minor), default=80)]


def _wide(linear: Linear) -> bool:
    """Whether operands are multiplied as float32."""
    return torch.float32 in (linear.hidden.dtype, linear.weight.dtype) or linear.hidden.dtype != linear.weight.dtype


def _packed(linear: Linear) -> Linear:
    """With rows whose elements lie side by side, as the kernels read them."""
    hidden, weight, bias = (
        x if x is None or x.stride(-1) == 1 else x.contiguous() for x in (linear.hidden, linear.weight, linear.bias)
    )
    return dataclasses.replace(linear, hidden=hidden, weight=weight, bias=bias)


def _operands(linear: Linear) -> tuple[Tensor, Tensor, Tensor]:
    # A kernel wants a pointer even for what it does not read.
    return linear.hidden, linear.weight, linear.weight if linear.bias is None else linear.bias


def _flat(value: Tensor | None, like: Tensor) -> Tensor:
    return like if value is None else value.reshape(-1).to(torch.float32).contiguous()


def _how(linear: Linear, config: Config) -> dict[str, object]:
    """What a kernel is compiled for."""
    return {
        "HAS_BIAS": linear.bias is not None,
        "HAS_CAP": linear.softcap is not None,
        # Products of mixed dtypes are exact in float32 alone; and the interpreter multiplies bf16 wrongly.
        "UPCAST": linear.hidden.dtype != linear.weight.dtype or linear.hidden.device.type == "cpu",
        "PRECISION": PRECISION,
        "BLOCK_N": config.rows,
        "BLOCK_V": config.columns,
        "BLOCK_D": config.width,
        "num_warps": config.warps,
        "num_stages": config.stages,
    }


def _product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, summed and returned in float32."""
    half = left.dtype == right.dtype and left.dtype in (torch.float16, torch.bfloat16)
    if half and left.is_cuda:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left.float() @ right.float()
