"""Does a held entropy solve hard prompts that a collapsed one leaves unsolved? The ladder in small, in four minutes.

The language model's ladder (`aepo experiment --task ladder`) asks this with hours of runs; this is its structure on a
policy whose every success probability is known exactly (`aepo.tabular.worlds.ladder`). The ceiling is 1: every held-out
prompt has eight right responses. There are two rounds, each fixed before its runs of AEPO.

In both: steps of 64 prompts x 8 responses, one update each; the learning rate by GRPO alone, over a grid, on seeds of
its own, and then the same for all methods; those of METHODS, alpha 4 and T 0.5/2 where they have these. Targets 0.2,
0.4 and 0.6 nats: right hops alone can carry ln 2 = 0.69, and 0.4 and 0.6 are the same shares of it as 0.5 and 0.75 of
what they carry on the language model's ladder. The copy shows the same if GRPO ends (mean of the last tenth) below 0.1
nats; it leaves more than a tenth of the held-out prompts unsolved by pass@256; and AEPO at 0.4 or 0.6 holds its target
(mean |H - H*| over the last half at most 0.05 nats) and is above GRPO in pass@256 and in pass@1 at T = 0.1, paired by
seed, by a 95 % t interval above 0.

- first: 300 steps, and of the rates the one with GRPO's highest mean reward on held-out prompts at T = 1. While the
  world was designed only GRPO was run, on seeds 0 to 7. It failed: the rate is 1000, at which an update or two settle
  an instruction, so that no temperature steers the entropy; at 100 and 300 AEPO solves more than GRPO, and collapses.
- second: 3,000 steps, which give a controller time, and of the rates the least at which GRPO collapses below 0.1 nats;
  other seeds. Only GRPO had been run for so long when this was fixed. As that rate need not be GRPO's best, AEPO has to
  be above GRPO at the best rate of the grid, too.

Decide nothing: the other rates; GRPO with a quarter more prompts, as many as AEPO samples, and with four times the
steps; and a control in which each instruction has a row of its own, so that none moves another.

    python benchmarks/ladder_small.py            # results/ladder_small.json and the tables
    python benchmarks/ladder_small.py figure     # docs/ladder_small.png from it
"""

import argparse
import dataclasses
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aepo import zoo
from aepo.over_seeds import draw, estimate
from aepo.schedule import Constant
from aepo.tabular.train import train
from aepo.tabular.worlds.environments import ENVIRONMENTS
from aepo.tabular.worlds.ladder import LEVEL_SHARES, MANY, Ladder, ladder

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "ladder_small.json"
FIGURE = ROOT / "docs" / "ladder_small.png"
RATES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
CALIBRATION = range(7000, 7016)
SETTINGS = ENVIRONMENTS["ladder"].settings
STRONG, WIDE = {"alpha": 4.0}, {"alpha": 4.0, "t_low": 0.5, "t_high": 2.0}
SHOWN, SHOWN_STEPS = ("GRPO", "AEPO 0.4", "AEPO 0.6", "Eq. 2", "Eq. 3, 0.4"), 50
COLLAPSED, SOLVED, HELD = 0.1, 0.9, 0.05
MEASURES = ("entropy", "error", "up", "reward", "cold", "pass@16", "pass@256")
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A method as it is run here."""

    method: str
    options: dict[str, float]
    target: float | None = None
    prompts: int = 64
    times: int = 1
    """As many steps as the round's."""
    features: int | None = 32


METHODS = {
    "GRPO": Arm(method="grpo", options={}),
    **{f"AEPO {h}": Arm(method="aepo", options=WIDE, target=h) for h in (0.2, 0.4, 0.6)},
    **{f"aepo_reach {h}": Arm(method="aepo_reach", options={}, target=h) for h in (0.2, 0.4, 0.6)},
    "Eq. 2": Arm(method="aepo_eq2", options=STRONG),
    "Eq. 3, 0.4": Arm(method="aepo_eq3", options=WIDE, target=0.4),
}
MORE = {
    "GRPO, 80 prompts": Arm(method="grpo", options={}, prompts=80),
    "GRPO, 4 x the steps": Arm(method="grpo", options={}, times=4),
    "GRPO, rows of their own": Arm(method="grpo", options={}, features=None),
    "AEPO 0.4, rows of their own": Arm(method="aepo", options=WIDE, target=0.4, features=None),
}
BEST = "GRPO at its best rate"


@dataclass(frozen=True, kw_only=True)
class Round:
    """See the module's first lines."""

    steps: int
    seeds: range
    least_that_collapses: bool
    """Which rate: that one, or GRPO's best."""
    others: tuple[float, ...]
    """Rates that are reported, too."""


ROUNDS = {
    "first": Round(steps=300, seeds=range(7100, 7116), least_that_collapses=False, others=(100.0, 300.0)),
    "second": Round(steps=3000, seeds=range(7200, 7216), least_that_collapses=True, others=(100.0,)),
}


def run(arm: Arm, seeds: Sequence[int], *, lr: float, steps: int) -> tuple[dict[str, Array], Array]:
    """What each seed's run came to, name -> (N,), and its entropies, (N, steps)."""
    world = ladder(seeds, features=arm.features)
    steps *= arm.times
    settings = dataclasses.replace(SETTINGS, lr=lr, steps=steps, states_per_step=arm.prompts)
    goal = math.nan if arm.target is None else arm.target
    history = train(world, zoo.build(arm.method, **arm.options), Constant(goal), list(seeds), settings)
    entropy, half = history.entropy, steps // 2
    found = {
        "entropy": entropy[:, -steps // 10 :].mean(-1),
        "error": (entropy - goal)[:, half:].abs().mean(-1),
        "up": torch.where(torch.tensor(math.isnan(goal)), math.nan, history.raise_entropy[:, half:].double().mean(-1)),
        "reward": history.evaluation["reward_held_out"],
        "cold": history.evaluation["cold_held_out"],
        "pass@16": history.evaluation["pass@16"],
        "pass@256": history.evaluation["pass@256"],
        **by_level(world, history.parameters),
    }
    return {name: value.numpy() for name, value in found.items()}, entropy.numpy()


def by_level(world: Ladder, parameters: torch.Tensor) -> dict[str, torch.Tensor]:
    """Reward and pass@256 on the held-out prompts of each level, name -> (N,)."""
    success, found = world.success(parameters, world.held_out), {}
    for level in range(len(LEVEL_SHARES)):
        of_level = success[world.levels == level].view(len(success), -1)
        found[f"reward, {level} hard"] = of_level.mean(-1)
        found[f"pass@256, {level} hard"] = (1 - (1 - of_level) ** MANY).mean(-1)
    return found


def start(seeds: Sequence[int]) -> dict[str, Array]:
    """The policy before the first step."""
    world = ladder(seeds)
    evaluation = world.evaluate(world.parameters)
    names = {"reward": "reward_held_out", "cold": "cold_held_out", "pass@16": "pass@16", "pass@256": "pass@256"}
    found = {ours: evaluation[name] for ours, name in names.items()} | by_level(world, world.parameters)
    return {name: value.numpy() for name, value in found.items()}


def rates(one: Round) -> tuple[float, float, dict[str, Any]]:
    """The round's learning rate, GRPO's best, and what both were chosen from: GRPO at every rate."""
    found = {lr: run(METHODS["GRPO"], CALIBRATION, lr=lr, steps=one.steps)[0] for lr in RATES}
    best = max(found, key=lambda lr: found[lr]["reward"].mean())
    chosen = best
    if one.least_that_collapses:
        chosen = min(lr for lr in RATES if found[lr]["entropy"].mean() < COLLAPSED)
    shown = {
        f"{lr:g}": {name: estimate(values[name]).as_json() for name in ("entropy", "reward", "pass@256")}
        for lr, values in found.items()
    }
    return chosen, best, shown


def verdict(runs: dict[str, dict[str, Array]]) -> dict[str, bool]:
    """The protocol's conditions, and whether the copy shows the same."""
    grpo, found = runs["GRPO"], {}
    found["GRPO collapses"] = bool(grpo["entropy"].mean() < COLLAPSED)
    found["GRPO leaves prompts unsolved"] = bool(grpo["pass@256"].mean() < SOLVED)
    for name in ("AEPO 0.4", "AEPO 0.6"):
        found[f"{name} holds its target"] = bool(runs[name]["error"].mean() <= HELD)
        for measure in ("pass@256", "cold"):
            for other in ("GRPO", BEST):
                gain = estimate(runs[name][measure] - runs[other][measure])
                found[f"{name} above {other} in {measure}"] = gain.mean > gain.half_width
    all_of = {name: all(value for key, value in found.items() if key.startswith(name)) for name in
              ("GRPO", "AEPO 0.4", "AEPO 0.6")}  # fmt: skip
    return found | {"shows the same": all_of["GRPO"] and (all_of["AEPO 0.4"] or all_of["AEPO 0.6"])}


def summary(run_of: dict[str, Array], grpo: dict[str, Array] | None = None) -> dict[str, object]:
    """Mean over seeds and 95 % interval of everything, and of the differences to GRPO, paired by seed."""
    found: dict[str, object] = {name: estimate(values).as_json() for name, values in run_of.items()}
    if grpo is not None:
        found["against GRPO"] = {
            name: estimate(run_of[name] - grpo[name]).as_json() for name in ("reward", "cold", "pass@256")
        }
    return found


def measure(one: Round) -> dict[str, Any]:
    """Every run of a round, as the file holds it."""
    lr, best, grid = rates(one)
    measured = {name: run(arm, one.seeds, lr=lr, steps=one.steps) for name, arm in (METHODS | MORE).items()}
    runs = {name: found for name, (found, _) in measured.items()}
    runs[BEST] = run(METHODS["GRPO"], one.seeds, lr=best, steps=one.steps)[0]
    others = {
        f"{rate:g}": {name: run(arm, one.seeds, lr=rate, steps=one.steps)[0] for name, arm in METHODS.items()}
        for rate in one.others
    }
    every = one.steps // SHOWN_STEPS
    return {
        "steps": one.steps,
        "seeds": list(one.seeds),
        "rates": grid,
        "lr": lr,
        "best_lr_of_grpo": best,
        "verdict": verdict(runs),
        "start": summary(start(one.seeds)),
        "runs": {name: summary(found, runs["GRPO"]) for name, found in runs.items()},
        "at_other_rates": {
            rate: {name: summary(found, of_rate["GRPO"]) for name, found in of_rate.items()}
            for rate, of_rate in others.items()
        },
        "entropy": {name: measured[name][1][:, ::every].round(3).tolist() for name in METHODS if name in SHOWN},
    }


def table(runs: dict[str, dict]) -> str:
    """For people: entropies in nats, the rest in percent."""
    lines = ["| method | " + " | ".join(MEASURES) + " |", "|---|" + "---:|" * len(MEASURES)]
    for name, found in runs.items():
        cells = []
        for one in MEASURES:
            value = found.get(one, {"mean": None})
            if value["mean"] is None:
                cells.append("")
                continue
            scale, digits = (1, 3) if one in ("entropy", "error") else (100, 1)
            cells.append(f"{scale * value['mean']:.{digits}f} ± {scale * value['half_width_95']:.{digits}f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(found: dict) -> None:
    """Entropy over steps, and what share of the prompts of each level 256 responses solve: the second round."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    every = found["steps"] // SHOWN_STEPS
    levels = np.arange(len(LEVEL_SHARES))
    kept: dict[str, tuple[Any, dict]] = {"start": ("0.6", found["start"])}
    for name in SHOWN:
        entropy = np.array(found["entropy"][name])
        colour = draw(left, every * np.arange(entropy.shape[1]), entropy, label=name)
        kept[name] = (colour, found["runs"][name])
    for target in (0.4, 0.6):
        left.axhline(target, lw=0.8, ls="--", color="0.3")
    width = 0.8 / len(kept)
    for place, (name, (colour, one)) in enumerate(kept.items()):
        values = [one[f"pass@256, {level} hard"] for level in levels]
        right.bar(
            levels + (place - (len(kept) - 1) / 2) * width,
            [100 * value["mean"] for value in values],
            width,
            yerr=[100 * value["half_width_95"] for value in values],
            color=colour,
            label=name,
            error_kw={"lw": 0.8},
        )
    left.set(xlabel="step", ylabel="entropy (nats)", title="Targets 0.4 and 0.6 nats")
    right.set(
        xlabel="hard instructions of the prompt", ylabel="pass@256 (%)", xticks=levels, title="Held-out prompts solved"
    )
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=len(kept), fontsize=8)
    left.grid(alpha=0.25, lw=0.5)
    figure.suptitle(f"The ladder in small, lr {found['lr']:g}, {len(found['seeds'])} seeds, 95 % t intervals")
    figure.savefig(FIGURE, metadata={"Description": "python benchmarks/ladder_small.py figure"})


def main() -> None:
    """The act that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("run", "figure"), nargs="?", default="run")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if arguments.act == "figure":
        picture(json.loads(RESULT.read_text())["rounds"]["second"])
        return
    torch.set_num_threads(1)
    began, found = time.perf_counter(), {}
    for name, one in ROUNDS.items():
        result = found[name] = measure(one)
        print(f"{name} round, lr {result['lr']:g}\n{table({'start': result['start'], **result['runs']})}", flush=True)
    about = {
        "command": "python benchmarks/ladder_small.py",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": f"CPU, {platform.machine()}, 1 thread",
        "seconds": round(time.perf_counter() - began),
        "calibration_seeds": list(CALIBRATION),
        "arms": {name: dataclasses.asdict(arm) for name, arm in (METHODS | MORE).items()},
    }
    arguments.out.write_text(json.dumps({"about": about, "rounds": found}, indent=1) + "\n")
    print(json.dumps({name: {"lr": one["lr"], "verdict": one["verdict"]} for name, one in found.items()}))


if __name__ == "__main__":
    main()
