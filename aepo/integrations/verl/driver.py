"""The controller beside verl's driver: its memory, one turn a step, and the advantages that carry the method's weights.

verl hands an advantage estimator the rewards, the mask and the prompts of the global batch, but neither log-probs nor
entropies nor the step. `AEPOTrainer` opens a turn around it, in which they are known (`Driver.turn`).

Letters as in `aepo.batch`.
"""

# pyright: reportMissingImports=false

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est

from aepo import atomic
from aepo.batch import Rollouts
from aepo.controller import Control, Loop
from aepo.integrations.verl.settings import NAME, SECTION, AEPOPolicyLossConfig
from aepo.method import assemble

FILE = "aepo_controller.pt"
"""Of the controller, in verl's folder of a checkpoint."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What the policy before the update says of the global batch, row by row as verl has it."""

    old_logp: Tensor
    """(R, T): at T = 1."""
    entropy: Tensor
    """(R, T): at T = 1, in nats."""
    logp_at: Callable[[float], Tensor]
    """The log-probs (R, T) at another temperature, by a further scoring pass; called if the method asks."""


class Driver:
    """A method's controller with its memory, in the one process that sees the global batch.

    Args:
        settings: of the run.
        group_size: responses to a prompt.
        minibatch_rows: rows of an optimizer step, over all ranks.
    """

    def __init__(self, settings: AEPOPolicyLossConfig, *, group_size: int, minibatch_rows: int) -> None:
        self.settings = settings
        self.method = settings.named_method()
        self.target = settings.named_target()
        self.group_size = group_size
        self.minibatch_rows = minibatch_rows
        self.loop = Loop.start(self.method.controller, torch.zeros(()))

    def advantages(
        self, reward: Tensor, mask: Tensor, index: Sequence[Any], scores: Scores, *, step: int
    ) -> tuple[Tensor, dict[str, float]]:
        """One turn of the loop, and what verl is to take for the advantages.

        The controller sees the mean entropy of the rows and decides; `assemble` gives weights and advantages; each
        token gets their product, times the number of optimizer steps that the batch is split into, so that each is an
        estimate of the whole batch's.

        Args:
            reward: (R,).
            mask: (R, T).
            index: (R,), what names the prompt of a row; the rows of a prompt need not be neighbours. Prompts without
                any token are verl's padding and take no part.
            scores: of the same rows.
            step: counted from 0.

        Returns:
            (R, T), 0 on padding; and metrics.

        Raises:
            ValueError: prompts of another number of responses, or no token at all.
            FloatingPointError: an entropy that is not finite.
        """
        order = grouped(index, mask, group_size=self.group_size)
        main = self._rollouts(order, reward, mask, scores)
        entropy = main.mean_entropy()
        if not math.isfinite(entropy):
            raise FloatingPointError(f"step {step}: the entropy is {float(entropy)}")
        self.loop, control = self.loop.decide(
            self.method.controller,
            entropy=entropy,
            target=math.nan if self.target is None else self.target(step),
            sees=self.settings.sees,
            step=step,
            relative=self.settings.target_relative,
        )
        if self.method.needs_logp_t:
            main = main.replace(logp_t=scores.logp_at(float(control.temperature))[order])
        batch = assemble(self.method, control, main)
        folded = torch.zeros_like(scores.old_logp)
        folded[order] = batch.weight * batch.advantage * (len(mask) / self.minibatch_rows)
        return folded, self._metrics(entropy, control)

    def _rollouts(self, order: Tensor, reward: Tensor, mask: Tensor, scores: Scores) -> Rollouts:
        on = mask[order].to(scores.entropy.dtype)
        return Rollouts(
            prompt=torch.arange(len(order)) // self.group_size,
            # No method looks at what was said.
            token=torch.zeros(on.shape, dtype=torch.int64),
            mask=on,
            reward=reward[order].to(on.dtype),
            group_size=self.group_size,
            old_logp=scores.old_logp[order],
            entropy=scores.entropy[order],
        )

    def _metrics(self, entropy: Tensor, control: Control) -> dict[str, float]:
        # verl's own number under this name is a sum over tokens where loss_agg_mode is token-sum.
        found: dict[str, Tensor | None] = {"actor/entropy": entropy}
        if self.method.controlled:
            found |= {
                "aepo/entropy_target": control.target,
                "aepo/entropy_error": control.error,
                "aepo/strength": control.strength,
                "aepo/raise_entropy": control.raise_entropy,
            }
        if self.method.needs_logp_t:
            found["aepo/temperature"] = control.temperature
        return {name: float(value) for name, value in found.items() if value is not None}

    @contextlib.contextmanager
    def turn(self, scores: Scores, *, step: int, metrics: dict[str, Any]) -> Iterator[None]:
        """The time in which verl may ask its estimator for the advantages of one step, once.

        Args:
            scores: of the global batch.
            step: counted from 0.
            metrics: verl's of this step; ours are added.
        """

        def answer(reward: Tensor, mask: Tensor, index: Sequence[Any]) -> Tensor:
            found, measured = self.advantages(reward, mask, index, scores, step=step)
            metrics.update(measured)
            return found

        token = _TURN.set(answer)
        try:
            yield
        finally:
            _TURN.reset(token)

    def save(self, folder: Path) -> None:
        """The controller's memory, written into verl's folder of a checkpoint; the whole file or none."""
        kept = {
            "method": self.settings.method,
            "state": dict(self.loop.state),
            "previous_entropy": self.loop.previous_entropy,
            "initial_entropy": self.loop.initial_entropy,
        }
        folder.mkdir(parents=True, exist_ok=True)
        with atomic.written(folder / FILE, durable=True) as beside:
            torch.save(kept, beside)

    def restore(self, folder: Path) -> None:
        """The memory as it was saved.

        Raises:
            ValueError: there is none, or it is another method's.
        """
        path = folder / FILE
        cure = "go on with the method that saved it, or start a new run from its weights: trainer.resume_mode=disable"
        if not path.exists():
            raise ValueError(f"{path} is missing: this checkpoint was saved without AEPO; {cure}")
        kept = torch.load(path, weights_only=True)
        if (method := kept.pop("method")) != self.settings.method:
            raise ValueError(f"{SECTION}.method={self.settings.method}, but {path} is of method {method!r}; {cure}")
        self.loop = Loop(**kept)


_TURN: ContextVar[Callable[[Tensor, Tensor, Sequence[Any]], Tensor]] = ContextVar("turn")


@register_adv_est(NAME)
def advantages(
    token_level_rewards: Tensor, response_mask: Tensor, index: Sequence[Any], config: Any = None, **others: Any
) -> tuple[Tensor, Tensor]:
    """Weight x advantage of every token, twice: verl's advantages and returns; verl's signature.

    Args:
        token_level_rewards: (R, T), whose sum is a response's reward.
        response_mask: (R, T).
        index: (R,), the prompts' names.
        config, others: not looked at.

    Raises:
        ValueError: called by another trainer than `AEPOTrainer`.
    """
    answer = _TURN.get(None)
    if answer is None:
        raise ValueError(
            f"algorithm.adv_estimator={NAME} needs trainer.v1.trainer_mode={NAME} and trainer.use_v1=True: that "
            "trainer holds the controller and shows it the entropy"
        )
    found = answer(token_level_rewards.sum(-1), response_mask, index)
    return found, found


def grouped(index: Sequence[Any], mask: Tensor, *, group_size: int) -> Tensor:
    """(R',) int64: the rows that take part, prompt after prompt, in the order in which the prompts appear.

    Args:
        index: (R,), what names the prompt of a row.
        mask: (R, T); prompts without any token are left out.
        group_size: responses to a prompt.

    Raises:
        ValueError: prompts of another number of responses, or no token at all.

    >>> grouped(["a", "b", "pad", "b", "a"], torch.tensor([[1], [1], [0], [0], [1]]), group_size=2)
    tensor([0, 4, 1, 3])
    """
    rows: dict[Any, list[int]] = {}
    for row, name in enumerate(index):
        rows.setdefault(name, []).append(row)
    has_token = (mask != 0).any(-1).tolist()
    groups = [group for group in rows.values() if any(has_token[row] for row in group)]
    if not groups:
        raise ValueError(f"no token in any of the {len(mask)} responses: there is nothing to train on")
    if other := sorted({len(group) for group in groups} - {group_size}):
        raise ValueError(
            f"every prompt needs actor_rollout_ref.rollout.n={group_size} responses, got prompts with "
            f"{', '.join(map(str, other))}: agent loops that fail or give several outputs a response cannot be used; "
            "with trainer.v1.sampler.sync_refill_failed_groups=True verl samples another prompt for one that failed"
        )
    return torch.tensor([row for group in groups for row in group])
