"""What every environment of the simulator shares: states with logits, sampling from them, and the grade of a response.

Letters: N runs, S states of the policy's table, K actions (tokens), P prompts of a step; R rows and T tokens as in
`aepo.batch`. Everything is float64. A policy is a tensor of parameters (N, ...); a world makes a table of logits of it.
"""

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from aepo.batch import Rollouts
from aepo.categorical import log_softmax

# 64 samples are what the paper's pass@k would need here; exact probabilities give every k.
PASS_KS = (1, 4, 16, 64)


class World(Protocol):
    """N runs of one kind of environment, side by side."""

    @property
    def parameters(self) -> Tensor:
        """(N, ...) float64: the policy before the first step."""
        ...

    @property
    def training(self) -> int:
        """Number of training prompts."""
        ...

    @property
    def length(self) -> int:
        """T: tokens of the longest response."""
        ...

    def table(self, parameters: Tensor) -> Tensor:
        """(N, S, K): the logits of every state a training response can be in, differentiable."""
        ...

    def state(self, prompt: Tensor, token: Tensor) -> Tensor:
        """(N, R, T) int64: the row of the table that each token was drawn from."""
        ...

    def sample(self, probs: Tensor, prompts: Tensor, uniforms: Tensor, *, n: int) -> Rollouts:
        """n graded responses per prompt.

        Args:
            probs: (N, S, K), what every token is drawn from; see `tempered_log_probs`.
            prompts: (P,) int64.
            uniforms: (N, P x n x T) in [0, 1).
            n: group size G.
        """
        ...

    def enumerate(self, table: Tensor, prompts: Tensor, *, temperature: Tensor) -> Rollouts:
        """Every response to every prompt with its probability under pi^T: an exact expectation, no samples."""
        ...

    def evaluate(self, parameters: Tensor) -> dict[str, Tensor]:
        """Name -> (N,): exact expectations under the policy by the true verdict, at T = 1 unless the name says more."""
        ...

    def repeated(self, times: int) -> "World":
        """The same runs `times` over, one copy per configuration: (times x N, ...)."""
        ...


AWorld = TypeVar("AWorld", bound=Any)


def repeated_runs(world: AWorld, times: int) -> AWorld:
    """`World.repeated` of a dataclass whose tensors all have the runs first."""
    tensors = {f.name: value for f in dataclasses.fields(world) if isinstance(value := getattr(world, f.name), Tensor)}
    return dataclasses.replace(
        world, **{name: value.repeat(times, *[1] * (value.dim() - 1)) for name, value in tensors.items()}
    )


def cumulated(probs: Tensor) -> Tensor:
    """Cumulative probabilities for `draw`: (..., K) -> (..., a power of 2), inf from the last action on."""
    actions = probs.shape[-1]
    width = 1 << max(actions - 1, 1).bit_length()
    cumulative = probs.cumsum(-1)
    # Rounding may leave the last one below 1, where a uniform number could exceed it.
    cumulative[..., -1] = torch.inf
    return torch.nn.functional.pad(cumulative, (0, width - actions), value=torch.inf) if width > actions else cumulative


def draw(cumulative: Tensor, state: Tensor, uniforms: Tensor) -> Tensor:
    """Actions by inverse transform, so that equal noise is a paired comparison.

    Args:
        cumulative: (N, S, a power of 2), see `cumulated`.
        state: (N, R) or (R,) int64, the row to draw from.
        uniforms: (N, R) in [0, 1).

    Returns:
        (N, R) int64 in [0, K).
    """
    runs, _, width = cumulative.shape
    flat = cumulative.view(runs, -1)
    before = state * width - 1
    # A binary search over all draws at once: half the time of `searchsorted` on few actions.
    place = before.expand(uniforms.shape).clone()
    step = width // 2
    while step:
        place.add_(flat.gather(1, place + step) <= uniforms, alpha=step)
        step //= 2
    return place.sub_(before)


def looked_up(values: Tensor, state: Tensor, token: Tensor) -> Tensor:
    """What tokens (N, R, T) have in states (N, R, T), from (N, S, K)."""
    runs, _, actions = values.shape
    flat = (state * actions + token).view(runs, -1)
    return values.view(runs, -1).gather(1, flat).view(state.shape)


class OneAction(ABC):
    """What worlds share whose responses are one action per state: the table's rows are the training states."""

    length = 1

    @property
    @abstractmethod
    def verdicts(self) -> Tensor:
        """(N, S, K) bool: the actions that the verifier accepts in each training state."""

    @property
    def training(self) -> int:
        return self.verdicts.shape[1]

    def state(self, prompt: Tensor, token: Tensor) -> Tensor:
        return prompt.unsqueeze(-1)

    def sample(self, probs: Tensor, prompts: Tensor, uniforms: Tensor, *, n: int) -> Rollouts:
        """n graded actions per prompt; see `World.sample`."""
        state = prompts.repeat_interleave(n)
        action = draw(cumulated(probs), state, uniforms)
        return self._graded(state, action.unsqueeze(-1), group_size=n)

    def enumerate(self, table: Tensor, prompts: Tensor, *, temperature: Tensor) -> Rollouts:
        """Every action of every prompt with its probability pi^T(a): an exact expectation, no samples.

        Args:
            table: (N, S, K) logits that sample.
            prompts: (P,) int64 states.
            temperature: (N,), > 0.
        """
        runs, _, actions = table.shape
        share = tempered_log_probs(table.detach()[:, prompts], temperature).exp().flatten(1)
        action = torch.arange(actions).repeat(runs, len(prompts)).unsqueeze(-1)
        return self._graded(prompts.repeat_interleave(actions), action, group_size=actions).replace(share=share)

    def _graded(self, state: Tensor, action: Tensor, *, group_size: int) -> Rollouts:
        runs, _, actions = self.verdicts.shape
        prompt = state.expand(runs, -1)
        right = self.verdicts.view(runs, -1).gather(1, prompt * actions + action.squeeze(-1))
        return Rollouts(
            prompt=prompt,
            token=action,
            mask=torch.ones((), dtype=torch.float64).expand(action.shape),
            reward=right.double(),
            group_size=group_size,
            full=True,
        )


def prompts_of_step(step: int, *, training: int, count: int, seed: int = 0) -> Tensor:
    """(count,) int64: this step's prompts, the same in every run: whole epochs, each in its own shuffled order.

    Args:
        step: counted from 0.
        training: prompts there are.
        count: prompts a step, in [1, training].
        seed: of the order.
    """
    if training == 1:
        return torch.zeros(1, dtype=torch.int64)
    found = []
    position, needed = step * count, count
    while needed:
        epoch, start = divmod(position, training)
        digest = hashlib.sha256(f"prompts/{seed}/{epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        part = torch.randperm(training, generator=generator)[start : start + needed]
        found.append(part)
        position, needed = position + len(part), needed - len(part)
    return torch.cat(found)


def pass_rates(prefix: str, success: Tensor, ks: Sequence[int] = PASS_KS) -> dict[str, Tensor]:
    """Exact pass@k = mean over prompts of 1 - (1 - p)^k from success probabilities (N, prompts): name -> (N,)."""
    wrong = (1 - success).clamp(min=0.0)
    return {f"{prefix}pass@{k}": 1 - (wrong**k).mean(-1) for k in ks}


def tempered_log_probs(table: Tensor, temperature: Tensor) -> Tensor:
    """log pi^T of every state: (N, S, K), (N,) -> (N, S, K)."""
    return log_softmax(table, temperature.unsqueeze(-1))
