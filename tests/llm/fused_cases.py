"""Calls of the fused operation with their statistics by whole logits, and a meter of what an operation returns.

Imports torch alone and what is tested, so that the tests on a GPU need nothing else.
"""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aepo.llm.fused import TokenStats, linear_token_stats

F64 = torch.float64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A call with its arguments."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    temperature: float | Tensor
    bias: Tensor | None
    softcap: float | None
    entropy_tempered: bool

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in (self.hidden, self.weight, self.bias) if x is not None]

    @property
    def options(self) -> dict[str, Any]:
        names = ("temperature", "bias", "softcap", "entropy_tempered")
        return {name: getattr(self, name) for name in names}

    def stats(self, **changes) -> TokenStats:
        return linear_token_stats(self.hidden, self.weight, self.labels, **(self.options | changes))

    def oracle(self) -> TokenStats:
        """The same by whole logits and autograd."""
        z = self.hidden @ self.weight.T
        z = z if self.bias is None else z + self.bias
        z = z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)
        return by_logits(z, self.labels, self.temperature, self.entropy_tempered)


def by_logits(z: Tensor, labels: Tensor, temperature: float | Tensor, entropy_tempered: bool = False) -> TokenStats:
    log_probs = z.log_softmax(-1)
    log_probs_t = (z / torch.as_tensor(temperature, dtype=z.dtype).expand(len(z)).unsqueeze(-1)).log_softmax(-1)
    of = log_probs_t if entropy_tempered else log_probs
    on, place = labels != -100, labels.clamp(min=0).unsqueeze(-1)
    entropy = -(of.exp() * of.clamp(min=torch.finfo(z.dtype).min)).sum(-1)
    found = (log_probs.gather(1, place).squeeze(-1), log_probs_t.gather(1, place).squeeze(-1), entropy)
    return TokenStats(*(torch.where(on, x, 0.0) for x in found))


def case(
    *, rows: int = 7, width: int = 5, vocabulary: int = 9, seed: int = 0, temperature: float | str = 1.7,
    bias: bool = False, softcap: float | None = None, entropy_tempered: bool = False, ignored: int = 0,
) -> Case:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=F64).requires_grad_()

    labels = torch.randint(vocabulary, (rows,), generator=generator)
    if rows > 1:
        # The first and the last column are where chunks go wrong.
        labels[0], labels[1] = 0, vocabulary - 1
    labels[torch.randperm(rows, generator=generator)[:ignored]] = -100
    t = torch.rand(rows, generator=generator, dtype=F64) + 0.3 if temperature == "per token" else float(temperature)
    return Case(
        hidden=normal(rows, width),
        weight=normal(vocabulary, width),
        labels=labels,
        temperature=t,
        bias=normal(vocabulary) if bias else None,
        softcap=softcap,
        entropy_tempered=entropy_tempered,
    )


def upstream(one: Case, seed: int = 1) -> list[Tensor]:
    """A gradient for each statistic; about a third of the rows have none."""
    generator = torch.Generator().manual_seed(seed)
    live = torch.rand(len(one.labels), generator=generator) > 0.3
    return [torch.randn(len(one.labels), generator=generator, dtype=F64) * live for _ in range(3)]


def pulled(stats: TokenStats, ups: list[Tensor], chosen: tuple[int, ...] = (0, 1, 2)) -> Tensor:
    return torch.stack([(ups[i] * stats[i]).sum() for i in chosen]).sum()


MIXED = ("bfloat16 bfloat16", "float16 float32", "bfloat16 float32", "float32 float64")


def realistic() -> tuple[Tensor, Tensor, Tensor, TokenStats]:
    """bf16 hidden states and head, labels, and their exact statistics at T = 0.6, as in a language model's answers.

    A real vocabulary, logits up to about 30, an entropy of about 1.6 nats.
    """
    n, d, v = 16, 128, 151_936
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(v, d, generator=generator)
    hidden = 1.0 * torch.randn(n, d, generator=generator) / math.sqrt(d)
    likely = torch.randint(v, (n, 12), generator=generator)
    direction = weight[likely] * torch.linspace(1.0, 0.2, 12).unsqueeze(-1)
    hidden = (hidden + 0.17 * direction.sum(1)).bfloat16()
    weight, labels = weight.bfloat16(), likely[:, 1]
    z = hidden.double() @ weight.double().T
    want = by_logits(z, labels, 0.6)
    assert 20 < z.max() < 60 and 0.3 < want.entropy.mean() < 3
    return hidden, weight, labels, want


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned, those of the arguments' size left out."""

    def __init__(self, allowed: set[int]) -> None:
        super().__init__()
        self.allowed, self.elements = allowed, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor) and value.numel() not in self.allowed:
                self.elements = max(self.elements, value.numel())
        return out
