"""Entropy-Reg: GRPO plus a coefficient times the entropy, in its true form and in the authors' code's.

The coefficient is a number, or a function of the training step (`aepo.schedule.changing`).
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from aepo.controller import Control
from aepo.method import Method
from aepo.schedule import Change, changing
from aepo.zoo.grpo import grpo


def entropy_reg(
    *,
    coef: float = 0.015,
    coef_schedule: Change = "constant",
    coef_end: float = 0.0,
    coef_steps: int = 1000,
    **grpo_options,
) -> Method:
    """GRPO + coef x H, differentiated through the exact entropy of every visited token (Section 3.2).

    As everywhere in the field, the gradient is that of each token's entropy on the prefixes that were visited; how the
    policy changes which prefixes are visited is left out.

    Args:
        coef: lambda, 0.015 (Table 4). A coefficient, not a set-point: the entropy it leads to depends on all else.
        coef_schedule: how lambda moves from `coef` to `coef_end`: `constant` (it stays), `linear`, `cosine`, `step`.
        coef_end: lambda at the end of its schedule; may be negative.
        coef_steps: training steps until it is there.
        grpo_options: as for `grpo`.
    """
    lam, label = _coefficient(coef, coef_schedule, coef_end, coef_steps)
    return dataclasses.replace(grpo(**grpo_options), name="entropy_reg", entropy_coef=lam, label=label)


def entropy_reg_nll(
    *,
    coef: float = 0.015,
    coef_schedule: Change = "constant",
    coef_end: float = 0.0,
    coef_steps: int = 1000,
    **grpo_options,
) -> Method:
    """GRPO + coef x mean(-logp of the sampled tokens): what the authors' code calls entropy regularisation.

    On-policy the expected gradient of the sampled negative log-likelihood is zero (the score has mean 0), so this is
    noise, not a bonus. It is here to reproduce that code; `entropy_reg` is the method.

    Args:
        coef: lambda; the authors' code has 0.03, the paper's table 0.015.
        coef_schedule, coef_end, coef_steps: as for `entropy_reg`.
        grpo_options: as for `grpo`.
    """
    lam, label = _coefficient(coef, coef_schedule, coef_end, coef_steps)
    return dataclasses.replace(
        grpo(**grpo_options),
        name="entropy_reg_nll",
        entropy_coef=lam,
        entropy_bonus="sampled_nll",
        label=label,
    )


def _coefficient(coef: float, change: str, end: float, steps: int) -> tuple[float | Callable[[Control], Tensor], str]:
    """lambda as the method takes it, and its label: one number where nothing moves."""
    try:
        schedule = changing(change, start=coef, end=end, steps=steps)
    except ValueError as error:
        raise ValueError(f"coef_{error}") from error
    if change == "constant":
        return coef, f"coef={coef:g}"

    def now(control: Control) -> Tensor:
        return torch.full_like(control.temperature, float(schedule(control.step)))

    return now, f"coef={coef:g}, {change} to {end:g} in {steps}"
