"""How much of a language model's tracking error is the noise of one step, which no controller could take away?

The demo's run (configs/demo_cpu.yaml) is trained, and at some states of its last half a training step is made over and
over from the same weights and optimizer, with fresh sampling seeds, once for each control that the method's controller
may decide on. The entropies that the next step measures give the floor (`aepo.theory.estimated_floor`); the run's own
error over it is at least 1, up to the estimates' noise. In one process; training goes on from each state as if nothing
had been measured there. Three minutes on a CPU.

The next step's entropy is measured on that step's own prompts, which a controller could know, and on as many others,
drawn anew for each resample: what comes looks like that to a controller that sees entropies alone
(`floor_order_unknown`).

    python benchmarks/floor_demo.py
    python benchmarks/floor_demo.py --states 4 --resamples 8 --method.name=aepo_pi --method.alpha=1

What follows the two sizes are the trainer's arguments.
"""

import argparse
import dataclasses
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aepo.controller import Held, Loop
from aepo.llm import seeds
from aepo.llm.checkpoints import checkpoint
from aepo.llm.demo import CONFIG, STEPS_OF_ONE_SEED
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper, init_distributed
from aepo.llm.processes.ports import free_port
from aepo.llm.settings import Settings, load
from aepo.llm.train import train_step
from aepo.llm.trainer import Request, Trainer, build
from aepo.tabular.floor import CONTROLS, floor_states
from aepo.theory import estimated_floor
from aepo.tracking import tracking_error

RESULT = Path(__file__).parent / "results" / "floor_demo.json"
STATES, RESAMPLES = 8, 16
"""Of the run's last half; of each state under each control."""


@dataclass(frozen=True, kw_only=True)
class Resampled(Trainer):
    """A run's trainer with noise of its own: what is sampled has other seeds, what is asked is the same."""

    of: Trainer

    @classmethod
    def from_run(cls, trainer: Trainer, held: Held, *, noise: int) -> "Resampled":
        """
        Args:
            trainer: of the run; weights and engine are its own.
            held: what the controller does.
            noise: seed of the samples.
        """
        parts = {field.name: getattr(trainer, field.name) for field in dataclasses.fields(Trainer)}
        settings = trainer.settings.model_copy(update={"seed": noise})
        method = dataclasses.replace(trainer.method, controller=held)
        return cls(**parts | {"settings": settings, "method": method}, of=trainer)

    def prompts(self, step: int) -> np.ndarray:
        return self.of.prompts(step)


def next_entropies(trainer: Trainer, *, step: int) -> list[float]:
    """H as the next step measures it, on its own prompts and on others, after one step from the policy as it is."""
    method = trainer.method
    loop, _ = train_step(trainer, Loop.start(method.controller, torch.zeros(())), step=step)
    trainer.phases.begin(step + 1)
    trainer.push()
    temperature = 1.0 if method.main_temperature is None else float(method.main_temperature(loop.state))
    own = trainer.prompts(step + 1)
    drawn = np.random.default_rng(trainer.settings.seed).choice(trainer.task.train, len(own), replace=False)
    asked = [
        Request(branch=branch, prompts=prompts, temperature=temperature)
        for branch, prompts in (("main", own), ("other prompts", drawn))
    ]
    graded = trainer.rollouts(step + 1, *asked)
    trainer.rest()
    return [float(one.rollouts.mean_entropy()) for one in graded]


def entropies(trainer: Trainer, stepper: DeepSpeedStepper, loop: Loop, *, step: int, resamples: int) -> np.ndarray:
    """(2, U, M): `next_entropies` under each control with fresh noise; the policy is as it was before.

    Samples of one number have the same noise under every control.
    """
    reached = checkpoint.Progress(step=step, loop=loop)
    checkpoint.save(trainer.settings, trainer.policy, stepper, reached)
    folder = checkpoint.newest(trainer.settings)
    assert folder is not None
    allowed = trainer.method.controls(CONTROLS)
    found = np.empty((2, len(allowed.temperature), resamples))
    for control, sample in np.ndindex(*found.shape[1:]):
        one = allowed.chosen(torch.tensor(control))
        # As the trainer's own controls are: one number in single precision each.
        numbers = {name: getattr(one, name) for name in ("temperature", "push", "prompt_fraction")}
        single = {name: value.float() for name, value in numbers.items() if value is not None}
        held = Held(control=dataclasses.replace(one, **single))
        noise = seeds.number(trainer.settings.seed, "floor", step, sample)
        checkpoint.restore(folder, trainer.policy, stepper)
        found[:, control, sample] = next_entropies(Resampled.from_run(trainer, held, noise=noise), step=step)
    checkpoint.restore(folder, trainer.policy, stepper)
    return found


def measured(settings: Settings, *, states: int, resamples: int) -> dict[str, Any]:
    """The run's entropies and errors, and its floors at some states of its last half."""
    trainer, stepper = build(settings)
    chosen = floor_states(settings.train.steps, states)
    loop = Loop.start(trainer.method.controller, torch.zeros(()))
    rows, floors = [], []
    try:
        for step in range(settings.train.steps):
            if step in chosen:
                values = entropies(trainer, stepper, loop, step=step, resamples=resamples)
                low, high = estimated_floor(values)
                floors.append(
                    {
                        "step": step,
                        "floor": high[0],
                        "floor_low": low[0],
                        "floor_order_unknown": high[1],
                        "entropies": values[0].round(5).tolist(),
                    }
                )
                print(f"step {step}: floor {low[0]:.4f} to {high[0]:.4f} nats", file=sys.stderr, flush=True)
            loop, record = train_step(trainer, loop, step=step)
            rows.append([record.metrics["entropy"], record.metrics["target"]])
    finally:
        trainer.close()
    entropy, target = np.array(rows).T
    error = float(tracking_error(entropy, target))
    means = {
        name: float(np.mean([one[name] for one in floors])) for name in ("floor", "floor_low", "floor_order_unknown")
    }
    allowed = trainer.method.controls(CONTROLS)
    return {
        "method": trainer.method.name,
        "label": trainer.method.label,
        "controls": [
            {"temperature": t, "strength": s, "raise_entropy": up}
            for t, s, up in zip(
                allowed.temperature.tolist(), allowed.strength.tolist(), allowed.raise_entropy.tolist(), strict=True
            )
        ],
        "target": float(target[-1]),
        "tracking_error": error,
        **means,
        "error_over_floor": error / means["floor"],
        "resamples": resamples,
        "states": floors,
        "entropy": entropy.round(5).tolist(),
    }


def alone() -> None:
    """Say where ranks meet, as a launcher does, for a group of this process alone."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    torch.set_num_threads(1)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=STATES, help="of the last half of the run")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of each state under each control")
    parser.add_argument("--result", type=Path, default=RESULT, help="the file that is written")
    typed = sys.argv[1:] if argv is None else argv
    own, rest = parser.parse_known_args(typed)
    began = time.monotonic()
    alone()
    with tempfile.TemporaryDirectory() as folder:
        asked = [f"train.steps={STEPS_OF_ONE_SEED}", *(argument.removeprefix("--") for argument in rest)]
        settings = load(CONFIG, [*asked, f"out={folder}"])
        init_distributed(settings.watchdog.longest)
        found = measured(settings, states=own.states, resamples=own.resamples)
    gpu = torch.cuda.is_available()
    about = {
        "command": shlex.join(["python", "benchmarks/floor_demo.py", *typed]),
        "seconds": round(time.monotonic() - began),
        "device": torch.cuda.get_device_name() if gpu else f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        "versions": {name: version(name) for name in ("torch", "transformers", "deepspeed")},
        "steps": settings.train.steps,
    }
    own.result.write_text(json.dumps(about | found, indent=1) + "\n")
    shown = {name: value for name, value in (about | found).items() if name not in ("states", "entropy")}
    print(json.dumps(shown))


if __name__ == "__main__":
    main()
