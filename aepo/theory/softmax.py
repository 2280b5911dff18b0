"""A softmax policy over K actions: tempering, entropy, and how the entropy moves with the temperature.

Letters: K actions, ... independent instances, z logits, T temperature.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, softmax

Array = NDArray[np.float64]


def tempered(logits: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    """The probabilities pi^T = softmax(z / T) (Section 3).

    Args:
        logits: (..., K), finite.
        temperature: (...) or a number, > 0.

    Returns:
        (..., K), which sums to 1.

    >>> tempered([np.log(3.0), 0.0]).round(6).tolist()
    [0.75, 0.25]
    >>> tempered([np.log(3.0), 0.0], temperature=0.5).round(6).tolist()  # 9 : 1
    [0.9, 0.1]
    """
    return softmax(np.asarray(logits, dtype=np.float64) / _per_action(temperature), axis=-1)


def entropy(logits: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    """H(pi^T) = -sum_a pi^T_a ln pi^T_a, in nats (Def. B.3).

    Args:
        logits: (..., K), finite.
        temperature: (...) or a number, > 0.

    Returns:
        (...), in [0, ln K].

    >>> float(entropy([0.0, 0.0]).round(6))  # ln 2
    0.693147
    >>> float(entropy([0.0, -2000.0]))  # a probability that underflows counts 0
    0.0
    """
    return entr(tempered(logits, temperature)).sum(-1)


def entropy_temperature_slope(logits: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    """dH(pi^T)/dT = Var_{pi^T}(z) / T^3 (Lemma 4.1).

    The paper states that entropy does not fall with T; this is the exact slope, >= 0, with equality only
    where z is constant. It holds for one softmax distribution. For the entropy of Def. B.1, averaged over the
    prefixes that a tempered policy visits, the claim is false.

    Args:
        logits: (..., K), finite.
        temperature: (...) or a number, > 0.

    Returns:
        (...), nats per unit of temperature.

    >>> float(entropy_temperature_slope([1.0, -1.0]).round(6))  # Var = 1 - tanh(1)^2
    0.419974
    >>> float(entropy_temperature_slope([2.0, 2.0, 2.0]))  # ties: nothing to temper
    0.0
    """
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits, temperature)
    centred = z - (pi * z).sum(-1, keepdims=True)
    return (pi * centred**2).sum(-1) / np.asarray(temperature, dtype=np.float64) ** 3


def tempered_slope(logits: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    """d pi^T_a / dT = -pi^T_a (z_a - E_{pi^T} z) / T^2: actions above the mean logit lose, others gain (Lemma 4.1).

    Args:
        logits: (..., K), finite.
        temperature: (...) or a number, > 0.

    Returns:
        (..., K), per unit of temperature; sums to 0.

    >>> tempered_slope([1.0, -1.0]).round(6).tolist()
    [-0.209987, 0.209987]
    """
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits, temperature)
    return -pi * (z - mean_logit(z, temperature)[..., np.newaxis]) / _per_action(temperature) ** 2


def mean_logit(logits: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    """E_{pi^T} z, which falls with T (its slope is -Var_{pi^T}(z) / T^2); at T = 1 the m of every formula here.

    Args:
        logits: (..., K), finite.
        temperature: (...) or a number, > 0.

    Returns:
        (...).

    >>> float(mean_logit([4.0, 0.0], temperature=1e6).round(3))  # a uniform mean when hot
    2.0
    """
    return (tempered(logits, temperature) * np.asarray(logits, dtype=np.float64)).sum(-1)


def pull(logits: ArrayLike) -> Array:
    """d_a - C with d_a = pi_a (z_a - m), C = Cov_pi(z, pi): how fast mass pushed onto a lowers H (Theorem 4.3).

    One unit of probability given to action a by the policy gradient changes H by -(d_a - C). C >= 0, since z and
    pi rise together (Chebyshev), a step that the paper leaves out.

    Args:
        logits: (..., K), finite.

    Returns:
        (..., K), in nats; its mean under pi is 0.

    >>> pull([np.log(3.0), 0.0]).round(4).tolist()  # pushing the likely action lowers H, the unlikely raises it
    [0.103, -0.309]
    """
    z, pi = np.asarray(logits, dtype=np.float64), tempered(logits)
    d = pi * (z - (pi * z).sum(-1, keepdims=True))
    return d - (pi * d).sum(-1, keepdims=True)


def _per_action(value: ArrayLike) -> Array:
    return np.asarray(value, dtype=np.float64)[..., np.newaxis]
