"""What a run says when its controller has too little authority: as soon as the evidence is there, and what would do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aepo import zoo
from aepo.authority import FEW_PROMPTS, sufficient_alpha, sufficient_temperature
from aepo.llm.doctor.control import what_asks_more
from aepo.llm.settings import MethodSettings, Settings
from aepo.tracking import DUTY_STEPS, SATURATED_DUTY

ONE_WAY_STEPS = 20
"""Pushes one way, one after the other, that are evidence: a fair coin gives so many once in half a million times."""
HELD = 0.05
"""Mean |H - H*| in nats up to which a target counts as held."""
FEW_POSITIVES = 8
"""Right responses of a second branch below which their luck is larger than its push, as with few prompts."""
MARGIN = 1.2
"""By how much more than the balance is advised."""

# What gives a controller more authority, by the option's name: what to do with it to push up, and down.
LEVERS = {
    "t_high": ("raise", None),
    "t_low": (None, "lower"),
    "t_highest": ("raise", None),
    "t_lowest": (None, "lower"),
    "cap_up": ("raise", None),
    "cap_down": (None, "raise"),
    "high": ("raise", None),
    "low": (None, "lower"),
    "limit": ("raise", "raise"),
    "gain": ("raise", "raise"),
    "coef": ("raise", "raise"),
    "strength": ("raise", None),
    "alpha": ("raise", "raise"),
    "prompt_fraction": ("raise", "raise"),
}

HOT = ("t_high", "t_highest")
OFTEN_RIGHT = 0.25
"""Reward from which few right responses at a high temperature are the temperature's doing."""


def saturation_warning(rows: Sequence[Mapping[str, Any]], chosen: MethodSettings, *, left: int) -> str | None:
    """What to change when the controller pushes one way and does not arrive.

    The evidence is `ONE_WAY_STEPS` pushes one way in a row, or over 95 % of `DUTY_STEPS`, in which the entropy did not
    come near its target at a pace that ends before the run does.

    Args:
        rows: metrics of the last steps, at most `DUTY_STEPS`.
        chosen: the run's method; the options that the message names are its own, with the values they have.
        left: steps until the end of the run.

    Returns:
        The message, or None for a controller that is not at its limit and for a method without one.
    """
    method = chosen.build()
    if not method.controlled or not rows:
        return None
    ups = [bool(row["raise_entropy"]) for row in rows]
    in_a_row = next((i for i, up in enumerate(reversed(ups)) if up != ups[-1]), len(ups))
    duty_up = sum(ups) / len(ups)
    whole = len(ups) >= DUTY_STEPS and not 1 - SATURATED_DUTY <= duty_up <= SATURATED_DUTY
    if not whole and in_a_row < ONE_WAY_STEPS:
        return None
    seen = rows if whole else rows[-in_a_row:]
    if _arrives([row["error"] for row in seen], left=left):
        return None
    up = duty_up > 0.5 if whole else ups[-1]
    share = (
        f"{duty_up if up else 1 - duty_up:.0%} of the last {DUTY_STEPS} steps"
        if whole
        else f"{in_a_row} steps in a row"
    )
    too_hot = _too_hot(seen) if up else ""
    return (
        f"the controller pushed {'up' if up else 'down'} in {share}, and the entropy is not there: "
        f"too little authority. {too_hot}{_measured(seen, chosen, up=up)}"
        f"To give it more, {', '.join([*_levers(chosen, up=up, may_heat=not too_hot), ''])}or move the target nearer "
        "to the entropy"
    )


def _too_hot(rows: Sequence[Mapping[str, Any]]) -> str:
    """That pushes up rest on next to nothing although the model is often right: among many tokens a high temperature
    finds wrong ones. Nothing where it is not so."""
    found = [
        (row["positives"], row["temperature"], row["reward"])
        for row in rows
        if row.get("positives") is not None and row.get("reward") is not None and row["temperature"] > 1
    ]
    if not found:
        return ""
    positives, temperature, reward = np.mean(found, 0)
    if positives >= FEW_POSITIVES or reward < OFTEN_RIGHT:
        return ""
    return (
        f"At T = {temperature:.3g} it finds {positives:.1f} right responses a step, at T = 1 {reward:.0%} are right. "
    )


def _arrives(errors: Sequence[float | None], *, left: int) -> bool:
    """Whether |H - H*| is small, or falls at a pace at which it is 0 before the end."""
    known = np.array([error for error in errors if error is not None], dtype=float)
    if len(known) < 2 or known.mean() <= HELD:
        return len(known) > 0 and known.mean() <= HELD
    slope = float(np.polyfit(np.arange(len(known)), known, 1)[0])
    return slope < 0 and float(known[-1]) / -slope <= left


def _values(chosen: MethodSettings) -> dict[str, Any]:
    """The method's options as it has them."""
    method = chosen.build()
    values = {**zoo.options(chosen.name), **(chosen.model_extra or {})}
    if method.tempered is not None:
        # An option that is None stands for a number that the method itself knows.
        values |= {"cap_up": method.tempered.cap_up, "cap_down": method.tempered.cap_down}
        if method.tempered.prompt_fraction == 1:
            values["prompt_fraction"] = None
    return values


def _levers(chosen: MethodSettings, *, up: bool, may_heat: bool) -> list[str]:
    """What to do with which option; `may_heat`: whether a higher temperature may be advised for a push up."""
    values = _values(chosen)
    found = []
    for name, (to_push_up, to_push_down) in LEVERS.items():
        verb = to_push_up if up else to_push_down
        if up and not may_heat and name in HOT:
            verb = "lower"
        if verb and values.get(name) is not None:
            found.append(f"{verb} method.{name} (now {values[name]:g})")
    return found


def _measured(rows: Sequence[Mapping[str, Any]], chosen: MethodSettings, *, up: bool) -> str:
    """What the drifts of these steps say, to first order: the authority, and which alpha or temperature would do."""
    drifts = [
        (row["control/drift_main"], row["control/drift_second"])
        for row in rows
        if row.get("control/drift_main") is not None
    ]
    main, second = (sum(column) for column in zip(*drifts, strict=True)) if drifts else (0.0, 0.0)
    if not main or (main < 0) != up or second == 0 or (second > 0) != up:
        return ""
    found = -second / main
    may_heat = not (up and _too_hot(rows))
    said = f"Its part of an update moves H {found:.2f} times as far as the main part moves it the other way"
    values = _values(chosen)
    cures = []
    if found < MARGIN:
        if values.get("alpha") is not None and values.get("normalizer") != "replace":
            cures.append(f"method.alpha={sufficient_alpha(values['alpha'], found / MARGIN):.2g}")
        name = "t_high" if up else "t_low"
        if values.get(name) is not None and may_heat:
            wider = sufficient_temperature(float(rows[-1]["temperature"]), found / MARGIN)
            cures += [] if wider is None else [f"method.{name}={wider:.2g}"]
    return f"{said}{'; ' + ' or '.join(cures) + ' would suffice at this entropy' if cures else ''}. "


def ceiling_warning(settings: Settings, ceiling: float | None) -> str | None:
    """That a target lies above what right answers allow.

    Args:
        settings: of the run.
        ceiling: H of a policy that is always right and prefers no right answer, in nats; None where it is not known.

    Returns:
        The message; None where every target lies below, for a method that follows none, and for relative targets.
    """
    if ceiling is None or settings.target.relative or not settings.method.build().controlled:
        return None
    schedule = settings.target.build()
    highest = max(float(schedule(step)) for step in range(settings.train.steps))
    if highest <= ceiling:
        return None
    return (
        f"the target H* = {highest:g} lies above {ceiling:.2f} nats, the entropy of a policy that is always right and "
        "prefers no right answer: it can only be held by giving wrong ones. Lower target.value"
    )


def start_warning(row: Mapping[str, Any], settings: Settings) -> str | None:
    """What the first step shows of a second branch that is too small to hold anything.

    Args:
        row: metrics of the step.
        settings: of the run.

    Returns:
        The message; None for a method without a second branch, and where there is enough of it.
    """
    method = settings.method.build()
    if method.tempered is None or not method.controlled:
        return None
    count = settings.train.prompts_per_step
    prompts, most = method.tempered.prompt_count(count), method.tempered.most_prompts(count)
    positives = row.get("positives")
    if positives is None or (most >= FEW_PROMPTS and positives >= FEW_POSITIVES):
        return None
    return (
        f"the second branch rests on {positives} right responses to {prompts} prompt{'s' if prompts != 1 else ''} "
        f"a step: their luck moves the entropy more than the controller does. Raise {what_asks_more(settings)}"
    )
