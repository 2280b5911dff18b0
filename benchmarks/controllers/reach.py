"""Does one default of aepo_reach hold every target that is predicted to be within its reach, in every world?

The protocol is reach_protocol.yaml beside this file. A combination, and a method in one world, that is finished is kept
in the results and not run again, so a stage may be cut off at any time.

    python benchmarks/controllers/reach.py tune     # both rounds on the tuning seeds: results/reach_tuning.json
    python benchmarks/controllers/reach.py test     # the family on the test seeds: results/reach_test.json
    python benchmarks/controllers/reach.py predict  # the same cells predicted: results/reach_predicted.json
    python benchmarks/controllers/reach.py floor    # its cells' errors beside the floors: results/reach_floor.json
    python benchmarks/controllers/reach.py verdict  # what these say
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import yaml
from compare import RESULTS, about, errors, targets, worlds

from aepo import zoo
from aepo.method import Method
from aepo.schedule import Schedule
from aepo.tabular.reach import mean_run
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.environments import ENVIRONMENTS

PROTOCOL = yaml.safe_load((Path(__file__).parent / "reach_protocol.yaml").read_text())
Numbers = dict[str, dict[str, float]]
"""Cell -> its numbers."""


def seeds_of(name: str) -> list[int]:
    """The protocol's seeds of one kind."""
    return [PROTOCOL[name]["first"] + i for i in range(PROTOCOL[name]["count"])]


def combinations() -> list[dict[str, float]]:
    """The options of both rounds; round two's of alpha 1 that round one had too are not repeated."""
    one, two = PROTOCOL["round_one"], PROTOCOL["round_two"]
    first = [
        {"t_low": low, "t_high": high, "up": up, "down": 1 / up, "grow": grow}
        for (low, high), up, grow in itertools.product(one["temperatures"], one["up"], one["grow"])
    ]
    second = [
        {"t_low": low, "t_high": high, "up": up, "down": 1 / up, "grow": grow}
        | ({} if alpha == 1 else {"alpha": alpha, "strength": two["largest_weight"] / alpha})
        for (low, high), alpha, up, grow in itertools.product(two["temperatures"], two["alpha"], two["up"], two["grow"])
    ]
    later = [
        {"t_low": low, "t_high": high, "up": up, "down": 1 / up, "grow": grow, "memory": memory, "speed": speed}
        | ({} if band is None else {"band": band})
        | ({} if part is None else {"part": part})
        for grid, part in (
            (PROTOCOL["round_two_continued"] | {"band": [None]}, None),
            (PROTOCOL["round_two_last"], None),
            (PROTOCOL["round_two_end"], "end"),
        )
        for (low, high), memory, band, speed, up, grow in itertools.product(
            *(grid[name] for name in ("temperatures", "memory", "band", "speed", "up", "grow"))
        )
    ]
    return first + [options for options in second if options not in first] + later


def by_target(values: torch.Tensor) -> list[float]:
    """Means over the seeds of values (targets x seeds,)."""
    return values.view(len(targets()), -1).mean(1).tolist()


def schedule_of(seeds: Sequence[int]) -> Schedule:
    """The target of every run (targets x seeds,) at a step."""
    schedules = targets()

    def schedule(step: int) -> torch.Tensor:
        return torch.tensor([s(step) for s in schedules.values() for _ in seeds], dtype=torch.float64)

    return schedule


def measured(method: Method, name: str, environment: str, settings: Settings, seeds: Sequence[int]) -> Numbers:
    """Errors of one world's cells: by the policy's entropy, and by that of each step's states."""
    world = ENVIRONMENTS[environment].build(seeds).repeated(len(targets()))
    history = train(world, method, schedule_of(seeds), list(seeds) * len(targets()), settings)
    half = settings.steps // 2
    found = [
        by_target((entropy - history.target).abs()[:, half:].mean(-1))
        for entropy in (history.policy_entropy, history.entropy)
    ]
    return {
        f"{name}, {target}": {"error": policy, "error_measured": step}
        for target, policy, step in zip(targets(), *found, strict=True)
    }


def predicted(method: Method, name: str, environment: str, settings: Settings, seeds: Sequence[int]) -> Numbers:
    """Predicted errors of one world's cells."""
    schedule = schedule_of(seeds)
    world = ENVIRONMENTS[environment].build(seeds).repeated(len(targets()))
    expected = by_target(mean_run(world, method, settings, schedule).error(schedule))
    return {f"{name}, {one}": {"error": error} for one, error in zip(targets(), expected, strict=True)}


def beside_floors(
    method: Method, name: str, environment: str, settings: Settings, seeds: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Errors of one world's cells, with the entropy that each step measures, and their floors."""
    return errors(method, seeds, label=environment, only=[name])


WORKERS_METHODS: dict[str, Method] = {}


def looked(look: Callable[..., Numbers], key: str, *arguments) -> Numbers:
    """The numbers of one method, by its key, in one world."""
    return look(WORKERS_METHODS[key], *arguments)


def completed(path: Path, methods: dict[str, Method], seeds: list[int], look: Callable[..., Numbers]) -> dict:
    """The results in the file with every method in every world; what lacks is run and kept at once."""
    kept = json.loads(path.read_text()) if path.exists() else {"about": about(), "seeds": seeds, "runs": {}}
    runs = {key: kept["runs"].setdefault(key, {}) for key in methods}
    began = time.monotonic()
    # Methods hold functions that cannot be sent to another process: workers are forked with them and get their keys.
    WORKERS_METHODS.update(methods)
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        missing = {
            pool.submit(looked, look, key, *world, seeds): (key, world[0])
            for key in methods
            for world in worlds()
            if not any(cell.startswith(f"{world[0]}, ") for cell in runs[key])
        }
        for done in as_completed(missing):
            key, name = missing[done]
            runs[key] |= done.result()
            path.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"{key}: {name}, {time.monotonic() - began:.0f} s from the start", flush=True)
    # Cells in one order, whichever world ended first.
    order = [f"{name}, {target}" for name, _, _ in worlds() for target in targets()]
    kept["runs"] |= {key: {cell: cells[cell] for cell in order} for key, cells in runs.items()}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept


def tune() -> None:
    """Every combination on the tuning seeds, and the one that is chosen."""
    path = RESULTS / "reach_tuning.json"
    # The first combinations were run before there was a memory, a speed or a band; all but those of the end were run
    # under the rule of their time.
    before = {"memory": 1.0, "speed": 1e3, "band": 0.0}
    methods = {
        json.dumps(options): zoo.build("aepo_reach", **{k: v for k, v in (before | options).items() if k != "part"})
        for options in combinations()
    }
    kept = completed(path, methods, seeds_of("tuning_seeds"), measured)
    table = np.array(
        [[kept["runs"][key][cell]["error"] for cell in next(iter(kept["runs"].values()))] for key in methods]
    )
    held = (table <= PROTOCOL["held"]).sum(1)
    relative = np.median(table / table.min(0), axis=1)
    candidates = [i for i, key in enumerate(methods) if json.loads(key).get("part") == "end"]
    most = max(held[i] for i in candidates)
    best = min((i for i in candidates if held[i] >= most - 1), key=lambda i: relative[i])
    scores = {key: [int(h), float(r)] for key, h, r in zip(methods, held, relative, strict=True)}
    chosen = {k: v for k, v in json.loads(list(methods)[best]).items() if k != "part"}
    kept |= {"chosen": chosen, "cells_held_and_median_relative_error": scores}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(scores, indent=1), "\nchosen:", kept["chosen"])


def family() -> dict[str, Method]:
    """The methods that are judged."""
    chosen = json.loads((RESULTS / "reach_tuning.json").read_text())["chosen"]
    others = {
        name: zoo.build(options["method"], **{k: v for k, v in options.items() if k != "method"})
        for name, options in PROTOCOL["family"].items()
    }
    return {"reach": zoo.build("aepo_reach", **chosen), **others}


def verdict() -> None:
    """The protocol's four numbers, and every pair that was predicted wrongly."""
    found, expected = (
        json.loads((RESULTS / f"reach_{name}.json").read_text())["runs"] for name in ("test", "predicted")
    )
    limit, wrong, right, pairs = PROTOCOL["held"], [], 0, 0
    for name, cells in found.items():
        said = np.array([expected[name][cell]["error"] <= limit for cell in cells])
        held = np.array([numbers["error"] <= limit for numbers in cells.values()])
        right, pairs = right + int((said == held).sum()), pairs + len(said)
        wrong += [f"{name}: {cell}" for cell, a, b in zip(cells, said, held, strict=True) if a != b]
        print(f"{name}: held {held.mean():.3f}, predicted {said.mean():.3f}, of these held {held[said].mean():.3f}, "
              f"rightly predicted {(said == held).mean():.3f}")  # fmt: skip
    cells = json.loads((RESULTS / "reach_floor.json").read_text())["runs"]["reach"]
    known = [numbers["error_over_floor"] for numbers in cells.values()]
    # Where a step draws its prompts, their order is what no controller that sees entropies alone can know.
    unknown = [
        numbers["error"] / numbers["floor_order_unknown"] if "floor_order_unknown" in numbers else ratio
        for numbers, ratio in zip(cells.values(), known, strict=True)
    ]
    print(
        f"reach: error over floor in the median cell {np.median(unknown):.2f}; against a controller that knows which "
        f"prompts come next {np.median(known):.2f}"
    )
    print(f"pairs predicted rightly: {right / pairs:.3f} of {pairs}; wrongly:", *wrong, sep="\n  ")


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("tune", "test", "predict", "floor", "verdict"))
    match parser.parse_args().stage:
        case "tune":
            tune()
        case "test":
            completed(RESULTS / "reach_test.json", family(), seeds_of("test_seeds"), measured)
        case "predict":
            completed(RESULTS / "reach_predicted.json", family(), seeds_of("prediction_seeds"), predicted)
        case "floor":
            only = {"reach": family()["reach"]}
            completed(RESULTS / "reach_floor.json", only, seeds_of("test_seeds"), beside_floors)
        case "verdict":
            verdict()
