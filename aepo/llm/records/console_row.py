"""The row that a person watches: one line of plain text a step, for a terminal of 160 columns and for grep."""

import math
from collections.abc import Mapping
from typing import Any

from aepo.llm.records.metrics import HELD_OUT, METRICS, Column, seconds

SHOWN = tuple((metric.name, metric.column) for metric in METRICS if metric.column is not None)
"""Name and column of each metric that is shown; the seconds are this rank's."""
OF_CONTROLLER = {metric.name for metric in METRICS if metric.of_controller}
"""Those that a method without a target has no column for."""


def shown(*, controlled: bool = True) -> list[tuple[str, Column]]:
    """Name and column of each metric that a method's row has."""
    return [(name, column) for name, column in SHOWN if controlled or name not in OF_CONTROLLER]


def header(*, controlled: bool = True) -> str:
    """The titles above the rows."""
    return " ".join(f"{column.title:>{column.width}}" for _, column in shown(controlled=controlled))


def row(metrics: Mapping[str, Any], *, controlled: bool = True) -> str:
    """One step's line; what was not measured, or is not a number, is a dash."""
    cells = []
    for name, column in shown(controlled=controlled):
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
