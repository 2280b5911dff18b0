"""Run configurations, those of one method side by side in one batch, on one process or several.

Letters: C targets of a configuration (1 for a method that follows none), N seeds, S steps.
"""

import contextlib
import math
import multiprocessing
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aepo.schedule import Constant
from aepo.tabular.bandit import Bandit, bandit
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


def batches(configurations: Sequence[Configuration]) -> list[tuple[Configuration, ...]]:
    """Configurations of one method under equal settings: these run side by side, whatever the bandit."""
    found: dict[tuple, list[Configuration]] = {}
    for one in configurations:
        found.setdefault((one.method, one.overrides, one.actions, one.settings), []).append(one)
    return [tuple(batch) for batch in found.values()]


def cost(batch: Sequence[Configuration], seeds: int) -> float:
    """Work of a batch in arbitrary units, for the order of the queue and the progress bar."""
    runs = seeds * sum(max(1, len(one.targets)) for one in batch)
    # A step's fixed cost equals that of about 40 runs, measured at K = 16, G = 64.
    return batch[0].settings.steps * (40 + runs)


def run(
    batch: Sequence[Configuration], seeds: Sequence[int], on_step: Callable[[int], None] = lambda step: None
) -> list[Result]:
    """All seeds and targets of a batch's configurations, side by side; one result for each.

    Raises:
        ValueError: a run that diverged, named.
    """
    method = batch[0].build()
    goals = [one.targets or (math.nan,) for one in batch]
    worlds = [
        bandit(seeds, actions=one.actions, correct=one.correct, head_start=one.head_start).repeated(len(goal))
        for one, goal in zip(batch, goals, strict=True)
    ]
    targets = [target for goal in goals for target in goal]
    history = train(
        Bandit.joined(worlds),
        method,
        Constant(torch.tensor(targets, dtype=torch.float64).repeat_interleave(len(seeds))),
        list(seeds) * len(targets),
        batch[0].settings,
        on_step=on_step,
    )

    def parts(values: torch.Tensor) -> list[NDArray]:
        shaped = values.view(len(targets), len(seeds), -1).numpy()
        return np.split(shaped, np.cumsum([len(goal) for goal in goals])[:-1])

    temperature = history.temperature if method.tempered is not None else history.temperature * math.nan
    fields = (history.entropy, history.reward, temperature, history.raise_entropy)
    return [
        Result(
            configuration=one,
            seeds=tuple(seeds),
            entropy=entropy,
            reward=reward,
            temperature=temperature,
            raise_entropy=raise_entropy,
        )
        for one, entropy, reward, temperature, raise_entropy in zip(batch, *map(parts, fields), strict=True)
    ]


def run_all(
    todo: Sequence[tuple[Configuration, ...]],
    seeds: Sequence[int],
    *,
    workers: int = 1,
    advance: Callable[[float], None] = lambda amount: None,
) -> dict[Configuration, Result]:
    """Every configuration's result; the numbers do not depend on `workers`.

    Args:
        todo: from `batches`.
        seeds: the same for each, so that comparisons are paired.
        workers: processes, one thread each; 1 runs in this process.
        advance: told each amount of work done, in `cost`'s units.

    Raises:
        ValueError: a run that diverged, named.
    """
    if workers == 1:
        with _one_thread():
            results = [run(batch, seeds, _moving(batch, len(seeds), advance)) for batch in todo]
    else:
        results = _pooled(todo, tuple(seeds), workers, advance)
    return {result.configuration: result for part in results for result in part}


def _pooled(
    todo: Sequence[tuple[Configuration, ...]],
    seeds: tuple[int, ...],
    workers: int,
    advance: Callable[[float], None],
) -> list[list[Result]]:
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(reports,))
    try:
        # The longest first, so that no core waits for one long job at the end.
        jobs = [pool.submit(_work, batch, seeds) for batch in sorted(todo, key=lambda b: -cost(b, len(seeds)))]
        pending = set(jobs)
        while pending:
            done, pending = wait(pending, timeout=0.2)
            for job in done:
                job.result()
            with contextlib.suppress(queue.Empty):
                while True:
                    advance(reports.get_nowait())
        return [job.result() for job in jobs]
    finally:
        pool.shutdown(cancel_futures=True)


def _moving(batch: Sequence[Configuration], seeds: int, advance: Callable[[float], None]) -> Callable[[int], None]:
    """What to call after each step so that `advance` hears of the batch's whole cost by its end."""
    steps, units = batch[0].settings.steps, cost(batch, seeds)

    def on_step(step: int) -> None:
        done = step + 1
        if done % REPORT_STEPS == 0 or done == steps:
            advance(units * ((done - 1) % REPORT_STEPS + 1) / steps)

    return on_step


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


_reports: Any = None
"""A worker's way back to the progress bar; set once, when the process starts."""


def _start_worker(reports: Any) -> None:
    global _reports
    _reports = reports
    torch.set_num_threads(1)


def _work(batch: tuple[Configuration, ...], seeds: tuple[int, ...]) -> list[Result]:
    return run(batch, seeds, _moving(batch, len(seeds), _reports.put))
