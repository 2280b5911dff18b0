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


def _with_chance(values: ArrayLike, chance: ArrayLike | None) -> tuple[Array, Array]:
    x = np.asarray(values, dtype=np.float64)
    p = np.full_like(x, 1.0 / x.shape[-1]) if chance is None else np.asarray(chance, dtype=np.float64)
    x, p = np.broadcast_arrays(x, p)
    return x, p
