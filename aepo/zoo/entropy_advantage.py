"""Entropy-Adv: the advantage shaped by the token's entropy."""

import dataclasses

from aepo.advantage import entropy_shaped
from aepo.batch import Rollouts
from aepo.method import Method
from aepo.zoo.grpo import grpo


def entropy_adv(*, beta: float = 0.4, kappa: float = 2.0, **grpo_options) -> Method:
    """GRPO with A + min(beta H, |A| / kappa) in place of A (Section 3.2; Cheng et al. 2025).

    H is that of the policy before the update. SIREN's baseline of this name takes the current one, and kappa 1, which
    lets a negative advantage reach 0 and is refused here.

    Args:
        beta: > 0, 0.4 (Table 4).
        kappa: > 1, 2 (Table 4).
        grpo_options: as for `grpo`.

    Raises:
        ValueError: beta <= 0 or kappa <= 1.
    """
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta}")
    if not kappa > 1:
        raise ValueError(f"kappa must be > 1, got {kappa}")
    base = grpo(**grpo_options)
    group_advantage = base.advantage
    if group_advantage is None:
        raise ValueError("entropy_adv shapes GRPO's advantage, which is missing")

    def advantage(rollouts: Rollouts):
        credit = group_advantage(rollouts).unsqueeze(-1)
        return entropy_shaped(credit, rollouts.scored("entropy"), beta=beta, kappa=kappa)

    return dataclasses.replace(base, name="entropy_adv", advantage=advantage, label=f"beta={beta:g}, kappa={kappa:g}")
