"""Write a sweep's results, each file whole or not there."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from aepo import __version__, atomic
from aepo.tabular.options import Options
from aepo.tabular.plan import Configuration, Figure
from aepo.tabular.reporting.figures import draw
from aepo.tabular.reporting.findings import Finding, findings
from aepo.tabular.reporting.report import markdown
from aepo.tabular.reporting.summary import BAND, SLOPE_STEPS, Summary, summaries, tidy_table
from aepo.tabular.runner import FLOOR_SEEDS, Result

DEFINITIONS = {
    "entropy": "exact entropy of the policy at T = 1, nats, measured before the step's update",
    "last half": "the last half of the steps; a seed's number is the mean over them",
    "tracking_error": "mean |H - H*| over the last half of the steps, then over seeds, nats",
    "floor": "mean over states of the last half of the least expected |H - H*| at the next step within the method's "
    "limits, nats; on average at least the floor, floor_low at most (docs/simulator.md); null if not measured",
    "error_over_floor": f"tracking_error / floor over the seeds of the floor, the first {FLOOR_SEEDS}",
    "half_width_95": "half of a 95 % Student t interval over seeds; null for one seed",
    "slope": f"least squares over the first {SLOPE_STEPS} steps, nats per step",
    "time_in_band": f"share of the last half's steps with |H - H*| <= {BAND:g}",
    "settling_step": f"first step from which nine of ten have |H - H*| <= {BAND:g}, over the seeds that settle",
    "overshoot": "how far past the target after first reaching it, nats",
    "evaluation": "exact expectations under the trained policy at T = 1, cold_ at T = 0.1, by the true verdict; "
    "pass@k = 1 - (1 - p)^k",
    "control_samples": "responses per step sampled for control alone",
    "duty_up": "share of the last half's steps in which the controller pushed the entropy up",
    "normalizer": "how the second term is averaged, see aepo.normalizer",
    "runs.parquet": "every step of every run, none left out",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """A finished sweep."""

    options: Options
    figures: Sequence[Figure]
    experiments: Mapping[Configuration, str]
    results: Sequence[Result]

    @property
    def summaries(self) -> list[Summary]:
        """One per configuration and target."""
        return summaries(self.results, self.experiments)


def write(outcome: Outcome, elapsed: Callable[[], float]) -> list[Finding]:
    """Figures, `runs.parquet`, `summary.json` and `report.md` into the options' folder.

    Args:
        outcome: what was run.
        elapsed: seconds since the sweep began.

    Returns:
        The findings that the report states.
    """
    options, folder, numbers = outcome.options, outcome.options.out, outcome.summaries
    found = findings(numbers)
    table = tidy_table(outcome.results, outcome.experiments)
    with atomic.written(folder / "runs.parquet") as path:
        table.to_parquet(path, index=False)
    canvases = draw(outcome.figures, outcome.results, numbers, options)
    for figure, canvas in zip(outcome.figures, canvases, strict=True):
        # The command travels inside the picture too.
        about = {"Description": options.command}
        with atomic.written(folder / f"{figure.name}.png") as path:
            canvas.savefig(path, format="png", metadata=about)
    seconds = round(elapsed(), 1)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    # What None stood for.
    settings |= {"environment": options.where.name, "seeds": options.seed_count} | vars(options.training)
    content = {
        "command": options.command,
        "elapsed_s": seconds,
        "versions": versions(),
        "settings": settings,
        "seeds": list(range(options.seed_count)),
        "definitions": DEFINITIONS,
        "configurations": [one.as_json() for one in numbers],
        "findings": [vars(one) for one in found],
        "figures": [_about(figure) for figure in outcome.figures],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    atomic.write_text(folder / "summary.json", text)
    facts = {
        "command": f"`{options.command}`",
        "time": f"{seconds} s, {options.workers} processes",
        "environment": f"{options.where.name}: {options.where.about}",
        "seeds": f"0 to {options.seed_count - 1}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "figures": ", ".join(f"[{figure.name}]({figure.name}.png)" for figure in outcome.figures),
    }
    atomic.write_text(folder / "report.md", markdown(numbers, found, facts=facts, where=options.where))
    return found


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    packages = ("torch", "numpy", "scipy", "pandas", "matplotlib")
    return {"aepo": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


def _about(figure: Figure) -> dict[str, object]:
    curves = [
        {
            "method": curve.configuration.method,
            "label": curve.configuration.setting,
            "target": curve.target,
            "panel": panel.title,
        }
        for panel in figure.panels
        for curve in panel.curves
    ]
    return {"file": f"{figure.name}.png", "title": figure.title, "curves": curves}
