"""How far the first-order theory can be from a real step, and how wide a controller's band around its target is.

Letters: K actions, ... independent instances, S = pi^T(A*) (the expected reward under pi^T), lr the paper's eta. All
bounds are for rewards in [0, 1] and one state.
"""

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.drift import delta_entropy
from aepo.theory.softmax import Array, tempered


def pushed_mass(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0) -> Array:
    """S = sum_{a in A*} pi^T_a: the probability that a tempered sample is correct.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a reward in [0, 1].
        temperature: (...) or a number, > 0.

    Returns:
        (...), in [0, 1].

    >>> float(pushed_mass([0.0, 0.0], [True, False]))
    0.5
    """
    return (tempered(logits, temperature) * np.asarray(correct)).sum(-1)


def remainder_bound(
    logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0
) -> Array:
    """|H(z + lr v) - H(z) - Delta H(T)| <= lr^2 S^2 (1 + ln K) / 2 for every lr >= 0 (Theorem 4.3, "up to o(eta)").

    v is the update of Eq. 4. The second derivative of H along the step is -E[(1 + dz) dv^2], whose parts are at most
    S^2 and S^2 ln K.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a reward in [0, 1].
        temperature: (...) or a number, > 0.
        lr: (...) or a number.

    Returns:
        (...), in nats.

    >>> float(remainder_bound([0.0, 0.0], [True, True]).round(6))  # S = 1: (1 + ln 2) / 2
    0.846574
    """
    mass = pushed_mass(logits, correct, temperature=temperature)
    return np.asarray(lr, dtype=np.float64) ** 2 * mass**2 * (1.0 + _ln_actions(logits)) / 2.0


def step_bound(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0) -> Array:
    """|H(z + lr v) - H(z)| <= lr S ln K for every lr >= 0: the most that one update can change the entropy.

    Args: as for `remainder_bound`.

    Returns:
        (...), in nats.

    >>> float(step_bound([0.0, 0.0], [True, True], lr=0.5).round(6))
    0.346574
    """
    mass = pushed_mass(logits, correct, temperature=temperature)
    return np.asarray(lr, dtype=np.float64) * mass * _ln_actions(logits)


def ordering_lr(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike) -> Array:
    """Below this lr, one real step on samples of T > 1 ends at a higher entropy than one on samples of T = 1.

    2 g / ((S_T^2 + S_1^2)(1 + ln K)) with g = Delta H(T) - Delta H(1) at lr = 1: the two remainders together stay below
    the gap (Corollary 4.4 for finite steps).

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a reward in [0, 1].
        temperature: (...) or a number, > 1.

    Returns:
        (...); nan where the premise Delta H(1) < 0 does not hold.
    """
    base = delta_entropy(logits, correct)
    gap = delta_entropy(logits, correct, temperature=temperature) - base
    mass = pushed_mass(logits, correct, temperature=temperature) ** 2 + pushed_mass(logits, correct) ** 2
    return np.where(base < 0, 2.0 * gap / (mass * (1.0 + _ln_actions(logits))), np.nan)


def controller_band(actions: int, *, lr: float, mass: float = 1.0) -> float:
    """Half-width of the band that a bang-bang controller never leaves again, once the drift has the right sign (Eq. 1).

    If each step moves the entropy by at most B, up by some fixed amount whenever it is below the target and down
    whenever it is not, then from some step on |H - H*| <= B for good. `step_bound` gives B = lr S ln K.

    Args:
        actions: K.
        lr: the step size of the update.
        mass: an upper bound on S along the run; 1 always is one.

    Returns:
        B in nats.

    >>> round(controller_band(16, lr=0.1), 4)
    0.2773
    """
    return lr * mass * float(np.log(actions))


def _ln_actions(logits: ArrayLike) -> float:
    return float(np.log(np.shape(logits)[-1]))
