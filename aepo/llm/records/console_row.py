"""The row that a person watches: one line of plain text a step, for a terminal of 160 columns and for grep."""

import math
from collections.abc import Callable, Mapping
from typing import Any


def duration(seconds: float) -> str:
    """A time to wait.

    >>> duration(75), duration(4000), duration(300000)
    ('1:15', '1:06:40', '3d 11h')
    """
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, in_day = divmod(hours, 24)
    if days:
        return f"{days}d {in_day:02d}h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def seconds(value: float) -> str:
    """A phase's time in at most five characters up to a day.

    >>> seconds(0.123), seconds(83.21), seconds(2345.6)
    ('0.12', '83.2', '2346')
    """
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 999.95 else f"{value:.0f}"


COLUMNS: tuple[tuple[str, str, int, str | Callable[[float], str]], ...] = (
    ("step", "step", 6, "d"),
    ("reward", "reward", 6, ".3f"),
    ("H", "entropy", 6, ".3f"),
    ("H*", "target", 6, ".3f"),
    ("|err|", "error", 6, ".3f"),
    ("T", "temperature", 5, ".2f"),
    ("up", "duty_up", 4, ".0%"),
    ("mism.kl", "mismatch/kl", 7, ".1e"),
    ("clip", "clip_fraction", 5, ".3f"),
    ("|o|", "response_length", 7, ".1f"),
    ("grad", "grad_norm", 6, ".3f"),
    ("tok/s", "perf/tokens_per_second", 7, ".0f"),
    ("push s", "time/push", 6, seconds),
    ("gen s", "time/generate", 6, seconds),
    ("reward s", "time/reward", 8, seconds),
    ("score s", "time/score", 7, seconds),
    ("update s", "time/update", 8, seconds),
    ("step s", "time/step", 6, seconds),
    ("GiB", "perf/memory_gib", 6, ".2f"),
    ("ETA", "eta", 8, duration),
)
"""Title, metric, width, format. T_high's share of the last steps is `up`; the seconds are this rank's."""


def header() -> str:
    """The titles above the rows."""
    return " ".join(f"{title:>{width}}" for title, _, width, _ in COLUMNS)


def row(metrics: Mapping[str, Any]) -> str:
    """One step's line; what was not measured, or is not a number, is a dash."""
    cells = []
    for _, name, width, form in COLUMNS:
        value = metrics.get(name)
        if value is None or math.isnan(value):
            text = "-"
        else:
            text = format(value, form) if isinstance(form, str) else form(value)
        cells.append(f"{text:>{width}}")
    return " ".join(cells)
