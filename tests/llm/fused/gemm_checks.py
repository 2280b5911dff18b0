"""What the gemm backend must do whichever row kernel it has: CUDA's as plain C++, or Triton's under the interpreter."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fused_cases import Case, Largest, by_logits, case, in_float32, pulled, upstream
from hypothesis import strategies as st
from torch import Tensor

from aepo.llm.fused import TokenStats, linear_policy_loss, linear_token_stats
from aepo.llm.fused.chunked import Question, Stats, Upstream
from aepo.llm.fused.gemm_backend import over

HALF = (torch.bfloat16, torch.float16)
BUDGETS = (1, 700, 4000, 20_000, None)
"""In bytes: a row at a time and a panel of one; a few rows and panels; all rows at once and over their logits."""

calls = st.builds(
    case,
    rows=st.sampled_from([1, 2, 7, 21]),
    width=st.sampled_from([1, 16, 19]),
    vocabulary=st.sampled_from([1, 2, 33, 64, 131]),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.3, 1.0, 1.7, "per token"]),
    bias=st.booleans(),
    softcap=st.sampled_from([None, 2.0]),
    entropy_tempered=st.booleans(),
    ignored=st.integers(0, 1),
)


def assert_gradients_are_exact(
    mine: Sequence[Tensor], exact: Case, total: Callable[[TokenStats], Tensor], dtype: torch.dtype
) -> None:
    """Gradients by a case's leaves, in the dtype, against those of whole logits in float64.

    The logits' gradient is rounded to half precision before it is multiplied, so a sum is off by at most eps times the
    sum of its terms' sizes; and the product is rounded, once. In float32, logits up to 60 / T = 200 are off by 1e-5,
    times slopes of 3 / T = 10 and hidden states of size 2, over up to 21 rows.
    """
    z = exact.hidden @ exact.weight.T
    z = (z if exact.bias is None else z + exact.bias).detach().requires_grad_()
    capped = z if exact.softcap is None else exact.softcap * torch.tanh(z / exact.softcap)
    (dz,) = torch.autograd.grad(total(by_logits(capped, exact.labels, exact.temperature, exact.entropy_tempered)), z)
    rounding = torch.finfo(dtype).eps if dtype in HALF else 0.0
    exact_gradients = (dz @ exact.weight, dz.T @ exact.hidden, dz.sum(0))
    sizes = (dz.abs() @ exact.weight.abs(), dz.abs().T @ exact.hidden.abs(), dz.abs().sum(0))
    for a, b, size in zip(mine, exact_gradients, sizes, strict=False):
        assert a.dtype == dtype
        assert ((a.double() - b).abs() <= 1e-3 + 1e-4 * b.abs() + rounding * (b.abs() + size)).all()


def assert_statistics_agree(one: Case, block_bytes: int | None, dtype: torch.dtype = torch.float32) -> None:
    """Values and gradients of `linear_token_stats` are those of whole logits."""
    mine, exact = in_float32(one, dtype)
    got, want = mine.stats(backend="gemm", block_bytes=block_bytes), exact.oracle()
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=3e-5)
    ups = upstream(one)
    for some in ((0,), (1,), (2,), (0, 1, 2)):
        pull = pulled(got, [up.float() for up in ups], some)
        gradients = torch.autograd.grad(pull, mine.leaves, retain_graph=True)
        assert_gradients_are_exact(gradients, exact, lambda stats, some=some: pulled(stats, ups, some), dtype)


def assert_loss_agrees(
    one: Case, block_bytes: int | None, dtype: torch.dtype = torch.float32, *, dead: bool = True
) -> None:
    """`linear_policy_loss` and its gradients are those of whole logits; `dead`: some rows have no slope at all."""
    mine, exact = in_float32(one, dtype)
    ups = upstream(one) if dead else [torch.ones(len(one.labels), dtype=torch.float64)] * 3

    def token_loss(ups: list[Tensor]) -> Any:
        # Curved in each statistic, so that a slope taken at another value shows.
        return lambda stats, rows: (
            ups[0][rows] * stats.logp.exp() + ups[1][rows] * stats.logp_t.exp() + ups[2][rows] * stats.entropy
        )

    loss, stats = linear_policy_loss(
        mine.hidden, mine.weight, mine.labels, token_loss([up.float() for up in ups]), backend="gemm",
        block_bytes=block_bytes, **mine.options,
    )  # fmt: skip
    everyone = torch.arange(len(one.labels))
    want = (token_loss(ups)(exact.oracle(), everyone) * (one.labels != -100)).sum()
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-4)
    for a, b in zip(stats, exact.oracle(), strict=True):
        torch.testing.assert_close(a.double(), b.detach(), rtol=1e-5, atol=3e-5)
        assert not a.requires_grad
    on = one.labels != -100
    gradients = torch.autograd.grad(-3 * loss, mine.leaves)
    assert_gradients_are_exact(gradients, exact, lambda s: -3 * (token_loss(ups)(s, everyone) * on).sum(), dtype)


def assert_a_gradient_may_lie_over_its_logits(kernel: Any, columns: int, dtype: torch.dtype, *, stride: int) -> None:
    """`kernel.row_gradient` writes the same bits over the logits as elsewhere, and nothing beside them.

    Args:
        kernel: a module with `row_sums` and `row_gradient`.
        columns: of the logits.
        dtype: of the gradient.
        stride: numbers from one row of the logits to the next, >= columns.
    """
    generator = torch.Generator().manual_seed(columns)
    wide = torch.randn(3, stride, generator=generator) * 3
    logits = wide[:, :columns]
    label = torch.tensor([0, columns - 1, columns // 2])
    t = torch.tensor([[0.7], [1.3], [1.0]])
    question = Question(temperature=t, entropy=True, entropy_tempered=False)
    log_probs, log_probs_t = logits.double().log_softmax(-1), (logits.double() / t).log_softmax(-1)
    stats = Stats(
        logp=torch.zeros(3),
        logp_t=torch.zeros(3),
        entropy=-(log_probs.exp() * log_probs).sum(-1).float(),
        log_mass=logits.double().logsumexp(-1).float(),
        log_mass_t=(logits.double() / t).logsumexp(-1).float(),
    )
    g1, gt, gh = (torch.randn(3, generator=generator) for _ in range(3))
    apart = torch.empty(3, columns, dtype=dtype)
    up = Upstream(logp=g1, logp_t=gt, entropy=gh)
    kernel.row_gradient(logits, None, label, question, stats, up, apart, softcap=None)
    # dz = (g1 + gT / T) [v = y] - g1 p - (gT / T) pT - gH p (ln p + H)
    p, g1, gt, gh = log_probs.exp(), *(g.double().unsqueeze(-1) for g in (g1, gt, gh))
    want = torch.zeros(3, columns, dtype=torch.float64).scatter(1, label.unsqueeze(-1), g1 + gt / t)
    want -= g1 * p + gt / t * log_probs_t.exp() + gh * p * (log_probs + stats.entropy.double().unsqueeze(-1))
    rounding = torch.finfo(dtype).eps if dtype in HALF else 1e-5
    torch.testing.assert_close(apart.double(), want, rtol=rounding, atol=2e-6)
    beside = wide[:, columns:].clone()
    laid = over(logits, dtype) if stride == columns else wide.view(dtype)[:, :columns]
    assert laid.data_ptr() == logits.data_ptr()
    kernel.row_gradient(logits, None, label, question, stats, up, laid, softcap=None)
    assert torch.equal(laid, apart)
    assert torch.equal(wide[:, columns:], beside)


def assert_half_precision_sums_are_rounded_once() -> None:
    """600 equal contributions a row at a time: a sum kept in bfloat16 would stop growing at 256 of them."""
    hidden = torch.ones(600, 1, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.zeros(3, 1, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.zeros(600, dtype=torch.int64)
    loss, _ = linear_policy_loss(
        hidden, weight, labels, lambda s, rows: s.logp, need=["logp"], backend="gemm", block_bytes=1
    )
    (by_weight,) = torch.autograd.grad(loss, weight)
    # 600 (1 - 1/3) and twice 600 (-1/3), where 1/3 is rounded to bfloat16 before it is summed.
    third = torch.tensor(1 / 3).bfloat16().double().item()
    want = torch.tensor([[600 * (1 - 1 / 3)], [-600 * third], [-600 * third]])
    # Triton's interpreter cuts off where a GPU rounds.
    torch.testing.assert_close(by_weight.float(), want, rtol=2**-7, atol=0)


def assert_edges_are_the_torch_backends() -> None:
    """Impossible tokens, a nan, logits of any size, views, no rows, only ignored rows."""
    one, _ = in_float32(case(rows=4, vocabulary=70, bias=True))
    bias = one.bias.detach().clone()
    bias[[1, 69]] = -torch.inf
    barred = dataclasses.replace(one, bias=bias.requires_grad_(), labels=torch.tensor([0, 1, 3, 5]))
    found = [barred.stats(backend=name) for name in ("gemm", "torch")]
    assert found[0].logp[1] == -math.inf
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    ups = [torch.tensor([1.0, 0.0, -2.0, 0.5])] * 3
    totals = [sum((u * x.nan_to_num(neginf=0.0)).sum() for u, x in zip(ups, s, strict=True)) for s in found]
    mine, theirs = (torch.autograd.grad(total, barred.leaves) for total in totals)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert (mine[2][[1, 69]] == 0).all()
    broken = one.hidden.detach().clone()
    broken[2] = math.nan
    for a, b in zip(dataclasses.replace(one, hidden=broken).stats(backend="gemm"), one.stats(), strict=True):
        assert a[2].isnan()
        torch.testing.assert_close(a[[0, 1, 3]], b[[0, 1, 3]].detach(), rtol=1e-5, atol=1e-5)
    for level in (-300.0, 300.0):
        stats = linear_token_stats(
            torch.ones(2, 1), torch.full((45, 1), level), torch.tensor([0, 44]), 0.5, backend="gemm"
        )
        for value, want in zip(stats, (-math.log(45), -math.log(45), math.log(45)), strict=True):
            torch.testing.assert_close(value, torch.full((2,), want), rtol=1e-5, atol=1e-5)
    views = dataclasses.replace(
        one,
        hidden=one.hidden.detach().T.contiguous().T,
        weight=one.weight.detach().repeat_interleave(2, 0)[::2],
        labels=torch.stack([one.labels, one.labels.flip(0)], 1)[:, 0],
    )
    for a, b in zip(views.stats(backend="gemm"), one.stats(), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-5)
    for rows in (0, 3):
        hidden, weight = torch.randn(rows, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
        labels = torch.full((rows,), -100)
        loss, stats = linear_policy_loss(hidden, weight, labels, lambda s, i: s.logp, 0.7, backend="gemm")
        again = linear_token_stats(hidden, weight, labels, 0.7, backend="gemm")
        assert all(x.tolist() == [0.0] * rows for x in (*stats, *again)) and loss.item() == 0.0
        for total in (loss, torch.stack([x.sum() for x in again]).sum()):
            assert all((g == 0).all() for g in torch.autograd.grad(total, [hidden, weight]))


def assert_no_more_is_stored_than_the_budget_holds() -> None:
    """64 rows of 512 logits in a budget of 16 rows: logits of four rows, gradients of what is left."""
    one, _ = in_float32(case(rows=64, width=4, vocabulary=512))
    budget = 16 * 512 * 4
    with Largest({one.weight.numel()}) as seen:
        loss, _ = linear_policy_loss(
            one.hidden, one.weight, one.labels, lambda s, i: s.logp + s.entropy, backend="gemm", block_bytes=budget,
            **one.options,
        )  # fmt: skip
        torch.autograd.grad(loss, one.leaves)
    # Logits take an eighth, two rows; 14 rows of gradients have room beside them.
    assert seen.elements == 14 * 512
    with Largest({one.weight.numel()}) as seen:
        one.stats(backend="gemm", block_bytes=budget)
    assert seen.elements == 2 * 512


def assert_equal_calls_give_equal_bits(block_bytes: int | None) -> None:
    one, _ = in_float32(case(rows=21, vocabulary=131, ignored=2))
    ups = [up.float() for up in upstream(one)]

    def once() -> list[Tensor]:
        loss, stats = linear_policy_loss(
            one.hidden, one.weight, one.labels, lambda s, rows: pulled_rows(s, rows, ups), backend="gemm",
            block_bytes=block_bytes, **one.options,
        )  # fmt: skip
        again = one.stats(backend="gemm", block_bytes=block_bytes)
        return [
            loss, *stats, *torch.autograd.grad(loss, one.leaves), *again,
            *torch.autograd.grad(pulled(again, ups), one.leaves),
        ]  # fmt: skip

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


def pulled_rows(stats: TokenStats, rows: Tensor, ups: list[Tensor]) -> Tensor:
    """The loss of some rows whose slopes are the upstream gradients."""
    return torch.stack([up[rows] * value for up, value in zip(ups, stats, strict=True)]).sum(0)
