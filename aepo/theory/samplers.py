"""Samplers other than temperature whose likelihood ratio rises with the logit: truncations of pi.

Letters: K actions, ... independent instances. A truncation, like T < 1, moves mass towards likely actions, so where
Delta H <= 0 without it, Delta H <= 0 with it (Theorem 4.3 for any monotone likelihood ratio); pass the result to
`delta_entropy_of_sampler`. Ties at the border are all kept, which is what makes the ratio monotone.
"""

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.softmax import Array, tempered


def top_k(logits: ArrayLike, k: int) -> Array:
    """pi restricted to the k likeliest actions, ties with the k-th included.

    Args:
        logits: (..., K), finite.
        k: 1 <= k <= K.

    Returns:
        (..., K), which sums to 1.

    Raises:
        ValueError: k outside [1, K].

    >>> top_k([1.0, 1.0, -3.0], 2).tolist()
    [0.5, 0.5, 0.0]
    """
    z = np.asarray(logits, dtype=np.float64)
    if not 1 <= k <= z.shape[-1]:
        raise ValueError(f"k must be in [1, {z.shape[-1]}], got {k}")
    kth = np.sort(z, axis=-1)[..., -k, np.newaxis]
    return _restricted(z, z >= kth)


def top_p(logits: ArrayLike, p: float) -> Array:
    """pi restricted to the smallest set of likeliest actions with mass >= p, ties with the last included.

    Args:
        logits: (..., K), finite.
        p: 0 < p <= 1.

    Returns:
        (..., K), which sums to 1.

    Raises:
        ValueError: p outside (0, 1].

    >>> top_p([np.log(6.0), np.log(3.0), 0.0], 0.85).round(4).tolist()  # 0.6 is not enough, 0.9 is
    [0.6667, 0.3333, 0.0]
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], got {p}")
    pi = tempered(logits)
    ordered = -np.sort(-pi, axis=-1)
    # The first position whose cumulative mass reaches p; rounding may leave the last one just below 1.
    reached = ordered.cumsum(-1) >= p
    last = np.where(reached.any(-1), reached.argmax(-1), pi.shape[-1] - 1)
    floor = np.take_along_axis(ordered, last[..., np.newaxis], -1)
    return _restricted(logits, pi >= floor)


def min_p(logits: ArrayLike, ratio: float) -> Array:
    """pi restricted to actions at least `ratio` as likely as the likeliest.

    Args:
        logits: (..., K), finite.
        ratio: 0 <= ratio <= 1; 1 leaves the likeliest, 0 everything.

    Returns:
        (..., K), which sums to 1.

    Raises:
        ValueError: ratio outside [0, 1].

    >>> min_p([0.0, -1.0, -3.0], 0.1).round(4).tolist()
    [0.7311, 0.2689, 0.0]
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in [0, 1], got {ratio}")
    z = np.asarray(logits, dtype=np.float64)
    return _restricted(z, np.exp(z - z.max(-1, keepdims=True)) >= ratio)


def _restricted(logits: ArrayLike, kept: ArrayLike) -> Array:
    pi = tempered(logits) * np.asarray(kept)
    return pi / pi.sum(-1, keepdims=True)
