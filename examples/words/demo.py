"""The demo behind `make demo-real`: a language model of 135M weights under GRPO, AEPO at two targets and aepo_reach.

python examples/words/demo.py --seeds 2      from the checkout

Each run is the real command with words.yaml beside this file, each measurement `aepo evaluate`; what is done is not
done again, so it may be cut off at any time. Then a table and a picture: entropy, reward, and how many different words
are right among 64 answers to one prompt.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aepo import atomic, over_seeds
from aepo.llm.experiment.side_by_side import Job, train
from aepo.llm.processes import half_precision
from aepo.llm.records.recorder import read

HERE = Path(__file__).parent
CONFIG, ROWS = HERE / "words.yaml", HERE / "words.jsonl"
REWARD = "words_reward:reward"
SAMPLES = 64
"""Answers to each prompt."""
FASTER = 0.9
"""Of float32's time: below it bfloat16 is worth it."""
TARGETS = (1.5, 2.0)
REACH_TARGET = 2.0
REACH = {"speed": 0.1, "t_lowest": 0.67, "t_highest": 1.5}
"""aepo_reach's own limits and gain, but for three. By its default of 0.01 nats a step the way from 3.3 nats takes 130
steps. And temperatures stay in words.yaml's range: at 2, its default, 0 to 3 of 64 responses out of 49,152 tokens are
right, at 1.5 about 45."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run."""

    method: str
    target: float | None
    seed: int

    @property
    def curve(self) -> str:
        """What the runs over seeds share: a line of the table, a curve of the picture."""
        return self.method if self.target is None else f"{self.method} H*={self.target:g}"

    def folder(self, out: Path) -> Path:
        """Where it writes."""
        return out / f"{self.curve.replace(' ', '_').replace('*=', '')}_seed{self.seed}"

    def job(self, out: Path, *, model: Path, steps: int, dtype: str) -> Job:
        """Its command.

        Args:
            out: of the demo.
            model: the folder of the language model.
            steps: that it trains.
            dtype: of its weights.
        """
        chosen = [f"method.name={self.method}", f"seed={self.seed}", f"train.steps={steps}"]
        if self.method == "aepo_reach":
            chosen += [f"method.{name}={value}" for name, value in REACH.items()]
        if self.target is not None:
            chosen += [f"target.value={self.target}"]
        chosen += [f"model.path={model}", f"data.train={ROWS}", f"train.dtype={dtype}"]
        chosen += ["evaluation.samples=0", "log.plot_every=0"]
        return Job(
            title=f"{self.curve}, seed {self.seed}",
            folder=self.folder(out),
            arguments=tuple(f"--{one}" for one in chosen),
        )


def dtype_of(runs: Sequence[Run], out: Path) -> str:
    """Of the weights: what runs of an earlier start had; else bfloat16 where this CPU is faster in it, and float32."""
    for run in runs:
        try:
            settings = json.loads(run.job(out, model=out, steps=1, dtype="float32").record.read_text("utf-8"))
        except FileNotFoundError:
            continue
        return str(settings["settings"]["train"]["dtype"])
    return "bfloat16" if half_precision.times_slower() < FASTER else "float32"


def every_run(seeds: int) -> list[Run]:
    """Seed after seed: GRPO, AEPO at each target, aepo_reach at one."""
    return [
        Run(method=method, target=target, seed=seed)
        for seed in range(seeds)
        for method, target in [("grpo", None), *(("aepo", t) for t in TARGETS), ("aepo_reach", REACH_TARGET)]
    ]


def one_of_each_letter(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The first prompt of every letter, in the order of the alphabet."""
    first: dict[str, dict[str, str]] = {}
    for row in rows:
        first.setdefault(row["answer"], row)
    return [first[letter] for letter in sorted(first)]


def variety(samples: pd.DataFrame) -> dict[str, float]:
    """What a model answers, means over prompts.

    Args:
        samples: of an evaluation, with its columns problem, reward and response.

    Returns:
        right: share of right answers. different: right words that differ, of each prompt's answers. commonest: share
        of a prompt's right answers that its commonest one has, over prompts with a right answer.
    """
    different, commonest = [], []
    for _, one in samples.groupby("problem"):
        words = Counter(answer.split("\n")[0].strip() for answer in one.response[one.reward > 0])
        different.append(len(words))
        if words:
            commonest.append(max(words.values()) / words.total())
    return {
        "right": float((samples.reward > 0).mean()),
        "different": float(np.mean(different)),
        "commonest": float(np.mean(commonest)) if commonest else float("nan"),
    }


def _command(*arguments: object) -> None:
    """One of aepo's modules, to its end; what it says stays on the console.

    Raises:
        SystemExit: it failed.
    """
    ended = subprocess.run([sys.executable, "-m", *map(str, arguments)], check=False)
    if ended.returncode:
        raise SystemExit(ended.returncode)


def measured(model: Path, out: Path, *, letters: Path) -> dict[str, float]:
    """`variety` of a model on one prompt of each letter, by `aepo evaluate`."""
    _command(
        "aepo.llm.evaluation", "--model", model, "--suite", letters, "--reward", REWARD, "--out", out,
        "--mode", "pass@k", "--samples", SAMPLES, "--temperature", 1, "--top-p", 1,
        "--template", "raw", "--max-tokens", 6, "--stop", "\n",
    )  # fmt: skip
    return variety(pd.read_parquet(out / "samples.parquet"))


def figures(run: Run, out: Path) -> dict[str, Any]:
    """Of a run's steps: entropies in nats, the share of pushes up, the reward of the last ten steps."""
    rows = read(run.folder(out) / "metrics.jsonl")
    entropy, reward = (np.array([row[name] for row in rows], dtype=float) for name in ("entropy", "reward"))
    third = len(rows) - len(rows) // 3
    ups = [row["raise_entropy"] for row in rows[third:] if row.get("raise_entropy") is not None]
    return {
        "curve": run.curve,
        "target": run.target,
        "entropy_first": entropy[0],
        "entropy_last_third": entropy[third:].mean(),
        "error_last_third": None if run.target is None else np.abs(entropy[third:] - run.target).mean(),
        "duty_up": float(np.mean(ups)) if ups else None,
        "reward_last_10": reward[-10:].mean(),
    }


def write_table(rows: pd.DataFrame, out: Path) -> pd.DataFrame:
    """table.csv with a row per run, table.md with means over seeds; returns the latter."""
    rows.to_csv(out / "table.csv", index=False)
    columns = [name for name in rows if name not in ("curve", "seed")]
    rows = rows.assign(**{name: rows[name].astype(float) for name in columns})
    table = rows.groupby("curve", sort=False)[columns].mean().round(3).reset_index()
    header = list(table.columns)
    lines = ["| " + " | ".join(map(str, header)) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join("" if pd.isna(v) else str(v) for v in row) + " |" for row in table.to_numpy()]
    seeds = rows.seed.nunique()
    lines += [
        "",
        f"{'One seed' if seeds == 1 else f'Means over {seeds} seeds'}. Entropies in nats a token at T = 1; error: mean "
        f"|H - H*| over the last third, of which one step's eight prompts scatter by .15 to .2. right, different, "
        f"commonest: {SAMPLES} answers at T = 1 to one prompt of each letter: share of right ones, different right "
        "words, share of the commonest among the right ones. The prompts are among those that were trained on.",
    ]
    atomic.write_text(out / "table.md", "\n".join(lines) + "\n")
    return table


def plot(runs: Sequence[Run], rows: pd.DataFrame, out: Path) -> None:
    """words.png: entropy and reward over the steps, and how many different words are right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    colours = {}
    for curve in dict.fromkeys(run.curve for run in runs):
        mine = [run for run in runs if run.curve == curve]
        every = [read(run.folder(out) / "metrics.jsonl") for run in mine]
        steps = np.arange(len(every[0]))
        for axes, name in ((left, "entropy"), (middle, "reward")):
            values = np.array([[row[name] for row in one] for one in every], dtype=float)
            colours[curve] = over_seeds.draw(axes, steps, values, label=curve, colour=colours.get(curve))
        if mine[0].target is not None:
            left.axhline(mine[0].target, ls="--", lw=1, color=colours[curve])
    means = rows.groupby("curve", sort=False).different.mean()
    bars = right.bar(range(len(means)), means, color=[colours.get(curve, "grey") for curve in means.index])
    right.bar_label(bars, fmt="%.1f")
    right.set_xticks(range(len(means)), means.index, rotation=20, ha="right", fontsize=8)
    left.set(xlabel="step", ylabel="entropy (nats a token)", ylim=(0, None))
    middle.set(xlabel="step", ylabel="reward", ylim=(0, 1))
    right.set(ylabel=f"different right words of {SAMPLES}", ylim=(0, means.max() * 1.15))
    left.legend(fontsize=8)
    seeds = len({run.seed for run in runs})
    figure.suptitle(
        "SmolLM2-135M-Instruct writes words by their first letter; "
        f"{'one seed' if seeds == 1 else f'{seeds} seeds'}, targets dashed",
        fontsize=10,
    )
    figure.savefig(out / "words.png", dpi=130)
    plt.close(figure)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each method (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="of each run (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m"), help="made where it is not there")
    parser.add_argument("--out", type=Path, default=Path("runs/words_demo"), help="(default: %(default)s)")
    asked = parser.parse_args()
    if min(asked.seeds, asked.jobs) < 1 or asked.steps < 3:
        parser.error(
            f"--seeds and --jobs must be at least 1, --steps 3; got {asked.seeds}, {asked.jobs}, {asked.steps}"
        )
    began = time.monotonic()
    # Where the reward function is found by the trainer, and the evaluation.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE.resolve()), os.environ.get("PYTHONPATH")]))
    _command("aepo.llm.model", "smollm2-135m", "--out", asked.model)
    if not ROWS.exists():
        subprocess.run([sys.executable, HERE / "make_words.py", asked.model], check=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    letters = asked.out / "letters.jsonl"
    chosen = one_of_each_letter([json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()])
    atomic.write_text(letters, "".join(json.dumps(row) + "\n" for row in chosen))
    runs = every_run(asked.seeds)
    dtype = dtype_of(runs, asked.out)
    jobs = [run.job(asked.out, model=asked.model, steps=asked.steps, dtype=dtype) for run in runs]
    if failed := train(jobs, config=CONFIG, parallel=asked.jobs, keep=True):
        raise SystemExit(f"error: {len(failed)} runs failed; see {', '.join(str(job.log) for job in failed)}")
    before = measured(asked.model, asked.out / "before", letters=letters)
    rows = [{"curve": "before", "target": None, "seed": 0, **before}]
    for run in runs:
        folder = run.folder(asked.out)
        found = measured(folder / "final", folder.with_name(f"{folder.name}_answers"), letters=letters)
        rows.append({**figures(run, asked.out), "seed": run.seed, **found})
    every = pd.DataFrame(rows)
    table = write_table(every, asked.out)
    about = {
        "command": f"python examples/words/demo.py --seeds {asked.seeds} --steps {asked.steps}",
        "device": f"CPU, {platform.machine()}, {os.cpu_count()} cores, {asked.jobs} runs at a time, one thread each",
        "dtype": dtype,
        "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
        "weights": json.loads((asked.model / "source.json").read_text(encoding="utf-8")),
    }
    atomic.write_text(asked.out / "about.json", json.dumps(about, indent=1) + "\n")
    plot(runs, every, asked.out)
    print(f"\n{table.to_string(index=False)}\n")
    print(f"{len(runs)} runs in {time.monotonic() - began:.0f} s. Where to look first:")
    print(f"  {asked.out / 'words.png'}: entropy, reward, and different right words")
    print(f"  {asked.out / 'table.md'}: the figures above, and what they mean")


if __name__ == "__main__":
    main()
