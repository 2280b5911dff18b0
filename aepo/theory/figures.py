"""Draw the three main claims and where they end: `python -m aepo.theory.figures` (Lemma 4.1, Theorem 4.3, Cor. 4.4).

Every curve is computed from the package's functions; random states come from a fixed seed, which the figure names.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aepo.theory.cases import low_temperature_loses_less, sequence_entropy_falls_with_temperature
from aepo.theory.drift import delta_entropy, delta_entropy_slope
from aepo.theory.sequences import token_entropy
from aepo.theory.softmax import Array, entropy, entropy_temperature_slope
from aepo.theory.threshold import contraction_bound, critical_temperature, slope_bound
from aepo.theory.variants import delta_entropy_normalised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SEED = 0
TEMPERATURES = np.geomspace(0.1, 10.0, 400)
STATES = ((3.0, 1.0, 0.0, -1.0), (4.0, 3.8, 0.0, 0.0, 0.0, 0.0), (1.0, 0.5, 0.0, -0.5, -1.0, -1.5, -2.0, -2.5))


def falling_states(count: int, rng: np.random.Generator, *, actions: int = 6) -> tuple[Array, NDArray[np.bool_]]:
    """Random states with Delta H(1) < 0 and several correct actions: logits and A*, both (count, actions)."""
    z = rng.normal(size=(20 * count, actions)) * rng.choice([0.5, 1.0, 2.0, 4.0], size=(20 * count, 1))
    correct = rng.random(z.shape) < 0.5
    chosen = (correct.sum(-1) > 1) & ~correct.all(-1)
    chosen[chosen] = delta_entropy(z[chosen], correct[chosen]) < -1e-4
    return z[chosen][:count], correct[chosen][:count]


def lemma_4_1() -> "Figure":
    """Entropy over temperature for single states, and the sequence policy in which it falls."""
    figure, (left, right) = _canvas("Lemma 4.1: dH/dT = Var(z) / T^3; false for the mean over a policy's own prefixes")
    for z in STATES:
        (line,) = left.plot(TEMPERATURES, entropy(np.array(z)[None], TEMPERATURES), label=f"z = {_short(z)}")
        for t in (0.4, 1.0, 2.5):
            h, slope = float(entropy(z, t)), float(entropy_temperature_slope(z, t))
            near = np.linspace(t / 1.4, t * 1.4, 30)  # straight in T, so curved on this axis
            left.plot(near, h + slope * (near - t), color=line.get_color(), lw=2.5, alpha=0.35)
    left.set(xscale="log", xlabel="temperature T", ylabel="H (nats)", title="one state; thick: the slope Var(z) / T^3")
    left.legend(fontsize=7)
    case = sequence_entropy_falls_with_temperature()
    levels = case.levels
    moving = [token_entropy(levels, t) for t in TEMPERATURES]
    fixed = [token_entropy(levels, t, prefix_temperature=1.0) for t in TEMPERATURES]
    right.plot(TEMPERATURES, moving, label="prefixes of the tempered policy (Def. B.1): falls")
    right.plot(TEMPERATURES, fixed, ls="--", label="prefixes held at T = 1: rises")
    right.set(xscale="log", xlabel="temperature T", ylabel="H (nats)", title="two tokens, the gallery's case")
    right.legend(fontsize=7)
    return figure


def theorem_4_3() -> "Figure":
    """The slope of Delta H against its bound, and Delta H over T with each state's threshold."""
    rng = np.random.default_rng(SEED)
    z, correct = falling_states(4000, rng)
    figure, (left, right) = _canvas("Theorem 4.3: where entropy falls, a higher temperature slows the fall")
    slope, bound = delta_entropy_slope(z, correct), slope_bound(z, correct)
    left.scatter(bound, slope, s=3, alpha=0.3, lw=0)
    edge = [bound.min(), bound.max()]
    left.plot(edge, edge, color="0.1", lw=1, label="(tau - m) |Delta H(1)|, the bound")
    left.set(xscale="log", yscale="log", xlabel="bound at T = 1", ylabel="d Delta H / dT at T = 1")
    left.set_title(f"{len(z):,} random states (seed {SEED}); least ratio {np.min(slope / bound):.3f}")
    left.legend(fontsize=7)
    for state, right_set in list(zip(z, correct, strict=True))[:8]:
        (line,) = right.plot(TEMPERATURES, delta_entropy(state, right_set, temperature=TEMPERATURES), lw=1)
        t0 = float(critical_temperature(state, right_set))
        if t0 <= TEMPERATURES[-1]:
            right.plot(t0, 0.0, "o", ms=4, color=line.get_color())
    right.axhline(0.0, color="0.1", lw=0.8)
    right.axvline(1.0, color="0.1", lw=0.8, ls=":")
    right.set(xscale="log", xlabel="temperature T", ylabel="Delta H(T) / lr (nats)")
    right.set_title("eight of them; dots: T0, the one change of sign")
    return figure


def corollary_4_4() -> "Figure":
    """Both halves: the hot one holds everywhere, the cold one near T = 1, or everywhere if averaged over A*."""
    rng = np.random.default_rng(SEED)
    z, correct = falling_states(12, rng)
    figure, (left, right) = _canvas("Corollary 4.4: the high half is global, the low half is not")
    hot = np.geomspace(1.0, 10.0, 200)
    for i, (state, right_set) in enumerate(zip(z, correct, strict=True)):
        base = abs(float(delta_entropy(state, right_set)))
        (line,) = left.plot(hot, delta_entropy(state, right_set, temperature=hot) / base, lw=1)
        bound = contraction_bound(state, right_set, temperature=hot) / base
        left.plot(hot, bound, lw=0.8, ls=":", color=line.get_color(), label=None if i else "dotted: lower bound")
    left.axhline(-1.0, color="0.1", lw=0.8)
    left.set(xscale="log", xlabel="temperature T >= 1", ylabel="Delta H(T) / |Delta H(1)|", ylim=(-1.1, 3.0))
    left.set_title(f"{len(z)} random states (seed {SEED})")
    left.legend(fontsize=7)
    case = low_temperature_loses_less()
    for name, function in (("over all samples (Eq. 4)", delta_entropy), ("over A* only", delta_entropy_normalised)):
        change = function(case.logits, case.correct, temperature=TEMPERATURES)
        right.plot(TEMPERATURES, change / abs(float(function(case.logits, case.correct))), label=f"averaged {name}")
    right.axhline(-1.0, color="0.1", lw=0.8)
    right.axvline(1.0, color="0.1", lw=0.8, ls=":")
    right.set(xscale="log", xlabel="temperature T", ylabel="Delta H(T) / |Delta H(1)|")
    right.set_title("the gallery's case: a very cold sampler loses less than T = 1")
    right.legend(fontsize=7)
    return figure


FIGURES = {"lemma_4_1": lemma_4_1, "theorem_4_3": theorem_4_3, "corollary_4_4": corollary_4_4}


def _canvas(title: str) -> "tuple[Figure, tuple[Axes, Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.grid(alpha=0.25, lw=0.5)
    return figure, (left, right)


def _short(z: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in z) + ")"


def main(arguments: list[str] | None = None) -> None:
    """Write one PNG per claim and print their paths."""
    parser = argparse.ArgumentParser(prog="python -m aepo.theory.figures", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/theory"), help="folder (default: %(default)s)")
    out: Path = parser.parse_args(arguments).out
    if importlib.util.find_spec("matplotlib") is None:
        # The theory imports nothing of aepo, so the name of the extra stands here too.
        print("error: this command needs matplotlib: pip install 'aepo-rl[sim]'", file=sys.stderr)
        raise SystemExit(2)
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        path = out / f"{name}.png"
        draw().savefig(path, metadata={"Description": "python -m aepo.theory.figures"})
        print(path)


if __name__ == "__main__":
    main()
