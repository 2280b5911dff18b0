"""Gradients to weights: the protocol behind which plain torch and DeepSpeed stand, and plain torch."""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aepo.llm.policy.response_stats import ResponseStats


class Stepper(Protocol):
    """Gradients to weights: plain torch or DeepSpeed."""

    module: ResponseStats
    """The model that is trained, behind its statistics."""
    collective: bool
    """Whether every forward pass of `module` needs all ranks, which then must run equally many."""

    def __call__(self, *args: Any) -> tuple[Tensor, Tensor]: ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and whole value of every weight of the model, valid until the next; all ranks go through it together."""
        ...

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate this rank's gradient of the global loss; `last` ends the accumulation."""
        ...

    def step(self, lr: float) -> float:
        """Clip, step, clear the gradients; the norm of the global gradient before clipping.

        A norm that is not finite, which every rank then returns, leaves weights and optimizer as they were.
        """
        ...

    def held(self) -> Iterator[Tensor]:
        """What this rank holds of every weight, in the dtype that computes, whole or its part."""
        ...

    def settle(self) -> None:
        """A run of passes without gradient is over: nothing of it stays behind; all ranks call it together."""
        ...

    def release(self) -> None:
        """No gradient is computed until `reclaim`: what only gradients need may be given back."""
        ...

    def reclaim(self) -> None:
        """Take it again; without a `release` before it, nothing."""
        ...


class TorchStepper:
    """One process, any dtype, any torch optimizer."""

    collective = False

    def __init__(self, module: ResponseStats, optimizer: torch.optim.Optimizer, *, max_grad_norm: float) -> None:
        self.module = module
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm

    def __call__(self, *args: Any) -> tuple[Tensor, Tensor]:
        return self.module(*args)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p.detach()) for name, p in self.module.model.named_parameters())

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), self.max_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def held(self) -> Iterator[Tensor]:
        return (p.detach() for p in self.module.model.parameters())

    def settle(self) -> None:
        """Nothing stays behind."""

    def release(self) -> None:
        """Nothing is held between steps."""

    def reclaim(self) -> None:
        """Nothing was given back."""


def parameter_size(parameter: Tensor) -> int:
    """Numbers of a weight, also where ZeRO 3 has parted it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
