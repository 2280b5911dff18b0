"""A number as a function of the training step: the entropy target H*, in nats, or a bonus's coefficient.

A target may be one number or, in the simulator, a tensor with one value per run.
"""

import bisect
import csv
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from torch import Tensor

Level = float | Tensor


class Schedule(Protocol):
    """step (counted from 0) -> H* in nats, or whatever number moves."""

    def __call__(self, step: int) -> Level: ...


@dataclass(frozen=True, eq=False)
class Constant:
    """H* = value at every step (the paper's experiments).

    >>> Constant(0.5)(1000)
    0.5
    """

    value: Level

    def __call__(self, step: int) -> Level:
        return self.value


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """From `start` to `end` in `steps` steps, then constant.

    >>> [Linear(start=1.0, end=0.5, steps=10)(k) for k in (0, 5, 10, 99)]
    [1.0, 0.75, 0.5, 0.5]
    """

    start: Level
    end: Level
    steps: int

    def __post_init__(self) -> None:
        _positive("steps", self.steps)

    def __call__(self, step: int) -> Level:
        return self.start + (self.end - self.start) * min(step / self.steps, 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cosine:
    """From `start` to `end` in `steps` steps along half a cosine, then constant.

    >>> [round(Cosine(start=1.0, end=0.0, steps=10)(k), 3) for k in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """

    start: Level
    end: Level
    steps: int

    def __post_init__(self) -> None:
        _positive("steps", self.steps)

    def __call__(self, step: int) -> Level:
        done = (1 - math.cos(math.pi * min(step / self.steps, 1.0))) / 2
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """`before` until step `at`, `after` from there on.

    >>> [Step(before=1.0, after=0.25, at=3)(k) for k in (2, 3)]
    [1.0, 0.25]
    """

    before: Level
    after: Level
    at: int

    def __call__(self, step: int) -> Level:
        return self.before if step < self.at else self.after


@dataclass(frozen=True, kw_only=True, eq=False)
class Sinusoid:
    """`mean` + `amplitude` sin(2 pi step / period).

    >>> round(Sinusoid(mean=0.75, amplitude=0.25, period=100)(25), 3)
    1.0
    """

    mean: Level
    amplitude: Level
    period: float

    def __post_init__(self) -> None:
        _positive("period", self.period)

    def __call__(self, step: int) -> Level:
        return self.mean + self.amplitude * math.sin(2 * math.pi * step / self.period)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stairs:
    """From `start` to `end` in `stairs` equal jumps, one each `every` steps, then constant.

    >>> [Stairs(start=1.0, end=0.5, stairs=2, every=10)(k) for k in (9, 10, 20, 99)]
    [1.0, 0.75, 0.5, 0.5]
    """

    start: Level
    end: Level
    stairs: int
    every: int

    def __post_init__(self) -> None:
        _positive("stairs", self.stairs)
        _positive("every", self.every)

    def __call__(self, step: int) -> Level:
        return self.start + (self.end - self.start) * min(step // self.every, self.stairs) / self.stairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Csv:
    """Straight lines between the points of a CSV file with the columns `step` and `target`; constant beyond its ends.

    Raises:
        ValueError: no such file, a missing column, a value that is no number, or steps that do not increase.
    """

    path: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "_points", _points(self.path))

    def __call__(self, step: int) -> Level:
        steps, levels = self._points  # type: ignore[attr-defined]
        right = bisect.bisect_right(steps, step)
        if right == 0:
            return levels[0]
        if right == len(steps):
            return levels[-1]
        share = (step - steps[right - 1]) / (steps[right] - steps[right - 1])
        return levels[right - 1] + share * (levels[right] - levels[right - 1])


def _points(path: str) -> tuple[list[float], list[float]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ValueError(f"target file {path!r} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"target file {path!r} is no CSV file in UTF-8: {error}") from error
    if not rows or not {"step", "target"} <= rows[0].keys():
        raise ValueError(f"target file {path!r} needs a head line with the columns step and target, and a row below it")
    steps, levels = [], []
    for line, row in enumerate(rows, 2):
        try:
            steps.append(float(row["step"]))
            levels.append(float(row["target"]))
        except (TypeError, ValueError):
            raise ValueError(
                f"target file {path!r}, line {line}: step and target must be numbers, got {row['step']!r}, "
                f"{row['target']!r}"
            ) from None
    if not all(map(math.isfinite, steps + levels)):
        raise ValueError(f"target file {path!r}: step and target must be finite numbers")
    if any(after <= before for before, after in itertools.pairwise(steps)):
        raise ValueError(f"target file {path!r}: steps must increase from line to line")
    return steps, levels


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} must be > 0, got {value}")


SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "step": Step,
    "stairs": Stairs,
    "sinusoid": Sinusoid,
    "csv": Csv,
}
"""Name -> schedule, for settings and command lines."""


def named(name: str, arguments: Mapping[str, Any]) -> Schedule:
    """The schedule of that name with these arguments.

    Raises:
        ValueError: an unknown name, an argument that the schedule does not take, or a value that it refuses.

    >>> named("linear", {"start": 1.0, "end": 0.5, "steps": 10})(5)
    0.75
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    try:
        return SCHEDULES[name](**arguments)
    except TypeError as error:
        fields = ", ".join(SCHEDULES[name].__dataclass_fields__)
        raise ValueError(f"schedule {name!r} takes {fields}: {error}") from error


Change = Literal["constant", "linear", "cosine", "step"]
"""How a number gets from one value to another: a name in `changing`."""
CHANGES: tuple[Change, ...] = get_args(Change)


def changing(change: str, *, start: float, end: float, steps: int) -> Schedule:
    """The schedule from `start` to `end` of the given form.

    Args:
        change: `constant` stays at `start`; `linear` and `cosine` arrive at `end` after `steps` steps; `step` jumps
            there at step `steps`.
        start, end: values.
        steps: > 0.

    Raises:
        ValueError: another form, or steps <= 0.

    >>> [round(changing(change, start=0.1, end=0.0, steps=10)(5), 3) for change in CHANGES]
    [0.1, 0.05, 0.05, 0.1]
    """
    _positive("steps", steps)
    forms: dict[str, Schedule] = {
        "constant": Constant(start),
        "linear": Linear(start=start, end=end, steps=steps),
        "cosine": Cosine(start=start, end=end, steps=steps),
        "step": Step(before=start, after=end, at=steps),
    }
    if change not in forms:
        raise ValueError(f"schedule must be one of {', '.join(forms)}, got {change!r}")
    return forms[change]
