"""The policy loss: one weighted sum that serves exact and sampled, tabular and LLM.

Eq. 1 is assembled in `aepo.method.assemble`; its two means, and what may stand in their place, are `aepo.normalizer`.
In the batch every 1/G, 1/|o|, alpha and choice of positives is one number a token, `weight`, and every credit another,
`advantage`: what is left here is the surrogate, and a sum that divides by nothing. Letters as in `aepo.batch`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aepo.batch import Batch

Surrogate = Callable[[Tensor, Batch, Tensor | None], Tensor]
"""(logp (..., R, T), batch, exact token entropy now (..., R, T)) -> objective per token (..., R, T), maximised."""


@dataclass(frozen=True, kw_only=True)
class ClippedSurrogate:
    """min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = pi / pi_old at temperature 1 (Eq. 1).

    With `dual_clip` = c, a token of negative advantage never counts less than c A, whatever its ratio: the authors'
    code sets c = 3; the paper has none, which is the default.

    Raises:
        ValueError: a clip range below 0, or dual_clip <= 1.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None

    plain_on_policy: ClassVar[bool] = True
    """Whether the gradient is A grad logp where the policy itself sampled: the simulator then needs no graph."""

    def __post_init__(self) -> None:
        if not 0 <= self.clip_low <= 1:
            raise ValueError(f"clip_low must be in [0, 1], got {self.clip_low}")
        if self.clip_high < 0:
            raise ValueError(f"clip_high must be >= 0, got {self.clip_high}")
        if self.dual_clip is not None and self.dual_clip <= 1:
            raise ValueError(f"dual_clip must be > 1 or None, got {self.dual_clip}")

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        ratio = (logp - batch.old_logp).exp()
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        objective = torch.minimum(ratio * batch.advantage, clipped * batch.advantage)
        return objective if self.dual_clip is None else dual_clipped(objective, batch.advantage, self.dual_clip)


def dual_clipped(objective: Tensor, advantage: Tensor, bound: float) -> Tensor:
    """The objective, but at least `bound` x A where A < 0 (Ye et al. 2020); all (..., R, T)."""
    return torch.where(advantage < 0, torch.maximum(objective, bound * advantage), objective)


@dataclass(frozen=True)
class ScoreFunction:
    """A logp: REINFORCE as Section 3.1 writes its gradient, without a ratio. On-policy it is GRPO's first step."""

    plain_on_policy: ClassVar[bool] = True

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        return batch.advantage * logp


def policy_loss(
    logp: Tensor,
    entropy: Tensor | None,
    batch: Batch,
    surrogate: Surrogate,
    *,
    token_entropy: Tensor | None = None,
    report: bool = True,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Minus the weighted sum of the surrogate, minus the weighted sum of the entropy bonus (Eq. 1, Eq. 2, Eq. 3).

        -J = - sum weight x surrogate(A) - sum entropy_weight x entropy

    Both sums are over every token of the T = 1 and of the tempered rows. `aepo.method.assemble` says how the equation
    is put into `weight` and `advantage`; with every normaliser in there, losses and gradients of the parts of a batch
    add up to the whole's.

    Args:
        logp: (..., R, T), log-prob of the batch's tokens at T = 1 under the current policy; carries the gradient.
        entropy: (..., R, T), what the entropy bonus rewards, with gradient; None where there is no bonus.
        batch: rows, advantages and weights.
        surrogate: the objective per token.
        token_entropy: (..., R, T), the exact entropy for a surrogate that looks at it, where the bonus is another.
        report: whether the sums are wanted; without them the dict is empty.

    Returns:
        The loss (...), one per run, and sums that add over parts: `tokens` (the weight of rows that can move the
        policy), `clipped` (of these, the share whose ratio left [0.8, 1.2]) and `kl` (E[r - 1 - ln r], Schulman's k3),
        both to be divided by `tokens`.
    """
    seen = entropy if token_entropy is None else token_entropy
    objective = batch.on(surrogate(batch.on(logp, batch.old_logp), batch, seen), 0.0)
    loss = -(batch.weight * objective).sum((-2, -1))
    if entropy is not None:
        loss = loss - (batch.entropy_weight * batch.on(entropy, 0.0)).sum((-2, -1))
    if not report:
        return loss, {}
    with torch.no_grad():
        counted = batch.weight.abs() * (batch.advantage != 0)
        log_ratio = batch.on(logp - batch.old_logp, 0.0)
        sums = {
            "tokens": counted.sum((-2, -1)),
            "clipped": (counted * (log_ratio.expm1().abs() > RATIO_REPORT_RANGE)).sum((-2, -1)),
            "kl": (counted * (log_ratio.expm1() - log_ratio)).sum((-2, -1)),
        }
    return loss, sums


# One yardstick for every method, also those that do not clip: the paper's clip range.
RATIO_REPORT_RANGE = 0.2
