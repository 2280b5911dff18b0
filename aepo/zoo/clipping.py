"""Methods that change which tokens may move the policy: clip ranges, covariance, entropy ratios, effects on entropy."""

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from aepo.batch import Batch, Rollouts
from aepo.categorical import entropy_effect
from aepo.controller import Control
from aepo.loss import dual_clipped
from aepo.method import Method
from aepo.weights import top_share
from aepo.zoo.grpo import grpo


def clip_higher(*, clip_low: float = 0.2, clip_high: float = 0.28, **grpo_options) -> Method:
    """GRPO with a wider upper clip range, so that rare tokens may rise further (DAPO, arXiv 2503.14476).

    It shifts entropy up, to a level that nobody chooses. DAPO's script also takes the mean over all tokens
    (average="token") and a dual clip of 10; here both stay GRPO's.

    Args:
        clip_low, clip_high: 0.2 and 0.28, DAPO's values.
        grpo_options: as for `grpo`.
    """
    base = grpo(clip_low=clip_low, clip_high=clip_high, **grpo_options)
    return dataclasses.replace(base, name="clip_higher", label=f"clip {clip_low:g}/{clip_high:g}")


def covariance(advantage: Tensor, old_logp: Tensor, weight: Tensor) -> Tensor:
    """(A - mean A)(logp - mean logp) per token, means over the batch's tokens (Cui et al., arXiv 2505.22617).

    Args:
        advantage, old_logp: (..., R, T).
        weight: (..., R, T); tokens of weight 0 (padding) take no part in the means.

    Returns:
        (..., R, T), 0 where the weight is 0.
    """
    on = (weight != 0).to(advantage.dtype)
    count = on.sum((-2, -1), keepdim=True).clamp(min=1)

    def centred(value: Tensor) -> Tensor:
        value = torch.where(on != 0, value, 0.0)
        return (value - value.sum((-2, -1), keepdim=True) / count) * on

    return centred(advantage) * centred(old_logp)


def clip_cov(*, ratio: float = 2e-4, low: float = 1.0, high: float = 5.0, **grpo_options) -> Method:
    """Clip-Cov: no gradient for a few tokens, drawn among those with low < cov < high (arXiv 2505.22617).

    The source takes the covariance under the current policy within a micro-batch, and leaves out tokens that the clip
    already stops; here it is taken once over the global batch before the update, where ratios are 1 and no token is
    clipped, so that micro-batches and ranks do not matter. The draw is counted (the step is its seed), not streamed.

    Args:
        ratio: share of the batch's tokens that lose their gradient, at least one: 2e-4.
        low, high: the band of the covariance, 1 and 5. The authors' recipe also sets both clip ranges to 1.
        grpo_options: as for `grpo`.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], got {ratio}")
    if not low < high:
        raise ValueError(f"low must be below high, got low={low}, high={high}")

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        cov = covariance(advantage, rollouts.scored("old_logp"), weight)
        inside = (cov > low) & (cov < high)
        digest = hashlib.sha256(f"clip_cov/{control.step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        rows, tokens = advantage.shape[-2:]
        # Position by position, so that a token's number does not depend on the padding to its right.
        noise = torch.rand(tokens, rows, generator=generator, dtype=torch.float64).mT.to(advantage.device)
        return advantage.masked_fill(top_share(torch.where(inside, noise, -1.0), weight, ratio) & inside, 0.0)

    return dataclasses.replace(
        grpo(**grpo_options), name="clip_cov", shape=shape, label=f"ratio={ratio:g}, cov {low:g}/{high:g}"
    )


# Two passes of the same weights give log-probs that are a few last digits apart, by the rows that they were beside.
ROUNDING = 16.0


@dataclass(frozen=True, kw_only=True)
class KLCovSurrogate:
    """r A - coef |ln r| on the marked tokens, r A elsewhere, nothing clipped (arXiv 2505.22617).

    An |ln r| that is no more than rounding counts as 0 and has no gradient; in the source's code the sign of the last
    digit decides on a whole one.
    """

    coef: float

    plain_on_policy: ClassVar[bool] = True

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        log_ratio = logp - batch.old_logp
        objective = log_ratio.exp() * batch.advantage
        if batch.mark is None:
            return objective
        rounding = ROUNDING * torch.finfo(logp.dtype).eps * (1 + batch.old_logp.abs())
        return objective - self.coef * log_ratio.abs() * (batch.mark & (log_ratio.abs() > rounding))


def kl_cov(*, ratio: float = 2e-3, coef: float = 1.0, **grpo_options) -> Method:
    """KL-Cov: a penalty |ln r| on the tokens of largest covariance, and no clip (arXiv 2505.22617).

    Three "defaults" circulate: the authors' 7B recipe (0.2 %, 1), a framework's settings file (0.02 %, 0.1) and its
    fallback (1.0); we follow the recipe. Their 32B recipe has 0.02 %, and their own repository counts in percent: its
    0.2 is our 2e-3. The covariance is taken as in `clip_cov`; tokens that tie with the last are all penalised.

    Args:
        ratio: share of the batch's tokens that are penalised, at least one.
        coef: weight of the penalty.
        grpo_options: as for `grpo`; its clip ranges do nothing here.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], got {ratio}")
    if not coef >= 0:
        raise ValueError(f"coef must be >= 0, got {coef}")

    def mark(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        return top_share(covariance(advantage, rollouts.scored("old_logp"), weight), weight, ratio)

    return dataclasses.replace(
        grpo(**grpo_options),
        name="kl_cov",
        mark=mark,
        surrogate=KLCovSurrogate(coef=coef),
        label=f"ratio={ratio:g}, coef={coef:g}",
    )


# The source's, on both sides of the ratio: two entropies of 0 have the ratio 1, not 0 / 0.
ENTROPY_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class EntropyRatioSurrogate:
    """The base surrogate, without gradient where H / H_old leaves (low, high) (arXiv 2512.05591)."""

    base: object
    low: float
    high: float

    plain_on_policy: ClassVar[bool] = True

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        if entropy is None or batch.old_entropy is None:
            raise ValueError("entropy-ratio clipping needs the token entropies before the update and now")
        objective = self.base(logp, batch, entropy)  # type: ignore[operator]
        ratio = (entropy.detach() + ENTROPY_EPSILON) / (batch.old_entropy + ENTROPY_EPSILON)
        return torch.where((ratio > self.low) & (ratio < self.high), objective, objective.detach())


def entropy_ratio_clip(*, low: float = 0.8, high: float = 1.2, **grpo_options) -> Method:
    """Entropy-ratio clipping: a token whose entropy moved too far since sampling sends no gradient (arXiv 2512.05591).

    It damps change and aims at no level. On the first mini-batch every ratio is 1 and it does nothing. The source's
    scripts put it on DAPO's or CE-GPPO's clip, with a dual clip of 10; here it is on GRPO's.

    Args:
        low, high: 0.8 and 1.2, the defaults of the source's settings; its scripts and later logs have 0.95 and 1.05.
        grpo_options: as for `grpo`.
    """
    if not 0 <= low < 1 < high:
        raise ValueError(f"the range must hold 1: 0 <= low < 1 < high, got low={low}, high={high}")
    base = grpo(**grpo_options)
    return dataclasses.replace(
        base,
        name="entropy_ratio_clip",
        surrogate=EntropyRatioSurrogate(base=base.surrogate, low=low, high=high),
        compares_entropy=True,
        label=f"H ratio {low:g}/{high:g}",
    )


@dataclass(frozen=True, kw_only=True)
class GradientPreservingSurrogate:
    """Clipped tokens keep a bounded gradient: beta (1 -+ clip) / sg(r) x r A outside, r A inside (arXiv 2509.20712)."""

    clip_low: float
    clip_high: float
    beta_low: float
    beta_high: float
    dual_clip: float | None

    plain_on_policy: ClassVar[bool] = True

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        ratio = (logp - batch.old_logp).exp()
        constant = ratio.detach()
        low = (constant < 1 - self.clip_low) & (batch.advantage < 0)
        high = (constant > 1 + self.clip_high) & (batch.advantage > 0)
        # One where the token is inside, so that no branch divides by a ratio that underflowed.
        safe = torch.where(low | high, constant, 1.0).clamp(min=1e-30)
        scale = torch.where(low, self.beta_low * (1 - self.clip_low) / safe, 1.0)
        scale = torch.where(high, self.beta_high * (1 + self.clip_high) / safe, scale)
        objective = scale * ratio * batch.advantage
        return objective if self.dual_clip is None else dual_clipped(objective, batch.advantage, self.dual_clip)


def ce_gppo(
    *,
    beta_low: float = 0.75,
    beta_high: float = 1.0,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    dual_clip: float | None = 3.0,
    **grpo_options,
) -> Method:
    """CE-GPPO: the gradient of clipped tokens comes back, bounded, with a weight per side (arXiv 2509.20712).

    The defaults are those of the function in the source's README, with DAPO's range. Its 7B script has 0.2 on both
    sides and a dual clip of 10, its 1.5B script also beta_low 0.5, and its settings file beta_low 0.25.

    Args:
        beta_low: weight of unlikely negative tokens below the range, 0.75: they keep entropy up.
        beta_high: weight of positive tokens above the range, 1: they lower it.
        clip_low, clip_high: the range.
        dual_clip: bound on negative tokens, 3.
        grpo_options: as for `grpo`.
    """
    for name, value in (("beta_low", beta_low), ("beta_high", beta_high)):
        if value < 0:
            raise ValueError(f"{name} must be >= 0, got {value}")
    base = grpo(clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip, **grpo_options)
    return dataclasses.replace(
        base,
        name="ce_gppo",
        surrogate=GradientPreservingSurrogate(
            clip_low=clip_low, clip_high=clip_high, beta_low=beta_low, beta_high=beta_high, dual_clip=dual_clip
        ),
        label=f"beta {beta_low:g}/{beta_high:g}",
    )


def top_entropy(*, share: float = 0.2, **grpo_options) -> Method:
    """80/20: only the tokens of highest entropy train the policy (arXiv 2506.01939). A selector, not a controller.

    The quantile is over the tokens of the global batch; denominators stay those of all tokens, as in TRL. TRL
    interpolates its quantile, and so may keep one token more where the share is not a whole number of tokens.

    Args:
        share: of the tokens, 0.2.
        grpo_options: as for `grpo`.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        return advantage * top_share(rollouts.scored("entropy"), weight, share)

    return dataclasses.replace(grpo(**grpo_options), name="top_entropy", shape=shape, label=f"share={share:g}")


def steer(*, lowest: float = 0.8, scale: float = 0.02, **grpo_options) -> Method:
    """STEER: tokens that would change the entropy most count less (arXiv 2510.10150).

    Omega = A (1 - pi)(ln pi + H) estimates a token's effect on the entropy; it weighs exp(-k |Omega|) with
    k = -ln(lowest) / max(max |Omega|, scale). The source evaluates it under the current policy in each micro-batch;
    here it is taken once, before the update, over the global batch. Its script also clips at 0.2/0.28, with a dual clip
    of 10; its code falls back to a linear map to 0.95 .. 1.05, but the script asks for this one.

    Args:
        lowest: the smallest weight, 0.8.
        scale: the floor of max |Omega|, 0.02.
        grpo_options: as for `grpo`.
    """
    if not 0 < lowest <= 1:
        raise ValueError(f"lowest must be in (0, 1], got {lowest}")

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        logp = rollouts.scored("old_logp")
        omega = (advantage * (-torch.expm1(logp)) * (logp + rollouts.scored("entropy"))).abs()
        omega = torch.where(weight != 0, omega, 0.0)
        decay = -torch.tensor(lowest, dtype=omega.dtype).log() / omega.amax((-2, -1), keepdim=True).clamp(min=scale)
        return advantage * torch.exp(-decay * omega)

    return dataclasses.replace(grpo(**grpo_options), name="steer", shape=shape, label=f"lowest={lowest:g}")


# The source's: below it all tokens have one effect, and none stands out.
NO_SPREAD = 1e-12


def spread(value: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Plain mean and population standard deviation over the batch's tokens, each (..., 1, 1).

    Args:
        value: (..., R, T).
        weight: (..., R, T); tokens of weight 0 (padding) take no part.
    """
    on = weight != 0
    count = on.sum((-2, -1), keepdim=True).clamp(min=1)
    mean = torch.where(on, value, 0.0).sum((-2, -1), keepdim=True) / count
    square = torch.where(on, (value - mean).square(), 0.0).sum((-2, -1), keepdim=True)
    return mean, (square / count).sqrt()


def clip_b(*, mu: float = 2.5, **grpo_options) -> Method:
    """Clip_B: no gradient for wrong tokens whose fall would lower the entropy far more than the batch's mean token's.

    S = pi (ln pi + H) is what a token's rise takes from the entropy, so the fall of a rare token (S < 0) takes from it,
    too. Dropped are tokens with A < 0 and S - mean(S) < -mu std(S), mean and deviation over the batch's tokens (arXiv
    2602.03392; Trinity-RFT's ClipBAdvantageFn). One-sided: it follows no target. The source takes ln pi from the
    rollout engine, though its comment says recomputed; here it is the trainer's. A dropped token keeps its place in the
    denominators, which the source's mask takes away.

    Args:
        mu: deviations from the mean, 2.5.
        grpo_options: as for `grpo`.
    """
    if not mu >= 0:
        raise ValueError(f"mu must be >= 0, got {mu}")

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        effect = entropy_effect(rollouts.scored("old_logp"), rollouts.scored("entropy"))
        mean, std = spread(effect, weight)
        dropped = (advantage < 0) & (effect - mean < -mu * std) & (std >= NO_SPREAD)
        return advantage.masked_fill(dropped, 0.0)

    return dataclasses.replace(grpo(**grpo_options), name="clip_b", shape=shape, label=f"mu={mu:g}")


def clip_v(*, mu: float = 8.5, share: float = 1e-4, **grpo_options) -> Method:
    """Clip_V: as `clip_b`, but a token's effect is held against its own distribution's mean, and few are dropped.

    D = E_{a ~ pi}[S_a] - S is the first-order change of the entropy per unit of the update that a token makes alone
    (Theorem 3.3 of arXiv 2602.03392). Dropped are tokens with A < 0 and D > mu std(D), the deviation over the batch's
    tokens, but at most a `share` of the tokens, or one: those of largest D, all that tie with the last (Trinity-RFT's
    ClipVAdvantageFn). E[S] needs the whole distribution: one more scoring pass. Denominators are as in `clip_b`.

    Args:
        mu: deviations from 0, 8.5 (the function's own default is 2, its registered default and script have 8.5).
        share: of the tokens, the most that are dropped: 1e-4. At least one may be.
        grpo_options: as for `grpo`.
    """
    if not mu >= 0:
        raise ValueError(f"mu must be >= 0, got {mu}")
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        own = entropy_effect(rollouts.scored("old_logp"), rollouts.scored("entropy"))
        change = rollouts.scored("mean_effect") - own
        _, std = spread(change, weight)
        candidate = (advantage < 0) & (change > mu * std) & (std >= NO_SPREAD) & (weight != 0)
        return advantage.masked_fill(top_share(change, candidate, share, of=weight), 0.0)

    return dataclasses.replace(
        grpo(**grpo_options), name="clip_v", shape=shape, needs_mean_effect=True, label=f"mu={mu:g}, share={share:g}"
    )
