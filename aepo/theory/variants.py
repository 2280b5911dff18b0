"""Delta H(T) for other updates than Eq. 4: normalised over A*, natural gradient, features that are not orthonormal.

Letters: K actions, ... independent instances, z logits, pi = softmax(z), m = E_pi z, d_a = pi_a (z_a - m),
q_T = pi^T restricted to A* and normalised, lr the paper's eta.
"""

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.softmax import Array, mean_logit, pull, tempered


def correct_given(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0) -> Array:
    """q_T = pi^T(a | A*): what a tempered sample is, given that it is correct.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*, not empty; or a non-negative reward, which weighs the actions.
        temperature: (...) or a number, > 0.

    Returns:
        (..., K), which sums to 1.

    >>> correct_given([5.0, 1.0, 1.0], [False, True, True]).tolist()
    [0.0, 0.5, 0.5]
    """
    z, reward = np.broadcast_arrays(np.asarray(logits, dtype=np.float64), np.asarray(correct, dtype=np.float64))
    # The largest correct logit as reference: nothing underflows where A* is unlikely.
    top = np.where(reward > 0, z, -np.inf).max(-1, keepdims=True)
    t = np.asarray(temperature, dtype=np.float64)[..., np.newaxis]
    weight = reward * np.exp(np.where(reward > 0, z - top, 0.0) / t)
    return weight / weight.sum(-1, keepdims=True)


def delta_entropy_normalised(
    logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0
) -> Array:
    """-lr (sum_a q_T(a) d_a - C): Delta H(T) when the mean is over the correct samples only (Corollary 4.4).

    With this average both halves of the corollary hold for every pair of temperatures: where Delta H(T2) <= lr C, a
    smaller T1 gives a smaller Delta H. With Eq. 4's average over all samples the lower half is false.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*, not empty; or a non-negative reward.
        temperature: (...) or a number, > 0.
        lr: (...) or a number.

    Returns:
        (...), in nats.

    >>> z, correct = [2.0, 0.0, -1.0], [True, True, False]
    >>> [float(delta_entropy_normalised(z, correct, temperature=t).round(4)) for t in (0.5, 1.0, 2.0)]
    [-0.0641, -0.0148, 0.0581]
    """
    q = correct_given(logits, correct, temperature=temperature)
    return -np.asarray(lr, dtype=np.float64) * (q * pull(logits)).sum(-1)


def delta_entropy_natural(
    logits: ArrayLike,
    correct: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    lr: ArrayLike = 1.0,
    normalised: bool = False,
) -> Array:
    """-lr sum_{a in A*} pi^T_a (z_a - m): Delta H(T) under the natural gradient, z_a <- z_a + lr pi^T_a / pi_a on A*.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a non-negative reward.
        temperature: (...) or a number, > 0.
        lr: (...) or a number.
        normalised: average over A* only; then Delta H rises with T everywhere on (0, inf).

    Returns:
        (...), in nats.

    >>> float(delta_entropy_natural([2.0, 0.0], [False, True]).round(6))
    0.209987
    """
    z = np.asarray(logits, dtype=np.float64)
    pushed = (
        correct_given(z, correct, temperature=temperature)
        if normalised
        else tempered(z, temperature) * np.asarray(correct)
    )
    return -np.asarray(lr, dtype=np.float64) * (pushed * (z - mean_logit(z)[..., np.newaxis])).sum(-1)


def natural_slope_at_one(logits: ArrayLike, correct: ArrayLike, *, lr: ArrayLike = 1.0) -> Array:
    """d Delta H / dT at T = 1 under the natural gradient: lr sum_{a in A*} pi_a (z_a - m)^2 >= 0, with no premise.

    Args: as for `delta_entropy_natural`.

    Returns:
        (...), nats per unit of temperature.

    >>> float(natural_slope_at_one([1.0, -1.0], [True, True]).round(6))  # all correct: Var z
    0.419974
    """
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits)
    return np.asarray(lr, dtype=np.float64) * (
        pi * np.asarray(correct) * (z - mean_logit(z)[..., np.newaxis]) ** 2
    ).sum(-1)


def delta_entropy_with_features(
    logits: ArrayLike,
    correct: ArrayLike,
    gram: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    lr: ArrayLike = 1.0,
) -> Array:
    """-lr d^T M (w - S pi), w = pi^T on A*: Delta H(T) where Assumption B.4 is replaced by features with Gram matrix M.

    M_ab = <grad z_a, grad z_b>. The identity gives `delta_entropy`. Diagonal entries that differ, or any correlation,
    are outside Theorem 4.3, and its conclusion then fails for some logits.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a non-negative reward.
        gram: (..., K, K), positive semi-definite.
        temperature: (...) or a number, > 0.
        lr: (...) or a number.

    Returns:
        (...), in nats.

    >>> z, correct = [2.0, 0.0, -1.0], [True, True, False]
    >>> float(delta_entropy_with_features(z, correct, np.eye(3)).round(6))
    -0.014172
    """
    pushed = tempered(logits, temperature) * np.asarray(correct)
    return _through(logits, pushed, gram, lr)


def delta_entropy_slope_with_features(
    logits: ArrayLike, correct: ArrayLike, gram: ArrayLike, *, lr: ArrayLike = 1.0
) -> Array:
    """d/dT of `delta_entropy_with_features` at T = 1.

    Args and Returns: as there, per unit of temperature.
    """
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits)
    return _through(z, -pi * (z - mean_logit(z)[..., np.newaxis]) * np.asarray(correct), gram, lr)


def _through(logits: ArrayLike, pushed: Array, gram: ArrayLike, lr: ArrayLike) -> Array:
    """(...): minus the entropy's gradient, d, times M, times the score of the pushed mass."""
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits)
    d = pi * (z - mean_logit(z)[..., np.newaxis])
    score = pushed - pushed.sum(-1, keepdims=True) * pi
    step = (np.asarray(gram, dtype=np.float64) @ score[..., np.newaxis])[..., 0]
    return -np.asarray(lr, dtype=np.float64) * (d * step).sum(-1)
