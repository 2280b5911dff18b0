"""The entropy target H* as a function of the training step, in nats.

A target may be one number or, in the simulator, a tensor with one value per run.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Level = float | Tensor


class Schedule(Protocol):
    """step (counted from 0) -> H* in nats."""

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


def _positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name} must be > 0, got {value}")


SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "step": Step,
    "sinusoid": Sinusoid,
}
"""Name -> schedule, for settings and command lines."""
