"""The torch backend's autograd functions: chunks of rows and of the vocabulary, and which rows are worth a gradient.

Letters: N tokens, n of them, d hidden size, V vocabulary, C columns of a chunk of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aepo.llm.fused.chunked import LOWEST, Question, Running, Stats, Upstream, logits_gradient

Statistic = Literal["logp", "logp_t", "entropy"]
STATISTICS: tuple[Statistic, ...] = ("logp", "logp_t", "entropy")
Temperature = float | Tensor

# Rows and columns of a chunk: matrix products reach their speed from here on, and 2 MB of logits stay in the cache.
TILE_ROWS = 256
TILE_COLUMNS = 2048


class TokenStats(NamedTuple):
    """Of each token, (N,) float32 (float64 for float64 inputs); None where not asked for; 0 where ignored."""

    logp: Tensor | None
    """Log-prob of the label at temperature 1, nats."""
    logp_t: Tensor | None
    """The same at the given temperature."""
    entropy: Tensor | None
    """Exact entropy of the distribution, nats."""


TokenLoss = Callable[[TokenStats, Tensor], Tensor]
"""(statistics of some rows, (n,) each, their indices (n,)) -> their losses (n,), or the sum of them."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything about a call that is no tensor with a gradient; see `linear_token_stats`."""

    need: tuple[Statistic, ...]
    entropy_tempered: bool
    softcap: float | None = None
    ignore_index: int
    vocab_start: int = 0
    group: Any = None


class LinearTokenStats(torch.autograd.Function):
    """hidden, weight, bias, labels, temperature, options -> the statistics asked for, (N,) each."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, temperature, options):
        rows = _Rows.of(labels, temperature, options, _work_dtype(hidden, weight, bias))
        head = _Head(rows.picked(hidden), weight, bias, options.softcap, rows.dtype)
        parts = [(tile, Running(rows.question.rows(tile), head.hidden[tile])) for tile in _tiles(rows.count, TILE_ROWS)]
        for columns in _tiles(len(weight), TILE_COLUMNS):
            chunk = head.chunk(columns)
            for tile, part in parts:
                part.take(head.logits(tile, chunk), rows.label[tile], start=options.vocab_start + columns.start)
        if options.group is not None:
            for _, part in parts:
                part.reduce(options.group)
        stats = Stats.joined([part.stats() for _, part in parts], rows.question, head.hidden)
        ctx.rows, ctx.stats, ctx.options = rows, stats, options
        ctx.save_for_backward(hidden, weight, bias)
        return rows.answers(stats, options.need)

    @staticmethod
    def backward(ctx, *gradients):
        hidden, weight, bias = ctx.saved_tensors
        rows, stats, upstream = ctx.rows.live(ctx.stats, dict(zip(ctx.options.need, gradients, strict=True)))
        head = _Head(rows.picked(hidden), weight, bias, ctx.options.softcap, rows.dtype)
        gradient = _Gradient(head, *ctx.needs_input_grad[:3])
        for columns in _tiles(len(weight), TILE_COLUMNS):
            chunk = head.chunk(columns)
            for tile in _tiles(rows.count, TILE_ROWS):
                gradient.add(
                    tile, columns, chunk, head.logits(tile, chunk), rows.label[tile], stats.rows(tile),
                    upstream.rows(tile), rows.question.rows(tile), start=ctx.options.vocab_start + columns.start,
                )  # fmt: skip
            gradient.close(columns)
        by_hidden = gradient.by_hidden
        if by_hidden is not None:
            if ctx.options.group is not None:
                torch.distributed.all_reduce(by_hidden, group=ctx.options.group)
            by_hidden = rows.spread(by_hidden).to(hidden.dtype)
        return by_hidden, gradient.by_weight, gradient.by_bias, None, None, None


class LogitsTokenStats(torch.autograd.Function):
    """logits, labels, temperature, options -> the statistics asked for, (N,) each."""

    @staticmethod
    def forward(ctx, logits, labels, temperature, options):
        rows = _Rows.of(labels, temperature, options, _work_dtype(logits))
        like, found = logits.new_empty((0, 0), dtype=rows.dtype), []
        for tile in _tiles(rows.count, TILE_ROWS):
            part = Running(rows.question.rows(tile), like.new_empty(tile.stop - tile.start, 0))
            for columns in _tiles(logits.shape[1], TILE_COLUMNS):
                part.take(_copied(logits, rows.index, tile, columns, rows.dtype), rows.label[tile], start=columns.start)
            found.append(part.stats())
        stats = Stats.joined(found, rows.question, like)
        ctx.rows, ctx.stats, ctx.need = rows, stats, options.need
        ctx.save_for_backward(logits)
        return rows.answers(stats, options.need)

    @staticmethod
    def backward(ctx, *gradients):
        (logits,) = ctx.saved_tensors
        rows, stats, upstream = ctx.rows.live(ctx.stats, dict(zip(ctx.need, gradients, strict=True)))
        by_logits = torch.empty_like(logits) if rows.index is None else torch.zeros_like(logits)
        for tile in _tiles(rows.count, TILE_ROWS):
            for columns in _tiles(logits.shape[1], TILE_COLUMNS):
                dz = logits_gradient(
                    _copied(logits, rows.index, tile, columns, rows.dtype), rows.label[tile], stats.rows(tile),
                    upstream.rows(tile), rows.question.rows(tile), start=columns.start,
                )  # fmt: skip
                by_logits[tile if rows.index is None else rows.index[tile], columns] = dz.to(logits.dtype)
        return by_logits, None, None, None


class LinearPolicyLoss(torch.autograd.Function):
    """hidden, weight, bias, labels, temperature, token_loss, options, block_bytes, trains -> loss, then statistics.

    Blocks of rows whose logits fit block_bytes: statistics, loss and its slopes, and the gradients from the same
    logits. `trains` says whether anybody will ask for a gradient.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, temperature, token_loss, options, block_bytes, trains):
        rows = _Rows.of(labels, temperature, options, _work_dtype(hidden, weight, bias))
        head = _Head(rows.picked(hidden), weight, bias, options.softcap, rows.dtype)
        block_rows = max(1, block_bytes // (len(weight) * head.hidden.element_size()))
        blocks, chunks = list(_tiles(rows.count, block_rows)), list(_tiles(len(weight), TILE_COLUMNS))
        gradient = _Gradient(head, *(trains and needed for needed in ctx.needs_input_grad[:3]))
        numbers = torch.arange(len(labels), device=labels.device) if rows.index is None else rows.index
        total, found = head.hidden.new_zeros(()), []
        for block in blocks:
            part, kept = Running(rows.question.rows(block), head.hidden[block]), []
            for columns in chunks:
                kept.append(head.logits(block, head.chunk(columns)))
                part.take(kept[-1].clone(), rows.label[block], start=columns.start)
            found.append(part.stats())
            loss, slopes = _block_loss(token_loss, rows.rows(block), found[-1], numbers[block], options.need)
            total += loss
            if not gradient.wanted:
                continue
            inside, stats, upstream = rows.rows(block).live(found[-1], slopes)
            chosen = block if inside.chosen is None else inside.chosen + block.start
            for columns, z in zip(chunks, kept, strict=True):
                z = z if inside.chosen is None else z[inside.chosen]
                gradient.add(
                    chosen, columns, head.chunk(columns), z, inside.label, stats, upstream, inside.question,
                    start=columns.start,
                )  # fmt: skip
        for columns in chunks:
            gradient.close(columns)
        by_hidden = gradient.by_hidden
        if by_hidden is not None:
            by_hidden = rows.spread(by_hidden).to(hidden.dtype)
        # Not saved but owned, so that the backward pass can hand them on without a copy.
        ctx.gradients = [by_hidden, gradient.by_weight, gradient.by_bias]
        answers = rows.answers(Stats.joined(found, rows.question, head.hidden), options.need)
        ctx.mark_non_differentiable(*answers)
        return total, *answers

    @staticmethod
    def backward(ctx, by_loss, *_):
        if ctx.gradients is None:
            raise RuntimeError(
                "linear_policy_loss hands its gradients on once: call it again for a second backward pass"
            )
        owned, ctx.gradients = ctx.gradients, None
        scaled = [None if g is None else g.mul_(by_loss.to(g.dtype)) for g in owned]
        return *scaled, None, None, None, None, None, None


def _block_loss(
    token_loss: TokenLoss, rows: "_Rows", stats: Stats, numbers: Tensor, need: tuple[Statistic, ...]
) -> tuple[Tensor, dict[Statistic, Tensor | None]]:
    """The loss of a block, summed, and its slope by each statistic, (n,)."""
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in _present(stats, need).items()}
        losses = token_loss(TokenStats(*(leaves.get(name) for name in STATISTICS)), numbers)
        if losses.shape not in (numbers.shape, ()):
            raise ValueError(f"token_loss must return ({len(numbers)},) or a scalar, got {tuple(losses.shape)}")
        loss = losses.sum()
        if not loss.requires_grad:
            return loss.detach(), dict.fromkeys(need)
        slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return loss.detach(), dict(zip(leaves, slopes, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """The rows that take part: not ignored, and in a backward pass with a gradient upstream."""

    total: int
    """N."""
    index: Tensor | None
    """(n,) int64, which of the N; None for all."""
    label: Tensor
    """(n,)."""
    question: Question
    dtype: torch.dtype
    """The working dtype."""
    chosen: Tensor | None = None
    """(n,) int64, which of the rows that `live` was asked of; None for all."""

    @classmethod
    def of(cls, labels: Tensor, temperature: Temperature, options: Options, dtype: torch.dtype) -> "_Rows":
        tempered = options.entropy_tempered and "entropy" in options.need
        column = None
        # At T = 1 the two distributions are one.
        if ("logp_t" in options.need or tempered) and not (isinstance(temperature, int | float) and temperature == 1):
            value = torch.as_tensor(temperature, dtype=dtype, device=labels.device).detach()
            column = value.expand(labels.shape).unsqueeze(-1)
        question = Question(
            temperature=column, entropy="entropy" in options.need, entropy_tempered=tempered and column is not None
        )
        counts = labels != options.ignore_index
        if counts.all():
            return cls(total=len(labels), index=None, label=labels, question=question, dtype=dtype)
        index = counts.nonzero().squeeze(-1)
        return cls(total=len(labels), index=index, label=labels[index], question=question.rows(index), dtype=dtype)

    @property
    def count(self) -> int:
        return len(self.label)

    def rows(self, some: slice | Tensor) -> "_Rows":
        """Some of these rows, as rows of their own."""
        return _Rows(
            total=self.total,
            index=None if self.index is None else self.index[some],
            label=self.label[some],
            question=self.question.rows(some),
            dtype=self.dtype,
        )

    def live(self, stats: Stats, gradients: dict[Statistic, Tensor | None]) -> tuple["_Rows", Stats, Upstream]:
        """The rows with a gradient, their statistics and their gradients. Gradients are of all N rows, or of these."""
        given = {name: g for name, g in gradients.items() if g is not None}
        if self.index is not None:
            given = {name: g if len(g) == self.count else g[self.index] for name, g in given.items()}
        moves = torch.zeros(self.count, dtype=torch.bool, device=self.label.device)
        for g in given.values():
            moves |= g != 0
        if moves.all():
            return self, stats, self.question.upstream(given)
        chosen = moves.nonzero().squeeze(-1)
        index = chosen if self.index is None else self.index[chosen]
        rows = _Rows(
            total=self.total,
            index=index,
            label=self.label[chosen],
            question=self.question.rows(chosen),
            dtype=self.dtype,
            chosen=chosen,
        )
        return rows, stats.rows(chosen), rows.question.upstream({name: g[chosen] for name, g in given.items()})

    def picked(self, value: Tensor) -> Tensor:
        """These rows of (N, ...) in the working dtype."""
        return (value if self.index is None else value[self.index]).to(self.dtype)

    def spread(self, value: Tensor) -> Tensor:
        """(n, ...) among all N rows, 0 elsewhere."""
        if self.index is None:
            return value
        return value.new_zeros(self.total, *value.shape[1:]).index_copy_(0, self.index, value)

    def answers(self, stats: Stats, need: tuple[Statistic, ...]) -> tuple[Tensor, ...]:
        """What was asked for, (N,) each."""
        return tuple(self.spread(value) for value in _present(stats, need).values())


class _Head:
    """Hidden states and the weights that make logits of them, chunk by chunk in the working dtype."""

    def __init__(
        self, hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None, dtype: torch.dtype
    ) -> None:
        self.hidden, self.weight, self.bias, self.softcap, self.dtype = hidden, weight, bias, softcap, dtype

    def chunk(self, columns: slice) -> tuple[Tensor, Tensor | None]:
        """Weights (C, d) and bias (C,)."""
        bias = None if self.bias is None else self.bias[columns].to(self.dtype)
        return self.weight[columns].to(self.dtype), bias

    def logits(self, rows: slice, chunk: tuple[Tensor, Tensor | None]) -> Tensor:
        """(n, C)."""
        weight, bias = chunk
        hidden = self.hidden[rows]
        z = hidden @ weight.mT if bias is None else torch.addmm(bias, hidden, weight.mT).clamp_(min=LOWEST)
        return z if self.softcap is None else z.div_(self.softcap).tanh_().mul_(self.softcap)


class _Gradient:
    """The sums by hidden, weight and bias, in the working dtype; each rounded once, when it is complete."""

    def __init__(self, head: _Head, hidden: bool, weight: bool, bias: bool) -> None:
        self.head = head
        self.wanted = hidden or weight or bias
        self.by_hidden = torch.zeros_like(head.hidden) if hidden else None
        self.by_weight = torch.empty_like(head.weight) if weight else None
        self.by_bias = torch.zeros_like(head.bias) if bias and head.bias is not None else None
        self._sums: dict[int, tuple[Tensor | None, Tensor]] = {}

    def add(
        self, rows: slice | Tensor, columns: slice, chunk: tuple[Tensor, Tensor | None], z: Tensor, label: Tensor,
        stats: Stats, upstream: Upstream, question: Question, *, start: int,
    ) -> None:  # fmt: skip
        """Add a chunk of some rows, whose logits are overwritten."""
        cap = self.head.softcap
        slope = None if cap is None else 1 - (z / cap).square_()
        dz = logits_gradient(z, label, stats, upstream, question, start=start)
        if slope is not None:
            dz.mul_(slope)
        if self.by_hidden is not None:
            if isinstance(rows, slice):
                self.by_hidden[rows].addmm_(dz, chunk[0])
            else:
                self.by_hidden.index_add_(0, rows, dz @ chunk[0])
        if self.by_weight is None and self.by_bias is None:
            return
        hidden, sums = self.head.hidden[rows], self._sums.get(columns.start)
        if sums is None:
            of_weight = None
            if self.by_weight is not None:
                # In the weight's own dtype the sum is the result; elsewhere it is kept apart until it is whole.
                own = self.by_weight.dtype == dz.dtype
                place = self.by_weight[columns] if own else dz.new_empty(dz.shape[1], hidden.shape[1])
                of_weight = torch.mm(dz.mT, hidden, out=place)
            self._sums[columns.start] = (of_weight, dz.sum(0))
            return
        if sums[0] is not None:
            sums[0].addmm_(dz.mT, hidden)
        sums[1].add_(dz.sum(0))

    def close(self, columns: slice) -> None:
        """No further rows of these columns."""
        sums = self._sums.pop(columns.start, None)
        of_weight = None if sums is None else sums[0]
        if self.by_weight is not None and (of_weight is None or of_weight.dtype != self.by_weight.dtype):
            self.by_weight[columns] = 0.0 if of_weight is None else of_weight
        if self.by_bias is not None:
            self.by_bias[columns] = 0.0 if sums is None else sums[1]


def _present(stats: Stats, need: tuple[Statistic, ...]) -> dict[Statistic, Tensor]:
    """What was asked for, by name; at T = 1 both log-probs are one."""
    found = {"logp": stats.logp, "logp_t": stats.logp if stats.logp_t is None else stats.logp_t}
    return {name: found[name] if name in found else _given(stats.entropy) for name in need}


def _given(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the entropy was not asked for")
    return value


def _work_dtype(*tensors: Tensor | None) -> torch.dtype:
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def _tiles(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def _copied(logits: Tensor, index: Tensor | None, tile: slice, columns: slice, dtype: torch.dtype) -> Tensor:
    rows = tile if index is None else index[tile]
    return logits[rows, columns].to(dtype, copy=True).clamp_(min=LOWEST)
