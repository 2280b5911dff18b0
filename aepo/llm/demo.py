"""The demo behind `make demo`: GRPO and AEPO at two targets side by side, then one picture and one table.

Each run is the real command, `deepspeed aepo/llm/train.py --config configs/demo_cpu.yaml ...`.
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from aepo import over_seeds
from aepo.errors import AepoError
from aepo.llm.experiment import arms
from aepo.llm.experiment.side_by_side import Job, train, warm_start
from aepo.llm.records.recorder import read
from aepo.llm.settings import load, presets

CONFIG = presets.find("demo_cpu")
STEPS_OF_ONE_SEED = 400
"""By then GRPO has collapsed and both targets are held on every machine that it was tried on, and three runs take about
four minutes on two cores. At step 300 one machine's GRPO still had 0.29 of its first entropy."""
STEPS_OF_MORE = 450
"""For a table of means: more of the run lies behind the way to the targets."""
OTHER_PROCESSORS = (
    "Figures of other processors differ in the second digit: rounding differs there, and steers a chaotic run."
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run of the demo."""

    method: str
    target: float
    seed: int

    @property
    def curve(self) -> str:
        """What the runs over seeds share: a line of the table, a curve of the picture."""
        return self.method if self.method == "grpo" else f"{self.method} H*={self.target:g}"

    def folder(self, out: Path) -> Path:
        """Where it writes."""
        return out / f"{self.curve.replace(' ', '_').replace('*=', '')}_seed{self.seed}"

    def job(self, out: Path, steps: int) -> Job:
        """Its command."""
        return Job(
            title=f"{self.curve}, seed {self.seed}",
            folder=self.folder(out),
            arguments=(
                f"--method.name={self.method}", f"--target.value={self.target}", f"--seed={self.seed}",
                f"--train.steps={steps}",
            ),
        )  # fmt: skip


def every_run(seeds: int, levels: Sequence[float]) -> list[Run]:
    """GRPO, and AEPO at each level, on each seed."""
    return [
        Run(method=method, target=target, seed=seed)
        for seed in range(seeds)
        for method, target in [("grpo", levels[0]), *(("aepo", level) for level in levels)]
    ]


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(help="Seeds per method.", min=1)] = 1,
    targets: Annotated[str, typer.Option(help="AEPO's entropy targets in nats.")] = "0.5,1.0",
    jobs: Annotated[
        int | None,
        typer.Option(help="Runs at the same time. Default: those of a seed, or as many as there are cores.", min=1),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help=f"Training steps of each run. Default: {STEPS_OF_ONE_SEED} with one seed, {STEPS_OF_MORE} with more.",
            min=2,
        ),
    ] = None,
) -> None:
    """Train GRPO and AEPO at two targets on the CPU and show their entropies (Fig. 4 in small)."""
    try:
        levels = arms.levels(targets)
    except AepoError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    runs = every_run(seeds, levels)
    steps = steps or (STEPS_OF_ONE_SEED if seeds == 1 else STEPS_OF_MORE)
    # A run computes in one thread. Three on two cores, each for 2/3 of the time, end before two and then one alone.
    jobs = jobs or max(1 + len(levels), len(os.sched_getaffinity(0)))
    began = time.monotonic()
    warm_start(CONFIG)
    failed = train([run.job(out, steps) for run in runs], config=CONFIG, parallel=jobs, keep=False)
    if failed:
        print(f"error: {len(failed)} runs failed; see {', '.join(str(job.log) for job in failed)}", file=sys.stderr)
        raise typer.Exit(1)
    table = write_table(runs, out)
    plot(runs, out)
    print(f"\n{table.to_string(index=False)}\n{OTHER_PROCESSORS}")
    print(f"\n{len(runs)} runs of {steps} steps in {time.monotonic() - began:.0f} s. Where to look first:")
    for path, meaning in (
        (out / "entropy.png", "the entropies over training, the targets dashed"),
        (out / "table.md", "the figures above, and what they mean"),
        (runs[-1].folder(out) / "metrics.jsonl", f"{runs[-1].curve}, a row per step; every run has one"),
    ):
        print(f"  {path}: {meaning}")


def summaries(runs: Sequence[Run], out: Path) -> pd.DataFrame:
    """One row per run, from the runs' summary.json."""
    return pd.DataFrame(
        [{"curve": run.curve, **json.loads((run.folder(out) / "summary.json").read_text())} for run in runs]
    )


def write_table(runs: Sequence[Run], out: Path) -> pd.DataFrame:
    """table.csv with a row per run, table.md with means over seeds; returns the latter."""
    every = summaries(runs, out)
    every.to_csv(out / "table.csv", index=False)
    passes = [name for name in every if str(name).startswith("pass@")]
    columns = [
        "entropy_first",
        "entropy_last",
        "entropy_last_half",
        "tracking_error",
        "duty_up",
        "reward_last_100",
        *passes,
    ]
    # What a run has not is None, and a column of such alone is none of numbers.
    every[columns] = every[columns].astype(float)
    table = every.groupby("curve", sort=False)[columns].mean().round(3).reset_index()
    table.insert(1, "normalizer", [every[every.curve == c].label.iloc[0] or "-" for c in table.curve])
    table.insert(1, "target", [every[every.curve == c].target.iloc[0] for c in table.curve])
    is_grpo = table.curve == "grpo"
    table["curve"] = [every[every.curve == c].method.iloc[0] for c in table.curve]
    table = table.rename(columns={"curve": "method"})
    # GRPO follows no target.
    table.loc[is_grpo, ["target", "tracking_error", "duty_up"]] = np.nan
    header = list(table.columns)
    lines = ["| " + " | ".join(map(str, header)) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join("" if pd.isna(v) else str(v) for v in row) + " |" for row in table.to_numpy()]
    notes = (
        f"\n{_seeds(runs)}. Entropies in nats; entropy_last_half and tracking_error (mean |H - H*|) over the last "
        "half of the run, reward over its last 100 steps, pass@k unbiased on held-out prompts at T = 1. duty_up: "
        "share of the last half in which the controller raised entropy; near 0 or 1 means too little authority.\n\n"
        f"{OTHER_PROCESSORS}\n"
    )
    (out / "table.md").write_text("\n".join(lines) + "\n" + notes)
    return table


def _seeds(runs: Sequence[Run]) -> str:
    """What a table's figures and a picture's curves are of."""
    count = len({run.seed for run in runs})
    return f"Means over {count} seeds" if count > 1 else "One seed"


def plot(runs: Sequence[Run], out: Path) -> None:
    """entropy.png: mean and 95 % t interval over seeds of every curve, targets dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for curve in dict.fromkeys(run.curve for run in runs):
        mine = [run for run in runs if run.curve == curve]
        rows = [read(run.folder(out) / "metrics.jsonl") for run in mine]
        entropy = np.array([[row["entropy"] for row in one] for one in rows])
        colour = over_seeds.draw(axes, np.arange(entropy.shape[1]), entropy, label=curve)
        if curve != "grpo":
            axes.axhline(mine[0].target, ls="--", lw=1, color=colour)
    label = next((r["label"] for r in summaries(runs, out).to_dict("records") if r["label"]), "")
    # The temperatures are the preset's, so that a changed preset never leaves a wrong title.
    controller = load(CONFIG).method.build().controller
    # One seed has no interval.
    intervals = " and their 95 % t intervals" if len({run.seed for run in runs}) > 1 else ""
    axes.set(xlabel="step", ylabel="entropy (nats)", ylim=(0, None))
    axes.set_title(f"Walk task, tiny Qwen3; {_seeds(runs).lower()}{intervals}\nAEPO: {controller}, {label}", fontsize=9)
    axes.legend()
    figure.savefig(out / "entropy.png", dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    typer.run(main)
