"""One training step of a tabular policy, and a run of them. The step reads like the LLM trainer's.

Letters as in `aepo.tabular.bandit`. A policy is a table of logits by state; the state of a response's first
token is its prompt, of every later token the token before it, so a bandit is the case of one token.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.batch import Batch, Rollouts, minibatches
from aepo.categorical import entropy_of, log_softmax
from aepo.controller import Control, Loop
from aepo.loss import policy_loss
from aepo.method import Method, assemble
from aepo.schedule import Schedule
from aepo.tabular.bandit import Bandit
from aepo.tabular.settings import Settings


def stats(table: Tensor, rows: Rollouts | Batch) -> tuple[Tensor, Tensor]:
    """Log-prob and exact entropy of each row's tokens under the table, both (N, R, T), with gradient.

    There are fewer states than rows, so both are computed once per state and then looked up: nothing of shape
    (N, R, T, K) is formed.
    """
    state = torch.cat([rows.prompt.unsqueeze(-1), rows.token[..., :-1]], -1)
    log_probs = log_softmax(table)
    runs, _, actions = table.shape
    flat = (state * actions + rows.token).view(runs, -1)
    logp = log_probs.view(runs, -1).gather(1, flat).view(state.shape)
    entropy = entropy_of(log_probs).gather(1, state.view(runs, -1)).view(state.shape)
    return logp, entropy


def score(table: Tensor, rollouts: Rollouts) -> Rollouts:
    """The rollouts with old_logp and entropy from this table."""
    with torch.no_grad():
        old_logp, entropy = stats(table, rollouts)
    return rollouts.replace(old_logp=old_logp, entropy=entropy)


def update(table: Tensor, batch: Batch, method: Method, *, lr: Tensor | float, parts: int = 1) -> Tensor:
    """The table after one SGD step per mini-batch (Eq. 4 generalised).

    Args:
        table: (N, S, K).
        batch: the global batch.
        method: whose objective.
        lr: learning rate, a number or (N,).
        parts: number of mini-batches.
    """
    lr = torch.as_tensor(lr, dtype=table.dtype).view(-1, 1, 1)
    for part in minibatches(batch, parts):
        leaf = table.detach().requires_grad_()
        logp, entropy = stats(leaf, part)
        loss, _ = policy_loss(logp, method.bonus(logp, entropy), part, method.surrogate)
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
        table = table - lr * gradient
    return table


class Noise:
    """Uniform numbers by (seed, branch, step): they depend neither on the runs beside nor on the method."""

    # Steps drawn at once: a generator's call costs more than its numbers.
    CHUNK = 64

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = list(seeds)
        self._chunks: dict[str, tuple[int, Tensor]] = {}

    def __call__(self, branch: str, step: int, count: int) -> Tensor:
        """(N, count) float64 in [0, 1)."""
        chunk = step // self.CHUNK
        held = self._chunks.get(branch)
        if held is None or held[0] != chunk or held[1].shape[-1] != count:
            draws = {seed: self._draw(seed, branch, chunk, count) for seed in set(self.seeds)}
            held = (chunk, torch.stack([draws[seed] for seed in self.seeds], 1))
            self._chunks[branch] = held
        return held[1][step % self.CHUNK]

    def _draw(self, seed: int, branch: str, chunk: int, count: int) -> Tensor:
        digest = hashlib.sha256(f"{seed}/{branch}/{chunk}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        return torch.rand(self.CHUNK, count, generator=generator, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one step measured, before its update: each (N,)."""

    entropy: Tensor
    reward: Tensor
    control: Control


def train_step(
    table: Tensor,
    world: Bandit,
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
        table: (N, S, K) logits.
        world: states and their correct actions.
        method: what to sample and how to weight it.
        loop: the controller's memory.
        noise: the runs' random numbers.
        step: counted from 0.
        target: H*, a number or (N,).
        settings: sizes and learning rate.

    Returns:
        The next table, the next loop, and what was measured on the way.
    """

    def rollouts(branch: str, prompts: Tensor, temperature: Tensor) -> Rollouts:
        if settings.exact:
            return score(table, world.enumerate(table, prompts, temperature=temperature))
        n = settings.group_size
        uniforms = noise(branch, step, len(prompts) * n)
        return score(table, world.sample(table, prompts, uniforms, n=n, temperature=temperature))

    prompts = world.prompts
    main = rollouts("main", prompts, table.new_ones(len(table)))
    entropy = main.mean_entropy()
    loop, control = loop.decide(method.controller, entropy=entropy, target=target, sees=settings.sees)
    second = None
    if method.tempered is not None:
        again = prompts[: method.tempered.prompt_count(len(prompts))]
        second = rollouts("tempered", again, control.temperature)
    batch = assemble(method, control, main, second)
    table = update(table, batch, method, lr=settings.lr, parts=settings.minibatches)
    return table, loop, Step(entropy=entropy, reward=main.mean_reward(), control=control)


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """A run's record, each (N, steps): what every step measured before its update."""

    entropy: Tensor
    target: Tensor
    reward: Tensor
    temperature: Tensor
    raise_entropy: Tensor
    table: Tensor
    """(N, S, K): the logits after the last step."""


def train(
    world: Bandit,
    method: Method,
    schedule: Schedule,
    seeds: Sequence[int],
    settings: Settings,
    *,
    on_step: Callable[[int], None] = lambda step: None,
) -> History:
    """Train every run of `world` side by side.

    Args:
        world: N runs.
        method: one for all runs.
        schedule: step -> H*, a number or (N,).
        seeds: N, each run's noise; equal seeds get equal noise.
        settings: sizes and learning rate.
        on_step: called after each step, for progress.

    Raises:
        ValueError: as many seeds as runs are needed; a non-finite logit (the step and the run are named).
    """
    if len(seeds) != len(world.logits):
        raise ValueError(f"seeds must have one entry per run = {len(world.logits)}, got {len(seeds)}")
    table = world.logits
    noise = Noise(seeds)
    loop = Loop.start(method.controller, table.new_zeros(len(table)))
    records: list[Step] = []
    targets: list[Tensor] = []
    for step in range(settings.steps):
        target = torch.as_tensor(schedule(step), dtype=table.dtype).expand(len(table))
        table, loop, record = train_step(table, world, method, loop, noise, step=step, target=target, settings=settings)
        records.append(record)
        targets.append(target)
        on_step(step)
    broken = (~table.isfinite()).flatten(1).any(-1)
    if broken.any():
        run = int(broken.nonzero()[0])
        raise ValueError(f"run {run} (seed {seeds[run]}) of method {method.name!r} left non-finite logits; lower lr")
    return History(
        entropy=torch.stack([r.entropy for r in records], -1),
        target=torch.stack(targets, -1),
        reward=torch.stack([r.reward for r in records], -1),
        temperature=torch.stack([r.control.temperature for r in records], -1),
        raise_entropy=torch.stack([r.control.raise_entropy for r in records], -1),
        table=table,
    )
