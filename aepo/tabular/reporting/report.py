"""The scoreboard, and the report in Markdown."""

from collections.abc import Mapping, Sequence

from aepo.over_seeds import Estimate
from aepo.tabular.reporting.findings import Finding
from aepo.tabular.reporting.summary import Summary
from aepo.tabular.worlds.environments import Environment

COLUMNS = ("experiment", "method", "H*", "H start", "H end", "mean H", "mean |H - H*|", "error / floor", "reward", "up")
"""The scoreboard's head; means and reward are over the last half."""

TRACKING = (
    "method",
    "H*",
    "max |H - H*|",
    "overshoot",
    "settles at",
    "seeds settled",
    "in band",
    "extra samples a step",
)
"""The head of the second table: how a target is followed."""

LEGEND = """\
± is half of a 95 % t interval over seeds. H is the exact entropy in nats before each step's update, H* its
target. Mean H, |H - H*| and the reward are averaged over the last half of the steps, then over seeds; `up` is
the share of those steps in which the controller pushed the entropy up. `error / floor` is mean |H - H*| in units
of what noise alone leaves: the least expected error at the next step that any controller can have which chooses
within the method's limits (docs/simulator.md). The normalizer says how AEPO's second
term is averaged: `all`, alpha times the mean over every tempered sample; `positives`, over those kept;
`replace`, each kept sample takes one row of the batch."""

MOST_TIMES = 1000
"""An error above so many floors is far from its target: by how much says mean |H - H*|."""

SECTIONS = {"holds": "Holds", "fails": "Fails", "warning": "Warnings"}


def row(summary: Summary, *, spread: bool) -> tuple[str, ...]:
    """One line of the scoreboard, with or without the intervals."""

    def shown(value: Estimate | None, digits: str) -> str:
        if value is None:
            return ""
        return format(value if spread else value.mean, digits)

    return (
        summary.experiment,
        summary.configuration.title,
        "" if summary.target is None else f"{summary.target:g}",
        f"{summary.entropy_start.mean:.3f}",
        shown(summary.entropy_final, ".3f"),
        shown(summary.entropy_last_half, ".3f"),
        shown(summary.tracking_error, ".4f"),
        _times(summary.error_over_floor),
        shown(summary.reward_last_half, ".4f"),
        "" if summary.duty_up is None else f"{summary.duty_up.mean:.0%}",
    )


def _times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.1f}" if ratio < MOST_TIMES else f"> {MOST_TIMES:,}"


def tracking_row(summary: Summary) -> tuple[str, ...]:
    """One line of the second table, for a run with a target."""
    return (
        summary.configuration.title,
        "" if summary.target is None else f"{summary.target:g}",
        *("" if value is None else format(value, ".3f") for value in (summary.worst_error, summary.overshoot)),
        "never" if summary.settling_step is None else f"{summary.settling_step.mean:.0f}",
        f"{summary.settled} of {summary.seeds}",
        "" if summary.time_in_band is None else f"{summary.time_in_band.mean:.0%}",
        str(summary.control_samples),
    )


def evaluation_table(summaries: Sequence[Summary]) -> list[str]:
    """The trained policies' exact evaluations, a column per number."""
    names = list(dict.fromkeys(name for s in summaries for name in s.evaluation))
    lines = [_line(("method", "H*", *names)), "|---|---|" + "---:|" * len(names)]
    for s in summaries:
        cells = (format(s.evaluation[name], ".4f") if name in s.evaluation else "" for name in names)
        lines.append(_line((s.configuration.title, "" if s.target is None else f"{s.target:g}", *cells)))
    return lines


def markdown(
    summaries: Sequence[Summary], found: Sequence[Finding], *, facts: Mapping[str, str], where: Environment
) -> str:
    """The whole report.

    Args:
        summaries: the scoreboard's rows.
        found: what to say about them.
        facts: what traces the numbers, such as the command, the seeds and the versions.
        where: the environment.
    """
    count = {verdict: sum(one.verdict == verdict for one in found) for verdict in SECTIONS}
    lines = [
        f"# Entropy control on {'the softmax bandit' if where.name == 'bandit' else where.name}",
        "",
        f"{count['holds']} claims hold, {count['fails']} fail, {count['warning']} warnings.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        LEGEND,
    ]
    for verdict, title in SECTIONS.items():
        if count[verdict]:
            lines += ["", f"## {title}", ""]
            lines += [f"- **{one.claim}.** {_sentence(one)}" for one in found if one.verdict == verdict]
    lines += ["", "## Scoreboard", "", _line(COLUMNS), "|---|---|" + "---:|" * (len(COLUMNS) - 2)]
    lines += [_line(row(summary, spread=True)) for summary in summaries]
    followed = [summary for summary in summaries if summary.tracking_error is not None]
    lines += ["", "## How the targets are followed", "", _line(TRACKING), "|---|---|" + "---:|" * (len(TRACKING) - 2)]
    lines += [_line(tracking_row(summary)) for summary in followed]
    lines += ["", "## What the trained policies are worth", "", *evaluation_table(summaries)]
    return "\n".join(lines) + "\n"


def _sentence(finding: Finding) -> str:
    return finding.evidence[0].upper() + finding.evidence[1:] + "."


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
