"""Are moving targets followed as the theory of the loop says? Bang-bang and the adaptive controllers, three targets.

For each case, eps and B are the 5 % and 95 % quantiles of a step towards the target on calibration seeds; on other
seeds it is counted how many steps end within B + delta of the target, for the stair those after the hitting time of
each jump. aepo_reach approaches a far target at a pace of its own, which gives its hitting times. Where eps > delta the
hypotheses of `aepo.theory.moving_target_bound` hold but for one step in ten. The least mean and the largest mean square
of a step, over ten bins of the error that it starts from, give `aepo.theory.noise_error_bound`, whose hypothesis is a
mean above delta.

    python benchmarks/moving_targets.py            # minutes: results/moving_targets.json
    python benchmarks/moving_targets.py figure     # docs/moving_targets.png, with the demo's runs of reach_demo.py
"""

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from moving import judged
from reach_demo import FRESH_SEEDS, FROM_START, STARTED
from reach_demo import SEEDS as DEMO_SEEDS

from aepo import zoo
from aepo.controller import WideningReach
from aepo.schedule import Linear, Schedule, Sinusoid, Stairs
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.environments import ENVIRONMENTS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FIGURE = ROOT / "docs" / "moving_targets.png"
STEPS = 1000
CALIBRATION, SEEDS = range(6000, 6016), range(6100, 6116)
Array = np.ndarray


TARGETS: dict[str, Schedule] = {
    "linear": Linear(start=1.0, end=0.5, steps=STEPS),
    "sinusoid": Sinusoid(mean=0.75, amplitude=0.2, period=500),
    "stair": Stairs(start=1.0, end=0.4, stairs=3, every=250),
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


def curves() -> dict[str, object]:
    """aepo_reach's entropies on the first seed and its targets, every fifth step, for the picture."""
    found = {}
    for world in WORLDS:
        for target in TARGETS:
            entropy, goal = runs(world, "aepo_reach", target, SEEDS)
            found[f"{world}, {target}"] = {
                "entropy": entropy[0, ::5].round(4).tolist(), "target": goal[::5].round(4).tolist()
            }  # fmt: skip
    return found


def draw() -> None:
    """aepo_reach behind three moving targets: on the bandit, on Env A, and on the demo's model with two optimizers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    simulated = json.loads((RESULTS / "moving_targets.json").read_text())
    trained = json.loads((RESULTS / "reach_demo.json").read_text())["runs"]
    figure = Figure(figsize=(11, 9), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    moved, started = (dict(zip(TARGETS, names, strict=True)) for names in (TARGETS, STARTED))
    models = {
        "language model": {name: f"{run}, seed {DEMO_SEEDS[0]}" for name, run in moved.items()},
        "without Adam's momentum": {name: f"{run}{FROM_START}, seed {FRESH_SEEDS[0]}" for name, run in started.items()},
    }
    grid = figure.subplots(len(WORLDS) + len(models), len(TARGETS), sharey=True)
    for column, target in enumerate(TARGETS):
        rows = [simulated["curves"][f"{world}, {target}"] | {"every": 5} for world in WORLDS]
        rows += [trained[runs_of[target]] | {"every": 1} for runs_of in models.values()]
        for axes, name, row in zip(grid[:, column], (*WORLDS, *models), rows, strict=True):
            step = row["every"] * np.arange(len(row["entropy"]))
            axes.plot(step, row["entropy"], lw=1, label="entropy")
            axes.plot(step, row["target"], lw=1, ls="--", color="0.3", label="target")
            axes.set_title(f"{name}, {target}", fontsize=9)
            axes.set(ylim=(0, 2.1))
            axes.grid(alpha=0.25, lw=0.5)
    for axes in grid[-1]:
        axes.set(xlabel="step")
    for axes in grid[:, 0]:
        axes.set(ylabel="entropy (nats)")
    grid[0, 0].legend(fontsize=8)
    figure.suptitle("aepo_reach with its one default, one seed")
    figure.savefig(FIGURE, metadata={"Description": "python benchmarks/moving_targets.py figure"})


def case(world: str, method: str, target: str) -> dict[str, object]:
    """One case: what was measured of its steps, what follows from it, and what other seeds did."""
    entropy, _ = runs(world, method, target, CALIBRATION)
    followed, goal = runs(world, method, target, SEEDS)
    law = METHODS[method].controller
    pace = law.speed if isinstance(law, WideningReach) else None
    return judged(entropy, followed, goal, jumps=target == "stair", pace=pace)


def main() -> None:
    """Every case, the table on the terminal, and the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("run", "figure"), nargs="?", default="run")
    parser.add_argument("--out", type=Path, default=RESULTS / "moving_targets.json")
    arguments = parser.parse_args()
    if arguments.act == "figure":
        draw()
        return
    torch.set_num_threads(1)
    cases = {}
    for world in WORLDS:
        for method in METHODS:
            for target in TARGETS:
                one = cases[f"{world}, {method}, {target}"] = case(world, method, target)
                print(f"{world}, {method}, {target}:", json.dumps(one), flush=True)
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
    arguments.out.write_text(
        json.dumps({"about": about, "summary": summary, "cases": cases, "curves": curves()}, indent=1) + "\n"
    )
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
