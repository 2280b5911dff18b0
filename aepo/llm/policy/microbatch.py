"""Which rank trains which rows, and in which forward passes: by tokens, decided from the global batch alone.

Every rank computes this for all of them, so no message is needed, and all ranks run equally many passes. Letters as in
`aepo.batch`.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.batch import Batch

MicroBatches = list[list[list[int]]]
"""Row indices by rank, by micro-batch; a rank with fewer rows gets empty micro-batches at the end."""

# A response's copy of its prompt's keys and values, in tokens per token of the prompt: at most an eighth of what a
# layer keeps of a token (`aepo.llm.doctor.memory.Architecture`), where every head has keys of its own.
COPIED = 1 / 8
# The second pass of a shared forward costs something by itself, so sharing has to save a tenth of the tokens.
WORTH = 0.9


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Who computes which rows, and how."""

    micros: MicroBatches
    shared: bool
    """Whether each pass computes every prompt once for all its rows."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The prompt of every row, and the lengths of both its parts."""

    prompt: Sequence[int]
    """Which one; rows with the same share it."""
    prompt_length: Sequence[int]
    """Tokens of that prompt, row by row."""
    response_length: Sequence[int]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, prompt and response."""
        return [a + b for a, b in zip(self.prompt_length, self.response_length, strict=True)]

    def computed(self, rows: Sequence[int], *, shared: bool) -> int:
        """Tokens of a pass over the rows, padding included; with shared prompts, each prompt once.

        >>> sizes = Sizes(prompt=[7, 7, 8], prompt_length=[5, 5, 4], response_length=[1, 2, 2])
        >>> sizes.computed([0, 1, 2], shared=False), sizes.computed([0, 1, 2], shared=True)
        (21, 16)
        """
        if not rows:
            return 0
        prompts = len({self.prompt[row] for row in rows}) if shared else len(rows)
        # Prompts are padded to end together, and responses to the longest of them.
        longest = [max(lengths[row] for row in rows) for lengths in (self.prompt_length, self.response_length)]
        return prompts * longest[0] + len(rows) * longest[1]

    def held(self, rows: Sequence[int]) -> float:
        """What a pass with shared prompts takes of the budget: its tokens, and the copies of its prompts' keys."""
        return self.computed(rows, shared=True) + COPIED * len(rows) * max(self.prompt_length[row] for row in rows)


def planned(sizes: Sizes, *, world: int, token_budget: int, packed: bool = False, sharing: bool = False) -> Plan:
    """The micro-batches that compute fewer tokens: rows with prompts of their own, or groups with shared ones.

    Groups of long responses that differ in length may have more padding than their prompts save.

    Args:
        sizes: of the rows.
        world, token_budget, packed: as for `micro_batches`.
        sharing: whether prompts may be shared at all.

    >>> sizes = Sizes(prompt=[0, 0, 1, 1], prompt_length=[9] * 4, response_length=[1, 1, 1, 1])
    >>> planned(sizes, world=2, token_budget=20, sharing=True)
    Plan(micros=[[[0, 1]], [[2, 3]]], shared=True)
    >>> planned(sizes, world=2, token_budget=20)
    Plan(micros=[[[0, 2]], [[1, 3]]], shared=False)
    """
    apart = micro_batches(sizes.lengths, world=world, token_budget=token_budget, packed=packed)
    if not sharing:
        return Plan(micros=apart, shared=False)
    together = shared_micro_batches(sizes, world=world, token_budget=token_budget)

    def slowest(ranks: MicroBatches, *, shared: bool) -> int:
        return max(sum(sizes.computed(rows, shared=shared) for rows in micros) for micros in ranks)

    if slowest(together, shared=True) <= WORTH * slowest(apart, shared=False):
        return Plan(micros=together, shared=True)
    return Plan(micros=apart, shared=False)


def shared_micro_batches(sizes: Sizes, *, world: int, token_budget: int) -> MicroBatches:
    """Deal whole groups to ranks, the largest first to the rank with the least, then fill each rank's passes.

    A group is all rows of one prompt. One that is more than the budget, or than a rank's even share, is cut into
    pieces, which each compute the prompt.

    Args:
        sizes: of the rows.
        world: number of ranks.
        token_budget: most tokens of one micro-batch, padding and copied keys included; a longer row stands alone.

    >>> sizes = Sizes(prompt=[0, 1, 0, 1], prompt_length=[8] * 4, response_length=[1, 3, 1, 3])
    >>> shared_micro_batches(sizes, world=1, token_budget=16)
    [[[1, 3], [0, 2]]]
    >>> shared_micro_batches(sizes, world=1, token_budget=40)
    [[[1, 3, 0, 2]]]
    """
    groups: dict[int, list[int]] = {}
    for row in sorted(range(len(sizes.prompt)), key=lambda row: (-sizes.response_length[row], row)):
        groups.setdefault(sizes.prompt[row], []).append(row)
    even = sum(map(sizes.held, groups.values())) / world
    pieces = [
        piece for rows in groups.values() for piece in _filled(sizes, [[row] for row in rows], min(token_budget, even))
    ]
    shares: list[list[list[int]]] = [[] for _ in range(world)]
    load = [0.0] * world
    for piece in sorted(pieces, key=lambda rows: (-sizes.held(rows), rows)):
        rank = load.index(min(load))
        shares[rank].append(piece)
        load[rank] += sizes.held(piece)
    longest_first = [
        sorted(share, key=lambda rows: (-sizes.response_length[rows[0]], -sizes.prompt_length[rows[0]], rows))
        for share in shares
    ]
    cut = [_filled(sizes, share, token_budget) for share in longest_first]
    most = max(len(micros) for micros in cut)
    return [micros + [[] for _ in range(most - len(micros))] for micros in cut]


def _filled(sizes: Sizes, pieces: Sequence[list[int]], limit: float) -> list[list[int]]:
    """The pieces one after the other, in as many lists of rows as keep each within the limit."""
    found: list[list[int]] = []
    for piece in pieces:
        if found and sizes.held(found[-1] + piece) <= limit:
            found[-1] = found[-1] + piece
        else:
            found.append(list(piece))
    return found


def micro_batches(lengths: Sequence[int], *, world: int, token_budget: int, packed: bool = False) -> MicroBatches:
    """Deal rows to ranks, longest first to the rank with the fewest tokens, then cut each rank's rows by the budget.

    Args:
        lengths: tokens of each row, prompt and response.
        world: number of ranks.
        token_budget: most tokens of one micro-batch; a longer row stands alone.
        packed: whether the rows of a micro-batch are computed without padding, so that it costs the sum of their
            lengths and not the longest of them for each.

    >>> micro_batches([5, 5, 1, 1], world=2, token_budget=6)
    [[[0], [2]], [[1], [3]]]
    >>> micro_batches([5, 5, 1, 1], world=2, token_budget=6, packed=True)
    [[[0, 2]], [[1, 3]]]
    """
    by_length = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    shares: list[list[int]] = [[] for _ in range(world)]
    load = [0] * world
    for row in by_length:
        rank = load.index(min(load))
        shares[rank].append(row)
        load[rank] += lengths[row]
    cut = [(_fill if packed else _cut)(share, lengths, token_budget) for share in shares]
    most = max(len(micros) for micros in cut)
    return [micros + [[] for _ in range(most - len(micros))] for micros in cut]


def _cut(rows: list[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    micros: list[list[int]] = []
    for row in rows:
        # Rows come longest first, so the first row of a micro-batch sets its padded length.
        if micros and lengths[micros[-1][0]] * (len(micros[-1]) + 1) <= token_budget:
            micros[-1].append(row)
        else:
            micros.append([row])
    return micros


def _fill(rows: list[int], lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    micros: list[list[int]] = []
    room: list[int] = []
    for row in rows:
        # Longest first into the first that has room: at most 22% more micro-batches than the fewest possible.
        fits = next((i for i, left in enumerate(room) if lengths[row] <= left), None)
        if fits is None:
            micros.append([])
            room.append(token_budget)
            fits = -1
        micros[fits].append(row)
        room[fits] -= lengths[row]
    return micros


def pack(prompts: Sequence[Sequence[int]], token: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts and responses, row after row without padding, each row with positions from 0.

    Args:
        prompts: of the R rows; none is empty.
        token: (R, T) int64.
        mask: (R, T), 0 on the padding after each response.

    Returns:
        input ids and position ids, each (1, N) int64 with N the tokens of all rows, and for each token of a response,
        row by row as `mask` lists them, the index among the N of the token before it, which predicts it.

    >>> [t.tolist() for t in pack([[5], [6, 7]], torch.tensor([[8, 9], [4, 0]]), torch.tensor([[1, 1], [1, 0]]))]
    [[[5, 8, 9, 6, 7, 4]], [[0, 1, 2, 0, 1, 2]], [0, 1, 4]]
    """
    ids, positions, before, start = [], [], [], 0
    for prompt, response in zip(prompts, (row[on] for row, on in zip(token, mask != 0, strict=True)), strict=True):
        length = len(prompt) + len(response)
        ids += [torch.tensor(prompt), response]
        positions.append(torch.arange(length))
        before.append(torch.arange(len(prompt) - 1, length - 1) + start)
        start += length
    return torch.cat(ids).unsqueeze(0), torch.cat(positions).unsqueeze(0), torch.cat(before)


def trimmed(batch: Batch, rows: Sequence[int]) -> Batch:
    """The given rows without the padding that all of them share; of an empty list, the first row with weight 0.

    A rank without rows still has to run its forward and backward pass, or the other ranks wait for it.
    """
    part = batch.rows(torch.tensor(list(rows) or [0]))
    if not rows:
        part = part.scaled(0.0)
    return part.truncated(max(1, int(part.mask.sum(-1).max())))


def left_padded(
    prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts of any length as one batch that ends together.

    Returns:
        input ids, attention mask and position ids, each (P, longest) int64.

    >>> [t.tolist() for t in left_padded([[5], [6, 7]], 0)]
    [[[0, 5], [6, 7]], [[0, 1], [1, 1]], [[0, 0], [0, 1]]]
    """
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    longest = int(lengths.max())
    attention = (torch.arange(longest) >= longest - lengths.unsqueeze(-1)).long()
    input_ids = torch.full_like(attention, pad_id)
    # In one go: a tensor for each of hundreds of prompts took a tenth of a small model's step.
    input_ids[attention.bool()] = torch.tensor(list(itertools.chain.from_iterable(prompts)), dtype=torch.int64)
    position = (attention.cumsum(-1) - 1).clamp(min=0)
    return input_ids.to(device), attention.to(device), position.to(device)
