"""Entropy-Reg: GRPO plus a coefficient times the entropy, in its true form and in the authors' code's."""

import dataclasses

from aepo.method import Method
from aepo.zoo.grpo import grpo


def entropy_reg(*, coef: float = 0.015, **grpo_options) -> Method:
    """GRPO + coef x H, differentiated through the exact entropy of every visited token (Section 3.2).

    As everywhere in the field, the gradient is that of each token's entropy on the prefixes that were visited; how the
    policy changes which prefixes are visited is left out.

    Args:
        coef: lambda, 0.015 (Table 4). A coefficient, not a set-point: the entropy it leads to depends on all else.
        grpo_options: as for `grpo`.
    """
    return dataclasses.replace(grpo(**grpo_options), name="entropy_reg", entropy_coef=coef, label=f"coef={coef:g}")


def entropy_reg_nll(*, coef: float = 0.015, **grpo_options) -> Method:
    """GRPO + coef x mean(-logp of the sampled tokens): what the authors' code calls entropy regularisation.

    On-policy the expected gradient of the sampled negative log-likelihood is zero (the score has mean 0), so this is
    noise, not a bonus. It is here to reproduce that code; `entropy_reg` is the method.

    Args:
        coef: lambda; the authors' code has 0.03, the paper's table 0.015.
        grpo_options: as for `grpo`.
    """
    return dataclasses.replace(
        grpo(**grpo_options),
        name="entropy_reg_nll",
        entropy_coef=coef,
        entropy_bonus="sampled_nll",
        label=f"coef={coef:g}",
    )
