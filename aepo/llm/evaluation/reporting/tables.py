"""Tables 1 to 3 of the paper for any runs, as Markdown: methods x benchmarks, pass@k, entropy beside accuracy.

Several runs of one label and step are seeds of one method: their numbers are averaged problem by problem, and intervals
and p-values are over problems.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aepo.errors import AepoError
from aepo.llm.evaluation.reporting import published
from aepo.llm.evaluation.reporting.estimates import Comparison, compared, interval, pass_by_problem

COLUMNS = ["benchmark", "mode", "problem", "reward", "mean_entropy", "response_tokens"]


class ReportError(AepoError, ValueError):
    """Runs that cannot be reported together; the message names the folder and the cure."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One evaluated checkpoint."""

    folder: Path
    label: str
    step: int | None
    results: dict[str, Any]
    samples: pd.DataFrame
    """COLUMNS of samples.parquet."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedMethod:
    """What shares a label and a step: the seeds of one method."""

    label: str
    runs: Sequence[Run]

    @property
    def step(self) -> int | None:
        return self.runs[0].step

    def modes(self) -> set[tuple[str, str]]:
        """(benchmark, mode) pairs that every seed has."""
        return set.intersection(*({(b, m) for b, ms in r.results["benchmarks"].items() for m in ms} for r in self.runs))

    def by_seed(self, benchmark: str, mode: str, k: int | None = None) -> pd.DataFrame:
        """Share of right samples, or pass@k, of each problem (rows) under each seed (columns).

        Raises:
            ReportError: seeds with other problems.
        """
        found = []
        for run in self.runs:
            rows = run.samples[(run.samples.benchmark == benchmark) & (run.samples["mode"] == mode)]
            right = (rows.reward > 0).groupby(rows.problem).sum().sort_index()
            n = len(rows) // max(1, len(right))
            values = right / n if k is None else pass_by_problem(right.to_numpy(), samples=n, k=k)
            found.append(pd.Series(values, index=right.index))
        first = found[0].index
        for run, series in zip(self.runs[1:], found[1:], strict=True):
            if not series.index.equals(first):
                raise ReportError(
                    f"{run.folder}: its problems of {benchmark} are not those of {self.runs[0].folder}; evaluate both "
                    "on the same rows"
                )
        return pd.concat(found, axis=1, keys=range(len(found)))

    def accuracy(self, benchmark: str, mode: str) -> pd.Series:
        """avg@n by problem, averaged over seeds."""
        return self.by_seed(benchmark, mode).mean(axis=1)

    def pass_at(self, benchmark: str, mode: str, k: int) -> pd.Series:
        """pass@k by problem, averaged over seeds."""
        return self.by_seed(benchmark, mode, k).mean(axis=1)

    def mean(self, benchmark: str, mode: str, figure: str) -> float:
        """A number of results.json, averaged over seeds."""
        return float(np.mean([run.results["benchmarks"][benchmark][mode][figure] for run in self.runs]))

    def ks(self, benchmark: str, mode: str) -> list[int]:
        """The k that every seed has."""
        sets = [set(map(int, run.results["benchmarks"][benchmark][mode]["pass"])) for run in self.runs]
        return sorted(set.intersection(*sets))


def read(folder: Path) -> Run:
    """A run folder.

    Raises:
        ReportError: no results there, or files that cannot be read.
    """
    for name in ("results.json", "samples.parquet"):
        if not (folder / name).is_file():
            raise ReportError(
                f"{folder}: no {name}; finish the evaluation (the same command goes on where it was), or name another "
                "folder"
            )
    try:
        results = json.loads((folder / "results.json").read_text())
        samples = pd.read_parquet(folder / "samples.parquet", columns=COLUMNS)
        return Run(folder=folder, label=results["label"], step=results["step"], results=results, samples=samples)
    except (OSError, ValueError, KeyError) as error:
        raise ReportError(f"{folder}: not readable as an evaluation: {type(error).__name__}: {error}") from error


def methods(runs: Sequence[Run]) -> list[EvaluatedMethod]:
    """Seeds put together, in the order in which their labels came.

    Raises:
        ReportError: two runs of one label that have the same seed.
    """
    found: dict[tuple[str, int | None], list[Run]] = {}
    for run in runs:
        same = found.setdefault((run.label, run.step), [])
        twins = [other for other in same if other.results.get("seed") == run.results.get("seed")]
        if twins:
            raise ReportError(
                f"{run.folder} and {twins[0].folder} have the same label {run.label!r} and seed "
                f"{run.results.get('seed')}: give one another --label"
            )
        same.append(run)
    return [EvaluatedMethod(label=label, runs=tuple(same)) for (label, _), same in found.items()]


def latest(every: Sequence[EvaluatedMethod]) -> list[EvaluatedMethod]:
    """Of each label the last step, which is what the tables show."""
    last: dict[str, EvaluatedMethod] = {}
    for method in every:
        known = last.get(method.label)
        if known is None or (method.step or 0) >= (known.step or 0):
            last[method.label] = method
    return list(last.values())


def against(baseline: EvaluatedMethod, method: EvaluatedMethod, benchmark: str, mode: str) -> Comparison:
    """The method against the baseline on the same problems.

    Raises:
        ReportError: other problems.
    """
    first, second = baseline.accuracy(benchmark, mode), method.accuracy(benchmark, mode)
    if not first.index.equals(second.index):
        raise ReportError(
            f"{method.runs[0].folder}: its problems of {benchmark} are not those of {baseline.runs[0].folder}, so they "
            "cannot be compared in pairs; evaluate both on the same rows"
        )
    return compared(first.to_numpy(), second.to_numpy())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells hold no line ends."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _share(by_seed: pd.DataFrame) -> str:
    """Mean and interval over problems; of several seeds also the lowest and the highest."""
    values = by_seed.mean(axis=1)
    low, high = interval(values.to_numpy())
    whole = f"{100 * values.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    seeds = 100 * by_seed.mean()
    return whole if len(seeds) == 1 else f"{whole} {{{seeds.min():.1f} to {seeds.max():.1f}}}"


def _benchmarks(every: Sequence[EvaluatedMethod], mode: str) -> list[str]:
    named = {b for m in every for b, found in m.modes() if found == mode}
    known = [b for b in published.BENCHMARKS if b in named]
    return known + sorted(named - set(known))


def table_1(every: Sequence[EvaluatedMethod], baseline: str | None, *, mode: str = "pass@1") -> str:
    """Methods x benchmarks: accuracy in percent with its interval, differences to the baseline with their p-values."""
    columns = _benchmarks(every, mode)
    base = next((m for m in every if m.label == baseline), None)
    rows = []
    for method in every:
        cells, values = [], []
        for benchmark in columns:
            if (benchmark, mode) not in method.modes():
                cells.append("")
                continue
            by_seed = method.by_seed(benchmark, mode)
            values.append(by_seed.to_numpy().mean())
            cell = _share(by_seed)
            if base is not None and method is not base and (benchmark, mode) in base.modes():
                found = against(base, method, benchmark, mode)
                cell += f" ({100 * found.difference:+.1f}, p {found.p_value:.2g})"
            cells.append(cell)
        whole = f"{100 * np.mean(values):.2f}" if len(values) == len(columns) else ""
        rows.append([method.label, str(len(method.runs)), *cells, *([whole] if len(columns) > 1 else [])])
    return markdown(["method", "seeds", *columns, *_average(columns)], rows)


def table_2(every: Sequence[EvaluatedMethod], *, mode: str = "pass@k", largest: int = 2) -> str:
    """pass@k in percent with intervals, for the largest k of each benchmark that all methods have."""
    columns = []
    for benchmark in _benchmarks(every, mode):
        having = [m for m in every if (benchmark, mode) in m.modes()]
        ks = sorted(set.intersection(*(set(m.ks(benchmark, mode)) for m in having)))
        columns += [(benchmark, k) for k in ks[-largest:]]
    rows = [
        [
            method.label,
            *(_share(method.by_seed(b, mode, k)) if (b, mode) in method.modes() else "" for b, k in columns),
        ]
        for method in every
    ]
    return markdown(["method", *(f"{b} pass@{k}" for b, k in columns)], rows)


def table_3(every: Sequence[EvaluatedMethod], *, mode: str = "pass@1", entropy_mode: str = "pass@k") -> str:
    """Accuracy beside the entropy that was measured: nats per token at T = 1, response length, the share that ended."""
    columns = _benchmarks(every, mode)
    rows = []
    for method in every:
        have = [b for b in columns if (b, mode) in method.modes()]
        at = [(b, entropy_mode if (b, entropy_mode) in method.modes() else mode) for b in have]
        cells = [f"{100 * method.accuracy(b, mode).mean():.1f}" if b in have else "" for b in columns]
        average = f"{100 * np.mean([method.accuracy(b, mode).mean() for b in have]):.2f}" if have == columns else ""
        measured = [
            f"{np.mean([method.mean(b, m, figure) for b, m in at]):{form}}" if at else ""
            for figure, form in (("entropy", ".3f"), ("response_tokens", ".1f"), ("ended", ".3f"))
        ]
        rows.append([method.label, *cells, *([average] if len(columns) > 1 else []), *measured])
    return markdown(["method", *columns, *_average(columns), "entropy", "response tokens", "ended"], rows)


def _average(columns: Sequence[str]) -> list[str]:
    """One benchmark is its own average."""
    return ["average"] if len(columns) > 1 else []


def published_table(model: str | None = None) -> str:
    """The paper's Tables 1 and 3 as printed, marked as theirs."""
    rows = [
        [f"{row.model} {row.method}", table, *(f"{v:g}" for v in row.values), f"{row.average:.2f}"]
        for table, lines in (("Table 1", published.TABLE_1), ("Table 3", published.TABLE_3))
        for row in lines
        if model is None or row.model == model
    ]
    return markdown(["as printed", "in", *published.BENCHMARKS, "average"], rows)
