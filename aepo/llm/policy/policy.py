"""The trained model with its prompts: scoring, gradients and optimizer steps.

Letters as in `aepo.batch`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from aepo.batch import Batch
from aepo.llm.policy.scorer import Scorer
from aepo.llm.policy.stepper import Stepper, parameter_size
from aepo.schedule import Constant, Schedule

LOOKED_AT = 1_000_000
"""Numbers in which changes of the weights are counted: a share is then known to a tenth of a percent, for the price of
a copy of no weight."""


class Policy(Scorer):
    """A scorer with a stepper: everything that the training step asks of the model.

    Args:
        stepper: gradients to weights.
        prompts, pad_id, token_budget, packing, sharing: as for `Scorer`.
        lr: learning rate after the warm-up.
        warmup_steps: optimizer steps over which it grows from nearly 0.
        decay: share of `lr` by the number of optimizer steps since the warm-up; None keeps it constant.

    Raises:
        ValueError: as for `Scorer`.
    """

    def __init__(
        self,
        stepper: Stepper,
        prompts: Sequence[Sequence[int]],
        *,
        pad_id: int,
        token_budget: int,
        lr: float,
        warmup_steps: int = 0,
        decay: Schedule | None = None,
        packing: bool = False,
        sharing: bool = False,
    ) -> None:
        super().__init__(
            stepper.module,
            prompts,
            pad_id=pad_id,
            token_budget=token_budget,
            packing=packing,
            sharing=sharing,
            collective=stepper.collective,
            settle=stepper.settle,
        )
        self.stepper = stepper
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.decay = decay or Constant(1.0)
        self.updates = 0
        """Optimizer steps taken; part of checkpoints."""
        self.skipped_in_a_row = 0
        """Steps since the last one taken that were left out for a gradient that was not finite; part of checkpoints."""

    @property
    def parameter_count(self) -> int:
        """Numbers in all weights of the model."""
        return sum(parameter_size(p) for p in self.model.parameters())

    def looked_at(self) -> Tensor:
        """A copy of some of the numbers in this rank's weights, always the same ones: all, or a million and a few."""
        held = list(self.stepper.held())
        apart = -(-sum(weight.numel() for weight in held) // LOOKED_AT)
        found, before = [], 0
        for weight in held:
            # Every `apart`-th number of all weights in a row.
            found.append(weight.reshape(-1)[-before % apart :: apart].clone())
            before += weight.numel()
        return torch.cat(found)

    def __call__(self, micro: Batch, *, shared: bool = False) -> tuple[Tensor, Tensor]:
        """logp and entropy (R, T) of a micro-batch's tokens, on the model's device, with gradient.

        Args:
            micro: its rows.
            shared: whether each prompt is computed once, as its `Plan` says.
        """
        logp, entropy, _ = self._forward(self.stepper, micro.prompt, micro.token, micro.mask, shared=shared)
        return logp, entropy

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate the gradient of one micro-batch; `last` marks the last one before `step`."""
        self.stepper.backward(loss, last=last)

    @property
    def learning_rate(self) -> float:
        """Of the next optimizer step: a linear warm-up to `lr`, and then its decay."""
        warm = min(1.0, (self.updates + 1) / (self.warmup_steps + 1))
        return self.lr * warm * float(self.decay(max(0, self.updates - self.warmup_steps)))

    def step(self) -> float:
        """One optimizer step at the scheduled learning rate; returns the global gradient's norm before clipping.

        Where that is not finite, on every rank then, the step is left out and counted, and nothing has changed.
        """
        norm = self.stepper.step(self.learning_rate)
        if math.isfinite(norm):
            self.updates += 1
            self.skipped_in_a_row = 0
        else:
            self.skipped_in_a_row += 1
        return norm
