"""What held and what failed: every verdict is computed from the summaries."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from aepo.controller import FixedTemperature
from aepo.tabular.plan import Configuration
from aepo.tabular.reporting.summary import SLOPE_STEPS, Summary
from aepo.tracking import SATURATED_DUTY

Verdict = Literal["holds", "fails", "warning"]

COLLAPSED = 0.1
"""Below this many nats at the last step an entropy is called collapsed: one action has some 98 %."""
TRACKED = 0.05
"""A mean |H - H*| up to this many nats counts as a target held."""
EXPLODED = 0.9
"""Above this share of ln |A*| an entropy is called exploded: no right action is preferred to another."""
SAID_TO_COLLAPSE = ("grpo", "aepo_eq2", "aepo_eq3", "entropy_adv")
"""The methods whose entropy the paper shows falling without end (Fig. 4 and Section 6)."""
ADVICE = "too little authority: raise alpha, widen the T range or sample more prompts"
SINGLE = (
    "with one correct action every tempered sample pushes towards that action, whatever T is: "
    "train on prompts with several correct answers"
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One sentence about the data."""

    verdict: Verdict
    """Of the claim; a warning claims nothing but that a controller is stuck."""
    claim: str
    evidence: str


def findings(summaries: Sequence[Summary]) -> list[Finding]:
    """Everything the report says, the warnings last."""
    rules = (_collapses, _tracking, _coefficients, _slopes, _authority)
    return [finding for rule in rules for finding in rule(summaries)]


def _by_configuration(summaries: Sequence[Summary]) -> Iterator[tuple[Configuration, list[Summary]]]:
    for configuration, group in groupby(summaries, key=lambda s: s.configuration):
        yield configuration, list(group)


def _at_targets(group: Sequence[Summary], number: Callable[[Summary], str]) -> str:
    """The same number at each target: '0.008 (H* = 0.25), 0.020 (H* = 0.5)'."""
    return ", ".join(number(s) + ("" if s.target is None else f" (H* = {s.target:g})") for s in group)


def _collapses(summaries: Sequence[Summary]) -> Iterator[Finding]:
    for configuration, group in _by_configuration(summaries):
        if configuration.method not in SAID_TO_COLLAPSE:
            continue
        final = _at_targets(group, lambda s: f"{s.entropy_final:.4f}")
        reward = _at_targets(group, lambda s: f"{s.reward_last_half:.4f}")
        yield Finding(
            verdict="holds" if all(s.entropy_final.mean < COLLAPSED for s in group) else "fails",
            claim=f"{configuration.title}: the entropy collapses, to below {COLLAPSED:g} nats at the end",
            evidence=f"from {group[0].entropy_start:.3f} to {final} nats; reward of the last half {reward}",
        )


def _tracking(summaries: Sequence[Summary]) -> Iterator[Finding]:
    for configuration, group in _by_configuration(summaries):
        if not group[0].controlled or configuration.method in SAID_TO_COLLAPSE:
            continue
        missed = [s for s in group if s.tracking_error is not None and s.tracking_error.mean > TRACKED]
        evidence = f"mean |H - H*| {_at_targets(group, lambda s: f'{s.tracking_error:.4f}')} nats"
        if missed:
            evidence += f"; missed, with mean H {_at_targets(missed, lambda s: f'{s.entropy_last_half:.3f}')}"
        collapsed = [s for s in missed if s.entropy_final.mean < COLLAPSED]
        if collapsed:
            final = _at_targets(collapsed, lambda s: f"{s.entropy_final.mean:.4f}")
            evidence += f"; {configuration.name} collapses too, ending at {final}"
        yield Finding(
            verdict="fails" if missed else "holds",
            claim=f"{configuration.title}: each target is held within {TRACKED:g} nats on average",
            evidence=evidence,
        )


def _coefficient(summary: Summary) -> float:
    """The constant lambda of the entropy bonus; 0 where a controller sets it."""
    value = summary.configuration.build().entropy_coef
    return value if isinstance(value, float | int) else 0.0


def _coefficients(summaries: Sequence[Summary]) -> Iterator[Finding]:
    family = [s for s in summaries if _coefficient(s) > 0]
    if len(family) < 2:
        return
    low, high = (pick(family, key=lambda s: s.entropy_last_half.mean) for pick in (min, max))
    limit = math.log(high.configuration.correct)
    both = low.entropy_final.mean < COLLAPSED and high.entropy_last_half.mean > EXPLODED * limit
    levels = ", ".join(f"{s.entropy_last_half:.3f} ({s.configuration.setting})" for s in family)
    yield Finding(
        verdict="holds" if both else "fails",
        claim=f"{low.configuration.name} collapses under small coefficients and explodes under large ones",
        evidence=f"mean H of the last half {levels}; ln |A*| = {limit:.3f}",
    )
    widest = max(family, key=_spread)
    evidence = f"seeds of {widest.configuration.title} average {_range(widest)} over the last half"
    steered = [s for s in summaries if s.experiment == "fig1" and s.target is not None]
    if steered:
        wide = max(steered, key=_spread)
        nearest = _at_targets(
            steered,
            lambda s: f"{min(abs(one.entropy_last_half.mean - (s.target or 0)) for one in family):.3f}",
        )
        evidence += (
            f", those of {wide.configuration.title} at H* = {wide.target:g}, its widest, {_range(wide)}; "
            f"the nearest of the coefficients misses a target by {nearest}"
        )
    yield Finding(
        verdict="holds" if _spread(widest) > 2 * TRACKED else "fails",
        claim=f"A coefficient is not a set-point: by seed alone, runs end over {2 * TRACKED:g} nats apart",
        evidence=evidence,
    )


def _spread(summary: Summary) -> float:
    return summary.entropy_range[1] - summary.entropy_range[0]


def _range(summary: Summary) -> str:
    return f"{summary.entropy_range[0]:.3f} to {summary.entropy_range[1]:.3f} nats"


def _slopes(summaries: Sequence[Summary]) -> Iterator[Finding]:
    fixed = [s for s in summaries if s.configuration.method == "reinforce_tempered"]
    for start, group in groupby(fixed, key=lambda s: s.configuration.head_start):
        pair = opposite_temperatures(list(group))
        if pair is None:
            continue
        low, high = pair
        kind = f"head start {start:g}" if start else "untrained"
        yield Finding(
            verdict="holds" if low.slope.mean < 0 < high.slope.mean else "fails",
            claim=f"REINFORCE at T = {temperature(high):g} raises the entropy at first, at "
            f"T = {temperature(low):g} lowers it ({kind}: from {low.entropy_start.mean:.3f} nats, "
            f"reward {low.reward_start.mean:.3f})",
            evidence=f"{slopes_sentence([low, high])}; after {low.configuration.settings.steps} steps "
            f"{high.entropy_final:.3f} and {low.entropy_final:.3f} nats",
        )


def temperature(summary: Summary) -> float:
    """The one temperature of a method that samples at a fixed one; nan otherwise."""
    controller = summary.configuration.build().controller
    return controller.temperature if isinstance(controller, FixedTemperature) else math.nan


def opposite_temperatures(summaries: Sequence[Summary]) -> tuple[Summary, Summary] | None:
    """The lowest temperature below 1 and the highest above 1; None if one side is missing."""
    low = min(summaries, key=temperature, default=None)
    high = max(summaries, key=temperature, default=None)
    if low is None or high is None or not temperature(low) < 1 < temperature(high):
        return None
    return low, high


def slopes_sentence(summaries: Sequence[Summary]) -> str:
    """Both initial slopes in words, and how much faster the entropy falls than rises."""
    pair = opposite_temperatures(summaries)
    if pair is None:
        return ""
    low, high = pair
    up, down = high.slope.mean, low.slope.mean
    words = (
        f"{high.slope:+.4f} nats a step at T = {temperature(high):g}, {low.slope:+.4f} at "
        f"T = {temperature(low):g} (first {min(SLOPE_STEPS, low.configuration.settings.steps)} steps)"
    )
    if down < 0 < up:
        return f"{words}: falls {-down / up:.1f} times as fast as it rises"
    if down < up < 0:
        return f"{words}: falls at both, {down / up:.1f} times as fast at the low T"
    return words


def _authority(summaries: Sequence[Summary]) -> Iterator[Finding]:
    for configuration, group in _by_configuration(summaries):
        starved = [s for s in group if s.starved]
        if not starved:
            continue
        yield Finding(
            verdict="warning",
            claim=f"{configuration.title}: {SINGLE if configuration.correct == 1 else ADVICE}",
            evidence=f"one-sided in over {SATURATED_DUTY:.0%} of the steps: {_at_targets(starved, _stuck)}",
        )


def _stuck(summary: Summary) -> str:
    side = "up" if summary.saturated_up >= summary.saturated_down else "down"
    count = max(summary.saturated_up, summary.saturated_down)
    return f"{side} in {count} of {summary.seeds} seeds"
