"""The level of the logits that parts entropy-lowering actions from entropy-raising ones, and what follows from it.

Letters: K actions, ... independent instances, z logits, pi = softmax(z), A* the correct actions, m = E_pi z,
d_a = pi_a (z_a - m), C = Cov_pi(z, pi).
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import lambertw

from aepo.theory.drift import delta_entropy
from aepo.theory.softmax import Array, entropy, mean_logit, pull, tempered


def threshold(logits: ArrayLike) -> Array:
    """tau = m + W0(C e^H): sign(d_a - C) = sign(z_a - tau) for every action (Theorem 4.3, its sets A1 and A2).

    With x = z_a - m, d_a = x e^x e^-H, so d_a = C means x e^x = C e^H; W0 is Lambert's function. Pushing mass onto an
    action above tau lowers the entropy, onto one below raises it. tau >= m, with equality only for constant logits.

    Args:
        logits: (..., K), finite.

    Returns:
        (...), in the logits' own units.

    >>> z = [2.0, 0.0, -1.0]
    >>> float(threshold(z).round(4)), pull(z).round(4).tolist()
    (1.9324, [0.0728, -0.4141, -0.3374])
    >>> float(threshold([3.0, 3.0]))
    3.0
    """
    return mean_logit(logits) + _margin(logits)


def threshold_probability(logits: ArrayLike) -> Array:
    """C / W0(C e^H) = e^(tau - m - H): what an action at the threshold would have for a probability.

    Args:
        logits: (..., K), finite.

    Returns:
        (...), in (0, 1].

    >>> float(threshold_probability([0.0, 0.0]))  # uniform: 1/K
    0.5
    """
    return np.exp(_margin(logits) - entropy(logits))


def slope_bound(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0) -> Array:
    """d Delta H / dT >= (tau - E_{pi^T} z) |Delta H(T)| / T^2 where Delta H(T) < 0, T >= 1: Theorem 4.3 with a number.

    The paper's proof ends in >= 0. Here tau - E_{pi^T} z >= tau - m > 0, so the slope is strictly positive, and the
    inequality is tight.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a non-negative reward.
        temperature: (...) or a number, >= 1.
        lr: (...) or a number, the paper's eta.

    Returns:
        (...), nats per unit of temperature; nan where the premise Delta H(T) < 0 does not hold.

    >>> z, correct = [2.0, 0.0, -1.0], [True, True, False]
    >>> float(slope_bound(z, correct).round(6))  # the slope itself is 0.099607
    0.004065
    """
    change = delta_entropy(logits, correct, temperature=temperature, lr=lr)
    above = threshold(logits) - mean_logit(logits, temperature)
    bound = above * -change / np.asarray(temperature, dtype=np.float64) ** 2
    return np.where(change < 0, bound, np.nan)


def contraction_bound(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike, lr: ArrayLike = 1.0) -> Array:
    """Delta H(T) >= Delta H(1) exp(-(1 - 1/T)(tau - m)) for T >= 1 under Delta H(1) < 0 (Corollary 4.4, high half).

    Sampling hotter shrinks the loss of entropy at least that much; it may turn it into a gain.

    Args: as for `slope_bound`.

    Returns:
        (...), in nats; nan where the premise Delta H(1) < 0 does not hold.
    """
    change = delta_entropy(logits, correct, lr=lr)
    shrunk = change * np.exp(-(1.0 - 1.0 / np.asarray(temperature, dtype=np.float64)) * _margin(logits))
    return np.where(change < 0, shrunk, np.nan)


def critical_temperature(logits: ArrayLike, correct: ArrayLike) -> Array:
    """T0: the update lowers entropy below it and raises entropy above it (the sign of Delta H is monotone in T).

    Every state has one such temperature, with no premise. Some temperature raises entropy exactly if
    sum_{A*} (d_a - C) < 0; where none does T0 is inf, where every one does T0 is 0.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*, not empty; or a non-negative reward.

    Returns:
        (...), in [0, inf]; nan where Delta H is 0 at every temperature.

    >>> correct = [[True, False, False], [False, True, False], [True, True, True]]
    >>> critical_temperature([2.0, 0.0, -1.0], correct).tolist()
    [inf, 0.0, 1.0]
    """
    z, reward = np.broadcast_arrays(np.asarray(logits, dtype=np.float64), np.asarray(correct, dtype=np.float64))
    push, on = reward * pull(z), reward > 0
    top = np.where(on, z, -np.inf).max(-1, keepdims=True)
    shifted = np.where(on, z - top, 0.0)

    def lowers(u: Array) -> Array:  # the sign of -Delta H at 1/T = u / (1 - u), scaled by a positive number
        inverse = (u / np.maximum(1.0 - u, 1e-300))[..., np.newaxis]
        return (np.exp(np.maximum(inverse * shifted, -700.0)) * push).sum(-1)

    # All push that only rounding produces counts as none.
    noise = 64 * np.finfo(np.float64).eps * (reward * (np.abs(z).max(-1, keepdims=True) + 1)).sum(-1)
    hot, cold = lowers(np.zeros(z.shape[:-1])), (np.where(shifted == 0, push, 0.0) * on).sum(-1)
    low, high = np.zeros(z.shape[:-1]), np.ones(z.shape[:-1])
    for _ in range(80):
        middle = (low + high) / 2
        raises = lowers(middle) < 0
        low, high = np.where(raises, middle, low), np.where(raises, high, middle)
    found = (1.0 - low) / np.maximum(low, 1e-300)
    found = np.where(hot >= -noise, np.inf, np.where(cold <= noise, 0.0, found))
    return np.where(np.abs(push).max(-1) <= noise, np.nan, found)


def _margin(logits: ArrayLike) -> Array:
    """(...): tau - m = W0(C e^H), >= 0."""
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits)
    c = (pi**2 * (z - (pi * z).sum(-1, keepdims=True))).sum(-1)
    # C >= 0 exactly; rounding may leave a negative last digit.
    return lambertw(np.maximum(c, 0.0) * np.exp(entropy(z))).real
