"""The report's pictures: entropies over training, pass@k against k and against the step, and by level."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aepo import over_seeds
from aepo.llm.experiment.ladder.claims import Metric
from aepo.llm.experiment.ladder.results import Results
from aepo.llm.experiment.ladder.tables import MIDDLE_K, metrics
from aepo.over_seeds import Array

PREFIX = "ladder_"
"""Of every picture's name: another report lies in the same folder."""


def _panels(count: int) -> tuple[Any, Sequence[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * count, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path


def _colours(results: Results, arms: Iterable[str]) -> dict[str, Any]:
    """By its place in its stage, so that an arm has the same colour in every picture; stages with more than ten have
    pairs of a strong and a light one."""
    from matplotlib import colormaps

    found = {}
    for arm in arms:
        stage = results.protocol.stages[results.protocol.stage_of(arm)].arms
        palette = colormaps["tab10" if len(stage) <= 10 else "tab20"].colors
        found[arm] = palette[stage.index(arm) % len(palette)]
    return found


def entropies(results: Results, panels: Mapping[str, Sequence[str]], path: Path) -> Path:
    """Entropy against the step, targets dashed: a panel for each group of arms.

    Args:
        results: of the arms.
        panels: title -> arms.
        path: of the picture.
    """
    panels = {title: there for title, arms in panels.items() if (there := [arm for arm in arms if results.seeds(arm)])}
    figure, axes = _panels(len(panels))
    for axis, (title, arms) in zip(axes, panels.items(), strict=True):
        colours = _colours(results, arms)
        for arm in arms:
            runs = results.of(arm)
            values = np.array([run.curve["entropy"] for run in runs], dtype=float)
            over_seeds.draw(
                axis, runs[0].curve["step"], values, label=results.protocol.arms[arm].label, colour=colours[arm]
            )
            if "target" in runs[0].curve:
                axis.plot(runs[0].curve["step"], runs[0].curve["target"], ls="--", lw=0.6, color=colours[arm])
        axis.set(xlabel="training step", ylabel="entropy (nats)", ylim=(0, None))
        axis.set_title(textwrap.fill(title, 70), fontsize=8)
        axis.legend(fontsize=6, ncols=2)
    return _saved(figure, path)


def pass_curves(results: Results, arms: Sequence[str], path: Path) -> Path:
    """pass@k at T = 1 against k."""
    figure, (axis,) = _panels(1)
    most = results.protocol.evaluation.whole.samples
    ks = [2**power for power in range(most.bit_length()) if 2**power <= most]
    colours = _colours(results, arms)
    for arm in arms:
        values = np.array([[100 * run.counts["whole"].pass_at(k).mean() for k in ks] for run in results.of(arm)])
        over_seeds.draw(axis, ks, values, label=results.protocol.arms[arm].label, colour=colours[arm])
    axis.set_xscale("log", base=2)
    axis.set(xlabel="k", ylabel="pass@k (%)", ylim=(0, 101))
    axis.legend(fontsize=6, ncols=2)
    return _saved(figure, path)


def pass_by_step(results: Results, arms: Sequence[str], path: Path, *, base: str) -> Path:
    """pass@1 and pass@k of the checkpoints against the step; step 0 is the model before RL."""
    most = results.protocol.evaluation.checkpoints.samples
    figure, axes = _panels(2)
    colours = _colours(results, arms)
    for axis, k in zip(axes, (1, most), strict=True):
        for arm in arms:
            seeds = results.seeds(arm, base)
            curves = [_by_step(results, arm, base, seed, k) for seed in seeds]
            if curves:
                values = np.array([list(curve.values()) for curve in curves])
                label = results.protocol.arms[arm].label
                over_seeds.draw(axis, list(curves[0]), values, label=label, colour=colours[arm])
        axis.set(xlabel="training step", ylabel=f"pass@{k} (%)", ylim=(0, 101))
        axis.legend(fontsize=7)
    return _saved(figure, path)


def _by_step(results: Results, arm: str, base: str, seed: int, k: int) -> dict[int, float]:
    """Points by step, from the model before RL to the last one."""
    run = results.outcomes[arm, seed]
    counts = {
        0: results.outcomes[base, seed].counts["whole"], **run.checkpoints, results.protocol.steps: run.counts["whole"]
    }  # fmt: skip
    return {step: 100 * float(found.pass_at(k).mean()) for step, found in counts.items()}


def by_level(results: Results, arms: Sequence[str], path: Path) -> Path:
    """Both pass@1 and pass@k of all samples by the prompts' level."""
    chosen = [metric for metric in metrics(results) if metric != MIDDLE_K]
    figure, axes = _panels(len(chosen))
    levels, colours = results.levels(arms[0]), _colours(results, arms)
    names = sorted(set(levels))
    for axis, metric in zip(axes, chosen, strict=True):
        for arm in arms:
            values = _of_levels(results, arm, metric, levels, names)
            mean, half = over_seeds.band(values)
            # Beside each other, so that no interval hides another.
            place = np.arange(len(names)) + 0.06 * (list(arms).index(arm) - len(arms) / 2)
            axis.errorbar(
                place, mean, yerr=np.nan_to_num(half), fmt="o", ms=3, lw=1, color=colours[arm],
                label=results.protocol.arms[arm].label,
            )  # fmt: skip
        axis.set_xticks(range(len(names)), names)
        axis.set(ylabel=f"{metric} (%)", ylim=(-2, 102))
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right upper")
    return _saved(figure, path)


def _of_levels(results: Results, arm: str, metric: str, levels: Array, names: Sequence[str]) -> Array:
    """(seeds, levels) points."""
    passes = [run.passes(Metric.named(metric), results.protocol.evaluation) for run in results.of(arm)]
    return np.array([[100 * p[levels == name].mean() for name in names] for p in passes if p is not None])
