"""Are moving targets followed as the theory of the loop says? Bang-bang and the adaptive controllers, three targets.

For each case, eps and B are the 5 % and 95 % quantiles of a step towards the target on calibration seeds; on other
seeds it is counted how many steps end within B + delta of the target (for the stair, those after the hitting time of
each jump). Where eps > delta the hypotheses of `aepo.theory.moving_target_bound` hold but for one step in ten. The
least mean and the largest mean square of a step, over ten bins of the error that it starts from, give
`aepo.theory.noise_error_bound`, whose hypothesis is a mean above delta.

    python benchmarks/moving_targets.py            # minutes: results/moving_targets.json
"""

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from aepo import zoo
from aepo.schedule import Level, Linear, Schedule, Sinusoid
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.environments import ENVIRONMENTS
from aepo.theory import moving_target_bound, moving_target_hitting_time, noise_error_bound

ROOT = Path(__file__).parents[1]
STEPS = 1000
CALIBRATION, SEEDS = range(6000, 6016), range(6100, 6116)
Array = np.ndarray


@dataclass(frozen=True)
class Stair:
    """Equal stairs from one level to another."""

    start: float
    end: float
    stairs: int
    every: int

    def __call__(self, step: int) -> Level:
        done = min(step // self.every, self.stairs)
        return self.start + (self.end - self.start) * done / self.stairs


TARGETS: dict[str, Schedule] = {
    "linear": Linear(start=1.0, end=0.5, steps=STEPS),
    "sinusoid": Sinusoid(mean=0.75, amplitude=0.2, period=500),
    "stair": Stair(start=1.0, end=0.4, stairs=3, every=250),
}
METHODS = {
    "aepo, alpha 1, T 0.8/1.2": zoo.build("aepo", alpha=1.0),
    "aepo, alpha 4, T 0.8/1.2": zoo.build("aepo", alpha=4.0),
    "aepo, alpha 4, T 0.5/2": zoo.build("aepo", alpha=4.0, t_low=0.5, t_high=2.0),
    "reweighting, bang-bang": zoo.build("reweighting", gain=1e3, rate=0.0),
    "aepo_adaptive": zoo.build("aepo_adaptive"),
    "aepo_reach": zoo.build("aepo_reach"),
}
WORLDS = ("bandit", "env_a")


def runs(world: str, method: str, target: str, seeds: Sequence[int]) -> tuple[Array, Array]:
    """Entropies (seeds, STEPS) and the target (STEPS,)."""
    environment = ENVIRONMENTS[world]
    settings = Settings(**{**vars(environment.settings), "steps": STEPS})
    history = train(environment.build(seeds), METHODS[method], TARGETS[target], list(seeds), settings)
    return history.entropy.numpy(), history.target[0].numpy()


def towards(entropy: Array, target: Array) -> Array:
    """(seeds, STEPS - 1): by how much each step moved the entropy towards the target of that step."""
    up = np.where(entropy < target, 1.0, -1.0)[:, :-1]
    return up * np.diff(entropy, axis=1)


def by_error(entropy: Array, target: Array, step: Array) -> tuple[float, float]:
    """The least mean and the largest root mean square of a step, over ten bins of the error that it started from."""
    error = (entropy - target)[:, :-1].ravel()
    edges = np.quantile(error, np.linspace(0, 1, 11)[1:-1])
    parts = [step.ravel()[np.searchsorted(edges, error) == i] for i in range(10)]
    return min(float(part.mean()) for part in parts), max(float(np.sqrt((part**2).mean())) for part in parts)


def judged(world: str, method: str, target: str) -> dict[str, object]:
    """One case: what was measured of its steps, what follows from it, and what other seeds did."""
    entropy, goal = runs(world, method, target, CALIBRATION)
    step = towards(entropy, goal)
    eps, largest = (float(q) for q in np.quantile(step, [0.05, 0.95]))
    mean, root = by_error(entropy, goal, step)
    moved = np.abs(np.diff(goal))
    # A stair stands still but for its jumps, after each of which the loop starts anew.
    starts = [0, *(np.flatnonzero(moved > 1e-9) + 1)] if target == "stair" else [0]
    delta = 0.0 if target == "stair" else float(moved.max())
    entropy, goal = runs(world, method, target, SEEDS)
    error = np.abs(entropy - goal)
    ends = [*starts[1:], STEPS]
    counted, arrived, bounded, total, predicted = [], [], [], [], []
    for start, end in zip(starts, ends, strict=True):
        part = error[:, start:end]
        after = moving_target_hitting_time(part[:, 0], authority=eps, step=largest, speed=delta) if eps > delta else 0.0
        past = np.arange(end - start) >= np.broadcast_to(after, len(part))[:, None]
        inside = part <= largest + delta
        counted.append(inside[past])
        arrived.append(inside[np.maximum.accumulate(inside, axis=1)])
        bound = moving_target_bound(
            part[:, :1], np.arange(end - start), authority=max(eps, 1e-12), step=largest, speed=delta
        )
        bounded.append((part <= bound).ravel() if eps > delta else np.empty(0))
        total.append(part.mean(1))
        predicted.append(
            noise_error_bound(part[:, 0], end - start, authority=max(mean, 1e-12), step=root, speed=delta)
            if mean > delta
            else np.full(len(part), np.nan)
        )
    within, since, steps = (np.concatenate(parts) for parts in (counted, arrived, bounded))
    return {
        "eps": eps, "B": largest, "delta": delta, "mean_step": mean, "root_mean_square_step": root,
        "moving_hypothesis": eps > delta, "within_B_plus_delta": float(within.mean()),
        "within_since_it_first_was": float(since.mean()) if len(since) else None,
        "below_moving_bound": float(steps.mean()) if len(steps) else None,
        "noise_hypothesis": mean > delta, "mean_error": float(np.mean(total)),
        "noise_bound": None if mean <= delta else float(np.mean(predicted)),
    }  # fmt: skip


def main() -> None:
    """Every case, the table on the terminal, and the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "moving_targets.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    cases = {}
    for world in WORLDS:
        for method in METHODS:
            for target in TARGETS:
                case = cases[f"{world}, {method}, {target}"] = judged(world, method, target)
                print(f"{world}, {method}, {target}:", json.dumps(case), flush=True)
    found = list(cases.values())
    moving = [case for case in found if case["moving_hypothesis"]]
    noise = [case for case in found if case["noise_hypothesis"]]
    summary = {
        "cases": len(found),
        "moving_hypothesis_holds_in": len(moving),
        "of_these_95_percent_within": sum(case["within_B_plus_delta"] >= 0.95 for case in moving),
        "all_cases_95_percent_within": sum(case["within_B_plus_delta"] >= 0.95 for case in found),
        "all_cases_95_percent_within_since_they_first_were": sum(
            (case["within_since_it_first_was"] or 0) >= 0.95 for case in found
        ),
        "noise_hypothesis_holds_in": len(noise),
        "of_these_mean_error_below_bound": sum(case["mean_error"] <= case["noise_bound"] for case in noise),
        "median_of_noise_bound_over_error": float(
            np.median([case["noise_bound"] / case["mean_error"] for case in noise])
        ),
    }
    device = f"CPU, {platform.machine()}, 1 thread"
    about = {
        "python": platform.python_version(), "torch": torch.__version__, "device": device,
        "calibration_seeds": list(CALIBRATION), "seeds": list(SEEDS), "command": "python benchmarks/moving_targets.py",
    }  # fmt: skip
    out.write_text(json.dumps({"about": about, "summary": summary, "cases": cases}, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
