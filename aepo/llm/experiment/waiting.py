"""What a person is told while something takes minutes: what is waited for, and until when."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

EVERY = 15.0
"""Seconds between two lines where there is no terminal: about as long as a person looks at nothing before doubting."""
SHARE = 0.05
"""Of the time so far, the least between two lines: a log of hours has as many of them in its last half as in any."""
IN_PLACE = 2.0
"""Seconds between two readings on a terminal, where the line changes in place."""


@contextlib.contextmanager
def shown(line: Callable[[], str], *, console: Console | None = None, every: float = EVERY) -> Iterator[None]:
    """Show a line for as long as the body runs: in place on a terminal, elsewhere at once and then again and again.

    Args:
        line: what to show, asked anew each time, in a thread of its own.
        console: where; standard output by default.
        every: seconds between two lines where there is no terminal; they become rarer as time passes.
    """
    console = console or Console()
    over = threading.Event()
    began = time.monotonic()

    def repeat(show: Callable[[str], object], wait: Callable[[], float]) -> None:
        while not over.wait(wait()):
            show(line())

    with contextlib.ExitStack() as stack:
        if console.is_terminal:
            # Text, not a str: rich would read [1/3] as markup. What is printed meanwhile appears above the line.
            status = stack.enter_context(console.status(Text(line())))
            arguments = (lambda text: status.update(Text(text)), lambda: IN_PLACE)
        else:
            # Not the console's print, which folds at 80 columns what goes to a file.
            show = functools.partial(print, file=console.file, flush=True)
            show(line())
            arguments = (show, lambda: max(every, SHARE * (time.monotonic() - began)))
        thread = threading.Thread(target=repeat, args=arguments, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def until(seconds: float) -> str:
    """How long something still takes, and the time of day then, such as `about 2 min left, until 14:32`."""
    left = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(10, round(seconds, -1)):.0f} s"
    return f"about {left} left, until {time.strftime('%H:%M', time.localtime(time.time() + seconds))}"


class Pace:
    """How many steps are made, and until when the rest takes at the pace since the first was seen.

    What comes before the first step, imports and building, says nothing of what a step takes.
    """

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None

    def told(self, made: int, of: int, *, before: int = 0, left: int | None = None) -> str:
        """Such as `120 of 900 steps, about 2 min left, until 14:32`.

        Args:
            made: steps.
            of: how many are to be made.
            before: of `made`, not in this time.
            left: still to come, where some of the rest never will; of - made by default.
        """
        if self.first is None and made <= before:
            return "starting"
        now = time.monotonic()
        then, already = self.first = self.first or (now, made)
        rest = (of - made if left is None else left) * (now - then) / max(1, made - already)
        return f"{made} of {of} steps" + (f", {until(rest)}" if made > already else "")


class Progress:
    """How far training runs have come, by the rows of their metrics.jsonl, and until when they take.

    Args:
        steps: of each run, by its folder.
        resumed: folders of the runs that go on: what they hold counts as made, though not in this time.
    """

    def __init__(self, steps: dict[Path, int], *, resumed: frozenset[Path] = frozenset()) -> None:
        self.steps = steps
        self.resumed = resumed
        # Whole: a file system's clock may be behind this one, by milliseconds or by the fraction of a second.
        self.began = int(time.time())
        self.before = {folder: self._rows(folder) for folder in steps}
        self.ended: dict[Path, int] = {}
        self.pace = Pace()

    def end(self, folder: Path) -> None:
        """A run has ended; its folder may be removed from now on."""
        self.ended[folder] = self._rows(folder)

    def line(self) -> str:
        """What is waited for, how much of it is done, and until when the rest takes."""
        rows = {folder: self._rows(folder) for folder in self.steps} | self.ended
        made = sum(rows.values())
        left = sum(count - rows[folder] for folder, count in self.steps.items() if folder not in self.ended)
        what = f"training {len(self.steps)} run{'s' if len(self.steps) > 1 else ''}"
        if not left:
            return f"{what}: every step is made; the last runs evaluate and save"
        of, before = sum(self.steps.values()), sum(self.before.values())
        return f"{what}: {self.pace.told(made, of, before=before, left=left)}"

    def _rows(self, folder: Path) -> int:
        path = folder / "metrics.jsonl"
        try:
            # A run that is made anew finds the rows of the one that it replaces.
            if folder not in self.resumed and path.stat().st_mtime < self.began:
                return 0
            return path.read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0
