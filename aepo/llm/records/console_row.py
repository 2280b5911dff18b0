"""The row that a person watches: one line of plain text a step, for a terminal of 160 columns and for grep."""

import math
from collections.abc import Mapping
from typing import Any

from aepo.llm.records.metrics import METRICS

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
