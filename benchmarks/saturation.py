"""How high can AEPO hold the entropy? The level at which it saturates, predicted and measured, setting by setting.

AEPO is given a target that no policy reaches, so that it pushes up in every step, and the mean entropy of the policy
over the last half of the run is the highest target that it can hold there. `aepo.tabular.reach.mean_run` predicts that
level from the world alone, without sampling. The grid was fixed before its first run.

    python benchmarks/saturation.py          # minutes: results/saturation.json and docs/saturation.png
    python benchmarks/saturation.py figure   # the picture alone
"""

import argparse
import itertools
import json
import platform
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from aepo import zoo
from aepo.over_seeds import estimate
from aepo.schedule import Constant
from aepo.tabular.reach import mean_run
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.bandit import bandit
from aepo.tabular.worlds.contextual import contextual
from aepo.tracking import last_half

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "saturation.json"
FIGURE = ROOT / "docs" / "saturation.png"
STEPS = 1000
SEEDS = range(7000, 7008)
UNREACHABLE = 10.0
"""Nats; ln 16 is the most that 16 actions have."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting."""

    world: str
    """`bandit`, one state and 64 samples a step, or `contextual`, 64 states and 8 samples of each asked one."""
    correct: int
    """|A*| of 16."""
    alpha: float
    t_high: float
    """Temperatures are t_high and 1 / t_high."""
    lr: float
    states_per_step: int | None = None

    @property
    def name(self) -> str:
        asked = "" if self.states_per_step is None else f", B={self.states_per_step}"
        return (
            f"{self.world}, |A*|={self.correct}, alpha {self.alpha:g}, T {1 / self.t_high:.2g}/{self.t_high:g}, "
            f"lr {self.lr:g}{asked}"
        )


def cases() -> Iterator[Case]:
    """The grid."""
    for correct, alpha, t_high, lr in itertools.product((2, 4, 8), (1.0, 4.0, 16.0), (1.2, 2.0), (1.0, 3.0, 10.0)):
        yield Case(world="contextual", correct=correct, alpha=alpha, t_high=t_high, lr=lr)
    for correct, alpha, t_high in itertools.product((2, 4, 8), (1.0, 4.0), (1.2, 2.0)):
        yield Case(world="contextual", correct=correct, alpha=alpha, t_high=t_high, lr=3.0, states_per_step=16)
    for correct, alpha, t_high, lr in itertools.product((4, 8), (1.0, 4.0), (1.2, 2.0), (0.3, 1.0)):
        yield Case(world="bandit", correct=correct, alpha=alpha, t_high=t_high, lr=lr)


def levels(case: Case) -> dict[str, float]:
    """The level that is predicted and the one that is measured, in nats."""
    torch.set_num_threads(1)
    seeds = list(SEEDS)
    if case.world == "bandit":
        world, group_size = bandit(seeds, correct=case.correct), 64
    else:
        world, group_size = contextual(seeds, fewest=case.correct, most=case.correct), 8
    settings = Settings(steps=STEPS, group_size=group_size, lr=case.lr, states_per_step=case.states_per_step)
    method = zoo.build("aepo", alpha=case.alpha, t_low=1 / case.t_high, t_high=case.t_high)
    ran = train(world, method, Constant(UNREACHABLE), seeds, settings)
    measured = estimate(last_half(ran.policy_entropy.numpy()).mean(-1))
    predicted = last_half(mean_run(world, method, settings, Constant(UNREACHABLE)).entropy.numpy()).mean()
    return {"predicted": float(predicted), "measured": measured.mean, "half_width_95": measured.half_width}


def draw(result: dict) -> None:
    """Predicted against measured levels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 5.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = result["cases"]
    markers = {("contextual", None): "o", ("contextual", 16): "s", ("bandit", None): "^"}
    for (world, asked), marker in markers.items():
        for i, correct in enumerate((2, 4, 8)):
            some = [r for r in rows if (r["world"], r["states_per_step"], r["correct"]) == (world, asked, correct)]
            if some:
                axes.errorbar(
                    [r["predicted"] for r in some],
                    [r["measured"] for r in some],
                    yerr=[r["half_width_95"] for r in some],
                    fmt=marker, color=f"C{i}", ms=4, lw=1, alpha=0.8,
                    label=f"{world}, |A*| = {correct}" + (f", B = {asked}" if asked else ""),
                )  # fmt: skip
    for correct in (2, 4, 8):
        axes.axvline(np.log(correct), color="0.85", lw=1, zorder=0)
    ends = [0, max(r["measured"] for r in rows) * 1.05]
    axes.plot(ends, ends, color="0.4", lw=1)
    axes.set(xlabel="predicted level (nats)", ylabel="measured level (nats), mean and 95 % interval over seeds")
    axes.set_title(
        f"The highest entropy that AEPO can hold: {len(rows)} settings,\n"
        f"mean absolute error {result['mean_absolute_error']:.3f} nats; grey: ln |A*|",
        fontsize=10,
    )
    axes.legend(fontsize=7)
    axes.grid(alpha=0.25, lw=0.5)
    figure.savefig(FIGURE, metadata={"Description": "python benchmarks/saturation.py"})


def run() -> dict:
    """Every setting of the grid, and the file."""
    every = list(cases())
    with ProcessPoolExecutor(mp_context=get_context("fork")) as pool:
        asked = {pool.submit(partial(levels, case)): case for case in every}
        found = {}
        for done in as_completed(asked):
            found[asked[done]] = done.result()
            print(f"{asked[done].name}: {done.result()}", flush=True)
    rows = [{"name": case.name, **asdict(case), **found[case]} for case in every]
    off = np.array([row["predicted"] - row["measured"] for row in rows])
    result = {
        "about": {
            "command": "python benchmarks/saturation.py",
            "device": f"CPU, {platform.machine()}, 1 thread a setting",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "steps": STEPS,
            "seeds": list(SEEDS),
        },
        "mean_absolute_error": float(np.abs(off).mean()),
        "largest_absolute_error": float(np.abs(off).max()),
        "within_0.1_nats": int((np.abs(off) <= 0.1).sum()),
        "cases": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("act", choices=("run", "figure"), nargs="?", default="run")
    torch.set_num_threads(1)
    result = run() if parser.parse_args().act == "run" else json.loads(RESULT.read_text())
    draw(result)
    print({key: value for key, value in result.items() if key not in ("cases", "about")})
