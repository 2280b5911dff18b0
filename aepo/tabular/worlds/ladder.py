"""The ladder in small: instructions in a row, each with hops that it allows and hops that it is often misread for.

Letters as in `aepo.tabular.worlds.world`; I instructions, the policy's states; D features; K hops; L instructions of a
prompt, the T of a response. A response is right if each of its hops is one that its instruction allows. The policy
knows the easy instructions from the start, and the hard ones the less the harder they are: a prompt's level is how many
it has of these. It is linear in features of the instruction, which all prompts share: what one prompt teaches of an
instruction holds in every other, and moves the other instructions a little, as the weights of a network do.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.batch import Rollouts
from aepo.tabular.worlds.world import (
    PASS_KS,
    cumulated,
    draw,
    looked_up,
    pass_rates,
    repeated_runs,
    tempered_log_probs,
)

# Those of the language model's ladder, and its range for the hard ones, of which it has 24.
EASY_SHARES = (0.95, 0.95, 0.95, 0.9, 0.9, 0.85, 0.45, 0.4)
"""The probability of a right hop of each easy instruction at the start; below a half the likelier reading is wrong."""
HARDEST, LEAST_HARD, HARD = 1e-4, 0.05, 8
"""Those of the hard instructions are a geometric row between these two."""
LEVEL_SHARES = (0.25, 0.3, 0.25, 0.2)
"""Of the prompts, by level: 0, 1, ... hard instructions."""
RIGHT_HOPS = MISREAD_HOPS = 2
"""Of each instruction."""
# A tempered sample finds the right hops of a misread instruction among these, and in part instead of these.
ELSEWHERE = 0.02
"""What the hops that are neither have at the start of the probability that the right ones leave."""
COLD = 0.1
"""The low temperature of the evaluation."""
MANY = 256
"""Responses of which one has to be right for a prompt to count as solvable: a language model's evaluation draws them,
and here a power gives the share."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ladder:
    """Prompts of several instructions over one table.

    Raises:
        ValueError: an instruction without a hop that it allows, or prompts of two lengths.
    """

    parameters: Tensor
    """(N, D, K): W before the first step."""
    features: Tensor
    """(N, I, D): phi of every instruction; its logits are phi W."""
    right: Tensor
    """(N, I, K) bool: the hops that each instruction allows."""
    hard: Tensor
    """(N, I) bool: which instructions count for a prompt's level."""
    prompts: Tensor
    """(N, P, L) int64: the instructions of the training prompts."""
    held_out: Tensor
    """(N, P', L) int64: those of other prompts."""

    def __post_init__(self) -> None:
        if not self.right.any(-1).all():
            raise ValueError("every instruction needs at least one hop that it allows")
        if self.prompts.shape[-1] != self.held_out.shape[-1]:
            raise ValueError(
                f"prompts and held_out must be of one length, got {self.prompts.shape[-1]} and "
                f"{self.held_out.shape[-1]} instructions"
            )

    @property
    def training(self) -> int:
        return self.prompts.shape[1]

    @property
    def length(self) -> int:
        return self.prompts.shape[-1]

    @property
    def levels(self) -> Tensor:
        """(N, P') int64: how many hard instructions each held-out prompt has."""
        return _of_instructions(self.hard, self.held_out).sum(-1)

    def table(self, parameters: Tensor) -> Tensor:
        return self.features @ parameters

    def state(self, prompt: Tensor, token: Tensor) -> Tensor:
        return self.prompts.gather(1, prompt.unsqueeze(-1).expand(*prompt.shape, self.length))

    def sample(self, probs: Tensor, prompts: Tensor, uniforms: Tensor, *, n: int) -> Rollouts:
        prompt = prompts.repeat_interleave(n).expand(len(probs), -1)
        noise = uniforms.view(len(probs), -1)
        state = self.state(prompt, prompt)
        # A hop depends on its instruction alone: those of a response are drawn at once.
        token = draw(cumulated(probs), state.flatten(1), noise).view(state.shape)
        return self._graded(prompt, token, group_size=n)

    def enumerate(self, table: Tensor, prompts: Tensor, *, temperature: Tensor) -> Rollouts:
        runs, _, hops = table.shape
        response = torch.tensor(list(itertools.product(range(hops), repeat=self.length)))
        prompt = prompts.repeat_interleave(len(response)).expand(runs, -1)
        token = response.repeat(len(prompts), 1).expand(runs, -1, -1)
        rows = self._graded(prompt, token, group_size=len(response))
        log_probs = tempered_log_probs(table.detach(), temperature)
        return rows.replace(share=looked_up(log_probs, self.state(prompt, token), token).sum(-1).exp())

    def success(self, parameters: Tensor, prompts: Tensor, *, temperature: float = 1.0) -> Tensor:
        """(N, P): the probability that a response drawn at a temperature is right: a product over its instructions.

        Args:
            parameters: (N, D, K), the policy.
            prompts: (N, P, L), `prompts` or `held_out`.
            temperature: > 0.
        """
        at = parameters.new_full((len(parameters),), temperature)
        share = tempered_log_probs(self.table(parameters), at).exp()
        return _of_instructions((share * self.right).sum(-1), prompts).prod(-1)

    def evaluate(self, parameters: Tensor) -> dict[str, Tensor]:
        """Reward on training and on held-out prompts, and the latter's at T = 0.1 and pass@k, up to k = 256."""
        held_out = self.success(parameters, self.held_out)
        return {
            "reward_train": self.success(parameters, self.prompts).mean(-1),
            "reward_held_out": held_out.mean(-1),
            "cold_held_out": self.success(parameters, self.held_out, temperature=COLD).mean(-1),
            **pass_rates("", held_out, (*PASS_KS, MANY)),
        }

    def repeated(self, times: int) -> "Ladder":
        return repeated_runs(self, times)

    def _graded(self, prompt: Tensor, token: Tensor, *, group_size: int) -> Rollouts:
        followed = looked_up(self.right, self.state(prompt, token), token)
        return Rollouts(
            prompt=prompt,
            token=token,
            mask=torch.ones((), dtype=torch.float64).expand(token.shape),
            reward=followed.all(-1).double(),
            group_size=group_size,
            full=True,
        )


def _of_instructions(values: Tensor, prompts: Tensor) -> Tensor:
    """What the instructions of prompts (N, P, L) have, from (N, I)."""
    return values.gather(1, prompts.flatten(1)).view(prompts.shape)


def start_shares() -> Tensor:
    """(I,): the probability of a right hop of each instruction at the start, the easy ones first."""
    hard = torch.logspace(math.log10(LEAST_HARD), math.log10(HARDEST), HARD, dtype=torch.float64)
    return torch.cat([torch.tensor(EASY_SHARES, dtype=torch.float64), hard])


def ladder(
    seeds: Sequence[int],
    *,
    features: int | None = 32,
    hops: int = 8,
    length: int = 3,
    trained: int = 1024,
    held_out: int = 256,
) -> Ladder:
    """16 instructions, half of them hard; which hops each allows and is misread for is drawn, and so are the prompts.

    No two prompts are the same. The right hops of an instruction share its probability evenly, so do the two that it is
    misread for, and so do the others. Features are unit vectors of any direction, and W_0 is the least one that gives
    the start: with twice as many features as instructions two of these have a cosine of about 0.18.

    Args:
        seeds: one per run; everything comes from the run's seed alone.
        features: D, at least as many as instructions; None gives each instruction a row of its own, a table.
        hops: K >= 5.
        length: L, instructions of a prompt, in 1..4; the levels end with it.
        trained, held_out: prompts.

    Raises:
        ValueError: a number out of range, or more prompts of a level than there are.
    """
    if hops <= RIGHT_HOPS + MISREAD_HOPS:
        raise ValueError(f"hops must be at least {RIGHT_HOPS + MISREAD_HOPS + 1}, got {hops}")
    if not 1 <= length <= 4:
        raise ValueError(f"length must be in [1, 4], got {length}")
    for name, value in (("trained", trained), ("held_out", held_out)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    shares = start_shares()
    if features is not None and features < len(shares):
        raise ValueError(f"features must be at least {len(shares)}, one for each instruction, got {features}")
    hard = torch.arange(len(shares)) >= len(EASY_SHARES)
    every = torch.cartesian_prod(*[torch.arange(len(shares))] * length).view(-1, length)
    of_level = [every[hard[every].sum(-1) == level] for level in range(min(length + 1, len(LEVEL_SHARES)))]
    aside, rest = (_by_level(count, levels=len(of_level)) for count in (held_out, trained))
    for level, prompts in enumerate(of_level):
        if aside[level] + rest[level] > len(prompts):
            raise ValueError(
                f"trained={trained} and held_out={held_out} ask for {aside[level] + rest[level]} prompts of level "
                f"{level}, of which there are {len(prompts)}"
            )
    runs = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        kind = torch.stack([torch.randperm(hops, generator=generator) for _ in shares])
        right, misread = kind < RIGHT_HOPS, kind >= hops - MISREAD_HOPS
        other = hops - RIGHT_HOPS - MISREAD_HOPS
        left = 1 - shares.unsqueeze(-1)
        start = torch.where(misread, left * (1 - ELSEWHERE) / MISREAD_HOPS, left * ELSEWHERE / other)
        start = torch.where(right, shares.unsqueeze(-1) / RIGHT_HOPS, start).log()
        # Logits are known but for a constant; without one W_0 is the least.
        start = start - start.mean(-1, keepdim=True)
        drawn = [prompts[torch.randperm(len(prompts), generator=generator)] for prompts in of_level]
        out = torch.cat([prompts[:few] for prompts, few in zip(drawn, aside, strict=True)])
        seen = [prompts[few : few + more] for prompts, few, more in zip(drawn, aside, rest, strict=True)]
        phi = torch.eye(len(shares), dtype=torch.float64)
        if features is not None:
            phi = torch.randn(len(shares), features, generator=generator, dtype=torch.float64)
            phi = phi / phi.norm(dim=-1, keepdim=True)
        runs.append((torch.linalg.pinv(phi) @ start, phi, right, hard, torch.cat(seen), out))
    start, phi, right, hard, seen, out = (torch.stack(values) for values in zip(*runs, strict=True))
    return Ladder(parameters=start, features=phi, right=right, hard=hard, prompts=seen, held_out=out)


def _by_level(count: int, *, levels: int) -> list[int]:
    """How many of so many prompts are of each of the first levels: they add up to them."""
    cumulative = torch.tensor(LEVEL_SHARES[:levels], dtype=torch.float64).cumsum(0)
    ends = (count * cumulative / cumulative[-1]).round().long()
    return ends.diff(prepend=ends.new_zeros(1)).tolist()
