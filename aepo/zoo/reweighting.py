"""Methods that tilt the advantages of ordinary T = 1 rollouts: no second sampling."""

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from aepo.advantage import quantile_centred
from aepo.batch import Rollouts
from aepo.controller import Band, Control, ProportionalIntegral, SignAndSize, temperature_law
from aepo.method import Method, Shape, by_reward
from aepo.tilt import Tilt, shortness, tempering
from aepo.zoo.grpo import grpo

Scope = Literal["group", "position", "batch", "sequence"]
SCOPES = ("group", "position", "batch", "sequence")


def entropic(*, gain: float = 1.0, rate: float = 0.01, limit: float = 1.0, **grpo_options) -> Method:
    """EntroPIC: positives weigh 1 - u, negatives 1 + u, u under PI control (arXiv 2511.15248).

    u = gain (H* - H) + rate x sum (H* - H). Raising entropy means learning less from right answers and more from wrong.
    The source's code instead adds a second term, -u x mean(r |A|) without a clip, over the tokens of probability above
    0.95 alone; its sum ends one step earlier and is never held back. Entrocraft's re-implementation weighs every token,
    as here, but raw rewards.

    Args:
        gain, rate: 1 and 0.01.
        limit: u stays in [-limit, limit], 1 as in the source's code; Entrocraft's has no bound.
        grpo_options: as for `grpo`.
    """
    controller = ProportionalIntegral(gain=gain, rate=rate, low=-limit, high=limit)

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        u = control.strength[..., None, None]
        return advantage * torch.where(advantage > 0, 1 - u, 1 + u)

    return dataclasses.replace(
        grpo(**grpo_options),
        name="entropic",
        controller=controller,
        shape=shape,
        label=f"gain={gain:g}, rate={rate:g}",
    )


def entrocraft(*, width: float = 0.05, **grpo_options) -> Method:
    """Entrocraft: above the band only positives train, below it only negatives, inside it both (arXiv 2604.26326).

    The source's band follows a schedule of its own (0.6 to 0.4 and 0.7 to 0.5); here it is H* +- width, moved by
    the target's schedule. Rows that are left out keep their place in the denominators. Outside the band the source's
    code takes the rewards +-1 as advantages, so that groups of equal rewards train too; here GRPO's advantage stays, as
    in the paper's filter on advantages.

    Args:
        width: half-width of the band, nats.
        grpo_options: as for `grpo`.
    """

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        push = control.strength[..., None, None]
        return advantage.masked_fill(((push > 0) & (advantage > 0)) | ((push < 0) & (advantage < 0)), 0.0)

    return dataclasses.replace(
        grpo(**grpo_options), name="entrocraft", controller=Band(width=width), shape=shape, label=f"width={width:g}"
    )


def quantile(*, k: float = 0.4, **grpo_options) -> Method:
    """Quantile advantage: the baseline of a group is its k-quantile of rewards, not its mean (arXiv 2509.22611).

    With binary rewards a group below the accuracy 1 - k learns from its right answers only, one above from its wrong
    answers only, as the paper says. The source's code interpolates its quantile, so that near the gate both train a
    little.

    Args:
        k: 0.4.
        grpo_options: as for `grpo`.
    """
    if not 0 <= k <= 1:
        raise ValueError(f"k must be in [0, 1], got {k}")

    def advantage(rollouts: Rollouts) -> Tensor:
        return quantile_centred(rollouts.reward, group_size=rollouts.group_size, k=k, share=rollouts.share)

    return dataclasses.replace(grpo(**grpo_options), name="quantile", advantage=advantage, label=f"k={k:g}")


def dcpo(*, t_low: float = 0.8, t_high: float = 1.2, limit: float = 0.1, **grpo_options) -> Method:
    """DCPO: A <- (1 - w) A + w [correct] exp(logp_T - logp), no second sampling (arXiv 2601.12730).

    w = a / (1 + a) with a = min(|H* - H|, limit) / (share of correct rollouts). Without a correct rollout the source
    divides by zero; here GRPO's advantage is left as it is. The ratio is not centred, so w also changes the size of the
    ordinary gradient.

    Args:
        t_low, t_high: 0.8 and 1.2.
        limit: bound on |H* - H|, 0.1.
        grpo_options: as for `grpo`.
    """

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        ratio = tempering(rollouts, control).exp()
        right = by_reward(rollouts).to(advantage.dtype)
        share = (rollouts.row_weight * right).sum(-1)
        a = control.strength.abs() / share.clamp(min=1e-12)
        w = torch.where(share > 0, a / (1 + a), 0.0)[..., None, None]
        return (1 - w) * advantage + w * right.unsqueeze(-1) * ratio

    return dataclasses.replace(
        grpo(**grpo_options),
        name="dcpo",
        controller=SignAndSize(t_low=t_low, t_high=t_high, limit=limit),
        shape=shape,
        needs_logp_t=True,
        label=f"limit={limit:g}",
    )


def reweighting(
    *,
    alpha: float = 4.0,
    gain: float = 8.0,
    rate: float = 0.2,
    within: float = 0.1,
    t_low: float = 0.5,
    t_high: float = 2.0,
    scope: Scope = "position",
    **grpo_options,
) -> Method:
    """Ours: positives get an extra advantage alpha (w / mean(w) - 1), w = exp(logp_T - logp), without more sampling.

    The mean is over the positives of the scope under exactly the loss's weights, so the extra term sums to zero there:
    it moves mass among right answers and does not change how hard they are pushed. A group with one positive gets
    nothing. It is the importance-weighted form of AEPO's second term, less its push towards all right answers.

    Args:
        alpha: weight of the extra advantage.
        gain, rate, within: ln T = gain e + I, I += rate e while |e| < within, e = H* - H.
        t_low, t_high: limits of T.
        scope: over what the mean goes. `group`: the prompt's positives, all their tokens. `position`: the same tokens
            position by position. `batch`: every positive. `sequence`: one w per response, the geometric mean of its
            tokens' ratios, so that it does not explode with the length; mean over the prompt's positives. Of the four,
            `position` holds targets best on sequences (docs/findings.md); with one token it is `group`.
        grpo_options: as for `grpo`.
    """
    return dataclasses.replace(
        grpo(**grpo_options),
        name="reweighting",
        controller=temperature_law(gain=gain, rate=rate, within=within, t_low=t_low, t_high=t_high),
        shape=preferring(tempering, alpha=alpha, scope=scope),
        needs_logp_t=True,
        label=f"alpha={alpha:g}, T {t_low:g}/{t_high:g}, {scope}",
    )


def shorter(*, alpha: float = 1.0, strength: float = 2.0, **grpo_options) -> Method:
    """Shorter but still right: the reweighting towards q proportional to pi exp(-strength x relative length).

    Mass moves from long right answers to short ones; the share of right answers is left to GRPO's own term. It follows
    no entropy target: the same machinery steers another statistic.

    Args:
        alpha: weight of the extra advantage.
        strength: of the tilt, per mean length of the group.
        grpo_options: as for `grpo`.
    """
    return dataclasses.replace(
        grpo(**grpo_options),
        name="shorter",
        shape=preferring(shortness(strength), alpha=alpha, scope="group"),
        label=f"alpha={alpha:g}, strength={strength:g}",
    )


def preferring(tilt: Tilt, *, alpha: float, scope: Scope) -> Shape:
    """The advantage plus alpha (w / mean(w) - 1) on positives, w = exp(tilt): mass moves among right answers.

    Args:
        tilt: ln q / pi per token.
        alpha: > 0.
        scope: see `reweighting`.

    Raises:
        ValueError: alpha <= 0 or an unknown scope.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}")
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        log_ratio = tilt(rollouts, control)
        if scope == "sequence":
            length = rollouts.mask.sum(-1, keepdim=True).clamp(min=1)
            log_ratio = (log_ratio.sum(-1, keepdim=True) / length).expand_as(log_ratio)
        counted = weight * by_reward(rollouts).unsqueeze(-1)
        return advantage + alpha * centred_ratio(log_ratio.exp(), counted, group_size=rollouts.group_size, scope=scope)

    return shape


def centred_ratio(ratio: Tensor, weight: Tensor, *, group_size: int, scope: Scope = "group") -> Tensor:
    """ratio / mean(ratio) - 1 where the weight is not 0, else 0; the mean under these weights, within the scope.

    Args:
        ratio: (..., R, T), > 0.
        weight: (..., R, T), >= 0: what the loss gives these tokens; 0 for those that take no part.
        group_size: G, divides R.
        scope: see `reweighting`.

    Returns:
        (..., R, T); weight x result sums to 0 within every scope.

    >>> centred_ratio(torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[0.5], [0.5], [0.0]]), group_size=3).flatten()
    tensor([-0.5000,  0.5000,  0.0000])
    """
    if scope == "batch":
        shaped, over = weight, (-2, -1)
        r = ratio
    else:
        shaped = weight.unflatten(-2, (-1, group_size))
        r = ratio.unflatten(-2, (-1, group_size))
        over = (-2,) if scope == "position" else (-2, -1)
    total = shaped.sum(over, keepdim=True)
    mean = (shaped * r).sum(over, keepdim=True) / total.masked_fill(total == 0, 1.0)
    centred = torch.where(shaped != 0, r / mean.masked_fill(mean == 0, 1.0) - 1, 0.0)
    # One response alone has nobody to yield mass to: its tokens get nothing, instead of a push among themselves.
    rows = (shaped != 0) if scope == "position" else (shaped != 0).any(-1, keepdim=True)
    alone = rows.sum(-2, keepdim=True) < 2
    centred = centred.masked_fill(alone, 0.0)
    return centred if scope == "batch" else centred.flatten(-3, -2)
