"""Methods that move the temperature of the main rollouts, in place of a second branch's: E3."""

import dataclasses

from torch import Tensor

from aepo.controller import State, TemperatureScheduler
from aepo.method import Method
from aepo.zoo.grpo import grpo


def e3(*, vocabulary: int = 151936, t_low: float = 0.5, t_high: float = 2.0, **grpo_options) -> Method:
    """E3's temperature scheduler: GRPO on rollouts whose temperature follows ln(H* / H) (arXiv 2505.18573).

    T <- T (1 + T ln(H* / H) / (ln V + ln ln V)); no second branch, no bonus. It answers "why not just change T?": what
    the controller moves is where the samples come from, and the policy follows only as far as they teach it. The source
    divides the logits of the loss by T, too, so that it trains and measures pi^T, and its H answers T at once. Here H,
    the ratio and the clip are the policy's at T = 1, as for every method; H is over tokens that were sampled at T, and
    the metric `entropy_off_policy` says so. In a group the advantages sum to 0, so with one token a response both
    gradients are one but for a factor of T. The loop may have the wrong sign: cold samples are mostly right and teach
    little, so on Env A the policy at T = 1 keeps more entropy than GRPO's where it is meant to have less. The source's
    H* is the first step's entropy, along a cosine to nine tenths of it: target.relative with a schedule.

    Args:
        vocabulary: V, the number of tokens of the model: 151936, that of Qwen2.5's small models.
        t_low, t_high: limits of T; the source has none.
        grpo_options: as for `grpo`.
    """
    return dataclasses.replace(
        grpo(**grpo_options),
        name="e3",
        controller=TemperatureScheduler(vocabulary=vocabulary, t_low=t_low, t_high=t_high),
        main_temperature=_of_state,
        label=f"V={vocabulary}, T {t_low:g}/{t_high:g}",
    )


def _of_state(state: State) -> Tensor:
    return state["temperature"]
