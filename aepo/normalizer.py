"""Eq. 1's two means: what each token of the T = 1 rows and of the tempered rows weighs, under three normalizers.

Letters: R T = 1 rows, S tempered rows, K of these kept (the positives of Eq. 1), and m_i the mean of the clipped
surrogate over the tokens of row i: 1/|o_i| sum_t min[r A, clip(r) A], with A = R(q, o) on the tempered rows. Each
function makes of its equation the weights at alpha = 1; `aepo.method.assemble` multiplies the second term by alpha.
The equations show the paper's 1/R and 1/|o_i|; with another reduction (`aepo.weights`) that mean stands in their place.
On exact expectations a row counts its probability, not 1/R or 1/S.

Rewards (1, 0) at T = 1 and (1, 0, 1, 0) at the control's temperature, one token each:

>>> from aepo.weights import sequence_mean
>>> def graded(*reward: float) -> Rollouts:
...     token = torch.zeros(len(reward), 1)
...     return Rollouts(prompt=token[:, 0].long(), token=token.long(), mask=token + 1, reward=torch.tensor(reward),
...                     group_size=len(reward))
>>> main, second = graded(1.0, 0.0), graded(1.0, 0.0, 1.0, 0.0)
>>> for name, weights in NORMALIZERS.items():
...     print(name, *(w[:, 0].tolist() for w in weights(main, second, second.reward > 0, sequence_mean)))
all [0.5, 0.5] [0.25, 0.0, 0.25, 0.0]
positives [0.5, 0.5] [0.5, 0.0, 0.5, 0.0]
replace [0.0, 0.0] [0.5, 0.0, 0.5, 0.0]
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from aepo.batch import Rollouts
from aepo.weights import Reduction, mean_weights

Normalizer = Literal["all", "positives", "replace"]
"""How the tempered term is averaged: a name in `NORMALIZERS`."""


def all_samples(main: Rollouts, second: Rollouts, kept: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """The tempered term is a mean over every tempered sample; one that is not kept counts as zero (Eq. 1, Eq. 3).

        J = 1/R sum_{i <= R} m_i  +  alpha 1/S sum_{i <= S} 1[i kept] m_i

    So the fewer samples are right, the weaker is the term. This is Eq. 1 as it is written: its expectation is over all
    samples of pi_old^T, and R(q, o) = 0 makes the wrong ones vanish.

    Args:
        main: the T = 1 rows.
        second: the tempered rows, as long in tokens as `main`.
        kept: (..., S) bool, the tempered rows that take part.
        reduction: row weights to token weights.

    Returns:
        (..., R, T) and (..., S, T): the token weights of both blocks, at alpha = 1.
    """
    return mean_weights(main, reduction), mean_weights(second, reduction) * kept.unsqueeze(-1)


def positives(main: Rollouts, second: Rollouts, kept: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """The tempered term is a mean over the kept samples alone: Eq. 1 under pi_old^T given that the answer is right.

        J = 1/R sum_{i <= R} m_i  +  alpha 1/K sum_{i kept} m_i

    So the term is as strong however few samples are right; with none of them (K = 0) it is 0.

    Args, Returns: as for `all_samples`.
    """
    row_weight = second.row_weight * kept
    total = row_weight.sum(-1, keepdim=True)
    row_weight = row_weight / total.masked_fill(total == 0, 1.0)
    return mean_weights(main, reduction), reduction(second.mask, row_weight)


def replace(main: Rollouts, second: Rollouts, kept: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """Each kept sample takes one row's weight of the T = 1 batch, whose first rows give way (the authors' code).

        J = 1/R ( sum_{K < i <= R} m_i  +  sum_{i kept} m_i ),  K at most R

    The batch is one mean over R rows as before, and alpha is implicit: K / R of the weight is on the second term.

    Args, Returns: as for `all_samples`.

    Raises:
        ValueError: exact expectations, which have no rows to swap.
    """
    if main.share is not None or second.share is not None:
        raise ValueError("normalizer='replace' swaps sampled rows; exact expectations have none: use 'all'")
    rows = main.reward.shape[-1]
    kept = kept & (kept.cumsum(-1) <= rows)
    gives_way = torch.arange(rows, device=kept.device) < kept.sum(-1, keepdim=True)
    main_row_weight = main.row_weight.masked_fill(gives_way, 0.0)
    second_row_weight = kept.to(main_row_weight.dtype) / rows
    # One mean over both blocks: a token mean divides by the tokens of all rows that count.
    weight = reduction(torch.cat([main.mask, second.mask], -2), torch.cat([main_row_weight, second_row_weight], -1))
    return weight[..., :rows, :], weight[..., rows:, :]


Normalization = Callable[[Rollouts, Rollouts, Tensor, Reduction], tuple[Tensor, Tensor]]
"""(T = 1 rows, tempered rows, kept (..., S), reduction) -> token weights (..., R, T) and (..., S, T)."""

NORMALIZERS: Mapping[Normalizer, Normalization] = {"all": all_samples, "positives": positives, "replace": replace}
