"""One training step of a tabular policy, and a run of them. The step reads like the LLM trainer's.

Letters as in `aepo.tabular.worlds.world`. A chain is the policy of the tests that compare with the LLM trainer: the
state of a response's first token is its prompt, of every later token the token before it, so a bandit is a chain of one
token.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.batch import Batch, Rollouts, minibatches
from aepo.categorical import entropy_of, finite, log_probs_and_probs, log_softmax, mean_effect
from aepo.controller import Control, Loop, State
from aepo.errors import NOT_FINITE, AepoError
from aepo.loss import policy_loss
from aepo.method import Method, assemble
from aepo.schedule import Schedule
from aepo.tabular.memory import keep_freed_memory
from aepo.tabular.settings import Settings
from aepo.tabular.worlds.world import World, looked_up, prompts_of_step, tempered_log_probs


class DivergedError(AepoError, ValueError):
    """A run whose logits are not finite any more."""

    exit_code = NOT_FINITE


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """A policy's distributions, computed once for all the rows that look them up: there are fewer states than rows."""

    parameters: Tensor
    """(N, ...): what the gradient is taken by."""
    table: Tensor
    """(N, S, K): logits."""
    log_probs: Tensor
    """(N, S, K)."""
    probs: Tensor
    """(N, S, K)."""
    entropy: Tensor
    """(N, S)."""

    @classmethod
    def of(cls, parameters: Tensor, table: Tensor, *, graph: bool = True) -> "Policy":
        """From the parameters and the table that they make; without a graph only the table keeps its gradient."""
        log_probs, probs = log_probs_and_probs(table if graph else table.detach())
        entropy = entropy_of(log_probs, probs)
        return cls(parameters=parameters, table=table, log_probs=log_probs, probs=probs, entropy=entropy)

    def stats(self, state: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Log-prob and exact entropy of each token, both (N, R, T), with gradient if the parameters have one."""
        return looked_up(self.log_probs, state, token), _by_state(self.entropy, state)


def _by_state(values: Tensor, state: Tensor) -> Tensor:
    return values.gather(1, state.view(len(values), -1)).view(state.shape)


def chain(rows: Rollouts | Batch) -> Tensor:
    """(N, R, T) int64: the states of a Markov chain: the prompt, then every time the token before."""
    return torch.cat([rows.prompt.unsqueeze(-1), rows.token[..., :-1]], -1)


def stats(table: Tensor, rows: Rollouts | Batch) -> tuple[Tensor, Tensor]:
    """Log-prob and exact entropy of each row's tokens under a chain's table, both (N, R, T), with gradient."""
    return Policy.of(table, table).stats(chain(rows), rows.token)


def score(table: Tensor, rollouts: Rollouts) -> Rollouts:
    """The rollouts with old_logp and entropy from this chain."""
    with torch.no_grad():
        old_logp, entropy = stats(table, rollouts)
    return rollouts.replace(old_logp=old_logp, entropy=entropy)


def tempered_score(table: Tensor, rollouts: Rollouts, temperature: Tensor) -> Rollouts:
    """The rollouts with logp_t from this chain at a temperature per run, (N,)."""
    with torch.no_grad():
        log_probs = log_softmax(table, temperature.unsqueeze(-1))
        return rollouts.replace(logp_t=looked_up(log_probs, chain(rollouts), rollouts.token))


def effect_score(table: Tensor, rollouts: Rollouts) -> Rollouts:
    """The rollouts with mean_effect from this chain."""
    with torch.no_grad():
        return rollouts.replace(mean_effect=_by_state(mean_effect(log_softmax(table)), chain(rollouts)))


def update(table: Tensor, batch: Batch, method: Method, *, lr: Tensor | float, parts: int = 1) -> Tensor:
    """A chain's table after one SGD step per mini-batch (Eq. 4 generalised).

    Args:
        table: (N, S, K).
        batch: the global batch.
        method: whose objective.
        lr: learning rate, a number or (N,).
        parts: number of mini-batches.
    """
    for part in minibatches(batch, parts):
        leaf = table.detach().requires_grad_()
        table = table - _rate(lr, table) * gradient(Policy.of(leaf, leaf), chain(part), part, method)
    return table


def gradient(policy: Policy, state: Tensor, batch: Batch, method: Method) -> Tensor:
    """The loss's gradient by the parameters, (N, ...), of a batch whose tokens were drawn in the given states."""
    logp, entropy = policy.stats(state, batch.token)
    loss, _ = policy_loss(
        logp, method.bonus(logp, entropy), batch, method.surrogate, token_entropy=entropy, report=False
    )
    return torch.autograd.grad(loss.sum(), policy.parameters)[0]


def on_policy_gradient(policy: Policy, state: Tensor, batch: Batch, method: Method) -> Tensor:
    """`gradient` in closed form, for a policy that is the one which sampled the batch and a surrogate that says so.

    There every ratio is 1, and the gradient by a state's logits is sum over its tokens of weight x A x (pi - e_a),
    minus the bonus's weight x pi (-ln pi - H).
    """
    log_probs = policy.log_probs.detach()
    runs, states, actions = log_probs.shape
    credit = batch.weight * batch.advantage
    if method.has_bonus and method.entropy_bonus == "sampled_nll":
        credit = credit - batch.entropy_weight
    probs, rows = policy.probs.detach(), state.reshape(runs, -1)
    credit = credit.reshape(runs, -1)
    total = log_probs.new_zeros(runs, states).scatter_add_(1, rows, credit)
    # The objective's gradient, which is the loss's with the other sign.
    by_logits = total.neg_().unsqueeze(-1) * probs
    by_logits.view(runs, -1).scatter_add_(1, rows * actions + batch.token.reshape(runs, -1), credit)
    if method.has_bonus and method.entropy_bonus == "exact":
        counted = batch.entropy_weight.reshape(runs, -1)
        weight = log_probs.new_zeros(runs, states).scatter_add_(1, rows, counted)
        below = finite(log_probs) + policy.entropy.detach().unsqueeze(-1)
        by_logits = by_logits - weight.unsqueeze(-1) * probs * below
    return -torch.autograd.grad(policy.table, policy.parameters, by_logits)[0]


def _rate(lr: Tensor | float, parameters: Tensor) -> Tensor:
    return torch.as_tensor(lr, dtype=parameters.dtype).view(-1, *[1] * (parameters.dim() - 1))


class Noise:
    """Uniform numbers by (seed, branch, step): they depend neither on the runs beside nor on the method.

    Args:
        seeds: one per run.
        chunk: steps that are drawn at once; the numbers depend on it.
    """

    # A generator's call costs more than its numbers.
    CHUNK = 64

    def __init__(self, seeds: Sequence[int | str], *, chunk: int = CHUNK) -> None:
        self.seeds = list(seeds)
        self.chunk = chunk
        self._chunks: dict[str, tuple[int, Tensor]] = {}

    def __call__(self, branch: str, step: int, count: int) -> Tensor:
        """(N, count) float64 in [0, 1)."""
        chunk = step // self.chunk
        held = self._chunks.get(branch)
        if held is None or held[0] != chunk or held[1].shape[-1] != count:
            draws = {seed: self._draw(seed, branch, chunk, count) for seed in set(self.seeds)}
            held = (chunk, torch.stack([draws[seed] for seed in self.seeds], 1))
            self._chunks[branch] = held
        return held[1][step % self.chunk]

    def _draw(self, seed: int | str, branch: str, chunk: int, count: int) -> Tensor:
        digest = hashlib.sha256(f"{seed}/{branch}/{chunk}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return torch.rand(self.chunk, count, generator=generator, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one step measured, before its update: each (N,)."""

    entropy: Tensor
    policy_entropy: Tensor
    """The exact mean over all training states where responses are one action, which B of them only estimate; else
    `entropy` itself."""
    reward: Tensor
    control: Control
    control_samples: int


def prompts_asked(world: World, settings: Settings, *, step: int, order: int = 0) -> Tensor:
    """(P,) int64: the prompts of a step, in every run the same; `order` is the seed of their order."""
    count = settings.states_per_step or world.training
    return prompts_of_step(step, training=world.training, count=count, seed=order)


def main_rollouts(
    policy: Policy,
    world: World,
    method: Method,
    state: State,
    noise: Noise,
    prompts: Tensor,
    *,
    step: int,
    settings: Settings,
) -> Rollouts:
    """What a step samples first and measures the entropy on: at T = 1, unless the method moves that.

    Args:
        policy: samples.
        world, method, noise, step, settings: as for `train_step`.
        state: the controller's.
        prompts: (P,) int64, from `prompts_asked`.
    """
    temperature = method.main_temperature and method.main_temperature(state)
    return _rollouts(policy, world, noise, prompts, temperature, branch="main", step=step, settings=settings)


def _rollouts(
    policy: Policy,
    world: World,
    noise: Noise,
    prompts: Tensor,
    temperature: Tensor | None,
    *,
    branch: str,
    step: int,
    settings: Settings,
) -> Rollouts:
    """Scored responses to the prompts at a temperature per run, (N,), or at 1 (None)."""
    table, n = policy.table.detach(), settings.group_size
    if settings.exact:
        there = table.new_ones(len(table)) if temperature is None else temperature
        rows = world.enumerate(table, prompts, temperature=there)
    else:
        uniforms = noise(branch, step, len(prompts) * n * world.length)
        # At T = 1 the distributions are known already.
        source = policy.probs.detach() if temperature is None else tempered_log_probs(table, temperature).exp()
        rows = world.sample(source, prompts, uniforms, n=n)
    state = world.state(rows.prompt, rows.token)
    old_logp = looked_up(policy.log_probs.detach(), state, rows.token)
    return rows.replace(old_logp=old_logp, entropy=_by_state(policy.entropy.detach(), state))


def train_step(
    parameters: Tensor,
    world: World,
    method: Method,
    loop: Loop,
    noise: Noise,
    *,
    step: int,
    target: Tensor | float,
    settings: Settings,
) -> tuple[Tensor, Loop, Step]:
    """Sample, grade, score, control, sample again, assemble, update.

    Args:
        parameters: (N, ...), the policy.
        world: states, sampling and verdicts.
        method: what to sample and how to weight it.
        loop: the controller's memory.
        noise: the runs' random numbers.
        step: counted from 0.
        target: H*, a number or (N,).
        settings: sizes and learning rate.

    Returns:
        The next parameters, the next loop, and what was measured on the way.
    """
    # The first mini-batch is on-policy; where its gradient has a closed form, only the table needs a graph.
    closed = getattr(method.surrogate, "plain_on_policy", False)
    leaf = parameters.detach().requires_grad_()
    policy = Policy.of(leaf, world.table(leaf), graph=not closed)
    table, known = policy.table.detach(), (policy.log_probs.detach(), policy.entropy.detach())
    prompts = prompts_asked(world, settings, step=step)
    main = main_rollouts(policy, world, method, loop.state, noise, prompts, step=step, settings=settings)
    entropy = main.mean_entropy()
    loop, control = loop.decide(
        method.controller,
        entropy=entropy,
        target=target,
        sees=settings.sees,
        step=step,
        relative=settings.relative_target,
    )
    second = None
    if method.tempered is not None:
        # As many as any control may ask for: a run's random numbers do not depend on the runs beside.
        again = prompts[: method.tempered.most_prompts(len(prompts))]
        second = _rollouts(
            policy, world, noise, again, control.temperature, branch="tempered", step=step, settings=settings
        )
    if method.needs_logp_t:
        tempered = tempered_log_probs(table, control.temperature)
        main = main.replace(logp_t=looked_up(tempered, world.state(main.prompt, main.token), main.token))
    if method.needs_mean_effect:
        main = main.replace(mean_effect=_by_state(mean_effect(known[0]), world.state(main.prompt, main.token)))
    batch = assemble(method, control, main, second)
    for i, part in enumerate(minibatches(batch, settings.minibatches)):
        if i:
            leaf = parameters.detach().requires_grad_()
            policy = Policy.of(leaf, world.table(leaf))
        state = world.state(part.prompt, part.token)
        moved = (on_policy_gradient if closed and i == 0 else gradient)(policy, state, part, method)
        parameters = parameters - _rate(settings.lr, parameters) * moved
    return (
        parameters,
        loop,
        Step(
            entropy=entropy,
            policy_entropy=known[1].mean(-1) if world.length == 1 else entropy,
            reward=main.mean_reward(),
            control=control,
            control_samples=0 if second is None else second.reward.shape[-1],
        ),
    )


def _target(control: Control) -> Tensor:
    if control.target is None:
        raise ValueError("the loop gave a control without its target")
    return control.target


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """A run's record, each (N, steps): what every step measured before its update."""

    entropy: Tensor
    policy_entropy: Tensor
    """Over all training states, see `Step`."""
    target: Tensor
    reward: Tensor
    temperature: Tensor
    raise_entropy: Tensor
    push: Tensor
    """The controller's signed output, see `Control.strength`."""
    parameters: Tensor
    """(N, ...): the policy after the last step."""
    evaluation: dict[str, Tensor]
    """Name -> (N,): the world's exact evaluation of that policy."""
    control_samples: int
    """Responses per step and run that were sampled for control alone."""
    kept: Mapping[int, Tensor]
    """Step -> (N, ...): the policy before that step, for those that were asked for."""


def train(
    world: World,
    method: Method,
    schedule: Schedule,
    seeds: Sequence[int],
    settings: Settings,
    *,
    on_step: Callable[[int], None] = lambda step: None,
    keep: Collection[int] = (),
) -> History:
    """Train every run of `world` side by side.

    Args:
        world: N runs.
        method: one for all runs.
        schedule: step -> H*, a number or (N,).
        seeds: N, each run's noise; equal seeds get equal noise.
        settings: sizes and learning rate.
        on_step: called after each step, for progress.
        keep: steps whose policies are kept.

    Raises:
        ValueError: as many seeds as runs are needed; more states a step than there are.
        DivergedError: a non-finite parameter; the run is named.
    """
    keep_freed_memory()
    parameters = world.parameters
    if len(seeds) != len(parameters):
        raise ValueError(f"seeds must have one entry per run = {len(parameters)}, got {len(seeds)}")
    if settings.states_per_step is not None and settings.states_per_step > world.training:
        raise ValueError(f"states_per_step must be at most {world.training}, got {settings.states_per_step}")
    noise = Noise(seeds)
    loop = Loop.start(method.controller, parameters.new_zeros(len(parameters)))
    records: list[Step] = []
    kept: dict[int, Tensor] = {}
    for step in range(settings.steps):
        if step in keep:
            kept[step] = parameters
        target = torch.as_tensor(schedule(step), dtype=parameters.dtype).expand(len(parameters))
        parameters, loop, record = train_step(
            parameters, world, method, loop, noise, step=step, target=target, settings=settings
        )
        records.append(record)
        on_step(step)
    broken = (~parameters.isfinite()).flatten(1).any(-1)
    if broken.any():
        run = int(broken.nonzero()[0])
        raise DivergedError(f"run {run} (seed {seeds[run]}) of method {method.name!r} left non-finite logits; lower lr")
    return History(
        entropy=torch.stack([r.entropy for r in records], -1),
        policy_entropy=torch.stack([r.policy_entropy for r in records], -1),
        target=torch.stack([_target(r.control) for r in records], -1),
        reward=torch.stack([r.reward for r in records], -1),
        temperature=torch.stack([r.control.temperature for r in records], -1),
        raise_entropy=torch.stack([r.control.raise_entropy for r in records], -1),
        push=torch.stack([r.control.strength for r in records], -1),
        parameters=parameters,
        evaluation=world.evaluate(parameters),
        control_samples=records[-1].control_samples,
        kept=kept,
    )
