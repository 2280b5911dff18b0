"""`aepo experiment --task ladder`: run what is asked for, or write the report of what has run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aepo.llm.experiment.ladder import plan, protocol
from aepo.llm.experiment.ladder.protocol import Protocol
from aepo.llm.experiment.side_by_side import Job
from aepo.llm.settings.presets import FOLDER

if TYPE_CHECKING:
    from aepo.llm.experiment.ladder.results import Results

CHECKOUT = FOLDER.parent if FOLDER.name == "configs" and (FOLDER.parent / "benchmarks").is_dir() else None
"""The folder of the sources, where the package lies in one; there the committed results and the report are."""
WORKING = Path("runs/ladder")
AGAIN = "_other_rounding"
"""What follows the name of the folder of results where runs that were made once more are, by `--results`."""


def results_folder(out: Path) -> Path:
    """Where files of runs are if nobody says so."""
    return out / "results" if CHECKOUT is None else CHECKOUT / "benchmarks" / "results" / "ladder"


def report_folder() -> Path:
    """Where the page is if nobody says so."""
    return WORKING if CHECKOUT is None else CHECKOUT / "docs" / "experiment"


def made_again(protocol: Protocol, results: Path) -> "Results | None":
    """The runs that were made once more, in the folder beside that of the results; None where there is none.

    Raises:
        SettingsError: a file that is none of a run, or is of other settings than the protocol's.
    """
    from aepo.llm.experiment.ladder import results as files

    beside = results.with_name(f"{results.name}{AGAIN}")
    return files.read(protocol, beside) if beside.is_dir() else None


def main(
    *,
    stage: str | None,
    arms: Sequence[str],
    seeds: int | None,
    jobs: int,
    out: Path | None,
    results: Path | None,
    report: bool,
    file: Path | None,
) -> list[Job]:
    """Run what lacks its file, or with `report` write the page.

    Args:
        stage, arms, seeds: as `aepo.llm.experiment.ladder.plan.runs_of` takes them.
        jobs: processes at the same time; 0: the cores.
        out: of working folders, or of the page.
        results: of the files of runs.
        report: whether the page is written instead.
        file: of another protocol than the committed one.

    Returns:
        The runs that failed.

    Raises:
        AepoError: what cannot be run.
    """
    from aepo.llm.experiment.ladder import report as page
    from aepo.llm.experiment.ladder import results as files
    from aepo.llm.experiment.ladder import running

    chosen = protocol.read() if file is None else protocol.read(file)
    results = results or results_folder(out or WORKING)
    if report:
        print(page.write(files.read(chosen, results), out or report_folder(), again=made_again(chosen, results)))
        return []
    runs = plan.runs_of(chosen, stage=stage, arms=arms, seeds=seeds)
    failed = running.run(
        chosen, runs, out=out or WORKING, results=results, parallel=jobs or len(os.sched_getaffinity(0))
    )
    if failed:
        return failed
    for line in page.spoken(files.read(chosen, results), list(dict.fromkeys(arm for arm, _ in runs))):
        print(line)
    return []
