"""Advantages: what a response, or a token of it, is credited with.

Letters as in `aepo.batch`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

Std = Literal["sample", "population", "none"]

# Keeps the division finite in a group of nearly equal rewards; the value of the authors' code.
STD_EPSILON = 1e-6


def group_normalized(reward: Tensor, *, group_size: int, share: Tensor | None = None, std: Std = "sample") -> Tensor:
    """GRPO's advantage (r - mean) / std within each group (Section 3.1).

    The paper does not say which standard deviation; the authors' code takes the sample one (G - 1) plus 1e-6, the
    default here. A group of equal rewards gets exactly 0. Under an exact expectation (`share` given) the number of
    samples is unlimited, and the sample and population standard deviations are one.

    Args:
        reward: (..., R).
        group_size: G, divides R.
        share: (..., R), each row's probability within its group, summing to 1 there; None for 1/G each.
        std: "sample" (divides by G - 1), "population" (by G), or "none" (no division, as in Dr. GRPO).

    Returns:
        (..., R).

    >>> group_normalized(torch.tensor([1.0, 0.0, 0.0, 1.0]), group_size=4)
    tensor([ 0.8660, -0.8660, -0.8660,  0.8660])
    >>> group_normalized(torch.tensor([0.1, 0.1, 0.1]), group_size=3)  # equal rewards carry no information
    tensor([0., 0., 0.])
    """
    if std not in ("sample", "population", "none"):
        raise ValueError(f"std must be 'sample', 'population' or 'none', got {std!r}")
    grouped = reward.unflatten(-1, (-1, group_size))
    equal = grouped.amax(-1, keepdim=True) == grouped.amin(-1, keepdim=True)
    probability = 1.0 / group_size if share is None else share.unflatten(-1, (-1, group_size))
    centred = grouped - _mean(grouped, probability)
    if std != "none":
        variance = _mean(centred.square(), probability)
        if std == "sample" and share is None and group_size > 1:
            variance = variance * (group_size / (group_size - 1))
        centred = centred / (variance.sqrt() + STD_EPSILON)
    # Rounding may leave a mean that differs from equal rewards.
    return centred.masked_fill_(equal, 0.0).flatten(-2)


def _mean(grouped: Tensor, probability: Tensor | float) -> Tensor:
    if isinstance(probability, float):
        return grouped.sum(-1, keepdim=True) * probability
    return (probability * grouped).sum(-1, keepdim=True)


def quantile_centred(reward: Tensor, *, group_size: int, k: float, share: Tensor | None = None) -> Tensor:
    """(r - Q_k) / std within each group, Q_k the k-quantile of its rewards (Wu et al., arXiv 2509.22611).

    Args:
        reward: (..., R).
        group_size: G, divides R.
        k: in [0, 1]; Q_k is the smallest reward that a share of at least k of the group does not exceed.
        share: (..., R), as in `group_normalized`.

    Returns:
        (..., R); 0 in a group of equal rewards.

    >>> quantile_centred(torch.tensor([1.0, 0.0, 0.0, 0.0]), group_size=4, k=0.4).round(decimals=3)
    tensor([2., 0., 0., 0.])
    """
    grouped = reward.unflatten(-1, (-1, group_size))
    if share is None:
        # k G that is whole but for rounding must not go one further.
        index = max(math.ceil(k * group_size - 1e-9), 1) - 1
        baseline = grouped.sort(-1).values[..., index : index + 1]
        square = (grouped - grouped.mean(-1, keepdim=True)).square().sum(-1, keepdim=True)
        spread = (square / max(group_size - 1, 1)).sqrt()
    else:
        probability = share.unflatten(-1, (-1, group_size))
        ordered, order = grouped.sort(-1)
        # Shares sum to 1 up to rounding, which must not push k = 1 past the end.
        below = probability.gather(-1, order).cumsum(-1) < k - 1e-9
        baseline = ordered.gather(-1, below.sum(-1, keepdim=True).clamp(max=group_size - 1))
        spread = _mean((grouped - _mean(grouped, probability)).square(), probability).sqrt()
    equal = grouped.amax(-1, keepdim=True) == grouped.amin(-1, keepdim=True)
    return ((grouped - baseline) / (spread + STD_EPSILON)).masked_fill(equal, 0.0).flatten(-2)


def entropy_shaped(advantage: Tensor, entropy: Tensor, *, beta: float = 0.4, kappa: float = 2.0) -> Tensor:
    """Entropy-Adv: A + min(beta H, |A| / kappa), the entropy taken as a constant (Section 3.2; Cheng et al. 2025).

    Args:
        advantage: (..., R, T).
        entropy: (..., R, T), in nats.
        beta: > 0, weight of the entropy.
        kappa: > 1, so that the sign of the advantage never changes.

    Returns:
        (..., R, T).

    >>> entropy_shaped(torch.tensor([1.0, -1.0, 0.0]), torch.tensor([9.0, 0.5, 9.0]))
    tensor([ 1.5000, -0.8000,  0.0000])
    """
    return advantage + torch.minimum(beta * entropy.detach(), advantage.abs() / kappa)
