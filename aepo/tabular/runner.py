"""Run configurations, each as one batch of seeds x targets, on one process or several.

Letters: C targets of a configuration (1 for a method that follows none), N seeds, S steps.
"""

import contextlib
import math
import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from aepo.schedule import Constant
from aepo.tabular.bandit import bandit
from aepo.tabular.plan import Configuration
from aepo.tabular.train import train

Array = NDArray[np.float64]

# A worker reports this often: rarely enough to cost nothing, often enough for a moving bar.
REPORT_STEPS = 25


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """What the runs of one configuration measured, each (C, N, S), before each step's update."""

    configuration: Configuration
    seeds: tuple[int, ...]
    entropy: Array
    """nats."""
    reward: Array
    temperature: Array
    """Of the second branch; nan where the method has none."""
    raise_entropy: NDArray[np.bool_]


def cost(configuration: Configuration, seeds: int) -> float:
    """Work of a configuration in arbitrary units, for the order of the queue and the progress bar."""
    # A step's fixed cost equals that of about 50 runs, measured at K = 16, G = 64.
    return configuration.settings.steps * (50 + seeds * max(1, len(configuration.targets)))


def run(
    configuration: Configuration, seeds: Sequence[int], on_step: Callable[[int], None] = lambda step: None
) -> Result:
    """All seeds and targets of one configuration, side by side.

    Raises:
        ValueError: a run that diverged, named.
    """
    method = configuration.build()
    targets = configuration.targets or (math.nan,)
    world = bandit(
        seeds,
        actions=configuration.actions,
        correct=configuration.correct,
        head_start=configuration.head_start,
    )
    goal = torch.tensor(targets, dtype=torch.float64).repeat_interleave(len(seeds))
    history = train(
        world.repeated(len(targets)),
        method,
        Constant(goal),
        list(seeds) * len(targets),
        configuration.settings,
        on_step=on_step,
    )

    def shaped(values: torch.Tensor) -> NDArray:
        return values.view(len(targets), len(seeds), -1).numpy()

    temperature = shaped(history.temperature)
    return Result(
        configuration=configuration,
        seeds=tuple(seeds),
        entropy=shaped(history.entropy),
        reward=shaped(history.reward),
        temperature=np.full_like(temperature, math.nan) if method.tempered is None else temperature,
        raise_entropy=shaped(history.raise_entropy),
    )


def run_all(
    configurations: Sequence[Configuration],
    seeds: Sequence[int],
    *,
    workers: int = 1,
    advance: Callable[[float], None] = lambda amount: None,
) -> list[Result]:
    """Every configuration's result, in the order given; the numbers do not depend on `workers`.

    Args:
        configurations: what to run.
        seeds: the same for each, so that comparisons are paired.
        workers: processes, one thread each; 1 runs in this process.
        advance: told each amount of work done, in `cost`'s units.

    Raises:
        ValueError: a run that diverged, named.
    """
    costs = [cost(one, len(seeds)) for one in configurations]
    if workers == 1:
        with _one_thread():
            return [
                run(one, seeds, lambda step, unit=units / one.settings.steps: advance(unit))
                for one, units in zip(configurations, costs, strict=True)
            ]
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(reports,))
    try:
        # The longest first, so that no core waits for one long job at the end.
        order = sorted(range(len(costs)), key=lambda i: -costs[i])
        jobs = {i: pool.submit(_work, configurations[i], tuple(seeds), costs[i]) for i in order}
        _forward(reports, list(jobs.values()), advance)
        return [jobs[i].result() for i in range(len(costs))]
    finally:
        pool.shutdown(cancel_futures=True)


def _forward(reports, jobs: Sequence[Future], advance: Callable[[float], None]) -> None:
    pending = set(jobs)
    while pending:
        done, pending = wait(pending, timeout=0.2)
        for job in done:
            job.result()
        with contextlib.suppress(queue.Empty):
            while True:
                advance(reports.get_nowait())


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_reports = None
"""A worker's way back to the progress bar; set once, when the process starts."""


def _start_worker(reports) -> None:
    global _reports
    _reports = reports
    torch.set_num_threads(1)


def _work(configuration: Configuration, seeds: tuple[int, ...], units: float) -> Result:
    steps = configuration.settings.steps

    def on_step(step: int) -> None:
        done = step + 1
        if _reports is not None and (done % REPORT_STEPS == 0 or done == steps):
            _reports.put(units * ((done - 1) % REPORT_STEPS + 1) / steps)

    return run(configuration, seeds, on_step)
