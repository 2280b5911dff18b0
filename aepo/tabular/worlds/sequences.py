"""Responses of several tokens: an autoregressive tabular policy, one row of logits per prefix.

Letters as in `aepo.tabular.worlds.world`; V tokens of the vocabulary (K there).
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.batch import Rollouts
from aepo.categorical import log_softmax
from aepo.tabular.worlds.world import cumulated, draw, looked_up, pass_rates, repeated_runs

END = 0
"""The token that ends a response, where responses end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """One prompt; every prefix is a state, numbered level by level.

    Raises:
        ValueError: tables of different sizes, or no correct response.
    """

    parameters: Tensor
    """(N, S, V): the logits of every prefix before the first step, S = (V^T - 1) / (V - 1)."""
    correct: Tensor
    """(N, V^T) bool: the correct responses; with `ends`, tokens after the end are END."""
    length: int
    """T."""
    ends: bool = False
    """Whether token END ends a response; otherwise all have T tokens."""

    training = 1

    def __post_init__(self) -> None:
        vocabulary = self.parameters.shape[-1]
        states = sum(vocabulary**t for t in range(self.length))
        if self.parameters.shape[1] != states or self.correct.shape[1] != vocabulary**self.length:
            raise ValueError(
                f"length={self.length} and {vocabulary} tokens need {states} prefixes and {vocabulary**self.length} "
                f"responses, got {self.parameters.shape[1]} and {self.correct.shape[1]}"
            )
        if not self.correct.any(-1).all():
            raise ValueError("every run needs at least one correct response")

    def table(self, parameters: Tensor) -> Tensor:
        return parameters

    def state(self, prompt: Tensor, token: Tensor) -> Tensor:
        vocabulary = self.parameters.shape[-1]
        state, states = torch.zeros_like(prompt), []
        for t in range(token.shape[-1]):
            states.append(state)
            # Children of prefix i are V i + 1 .. V i + V: the heap's numbering.
            state = vocabulary * state + 1 + token[..., t]
        return torch.stack(states, -1)

    def sample(self, probs: Tensor, prompts: Tensor, uniforms: Tensor, *, n: int) -> Rollouts:
        runs, _, vocabulary = probs.shape
        noise = uniforms.view(runs, n, self.length)
        cumulative = cumulated(probs)
        state, tokens = torch.zeros(runs, n, dtype=torch.int64), []
        for t in range(self.length):
            token = draw(cumulative, state, noise[..., t])
            tokens.append(token)
            state = vocabulary * state + 1 + token
        return self._graded(torch.stack(tokens, -1), group_size=n)

    def enumerate(self, table: Tensor, prompts: Tensor, *, temperature: Tensor) -> Rollouts:
        runs = len(table)
        responses = self._responses().expand(runs, -1, -1)
        rows = self._graded(responses, group_size=responses.shape[1])
        log_probs = log_softmax(table, temperature.unsqueeze(-1))
        logp = looked_up(log_probs, self.state(rows.prompt, rows.token), rows.token)
        share = (logp * rows.mask).sum(-1).exp()
        if self.ends:
            # Responses that differ only after their end are one response: its first spelling carries the probability.
            share = torch.where(self._canonical(), share, 0.0)
        return rows.replace(share=share)

    def evaluate(self, parameters: Tensor) -> dict[str, Tensor]:
        """The probability of a correct response, its pass@k, and the mean length of correct ones."""
        exact = self.enumerate(parameters, torch.zeros(1, dtype=torch.int64), temperature=parameters.new_ones(()))
        assert exact.share is not None
        success = (exact.share * exact.reward).sum(-1, keepdim=True)
        length = (exact.share * exact.reward * exact.mask.sum(-1)).sum(-1) / success.squeeze(-1).clamp(min=1e-300)
        return {
            "reward_train": success.squeeze(-1),
            "reward_held_out": success.squeeze(-1),
            "correct_length": length,
            **pass_rates("", success),
        }

    def repeated(self, times: int) -> "Sequences":
        return repeated_runs(self, times)

    def _responses(self) -> Tensor:
        """(V^T, T): every string of T tokens, in the order of its code."""
        vocabulary = self.parameters.shape[-1]
        code = torch.arange(vocabulary**self.length)
        digits = [code // vocabulary ** (self.length - 1 - t) % vocabulary for t in range(self.length)]
        return torch.stack(digits, -1)

    def _canonical(self) -> Tensor:
        """(V^T,) bool: strings with nothing but END after their first END."""
        tokens = self._responses()
        ended = (tokens == END).cumsum(-1) > 0
        return (~ended | (tokens == END)).all(-1)

    def _graded(self, token: Tensor, *, group_size: int) -> Rollouts:
        vocabulary, dtype = self.parameters.shape[-1], self.parameters.dtype
        mask = torch.ones_like(token, dtype=dtype)
        spelled = token
        if self.ends:
            before = (token == END).cumsum(-1) - (token == END).to(token.dtype)
            mask = (before == 0).to(dtype)
            spelled = torch.where(before == 0, token, END)
        place = vocabulary ** torch.arange(self.length - 1, -1, -1)
        code = (spelled * place).sum(-1)
        return Rollouts(
            prompt=torch.zeros_like(code),
            token=token,
            mask=mask,
            reward=self.correct.gather(1, code).to(dtype),
            group_size=group_size,
            full=not self.ends,
        )


def sequences(
    seeds: Sequence[int], *, vocabulary: int = 4, length: int = 4, correct: int = 32, ends: bool = False
) -> Sequences:
    """Strings of tokens of which some are correct, drawn uniformly; logits ~ N(0, 1) at every prefix.

    Args:
        seeds: one per run; everything comes from the run's seed alone.
        vocabulary, length: V >= 2 and T >= 1.
        correct: correct responses, in [1, number of responses].
        ends: whether token 0 ends a response, so that lengths differ.

    Raises:
        ValueError: a number out of range.
    """
    if vocabulary < 2 or length < 1:
        raise ValueError(f"vocabulary must be >= 2 and length >= 1, got {vocabulary} and {length}")
    states = sum(vocabulary**t for t in range(length))
    blank = Sequences(
        parameters=torch.zeros(1, states, vocabulary, dtype=torch.float64),
        correct=torch.ones(1, vocabulary**length, dtype=torch.bool),
        length=length,
        ends=ends,
    )
    possible = blank._canonical() if ends else torch.ones(vocabulary**length, dtype=torch.bool)
    codes = possible.nonzero().squeeze(-1)
    if not 1 <= correct <= len(codes):
        raise ValueError(f"correct must be in [1, {len(codes)}], got {correct}")
    logits, right = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        logits.append(torch.randn(states, vocabulary, generator=generator, dtype=torch.float64))
        chosen = torch.zeros(vocabulary**length, dtype=torch.bool)
        chosen[codes[torch.randperm(len(codes), generator=generator)[:correct]]] = True
        right.append(chosen)
    return dataclasses.replace(blank, parameters=torch.stack(logits), correct=torch.stack(right))
