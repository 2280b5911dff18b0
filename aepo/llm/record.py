"""What a run leaves: metrics as JSONL and TensorBoard, one console row a step, the entropy plot, a summary."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from aepo.llm.settings import Settings
from aepo.method import Method
from aepo.tracking import SATURATED_DUTY, duty_cycle, last_half, tracking_error

COLUMNS = (
    ("step", "step", "6d"),
    ("reward", "reward", "7.3f"),
    ("H", "entropy", "7.3f"),
    ("H*", "target", "6.3f"),
    ("|err|", "error", "6.3f"),
    ("T", "temperature", "5.2f"),
    ("clip", "clip_fraction", "6.3f"),
    ("kl", "kl", "8.5f"),
    ("|o|", "response_length", "6.1f"),
    ("grad", "grad_norm", "7.3f"),
    ("gen s", "time/generate", "6.2f"),
    ("step s", "time/step", "6.2f"),
    ("ETA", "eta", "6s"),
)
# Steps that accuracy is averaged over at the end of a run.
LAST_STEPS = 100


class Recorder:
    """Rank 0's files. A step is written once, also across an interruption."""

    def __init__(self, settings: Settings, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.out = Path(settings.out)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "settings.yaml").write_text(settings.dump())
        self.total = settings.train.steps
        self.first_step = first_step
        path = metrics_path(settings)
        kept = [row for row in read(path) if row["step"] < first_step] if path.is_file() else []
        beside = path.with_suffix(".part")
        beside.write_text("".join(json.dumps(row) + "\n" for row in kept))
        beside.rename(path)
        self.file = path.open("a")
        self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=first_step)
        self.started = time.monotonic()
        widths = (f"{name:>{int(''.join(c for c in spec.split('.')[0] if c.isdigit()))}}" for name, _, spec in COLUMNS)
        self.header = " ".join(widths)

    def write(self, row: dict[str, Any]) -> None:
        """One step's metrics, to every place."""
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self.board.add_scalar(name, value, row["step"])
        done = row["step"] - self.first_step + 1
        left = (time.monotonic() - self.started) / done * (self.total - row["step"] - 1)
        shown = {**row, "eta": f"{int(left) // 60}:{int(left) % 60:02d}"}
        if (done - 1) % 50 == 0:
            print(self.header, flush=True)
        print(
            " ".join(format(shown[key], spec if spec[-1] != "s" else f">{spec}") for _, key, spec in COLUMNS),
            flush=True,
        )

    def close(self) -> None:
        """Flush and close."""
        self.file.close()
        self.board.close()


def metrics_path(settings: Settings) -> Path:
    """The run's JSONL."""
    return Path(settings.out) / "metrics.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that was cut off is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def saturation_warning(duty_up: float, method: Method) -> str | None:
    """What to change when the controller pushed one way in over 95 % of the steps and still did not arrive."""
    if not method.controlled or 1 - SATURATED_DUTY <= duty_up <= SATURATED_DUTY:
        return None
    way, share = ("up", duty_up) if duty_up > 0.5 else ("down", 1 - duty_up)
    edge = "raise t_high" if way == "up" else "lower t_low"
    return (
        f"the controller pushed {way} in {share:.0%} of the last steps: too little authority. To give it more, "
        f"{edge}, raise alpha or the cap on positives, or sample more prompts again (prompt_fraction)"
    )


def summarize(settings: Settings, method: Method, evaluation: dict[str, float]) -> dict[str, Any]:
    """The run in numbers, from its metrics file: what the demo's table shows. Written to summary.json."""
    rows = read(metrics_path(settings))
    entropy = np.array([row["entropy"] for row in rows])
    target = np.array([row["target"] for row in rows])
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
    (Path(settings.out) / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def plot_entropy(settings: Settings, method: Method) -> None:
    """entropy.png: measured and target entropy, and the temperature below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = read(metrics_path(settings))
    step = [row["step"] for row in rows]
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), height_ratios=[3, 1], layout="constrained")
    top.plot(step, [row["entropy"] for row in rows], label="measured H")
    if method.controlled:
        top.plot(step, [row["target"] for row in rows], "k--", lw=1, label="target H*")
        bottom.step(step, [row["temperature"] for row in rows], lw=0.8, where="post")
    top.set(ylabel="entropy (nats)", title=f"{method.name} {method.label}".strip(), ylim=(0, None))
    top.legend()
    bottom.set(xlabel="step", ylabel="T")
    figure.savefig(Path(settings.out) / "entropy.png", dpi=120)
    plt.close(figure)
