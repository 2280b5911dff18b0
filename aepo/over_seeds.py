"""Means over seeds with their uncertainty, as every report of ours prints them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds and half the width of its 95 % interval (Student's t; nan for one seed)."""

    mean: float
    half_width: float

    def __format__(self, digits: str) -> str:
        spread = "" if math.isnan(self.half_width) else f" ± {self.half_width:{digits.lstrip('+')}}"
        return f"{self.mean:{digits}}{spread}"

    def as_json(self) -> dict[str, float | None]:
        """For JSON, which knows no nan."""
        return {"mean": _number(self.mean), "half_width_95": _number(self.half_width)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def estimate(values: Array) -> Estimate:
    """Mean over seeds and its t interval: (N,) -> Estimate.

    >>> f"{estimate(np.array([1.0, 2.0, 3.0])):.2f}"
    '2.00 ± 2.48'
    """
    mean, half = band(np.asarray(values, dtype=float)[:, None])
    return Estimate(mean=float(mean[0]), half_width=float(half[0]))


def band(values: Array) -> tuple[Array, Array]:
    """Mean over seeds and half the width of its 95 % t interval at every step: (N, S) -> (S,), (S,)."""
    count = len(values)
    if count == 1:
        return values[0], np.full(values.shape[1:], math.nan)
    return values.mean(0), student_t.ppf(0.975, count - 1) * values.std(0, ddof=1) / math.sqrt(count)


def draw(
    axes: "Axes", x: Array | Sequence[float], values: Array, *, label: str, colour: "ColorType | None" = None
) -> "ColorType":
    """The mean over seeds as a curve and its 95 % t interval as a band, which one seed does not have.

    With two seeds the interval is thirteen times as wide as they are apart: their own curves are drawn instead, thin.

    Args:
        axes: drawn on.
        x: of every step, (S,).
        values: (N, S).
        label: of the curve.
        colour: of both; the next of matplotlib's by default.

    Returns:
        The colour.
    """
    mean, half = band(values)
    (line,) = axes.plot(x, mean, lw=1.2, label=label, color=colour)
    if len(values) == 2:
        axes.plot(x, values.T, lw=0.6, alpha=0.4, color=line.get_color())
        return line.get_color()
    axes.fill_between(x, mean - half, mean + half, alpha=0.2, lw=0, color=line.get_color())
    return line.get_color()
