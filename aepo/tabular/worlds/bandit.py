"""The softmax bandit: K actions, a set A* of correct ones, many runs side by side.

Letters: N runs, S states, K actions; R rows and T tokens as in `aepo.batch`. Everything is float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.categorical import log_softmax
from aepo.tabular.settings import ACTIONS, CORRECT
from aepo.tabular.worlds.world import OneAction, pass_rates, repeated_runs


@dataclass(frozen=True, kw_only=True, eq=False)
class Bandit(OneAction):
    """Where each run starts and what it is rewarded for.

    Raises:
        ValueError: tables of different shapes, or a state without a correct action.
    """

    logits: Tensor
    """(N, S, K) float64: the policy's logits before the first step."""
    correct: Tensor
    """(N, S, K) bool: A* of each state."""

    def __post_init__(self) -> None:
        if self.logits.dim() != 3 or self.logits.shape != self.correct.shape:
            raise ValueError(
                f"logits and correct must share one shape (N, S, K), got {tuple(self.logits.shape)} "
                f"and {tuple(self.correct.shape)}"
            )
        if not self.correct.any(-1).all():
            raise ValueError("every state needs at least one correct action, got a row of `correct` without any")

    @property
    def parameters(self) -> Tensor:
        """(N, S, K): the logits themselves."""
        return self.logits

    @property
    def verdicts(self) -> Tensor:
        return self.correct

    def table(self, parameters: Tensor) -> Tensor:
        return parameters

    def evaluate(self, parameters: Tensor) -> dict[str, Tensor]:
        """The reward, the mean over states of pi(A*), and its pass@k; there are no held-out states."""
        success = (log_softmax(parameters).exp() * self.correct).sum(-1)
        return {
            "reward_train": success.mean(-1),
            "reward_held_out": success.mean(-1),
            **pass_rates("", success),
        }

    @property
    def prompts(self) -> Tensor:
        """(S,) int64: every state, the batch of each step."""
        return torch.arange(self.logits.shape[1])

    def repeated(self, times: int) -> "Bandit":
        """The same runs `times` over, one copy per configuration: (times x N, S, K)."""
        return repeated_runs(self, times)

    @staticmethod
    def joined(worlds: "Sequence[Bandit]") -> "Bandit":
        """The runs of several worlds of the same S and K, side by side."""
        return Bandit(
            logits=torch.cat([world.logits for world in worlds]),
            correct=torch.cat([world.correct for world in worlds]),
        )


def bandit(seeds: Sequence[int], *, actions: int = ACTIONS, correct: int = CORRECT, head_start: float = 0.0) -> Bandit:
    """One state per run, logits ~ N(0, 1) and A* drawn uniformly, both from the run's seed alone.

    Args:
        seeds: one per run.
        actions: K >= 2.
        correct: |A*|, in [1, K].
        head_start: added to the logits of the correct actions: a policy that knows them from the start.

    Raises:
        ValueError: a number out of range.
    """
    if actions < 2:
        raise ValueError(f"actions must be at least 2, got {actions}")
    if not 1 <= correct <= actions:
        raise ValueError(f"correct must be in [1, actions={actions}], got {correct}")
    logits, mask = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        logits.append(torch.randn(1, actions, generator=generator, dtype=torch.float64))
        order = torch.randperm(actions, generator=generator)
        mask.append((order < correct).unsqueeze(0))
    right = torch.stack(mask)
    return Bandit(logits=torch.stack(logits) + head_start * right.double(), correct=right)
