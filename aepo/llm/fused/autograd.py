"""The autograd functions: what is kept between the passes, and which rows are worth a gradient.

Letters: N tokens, n of them, d hidden size, V vocabulary, C columns of a chunk of it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from aepo.llm.fused import torch_backend
from aepo.llm.fused.chunked import Running, Stats
from aepo.llm.fused.rows import STATISTICS, Rows, Statistic, TokenStats, present, work_dtype

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

    Blocks of rows whose logits fit block_bytes: statistics, loss and its slopes, and the gradients from the same
    logits. `trains` says whether anybody will ask for a gradient.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, temperature, token_loss, options, block_bytes, trains):
        rows = Rows.of(labels, temperature, options, work_dtype(hidden, weight, bias))
        head = torch_backend.Head(options.linear(rows.picked(hidden), weight, bias), rows.dtype)
        block_rows = max(1, block_bytes // (len(weight) * head.hidden.element_size()))
        blocks = list(torch_backend.tiles(rows.count, block_rows))
        chunks = list(torch_backend.tiles(len(weight), torch_backend.TILE_COLUMNS))
        gradient = torch_backend.Sums(head, *(trains and needed for needed in ctx.needs_input_grad[:3]))
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
    token_loss: TokenLoss, rows: Rows, stats: Stats, numbers: Tensor, need: tuple[Statistic, ...]
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
