"""AEPO (Eq. 1), its two ablations (Eq. 2, Eq. 3) and its second term alone (Fig. 2)."""

import dataclasses
from typing import Literal

from torch import Tensor

from aepo.controller import (
    AdaptiveGain,
    BangBang,
    Control,
    Controller,
    FixedTemperature,
    WideningReach,
    temperature_law,
)
from aepo.loss import ScoreFunction
from aepo.method import Method, Normalizer, Tempered, by_advantage, by_reward, every_row
from aepo.zoo.grpo import Average, grpo, reduction_named

# The authors' caps on the kept positives, of a batch of 4,096 rows.
CAP_UP, CAP_DOWN = 60, 30

Select = Literal["reward", "advantage"]


def aepo(
    *,
    alpha: float = 1.0,
    t_low: float = 0.8,
    t_high: float = 1.2,
    normalizer: Normalizer = "all",
    select: Select = "reward",
    cap_up: int | None = None,
    cap_down: int | None = None,
    prompt_fraction: float = 0.25,
    **grpo_options,
) -> Method:
    """AEPO: GRPO plus alpha x REINFORCE on the positives among samples drawn at T_high or T_low (Eq. 1).

    Args:
        alpha: weight of the second term; the paper gives no value.
        t_low, t_high: the controller's two temperatures, 0.8 and 1.2 (Table 4).
        normalizer: `all` (Eq. 1), `positives`, or `replace` (the authors' code).
        select: positives by `reward` > 0 (Eq. 1) or by group `advantage` > 0.05 (the authors' code).
        cap_up, cap_down: most positives kept per step when entropy is to rise, fall. None is no cap, except under
            `replace`, where the authors' 60 and 30 (of 4,096 rows) apply.
        prompt_fraction: share of the prompts that are sampled again; a quarter in the authors' code.
        grpo_options: as for `grpo`.
    """
    return _with_second_term(
        "aepo",
        grpo(**grpo_options),
        BangBang(t_low=t_low, t_high=t_high),
        _tempered(alpha, normalizer, select, cap_up, cap_down, prompt_fraction),
    )


def aepo_pi(
    *,
    alpha: float = 4.0,
    gain: float = 8.0,
    rate: float = 0.2,
    within: float = 0.1,
    t_low: float = 0.5,
    t_high: float = 2.0,
    normalizer: Normalizer = "all",
    cap_up: int | None = None,
    cap_down: int | None = None,
    prompt_fraction: float = 0.25,
    **grpo_options,
) -> Method:
    """AEPO whose temperature is proportional to the error, with a conditional integral, instead of one of two values.

    Args:
        gain, rate, within: ln T = gain e + I, I += rate e while |e| < within, e = H* - H; rate 0 is a proportional law.
        t_low, t_high: limits of T.
        others: as for `aepo`.
    """
    return _with_second_term(
        "aepo_pi",
        grpo(**grpo_options),
        temperature_law(gain=gain, rate=rate, within=within, t_low=t_low, t_high=t_high),
        _tempered(alpha, normalizer, "reward", cap_up, cap_down, prompt_fraction),
    )


def aepo_adaptive(
    *,
    alpha: float = 4.0,
    t_low: float = 0.5,
    t_high: float = 2.0,
    up: float = 1.05,
    down: float = 1 / 1.05,
    rate: float = 0.05,
    normalizer: Literal["all", "positives"] = "all",
    cap_up: int | None = None,
    cap_down: int | None = None,
    prompt_fraction: float = 0.25,
    **grpo_options,
) -> Method:
    """Ours: AEPO's two temperatures, with a second term as strong as the error asks for (see `AdaptiveGain`).

    Bang-bang always pushes with its full weight, so its error is the size of one push; here alpha is the largest
    weight, and near the target the term is as small as its work.

    Args:
        alpha: largest weight of the second term; this and the next were chosen by benchmarks/controllers.
        t_low, t_high: temperatures below and above the target.
        up, down, rate: how the controller's gain and integral move.
        others: as for `aepo`; `replace` is not possible, since there a kept sample takes a whole row's weight.
    """
    if normalizer not in ("all", "positives"):
        raise ValueError(f"normalizer must be 'all' or 'positives', got {normalizer!r}")
    tempered = _tempered(alpha, normalizer, "reward", cap_up, cap_down, prompt_fraction)
    return _with_second_term(
        "aepo_adaptive",
        grpo(**grpo_options),
        AdaptiveGain(up=up, down=down, rate=rate, t_low=t_low, t_high=t_high),
        dataclasses.replace(tempered, strength=_size),
    )


def aepo_reach(
    *,
    alpha: float = 1.0,
    t_low: float = 0.5,
    t_high: float = 2.0,
    strength: float = 16.0,
    t_lowest: float = 0.4,
    t_highest: float = 2.5,
    grow: float = 1.2,
    speed: float = 0.01,
    up: float = 1.05,
    down: float = 1 / 1.05,
    rate: float = 0.05,
    memory: float = 0.1,
    band: float = 0.01,
    normalizer: Literal["all", "positives"] = "all",
    cap_up: int | None = None,
    cap_down: int | None = None,
    prompt_fraction: float = 0.25,
    widest_fraction: float = 1.0,
    **grpo_options,
) -> Method:
    """Ours: `aepo_adaptive` that widens its reach where the target needs more: strength and prompts, then the range.

    A target that an ordinary push balances costs no more than there; one that it does not is not given up at a fixed
    limit (see `WideningReach`).

    Args:
        alpha: weight of the second term at a push of 1; the defaults were chosen by benchmarks/controllers/reach.py.
        t_low, t_high: temperatures below and above the target.
        strength: the largest push, times alpha.
        t_lowest, t_highest: the widest temperatures, used once the widest share of the prompts is sampled again.
        grow: by how much the reach may grow a step.
        speed: nats by which what it follows moves towards the target a step, at most.
        up, down, rate, memory, band: how the controller's gain and integral move.
        prompt_fraction, widest_fraction: share of the prompts that are sampled again, and the largest.
        others: as for `aepo_adaptive`.
    """
    if normalizer not in ("all", "positives"):
        raise ValueError(f"normalizer must be 'all' or 'positives', got {normalizer!r}")
    controller = WideningReach(
        up=up,
        down=down,
        rate=rate,
        memory=memory,
        band=band,
        grow=grow,
        speed=speed,
        strength=strength,
        t_low=t_low,
        t_high=t_high,
        t_lowest=t_lowest,
        t_highest=t_highest,
        prompt_fraction=prompt_fraction,
        widest_fraction=widest_fraction,
    )
    tempered = dataclasses.replace(
        _tempered(alpha, normalizer, "reward", cap_up, cap_down, prompt_fraction),
        strength=_size,
        widest_fraction=widest_fraction,
    )
    return _with_second_term("aepo_reach", grpo(**grpo_options), controller, tempered)


def _size(control: Control) -> Tensor:
    return control.strength.abs()


def aepo_eq2(
    *,
    alpha: float = 1.0,
    normalizer: Normalizer = "all",
    select: Select = "reward",
    cap_up: int | None = None,
    cap_down: int | None = None,
    prompt_fraction: float = 0.25,
    **grpo_options,
) -> Method:
    """Eq. 2, the ablation without temperature: AEPO's second term on samples of the policy itself, T = 1.

    Args: as for `aepo`.
    """
    return _with_second_term(
        "aepo_eq2",
        grpo(**grpo_options),
        FixedTemperature(),
        _tempered(alpha, normalizer, select, cap_up, cap_down, prompt_fraction),
    )


def aepo_eq3(
    *,
    alpha: float = 1.0,
    t_low: float = 0.8,
    t_high: float = 1.2,
    normalizer: Normalizer = "all",
    cap_up: int | None = None,
    cap_down: int | None = None,
    prompt_fraction: float = 0.25,
    **grpo_options,
) -> Method:
    """Eq. 3, the ablation without REINFORCE: every tempered sample takes part with its group advantage, wrong ones too.

    Args: as for `aepo`; without positives to choose, `normalizer` "positives" equals "all" unless a cap binds.
    """
    base = grpo(**grpo_options)
    tempered = _tempered(alpha, normalizer, "reward", cap_up, cap_down, prompt_fraction)
    return _with_second_term(
        "aepo_eq3",
        base,
        BangBang(t_low=t_low, t_high=t_high),
        dataclasses.replace(tempered, keep=every_row, credit=base.advantage),
    )


def reinforce_tempered(
    *, temperature: float = 1.2, prompt_fraction: float = 1.0, average: Average = "sequence"
) -> Method:
    """REINFORCE on samples drawn at a fixed temperature, nothing else (Eq. 4; the two curves of Fig. 2).

    Args:
        temperature: > 0; Fig. 2 shows one above and one below 1.
        prompt_fraction: share of the prompts that are sampled at it; T = 1 rollouts only measure the entropy.
        average: over tokens within each response first, or over all tokens.
    """
    return Method(
        name="reinforce_tempered",
        advantage=None,
        tempered=Tempered(prompt_fraction=prompt_fraction),
        controller=FixedTemperature(temperature=temperature),
        surrogate=ScoreFunction(),
        reduction=reduction_named(average),
        label=f"T={temperature:g}",
    )


def _tempered(
    alpha: float,
    normalizer: Normalizer,
    select: str,
    cap_up: int | None,
    cap_down: int | None,
    prompt_fraction: float,
) -> Tempered:
    if select not in ("reward", "advantage"):
        raise ValueError(f"select must be 'reward' or 'advantage', got {select!r}")
    if normalizer == "replace":
        cap_up = CAP_UP if cap_up is None else cap_up
        cap_down = CAP_DOWN if cap_down is None else cap_down
    return Tempered(
        alpha=alpha,
        normalizer=normalizer,
        keep=by_reward if select == "reward" else by_advantage,
        cap_up=cap_up,
        cap_down=cap_down,
        prompt_fraction=prompt_fraction,
    )


def _with_second_term(name: str, base: Method, controller: Controller, tempered: Tempered) -> Method:
    strength = (
        f"alpha={tempered.alpha:g}"
        if tempered.normalizer != "replace"
        else (f"{tempered.cap_up} up/{tempered.cap_down} down")
    )
    return dataclasses.replace(
        base,
        name=name,
        controller=controller,
        tempered=tempered,
        label=f"normalizer={tempered.normalizer}, {strength}",
    )
