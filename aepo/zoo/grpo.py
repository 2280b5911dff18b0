"""GRPO and REINFORCE: the two that control nothing."""

import dataclasses
from typing import Literal

from aepo.advantage import Std, group_normalized
from aepo.batch import Rollouts
from aepo.loss import ClippedSurrogate, ScoreFunction
from aepo.method import Method, Reduction, reward_credit
from aepo.weights import fixed_length, sequence_mean, token_mean

Average = Literal["sequence", "token"]
REDUCTIONS: dict[str, Reduction] = {"sequence": sequence_mean, "token": token_mean}


def reduction_named(average: str) -> Reduction:
    """`sequence` (Eq. 1's 1/|o|) or `token` (the authors' code).

    Raises:
        ValueError: anything else.
    """
    if average not in REDUCTIONS:
        raise ValueError(f"average must be 'sequence' or 'token', got {average!r}")
    return REDUCTIONS[average]


def grpo(
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    std: Std = "sample",
    average: Average = "sequence",
) -> Method:
    """GRPO without a KL term (Section 3.1; Shao et al. 2024). Entropy collapses under it.

    Args:
        clip_low, clip_high: the clip range, 0.2 both (Table 4).
        dual_clip: bound on tokens of negative advantage, None as in the paper; the authors' code has 3.
        std: division within the group, see `group_normalized`.
        average: over tokens within each response first, or over all tokens.
    """

    def advantage(rollouts: Rollouts):
        return group_normalized(rollouts.reward, group_size=rollouts.group_size, share=rollouts.share, std=std)

    return Method(
        name="grpo",
        advantage=advantage,
        surrogate=ClippedSurrogate(clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip),
        reduction=reduction_named(average),
    )


def dr_grpo(*, max_tokens: int | None = None, clip_low: float = 0.2, clip_high: float = 0.2) -> Method:
    """Dr. GRPO: no division by the deviation, none by the response's length (arXiv 2503.20783).

    Args:
        max_tokens: the constant that token sums are divided by; None takes the longest response of the batch.
        clip_low, clip_high: the clip range.
    """
    base = grpo(clip_low=clip_low, clip_high=clip_high, std="none")
    return dataclasses.replace(base, name="dr_grpo", reduction=fixed_length(max_tokens))


def reinforce(*, average: Average = "sequence") -> Method:
    """REINFORCE with the reward as credit and no baseline (Section 3.1; Williams 1992)."""
    return Method(
        name="reinforce",
        advantage=reward_credit,
        surrogate=ScoreFunction(),
        reduction=reduction_named(average),
    )
