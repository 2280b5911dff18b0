"""Autoregressive tabular policies: the entropy of Def. B.1 and what one REINFORCE update does to it.

A policy over responses of n tokens is a tuple of n levels; level t holds the logits of token t given each prefix, shape
(B_0, ..., B_t): B_t the number of tokens to choose from at position t. Neither Lemma 4.1 (for this entropy) nor Theorem
4.3 extends to it; `aepo.theory.cases` has the counterexamples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from aepo.theory.softmax import Array, entropy, tempered


def prefix_probabilities(levels: Sequence[ArrayLike], temperature: float = 1.0) -> list[Array]:
    """P(prefix of t tokens) for t = 0 .. n, every token drawn at the temperature.

    Args:
        levels: the policy, n levels.
        temperature: > 0.

    Returns:
        n + 1 arrays, the t-th of shape (B_0, ..., B_{t-1}); the last one is the responses' distribution.

    >>> prefix_probabilities([[0.0, 0.0], [[0.0, 0.0], [0.0, 0.0]]])[2].tolist()
    [[0.25, 0.25], [0.25, 0.25]]
    """
    reached = [np.ones(())]
    for level in levels:
        reached.append(reached[-1][..., np.newaxis] * tempered(level, temperature))
    return reached


def token_entropy(
    levels: Sequence[ArrayLike], temperature: float = 1.0, *, prefix_temperature: float | None = None
) -> float:
    """H = 1/n sum_t E_prefix[H(pi^T(. | prefix))], prefixes visited by the tempered policy itself (Def. B.1).

    Args:
        levels: the policy, n levels.
        temperature: of the distributions whose entropy is taken, > 0.
        prefix_temperature: of the policy that visits the prefixes; None for the same. Held fixed, H rises with the
            temperature (Lemma 4.1, prefix by prefix); with the same, it may fall.

    Returns:
        H in nats.
    """
    visited = prefix_probabilities(levels, temperature if prefix_temperature is None else prefix_temperature)
    total = sum((p * entropy(level, temperature)).sum() for p, level in zip(visited, levels, strict=False))
    return float(total) / len(levels)


def sequence_step(
    levels: Sequence[ArrayLike], correct: ArrayLike, *, temperature: float = 1.0, lr: float = 1.0
) -> list[Array]:
    """The policy after one expected REINFORCE update on correct responses drawn at the temperature (Eq. 4, n tokens).

    The logits at a prefix move by lr sum over correct responses o through it of pi^T(o) (e_{o_t} - pi(. | prefix)).

    Args:
        levels: the policy, n levels.
        correct: (B_0, ..., B_{n-1}) bool, the correct responses; or a non-negative reward.
        temperature: > 0.
        lr: the paper's eta.

    Returns:
        n levels.
    """
    return [
        np.asarray(level, dtype=np.float64) + lr * move
        for level, move in zip(levels, _directions(levels, correct, temperature), strict=True)
    ]


def delta_entropy_of_sequences(
    levels: Sequence[ArrayLike], correct: ArrayLike, *, temperature: float = 1.0, lr: float = 1.0
) -> float:
    """First-order change of Def. B.1's H (at T = 1) under `sequence_step`: lr <grad H, step>.

    At a prefix s the gradient by the logits is P(s) pi_a (-ln pi_a - h(s) + U(s a) - E_a U(s a)) / n, with h(s) the
    entropy there and U the expected sum of the entropies still to come: moving mass also changes which prefixes follow.

    Args: as for `sequence_step`.

    Returns:
        Delta H in nats.

    >>> z, correct = [2.0, 0.0, -1.0], [True, True, False]  # one token: Theorem 4.3's Delta H
    >>> round(delta_entropy_of_sequences([z], correct), 6)
    -0.014172
    """
    visited = prefix_probabilities(levels)
    directions = _directions(levels, correct, temperature)
    total, to_come = 0.0, np.zeros(np.shape(levels[-1]))
    for t in reversed(range(len(levels))):
        pi, h = tempered(levels[t]), entropy(levels[t])
        with np.errstate(divide="ignore"):
            surprise = np.where(pi > 0, -np.log(pi), 0.0)
        future = (pi * to_come).sum(-1)
        gradient = pi * (surprise - h[..., np.newaxis] + to_come - future[..., np.newaxis])
        total += float((visited[t] * (gradient * directions[t]).sum(-1)).sum())
        to_come = h + future
    return lr * total / len(levels)


def _directions(levels: Sequence[ArrayLike], correct: ArrayLike, temperature: float) -> list[Array]:
    """Per level, the pushed mass through each token minus the pushed mass through the prefix times pi."""
    pushed = prefix_probabilities(levels, temperature)[-1] * np.asarray(correct)
    directions = []
    for level in reversed(list(levels)):
        through = pushed.sum(-1, keepdims=True)
        directions.append(pushed - through * tempered(level))
        pushed = through[..., 0]
    return directions[::-1]
