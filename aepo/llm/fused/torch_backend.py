"""The torch backend of `linear_token_stats`: chunks of rows and columns, on any device, in any floating dtype.

Letters: N tokens, n of them, d hidden size, V vocabulary, C columns of a chunk of it. Sums are float32, or float64 for
float64 inputs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from aepo.llm.fused import chunked
from aepo.llm.fused.chunked import LOWEST, Question, Running, Stats, Upstream
from aepo.llm.fused.rows import Linear, Rows

# Rows and columns of a chunk: matrix products reach their speed from here on, and 2 MB of logits stay in the cache.
TILE_ROWS = 256
TILE_COLUMNS = 2048


def statistics(linear: Linear, rows: Rows) -> Stats:
    """Of the rows, over this process's columns and, with a group, over everybody's."""
    head = Head(linear, rows.dtype)
    parts = [(tile, Running(rows.question.rows(tile), head.hidden[tile])) for tile in tiles(rows.count, TILE_ROWS)]
    for columns in tiles(len(linear.weight), TILE_COLUMNS):
        chunk = head.chunk(columns)
        for tile, part in parts:
            part.take(head.logits(tile, chunk), rows.label[tile], start=linear.vocab_start + columns.start)
    if linear.group is not None:
        for _, part in parts:
            part.reduce(linear.group)
    return Stats.joined([part.stats() for _, part in parts], rows.question, head.hidden)


def gradient(
    linear: Linear, rows: Rows, stats: Stats, upstream: Upstream, *, needs: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """By the rows' hidden states (in the working dtype), the weight and the bias, of which some are needed."""
    head = Head(linear, rows.dtype)
    sums = Sums(head, *needs)
    for columns in tiles(len(linear.weight), TILE_COLUMNS):
        chunk = head.chunk(columns)
        for tile in tiles(rows.count, TILE_ROWS):
            sums.add(
                tile, columns, chunk, head.logits(tile, chunk), rows.label[tile], stats.rows(tile), upstream.rows(tile),
                rows.question.rows(tile), start=linear.vocab_start + columns.start,
            )  # fmt: skip
        sums.close(columns)
    return sums.by_hidden, sums.by_weight, sums.by_bias


def logits_statistics(logits: Tensor, rows: Rows) -> Stats:
    """Of the rows, from logits (N, V)."""
    like, found = logits.new_empty((0, 0), dtype=rows.dtype), []
    for tile in tiles(rows.count, TILE_ROWS):
        part = Running(rows.question.rows(tile), like.new_empty(tile.stop - tile.start, 0))
        for columns in tiles(logits.shape[1], TILE_COLUMNS):
            part.take(_copied(logits, rows.index, tile, columns, rows.dtype), rows.label[tile], start=columns.start)
        found.append(part.stats())
    return Stats.joined(found, rows.question, like)


def logits_gradient(logits: Tensor, rows: Rows, stats: Stats, upstream: Upstream, out: Tensor) -> None:
    """The rows' gradient by the logits into out (N, V), which may be the logits themselves."""
    for tile in tiles(rows.count, TILE_ROWS):
        for columns in tiles(logits.shape[1], TILE_COLUMNS):
            dz = chunked.logits_gradient(
                _copied(logits, rows.index, tile, columns, rows.dtype), rows.label[tile], stats.rows(tile),
                upstream.rows(tile), rows.question.rows(tile), start=columns.start,
            )  # fmt: skip
            out[tile if rows.index is None else rows.index[tile], columns] = dz.to(out.dtype)


def _copied(logits: Tensor, index: Tensor | None, tile: slice, columns: slice, dtype: torch.dtype) -> Tensor:
    rows = tile if index is None else index[tile]
    return logits[rows, columns].to(dtype, copy=True).clamp_(min=LOWEST)


class Head:
    """Hidden states and the weights that make logits of them, chunk by chunk in the working dtype."""

    def __init__(self, linear: Linear, dtype: torch.dtype) -> None:
        self.hidden = linear.hidden.to(dtype)
        self.weight, self.bias, self.softcap, self.dtype = linear.weight, linear.bias, linear.softcap, dtype

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


class Sums:
    """The sums by hidden, weight and bias, in the working dtype; each rounded once, when it is complete."""

    def __init__(self, head: Head, hidden: bool, weight: bool, bias: bool) -> None:
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
        dz = chunked.logits_gradient(z, label, stats, upstream, question, start=start)
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


def tiles(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
