"""One update of positive-only REINFORCE at temperature T, and what it does to the entropy at temperature 1.

Letters: K actions, ... independent instances, z logits, pi = softmax(z), A* the correct actions. With d_a =
pi_a (z_a - E_pi z) and C = Cov_pi(z, pi) = sum_a pi_a d_a, every result here is a sum over A*. Any
non-negative reward may stand in place of the indicator of A*.
"""

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.softmax import Array, pull, tempered


def reinforce_step(
    logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0
) -> Array:
    """Logits after z <- z + lr sum_{a in A*} pi^T_a (e_a - pi) in expectation (Eq. 4, Assumption B.4).

    The samples come from pi^T, the score is that of pi at temperature 1.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a non-negative reward.
        temperature: (...) or a number, > 0.
        lr: (...) or a number, the paper's eta.

    Returns:
        (..., K).

    >>> reinforce_step([0.0, 0.0], [True, False]).tolist()  # 1/2 (e_1 - (1/2, 1/2))
    [0.25, -0.25]
    >>> reinforce_step([0.0, 0.0], [True, True]).tolist()  # all correct at T = 1: the mean score, which is 0
    [0.0, 0.0]
    """
    z, pushed = np.asarray(logits, dtype=np.float64), tempered(logits, temperature) * np.asarray(correct)
    return z + _column(lr) * (pushed - pushed.sum(-1, keepdims=True) * tempered(z))


def delta_entropy(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0) -> Array:
    """First-order change of H, -lr sum_{a in A*} pi^T_a (d_a - C): Delta H(T) in closed form (Theorem 4.3).

    It differs from the change after `reinforce_step` by at most lr^2 S^2 (1 + ln K) / 2 with S = pi^T(A*).

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a non-negative reward.
        temperature: (...) or a number, > 0.
        lr: (...) or a number, the paper's eta.

    Returns:
        (...), in nats.

    >>> float(delta_entropy([2.0, 0.0], [False, True]).round(6))  # towards the unlikely: H rises
    0.044095
    >>> bool(delta_entropy([0.0, 0.0], [True, False]) == 0.0)  # H has slope 0 at the uniform policy
    True
    """
    return delta_entropy_of_sampler(logits, correct, tempered(logits, temperature), lr=lr)


def delta_entropy_of_sampler(
    logits: ArrayLike, correct: ArrayLike, sampler: ArrayLike, *, lr: ArrayLike = 1.0
) -> Array:
    """-lr sum_{a in A*} mu_a (d_a - C): the first-order change of H when the samples come from any mu (Theorem 4.3).

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*; or a reward (a signed one is outside the theorem).
        sampler: (..., K), mu: probabilities, or any weights of the actions; `tempered` gives the paper's.
        lr: (...) or a number, the paper's eta.

    Returns:
        (...), in nats.

    >>> float(delta_entropy_of_sampler([2.0, 0.0], [True, True], [0.0, 1.0]).round(6))  # only the unlikely is drawn
    0.369912
    """
    pushed = np.asarray(sampler, dtype=np.float64) * np.asarray(correct)
    return -np.asarray(lr, dtype=np.float64) * (pushed * pull(logits)).sum(-1)


def delta_entropy_as_printed(
    logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0
) -> Array:
    """-lr sum_{a* in A*} pi^T(a*) Cov_pi(z(a'), delta_{a', a*} - pi(a')) (Theorem 4.3, Lemma B.5).

    The same number as `delta_entropy`, in the paper's own form with one covariance per correct action.

    Args and Returns: as for `delta_entropy`.

    >>> float(delta_entropy_as_printed([2.0, 0.0], [False, True]).round(6))
    0.044095
    """
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits)
    # (..., a*, a'): the first axis is the correct action, the second the one that is averaged over.
    score = np.eye(z.shape[-1]) - pi[..., np.newaxis, :]
    weight, value = pi[..., np.newaxis, :], z[..., np.newaxis, :]
    mean_value, mean_score = (weight * value).sum(-1), (weight * score).sum(-1)
    covariance = (weight * value * score).sum(-1) - mean_value * mean_score
    pushed = tempered(z, temperature) * np.asarray(correct)
    return -np.asarray(lr, dtype=np.float64) * (pushed * covariance).sum(-1)


def delta_entropy_slope(
    logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0, lr: ArrayLike = 1.0
) -> Array:
    """d Delta H / dT = lr / T^2 sum_{a in A*} pi^T_a (z_a - E_{pi^T} z) (d_a - C) (Theorem 4.3).

    The theorem: it is > 0 wherever Delta H(T) < 0, for T >= 1. The paper states it at T = 1 and its proof
    reaches >= 0. Without the premise, or for negative rewards, it is false.

    Args: as for `delta_entropy`.

    Returns:
        (...), nats per unit of temperature.

    >>> z, correct = [2.0, 0.0, -1.0], [True, True, False]
    >>> float(delta_entropy(z, correct).round(6)), float(delta_entropy_slope(z, correct).round(6))
    (-0.014172, 0.099607)
    """
    z, pi_t = np.asarray(logits, dtype=np.float64), tempered(logits, temperature)
    centred = z - (pi_t * z).sum(-1, keepdims=True)
    total = (pi_t * np.asarray(correct) * centred * pull(z)).sum(-1)
    return np.asarray(lr, dtype=np.float64) * total / np.asarray(temperature, dtype=np.float64) ** 2


def _column(value: ArrayLike) -> Array:
    return np.asarray(value, dtype=np.float64)[..., np.newaxis]
