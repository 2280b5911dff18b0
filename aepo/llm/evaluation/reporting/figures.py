"""Curves over k, over training steps, and accuracy against the measured entropy."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aepo.llm.evaluation.reporting.estimates import Floats, interval
from aepo.llm.evaluation.reporting.tables import EvaluatedMethod

CROWD = 4
"""Curves up to which each has its band: more bands over the same problems cover each other."""


def _axes(count: int, *, height: float = 3.2) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = min(count, 3)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.4 * columns, height * rows), squeeze=False, layout="constrained"
    )
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    return figure, flat[:count]


def _by_benchmark(every: Sequence[EvaluatedMethod], mode: str) -> dict[str, list[EvaluatedMethod]]:
    """The methods that have the mode, by benchmark."""
    benchmarks = sorted({b for m in every for b, found in m.modes() if found == mode})
    return {b: [m for m in every if (b, mode) in m.modes()] for b in benchmarks}


def _styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Label -> how it looks in every panel; no two of thirty look the same."""
    from matplotlib import colormaps

    looks = itertools.cycle(itertools.product((("-", "o"), ("--", "s"), (":", "^")), colormaps["tab10"].colors))
    return {
        label: {"color": colour, "ls": line, "marker": marker}
        for label, ((line, marker), colour) in zip(dict.fromkeys(labels), looks, strict=False)
    }


def _curve(panel: Any, x: Sequence[int], values: Sequence[Floats], label: str, style: Any, *, banded: bool) -> Floats:
    """Means over problems, if banded with their 95 % bands; values: by x, each (P,). Returns half the bands' widths."""
    panel.plot(x, [v.mean() for v in values], ms=3, lw=1.2, label=label, **style)
    bands = np.array([interval(v) for v in values])
    if banded:
        panel.fill_between(x, bands[:, 0], bands[:, 1], alpha=0.15, lw=0, color=style["color"])
    return (bands[:, 1] - bands[:, 0]) / 2


def _save(figure: Any, axes: Sequence[Any], path: Path, *, left_out: Sequence[Floats] = ()) -> Path:
    """With one legend for all panels, beside them, and in words how wide the bands are that were left out."""
    from matplotlib import pyplot as plt

    named = {label: handle for panel in axes for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), fontsize=7, loc="outside right upper")
    if left_out:
        wide = float(np.median(np.concatenate(left_out)))
        text = f"95 % intervals over problems: ±{wide:.3f} (median), not drawn for more than {CROWD} curves"
        figure.supxlabel(text, fontsize=6, color="0.35")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def pass_curves(every: Sequence[EvaluatedMethod], path: Path, *, mode: str = "pass@k") -> Path | None:
    """pass@k against k, a panel a benchmark, with 95 % bands over problems; None without such a mode."""
    having = _by_benchmark(every, mode)
    if not having:
        return None
    styles = _styles(method.label for method in every)
    banded, widths = len(styles) <= CROWD, []
    figure, axes = _axes(len(having))
    for panel, (benchmark, those) in zip(axes, having.items(), strict=True):
        for method in those:
            ks = method.ks(benchmark, mode)
            values = [method.pass_at(benchmark, mode, k).to_numpy() for k in ks]
            widths.append(_curve(panel, ks, values, method.label, styles[method.label], banded=banded))
        panel.set(title=benchmark, xlabel="k", ylabel="pass@k")
        panel.set_xscale("log", base=2)
    return _save(figure, axes, path, left_out=() if banded else widths)


def pass_by_step(every: Sequence[EvaluatedMethod], path: Path, *, mode: str = "pass@k") -> Path | None:
    """pass@k at each benchmark's largest k against the training step; None where no label has several steps."""
    steps: dict[str, list[EvaluatedMethod]] = {}
    for method in every:
        if method.step is not None:
            steps.setdefault(method.label, []).append(method)
    curves = {label: sorted(ms, key=lambda m: m.step or 0) for label, ms in steps.items() if len(ms) > 1}
    having = _by_benchmark([m for ms in curves.values() for m in ms], mode)
    if not having:
        return None
    styles = _styles(curves)
    banded, widths = len(styles) <= CROWD, []
    figure, axes = _axes(len(having))
    for panel, (benchmark, those) in zip(axes, having.items(), strict=True):
        k = max(set.intersection(*(set(m.ks(benchmark, mode)) for m in those)))
        for label, ms in curves.items():
            mine = [m for m in ms if (benchmark, mode) in m.modes()]
            values = [m.pass_at(benchmark, mode, k).to_numpy() for m in mine]
            widths.append(_curve(panel, [m.step or 0 for m in mine], values, label, styles[label], banded=banded))
        panel.set(title=benchmark, xlabel="training step", ylabel=f"pass@{k}")
    return _save(figure, axes, path, left_out=() if banded else widths)


def accuracy_by_entropy(every: Sequence[EvaluatedMethod], path: Path, *, mode: str = "pass@1") -> Path | None:
    """Accuracy against measured entropy, a point a method, with 95 % intervals over problems."""
    having = _by_benchmark(every, mode)
    if not having:
        return None
    styles = _styles(method.label for method in every)
    figure, axes = _axes(len(having))
    for panel, (benchmark, those) in zip(axes, having.items(), strict=True):
        for method in those:
            values = method.accuracy(benchmark, mode).to_numpy()
            low, high = interval(values)
            at = "pass@k" if (benchmark, "pass@k") in method.modes() else mode
            entropy = method.mean(benchmark, at, "entropy")
            error = [[values.mean() - low], [high - values.mean()]]
            style = {**styles[method.label], "ls": ""}
            panel.errorbar(entropy, values.mean(), yerr=error, ms=4, capsize=2, label=method.label, **style)
        panel.set(title=benchmark, xlabel="entropy at T = 1 (nats)", ylabel="accuracy")
    return _save(figure, axes, path)
