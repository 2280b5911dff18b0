"""The autograd functions: what is kept between the passes, and which rows are worth a gradient.

Letters: N tokens, n of them, d hidden size, V vocabulary, C columns of a chunk of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from aepo.llm.fused import torch_backend
from aepo.llm.fused.chunked import Running, Stats
from aepo.llm.fused.rows import STATISTICS, Options, Rows, Statistic, TokenStats, present, work_dtype

TokenLoss = Callable[[TokenStats, Tensor], Tensor]
"""(statistics of some rows, (n,) each, their indices (n,)) -> their losses (n,), or the sum of them."""


class LinearTokenStats(torch.autograd.Function):
    """hidden, weight, bias, labels, temperature, options -> the statistics asked for, (N,) each."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, temperature, options):
        rows = Rows.of(labels, temperature, options, work_dtype(hidden, weight, bias))
        stats = options.backend.statistics(options.linear(rows.picked(hidden), weight, bias), rows)
        ctx.rows, ctx.stats, ctx.options = rows, stats.kept(), options
        ctx.save_for_backward(hidden, weight, bias)
        return rows.answers(stats, options.need)

    @staticmethod
    def backward(ctx, *gradients):
        hidden, weight, bias = ctx.saved_tensors
        rows, stats, upstream = ctx.rows.live(ctx.stats, dict(zip(ctx.options.need, gradients, strict=True)))
        linear = ctx.options.linear(rows.picked(hidden), weight, bias)
        by_hidden, by_weight, by_bias = ctx.options.backend.gradient(
            linear, rows, stats, upstream, needs=ctx.needs_input_grad[:3]
        )
        if by_hidden is not None:
            if ctx.options.group is not None:
                torch.distributed.all_reduce(by_hidden, group=ctx.options.group)
            by_hidden = rows.spread(by_hidden).to(hidden.dtype)
        return by_hidden, by_weight, by_bias, None, None, None


class LogitsTokenStats(torch.autograd.Function):
    """logits, labels, temperature, options -> the statistics asked for, (N,) each."""

    @staticmethod
    def forward(ctx, logits, labels, temperature, options):
        rows = Rows.of(labels, temperature, options, work_dtype(logits))
        stats = options.backend.logits_statistics(logits, rows)
        ctx.rows, ctx.stats, ctx.options, ctx.reused = rows, stats.kept(), options, False
        ctx.save_for_backward(logits)
        return rows.answers(stats, options.need)

    @staticmethod
    def backward(ctx, *gradients):
        if ctx.reused:
            raise RuntimeError(
                "reuse_logits has overwritten the logits: a second backward pass needs reuse_logits=False"
            )
        (logits,) = ctx.saved_tensors
        rows, stats, upstream = ctx.rows.live(ctx.stats, dict(zip(ctx.options.need, gradients, strict=True)))
        if ctx.options.reuse_logits:
            ctx.reused, by_logits = True, logits.detach()
        else:
            by_logits = torch.empty_like(logits) if rows.index is None else torch.zeros_like(logits)
        ctx.options.backend.logits_gradient(logits, rows, stats, upstream, by_logits)
        if ctx.options.reuse_logits and rows.index is not None:
            still = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
            still[rows.index] = False
            by_logits[still] = 0.0
        return by_logits, None, None, None


class LinearPolicyLoss(torch.autograd.Function):
    """hidden, weight, bias, labels, temperature, token_loss, options, block_bytes, trains -> loss, then statistics.

    `trains` says whether anybody will ask for a gradient.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, temperature, token_loss, options, block_bytes, trains):
        rows = Rows.of(labels, temperature, options, work_dtype(hidden, weight, bias))
        needs = tuple(trains and needed for needed in ctx.needs_input_grad[:3])
        layer = (hidden, weight, bias)
        if options.backend is torch_backend:
            total, stats, gradients = _loss_by_blocks(layer, rows, token_loss, options, block_bytes, needs)
        else:
            total, stats, gradients = _loss_at_once(layer, rows, token_loss, options, needs)
        by_hidden, by_weight, by_bias = gradients
        by_hidden = None if by_hidden is None else by_hidden.to(hidden.dtype)
        # Not saved but owned, so that the backward pass can hand them on without a copy.
        ctx.gradients = [by_hidden, by_weight, by_bias]
        answers = rows.answers(stats, options.need)
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


Layer = tuple[Tensor, Tensor, Tensor | None]
"""Hidden states (N, d), weight (V, d) and bias (V,)."""
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
"""By each of these, the first in the working dtype."""


def _loss_at_once(
    layer: Layer, rows: Rows, token_loss: TokenLoss, options: Options, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Stats, Gradients]:
    """Statistics of all rows, then the loss and its slopes, then the gradient, which makes the logits again."""
    hidden, weight, bias = layer
    stats = options.backend.statistics(options.linear(rows.picked(hidden), weight, bias), rows).kept()
    loss, slopes = _block_loss(token_loss, stats, _numbers(rows), options.need)
    if not any(needs):
        return loss, stats, (None, None, None)
    inside, live_stats, upstream = rows.live(stats, slopes)
    linear = options.linear(inside.picked(hidden), weight, bias)
    by_hidden, by_weight, by_bias = options.backend.gradient(linear, inside, live_stats, upstream, needs=needs)
    return loss, stats, (None if by_hidden is None else inside.spread(by_hidden), by_weight, by_bias)


def _loss_by_blocks(
    layer: Layer,
    rows: Rows,
    token_loss: TokenLoss,
    options: Options,
    block_bytes: int,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor, Stats, Gradients]:
    """Blocks of rows whose logits fit block_bytes: statistics, loss, slopes and gradients from the same logits."""
    hidden, weight, bias = layer
    head = torch_backend.Head(options.linear(rows.picked(hidden), weight, bias), rows.dtype)
    block_rows = max(1, block_bytes // (len(weight) * head.hidden.element_size()))
    chunks = list(torch_backend.tiles(len(weight), torch_backend.TILE_COLUMNS))
    gradient = torch_backend.Sums(head, *needs)
    numbers = _numbers(rows)
    total, found = head.hidden.new_zeros(()), []
    for block in torch_backend.tiles(rows.count, block_rows):
        part, kept = Running(rows.question.rows(block), head.hidden[block]), []
        for columns in chunks:
            kept.append(head.logits(block, head.chunk(columns)))
            part.take(kept[-1].clone(), rows.label[block], start=columns.start)
        found.append(part.stats())
        loss, slopes = _block_loss(token_loss, found[-1], numbers[block], options.need)
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
    stats = Stats.joined(found, rows.question, head.hidden)
    by_hidden = None if gradient.by_hidden is None else rows.spread(gradient.by_hidden)
    return total, stats, (by_hidden, gradient.by_weight, gradient.by_bias)


def _numbers(rows: Rows) -> Tensor:
    """(n,) int64: which of the N tokens the rows are."""
    return torch.arange(rows.total, device=rows.label.device) if rows.index is None else rows.index


def _block_loss(
    token_loss: TokenLoss, stats: Stats, numbers: Tensor, need: tuple[Statistic, ...]
) -> tuple[Tensor, dict[Statistic, Tensor | None]]:
    """The loss of a block, summed, and its slope by each statistic, (n,)."""
    with torch.enable_grad():
        leaves = {name: value.detach().requires_grad_() for name, value in present(stats, need).items()}
        losses = token_loss(TokenStats(*(leaves.get(name) for name in STATISTICS)), numbers)
        if losses.shape not in (numbers.shape, ()):
            raise ValueError(f"token_loss must return ({len(numbers)},) or a scalar, got {tuple(losses.shape)}")
        loss = losses.sum()
        if not loss.requires_grad:
            return loss.detach(), dict.fromkeys(need)
        slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return loss.detach(), dict(zip(leaves, slopes, strict=True))
