"""What do 40 steps do for a model that is right once in fifty times? SmolLM2-135M on GSM8K, answers without steps.

The honest hard case: two short examples, then the question, and the answer is one number. Where hardly a group has
a right response, hardly a step has anything to reinforce, and a second branch finds no positives. Before and after:
pass@1 and pass@16 on test problems; GRPO, and AEPO at seven tenths of the first entropy. Fixed before the first run:
problems, seed, steps, rate and target.

    python benchmarks/gsm8k_small.py --data FOLDER     # minutes: results/gsm8k_small.json

FOLDER has gsm8k_train.jsonl and gsm8k.jsonl as their publishers ship them; without them nothing is measured.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "gsm8k_small.json"
CONFIG = ROOT / "examples" / "words" / "words.yaml"
SHOTS = """\
Question: Tom has 3 bags with 4 apples each. He eats 2 apples. How many apples are left?
Answer: 10

Question: A book costs $6 and a pen costs $2. Ann buys 2 books and 5 pens. How many dollars does she pay?
Answer: 22

"""
LONGEST = 260
"""Characters of a question: the prompts then have about 130 tokens."""
PROBLEMS, SAMPLES, STEPS = 128, 16, 40
RUNS = {
    "grpo": ("method.name=grpo",),
    "aepo, H* = 0.7 of the first entropy": (
        "method.name=aepo", "method.prompt_fraction=1", "method.t_low=0.67", "method.t_high=1.5",
        "target.relative=true", "target.value=0.7",
    ),
}  # fmt: skip


def reward(response: str, answer: str) -> float:
    """Whether the response, up to the end of its line, is the number."""
    said = re.fullmatch(r"\$?(-?\d+)(?:\.0+)?[.%]?", response.strip().replace(",", ""))
    return float(said is not None and int(said[1]) == int(answer))


def rows(file: Path) -> list[dict[str, str]]:
    """Prompts and numbers of the problems whose questions are short."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        answer = row["answer"].rsplit("####", 1)[1].strip().replace(",", "")
        if len(row["question"]) <= LONGEST and re.fullmatch(r"-?\d+", answer):
            found.append({"question": f"{SHOTS}Question: {row['question']}\nAnswer:", "answer": answer})
    return found


def written(path: Path, problems: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in problems), encoding="utf-8")
    return path


def measured(model: Path, suite: Path, out: Path) -> dict[str, float]:
    """pass@1 and pass@16 over the problems, at T = 1."""
    import pandas as pd

    subprocess.run(
        [
            sys.executable, "-m", "aepo.llm.evaluation", "--model", model, "--suite", suite, "--out", out,
            "--reward", "gsm8k_small:reward", "--mode", "pass@k", "--samples", str(SAMPLES), "--temperature", "1",
            "--top-p", "1", "--template", "raw", "--max-tokens", "8", "--stop", "\n",
        ],
        check=True,
    )  # fmt: skip
    by_problem = pd.read_parquet(out / "samples.parquet").groupby("problem").reward
    return {"pass@1": float(by_problem.mean().mean()), f"pass@{SAMPLES}": float((by_problem.max() > 0).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/math"), help="default: %(default)s")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "smollm2-135m", help="made by aepo model")
    asked = parser.parse_args()
    train, test = (asked.data / name for name in ("gsm8k_train.jsonl", "gsm8k.jsonl"))
    if not (train.exists() and test.exists()):
        print(f"{train} or {test} is not there: nothing is measured")
        return

    from aepo.llm.experiment.side_by_side import Job
    from aepo.llm.experiment.side_by_side import train as train_all
    from aepo.llm.records.recorder import read

    # Where the reward function is found.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        asked_of_all = written(out / "train.jsonl", rows(train))
        suite = written(out / "test.jsonl", rows(test)[:PROBLEMS])
        common = [f"model.path={asked.model.resolve()}", f"data.train={asked_of_all}", "data.max_prompt_tokens=400"]
        common += ["rollout.max_response_tokens=8", "reward.function=gsm8k_small:reward", f"train.steps={STEPS}"]
        common += ["seed=0", "train.threads=1", "evaluation.samples=0", "log.plot_every=0", "checkpoint.every=0"]
        jobs = {
            name: Job(
                title=name, folder=out / f"run{i}", arguments=tuple(f"--{one}" for one in (*common, *chosen))
            )
            for i, (name, chosen) in enumerate(RUNS.items())
        }  # fmt: skip
        if failed := train_all(list(jobs.values()), config=CONFIG, parallel=2, keep=False):
            raise SystemExit(failed[0].log.read_text()[-2000:])
        found: dict[str, dict[str, Any]] = {"before": measured(asked.model, suite, out / "before")}
        for name, job in jobs.items():
            steps = read(job.folder / "metrics.jsonl")
            mixed = [row["live_rows"] for row in steps if row.get("live_rows") is not None]
            found[name] = {
                **measured(job.folder / "final", suite, job.folder.with_name(f"{job.folder.name}_answers")),
                "reward": [row["reward"] for row in steps],
                "entropy": [row["entropy"] for row in steps],
                "live_rows": mixed,
            }
        report = {
            "command": "python benchmarks/gsm8k_small.py",
            "device": f"CPU, {platform.machine()}, {os.cpu_count()} cores, one thread a run",
            "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
            "weights": json.loads((asked.model / "source.json").read_text()),
            "problems": PROBLEMS,
            "found": found,
        }
        RESULT.write_text(json.dumps(report) + "\n")
    for name, one in found.items():
        print(f"{name:40} pass@1 {one['pass@1']:.3f}, pass@{SAMPLES} {one[f'pass@{SAMPLES}']:.3f}")


if __name__ == "__main__":
    main()
