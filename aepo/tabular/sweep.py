"""Entropy curves of every method: `python -m aepo.tabular.sweep` draws the paper's figures in under two minutes.

Writes `runs.parquet` (one row per run and step), `summary.json`, `report.md` and the figures. Finished runs are kept in
`cache/` beside them, so that a sweep that was stopped goes on where it was.
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("sim")

import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from aepo.errors import NOT_WRITTEN, UNUSABLE, AepoError
from aepo.tabular.options import Options, problems
from aepo.tabular.worlds.environments import ENVIRONMENTS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise typer.BadParameter(f"must be numbers with commas between, like 0.25,0.5; got {text!r}") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


# Heavy packages are imported after the options are read, so that `--help` and refusals are immediate.
DEFAULT_TARGETS = ",".join(f"{target:g}" for target in Options.targets)
WHERE_DEFAULT = "Default: the environment's."
METHOD_DEFAULT = "Default: each method's own, the paper's value."


@app.command(help=f"{__doc__}")
def main(
    preset: Annotated[
        str,
        typer.Option(
            help="quick: the paper's figures on the bandit. paper: its figures and Tables 2 and 3 on Env A. "
            "arena: every method at every target on Env A."
        ),
    ] = Options.preset,
    environment: Annotated[
        str | None, typer.Option(help=f"{', '.join(ENVIRONMENTS)}. Default: the preset's.")
    ] = Options.environment,
    methods: Annotated[
        str,
        typer.Option(help="Comma-separated; run exactly these, in one figure. Default: the preset's."),
    ] = "",
    targets: Annotated[
        str, typer.Option(help="Entropy targets H* in nats, comma-separated, each in (0, ln K].")
    ] = DEFAULT_TARGETS,
    seeds: Annotated[
        int | None,
        typer.Option(help="Runs of each configuration, seeds 0, 1, ... Default: 16, 32 in the arena."),
    ] = Options.seeds,
    steps: Annotated[int | None, typer.Option(help=f"Training steps of a run. {WHERE_DEFAULT}")] = Options.steps,
    actions: Annotated[int, typer.Option(help="K, the bandit's number of actions.")] = Options.actions,
    correct: Annotated[int, typer.Option(help="|A*|, the bandit's number of correct actions.")] = Options.correct,
    lr: Annotated[float | None, typer.Option(help=f"Learning rate. {WHERE_DEFAULT}")] = Options.lr,
    alpha: Annotated[float | None, typer.Option(help=f"Weight of AEPO's second term. {METHOD_DEFAULT}")] = None,
    t_low: Annotated[float | None, typer.Option(help=f"Temperature that lowers the entropy. {METHOD_DEFAULT}")] = None,
    t_high: Annotated[float | None, typer.Option(help=f"Temperature that raises the entropy. {METHOD_DEFAULT}")] = None,
    normalizer: Annotated[
        str | None, typer.Option(help=f"Mean of the second term: all, positives or replace. {METHOD_DEFAULT}")
    ] = None,
    sees: Annotated[
        str, typer.Option(help="Entropy that the controller is shown: current or previous.")
    ] = Options.sees,
    exact: Annotated[
        bool, typer.Option("--exact/--sampled", help="Exact expectations over actions, or samples.")
    ] = Options.exact,
    group_size: Annotated[
        int | None,
        typer.Option(help=f"G, samples per prompt and branch; unused with --exact. {WHERE_DEFAULT}"),
    ] = Options.group_size,
    states_per_step: Annotated[
        int | None, typer.Option(help="B, prompts a step. Default: all of the environment's.")
    ] = Options.states_per_step,
    minibatches: Annotated[
        int | None,
        typer.Option(
            help=f"Updates a step; beyond the first the policy differs from the sampling one. {WHERE_DEFAULT}"
        ),
    ] = Options.minibatches,
    floor: Annotated[
        bool,
        typer.Option(
            "--floor/--no-floor", help="Measure the error that noise alone leaves; about a sixth of the arena's time."
        ),
    ] = Options.floor,
    workers: Annotated[int, typer.Option(help="Processes; the numbers do not depend on it.")] = Options.workers,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Options.out,
) -> None:
    options = Options(
        preset=preset,
        environment=environment,
        methods=_names(methods),
        targets=_numbers(targets),
        seeds=seeds,
        steps=steps,
        actions=actions,
        correct=correct,
        lr=lr,
        alpha=alpha,
        t_low=t_low,
        t_high=t_high,
        normalizer=normalizer,
        sees=sees,
        exact=exact,
        group_size=group_size,
        states_per_step=states_per_step,
        minibatches=minibatches,
        floor=floor,
        workers=workers,
        out=out,
    )
    wrong = problems(options)
    if wrong:
        _end(UNUSABLE, *wrong)
    try:
        sweep(options)
    except AepoError as error:
        _end(error.exit_code, error)
    except OSError as error:
        _end(NOT_WRITTEN, error)


def _end(code: int, *problems: object) -> NoReturn:
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(code) from None


def sweep(options: Options) -> None:
    """Run the plan of the options and write everything into `options.out`.

    Raises:
        DivergedError: a run that diverged, named.
        OSError: a folder that cannot be written.
    """
    from rich.console import Console

    from aepo.tabular import terminal
    from aepo.tabular.cache import Cache
    from aepo.tabular.plan import configurations, figures
    from aepo.tabular.reporting.output import Outcome, write
    from aepo.tabular.runner import batches, cost, run_all

    started = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    drawn = figures(options)
    experiments = configurations(drawn)
    todo = batches(list(experiments))
    count = options.seed_count
    console.print(f"{len(experiments)} configurations x {count} seeds: {options.command}", highlight=False)
    with terminal.progress(console, total=sum(cost(batch, count) for batch in todo)) as advance:
        found = run_all(
            todo, range(count), workers=options.workers, advance=advance, cache=Cache(options.out / "cache")
        )
    results = [found[one] for one in experiments]
    outcome = Outcome(options=options, figures=drawn, experiments=experiments, results=results)
    claims = write(outcome, lambda: time.perf_counter() - started)
    terminal.show(console, outcome.summaries, claims)
    seconds = time.perf_counter() - started
    console.print(
        f"{seconds:.0f} s; report.md, summary.json, runs.parquet and figures in {options.out}",
        highlight=False,
    )


if __name__ == "__main__":
    app()
