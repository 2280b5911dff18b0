"""`python -m aepo.llm.evaluation report RUN...`: the paper's tables and figures for any evaluated checkpoints."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from aepo.command import called
from aepo.errors import AepoError
from aepo.llm.evaluation.reporting import figures, published, tables
from aepo.llm.evaluation.reporting.tables import EvaluatedMethod, ReportError

NOTES = """\
Percent; 95 % intervals by bootstrap over problems. In brackets the difference to {baseline} on the same problems and
the p-value of a paired sign-flip test, of one comparison each: with m of them compare with 0.05 / m. Where a label has
several seeds, its numbers are averaged problem by problem; the intervals do not contain the spread over seeds, whose
lowest and highest stand in braces. An interval without width says that all problems agree, not that the figure is
certain.
"""


def write(every: Sequence[EvaluatedMethod], out: Path, *, baseline: str | None) -> list[Path]:
    """report.md and the pictures that these runs allow; what was written.

    Raises:
        ReportError: an unknown baseline, or runs on different problems.
    """
    labels = [method.label for method in every]
    if baseline is not None and baseline not in labels:
        raise ReportError(f"--baseline {baseline}: no run has this label, there are {', '.join(dict.fromkeys(labels))}")
    out.mkdir(parents=True, exist_ok=True)
    last = tables.latest(every)
    modes = {mode for method in last for _, mode in method.modes()}
    parts = ["# Evaluation\n", NOTES.format(baseline=baseline or "the baseline (none was named)")]
    if "pass@1" in modes:
        parts += ["## Methods and benchmarks (Table 1)\n", tables.table_1(last, baseline)]
    if "pass@k" in modes:
        parts += ["## pass@k (Table 2)\n", tables.table_2(last)]
    if "pass@1" in modes:
        parts += ["## Accuracy and measured entropy (Table 3)\n", tables.table_3(last)]
    drawn = [
        figures.pass_curves(last, out / "pass_at_k.png"),
        figures.pass_by_step(every, out / "pass_by_step.png"),
        figures.accuracy_by_entropy(last, out / "accuracy_by_entropy.png"),
    ]
    pictures = [path for path in drawn if path is not None]
    parts += [f"![{path.stem}]({path.name})\n" for path in pictures]
    if any(benchmark in published.BENCHMARKS for method in last for benchmark, _ in method.modes()):
        parts += [
            f"## Published, not measured here ({published.SOURCE})\n",
            tables.published_table(),
            "Printed averages that are not the mean of their row: "
            + "; ".join(
                f"{table}, {model} {method}: {average}"
                for (table, model, method), average in published.AVERAGES_THAT_DO_NOT_ADD_UP.items()
            )
            + ".\n",
        ]
    (out / "report.md").write_text("\n".join(parts))
    return [out / "report.md", *pictures]


def main(argv: Sequence[str]) -> int:
    """The command: 0, or 2 with the reason."""
    parser = argparse.ArgumentParser(prog=called("python -m aepo.llm.evaluation report"), allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished evaluations")
    parser.add_argument("--out", type=Path, default=Path("runs/report"), help="folder of the report")
    parser.add_argument("--baseline", help="label that the others are compared with")
    typed = parser.parse_args(list(argv))
    try:
        written = write(tables.methods([tables.read(f) for f in typed.runs]), typed.out, baseline=typed.baseline)
    except AepoError as error:
        print(f"error: {error}")
        return error.exit_code
    print("\n".join(map(str, written)))
    return 0
