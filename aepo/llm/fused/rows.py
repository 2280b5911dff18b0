"""Which rows take part in a call, what is asked about them, and the layer that makes their logits.

Letters: N tokens, n of them that take part, d hidden size, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from aepo.llm.fused.chunked import Question, Stats, Upstream

Statistic = Literal["logp", "logp_t", "entropy"]
STATISTICS: tuple[Statistic, ...] = ("logp", "logp_t", "entropy")
Temperature = float | Tensor


class TokenStats(NamedTuple):
    """Of each token, (N,) float32 (float64 for float64 inputs); None where not asked for; 0 where ignored."""

    logp: Tensor | None
    """Log-prob of the label at temperature 1, nats."""
    logp_t: Tensor | None
    """The same at the given temperature."""
    entropy: Tensor | None
    """Exact entropy of the distribution, nats."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything about a call that is no tensor with a gradient; see `linear_token_stats`."""

    need: tuple[Statistic, ...]
    entropy_tempered: bool
    ignore_index: int
    backend: Any = None
    """A module with `statistics` and `gradient`, or with `logits_statistics` and `logits_gradient`."""
    reuse_logits: bool = False
    softcap: float | None = None
    vocab_start: int = 0
    group: Any = None

    def linear(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> "Linear":
        """The layer for some hidden states."""
        return Linear(
            hidden=hidden,
            weight=weight,
            bias=bias,
            softcap=self.softcap,
            vocab_start=self.vocab_start,
            group=self.group,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear:
    """Hidden states (n, d) and the layer that makes logits of them."""

    hidden: Tensor
    weight: Tensor
    """(V, d)."""
    bias: Tensor | None
    """(V,)."""
    softcap: float | None
    vocab_start: int
    group: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class Rows:
    """The rows that take part: not ignored, and in a backward pass with a gradient upstream."""

    total: int
    """N."""
    index: Tensor | None
    """(n,) int64, which of the N; None for all."""
    label: Tensor
    """(n,)."""
    question: Question
    dtype: torch.dtype
    """The working dtype."""
    chosen: Tensor | None = None
    """(n,) int64, which of the rows that `live` was asked of; None for all."""

    @classmethod
    def of(cls, labels: Tensor, temperature: Temperature, options: Options, dtype: torch.dtype) -> "Rows":
        tempered = options.entropy_tempered and "entropy" in options.need
        column = None
        # At T = 1 the two distributions are one.
        if ("logp_t" in options.need or tempered) and not (isinstance(temperature, int | float) and temperature == 1):
            value = torch.as_tensor(temperature, dtype=dtype, device=labels.device).detach()
            column = value.expand(labels.shape).unsqueeze(-1)
        question = Question(
            temperature=column, entropy="entropy" in options.need, entropy_tempered=tempered and column is not None
        )
        # Kernels read them one after the other.
        labels = labels.contiguous()
        counts = labels != options.ignore_index
        if counts.all():
            return cls(total=len(labels), index=None, label=labels, question=question, dtype=dtype)
        index = counts.nonzero().squeeze(-1)
        return cls(total=len(labels), index=index, label=labels[index], question=question.rows(index), dtype=dtype)

    @property
    def count(self) -> int:
        return len(self.label)

    def rows(self, some: slice | Tensor) -> "Rows":
        """Some of these rows, as rows of their own."""
        return Rows(
            total=self.total,
            index=None if self.index is None else self.index[some],
            label=self.label[some],
            question=self.question.rows(some),
            dtype=self.dtype,
        )

    def live(self, stats: Stats, gradients: dict[Statistic, Tensor | None]) -> tuple["Rows", Stats, Upstream]:
        """The rows with a gradient, their statistics and their gradients. Gradients are of all N rows, or of these."""
        given = {name: g for name, g in gradients.items() if g is not None}
        if self.index is not None:
            given = {name: g if len(g) == self.count else g[self.index] for name, g in given.items()}
        moves = torch.zeros(self.count, dtype=torch.bool, device=self.label.device)
        for g in given.values():
            moves |= g != 0
        if moves.all():
            return self, stats, self.question.upstream(given)
        chosen = moves.nonzero().squeeze(-1)
        index = chosen if self.index is None else self.index[chosen]
        rows = Rows(
            total=self.total,
            index=index,
            label=self.label[chosen],
            question=self.question.rows(chosen),
            dtype=self.dtype,
            chosen=chosen,
        )
        return rows, stats.rows(chosen), rows.question.upstream({name: g[chosen] for name, g in given.items()})

    def picked(self, value: Tensor) -> Tensor:
        """These rows of (N, ...)."""
        return value if self.index is None else value[self.index]

    def spread(self, value: Tensor) -> Tensor:
        """(n, ...) among all N rows, 0 elsewhere."""
        if self.index is None:
            return value
        return value.new_zeros(self.total, *value.shape[1:]).index_copy_(0, self.index, value)

    def answers(self, stats: Stats, need: tuple[Statistic, ...]) -> tuple[Tensor, ...]:
        """What was asked for, (N,) each."""
        return tuple(self.spread(value) for value in present(stats, need).values())


def present(stats: Stats, need: tuple[Statistic, ...]) -> dict[Statistic, Tensor]:
    """What was asked for, by name; at T = 1 both log-probs are one."""
    found = {"logp": stats.logp, "logp_t": stats.logp if stats.logp_t is None else stats.logp_t}
    return {name: found[name] if name in found else _asked_for(stats.entropy) for name in need}


def _asked_for(value: Tensor | None) -> Tensor:
    if value is None:
        raise ValueError("the entropy was not asked for")
    return value


def work_dtype(*tensors: Tensor | None) -> torch.dtype:
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32
