"""What no controller can do: the error that the noise of one step leaves, whichever of the allowed controls is chosen.

Letters: U controls (temperatures, weights of the second term, ...), A outcomes of a step under each, ... independent
states. A value is H' = H after the step, as the next step measures it.
"""

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.softmax import Array


def median(values: ArrayLike, chance: ArrayLike | None = None) -> Array:
    """The least value that half of the chance is at or below: a number nearest to H' on average.

    Args:
        values: (..., A), finite.
        chance: (..., A), >= 0 and of sum 1; by default the outcomes are equally likely.

    Returns:
        (...).

    >>> float(median([3.0, 1.0, 2.0])), float(median([3.0, 1.0, 2.0], [0.6, 0.4, 0.0]))
    (2.0, 3.0)
    """
    x, p = _with_chance(values, chance)
    order = np.argsort(x, axis=-1, kind="stable")
    x, p = (np.take_along_axis(each, order, -1) for each in (x, p))
    # A sum that ought to be 1/2 may round to below it.
    half = np.argmax(np.cumsum(p, axis=-1) >= 0.5 - 1e-12, axis=-1)
    return np.take_along_axis(x, half[..., np.newaxis], -1)[..., 0]


def noise_floor(values: ArrayLike, chance: ArrayLike | None = None) -> Array:
    """min over the controls of E|H' - median H'|: no controller's expected error |H' - H*| is below it.

    E|H' - c| >= E|H' - median H'| for every c, so that it holds for every target that is fixed before the step, and for
    controllers that choose a control at random. The mean of the floors along a run bounds its mean error.

    Args:
        values: (..., U, A), finite: H' under each control.
        chance: (..., U, A), >= 0 and of sum 1 over A; by default the outcomes are equally likely.

    Returns:
        (...), in nats.

    >>> float(noise_floor([[1.0, 3.0], [0.5, 1.0]]))  # the second control's median is 0.5
    0.25
    """
    x, p = _with_chance(values, chance)
    return (p * np.abs(x - median(x, p)[..., np.newaxis])).sum(-1).min(-1)


def estimated_floor(samples: ArrayLike) -> tuple[Array, Array]:
    """`noise_floor` from samples, twice: on average the first is at most the floor, and the second at least.

    The first takes the samples for the distribution, min_u min_c mean_i |H'_ui - c|: the least of noisy means, which
    their noise helps to choose. The second leaves each sample out in turn, chooses the control and its median by the
    others, and takes the distance of the one left out: it has no part in the choice, and no (u, c) is nearer on average
    than the floor. The two meet as the samples grow in number.

    Args:
        samples: (..., U, A), finite, A >= 2: independent over A; those of one place may depend on each other over U.

    Returns:
        (...) and (...), in nats.

    Raises:
        ValueError: fewer than two samples.

    >>> low, high = estimated_floor([[0.0, 1.0, 5.0]])  # 1 of all three; the medians of the others are 1, 0 and 0
    >>> float(low.round(3)), float(high.round(3))
    (1.667, 2.333)
    """
    x = np.asarray(samples, dtype=np.float64)
    count = x.shape[-1]
    if count < 2:
        raise ValueError(f"samples must be at least 2 of each control, got {count}")
    distance = np.zeros(x.shape[:-2])
    for i in range(count):
        others = np.delete(x, i, axis=-1)
        middle = median(others)
        best = np.abs(others - middle[..., np.newaxis]).mean(-1).argmin(-1)[..., np.newaxis]
        distance += np.abs(np.take_along_axis(x[..., i] - middle, best, -1)[..., 0])
    return noise_floor(x), distance / count


def _with_chance(values: ArrayLike, chance: ArrayLike | None) -> tuple[Array, Array]:
    x = np.asarray(values, dtype=np.float64)
    p = np.full_like(x, 1.0 / x.shape[-1]) if chance is None else np.asarray(chance, dtype=np.float64)
    x, p = np.broadcast_arrays(x, p)
    return x, p
