"""Every run that there is, and its numbers by arm, seed and metric, in points."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from aepo.llm.experiment.ladder import outcome
from aepo.llm.experiment.ladder.claims import Metric
from aepo.llm.experiment.ladder.outcome import Outcome
from aepo.llm.experiment.ladder.protocol import Protocol
from aepo.llm.questions.built_in import BUILT_IN
from aepo.llm.questions.number_task import NumberTask
from aepo.over_seeds import Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """The files of a folder, by (arm, seed)."""

    protocol: Protocol
    outcomes: Mapping[tuple[str, int], Outcome]

    def seeds(self, *arms: str) -> list[int]:
        """The judging seeds that each of these arms has a run of."""
        return [seed for seed in self._judging if all((arm, seed) in self.outcomes for arm in arms)]

    @cached_property
    def _judging(self) -> range:
        return self.protocol.judging(self.protocol.most_seeds)

    def of(self, arm: str) -> list[Outcome]:
        """An arm's runs on the judging seeds."""
        return [self.outcomes[arm, seed] for seed in self.seeds(arm)]

    def points(self, arm: str, metric: str, seeds: Iterable[int]) -> Array:
        """(seeds,): a metric in points, mean over prompts; nan where a run was not evaluated so."""
        return np.array([self._points(self.outcomes[arm, seed], metric) for seed in seeds], dtype=float)

    def _points(self, run: Outcome, metric: str) -> float:
        passes = run.passes(Metric.named(metric), self.protocol.evaluation)
        return np.nan if passes is None else 100 * float(passes.mean())

    def figures(self, arm: str, name: str, seeds: Iterable[int] | None = None) -> Array:
        """(seeds,): a figure of the training, on the judging seeds unless others are named; nan where it has none."""
        chosen = self.seeds(arm) if seeds is None else seeds
        return np.array([self.outcomes[arm, seed].summary.get(name) for seed in chosen], dtype=float)

    def compared(
        self, arm: str, than: str, metric: str, than_metric: str | None = None
    ) -> tuple[list[int], Array, Array]:
        """The seeds on which both arms have their metric, and the points of each there."""
        seeds = self.seeds(arm, than)
        mine, other = self.points(arm, metric, seeds), self.points(than, than_metric or metric, seeds)
        both = ~(np.isnan(mine) | np.isnan(other))
        return [seed for seed, there in zip(seeds, both, strict=True) if there], mine[both], other[both]

    def best_on_the_choosing_seeds(self, arms: Sequence[str], metric: str) -> str | None:
        """The arm with the highest mean of a metric there; None unless all have been run on the same of these seeds."""
        runs = {arm: [seed for seed in self.protocol.choosing if (arm, seed) in self.outcomes] for arm in arms}
        if len(set(map(tuple, runs.values()))) != 1 or not all(runs.values()):
            return None
        return max(arms, key=lambda arm: float(self.points(arm, metric, runs[arm]).mean()))

    def task(self, arm: str) -> NumberTask:
        """What an arm is asked."""
        return self._tasks[self.protocol.settings(arm, seed=0).data.train]

    @cached_property
    def _tasks(self) -> Mapping[str, NumberTask]:
        return _Built()

    def levels(self, arm: str) -> Array:
        """(P,): the level of each held-out prompt, by name."""
        task = self.task(arm)
        prompts = sorted(task.held_out)[: self.protocol.evaluation.prompts]
        return np.array([task.levels[prompt] for prompt in prompts])

    def base_of(self, arm: str) -> str:
        """The arm that is the model before RL of an arm's task."""
        asked = self.protocol.settings(arm, seed=0).data.train
        return next(
            name
            for name, chosen in self.protocol.arms.items()
            if not chosen.trained and self.protocol.settings(name, seed=0).data.train == asked
        )


class _Built(dict[str, NumberTask]):
    """Tasks by name, each built when it is asked for: that takes a second."""

    def __missing__(self, name: str) -> NumberTask:
        self[name] = BUILT_IN[name]()
        return self[name]


def read(protocol: Protocol, folder: Path) -> Results:
    """Every run of the protocol whose file a folder has.

    Raises:
        SettingsError: a file that is none of a run, or is of other settings than the protocol's.
    """
    seeds = [*protocol.choosing, *protocol.judging(protocol.most_seeds)]
    every = {(arm, seed): outcome.known(protocol, folder, arm, seed) for seed in seeds for arm in protocol.arms}
    return Results(protocol=protocol, outcomes={run: found for run, found in every.items() if found is not None})
