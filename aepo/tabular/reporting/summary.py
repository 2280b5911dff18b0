"""From the runs to numbers: the tidy table, and means with 95 % intervals over seeds."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from aepo.over_seeds import Array, Estimate, estimate
from aepo.tabular.plan import Configuration
from aepo.tabular.runner import Result
from aepo.tracking import (
    SATURATED_DUTY,
    duty_cycle,
    initial_slope,
    last_half,
    overshoot,
    settling_step,
    time_in_band,
    tracking_error,
    worst_error,
)

# The first steps of a run, while the entropy still moves in one direction on most bandits.
SLOPE_STEPS = 25

BAND = 0.05
"""Nats around the target that count as held: the paper draws its curves about so wide."""

ROUNDING = 1e-12
"""Nats: a floor below this is that of a policy that has collapsed or is not random, and no measure of anything."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One configuration at one target, over all seeds. Entropies in nats; steps are averaged before seeds."""

    configuration: Configuration
    experiment: str
    target: float | None
    normalizer: str
    controlled: bool
    """Whether a controller moves the temperature towards the target."""
    entropy_start: Estimate
    entropy_final: Estimate
    entropy_last_half: Estimate
    entropy_range: tuple[float, float]
    """Smallest and largest of the seeds' last-half means."""
    tracking_error: Estimate | None
    """Mean |H - H*| over the last half; None without a target."""
    floor: Estimate | None
    """Mean over the last half of the least expected error that a controller can have; None if it was not measured."""
    floor_low: Estimate | None
    """The same from below: on average the floor lies between the two."""
    error_over_floor: float | None
    """tracking_error of the seeds that the floor was measured on, divided by it; None where there is no noise."""
    reward_last_half: Estimate
    reward_start: Estimate
    duty_up: Estimate | None
    """Share of the last half's steps that pushed the entropy up; None without a controller."""
    duty_down: Estimate | None
    saturated_up: int
    """Seeds whose controller pushed up in more than 95 % of the last half's steps."""
    saturated_down: int
    slope: Estimate
    """Initial slope of the entropy, nats per step."""
    worst_error: Estimate | None
    """Largest |H - H*| over the last half; this and the next three are None without a target."""
    overshoot: Estimate | None
    settling_step: Estimate | None
    """First step from which nine of ten steps are within 0.05 nats, over the seeds that settle."""
    time_in_band: Estimate | None
    """Share of the last half's steps within 0.05 nats of the target."""
    settled: int
    """Seeds that settle."""
    control_samples: int
    """Responses per step that were sampled for control alone."""
    evaluation: Mapping[str, Estimate]
    """The trained policy's exact evaluation: reward on training and held-out prompts, pass@k."""
    evaluation_by_seed: Mapping[str, Array]
    """The same seed by seed, for paired comparisons; each (N,)."""

    seeds: int

    @property
    def starved(self) -> bool:
        """Whether in at least half of the seeds the controller does nothing but push in one direction."""
        return 2 * max(self.saturated_up, self.saturated_down) >= self.seeds

    def as_json(self) -> dict[str, object]:
        """For summary.json."""
        configuration = self.configuration
        estimates = {
            field.name: value.as_json() if value else None
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) is None or isinstance(value, Estimate)
        }
        return {
            "experiment": self.experiment,
            "method": configuration.method,
            "label": configuration.setting,
            "normalizer": self.normalizer,
            "overrides": dict(configuration.overrides),
            "target": self.target,
            "actions": configuration.actions,
            "correct": configuration.correct,
            "head_start": configuration.head_start,
            "environment": configuration.environment,
            "schedule": configuration.schedule,
            "steps": configuration.settings.steps,
            "seeds": self.seeds,
            **estimates,
            "error_over_floor": self.error_over_floor,
            "entropy_last_half_range": list(self.entropy_range),
            "seeds_saturated_up": self.saturated_up,
            "seeds_saturated_down": self.saturated_down,
            "seeds_settled": self.settled,
            "control_samples": self.control_samples,
            "evaluation": {name: value.as_json() for name, value in self.evaluation.items()},
        }


def summaries(results: Sequence[Result], experiments: Mapping[Configuration, str]) -> list[Summary]:
    """One summary per configuration and target, in order."""
    return [
        _summary(result, index, experiments[result.configuration])
        for result in results
        for index in range(len(result.entropy))
    ]


def _summary(result: Result, index: int, experiment: str) -> Summary:
    configuration, method = result.configuration, result.configuration.build()
    entropy, reward = result.entropy[index], result.reward[index]
    target = configuration.targets[index] if configuration.targets else None
    half = last_half(entropy).mean(-1)
    goal = result.goal[index]
    followed = not np.isnan(goal).any()
    errors = tracking_error(entropy, goal) if followed else None
    floor = None if result.floor is None else result.floor[index]
    settling = settling_step(entropy, goal, band=BAND) if followed else np.full(len(entropy), math.nan)
    evaluation = {name: values[index] for name, values in result.evaluation.items()}
    up, down = duty_cycle(result.raise_entropy[index])
    return Summary(
        configuration=configuration,
        experiment=experiment,
        target=target,
        normalizer=method.tempered.normalizer if method.tempered is not None else "none",
        controlled=method.controlled,
        entropy_start=estimate(entropy[:, 0]),
        entropy_final=estimate(entropy[:, -1]),
        entropy_last_half=estimate(half),
        entropy_range=(float(half.min()), float(half.max())),
        tracking_error=estimate(errors) if errors is not None else None,
        floor=None if floor is None else estimate(floor),
        floor_low=None if result.floor_low is None else estimate(result.floor_low[index]),
        error_over_floor=_over(errors, floor),
        reward_last_half=estimate(last_half(reward).mean(-1)),
        reward_start=estimate(reward[:, 0]),
        duty_up=estimate(up) if method.controlled else None,
        duty_down=estimate(down) if method.controlled else None,
        saturated_up=int((up > SATURATED_DUTY).sum()) if method.controlled else 0,
        saturated_down=int((down > SATURATED_DUTY).sum()) if method.controlled else 0,
        slope=estimate(initial_slope(entropy, steps=SLOPE_STEPS)),
        worst_error=estimate(worst_error(entropy, goal)) if followed else None,
        overshoot=estimate(overshoot(entropy, goal)) if followed else None,
        settling_step=estimate(settling[~np.isnan(settling)]) if (~np.isnan(settling)).any() else None,
        time_in_band=estimate(time_in_band(entropy, goal, band=BAND)) if followed else None,
        settled=int((~np.isnan(settling)).sum()),
        control_samples=result.control_samples,
        evaluation={name: estimate(values) for name, values in evaluation.items()},
        evaluation_by_seed=evaluation,
        seeds=len(entropy),
    )


def _over(errors: Array | None, floor: Array | None) -> float | None:
    if errors is None or floor is None or floor.mean() < ROUNDING:
        return None
    return float(errors[: len(floor)].mean() / floor.mean())


def tidy_table(results: Sequence[Result], experiments: Mapping[Configuration, str]) -> pd.DataFrame:
    """One row per configuration, target, seed and step, none left out, as measured before the step's update.

    Columns: experiment, method, label, normalizer, actions, correct, target (nan: none), seed, step,
    entropy (nats), reward, temperature (of the second branch; nan: none).
    """
    frames = []
    for result in results:
        configuration, method = result.configuration, result.configuration.build()
        targets, seeds, steps = result.entropy.shape
        frames.append(
            pd.DataFrame(
                {
                    "experiment": experiments[configuration],
                    "method": configuration.method,
                    "label": configuration.setting,
                    "normalizer": method.tempered.normalizer if method.tempered is not None else "none",
                    "environment": configuration.environment,
                    "actions": np.int32(configuration.actions),
                    "correct": np.int32(configuration.correct),
                    "target": np.repeat(result.goal[:, None, :], seeds, axis=1).reshape(-1),
                    "seed": np.tile(np.array(result.seeds, dtype=np.int32).repeat(steps), targets),
                    "step": np.tile(np.arange(steps, dtype=np.int32), targets * seeds),
                    "entropy": result.entropy.reshape(-1),
                    "reward": result.reward.reshape(-1),
                    "temperature": result.temperature.reshape(-1),
                }
            )
        )
    table = pd.concat(frames, ignore_index=True)
    names = ["experiment", "method", "label", "normalizer", "environment"]
    return table.astype(dict.fromkeys(names, "category"))
