"""Which rank trains which rows, and in which forward passes: by tokens, decided from the global batch alone.

Every rank computes the same plan, so no message is needed, and all ranks run equally many passes.
"""

from collections.abc import Sequence

import torch

from aepo.batch import Batch

Plan = list[list[list[int]]]
"""Row indices by rank, by micro-batch; a rank with fewer rows gets empty micro-batches at the end."""


def plan(lengths: Sequence[int], *, world: int, token_budget: int) -> Plan:
    """Deal rows to ranks, longest first to the rank with the fewest tokens, then cut each rank's rows by the budget.

    Args:
        lengths: tokens of each row, prompt and response.
        world: number of ranks.
        token_budget: most tokens of one micro-batch, padding included; a longer row stands alone.

    >>> plan([5, 5, 1, 1], world=2, token_budget=6)
    [[[0], [2]], [[1], [3]]]
    """
    by_length = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    shares: list[list[int]] = [[] for _ in range(world)]
    load = [0] * world
    for row in by_length:
        rank = load.index(min(load))
        shares[rank].append(row)
        load[rank] += lengths[row]
    cut = [_cut(share, lengths, token_budget) for share in shares]
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


def trimmed(batch: Batch, rows: Sequence[int]) -> Batch:
    """The given rows without the padding that all of them share; of an empty list, the first row with weight 0.

    A rank without rows still has to run its forward and backward pass, or the other ranks wait for it.
    """
    part = batch.rows(torch.tensor(list(rows) or [0]))
    if not rows:
        part = part.scaled(0.0)
    return part.truncated(max(1, int(part.mask.sum(-1).max())))
