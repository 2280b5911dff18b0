"""The gemm backend: the library multiplies, and a row kernel of ours reads the logits and writes their gradient.

Float32 logits exist for a block of rows at a time. Their gradient, in the operands' dtype, lies over them where one
block is all there is and every row has one, and otherwise in a panel, which holds the rows that have one side by side.
A whole panel is multiplied at once: the weight's gradient is then one product, and rounded once.

Letters: N tokens, n of them, d hidden size, V vocabulary.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aepo.llm.fused import cuda_backend, products
from aepo.llm.fused.chunked import LOWEST, Running, Stats, Upstream
from aepo.llm.fused.rows import Gradients, Linear, Needs, Rows, tiles

DEVICE_SHARE = 32
"""A GPU's memory by this is the budget, unless the caller says otherwise: of the 140 GiB of an H200 4.4, which hold the
logits of 968 tokens of Qwen2.5-7B and the gradients of 13,554. By the whole memory and not by what is free, so that the
same machine gives the same bits."""
HOST_BYTES = 4 << 30
"""The budget on a CPU, where only tests run this."""
LOGITS_SHARE = 8
"""One byte in so many is the logits': more rows than a product needs to reach its speed gain nothing."""
FEWEST_ROWS = 128
"""Rows of logits below which a product is no faster than a kernel that stores none."""
FLOAT32 = 4


def statistics(linear: Linear, rows: Rows) -> Stats:
    """Of the rows, over this process's columns and, with a group, over everybody's."""
    blocks = Blocks(linear, rows, (False, False, False))
    running = Running(rows.question, blocks.like)
    if rows.count:
        running.join(torch.cat([blocks.sums(block) for block in blocks], -1))
    if linear.group is not None:
        running.reduce(linear.group)
    return running.stats()


def gradient(linear: Linear, rows: Rows, stats: Stats, upstream: Upstream, *, needs: Needs) -> Gradients:
    """By the rows' hidden states (float32), the weight and the bias, of which some are needed."""
    blocks = Blocks(linear, rows, needs)
    for block in blocks:
        blocks.make_logits(block)
        blocks.add(block, rows.rows(block), stats.rows(block), upstream.rows(block))
    return blocks.gradients()


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """What a call stores: rows of float32 logits, rows of their gradients, and a sum where those are not all rows."""

    rows: int
    """N."""
    width: int
    """d."""
    vocabulary: int
    """V."""
    itemsize: int
    """Bytes of a number of the operands."""
    budget: int
    """Bytes of logits and gradients."""

    @property
    def logits_rows(self) -> int:
        """How many rows of logits the budget's share of them holds, at least one."""
        return max(1, self.budget // LOGITS_SHARE // (FLOAT32 * self.vocabulary))

    @property
    def logits_bytes(self) -> int:
        """Of the rows of logits that exist at a time."""
        return min(self.logits_rows, self.rows) * FLOAT32 * self.vocabulary

    @property
    def panel_rows(self) -> int:
        """How many rows of gradients the rest holds, at least one and at most all."""
        rest = self.budget - self.logits_bytes
        return max(1, min(self.rows, rest // (self.itemsize * self.vocabulary)))

    @property
    def sum_bytes(self) -> int:
        """Of the weight's gradient over several panels, in float32; where the weight is float32, its own will do."""
        several = self.rows > self.panel_rows and self.itemsize < FLOAT32
        return FLOAT32 * self.vocabulary * self.width if several else 0

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.logits_bytes + self.panel_rows * self.itemsize * self.vocabulary + self.sum_bytes

    @property
    def too_tight(self) -> str | None:
        """Why the budget is better spent on kernels that store no logits, or None."""
        if self.logits_rows < min(FEWEST_ROWS, self.rows):
            return f"{self.budget} bytes hold the logits of {self.logits_rows} rows"
        if self.sum_bytes > self.budget:
            return (
                f"a float32 sum of the weight's size is {self.sum_bytes} bytes, more than the budget of {self.budget}"
            )
        return None


def workspace(hidden: Tensor, weight: Tensor, block_bytes: int | None, *, rows: int | None = None) -> Workspace:
    """Of a call with hidden states (N, d) and weight (V, d), or of so many of its rows."""
    return Workspace(
        rows=len(hidden) if rows is None else rows,
        width=weight.shape[1],
        vocabulary=len(weight),
        itemsize=hidden.element_size(),
        budget=device_budget(hidden.device) if block_bytes is None else block_bytes,
    )


@functools.cache
def device_budget(device: torch.device) -> int:
    """Bytes that a call may store on a device, unless its caller says otherwise."""
    if device.type != "cuda":
        return HOST_BYTES
    return torch.cuda.get_device_properties(device).total_memory // DEVICE_SHARE


def row_kernel(device: torch.device) -> Any:
    """The module whose `row_sums` and `row_gradient` run here: in CUDA C++, or in Triton where nvcc is missing."""
    if cuda_backend.obstacle(device, torch.float32) is None:
        return cuda_backend
    from aepo.llm.fused import triton_rows

    return triton_rows


class Blocks:
    """Blocks of rows, each in turn made into logits, asked for its statistics and turned into its gradient.

    Iterating gives the blocks, slices of the rows.
    """

    def __init__(self, linear: Linear, rows: Rows, needs: Needs) -> None:
        self.linear, self.rows = linear, rows
        self.hidden, self.weight = linear.hidden, linear.weight
        self.label = rows.label - linear.vocab_start
        self.like = torch.empty((rows.count, 0), dtype=torch.float32, device=self.hidden.device)
        self.kernel = row_kernel(self.hidden.device)
        room, vocabulary = workspace(self.hidden, self.weight, linear.block_bytes, rows=rows.count), len(self.weight)
        self.size, self.panel_rows = room.logits_rows, room.panel_rows
        need_h, need_w, need_b = needs
        self.by_hidden = self.like.new_zeros(self.hidden.shape) if need_h else None
        self.by_weight = torch.empty_like(self.weight) if need_w else None
        self.by_bias = self.like.new_zeros(vocabulary) if need_b and linear.bias is not None else None
        self._logits: Tensor | None = None
        self._panel: Tensor | None = None
        self._held: list[Tensor] = []
        """Which rows the panel holds, in order."""
        self._sum: Tensor | None = None
        """(V, d) float32: the weight's gradient over earlier panels."""
        self._multiplied = False

    def __iter__(self) -> Iterator[slice]:
        yield from tiles(self.rows.count, self.size)

    def make_logits(self, block: slice) -> Tensor:
        """(n, V) float32 of a block, kept until the next."""
        # One block of memory serves them all only if the last is given up first.
        self._logits = None
        z = products.wide(self.hidden[block], self.weight.mT)
        if self.linear.bias is not None:
            z.add_(self.linear.bias).clamp_(min=LOWEST)
        if self.linear.softcap is not None:
            z.div_(self.linear.softcap).tanh_().mul_(self.linear.softcap)
        self._logits = z
        return z

    def sums(self, block: slice) -> Tensor:
        """(5, 1, n): of a block's logits, made here, what `Running.join` takes."""
        return self.kernel.row_sums(self.make_logits(block), None, self.label[block], self.rows.question.rows(block))

    def statistics(self, block: slice) -> Stats:
        """Of a block's logits, made here."""
        running = Running(self.rows.question.rows(block), self.like[block])
        running.join(self.sums(block))
        return running.stats()

    def add(self, block: slice, inside: Rows, stats: Stats, upstream: Upstream) -> None:
        """The gradient of the block whose logits were made last, or of the rows of it that are `inside`."""
        z, chosen = self._logits, inside.chosen
        if z is None or not inside.count:
            return
        label = self.label[block] if chosen is None else self.label[block][chosen]
        if inside.count == self.rows.count and chosen is None:
            dz = over(z, self.hidden.dtype)
            self._write(z, None, label, inside, stats, upstream, dz)
            self._multiply(dz, slice(None), last=True)
            return
        # A block may be larger than the panel.
        for part in tiles(inside.count, self.panel_rows):
            out = self._room(part.stop - part.start)
            index = torch.arange(len(z), device=z.device)[part] if chosen is None else chosen[part]
            self._held.append(index + block.start)
            self._write(z, index, label[part], inside.rows(part), stats.rows(part), upstream.rows(part), out)

    def gradients(self) -> Gradients:
        """By the hidden states (n, d) float32, the weight and the bias, once every block was added."""
        self._flush(last=True)
        if self.by_weight is not None and not self._multiplied:
            self.by_weight.zero_()
        by_bias = None
        if self.by_bias is not None and self.linear.bias is not None:
            by_bias = self.by_bias.to(self.linear.bias.dtype)
        return self.by_hidden, self.by_weight, by_bias

    def _write(
        self, z: Tensor, index: Tensor | None, label: Tensor, inside: Rows, stats: Stats, upstream: Upstream,
        out: Tensor,
    ) -> None:  # fmt: skip
        self.kernel.row_gradient(z, index, label, inside.question, stats, upstream, out, softcap=self.linear.softcap)

    def _room(self, count: int) -> Tensor:
        """(count, V) of the panel, after what it holds; it is multiplied first where it has no room left."""
        if self._panel is None:
            self._panel = self.hidden.new_empty(self.panel_rows, len(self.weight))
        held = sum(map(len, self._held))
        if held + count > self.panel_rows:
            self._flush(last=False)
            held = 0
        return self._panel[held : held + count]

    def _flush(self, *, last: bool) -> None:
        """Multiply what the panel holds."""
        if self._panel is None or not self._held:
            return
        index, self._held = torch.cat(self._held), []
        self._multiply(self._panel[: len(index)], index, last=last)

    def _multiply(self, dz: Tensor, index: Tensor | slice, *, last: bool) -> None:
        """Both products by the gradient of some rows' logits (n, V); every panel but the last leaves a float32 sum."""
        self._multiplied = True
        if self.by_hidden is not None:
            self.by_hidden[index] = products.wide(dz, self.weight)
        if self.by_bias is not None:
            self.by_bias += dz.sum(0, dtype=torch.float32)
        if self.by_weight is None:
            return
        hidden = self.hidden[index]
        if self._sum is not None:
            products.add(self._sum, dz.mT, hidden)
        elif not last:
            self._sum = products.wide(dz.mT, hidden)
        else:
            products.rounded(dz.mT, hidden, out=self.by_weight)
        if self._sum is not None and last:
            self.by_weight.copy_(self._sum)


def over(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """(n, V) of a dtype no wider than float32 whose rows begin where those of the logits (n, V) do, in their memory."""
    return logits.view(dtype)[:, : logits.shape[1]]
