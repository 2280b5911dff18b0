"""Everything of the project that a GPU can show, in one command of under ten minutes; run it first on a new machine.

    python -m aepo.llm.gpu_check                    # every stage
    python -m aepo.llm.gpu_check --stages kernels   # stage about, and this one

Each stage has a process and a time limit of its own, and none stops the next: one that dies is a row of the table. The
time that a stage does not use, or that was not asked for, the next may take. torch, triton, transformers and pytest are
enough, from a bare checkout; what else is missing is named in the table together with what is left out for it. Packages
in a folder (`pip install --target FOLDER`) are found by PYTHONPATH.
Without a CUDA device each stage does its small form for a CPU, or says why it has none.

Writes results.json, table.md and log.txt. Exit code 0: no stage failed; 1: some stage failed; 2: a wrong command line.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aepo.command import called
from aepo.llm.gpu_check import packages
from aepo.llm.gpu_check.running import Outcome, run
from aepo.llm.gpu_check.stages import ABOUT, STAGES, Stage
from aepo.llm.gpu_check.table import Results


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen = _parser().parse_args(given)
    command = " ".join(["python -m aepo.llm.gpu_check", *given])
    skipped = sum(one.seconds for one in STAGES if one not in chosen.stages)
    return check(chosen.stages, out=Path(chosen.out), command=command, spare=skipped)


def check(stages: Sequence[Stage], *, out: Path, command: str, spare: float = 0.0) -> int:
    """Run the stages one after the other and write what is known after each; 1 if some stage failed, else 0.

    Args:
        stages: stage about first, which says on what device the others ran. Each may also take the time that those
            before it left over: a busy machine is slow at all of them.
        out: a folder, made if it is not there.
        command: what was typed, for the results.
        spare: seconds that the stages may take beyond their own.
    """
    out.mkdir(parents=True, exist_ok=True)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    versions, missing = packages.versions(), packages.missing()
    outcomes: list[Outcome] = []
    with (out / "log.txt").open("wb") as log, tempfile.TemporaryDirectory(prefix="gpu_check_") as scratch:
        for given in stages:
            stage = dataclasses.replace(given, seconds=round(given.seconds + spare))
            print(f"{stage.name}: at most {stage.seconds:g} s ...", flush=True)
            outcomes.append(run(stage, scratch=Path(scratch), log=log))
            spare = max(0.0, stage.seconds - outcomes[-1].seconds)
            results = Results(command=command, when=when, versions=versions, missing=missing, outcomes=outcomes)
            # After every stage, so that whoever ends the command early has what was found until then.
            (out / "results.json").write_text(results.as_json(), encoding="utf-8")
            (out / "table.md").write_text(results.as_markdown(), encoding="utf-8")
            print(f"{stage.name}: {outcomes[-1].status} after {outcomes[-1].seconds:.0f} s", flush=True)
    print(f"\n{results.as_markdown()}\nin {out}: results.json, table.md, log.txt")
    return int(any(one.status == "failed" for one in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=called("python -m aepo.llm.gpu_check"),
        description=__doc__,
        epilog="Stages:\n" + "\n".join(f"  {one.name:10} at most {one.seconds:3g} s. {one.answers}" for one in STAGES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--stages", type=_stages, default=STAGES, metavar="NAME[,NAME...]", help="only these, after stage about"
    )
    parser.add_argument(
        "--out",
        default=os.environ.get("OUT") or "runs/gpu_check",
        metavar="FOLDER",
        help="for the results; otherwise the environment variable OUT, otherwise runs/gpu_check",
    )
    return parser


def _stages(text: str) -> tuple[Stage, ...]:
    names = {one.strip() for one in text.split(",")}
    if unknown := names - {one.name for one in STAGES}:
        known = ", ".join(one.name for one in STAGES)
        raise argparse.ArgumentTypeError(f"no such stage: {', '.join(sorted(unknown))}; there are {known}")
    # Figures without the device that they are of are worth nothing.
    return tuple(one for one in STAGES if one.name in names or one is ABOUT)


if __name__ == "__main__":
    sys.exit(main())
