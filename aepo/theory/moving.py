"""A controller whose target moves: how far it can be off, from which step on it follows, and when it is lost.

Letters: e = H - H* the error in nats, e_k before step k's update; ... independent instances. Three numbers describe the
loop: `authority` (eps), by which every step moves H towards its target at least; `step` (B), the most by which it does;
`speed` (delta), the most by which the target moves in one step.
"""

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.softmax import Array


def moving_target_bound(
    error: ArrayLike, steps: ArrayLike, *, authority: ArrayLike, step: ArrayLike, speed: ArrayLike = 0.0
) -> Array:
    """|e_k| <= max(B + delta, |e_0| - k (eps - delta)): the most that the error can be after k steps.

    The premise: while H < H* a step raises H by at least eps and at most B, while H >= H* it lowers H so, and H* moves
    by at most delta < eps. A step may cross the target; it then lands within B of where the target was.

    Args:
        error: (...) or a number, e_0.
        steps: (...) or a number, k >= 0.
        authority: (...) or a number, eps, in (0, B].
        step: (...) or a number, B.
        speed: (...) or a number, delta >= 0.

    Returns:
        (...), in nats; nan where delta >= eps, of which nothing follows.

    >>> [float(moving_target_bound(1.0, k, authority=0.2, step=0.3, speed=0.1).round(6)) for k in (0, 4, 60)]
    [1.0, 0.6, 0.4]
    """
    e, k, eps, b, delta = _floats(error, steps, authority, step, speed)
    return np.where(delta < eps, np.maximum(b + delta, np.abs(e) - k * (eps - delta)), np.nan)


def moving_target_hitting_time(
    error: ArrayLike, *, authority: ArrayLike, step: ArrayLike, speed: ArrayLike = 0.0
) -> Array:
    """max(0, |e_0| - (B + delta)) / (eps - delta), rounded up: from this step on |e_k| <= B + delta for good.

    Args: as for `moving_target_bound`.

    Returns:
        (...), whole numbers as floats; inf where delta >= eps, for the target may then never be reached.

    >>> float(moving_target_hitting_time(1.0, authority=0.25, step=0.25, speed=0.125))
    5.0
    >>> float(moving_target_hitting_time(1.0, authority=0.25, step=0.25, speed=0.25))
    inf
    """
    e, eps, b, delta = _floats(error, authority, step, speed)
    gain = np.where(delta < eps, eps - delta, np.nan)
    steps = np.ceil(np.maximum(0.0, np.abs(e) - (b + delta)) / gain)
    return np.where(delta < eps, steps, np.inf)


def lost_target_bound(error: ArrayLike, steps: ArrayLike, *, step: ArrayLike, speed: ArrayLike) -> Array:
    """max(0, k (delta - B) - e_0): the least that the error can be after k steps if the target flees upwards.

    The premise: H* rises by at least delta in every step, and no step raises H by more than B. With delta > B the error
    grows past every level, by at least delta - B a step once the target is ahead. For a target that falls, negate e_0.

    Args:
        error: (...) or a number, e_0 = H - H*; negative where the target is ahead.
        steps: (...) or a number, k >= 0.
        step: (...) or a number, B.
        speed: (...) or a number, delta >= 0.

    Returns:
        (...), in nats.

    >>> [float(lost_target_bound(0.5, k, step=0.125, speed=0.25)) for k in (0, 4, 8)]
    [0.0, 0.0, 0.5]
    """
    e, k, b, delta = _floats(error, steps, step, speed)
    return np.maximum(0.0, k * (delta - b) - e)


def _floats(*values: ArrayLike) -> tuple[Array, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in values)
