"""What a run leaves: metrics and samples as JSONL, TensorBoard, W&B, one console row a step, entropy.png, a summary."""

import json
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aepo import atomic
from aepo.llm.records import console_row
from aepo.llm.records.entropy_plot import drawn, plot_entropy
from aepo.llm.records.samples import SAMPLES_FILE, console_line, markdown
from aepo.llm.records.saturation import saturation_warning, start_warning
from aepo.llm.records.verl_names import aliases
from aepo.llm.records.wandb_run import WandbRun
from aepo.llm.settings import Settings
from aepo.method import Method
from aepo.tracking import DUTY_STEPS, duty_cycle, last_half, tracking_error

log = logging.getLogger("aepo")

# Steps that accuracy is averaged over at the end of a run.
LAST_STEPS = 100
# Rows between the console's headers: about a screen.
HEADER_EVERY = 50


class Recorder:
    """Rank 0's files. A step is written once, also across an interruption.

    Args:
        settings: of the run.
        first_step: where this part of the run starts; what the files hold of later steps is cut off.
    """

    def __init__(self, settings: Settings, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.settings = settings
        self.method = settings.method.build()
        self.out = Path(settings.out)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "settings.yaml").write_text(settings.dump())
        self.first_step = first_step
        before = read(metrics_path(settings))
        kept = cut(metrics_path(settings), first_step=first_step)
        cut(samples_path(settings), first_step=first_step)
        self.plotted = [drawn(row) for row in kept]
        self.recent = deque(kept, maxlen=DUTY_STEPS)
        self.warned = first_step - DUTY_STEPS
        self.metrics, self.samples = (
            path(settings).open("a", encoding="utf-8") for path in (metrics_path, samples_path)
        )
        self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=first_step)
        self.wandb = None
        if settings.log.wandb_project is not None:
            written = max((row["step"] for row in before), default=None)
            self.wandb = WandbRun(settings, first_step=first_step, written=written)
        self.started = time.monotonic()

    def write(self, metrics: dict[str, Any]) -> None:
        """One step's metrics, to every place, with the duty cycle added; says so when the controller is saturated."""
        step = metrics["step"]
        self.recent.append(metrics)
        duty_up = None
        if self.method.controlled:
            duty_up = sum(row["raise_entropy"] for row in self.recent) / len(self.recent)
        row = {**metrics, "duty_up": duty_up}
        self.metrics.write(line(row))
        self.metrics.flush()
        self._numbers(row, step)
        self.plotted.append(drawn(row))
        self._console(row)
        self._warn(row)
        every = self.settings.log.plot_every
        if every and (step + 1) % every == 0:
            self.plot()

    def _warn(self, row: dict[str, Any]) -> None:
        """Say so when the controller cannot hold its target, at most once in `DUTY_STEPS` steps."""
        step = row["step"]
        said = start_warning(row, self.settings) if step == 0 else None
        if said is None and step - self.warned >= DUTY_STEPS:
            left = self.settings.train.steps - step - 1
            said = saturation_warning(list(self.recent), self.settings.method, left=left)
            self.warned = self.warned if said is None else step
        if said is not None:
            log.warning("%s", said)

    def _numbers(self, row: dict[str, Any], step: int) -> None:
        named = {**row, **aliases(row)} if self.settings.log.verl_names else row
        numbers = {k: v for k, v in named.items() if isinstance(v, int | float) and k != "step"}
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)
        # Its writer is a thread with a queue, which a kill -9 would take with it.
        self.board.flush()
        if self.wandb is not None:
            self.wandb.log(numbers, step=step)

    def _console(self, row: dict[str, Any]) -> None:
        done = row["step"] - self.first_step + 1
        left = (time.monotonic() - self.started) / done * (self.settings.train.steps - row["step"] - 1)
        if (done - 1) % HEADER_EVERY == 0:
            print(console_row.header(controlled=self.method.controlled), flush=True)
        print(console_row.row({**row, "eta": left}, controlled=self.method.controlled), flush=True)
        if passed := console_row.held_out(row):
            print(passed, flush=True)

    def wants_samples(self, step: int) -> bool:
        """Whether samples of this step are asked for."""
        chosen = self.settings.log
        return chosen.samples > 0 and step % chosen.samples_every == 0

    def write_samples(self, rows: Sequence[dict[str, Any]]) -> None:
        """A step's `aepo.llm.records.samples`: all to samples.jsonl and TensorBoard, one a branch to the console."""
        for row in rows:
            self.samples.write(line(row))
        self.samples.flush()
        for branch in dict.fromkeys(row["branch"] for row in rows):
            mine = [row for row in rows if row["branch"] == branch]
            self.board.add_text(f"samples/{branch}", "\n\n---\n\n".join(map(markdown, mine)), mine[0]["step"])
            # A terminal that cannot show a character is no reason to end a run.
            encoding = sys.stdout.encoding or "utf-8"
            print(console_line(mine[0]).encode(encoding, "replace").decode(encoding), flush=True)
        self.board.flush()

    def plot(self) -> None:
        """Draw entropy.png of all steps so far."""
        plot_entropy(self.out / "entropy.png", self.plotted, self.method)

    def close(self) -> None:
        """Flush and close."""
        self.metrics.close()
        self.samples.close()
        self.board.close()
        if self.wandb is not None:
            self.wandb.close()


def metrics_path(settings: Settings) -> Path:
    """The run's JSONL, a row a step."""
    return Path(settings.out) / "metrics.jsonl"


def samples_path(settings: Settings) -> Path:
    """Responses with their verdicts, a row each."""
    return Path(settings.out) / SAMPLES_FILE


def strict(values: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, which knows no nan and no infinity: numbers that are neither, also in lists, and None in their place.

    >>> strict({"target": float("nan"), "entropy": [0.5, float("inf")]})
    {'target': None, 'entropy': [0.5, None]}
    """

    def finite(value: Any) -> Any:
        if isinstance(value, list):
            return [finite(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {k: finite(v) for k, v in values.items()}


def line(row: Mapping[str, Any]) -> str:
    """A row of a JSONL file."""
    return json.dumps(strict(row), ensure_ascii=False) + "\n"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, none where there is no file; a last line without its end is left out."""
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    # A torn line may end within a character; and texts hold line ends of Unicode, which are none of JSONL's.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def cut(path: Path, *, first_step: int) -> list[dict[str, Any]]:
    """Drop a JSONL file's rows from `first_step` on, and a torn last line; returns what stays in it."""
    kept = [row for row in read(path) if row["step"] < first_step]
    atomic.write_text(path, "".join(map(line, kept)))
    return kept


def summarize(settings: Settings, method: Method, evaluation: dict[str, float]) -> dict[str, Any]:
    """The run in numbers, from its metrics file: what the demo's table shows. Written to summary.json."""
    rows = read(metrics_path(settings))
    entropy = np.array([row["entropy"] for row in rows])
    followed: dict[str, float | None] = dict.fromkeys(("target", "tracking_error", "duty_up"))
    if method.controlled:
        # null where the loop followed none yet.
        target = np.array([row["target"] for row in rows], dtype=float)
        up, _ = duty_cycle(np.array([row["raise_entropy"] for row in rows]))
        followed = {
            "target": float(target[-1]),
            "tracking_error": float(tracking_error(entropy, target)),
            "duty_up": float(up),
        }
    summary = {
        "method": method.name,
        "label": method.label,
        "target": followed["target"],
        "seed": settings.seed,
        "steps": len(rows),
        "entropy_first": float(entropy[0]),
        "entropy_last": float(entropy[-1]),
        "entropy_last_half": float(last_half(entropy).mean()),
        "tracking_error": followed["tracking_error"],
        "duty_up": followed["duty_up"],
        "reward_last_100": float(np.mean([row["reward"] for row in rows[-LAST_STEPS:]])),
        **evaluation,
    }
    (Path(settings.out) / "summary.json").write_text(json.dumps(strict(summary), indent=1) + "\n")
    return summary


def in_words(summary: Mapping[str, Any]) -> str:
    """A summary on one line, without what the run has not.

    >>> in_words({"method": "grpo", "label": "", "target": None, "entropy_last": 0.50001})
    'method grpo, entropy_last 0.5'
    """
    there = {name: value for name, value in summary.items() if value is not None and value != ""}
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in there.items())
