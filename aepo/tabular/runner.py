"""Run configurations, those of one method side by side in one batch, on one process or several.

Letters: C targets of a configuration (1 for a method that follows none), N seeds, S steps, F <= N seeds of the floor.
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

from aepo.schedule import SCHEDULES, Constant, Schedule
from aepo.tabular.cache import Cache
from aepo.tabular.floor import floor_along, floor_states, of_first_seeds
from aepo.tabular.plan import Configuration
from aepo.tabular.train import train
from aepo.tabular.worlds.bandit import Bandit, bandit
from aepo.tabular.worlds.environments import ENVIRONMENTS
from aepo.tabular.worlds.world import World

Array = NDArray[np.float64]

FLOOR_SEEDS = 8
"""Seeds that the floor is measured on, the first: what is shown is its mean, and it differs little between seeds."""

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
    goal: Array
    """(C, S): the target of every step; nan where the configuration has none."""
    evaluation: dict[str, Array]
    """Name -> (C, N): the world's exact evaluation of the trained policy."""
    control_samples: int
    """Responses per step that were sampled for control alone."""
    floor: Array | None = None
    """(C, F): the mean floor of the first seeds' runs over their last half, nats, as `high` of
    `aepo.tabular.floor.Floor`; None if it was not measured."""
    floor_low: Array | None = None
    """(C, F): the estimate from below."""


def batches(configurations: Sequence[Configuration]) -> list[tuple[Configuration, ...]]:
    """Configurations of one method under equal settings: these run side by side, whatever the bandit."""
    found: dict[tuple, list[Configuration]] = {}
    for one in configurations:
        # Only bandits of one K are tables of one shape; other worlds run one configuration at a time.
        alone = one if one.environment != "bandit" or one.schedule is not None else None
        found.setdefault((one.method, one.overrides, one.actions, one.settings, one.floor, alone), []).append(one)
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
        DivergedError: a run that diverged, named.
    """
    method = batch[0].build()
    goals = [one.targets or (math.nan,) for one in batch]
    targets = [target for goal in goals for target in goal]
    schedule: Schedule = Constant(torch.tensor(targets, dtype=torch.float64).repeat_interleave(len(seeds)))
    if batch[0].schedule is not None:
        name, arguments = batch[0].schedule
        schedule = SCHEDULES[name](**dict(arguments))
    settings = batch[0].settings
    history = train(
        _world(batch, goals, seeds),
        method,
        schedule,
        list(seeds) * len(targets),
        settings,
        on_step=on_step,
        keep=floor_states(settings.steps) if batch[0].floor else (),
    )

    def by_configuration(values: NDArray) -> list[NDArray]:
        """(all targets, ...) -> the (C, ...) of each."""
        return np.split(values, np.cumsum([len(goal) for goal in goals])[:-1])

    def parts(values: torch.Tensor) -> list[NDArray]:
        return by_configuration(values.view(len(targets), len(seeds), -1).numpy())

    floors: list[tuple[Array | None, Array | None]] = [(None, None)] * len(batch)
    # A run of one step has no state that its error came from.
    if history.kept:
        few = list(seeds)[:FLOOR_SEEDS]
        kept = {step: of_first_seeds(p, len(few), seeds=len(seeds)) for step, p in history.kept.items()}
        found = floor_along(kept, _world(batch, goals, few), method, settings, seeds=few * len(targets))
        high, low = (by_configuration(one.reshape(len(targets), len(few))) for one in (found.high, found.low))
        floors = list(zip(high, low, strict=True))

    temperature = history.temperature if method.tempered is not None else history.temperature * math.nan
    fields = (history.entropy, history.reward, temperature, history.raise_entropy, history.target)
    evaluation = {name: parts(value) for name, value in history.evaluation.items()}
    return [
        Result(
            configuration=one,
            seeds=tuple(seeds),
            entropy=entropy,
            reward=reward,
            temperature=temperature,
            raise_entropy=raise_entropy,
            goal=goal[:, 0],
            evaluation={name: value[i][..., 0] for name, value in evaluation.items()},
            control_samples=history.control_samples,
            floor=floors[i][0],
            floor_low=floors[i][1],
        )
        for i, (one, entropy, reward, temperature, raise_entropy, goal) in enumerate(
            zip(batch, *map(parts, fields), strict=True)
        )
    ]


def _world(batch: Sequence[Configuration], goals: Sequence[tuple[float, ...]], seeds: Sequence[int]) -> World:
    """The runs of all configurations of a batch, for every seed and target."""
    if batch[0].environment == "bandit":
        return Bandit.joined(
            [
                bandit(seeds, actions=one.actions, correct=one.correct, head_start=one.head_start).repeated(len(goal))
                for one, goal in zip(batch, goals, strict=True)
            ]
        )
    return ENVIRONMENTS[batch[0].environment].build(seeds).repeated(len(goals[0]))


def run_all(
    todo: Sequence[tuple[Configuration, ...]],
    seeds: Sequence[int],
    *,
    workers: int = 1,
    advance: Callable[[float], None] = lambda amount: None,
    cache: Cache | None = None,
) -> dict[Configuration, Result]:
    """Every configuration's result; the numbers do not depend on `workers`, nor on what the cache held.

    Args:
        todo: from `batches`.
        seeds: the same for each, so that comparisons are paired.
        workers: processes, one thread each; 1 runs in this process.
        advance: told each amount of work done, in `cost`'s units.
        cache: where finished batches are kept and looked for; None keeps none.

    Raises:
        DivergedError: a run that diverged, named.
    """
    results: list[list[Result]] = []
    left = []
    for batch in todo:
        kept = None if cache is None else cache.load(batch, seeds)
        if kept is None:
            left.append(batch)
        else:
            results.append(kept)
            advance(cost(batch, len(seeds)))
    if workers == 1 or len(left) < 2:
        with _one_thread():
            results += [_kept(batch, seeds, _moving(batch, len(seeds), advance), cache) for batch in left]
    else:
        results += _pooled(left, tuple(seeds), workers, advance, cache)
    return {result.configuration: result for part in results for result in part}


def _pooled(
    todo: Sequence[tuple[Configuration, ...]],
    seeds: tuple[int, ...],
    workers: int,
    advance: Callable[[float], None],
    cache: Cache | None,
) -> list[list[Result]]:
    context = multiprocessing.get_context("spawn")
    reports = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(reports,))
    try:
        # The longest first, so that no core waits for one long job at the end.
        jobs = [pool.submit(_work, batch, seeds, cache) for batch in sorted(todo, key=lambda b: -cost(b, len(seeds)))]
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


def _work(batch: tuple[Configuration, ...], seeds: tuple[int, ...], cache: Cache | None) -> list[Result]:
    return _kept(batch, seeds, _moving(batch, len(seeds), _reports.put), cache)


def _kept(
    batch: Sequence[Configuration], seeds: Sequence[int], on_step: Callable[[int], None], cache: Cache | None
) -> list[Result]:
    """Run a batch and keep its results at once: what is finished is never lost."""
    results = run(batch, seeds, on_step)
    if cache is not None:
        cache.save(batch, seeds, results)
    return results
