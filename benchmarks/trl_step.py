"""What does a step cost in TRL's trainer under our methods, beside TRL's own GRPO and our own trainer?

Walk task, the demo's warm model, 64 prompts x 8 responses, one optimizer step a generation, AdamW, one thread. Every
way trains a few steps in a process of its own, in turn, several rounds in one run; the table has the medians of the
seconds between the ends of steps. The ceiling is TRL's own GRPO, which neither scores responses before the update nor
samples a second branch.

    python benchmarks/trl_step.py             # about ten minutes on a quiet machine: results/trl_step.json
    python benchmarks/trl_step.py --rounds 1 --steps 3
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# Before trl is imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

import torch
from transformers import TrainerCallback
from trl_walk import ROWS_OF_A_PROMPT, trainer

from aepo.llm import train
from aepo.llm.processes.ports import free_port
from aepo.llm.settings import load

RESULT = Path(__file__).parent / "results" / "trl_step.json"
PROMPTS, TARGET = 64, 1.0
WAYS = {
    "TRL, its own GRPO": ("trl", None),
    "TRL, grpo": ("trl", "grpo"),
    "TRL, aepo": ("trl", "aepo"),
    "ours, grpo": ("ours", "grpo"),
    "ours, aepo": ("ours", "aepo"),
}
PACKAGES = ("torch", "transformers", "trl", "accelerate", "deepspeed")
BASELINE, LIMIT = "TRL, its own GRPO", 1.15
"""What grpo in TRL's trainer may cost of TRL's own: the pass that H is measured by, less what dead rows save."""


class Clock(TrainerCallback):
    """The time at the end of every step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_, **__) -> None:
        self.times.append(time.perf_counter())


def seconds(way: str, *, steps: int) -> list[float]:
    """Seconds of each of `steps` steps after a first one, which warms up."""
    world, method = WAYS[way]
    clock = Clock()
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        # The demo's own options for AEPO are left out, so that both trainers have the method's defaults.
        asked = [f"out={out}/run", "log.plot_every=0", "checkpoint.every=0", "train.minibatches=1"]
        asked += [f"train.prompts_per_step={PROMPTS}", f"train.steps={steps + 1}", f"target.value={TARGET}"]
        settings = load("demo_cpu", [*asked, "evaluation.samples=1", "evaluation.ks=[1]"])
        assert settings.rollout.group_size == ROWS_OF_A_PROMPT
        chosen = settings.method.model_extra if method == "aepo" else {}
        if world == "trl":
            own = {} if method != "aepo" else {"target": TARGET, "method_options": dict(chosen)}
            made = trainer(settings, method, steps=steps + 1, prompts_per_step=PROMPTS, output_dir=out, **own)
            made.add_callback(clock)
            made.train()
        else:
            if method != "aepo":
                settings = settings.model_copy(update={"method": type(settings.method)(name=method)})
            # What a launcher would set; TRL's trainer takes it for a group of ranks.
            alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
            os.environ |= alone | {"MASTER_PORT": str(free_port())}
            train.run(settings, on_step=lambda record: clock.on_step_end())
            torch.distributed.destroy_process_group()
    return [after - before for before, after in zip(clock.times[:-1], clock.times[1:], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10, help="of every way in every round, after one that warms up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.way:
        print(json.dumps(seconds(chosen.way, steps=chosen.steps)))
        return
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(chosen.rounds):
        for way, times in found.items():
            command = [sys.executable, __file__, "--way", way, *sys.argv[1:]]
            environment = os.environ | {"OMP_NUM_THREADS": str(chosen.threads)}
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            times += json.loads(done.stdout.splitlines()[-1])
            print(f"round {number + 1} of {chosen.rounds}: {way} {statistics.median(times):.3f} s", flush=True)
    median = {way: statistics.median(times) for way, times in found.items()}
    base = median[BASELINE]
    print(f"{'':20}{'s a step':>10}{'x':>7}{'quartiles':>16}")
    for way, value in median.items():
        low, _, high = statistics.quantiles(found[way], n=4)
        print(f"{way:20}{value:10.3f}{value / base:7.2f}{low:9.3f}{high:7.3f}")
    ratio = median["TRL, grpo"] / base
    print(f"grpo in TRL's trainer is {ratio:.2f} times TRL's own, at most {LIMIT} is due")
    chosen.out.write_text(
        json.dumps(
            {
                "command": "python benchmarks/trl_step.py",
                "device": f"CPU, {platform.machine()}, {chosen.threads} threads",
                "python": platform.python_version(),
                "versions": {name: version(name) for name in PACKAGES},
                "prompts": PROMPTS,
                "responses_a_prompt": ROWS_OF_A_PROMPT,
                "rounds": chosen.rounds,
                "steps": chosen.steps,
                "median_seconds_a_step": median,
                "of_trls_own_grpo": {way: value / base for way, value in median.items()},
                "seconds": found,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
