"""The row that a person watches: one line of plain text a step, for a terminal of 160 columns and for grep."""

import math
from collections.abc import Mapping
from typing import Any

from aepo.llm.records.metrics import HELD_OUT, METRICS, seconds

SHOWN = tuple((metric.name, metric.column) for metric in METRICS if metric.column is not None)
"""Name and column of each metric that is shown; the seconds are this rank's."""


def header() -> str:
    """The titles above the rows."""
    return " ".join(f"{column.title:>{column.width}}" for _, column in SHOWN)


def row(metrics: Mapping[str, Any]) -> str:
    """One step's line; what was not measured, or is not a number, is a dash."""
    cells = []
    for name, column in SHOWN:
        value = metrics.get(name)
        if value is None or math.isnan(value):
            text = "-"
        else:
            text = format(value, column.form) if isinstance(column.form, str) else column.form(value)
        cells.append(f"{text:>{column.width}}")
    return " ".join(cells)


def held_out(metrics: Mapping[str, Any]) -> str:
    """The line under the row of a step that evaluates; empty for another.

    >>> held_out({"step": 20, "held_out/pass@1": 0.5, "held_out/pass@4": 0.875, "time/evaluate": 3.21})
    '  held out: pass@1 0.500, pass@4 0.875 (3.21 s)'
    """
    found = {name.removeprefix(HELD_OUT): value for name, value in metrics.items() if name.startswith(HELD_OUT)}
    if not found:
        return ""
    passed = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
    return f"  held out: {passed} ({seconds(metrics['time/evaluate'])} s)"
