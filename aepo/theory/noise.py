"""A controller whose steps are random: how far it is from its target on average, by its drift and its noise.

Letters: e = H - H* the error in nats, ... independent instances; eps, B and delta as in `aepo.theory.moving`, but given
the past: eps bounds the mean of a step (`authority`, the conditional drift), B^2 the mean of its square (`step`).
"""

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.softmax import Array


def noise_error_bound(
    error: ArrayLike, steps: ArrayLike, *, authority: ArrayLike, step: ArrayLike, speed: ArrayLike = 0.0
) -> Array:
    """e_0^2 / (2 (eps - delta) n) + (B + delta)^2 / (2 (eps - delta)): the most that the mean of E|e_k|, k < n, can be.

    The premise, given any history: the expected step is at least eps towards the target, its expected square at most
    B^2, and the target moves by at most delta < eps. With delta = 0 the second part is B^2 / (2 eps); a loop whose
    drift is eps and whose second moment is B^2 in every state has exactly that error once it is stationary.

    Args:
        error: (...) or a number, e_0.
        steps: (...) or a number, n >= 1.
        authority: (...) or a number, eps, in (0, B].
        step: (...) or a number, B: the root of the mean square of a step.
        speed: (...) or a number, delta >= 0.

    Returns:
        (...), in nats; nan where delta >= eps, of which nothing follows.

    >>> float(noise_error_bound(1.0, 100, authority=0.125, step=0.25))  # 0.04 of the start, 0.25 of the noise
    0.29
    """
    values = (error, steps, authority, step, speed)
    e, n, eps, b, delta = (np.asarray(value, dtype=np.float64) for value in values)
    room = np.where(delta < eps, 2.0 * (eps - delta), np.nan)
    return e**2 / (room * n) + (b + delta) ** 2 / room
