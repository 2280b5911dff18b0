"""The contextual bandit: states with features, a linear policy, held-out states, and a verifier that may err.

Letters as in `aepo.tabular.worlds.world`; D features. Env A, N and D are presets of one builder.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.categorical import log_softmax
from aepo.tabular.worlds.world import OneAction, pass_rates, repeated_runs


@dataclass(frozen=True, kw_only=True, eq=False)
class Contextual(OneAction):
    """One action per state; the logits of state s are phi_s W.

    Raises:
        ValueError: tables of different shapes, or a state without a correct action.
    """

    parameters: Tensor
    """(N, D, K): W before the first step."""
    features: Tensor
    """(N, S, D): phi of the training states."""
    correct: Tensor
    """(N, S, K) bool: A* of the training states, the truth."""
    accepted: Tensor
    """(N, S, K) bool: what the verifier accepts in training."""
    held_out_features: Tensor
    """(N, S', D)."""
    held_out_correct: Tensor
    """(N, S', K) bool: the truth."""

    def __post_init__(self) -> None:
        if self.correct.shape != self.accepted.shape:
            raise ValueError(
                f"correct and accepted must share one shape (N, S, K), got {tuple(self.correct.shape)} "
                f"and {tuple(self.accepted.shape)}"
            )
        if not self.correct.any(-1).all() or not self.held_out_correct.any(-1).all():
            raise ValueError("every state needs at least one correct action")

    @property
    def verdicts(self) -> Tensor:
        return self.accepted

    def table(self, parameters: Tensor) -> Tensor:
        return self.features @ parameters

    def evaluate(self, parameters: Tensor) -> dict[str, Tensor]:
        """Reward on training states by the truth, on held-out ones, and pass@k and the greedy action's there."""
        train = self._success(self.features, self.correct, parameters)
        held_out = self._success(self.held_out_features, self.held_out_correct, parameters)
        greedy = (self.held_out_features @ parameters).argmax(-1, keepdim=True)
        return {
            "reward_train": train.mean(-1),
            "reward_held_out": held_out.mean(-1),
            "greedy_held_out": self.held_out_correct.gather(-1, greedy).squeeze(-1).to(train.dtype).mean(-1),
            **pass_rates("", held_out),
        }

    def _success(self, features: Tensor, correct: Tensor, parameters: Tensor) -> Tensor:
        return (log_softmax(features @ parameters).exp() * correct).sum(-1)

    def repeated(self, times: int) -> "Contextual":
        return repeated_runs(self, times)


def contextual(
    seeds: Sequence[int],
    *,
    actions: int = 16,
    features: int = 16,
    states: int = 64,
    held_out: int = 256,
    fewest: int = 2,
    most: int = 8,
    false_positive: float = 0.0,
    false_negative: float = 0.0,
) -> Contextual:
    """A linear teacher's top actions are correct, a few per state; the policy starts near the teacher.

    Teacher W* ~ N(0, 1), phi ~ N(0, 1) / sqrt(D), A*(s) the top m_s actions of phi W*, m_s uniform in fewest..most,
    W_0 = 2 (0.5 W* + 0.7 N(0, 1)). The verifier's errors are fixed per (state, action): the same wrong action
    is accepted every time, as by a broken check.

    Args:
        seeds: one per run; everything comes from the run's seed alone.
        actions, features: K and D.
        states, held_out: training and held-out states.
        fewest, most: bounds of |A*| per state.
        false_positive: probability that a wrong action of a training state is accepted.
        false_negative: probability that a correct one is not.

    Raises:
        ValueError: a number out of range.
    """
    if not 1 <= fewest <= most <= actions:
        raise ValueError(f"1 <= fewest <= most <= actions={actions} must hold, got fewest={fewest}, most={most}")
    for name, value in (("states", states), ("held_out", held_out), ("features", features)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    for name, value in (("false_positive", false_positive), ("false_negative", false_negative)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
    runs = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        teacher = normal(features, actions)
        start = 2 * (0.5 * teacher + 0.7 * normal(features, actions))
        phi = normal(states + held_out, features) / math.sqrt(features)
        size = torch.randint(fewest, most + 1, (states + held_out, 1), generator=generator)
        rank = (phi @ teacher).argsort(-1, descending=True).argsort(-1)
        right = rank < size
        error = torch.rand(states, actions, generator=generator, dtype=torch.float64)
        seen = right[:states]
        accepted = torch.where(seen, error >= false_negative, error < false_positive)
        runs.append((start, phi[:states], seen, accepted, phi[states:], right[states:]))
    start, phi, seen, accepted, phi_out, right_out = (torch.stack(values) for values in zip(*runs, strict=True))
    return Contextual(
        parameters=start,
        features=phi,
        correct=seen,
        accepted=accepted,
        held_out_features=phi_out,
        held_out_correct=right_out,
    )
