"""Does one default controller hold an entropy target better than a tuned bang-bang, across worlds and learning rates?

The protocol (cells, seeds, opponents, budget, verdict) is protocol.yaml beside this file, committed before any tuning.

    python benchmarks/controllers/compare.py tune   # both sides, tuning seeds: results/controllers_tuning.json
    python benchmarks/controllers/compare.py test   # the chosen ones, test seeds: results/controllers_test.json
    python benchmarks/controllers/compare.py floor  # the same, some worlds: results/controllers_floor.json

Every cell has its error in units of the floor too, which noise sets to any controller that acts through the same limits
(docs/simulator.md): `floor`, with `floor_low` the estimate from below. Where a step asks B of the prompts, a controller
that knows which come next has a lower floor than one that sees entropies alone; the latter is `floor_order_unknown`,
of prompts that are drawn from all of them (in the run those that an epoch has asked do not come again in it).
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from aepo import zoo
from aepo.categorical import entropy
from aepo.method import Method
from aepo.schedule import SCHEDULES, Constant, Schedule
from aepo.tabular.floor import floor_along, floor_states, of_first_seeds
from aepo.tabular.runner import FLOOR_SEEDS
from aepo.tabular.settings import Settings
from aepo.tabular.train import History, train
from aepo.tabular.worlds.environments import ENVIRONMENTS

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
PROTOCOL = yaml.safe_load((HERE / "protocol.yaml").read_text())

# Twelve combinations, the opponent's budget.
OURS = [
    {"alpha": alpha, "up": up, "down": down, "rate": rate}
    for alpha in (4.0, 8.0, 16.0)
    for up, down in ((1.03, 0.8), (1.02, 0.7))
    for rate in (0.05, 0.02)
]
ROUND_TWO = [
    {"alpha": alpha, "up": up, "down": 1 / up, "rate": rate}
    for alpha, up, rate in itertools.product(*(PROTOCOL["round_two"][name] for name in ("alpha", "up", "rate")))
]
BANG_BANG = [
    {"alpha": alpha, "t_low": low, "t_high": high}
    for low, high in PROTOCOL["opponents"]["tuned"]["temperatures"]
    for alpha in PROTOCOL["opponents"]["tuned"]["alpha"]
]


# Both sizes of a step on Env A at its preset's learning rate, and the worlds of one prompt.
FLOOR_WORLDS = ("env_a B=64 lr=3", "env_a B=16 lr=3", "bandit", "sequence")


def worlds() -> Iterator[tuple[str, str, Settings]]:
    """Name, environment and settings of every world of the protocol."""
    for entry in PROTOCOL["worlds"]:
        environment = entry["environment"]
        base = dataclasses.replace(ENVIRONMENTS[environment].settings, steps=PROTOCOL["steps"])
        for b, lr in itertools.product(entry.get("states_per_step", [None]), entry.get("lr", [base.lr])):
            name = environment if b is None else f"{environment} B={b} lr={lr:g}"
            yield name, environment, dataclasses.replace(base, states_per_step=b, lr=lr)


def targets() -> dict[str, Schedule]:
    """Name -> target over time."""
    found: dict[str, Schedule] = {f"H*={level:g}": Constant(level) for level in PROTOCOL["targets"]["constant"]}
    for entry in PROTOCOL["targets"]["moving"]:
        arguments = {key: value for key, value in entry.items() if key != "name"}
        found[entry["name"]] = SCHEDULES[entry["name"]](**arguments)
    return found


def errors(
    method: Method, seeds: Sequence[int], *, label: str, only: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """Cell -> error, the spread over seeds, the measured entropy's own noise, the floor, and the held-out reward.

    Args:
        method: the controller's.
        seeds: of the runs.
        label: what is printed of the progress.
        only: names of the worlds; None for all.
    """
    schedules = targets()
    found = {}
    for name, environment, settings in worlds():
        if only is not None and name not in only:
            continue
        began = time.monotonic()
        world = ENVIRONMENTS[environment].build(seeds).repeated(len(schedules))

        def schedule(step: int) -> torch.Tensor:
            return torch.tensor([s(step) for s in schedules.values() for _ in seeds], dtype=torch.float64)

        history = train(
            world, method, schedule, list(seeds) * len(schedules), settings, keep=floor_states(settings.steps)
        )
        late = (history.entropy - history.target).abs()[:, settings.steps // 2 :].mean(-1).view(len(schedules), -1)
        floors = floors_of(history, method, environment, settings, seeds, count=len(schedules))
        on = late[:, : len(seeds[:FLOOR_SEEDS])].mean(-1)
        mean_entropy = history.entropy[:, settings.steps // 2 :].mean(-1).view(len(schedules), -1)
        noise = measurement_noise(world.table(history.parameters), settings).view(len(schedules), -1)
        reward = history.evaluation["reward_held_out"].view(len(schedules), -1)
        for i, target in enumerate(schedules):
            found[f"{name}, {target}"] = {
                "error": float(late[i].mean()),
                "seed_std": float(late[i].std()),
                "noise": float(noise[i].mean()),
                **{name: float(values[i]) for name, values in floors.items()},
                "error_over_floor": float(on[i] / floors["floor"][i]),
                "entropy": float(mean_entropy[i].mean()),
                "reward_held_out": float(reward[i].mean()),
            }
        print(f"{label}: {name} in {time.monotonic() - began:.0f} s", flush=True)
    return found


def floors_of(
    history: History, method: Method, environment: str, settings: Settings, seeds: Sequence[int], *, count: int
) -> dict[str, np.ndarray]:
    """Name -> (targets,): the mean floors of the first seeds' runs, as a cell has them.

    Args:
        history: of the runs, target after target.
        method, environment, settings, seeds: of the runs.
        count: targets.
    """
    few = list(seeds)[:FLOOR_SEEDS]
    world = ENVIRONMENTS[environment].build(few).repeated(count)
    kept = {step: of_first_seeds(p, len(few), seeds=len(seeds)) for step, p in history.kept.items()}

    def measured(*, order_known: bool) -> list[np.ndarray]:
        found = floor_along(kept, world, method, settings, seeds=few * count, order_known=order_known)
        return [one.reshape(count, -1).mean(-1) for one in (found.high, found.low)]

    high, low = measured(order_known=True)
    floors = {"floor": high, "floor_low": low}
    if settings.states_per_step not in (None, world.training):
        floors["floor_order_unknown"] = measured(order_known=False)[0]
    return floors


def measurement_noise(table: torch.Tensor, settings: Settings) -> torch.Tensor:
    """(N,): mean |mean entropy of B states - mean over all|, B drawn without replacement, of a policy at rest."""
    states = table.shape[1]
    count = settings.states_per_step or states
    if count >= states:
        return torch.zeros(len(table), dtype=table.dtype)
    h = entropy(table)
    # A mean of B of S values: variance s^2 / B (1 - B / S); the mean distance of a normal is sqrt(2 / pi) deviations.
    variance = h.var(-1) / count * (1 - count / states)
    return (2 * variance / torch.pi).sqrt()


def score(candidates: list[dict[str, dict[str, float]]]) -> list[float]:
    """Per candidate: the median over cells of its error relative to the best candidate's in that cell."""
    table = np.array([[cell["error"] for cell in one.values()] for one in candidates])
    return list(np.median(table / table.min(0), axis=1))


def about() -> dict[str, str]:
    """What the figures were computed with."""
    return {
        "protocol": hashlib.sha256((HERE / "protocol.yaml").read_bytes()).hexdigest()[:16],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": f"CPU, {platform.machine()}, 1 thread",
    }


def tune() -> None:
    """Every combination of both sides on the tuning seeds; what is finished is kept between runs."""
    seeds = _seeds(PROTOCOL["tuning_seeds"])
    kept_path = RESULTS / "controllers_tuning.json"
    kept = json.loads(kept_path.read_text()) if kept_path.exists() else {"about": about(), "runs": {}}
    for method, combinations in (("aepo_adaptive", OURS + ROUND_TWO), ("aepo", BANG_BANG)):
        for options in combinations:
            key = f"{method} {json.dumps(options, sort_keys=True)}"
            if key not in kept["runs"]:
                kept["runs"][key] = errors(zoo.build(method, **options), seeds, label=key)
                kept_path.write_text(json.dumps(kept, indent=1) + "\n")
    theirs = {key: run for key, run in kept["runs"].items() if key.startswith("aepo ")}
    scores = dict(zip(theirs, score(list(theirs.values())), strict=True))
    opponent = min(scores, key=scores.__getitem__)
    ours = {
        key: verdict(run, theirs[opponent], theirs[opponent])
        for key, run in kept["runs"].items()
        if key.startswith("aepo_adaptive ")
    }
    # The verdict itself, on the tuning seeds: few bad cells first, then the median.
    allowed = PROTOCOL["verdict"]["share_of_cells_worse_at_most"]
    best = min(ours, key=lambda key: (max(ours[key]["share_worse"] - allowed, 0.0), ours[key]["median_ratio"]))
    numbers = {key: [v["median_ratio"], v["share_worse"]] for key, v in ours.items()}
    kept["chosen"] = {
        "aepo_adaptive": {"options": json.loads(best.split(" ", 1)[1]), "median_ratio_and_share_worse": numbers},
        "aepo": {"options": json.loads(opponent.split(" ", 1)[1]), "scores": scores},
    }
    for key in (best, opponent):
        print("chosen:", key, numbers.get(key) or scores[key])
    kept_path.write_text(json.dumps(kept, indent=1) + "\n")


def tested() -> tuple[dict[str, Method], list[int], dict]:
    """The chosen controllers and the paper's bang-bang, the test seeds, and the choice."""
    chosen = json.loads((RESULTS / "controllers_tuning.json").read_text())["chosen"]
    seeds = _seeds(PROTOCOL["round_two"]["test_seeds"])
    paper = {key: value for key, value in PROTOCOL["opponents"]["paper"].items() if key != "method"}
    methods = {
        "ours": zoo.build("aepo_adaptive", **chosen["aepo_adaptive"]["options"]),
        "tuned": zoo.build("aepo", **chosen["aepo"]["options"]),
        "paper": zoo.build("aepo", **paper),
    }
    return methods, seeds, chosen


def test() -> None:
    """The chosen controllers and the paper's bang-bang on the test seeds, and the verdict."""
    methods, seeds, chosen = tested()
    path = RESULTS / "controllers_test.json"
    runs = {name: errors(method, seeds, label=name) for name, method in methods.items()}
    result = {"about": about(), "seeds": seeds, "chosen": {k: v["options"] for k, v in chosen.items()}, "runs": runs}
    result["verdict"] = {
        opponent: verdict(runs["ours"], runs[opponent], runs["tuned"]) for opponent in ("tuned", "paper")
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["verdict"], indent=1))


def floor() -> None:
    """The chosen controllers and the paper's bang-bang on the test seeds, in some worlds: errors beside floors."""
    began = time.monotonic()
    methods, seeds, _ = tested()
    runs = {name: errors(method, seeds, label=name, only=FLOOR_WORLDS) for name, method in methods.items()}
    command = "python benchmarks/controllers/compare.py floor"
    result = {
        "about": about() | {"command": command, "seconds": round(time.monotonic() - began)},
        "seeds": seeds,
        "floor_seeds": seeds[:FLOOR_SEEDS],
        "runs": runs,
    }
    (RESULTS / "controllers_floor.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, cells in runs.items():
        for cell, numbers in cells.items():
            unknown = numbers.get("floor_order_unknown")
            print(
                f"{name}: {cell}: error {numbers['error']:.5f}, floor {numbers['floor']:.5f}, "
                f"{numbers['error_over_floor']:.1f} times"
                + ("" if unknown is None else f"; {unknown:.5f} where the prompts' order is unknown")
            )


def verdict(ours: dict, opponent: dict, noise: dict) -> dict[str, object]:
    """Ratios over the cells that are not within sampling noise."""
    limit = PROTOCOL["noise"]
    left_out, ratios = [], {}
    for cell in ours:
        floor = max(limit["times"] * noise[cell]["noise"], limit["nats"])
        if max(ours[cell]["error"], opponent[cell]["error"]) <= floor:
            left_out.append(cell)
        else:
            ratios[cell] = ours[cell]["error"] / opponent[cell]["error"]
    values = np.array(list(ratios.values()))
    rule = PROTOCOL["verdict"]
    worse = float((values > rule["worse_than"]).mean())
    median = float(np.median(values))
    return {
        "cells": len(ratios),
        "median_ratio": median,
        "quartiles": [float(q) for q in np.percentile(values, [25, 75])],
        "share_worse": worse,
        "holds": median <= rule["median_ratio_at_most"] and worse <= rule["share_of_cells_worse_at_most"],
        "goal": median <= rule["goal"],
        "worse_cells": {cell: round(r, 3) for cell, r in ratios.items() if r > rule["worse_than"]},
        "left_out": left_out,
    }


def _seeds(chosen: dict[str, int]) -> list[int]:
    return list(range(chosen["first"], chosen["first"] + chosen["count"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("tune", "test", "floor"))
    torch.set_num_threads(1)
    {"tune": tune, "test": test, "floor": floor}[parser.parse_args().act]()
