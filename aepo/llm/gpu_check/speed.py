"""Stage speed: the fused operation in units of the library's matrix product of the same shape.

The shipped kernels, other tiles of the same kernels, and the library's product with float32 logits and our row kernel,
all in turn, so that a clock that changes meets every way alike. Letters: N tokens, d hidden size, V vocabulary.
"""

import dataclasses
import functools
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aepo.llm.fused import cuda_backend, linear_policy_loss, linear_token_stats, token_stats_from_logits
from aepo.llm.gpu_check.findings import Facts, Findings, LeftOut, last_line
from aepo.llm.gpu_check.timing import Cost, timed

TOKENS = 8192
SHAPES = ((3584, 152_064), (2048, 151_936))
"""(d, V) of Qwen2.5-7B and of Qwen2.5-3B."""
WARM_UP, ROUNDS = 2, 7
TEMPERATURE = 0.6
TRAINED = ("logp", "entropy")
ALL = ("logp", "logp_t", "entropy")
COLUMNS = 16_384
"""Of the vocabulary in one product of the floor, whose result is to fit beside everything else."""
MB = 1e6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """One way to do the work."""

    run: Callable[[], Any]
    products: int
    """Matrix products of N x d x V that whoever does this cannot do without."""
    shipped: bool = True
    """Whether the trainer can choose it; another one may fail for want of registers or shared memory."""


class Operands:
    """bfloat16 operands of one shape and an upstream gradient per token."""

    def __init__(self, tokens: int, width: int, vocabulary: int, *, device: str) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

        self.hidden = normal(tokens, width).requires_grad_()
        self.weight = normal(vocabulary, width).mul_(3 / width**0.5).requires_grad_()
        self.labels = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
        self.up = normal(tokens, dtype=torch.float32)


def run(findings: Findings) -> None:
    """One check per shape and way; its figures are medians."""
    if not torch.cuda.is_available():
        raise LeftOut("no CUDA device")
    from aepo.llm.fused import triton_backend

    shipped = dict(triton_backend.CONFIGS)
    for width, vocabulary in SHAPES:
        x = Operands(TOKENS, width, vocabulary, device="cuda")
        title = f"N={TOKENS} d={width} V={vocabulary}"
        found = ways(x, triton_backend)
        written(findings, title, found, measured(found, "cuda"), flops=2 * TOKENS * width * vocabulary)
        triton_backend.CONFIGS.update(shipped)
        del x, found
        torch.cuda.empty_cache()


def ways(x: Operands, triton_backend: Any) -> dict[str, Way]:
    """Name -> way, floors first."""
    major, minor = torch.cuda.get_device_capability()
    generation = max((known for known in triton_backend.CONFIGS if known <= 10 * major + minor), default=80)
    shipped = triton_backend.CONFIGS[generation]
    found = {
        "1 product": Way(run=functools.partial(products, x, backward=False), products=1),
        "3 products": Way(run=functools.partial(products, x, backward=True), products=3),
    }
    for name, configs in {"shipped": shipped, **other_tiles(triton_backend, shipped)}.items():
        use = functools.partial(triton_backend.CONFIGS.__setitem__, generation, configs)
        mine = functools.partial(Way, shipped=name == "shipped")
        found |= {
            f"{name}: forward, logp and entropy": mine(run=_after(use, forward, x, TRAINED), products=1),
            f"{name}: forward, all three": mine(run=_after(use, forward, x, ALL), products=1),
            f"{name}: both passes, logp and entropy": mine(run=_after(use, both, x, TRAINED), products=3),
        }
    use = functools.partial(triton_backend.CONFIGS.__setitem__, generation, shipped)
    found["shipped: linear_policy_loss"] = Way(run=_after(use, policy_loss, x), products=3)
    if cuda_backend.compiler() is not None:
        for rows in (512, 2048):
            name = f"library and row kernel, {rows} rows: forward"
            found[name] = Way(run=functools.partial(blocks_forward, x, rows), products=1, shipped=False)
        name = "library and row kernel, 1024 rows: gradients in the forward pass"
        found[name] = Way(run=functools.partial(blocks_both, x, 1024), products=3, shipped=False)
    return found


def other_tiles(triton_backend: Any, shipped: Any) -> dict[str, Any]:
    """Tiles that were compiled for sm_90 without spills and never timed."""
    sizes = {"128x128, 6 stages": (128, 6), "128x256, 3 stages": (256, 3), "128x256, 4 stages": (256, 4)}
    found = {}
    for name, (columns, stages) in sizes.items():
        tile = triton_backend.Config(rows=128, columns=columns, width=64, warps=8, stages=stages)
        found[name] = dataclasses.replace(shipped, statistics=tile, gradient=tile)
    return found


# -- the ways --


def products(x: Operands, *, backward: bool) -> None:
    """The floor: the products alone, a chunk of the vocabulary at a time."""
    hidden, weight = x.hidden.detach(), x.weight.detach()
    for start in range(0, len(weight), COLUMNS):
        part = weight[start : start + COLUMNS]
        z = hidden @ part.T
        if backward:
            _ = z @ part, z.T @ hidden


def forward(x: Operands, need: Any) -> Any:
    """The statistics by the Triton kernels."""
    return linear_token_stats(x.hidden, x.weight, x.labels, TEMPERATURE, need=need, backend="triton")


def both(x: Operands, need: Any) -> Any:
    """The statistics and their gradients."""
    stats = forward(x, need)
    total = torch.stack([(x.up * one).sum() for one in stats if one is not None]).sum()
    return torch.autograd.grad(total, [x.hidden, x.weight])


def policy_loss(x: Operands) -> Any:
    """A loss with its gradients formed in the forward pass."""
    loss, _ = linear_policy_loss(
        x.hidden, x.weight, x.labels, lambda s, rows: x.up[rows] * (s.logp + s.entropy), need=TRAINED, backend="triton"
    )
    return torch.autograd.grad(loss, [x.hidden, x.weight])


def blocks_forward(x: Operands, rows: int) -> Any:
    """The library's product into float32 logits of some rows, which the row kernel reads."""
    weight = x.weight.detach()
    found = []
    for start in range(0, len(x.hidden), rows):
        part = slice(start, start + rows)
        z = wide_product(x.hidden.detach()[part], weight.T)
        found.append(token_stats_from_logits(z, x.labels[part], TEMPERATURE, backend=row_backend(z)))
    return found


def blocks_both(x: Operands, rows: int) -> tuple[Tensor, Tensor]:
    """The same with the logits' gradient kept in bfloat16, and one product by it for each operand."""
    hidden, weight = x.hidden.detach(), x.weight.detach()
    by_logits = torch.empty(len(hidden), len(weight), dtype=hidden.dtype, device=hidden.device)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        z = wide_product(hidden[part], weight.T).requires_grad_()
        # The view is no leaf, so that its storage may take the gradient.
        stats = token_stats_from_logits(
            z.view_as(z), x.labels[part], need=TRAINED, reuse_logits=True, backend=row_backend(z)
        )
        (slope,) = torch.autograd.grad((x.up[part] * (stats.logp + stats.entropy)).sum(), z)
        by_logits[part] = slope
    return by_logits @ weight, by_logits.T @ hidden


def wide_product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of half-precision operands, summed and returned in float32."""
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left.float() @ right.float()


def row_backend(logits: Tensor) -> Any:
    return "cuda" if logits.is_cuda else "torch"


def _after(use: Callable[[], None], work: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
    def run() -> Any:
        use()
        return work(*arguments)

    return run


# -- figures --


def measured(ways: dict[str, Way], device: str) -> dict[str, list[Cost] | Exception]:
    """The costs of each way by round, or the error that it raised."""
    found: dict[str, Any] = {name: [] for name in ways}
    for i in range(WARM_UP + ROUNDS):
        for name, way in ways.items():
            if isinstance(found[name], Exception):
                continue
            try:
                cost, _ = timed(way.run, device)
            # The boundary of a way: another tile may not fit, and the others are measured all the same.
            except Exception as error:
                found[name] = error.with_traceback(None)
                if device == "cuda":
                    torch.cuda.empty_cache()
            else:
                if i >= WARM_UP:
                    found[name].append(cost)
    return found


def written(
    findings: Findings, title: str, ways: dict[str, Way], costs: dict[str, list[Cost] | Exception], *, flops: int
) -> None:
    """Each way as a check: milliseconds, their ratio to the products that it cannot do without, memory.

    Args:
        title: of the shape.
        flops: of one product.
    """

    def median(name: str) -> tuple[float, float]:
        found = costs[name]
        if isinstance(found, Exception):
            raise found
        return 1e3 * statistics.median(c.seconds for c in found), statistics.median(c.extra_bytes for c in found)

    def figures(name: str, way: Way) -> Facts:
        found = costs[name]
        if isinstance(found, Exception) and not way.shipped:
            raise LeftOut(last_line(found))
        unit = "1 product" if way.products == 1 else "3 products"
        (ms, extra), (floor, _) = median(name), median(unit)
        speed = way.products * flops / ms / 1e9
        return {"ms": ms, f"x {unit}": ms / floor, "TFLOP/s": speed, "extra MB": extra / MB}

    for name, way in ways.items():
        findings.check(f"{title} {name}", functools.partial(figures, name, way))
