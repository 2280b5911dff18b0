"""Draw a plan's figures: mean over seeds with its 95 % band, targets dashed, settings named on the page."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.typing import ColorType

from aepo import over_seeds
from aepo.tabular.options import Options
from aepo.tabular.plan import Configuration, Curve, Figure, Panel
from aepo.tabular.reporting.findings import slopes_sentence
from aepo.tabular.reporting.summary import Summary
from aepo.tabular.runner import Result

# Targets run from dark to light, coefficients from blue to yellow; others take the list; GRPO is black.
TARGET_COLOURS = matplotlib.colormaps["viridis"]
FAMILY_COLOURS = matplotlib.colormaps["plasma"]
FRONTIERS = ("reward_held_out", "pass@64")
FRONTIER_MARKERS = "osD^vP"
FRONTIER_COLOURS = matplotlib.colormaps["tab10"]
OTHER_COLOURS = ("#d62728", "#1f77b4", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2")

PANEL_WIDTH, PANEL_HEIGHT, DPI = 6.4, 4.3, 150
# Two columns of 8-point labels of this length fit under a panel; longer ones get a line each.
SHORT_LABEL = 46
TITLE_WIDTH, FOOTER_WIDTH = 96, 118


def draw(
    figures: Sequence[Figure], results: Sequence[Result], summaries: Sequence[Summary], options: Options
) -> list[Canvas]:
    """One canvas per figure, drawn with the Agg backend whatever the environment says.

    Args:
        figures: the plan.
        results: every configuration of the plan.
        summaries: of the same configurations.
        options: for the titles and the footer.
    """
    by_configuration = {result.configuration: result for result in results}
    by_curve = {Curve(configuration=s.configuration, target=s.target): s for s in summaries}
    return [_draw(figure, by_configuration, by_curve, options) for figure in figures]


def _draw(
    figure: Figure,
    results: Mapping[Configuration, Result],
    summaries: Mapping[Curve, Summary],
    options: Options,
) -> Canvas:
    columns = min(2, len(figure.panels))
    rows = -(-len(figure.panels) // columns)
    # A frontier's legend names methods, three a line; the others name curves.
    entries = [
        len({curve.configuration for curve in panel.curves}) / 3 if panel.shows in FRONTIERS else len(panel.curves)
        for panel in figure.panels
    ]
    legend = max(entries) * 0.18
    size = (1.2 + PANEL_WIDTH * columns, 1.1 + (PANEL_HEIGHT + legend) * rows)
    canvas = Canvas(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(canvas)
    same_scale = len({panel.shows for panel in figure.panels}) == 1
    axes = canvas.subplots(rows, columns, squeeze=False, sharey=same_scale)
    for panel, ax in zip(figure.panels, axes.flat, strict=False):
        if panel.shows in FRONTIERS:
            _draw_frontier(panel, ax, summaries)
        else:
            _draw_panel(panel, ax, results, summaries)
    for panel, ax in zip(figure.panels, axes.flat, strict=False):
        # After every panel is drawn, so that a shared scale covers them all.
        if panel.shows == "entropy":
            ax.set_ylim(bottom=0.0)
        ax.tick_params(labelleft=True)
    for ax in list(axes.flat)[len(figure.panels) :]:
        ax.set_axis_off()
    canvas.suptitle(figure.title + _overridden(options), fontsize=13)
    canvas.supxlabel(textwrap.fill(_footer(options), FOOTER_WIDTH * columns), fontsize=8, color="0.35")
    return canvas


def _draw_panel(
    panel: Panel, ax: Axes, results: Mapping[Configuration, Result], summaries: Mapping[Curve, Summary]
) -> None:
    colours = _colours(panel.curves)
    labels = {curve: _label(curve, summaries[curve], panel) for curve in panel.curves}
    last = 1
    for curve in panel.curves:
        index = 0 if curve.target is None else curve.configuration.targets.index(curve.target)
        values = getattr(results[curve.configuration], panel.shows)[index]
        steps = np.arange(values.shape[1])
        last = max(last, len(steps) - 1)
        over_seeds.draw(ax, steps, values, label=labels[curve], colour=colours[curve])
        if panel.shows == "entropy" and curve.configuration.schedule is not None:
            ax.plot(steps, results[curve.configuration].goal[0], color="0.1", ls=(0, (5, 4)), lw=0.8, zorder=3)
        elif panel.shows == "entropy" and curve.target is not None:
            ax.axhline(curve.target, color="0.1", ls=(0, (5, 4)), lw=0.8, zorder=3)
    title = "\n".join(textwrap.fill(line, TITLE_WIDTH) for line in panel.title.split("\n"))
    if panel.slopes:
        title += "\n" + textwrap.fill(slopes_sentence([summaries[curve] for curve in panel.curves]), TITLE_WIDTH)
    ax.set_title(title, fontsize=9.5)
    ax.set_xlabel("training step")
    ax.set_ylabel("entropy H (nats)" if panel.shows == "entropy" else "mean reward of the T = 1 samples")
    ax.set_xlim(0, last)
    ax.grid(alpha=0.25, lw=0.5)
    columns = 2 if max(map(len, labels.values())) <= SHORT_LABEL else 1
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, fontsize=8, frameon=False)


def _draw_frontier(panel: Panel, ax: Axes, summaries: Mapping[Curve, Summary]) -> None:
    """What the trained policy is worth against the entropy it was held at: one point per curve, a line per method."""
    families: dict[Configuration, list[Summary]] = {}
    for curve in panel.curves:
        families.setdefault(curve.configuration, []).append(summaries[curve])
    # Several strengths of one method can only be told apart by their settings.
    names = [configuration.name for configuration in families]
    for i, (configuration, group) in enumerate(families.items()):
        group = sorted(group, key=lambda s: s.entropy_last_half.mean)
        value = [s.evaluation[panel.shows] for s in group]
        ax.errorbar(
            [s.entropy_last_half.mean for s in group],
            [v.mean for v in value],
            yerr=[v.half_width for v in value],
            # Colours repeat after ten; the marker tells those apart.
            fmt=FRONTIER_MARKERS[i // 10] + "-",
            ms=4,
            lw=1,
            elinewidth=0.6,
            color=FRONTIER_COLOURS(i % 10),
            label=configuration.name if names.count(configuration.name) == 1 else configuration.title,
        )
    ax.set_title(panel.title, fontsize=9.5)
    ax.set_xlabel("mean entropy over the last half (nats)")
    ax.set_ylabel("held-out reward" if panel.shows == "reward_held_out" else "held-out pass@64")
    ax.grid(alpha=0.25, lw=0.5)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, fontsize=7, frameon=False)


def _label(curve: Curve, summary: Summary, panel: Panel) -> str:
    """The curve's name, shortened where the panel's title has it already, and the number that matters."""
    configuration = curve.configuration
    titled = bool(configuration.setting) and configuration.setting in panel.title
    goal = "" if curve.target is None else f"H* = {curve.target:g}"
    name = goal if titled and goal else ", ".join(filter(None, (configuration.title, goal)))
    if configuration.schedule is not None:
        # The panel shows the schedule; the settings are those of the other figures.
        name = configuration.name
    if panel.shows == "reward":
        return f"{name}: {summary.reward_last_half.mean:.4f} over the last half"
    if summary.tracking_error is None:
        return f"{name}: ends at {summary.entropy_final.mean:.3f}"
    duty = "" if summary.duty_up is None else f", up {summary.duty_up.mean:.0%}"
    return f"{name}: mean |H - H*| {summary.tracking_error.mean:.3f}{duty}"


def _colours(curves: Sequence[Curve]) -> dict[Curve, ColorType]:
    targets = sorted({curve.target for curve in curves if curve.target is not None})
    plain = [curve for curve in curves if curve.target is None and curve.configuration.method != "grpo"]
    # Curves of one method that differ in a number only, such as a coefficient, are an ordered family.
    family = len(plain) > 3 and len({curve.configuration.method for curve in plain}) == 1
    controlled = list(dict.fromkeys(curve.configuration for curve in curves if curve.target is not None))
    found: dict[Curve, ColorType] = {}
    for curve in curves:
        if curve.target is not None and len(controlled) == 1:
            place = targets.index(curve.target) / (len(targets) - 1) if len(targets) > 1 else 0.6
            found[curve] = TARGET_COLOURS(0.08 + 0.75 * place)
        elif curve.target is not None:
            place = controlled.index(curve.configuration) / len(controlled) + targets.index(curve.target) / (
                len(controlled) * len(targets)
            )
            found[curve] = TARGET_COLOURS(0.95 * place)
        elif curve.configuration.method == "grpo":
            found[curve] = "black"
        elif family:
            found[curve] = FAMILY_COLOURS(0.9 * plain.index(curve) / (len(plain) - 1))
        else:
            found[curve] = OTHER_COLOURS[plain.index(curve) % len(OTHER_COLOURS)]
    return found


def _overridden(options: Options) -> str:
    changed = ", ".join(f"{name} = {value}" for name, value in options.overrides.items())
    return f"\n(not the paper's values: {changed})" if changed else ""


def _footer(options: Options) -> str:
    training, seeds = options.training, options.seed_count
    samples = f"G = {training.group_size} samples per prompt and branch"
    several = f"mean and 95 % t interval over {seeds} seeds" if seeds > 1 else "one seed"
    where = f"{options.where.name}: {options.where.about}"
    if options.where.name == "bandit":
        where = f"softmax bandit, K = {options.actions}, |A*| = {options.correct} unless named otherwise"
    return (
        f"{where}, {'exact expectations' if options.exact else samples}, lr = {training.lr:g}, "
        f"controller sees {options.sees} H; "
        f"{several}; dashed: targets; |H - H*| and up (share of steps that push the entropy up): last half"
    )
