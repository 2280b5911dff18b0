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

from aepo import atomic, zoo
from aepo.llm.records import console_row
from aepo.llm.records.entropy_plot import drawn, plot_entropy
from aepo.llm.records.samples import SAMPLES_FILE, console_line, markdown
from aepo.llm.records.verl_names import aliases
from aepo.llm.records.wandb_run import WandbRun
from aepo.llm.settings import MethodSettings, Settings
from aepo.method import Method
from aepo.tracking import SATURATED_DUTY, duty_cycle, last_half, tracking_error

log = logging.getLogger("aepo")

# Steps that accuracy is averaged over at the end of a run.
LAST_STEPS = 100
# Steps that the duty cycle is taken over while a run goes on, and between warnings.
DUTY_STEPS = 50
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
        self.recent = deque((row["raise_entropy"] for row in kept), maxlen=DUTY_STEPS)
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
        self.recent.append(metrics["raise_entropy"])
        duty_up = sum(self.recent) / len(self.recent)
        row = {**metrics, "duty_up": duty_up if self.method.controlled else None}
        self.metrics.write(line(row))
        self.metrics.flush()
        self._numbers(row, step)
        self.plotted.append(drawn(row))
        self._console(row)
        if len(self.recent) == DUTY_STEPS and (step + 1) % DUTY_STEPS == 0:
            warning = saturation_warning(duty_up, self.settings.method)
            if warning:
                log.warning("%s", warning)
        every = self.settings.log.plot_every
        if every and (step + 1) % every == 0:
            self.plot()

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
            print(console_row.header(), flush=True)
        print(console_row.row({**row, "eta": left}), flush=True)
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


# What gives a controller more authority, by the option's name: what to do with it to push up, and down.
LEVERS = {
    "t_high": ("raise", None),
    "t_low": (None, "lower"),
    "cap_up": ("raise", None),
    "cap_down": (None, "raise"),
    "high": ("raise", None),
    "low": (None, "lower"),
    "limit": ("raise", "raise"),
    "gain": ("raise", "raise"),
    "coef": ("raise", "raise"),
    "strength": ("raise", None),
    "alpha": ("raise", "raise"),
    "prompt_fraction": ("raise", "raise"),
}


def saturation_warning(duty_up: float, chosen: MethodSettings) -> str | None:
    """What to change when the controller pushed one way in over 95 % of the steps and still did not arrive.

    Args:
        duty_up: share of the last steps in which it raised entropy.
        chosen: the run's method; the options that the message names are its own, with the values they have.

    Returns:
        The message, or None for a controller that is not at its limit and for a method without one.
    """
    method = chosen.build()
    if not method.controlled or 1 - SATURATED_DUTY <= duty_up <= SATURATED_DUTY:
        return None
    up = duty_up > 0.5
    values = {**zoo.options(chosen.name), **(chosen.model_extra or {})}
    if method.tempered is not None:
        # An option that is None stands for a number that the method itself knows.
        values |= {"cap_up": method.tempered.cap_up, "cap_down": method.tempered.cap_down}
        if method.tempered.prompt_fraction == 1:
            values["prompt_fraction"] = None
    levers = [
        f"{verb} method.{name} (now {values[name]:g})"
        for name, (to_push_up, to_push_down) in LEVERS.items()
        if (verb := to_push_up if up else to_push_down) and values.get(name) is not None
    ]
    return (
        f"the controller pushed {'up' if up else 'down'} in {duty_up if up else 1 - duty_up:.0%} of the last "
        f"{DUTY_STEPS} steps, and the entropy is not there: too little authority. To give it more, "
        f"{', '.join([*levers, ''])}or move the target nearer to the entropy"
    )


def summarize(settings: Settings, method: Method, evaluation: dict[str, float]) -> dict[str, Any]:
    """The run in numbers, from its metrics file: what the demo's table shows. Written to summary.json."""
    rows = read(metrics_path(settings))
    entropy = np.array([row["entropy"] for row in rows])
    # A method without a controller has none.
    target = np.array([row["target"] for row in rows], dtype=float)
    up, _ = duty_cycle(np.array([row["raise_entropy"] for row in rows]))
    summary = {
        "method": method.name,
        "label": method.label,
        "target": float(target[-1]),
        "seed": settings.seed,
        "steps": len(rows),
        "entropy_first": float(entropy[0]),
        "entropy_last": float(entropy[-1]),
        "entropy_last_half": float(last_half(entropy).mean()),
        "tracking_error": float(tracking_error(entropy, target)),
        "duty_up": float(up),
        "reward_last_100": float(np.mean([row["reward"] for row in rows[-LAST_STEPS:]])),
        **evaluation,
    }
    (Path(settings.out) / "summary.json").write_text(json.dumps(strict(summary), indent=1) + "\n")
    return summary
