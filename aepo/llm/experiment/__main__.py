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
from pathlib import Path
from typing import Annotated

import typer

from aepo.errors import AepoError
from aepo.llm.experiment import arms
from aepo.llm.experiment.evaluating import evaluate
from aepo.llm.experiment.runs import Plan
from aepo.llm.experiment.side_by_side import train, warm_start
from aepo.llm.settings import SettingsError, load, presets

CURVE_EVERY = 100
"""Steps between evaluated checkpoints, as the presets save them."""


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("runs/experiment"),
    config: Annotated[
        str | None, typer.Option(help="Preset or YAML file. Default: experiment_gpu with a GPU, else experiment_cpu.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Seeds per method; more may be added later.", min=1)] = 3,
    targets: Annotated[
        str, typer.Option(help="AEPO's entropy targets in nats, rising; other methods have the first.")
    ] = ",".join(f"{target:g}" for target in arms.TARGETS),
    jobs: Annotated[
        int,
        typer.Option(help="Processes at the same time. Default: cores, 1 with a GPU.", min=0, show_default=False),
    ] = 0,
    steps: Annotated[int, typer.Option(help="Training steps of each run.", min=2)] = 320,
    samples: Annotated[
        int,
        typer.Option(help="Samples per held-out prompt. Default: 32, for pass@k 256.", min=0, show_default=False),
    ] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an experiment with other settings that OUT holds.")] = False,
) -> None:
    """Train every method over several seeds on the walk task, evaluate them on held-out prompts, and write the paper's
    tables and figures with an honest reading."""
    import torch

    on_gpu = torch.cuda.is_available()
    try:
        chosen = presets.find(config or f"experiment_{'gpu' if on_gpu else 'cpu'}")
        levels = arms.levels(targets)
        _begin(out, chosen, levels, steps, samples, overwrite)
    except AepoError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    parallel = jobs or (1 if on_gpu else len(os.sched_getaffinity(0)))
    plan = Plan(
        out=out, arms=arms.every(levels), seeds=seeds, steps=steps,
        curves_at=range(CURVE_EVERY, steps, CURVE_EVERY), samples=samples or None,
    )  # fmt: skip
    began = time.monotonic()
    base = warm_start(chosen)
    failed = train(plan.jobs(), config=chosen, parallel=parallel, keep=True)
    if failed:
        _give_up(f"{len(failed)} runs failed; see {', '.join(str(job.log) for job in failed)}")
    log = out / "evaluation.log"
    codes = evaluate(plan.commands(base), parallel=parallel, log=log)
    if any(codes):
        _give_up(f"{sum(map(bool, codes))} evaluations failed; see {log}")
    from aepo.llm.experiment import report

    print(report.write(plan, levels))
    print(f"{time.monotonic() - began:.0f} s")


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
