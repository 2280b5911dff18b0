"""Cases of the fused operation against whole logits in float64, and against itself.

    python -m aepo.llm.gpu_check.correctness   # few small cases on the GPU, which the sanitizer watches

Letters: N tokens, d hidden size, V vocabulary.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from aepo.llm.fused import TokenStats, backends, linear_policy_loss, linear_token_stats, token_stats_from_logits
from aepo.llm.gpu_check.findings import Facts, LeftOut, Wrong

Backend = Literal["torch", "triton", "cuda"]
VOCABULARIES = (1, 50, 128, 129, 300, 5000, 152_064)
"""Of one token, of the walk task, around a tile of 128, of three tiles, of no multiple of 16, and Qwen2.5's."""
DTYPES = (torch.float32, torch.bfloat16)
VALUES = 5e-5
"""Most that a statistic may be off, in nats: statistics are float32 whatever the operands' dtype."""
RUNS = 5
"""That must give equal bits."""
ALL = ("logp", "logp_t", "entropy")
TRAINED = ("logp", "entropy")
"""What the trainer asks of a model."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many cases there are and how large they are."""

    vocabularies: tuple[int, ...]
    rows: int
    width: int


GPU = Sizes(vocabularies=VOCABULARIES, rows=130, width=96)
"""Rows of one tile and two more, and a width that ends within a tile."""
CPU = Sizes(vocabularies=VOCABULARIES[:-1], rows=130, width=96)
INTERPRETED = Sizes(vocabularies=VOCABULARIES[:5], rows=18, width=24)
"""Triton's interpreter runs a program at a time in numpy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Operands:
    """Random ones on a device, rounded to their dtype, with an upstream gradient for each statistic."""

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    ups: tuple[Tensor, Tensor, Tensor]
    """Of some rows all 0, which the backward pass leaves out."""

    @classmethod
    def drawn(cls, rows: int, width: int, vocabulary: int, *, dtype: torch.dtype, device: str) -> "Operands":
        """The same for the same arguments."""
        generator = torch.Generator().manual_seed(vocabulary)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        labels = torch.randint(vocabulary, (rows,), generator=generator)
        # The first and the last column are where tiles go wrong; and a row takes no part.
        labels[0], labels[1], labels[2] = 0, vocabulary - 1, -100
        live = torch.rand(rows, generator=generator) > 0.3
        up = [(normal(rows) * live).to(device) for _ in range(3)]
        hidden, weight = normal(rows, width), normal(vocabulary, width) * (3 / width**0.5)
        return cls(
            hidden=hidden.to(device, dtype).requires_grad_(),
            weight=weight.to(device, dtype).requires_grad_(),
            labels=labels.to(device),
            ups=(up[0], up[1], up[2]),
        )

    def pulled(self, stats: TokenStats) -> Tensor:
        """The scalar whose gradient by each statistic is the upstream one."""
        given = [(up.to(x.dtype) * x).sum() for up, x in zip(self.ups, stats, strict=True) if x is not None]
        return torch.stack(given).sum()


def whole(z: Tensor, labels: Tensor, temperature: float, need: Sequence[str]) -> TokenStats:
    """The statistics from float64 logits (N, V) by their definitions."""
    log_probs, log_probs_t = z.log_softmax(-1), (z / temperature).log_softmax(-1)
    on, place = labels >= 0, labels.clamp(min=0).unsqueeze(-1)
    found = {
        "logp": log_probs.gather(1, place).squeeze(-1),
        "logp_t": log_probs_t.gather(1, place).squeeze(-1),
        "entropy": -(log_probs.exp() * log_probs).sum(-1),
    }
    return TokenStats(*(torch.where(on, found[name], 0.0) if name in need else None for name in ALL))


def cases(backend: Backend, sizes: Sizes, device: str) -> Iterator[tuple[str, Callable[[], Facts]]]:
    """Name and check of every case of one backend; a check raises as `Findings.check` takes it."""
    largest = sizes.vocabularies[-1]
    for dtype in DTYPES:
        short = str(dtype).removeprefix("torch.")
        for vocabulary in sizes.vocabularies:
            drawn = functools.partial(_drawn, backend, sizes, vocabulary, dtype, device)
            name = f"{backend} {short} V={vocabulary}"
            yield name, functools.partial(agrees, backend, drawn, 0.7, ALL)
            if vocabulary in (50, largest):
                yield f"{name}, as the trainer asks", functools.partial(agrees, backend, drawn, 1.0, TRAINED)
        drawn = functools.partial(_drawn, backend, sizes, min(5000, largest), dtype, device)
        yield f"{backend} {short}, {RUNS} runs give equal bits", functools.partial(repeats, backend, drawn)
        if backend != "cuda":
            yield f"{backend} {short}, linear_policy_loss", functools.partial(loss_agrees, backend, drawn)


def agrees(backend: Backend, drawn: Callable[[], Operands], temperature: float, need: Sequence[Any]) -> Facts:
    """Values and gradients are those of whole logits in float64."""
    x = drawn()
    stats, leaves = _stats(backend, x, temperature, need)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    want = whole(exact[0] if backend == "cuda" else exact[0] @ exact[1].T, x.labels, temperature, need)
    pairs = [(a, b) for a, b in zip(stats, want, strict=True) if a is not None and b is not None]
    off = max(float((a.double() - b).detach().abs().max()) for a, b in pairs)
    steep = _gradients_off(
        torch.autograd.grad(x.pulled(stats), leaves), torch.autograd.grad(x.pulled(want), exact), leaves[0].dtype
    )
    # The negation catches a NaN.
    if not (off <= VALUES and steep <= 1):
        raise Wrong(
            f"values are off by {off:.2g} nats, gradients by {steep:.2g} of what is allowed", **_off(off, steep)
        )
    return _off(off, steep)


def loss_agrees(backend: Any, drawn: Callable[[], Operands]) -> Facts:
    """The gradients that `linear_policy_loss` forms in the forward pass are those of whole logits in float64."""
    x = drawn()
    leaves = [x.hidden, x.weight]

    def loss(stats: TokenStats, rows: Tensor) -> Tensor:
        return torch.stack([up[rows] * s for up, s in zip(x.ups, stats, strict=True) if s is not None]).sum(0)

    mine, _ = linear_policy_loss(x.hidden, x.weight, x.labels, loss, 0.7, backend=backend)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    want = x.pulled(whole(exact[0] @ exact[1].T, x.labels, 0.7, ALL))
    off = abs(float(mine.detach().double() - want.detach()))
    steep = _gradients_off(torch.autograd.grad(mine, leaves), torch.autograd.grad(want, exact), x.hidden.dtype)
    rows = len(x.labels)
    if not (off <= VALUES * rows and steep <= 1):
        raise Wrong(f"the loss is off by {off:.2g}, gradients by {steep:.2g} of what is allowed", **_off(off, steep))
    return _off(off, steep)


def repeats(backend: Backend, drawn: Callable[[], Operands]) -> Facts:
    """The same call gives the same bits."""
    x = drawn()

    def once() -> list[Tensor]:
        stats, leaves = _stats(backend, x, 0.7, ALL)
        return [*(s for s in stats if s is not None), *torch.autograd.grad(x.pulled(stats), leaves)]

    first = once()
    for i in range(1, RUNS):
        if not all(torch.equal(a, b) for a, b in zip(first, once(), strict=True)):
            raise Wrong(f"run {i + 1} differs from the first")
    return {}


def _drawn(backend: Backend, sizes: Sizes, vocabulary: int, dtype: torch.dtype, device: str) -> Operands:
    """The operands of a case.

    Raises:
        LeftOut: the backend cannot run here.
    """
    like = torch.empty(0, dtype=dtype, device=device)
    choose: Any = backends.chosen_for_logits if backend == "cuda" else backends.chosen
    try:
        choose(backend, like)
    except ValueError as error:
        raise LeftOut(str(error)) from error
    return Operands.drawn(sizes.rows, sizes.width, vocabulary, dtype=dtype, device=device)


def _stats(backend: Any, x: Operands, temperature: float, need: Sequence[Any]) -> tuple[TokenStats, list[Tensor]]:
    """What the backend says, and the leaves that it can be differentiated by."""
    if backend != "cuda":
        stats = linear_token_stats(x.hidden, x.weight, x.labels, temperature, need=need, backend=backend)
        return stats, [x.hidden, x.weight]
    logits = (x.hidden @ x.weight.T).detach().requires_grad_()
    return token_stats_from_logits(logits, x.labels, temperature, need=need, backend=backend), [logits]


def _gradients_off(mine: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype) -> float:
    """The largest error as a share of what the dtype's rounding allows."""
    # The gradient by the logits is rounded to half precision before it is multiplied, and so is the product.
    rounding = 1e-5 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    return max(
        float((a.double() - b).abs().max() / (rounding * b.abs().max() + 1e-4))
        for a, b in zip(mine, exact, strict=True)
    )


def _off(values: float, gradients: float) -> dict[str, float]:
    return {"nats off": values, "gradient's share of its tolerance": gradients}


def main() -> int:
    """The cases that the sanitizer watches: each kernel within one tile and just beyond it; 1 if one is wrong."""
    code = 0
    for backend in ("triton", "cuda"):
        few = Sizes(vocabularies=(50, 129), rows=18, width=24)
        for name, run in cases(backend, few, "cuda"):
            if "linear_policy_loss" in name or "equal bits" in name:
                continue
            try:
                print(name, dict(run()), flush=True)
            except LeftOut as why:
                print(name, "left out:", why, flush=True)
            except Wrong as why:
                print(name, "WRONG:", why, flush=True)
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
