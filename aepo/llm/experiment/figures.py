"""The paper's Figs. 1 to 4 from the runs: entropy against the training step, mean and 95 % t interval over seeds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aepo import over_seeds
from aepo.llm.experiment import arms
from aepo.llm.experiment.arms import Arm
from aepo.llm.experiment.runs import Plan

WINDOW = 10
"""Steps that a curve is averaged over; one step's estimate is noisy."""


def draw(plan: Plan, targets: Sequence[float]) -> list[Path]:
    """fig1.png to fig4.png; what was written."""
    held = arms.aepo(targets)
    wanted = {
        "fig1": (held, "AEPO: one parameter sets the level"),
        "fig2": ((arms.GRPO, *arms.reinforce()), "REINFORCE on tempered samples only"),
        "fig3": ((arms.GRPO, arms.ENTROPY_REG, *arms.bonuses(), held[0]), "Entropy regularization and AEPO"),
        "fig4": ((arms.GRPO, arms.ENTROPY_REG, arms.ENTROPY_ADV, held[0]), "AEPO and the baselines"),
    }
    return [_curves(plan, those, title, plan.out / f"{name}.png") for name, (those, title) in wanted.items()]


def _curves(plan: Plan, those: Sequence[Arm], title: str, path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for arm in those:
        entropy = smoothed(plan.curve(arm))
        step = np.arange(entropy.shape[1]) + WINDOW / 2
        colour = over_seeds.draw(axes, step, entropy, label=arm.label)
        if arm.target is not None:
            axes.axhline(arm.target, ls="--", lw=0.8, color=colour)
    spread = f"mean and 95 % t interval over {plan.seeds} seeds" if plan.seeds > 1 else "one seed"
    axes.set(xlabel="training step", ylabel="entropy (nats)", ylim=(0, None))
    axes.set_title(f"{title}\nwalk task, {spread}, averaged over {WINDOW} steps; dashed: H*", fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def smoothed(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Means over a sliding window: (N, S) -> (N, S - window + 1), or the mean alone where S is shorter.

    >>> smoothed(np.array([[1.0, 3.0, 5.0]]), window=2)
    array([[2., 4.]])
    """
    window = min(window, values.shape[1])
    return np.lib.stride_tricks.sliding_window_view(values, window, axis=1).mean(-1)
