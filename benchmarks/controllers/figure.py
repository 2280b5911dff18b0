"""Draw what the controller comparison measured: the errors cell by cell, and the price in held-out reward.

python benchmarks/controllers/figure.py   # docs/controllers.png from benchmarks/results/controllers_test.json
"""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "controllers_test.json"
OUT = ROOT / "docs" / "controllers.png"
HELD = 0.05
"""Mean |H - H*| up to which a target counts as held, nats."""
WORSE = 1.2
"""The protocol's limit on the ratio of errors."""


def draw(result: dict) -> Figure:
    """Left: mean |H - H*| of ours against the tuned bang-bang's. Right: held-out reward where both hold the target."""
    ours, tuned = result["runs"]["ours"], result["runs"]["tuned"]
    noisy = set(result["verdict"]["tuned"]["left_out"])
    figure = Figure(figsize=(11, 4.6), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"aepo_adaptive against the tuned bang-bang AEPO, {len(ours)} cells, {len(result['seeds'])} seeds")
    left, right = figure.subplots(1, 2)
    for i, world in enumerate(sorted({cell.split(" ")[0].rstrip(",") for cell in ours})):
        cells = [cell for cell in ours if cell.split(" ")[0].rstrip(",") == world]
        for sure in (True, False):
            some = [cell for cell in cells if (cell not in noisy) == sure]
            left.scatter(
                [tuned[cell]["error"] for cell in some],
                [ours[cell]["error"] for cell in some],
                s=22,
                facecolors=f"C{i}" if sure else "none",
                edgecolors=f"C{i}",
                label=world if sure else None,
            )
        held = [cell for cell in cells if ours[cell]["error"] <= HELD and tuned[cell]["error"] <= HELD]
        right.scatter(
            [ours[cell]["entropy"] for cell in held],
            [ours[cell]["reward_held_out"] - tuned[cell]["reward_held_out"] for cell in held],
            s=22,
            color=f"C{i}",
            label=f"{world} ({len(held)} cells)",
        )
    ends = [min(c["error"] for side in (ours, tuned) for c in side.values()), left.get_xlim()[1]]
    left.plot(ends, ends, color="0.4", lw=1, label="equal")
    left.plot(ends, [WORSE * end for end in ends], color="0.4", lw=1, ls=":", label=f"{WORSE:g} x worse")
    left.set(xscale="log", yscale="log", xlabel="bang-bang, tuned: mean |H - H*| (nats)", ylabel="ours (nats)")
    left.set_title("below the line ours is closer; hollow: within noise", fontsize=10)
    right.axhline(0, color="0.4", lw=1)
    right.set(xlabel="mean H of ours, last half (nats)", ylabel="held-out reward, ours - bang-bang's")
    right.set_title(f"the price at equal entropy: cells where both hold H* within {HELD:g}", fontsize=10)
    for axes in (left, right):
        axes.grid(alpha=0.25, lw=0.5)
        axes.legend(fontsize=7)
    return figure


def main() -> None:
    about = json.loads(RESULT.read_text())
    versions = ", ".join(f"{name} {value}" for name, value in about["about"].items())
    description = f"python benchmarks/controllers/figure.py, from {RESULT.name} ({versions})"
    draw(about).savefig(OUT, metadata={"Description": description})
    print(OUT)


if __name__ == "__main__":
    main()
