"""entropy.png: what the controller does, while it does it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aepo import atomic
from aepo.llm.records.metrics import HELD_OUT
from aepo.method import Method

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTTED = ("step", "entropy", "target", "temperature", "reward")
"""The metrics that are drawn of every step."""


def drawn(row: Mapping[str, Any]) -> dict[str, Any]:
    """What the picture shows of a step: PLOTTED, and the figures of an evaluation if it made one.

    >>> drawn({name: 0 for name in PLOTTED} | {"loss": 1, "held_out/pass@1": 0.5})["held_out/pass@1"]
    0.5
    """
    return {name: row[name] for name in PLOTTED} | {
        name: value for name, value in row.items() if name.startswith(HELD_OUT)
    }


def entropy_figure(rows: Sequence[Mapping[str, Any]], method: Method) -> "Figure":
    """Measured and target entropy, the reward, and for a method that is controlled the temperature.

    Held-out pass@k stands beside the reward where a run evaluates while it goes on.

    Args:
        rows: metrics as `drawn` leaves them, a step each.
        method: names the picture.
    """
    # Without pyplot, which would keep the figure and choose a backend for the whole process.
    from matplotlib.figure import Figure

    # Margins by hand: a layout engine takes three times as long as the drawing, and training waits.
    figure = Figure(figsize=(7, 6))
    panels = 3 if method.controlled else 2
    top, reward, *rest = figure.subplots(
        panels,
        1,
        sharex=True,
        height_ratios=[3, 1, 1][:panels],
        gridspec_kw={"left": 0.1, "right": 0.97, "top": 0.94, "bottom": 0.08, "hspace": 0.08},
    )
    step = [row["step"] for row in rows]
    top.plot(step, [row["entropy"] for row in rows], label="measured H")
    if method.controlled:
        top.plot(step, [row["target"] for row in rows], "k--", lw=1, label="target H*")
        rest[0].step(step, [row["temperature"] for row in rows], lw=0.8, where="post")
        rest[0].axhline(1.0, color="0.7", lw=0.6)
        rest[0].set(ylabel="T")
    top.set(ylabel="entropy (nats)", title=f"{method.name} {method.label}".strip(), ylim=(0, None))
    top.legend()
    reward.plot(step, [row["reward"] for row in rows], lw=0.8, color="C2")
    reward.set(ylabel="reward")
    passed = list(dict.fromkeys(name for row in rows for name in row if name.startswith(HELD_OUT)))
    for i, name in enumerate(passed):
        points = [(row["step"], row[name]) for row in rows if name in row]
        label = f"held-out {name.removeprefix(HELD_OUT)}"
        reward.plot(*zip(*points, strict=True), ".-", lw=0.8, ms=4, color=f"C{i + 3}", label=label)
    if passed:
        reward.legend(fontsize="x-small", ncols=len(passed))
    (rest[-1] if rest else reward).set(xlabel="step")
    figure.align_ylabels()
    return figure


def plot_entropy(path: Path, rows: Sequence[Mapping[str, Any]], method: Method) -> None:
    """`entropy_figure` as a PNG; whoever looks never sees half a picture."""
    with atomic.written(path) as beside:
        entropy_figure(rows, method).savefig(beside, dpi=110, format="png")
