"""Does dithered bfloat16 lose entropy as float32 does? The first ten steps of GRPO on `words`, four seeds.

The real command with examples/words/words.yaml and SmolLM2-135M at 2e-5: in float32, and in bfloat16 from dithered
masters and from masters in the middle of their rounding intervals. Runs of one seed see the same prompts. Judged before
the first run, and not changed since: the mean over seeds of the entropy after ten steps in dithered bfloat16 is to lie
within the 95 % t interval of float32's. A run that is finished is kept in the results and not repeated.

    make build/smollm2.ready && aepo model smollm2-135m --out models/smollm2-135m
    python benchmarks/dither_words.py            # a quarter of an hour on two cores: results/dither_words.json
    python benchmarks/dither_words.py verdict    # what it says
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from aepo.llm.experiment.side_by_side import Job, train
from aepo.llm.records.recorder import read
from aepo.over_seeds import estimate

ROOT = Path(__file__).parents[1]
WORDS = ROOT / "examples" / "words"
RESULT = ROOT / "benchmarks" / "results" / "dither_words.json"
SEEDS, STEPS = (0, 1, 2, 3), 11
"""The entropy of step 10 is that of the weights after ten updates."""
WAYS = {
    "float32": ("train.dtype=float32",),
    "bfloat16, dithered": ("train.dtype=bfloat16", "train.dither_masters=true"),
    "bfloat16, middle": ("train.dtype=bfloat16", "train.dither_masters=false"),
}
KEPT = ("entropy", "reward", "train/weights_changed")


def job(way: str, seed: int, *, model: Path, out: Path) -> Job:
    """One run's command."""
    chosen = [*WAYS[way], "method.name=grpo", f"seed={seed}", f"train.steps={STEPS}", "train.threads=1"]
    chosen += [f"model.path={model}", f"data.train={WORDS / 'words.jsonl'}", "checkpoint.every=0"]
    chosen += ["evaluation.samples=0", "log.plot_every=0"]
    return Job(
        title=f"{way}, seed {seed}",
        folder=out / f"{way.replace(', ', '_')}_{seed}",
        arguments=tuple(f"--{one}" for one in chosen),
    )


def run(model: Path, out: Path, parallel: int) -> None:
    """Every run that the results lack."""
    # Where the reward function is found by the trainer.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(WORDS), os.environ.get("PYTHONPATH")]))
    if not (WORDS / "words.jsonl").exists():
        subprocess.run([sys.executable, WORDS / "make_words.py", model], check=True)
    about = {
        "command": "python benchmarks/dither_words.py",
        "device": f"CPU, {platform.machine()}, {os.cpu_count()} cores, one thread a run",
        "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
        "weights": json.loads((model / "source.json").read_text()) if (model / "source.json").exists() else str(model),
    }
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {"about": about, "runs": {}}
    missing = [(way, seed) for seed in SEEDS for way in WAYS if f"{way}, seed {seed}" not in kept["runs"]]
    for first in range(0, len(missing), parallel):
        jobs = [job(way, seed, model=model, out=out) for way, seed in missing[first : first + parallel]]
        if failed := train(jobs, config=WORDS / "words.yaml", parallel=parallel, keep=False):
            raise SystemExit(f"error: see {failed[0].log}")
        for one in jobs:
            rows = read(one.folder / "metrics.jsonl")
            kept["runs"][one.title] = {name: [row.get(name) for row in rows] for name in KEPT}
        RESULT.write_text(json.dumps(kept) + "\n")


def verdict() -> None:
    """The entropy after ten steps by each way, and where dithered bfloat16 lies in float32's interval."""
    runs = json.loads(RESULT.read_text())["runs"]
    after = {way: np.array([runs[f"{way}, seed {seed}"]["entropy"][-1] for seed in SEEDS]) for way in WAYS}
    for way, values in after.items():
        rewards = np.array([runs[f"{way}, seed {seed}"]["reward"][-1] for seed in SEEDS])
        print(f"{way:20} entropy after ten steps {estimate(values):.3f}, reward {estimate(rewards):.3f}")
    exact, dithered = estimate(after["float32"]), after["bfloat16, dithered"].mean()
    inside = abs(dithered - exact.mean) <= exact.half_width
    print(f"dithered bfloat16 lies {'within' if inside else 'OUTSIDE'} float32's interval: {dithered:.3f}, {exact:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("run", "verdict"), nargs="?", default="run")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2-135m", help="made by aepo model")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    parser.add_argument("--out", type=Path, help="folder of the runs; a temporary one by default")
    asked = parser.parse_args()
    if asked.act == "run":
        with tempfile.TemporaryDirectory() as folder:
            run(asked.model.resolve(), asked.out or Path(folder), asked.jobs)
    verdict()
