"""The floor that noise sets, measured: the least expected error that any controller can have at the next step.

It is `aepo.theory.noise_floor` of the entropies that a training step ends at, the same step over and over from the same
policy with fresh noise, once for each of a grid of the controls that the method's own controller may decide on.

Letters: N runs, U controls, M resamples. Entropies are in nats.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aepo.controller import Held, Loop
from aepo.method import Method
from aepo.tabular.settings import Settings
from aepo.tabular.train import Noise, Policy, main_rollouts, prompts_asked, train_step
from aepo.tabular.worlds.world import World
from aepo.theory import estimated_floor

CONTROLS = 5
"""Of a range: its two ends, and between them where its middle is the control that does nothing."""
RESAMPLES = 16
"""At which the estimate is above the floor by some 5 % (of normal noise)."""
STATES = 8
"""Of a run's last half."""
# Runs that step at once: beyond that a step gains nothing and takes more memory.
AT_ONCE = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Floor:
    """The floor of each run, twice estimated (`aepo.theory.estimated_floor`): each (N,), in nats."""

    low: NDArray[np.float64]
    """On average at most the floor."""
    high: NDArray[np.float64]
    """On average at least the floor, and the nearer one of the two where there are several controls: what is reported
    as the floor."""


def next_entropies(
    parameters: Tensor,
    world: World,
    method: Method,
    settings: Settings,
    *,
    step: int,
    seeds: Sequence[int],
    controls: int = CONTROLS,
    resamples: int = RESAMPLES,
    order_known: bool = True,
) -> Tensor:
    """(N, U, M): H as the next step measures it, after this step under each control, with fresh noise.

    Each resample is `train_step` from the same parameters under a control that is held whatever the entropy, and then
    the next step's main rollouts and their mean entropy. Resamples of one number have the same noise under every
    control and for every run of one seed. What a method's controller keeps in its state is in the control; so e3, whose
    control acts on the step after the one that decides it, has the same temperature in both.

    Args:
        parameters: (N, ...), the policy before the step.
        world, method, settings: of the run.
        step: whose prompts are asked; the next step's are measured on.
        seeds: N.
        controls: how many of a range, see `Method.controls`.
        resamples: M.
        order_known: whether the prompts of the next step are those of the run, which a controller could know; else
            each resample draws them from all, as they look to a controller that sees entropies alone. Without
            `Settings.states_per_step` both are every prompt.
    """
    allowed = method.controls(controls)
    count, runs = len(allowed.temperature), len(parameters)
    # Resamples share one order of the prompts in a pass, so an unknown order has a pass for each.
    several = max(1, AT_ONCE // (count * runs)) if order_known else 1
    found = []
    for first in range(0, resamples, several):
        drawn = range(first, min(first + several, resamples))
        copies = len(drawn) * count
        # Resample after resample, in it control after control, in that run after run.
        held = allowed.chosen(torch.arange(count).repeat(len(drawn)).repeat_interleave(runs))
        entropy = _next_entropy(
            parameters.repeat(copies, *[1] * (parameters.dim() - 1)),
            world.repeated(copies),
            dataclasses.replace(method, controller=Held(control=held)),
            # One step of each: drawing the numbers of more would be most of the work.
            Noise([f"{seed}/resample {i}" for i in drawn for _ in range(count) for seed in seeds], chunk=1),
            step=step,
            settings=settings,
            order=0 if order_known else 1 + first,
        )
        found.append(entropy.view(len(drawn), count, runs))
    return torch.cat(found).permute(2, 1, 0)


def _next_entropy(
    parameters: Tensor, world: World, method: Method, noise: Noise, *, step: int, settings: Settings, order: int
) -> Tensor:
    loop = Loop.start(method.controller, parameters.new_zeros(len(parameters)))
    # The control is held, so that the target decides nothing.
    after, loop, _ = train_step(parameters, world, method, loop, noise, step=step, target=0.0, settings=settings)
    policy = Policy.of(after, world.table(after))
    prompts = prompts_asked(world, settings, step=step + 1, order=order)
    main = main_rollouts(policy, world, method, loop.state, noise, prompts, step=step + 1, settings=settings)
    return main.mean_entropy()


def floor_states(steps: int, count: int = STATES) -> list[int]:
    """The steps whose policies the floor of a run is averaged over, evenly spaced in its last half.

    An entropy of the last half is measured one step after the state that it came from, so each is a step earlier; a run
    of one step has none.

    >>> floor_states(1000)
    [499, 570, 642, 713, 784, 855, 927, 998]
    >>> floor_states(4), floor_states(1)
    ([1, 2], [])
    """
    first, last = max(steps // 2 - 1, 0), steps - 2
    return sorted({round(float(k)) for k in np.linspace(first, last, count)}) if last >= first else []


def floor_along(
    kept: Mapping[int, Tensor],
    world: World,
    method: Method,
    settings: Settings,
    *,
    seeds: Sequence[int],
    controls: int = CONTROLS,
    resamples: int = RESAMPLES,
    order_known: bool = True,
) -> Floor:
    """The mean floor over some states of each run.

    No controller that acts through the method's limits has a smaller expected error, on average over these states, if
    it visits them and chooses its target and its control before the step is sampled.

    Args:
        kept: step -> (N, ...): the policy before that step, from `train(..., keep=floor_states(steps))`; not empty.
        world, method, settings: of the run.
        seeds: N.
        controls, resamples, order_known: as for `next_entropies`.
    """
    each = [
        estimated_floor(
            next_entropies(
                parameters,
                world,
                method,
                settings,
                step=step,
                seeds=seeds,
                controls=controls,
                resamples=resamples,
                order_known=order_known,
            ).numpy()
        )
        for step, parameters in kept.items()
    ]
    low, high = np.mean(each, axis=0)
    return Floor(low=low, high=high)


def of_first_seeds(parameters: Tensor, few: int, *, seeds: int) -> Tensor:
    """The policies of the first few of every so many runs: (C x N, ...) -> (C x few, ...)."""
    return parameters.unflatten(0, (-1, seeds))[:, :few].flatten(0, 1)
