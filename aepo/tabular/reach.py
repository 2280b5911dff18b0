"""The band of entropies that a method can hold on a world: a prediction from the mean step, without sampling a run.

The controller is pinned at each of its limits and the policy follows the mean of the sampled update: exact expectations
over responses, and each credit's mean over the luck of its group. What sampling adds is of second order: it spreads the
logits of right answers, which lowers their entropy, by an amount that grows with the learning rate. H* is within reach
where it lies between the entropies of the two pinned runs for the whole last half of a run. The spread is followed to
second order: where it is large (a learning rate of 10 with 16 prompts a step), noise takes more than is predicted.

Letters as in `aepo.tabular.worlds.world`.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.authority import expected_credit
from aepo.batch import Rollouts
from aepo.categorical import entropy_of, log_softmax
from aepo.controller import Control, Loop
from aepo.method import Method
from aepo.schedule import Constant, Schedule
from aepo.tabular.settings import Settings
from aepo.tabular.train import Noise, train_step
from aepo.tabular.worlds.world import World, looked_up

# A target that no entropy comes near pins a controller at a limit.
FAR = 1e3
# Standard normal numbers that the spread of logits is averaged over.
DRAWS = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Band:
    """Between which entropies each run's can be held, at some of its steps."""

    steps: tuple[int, ...]
    lowest: Tensor
    """(N, number of steps), nats."""
    highest: Tensor
    """(N, number of steps), nats."""

    def miss(self, schedule: Schedule) -> Tensor:
        """(N,): mean distance of the target from the band over the last half of the steps, in nats."""
        runs = len(self.lowest)
        target = torch.stack(
            [torch.as_tensor(schedule(step), dtype=self.lowest.dtype).expand(runs) for step in self.steps], -1
        )
        outside = (self.lowest - target).clamp(min=0) + (target - self.highest).clamp(min=0)
        return outside[:, len(self.steps) // 2 :].mean(-1)


def mean_credit(method: Method, group_size: int) -> Method:
    """The method for exact expectations, each credit the mean over sampled groups of `group_size` (a 0/1 reward)."""

    def advantage(rollouts: Rollouts) -> Tensor:
        chance = rollouts.row_weight * (rollouts.reward.shape[-1] // rollouts.group_size)
        right = rollouts.reward > 0
        success = (chance * right).unflatten(-1, (-1, rollouts.group_size)).sum(-1).clamp(max=1.0)
        credits = expected_credit(method, success, group_size)
        of_right, of_wrong = (x.repeat_interleave(rollouts.group_size, -1) for x in credits)
        return torch.where(right, of_right, of_wrong)

    return dataclasses.replace(method, advantage=None if method.advantage is None else advantage)


def band(world: World, method: Method, settings: Settings, *, every: int = 20) -> Band:
    """The band of a method with a second branch on a world, by two pinned runs of the mean step.

    Args: as for `mean_run`.
    """
    low, high = (mean_run(world, method, settings, Constant(target), every=every).entropy for target in (-FAR, FAR))
    return Band(steps=tuple(range(0, settings.steps, every)), lowest=low[:, ::every], highest=high[:, ::every])


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanRun:
    """What is predicted of a run, each (N, steps), in nats."""

    entropy: Tensor
    """The policy's, with what noise takes taken off."""
    lost: Tensor
    """What noise takes."""
    luck: Tensor
    """Standard deviation of one step's change of the entropy over the samples that the step might have drawn."""
    authority: Tensor
    """By how much one step at full strength moves the entropy."""
    scatter: Tensor
    """Standard deviation of the entropy that a step measures about the policy's: it asks some of the prompts."""
    steps_aside: bool
    """Whether the push shrinks with the error; one that does not answers luck with a whole push."""

    def error(self, schedule: Schedule) -> Tensor:
        """(N,): predicted mean |H - H*| over the last half of the steps.

        Luck adds to the mean run's own error. Of a push that shrinks with the error no more is known than that it
        does no better than the best filter: a walk of steps sigma that is seen with scatter m has the variance
        (sigma^2 + sqrt(sigma^4 + 4 sigma^2 m^2)) / 2 when it is seen (Kalman). Pushes d that are always whole, in a
        direction that scatter takes part in, leave the mean deviation of `_walk`.
        """
        runs, steps = self.entropy.shape
        target = torch.stack(
            [torch.as_tensor(schedule(step), dtype=self.entropy.dtype).expand(runs) for step in range(steps)], -1
        )
        ratio = math.sqrt(2 / math.pi)
        by_step, by_prompts = self.luck.square(), self.scatter.square()
        by_luck = ratio * ((by_step + (by_step.square() + 4 * by_step * by_prompts).sqrt()) / 2).sqrt()
        own, half = (self.entropy - target).abs(), steps // 2
        if self.steps_aside:
            return (own.square() + by_luck.square()).sqrt()[:, half:].mean(-1)
        walk = by_luck.maximum(_walk(self.luck, self.authority, self.scatter))
        # Half a push is the walk's part of the mean run's own error: what whole pushes leave without luck.
        own, walk, swing = (x[:, half:].mean(-1) for x in (own, walk, self.authority / 2))
        return ((own.square() - swing.square()).clamp(min=0) + walk.square()).sqrt()


def _walk(luck: Tensor, push: Tensor, scatter: Tensor) -> Tensor:
    """Mean deviation of a walk that whole pushes bring back, each towards where the walk is seen; all (...).

    At x it is pushed by d (2 Phi(x / m) - 1) on average. So its stationary density is that of a diffusion,
    exp(-2 U(x) / (sigma^2 + d^2)), U the integral of that push; without scatter, Laplace's.
    """
    push = push.clamp(min=1e-6)
    scatter = scatter.clamp(min=1e-6)
    moved = luck.square() + push.square()
    # Between Laplace's scale and that of the normal density which a large scatter leaves.
    alone = moved / (2 * push)
    wide = alone + (math.sqrt(math.pi / 2) * scatter * alone).sqrt()
    x = torch.linspace(0, 12, 150, dtype=luck.dtype) * wide.unsqueeze(-1)
    z = x / scatter.unsqueeze(-1)
    normal = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    work = push.unsqueeze(-1) * (x * torch.special.erf(z / math.sqrt(2)) + 2 * scatter.unsqueeze(-1) * normal)
    density = torch.exp(-2 * (work - work[..., :1]) / moved.unsqueeze(-1))
    return (x * density).sum(-1) / density.sum(-1)


def mean_run(world: World, method: Method, settings: Settings, schedule: Schedule, *, every: int = 20) -> MeanRun:
    """A run whose every step is the mean of the sampled one, and what sampling does about it.

    Args:
        world: N runs.
        method: of the AEPO family.
        settings: sizes and learning rate; `exact` is set here.
        schedule: step -> H*, a number or (N,).
        every: steps between looks at the noise.
    """
    parameters = world.parameters
    runs = len(parameters)
    exact = dataclasses.replace(settings, exact=True)
    mean = mean_credit(method, settings.group_size)
    loop, noise = Loop.start(method.controller, parameters.new_zeros(runs)), Noise([0])
    spread, lost = parameters.new_zeros(runs), parameters.new_zeros(runs)
    measured = [parameters.new_zeros(runs)] * 3
    found: list[tuple[Tensor, ...]] = []
    for step in range(settings.steps):
        before = parameters
        # A controller that sees H - lost and aims at H* does what one that sees H and aims at H* + lost does.
        target = torch.as_tensor(schedule(step), dtype=parameters.dtype) + lost
        parameters, loop, record = train_step(
            parameters, world, mean, loop, noise, step=step, target=target, settings=exact
        )
        now = record.policy_entropy - lost
        if step % every == 0:
            measured = list(_luck(world, before, method, record.control, settings))
        found.append((now, lost, *measured))
        if step % every == 0:
            spread = _spread(spread, world, before, method, record.control, settings, steps=every)
            lost = _lost(spread, world, before)
    entropy, taken, luck, push, scatter = (torch.stack(values, -1) for values in zip(*found, strict=True))
    tempered = method.tempered
    return MeanRun(
        entropy=entropy,
        lost=taken,
        luck=luck,
        authority=push,
        scatter=scatter,
        steps_aside=tempered is not None and tempered.strength is not None,
    )


def _luck(
    world: World, parameters: Tensor, method: Method, control: Control, settings: Settings
) -> tuple[Tensor, Tensor, Tensor]:
    """The deviation of a step's change of H, that change at a push of 1, and the deviation of what a step measures.

    Each (N,), the first two to first order.
    """
    tempered = method.tempered
    if tempered is None:
        zero = parameters.new_zeros(len(parameters))
        return zero, zero, zero
    everyone = torch.arange(world.training)
    leaf = parameters.detach().requires_grad_()
    table = world.table(leaf)
    log_probs = log_softmax(table)
    one = parameters.new_ones(len(parameters))
    main = world.enumerate(table.detach(), everyone, temperature=one)
    states = world.state(main.prompt, main.token)
    logp = looked_up(log_probs, states, main.token)
    entropy = entropy_of(log_probs).gather(1, states.flatten(1)).view(states.shape)
    share = logp.sum(-1).exp()
    by_state = (share * entropy.mean(-1)).unflatten(-1, (world.training, -1)).sum(-1)
    by_parameters = torch.autograd.grad(by_state.mean(-1).sum(), leaf)[0]
    # How H moves with each logit, and so with the score of each token: the table is linear in the parameters.
    slope = world.table(by_parameters)
    slope = slope - (log_probs.detach().exp() * slope).sum(-1, keepdim=True)
    moves = looked_up(slope, states, main.token).mean(-1).unflatten(-1, (-1, main.group_size))
    right = main.reward.unflatten(-1, (-1, main.group_size)) > 0
    chance = share.detach().unflatten(-1, (-1, main.group_size))
    hot = world.enumerate(table.detach(), everyone, temperature=control.temperature)
    hot_chance = hot.row_weight.unflatten(-1, (-1, main.group_size)) * world.training
    success = (chance * right).sum(-1).clamp(max=1.0)
    mean_of, square_of = (expected_credit(method, success, settings.group_size, power=power) for power in (1, 2))
    credit, square = (torch.where(right, a.unsqueeze(-1), b.unsqueeze(-1)) for a, b in (mean_of, square_of))
    of_main = (chance * square * moves.square()).sum(-1) - (chance * credit * moves).sum(-1).square()
    pushed = hot_chance * right * moves
    of_second = (pushed * moves).sum(-1) - pushed.sum(-1).square()
    strength = 1.0 if tempered.strength is None else tempered.strength(control)
    prompts = settings.states_per_step or world.training
    again = tempered.prompt_count(prompts, control)
    size, alpha = settings.group_size, tempered.alpha
    variance = of_main.mean(-1) / (prompts * size) + (alpha * strength) ** 2 * of_second.mean(-1) / (again * size)
    # Prompts that a step asks are drawn without replacement.
    missed = (world.training - prompts) / max(1, world.training - 1)
    scatter = (by_state.detach().var(-1, correction=0) * missed / prompts).sqrt()
    return settings.lr * variance.clamp(min=0).sqrt(), settings.lr * alpha * pushed.sum(-1).mean(-1).abs(), scatter


def _directions(world: World) -> float:
    """How many states' worth of logits the policy can move independently: all of a table, fewer of a linear policy."""
    features = getattr(world, "features", None)
    if features is None:
        return float(world.training)
    kernel = features @ features.transpose(-1, -2)
    return float((kernel.diagonal(dim1=-2, dim2=-1).sum(-1) ** 2 / kernel.square().sum((-2, -1))).mean())


def _spread(
    spread: Tensor,
    world: World,
    parameters: Tensor,
    method: Method,
    control: Control,
    settings: Settings,
    *,
    steps: int,
) -> Tensor:
    """The variance of the logits of right answers after so many more steps, (N, S)."""
    right = getattr(world, "verdicts", None)
    if right is None or method.tempered is None:
        return spread
    if spread.dim() == 1:
        spread = spread.unsqueeze(-1).expand(right.shape[:-1])
    table = world.table(parameters.detach())
    probs = log_softmax(table).exp()
    hot = log_softmax(table, control.temperature.unsqueeze(-1)).exp()
    success, pushed = ((x * right).sum(-1).clamp(max=1.0) for x in (probs, hot))
    among = (probs * right / success.unsqueeze(-1).clamp(min=1e-12)).square().sum(-1)
    of_right, _ = expected_credit(method, success, settings.group_size)
    strength = 1.0 if method.tempered.strength is None else method.tempered.strength(control).unsqueeze(-1)
    alpha = method.tempered.alpha * strength
    if method.tempered.normalizer == "positives":
        alpha = alpha / pushed.clamp(min=1e-12)
    prompts = settings.states_per_step or world.training
    rows = method.tempered.prompt_count(prompts) * settings.group_size
    pull = alpha * pushed * (1 - 1 / control.temperature.unsqueeze(-1)) - success * of_right
    directions = _directions(world)
    # A push down does not hold right answers together, and noise that lowers the entropy does not hinder it.
    back = (2 * settings.lr * pull * among / directions).clamp(-1.0 / steps, 1.0)
    added = settings.lr**2 * alpha**2 * pushed * among / (rows * directions)
    kept = (1 - back) ** steps
    # The sum of `added` over the steps, each shrunk by those after it.
    grown = spread * kept + added * torch.where(back.abs() < 1e-9, float(steps), (1 - kept) / back)
    return torch.where(control.temperature.unsqueeze(-1) > 1, grown.clamp(0, 50), spread * 0.5)


def _lost(spread: Tensor, world: World, parameters: Tensor) -> Tensor:
    """(N,): by how much spread logits lower the mean entropy of the training states."""
    right = getattr(world, "verdicts", None)
    if right is None or spread.dim() == 1:
        return spread.new_zeros(len(spread))
    table = world.table(parameters.detach())
    generator = torch.Generator().manual_seed(1)
    draws = torch.randn(DRAWS, *table.shape[1:], generator=generator, dtype=table.dtype)
    at_rest = entropy_of(log_softmax(table))
    moved = torch.stack([entropy_of(log_softmax(table + spread.sqrt().unsqueeze(-1) * d * right)) for d in draws])
    return (at_rest - moved.mean(0)).mean(-1)
