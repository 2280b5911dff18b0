"""What AEPO's second term is to a practitioner: an entropy bonus on the correct answers, and where its reach ends.

Letters: K actions, ... independent instances, q_T = pi^T(. | A*), q = q_1, J = pi(A*), S_T = pi^T(A*).
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from aepo.theory.bounds import pushed_mass
from aepo.theory.softmax import Array, tempered
from aepo.theory.variants import correct_given


def steering(logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike = 1.0) -> tuple[Array, Array]:
    """Split Eq. 4's direction into a move inside A* and a move of mass onto A*.

    E_{pi^T}[R grad ln pi] = S_T (q_T - q) + S_T (1 - J)(q - q_wrong), q_wrong = pi(. | not A*). The first part is the
    steering; the second is ordinary learning and does not depend on T but for its length. Under the natural gradient,
    which moves pi itself this way, the steering leaves J alone. Eq. 4 moves the logits this way, and then the steering
    changes J by S_T (1 - J) J sum_a q_a (q_T - q)_a, which is <= 0 for T > 1 (see `delta_reward`).

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*, not empty.
        temperature: (...) or a number, > 0.

    Returns:
        The two parts, each (..., K) and summing to 0.

    >>> inside, onto = steering([1.0, 1.0, 0.0], [True, False, True], temperature=2.0)
    >>> inside.round(4).tolist(), onto.round(4).tolist()
    ([-0.0669, 0.0, 0.0669], [0.1903, -0.2603, 0.07])
    """
    right = np.asarray(correct, dtype=bool)
    pi, q = tempered(logits), correct_given(logits, right)
    mass = pushed_mass(logits, right, temperature=temperature)[..., np.newaxis]
    inside = mass * (correct_given(logits, right, temperature=temperature) - q)
    wrong = (pi * ~right).sum(-1, keepdims=True)
    # (1 - J)(q - q_wrong) without the division by 1 - J, which is 0 where every action is correct.
    return inside, mass * (wrong * q - pi * ~right)


def delta_reward(
    logits: ArrayLike,
    correct: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    lr: ArrayLike = 1.0,
    normalised: bool = False,
) -> Array:
    """lr sum_{a in A*} pi_a (v_a - E_pi v): the first-order change of J = pi(A*) at T = 1 under Eq. 4's direction v.

    It is >= 0 at T = 1, where v is the gradient of J. At other temperatures it can be negative, although every sample
    that takes part is correct.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*, not empty.
        temperature: (...) or a number, > 0.
        lr: (...) or a number.
        normalised: average over the correct samples only.

    Returns:
        (...).

    >>> float(delta_reward([0.0, 0.0], [True, False]))
    0.125
    """
    right, pi = np.asarray(correct, dtype=bool), tempered(logits)
    pushed = (
        correct_given(logits, right, temperature=temperature) if normalised else tempered(logits, temperature) * right
    )
    v = pushed - pushed.sum(-1, keepdims=True) * pi
    centred = v - (pi * v).sum(-1, keepdims=True)
    return np.asarray(lr, dtype=np.float64) * (pi * right * centred).sum(-1)


def steering_coefficient(
    logits: ArrayLike, correct: ArrayLike, *, temperature: ArrayLike, alpha: ArrayLike = 1.0
) -> Array:
    """alpha S_T (1 - 1/T): the coefficient of an entropy bonus on H(q) that a temperature T amounts to, to first order.

    S_T (q_T - q) is S_T (1 - 1/T) times the gradient of H(q) by the logits, plus a second-order term. Unlike a bonus on
    H it pushes no mass onto wrong answers; with one correct answer H(q) = 0 and there is nothing to steer.

    Args:
        logits: (..., K), finite.
        correct: (..., K) bool, A*.
        temperature: (...) or a number, > 0.
        alpha: (...) or a number, the weight of the second term.

    Returns:
        (...); negative for T < 1.

    >>> float(steering_coefficient([0.0, 0.0], [True, True], temperature=1.25).round(6))
    0.2
    """
    t = np.asarray(temperature, dtype=np.float64)
    mass = pushed_mass(logits, correct, temperature=t)
    return np.asarray(alpha, dtype=np.float64) * mass * (1.0 - 1.0 / t)


def entropy_ceiling(reward: ArrayLike, *, correct: int, actions: int) -> Array:
    """h(J) + J ln|A*| + (1 - J) ln(K - |A*|), h the binary entropy: the largest H at accuracy J.

    As J goes to 1 it goes to ln|A*|: "arbitrary" entropy ends there.

    Args:
        reward: (...), J = pi(A*), in [0, 1].
        correct: |A*|, >= 1.
        actions: K, > |A*|.

    Returns:
        (...), in nats.

    Raises:
        ValueError: not 1 <= correct < actions.

    >>> float(entropy_ceiling(1.0, correct=3, actions=10).round(4))  # ln 3
    1.0986
    """
    if not 1 <= correct < actions:
        raise ValueError(f"correct must be in [1, actions - 1 = {actions - 1}], got {correct}")
    # A sum of probabilities may round to just above 1, where entr(1 - j) is -inf.
    j = np.clip(np.asarray(reward, dtype=np.float64), 0.0, 1.0)
    return entr(j) + entr(1 - j) + j * np.log(correct) + (1 - j) * np.log(actions - correct)
