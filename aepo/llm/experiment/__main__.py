"""python -m aepo.llm.experiment: train, evaluate, report. The same command goes on with what was cut off."""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from aepo.errors import AepoError
from aepo.llm.experiment import arms
from aepo.llm.experiment.evaluating import evaluate
from aepo.llm.experiment.ladder import command as ladder
from aepo.llm.experiment.runs import Plan
from aepo.llm.experiment.side_by_side import Job, train, warm_start
from aepo.llm.settings import SettingsError, load, presets

CURVE_EVERY = 100
"""Steps between evaluated checkpoints, as the presets save them."""


WALK, LADDER = "Of the walk task", "Of the ladder task"
"""Where the page of --help lists an option that only one of both has."""
SEEDS, STEPS = 3, 320


class Task(StrEnum):
    """What is trained on."""

    walk = "walk"
    ladder = "ladder"


def main(
    task: Annotated[
        Task,
        typer.Option(help="walk: the paper's tables and figures in small. ladder: its claims judged by a protocol."),
    ] = Task.walk,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the results, of the ladder's working folders. Default: runs/experiment, runs/ladder."
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Seeds per method; more may be added later. Default: 3; the ladder's protocol has its own.",
            min=1,
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(help="Processes at the same time. Default: cores, 1 with a GPU.", min=0, show_default=False),
    ] = 0,
    config: Annotated[
        str | None,
        typer.Option(
            help="Preset or YAML file. Default: experiment_gpu with a GPU, else experiment_cpu.", rich_help_panel=WALK
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help="AEPO's entropy targets in nats, rising; other methods have the first. Default: "
            + ",".join(f"{target:g}" for target in arms.TARGETS),
            rich_help_panel=WALK,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help=f"Training steps of each run. Default: {STEPS}.", min=2, rich_help_panel=WALK)
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Samples per held-out prompt. Default: 32, for pass@k 256.", min=1, rich_help_panel=WALK),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace an experiment with other settings that OUT holds.", rich_help_panel=WALK)
    ] = False,
    stage: Annotated[
        str | None, typer.Option(help="Stage of the protocol that is run, such as A.", rich_help_panel=LADDER)
    ] = None,
    named_arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            help="Arms that are run, such as grpo,aepo,aepo_eq2; without a target its middle one is meant.",
            rich_help_panel=LADDER,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a small file for each run; what has its file is not run again. Default: "
            "benchmarks/results/ladder in a checkout, else OUT/results.",
            rich_help_panel=LADDER,
        ),
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Run nothing: write the page of the files that are there, to OUT or docs/experiment in a checkout.",
            rich_help_panel=LADDER,
        ),
    ] = False,
    protocol: Annotated[
        Path | None, typer.Option(help="Protocol file. Default: the committed one.", rich_help_panel=LADDER)
    ] = None,
) -> None:
    """Train every method over several seeds, evaluate them on held-out prompts, and write tables, figures and an honest
    reading of the paper's claims."""
    of_walk = {"config": config, "targets": targets, "steps": steps, "samples": samples, "overwrite": overwrite}
    of_ladder = {"stage": stage, "arms": named_arms, "results": results, "report": report, "protocol": protocol}
    try:
        foreign = of_ladder if task == Task.walk else of_walk
        if given := [name for name, value in foreign.items() if value not in (None, False)]:
            raise SettingsError(f"--{given[0]}: is no option of --task={task}; see --help")
        if task == Task.walk:
            _walk(
                out or Path("runs/experiment"),
                seeds or SEEDS,
                jobs,
                config,
                targets,
                steps or STEPS,
                samples,
                overwrite,
            )
        else:
            failed = ladder.main(
                stage=stage,
                arms=[] if named_arms is None else named_arms.split(","),
                seeds=seeds,
                jobs=jobs,
                out=out,
                results=results,
                report=report,
                file=protocol,
            )
            if failed:
                _give_up(_of_runs(failed))
    except AepoError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None


def _walk(
    out: Path,
    seeds: int,
    jobs: int,
    config: str | None,
    targets: str | None,
    steps: int,
    samples: int | None,
    overwrite: bool,
) -> None:
    """Train, evaluate and report the walk task's methods."""
    import torch

    on_gpu = torch.cuda.is_available()
    chosen = presets.find(config or f"experiment_{'gpu' if on_gpu else 'cpu'}")
    levels = list(arms.TARGETS) if targets is None else arms.levels(targets)
    _begin(out, chosen, levels, steps, samples or 0, overwrite)
    parallel = jobs or (1 if on_gpu else len(os.sched_getaffinity(0)))
    plan = Plan(
        out=out, arms=arms.every(levels), seeds=seeds, steps=steps,
        curves_at=range(CURVE_EVERY, steps, CURVE_EVERY), samples=samples,
    )  # fmt: skip
    began = time.monotonic()
    base = warm_start(chosen)
    failed = train(plan.jobs(), config=chosen, parallel=parallel, keep=True)
    if failed:
        _give_up(_of_runs(failed))
    log = out / "evaluation.log"
    codes = evaluate(plan.commands(base), parallel=parallel, log=log)
    if any(codes):
        _give_up(f"{sum(map(bool, codes))} evaluations failed; see {log}")
    from aepo.llm.experiment import report

    print(report.write(plan, levels))
    print(f"{time.monotonic() - began:.0f} s")


def _of_runs(failed: Sequence[Job]) -> str:
    return f"{len(failed)} runs failed; see {', '.join(str(job.log) for job in failed)}"


def _give_up(message: str) -> None:
    print(f"error: {message}; what is done is kept: the same command goes on", file=sys.stderr)
    raise typer.Exit(1)


def _begin(out: Path, config: Path, levels: list[float], steps: int, samples: int, overwrite: bool) -> None:
    """Leave or find experiment.json, so that no report mixes runs of different settings.

    Raises:
        SettingsError: a preset that cannot be used, or one that is not of the walk task; another experiment in `out`.
    """
    settings = load(config)
    if settings.data.train != "walk":
        raise SettingsError(f"--config {config}: data.train must be walk, got {settings.data.train!r}")
    wanted = {"settings": settings.model_dump(mode="json"), "targets": levels, "steps": steps, "samples": samples}
    path = out / "experiment.json"
    if path.exists() and json.loads(path.read_text()) != wanted:
        if not overwrite:
            raise SettingsError(
                f"--out={out} holds an experiment with other settings (see {path}): choose another --out, or "
                "--overwrite to replace it"
            )
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted, indent=1))


if __name__ == "__main__":
    typer.run(main)
