"""What a sweep shows while it runs, and the scoreboard at its end."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from aepo.tabular.reporting.findings import Finding
from aepo.tabular.reporting.report import COLUMNS, row
from aepo.tabular.reporting.summary import Summary

# Columns whose heads take two lines, or the methods' names would have no room.
LONG = ("mean |H - H*|", "error / floor")
STYLES = {"holds": "green", "fails": "red", "warning": "yellow"}


@contextlib.contextmanager
def progress(console: Console, *, total: float) -> Iterator[Callable[[float], None]]:
    """A bar with the time left; yields the function that moves it."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)
        yield lambda amount: bar.advance(task, amount)


def show(console: Console, summaries: Sequence[Summary], found: Sequence[Finding]) -> None:
    """The scoreboard and every finding."""
    # A narrow terminal has no room for the experiment and the start.
    hidden = {COLUMNS.index("experiment"), COLUMNS.index("H start")}
    table = Table(title="entropies in nats, means over seeds; intervals are in report.md")
    for index, name in enumerate(COLUMNS):
        if index not in hidden:
            number = index > COLUMNS.index("method")
            table.add_column(name, justify="right" if number else "left", no_wrap=number and name not in LONG)
    before = None
    for summary in summaries:
        cells = list(row(summary, spread=False))
        if summary.configuration == before:
            cells[COLUMNS.index("method")] = ""
        elif before is not None:
            table.add_section()
        before = summary.configuration
        table.add_row(*(Text(cell) for index, cell in enumerate(cells) if index not in hidden))
    console.print(table)
    for one in found:
        console.print(
            Text.assemble((f"{one.verdict:8}", STYLES[one.verdict]), f" {one.claim}. ", (one.evidence, "dim"))
        )
