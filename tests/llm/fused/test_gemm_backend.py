"""The gemm backend with CUDA's row kernel as plain C++, against whole logits in float64; and when it is chosen."""

import shutil
from types import SimpleNamespace

import gemm_checks as checks
import pytest
import torch
from fused_cases import case, realistic
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aepo.llm.fused import backends, cuda_backend, gemm_backend, linear_token_stats, products, torch_backend

needs_cpp = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: the kernel's arithmetic is not checked")
many = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
DTYPES = (torch.float32, *checks.HALF)


@needs_cpp
@many
@given(checks.calls, st.sampled_from(checks.BUDGETS), st.sampled_from(DTYPES))
def test_values_and_gradients_are_those_of_whole_logits(on_cpu, one, block_bytes, dtype):
    checks.assert_statistics_agree(one, block_bytes, dtype)


@needs_cpp
@many
@given(checks.calls, st.sampled_from(checks.BUDGETS), st.sampled_from(DTYPES), st.booleans())
def test_the_policy_loss_is_that_of_whole_logits_with_its_gradients(on_cpu, one, block_bytes, dtype, dead):
    checks.assert_loss_agrees(one, block_bytes, dtype, dead=dead)


@needs_cpp
def test_bf16_operands_of_a_real_vocabulary_are_within_5e_5_of_float64(on_cpu):
    hidden, weight, labels, want = realistic()
    # Two blocks.
    budget = gemm_backend.LOGITS_SHARE * 4 * len(weight) * 9
    got = linear_token_stats(hidden, weight, labels, 0.6, backend="gemm", block_bytes=budget)
    for a, b in zip(got, want, strict=True):
        assert (a.double() - b).abs().max() < 5e-5


@needs_cpp
# One column, a part of the kernel's and some columns more, at every alignment of a row.
@pytest.mark.parametrize(("columns", "stride"), [(1, 1), (4096, 4096), (9001, 9001), (9002, 9004), (9003, 9007)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_may_lie_over_its_logits(on_cpu, columns, stride, dtype):
    checks.assert_a_gradient_may_lie_over_its_logits(cuda_backend, columns, dtype, stride=stride)


@needs_cpp
def test_half_precision_sums_are_rounded_once(on_cpu):
    checks.assert_half_precision_sums_are_rounded_once()


@needs_cpp
def test_edges_are_the_torch_backends(on_cpu):
    checks.assert_edges_are_the_torch_backends()


@needs_cpp
def test_no_more_is_stored_than_the_budget_holds(on_cpu):
    checks.assert_no_more_is_stored_than_the_budget_holds()


@needs_cpp
@pytest.mark.parametrize("block_bytes", [4000, None])
def test_equal_calls_give_equal_bits(on_cpu, block_bytes):
    checks.assert_equal_calls_give_equal_bits(block_bytes)


@needs_cpp
@pytest.mark.parametrize("trained", [(0,), (1,), (2,)])
@pytest.mark.parametrize("block_bytes", [700, None])
def test_what_is_frozen_gets_no_gradient_and_changes_none(on_cpu, trained, block_bytes):
    one, _ = checks.in_float32(case(bias=True, vocabulary=40, ignored=1))
    ups = [up.float() for up in checks.upstream(one)]

    def gradients(leaves):
        loss, _ = checks.linear_policy_loss(
            leaves[0], leaves[1], one.labels, lambda s, rows: checks.pulled_rows(s, rows, ups), backend="gemm",
            block_bytes=block_bytes, **(one.options | {"bias": leaves[2]}),
        )  # fmt: skip
        for leaf in leaves:
            leaf.grad = None
        loss.backward()
        return [leaf.grad for leaf in leaves]

    whole = gradients([x.detach().requires_grad_() for x in one.leaves])
    some = gradients([x.detach().requires_grad_(i in trained) for i, x in enumerate(one.leaves)])
    for i, (a, b) in enumerate(zip(some, whole, strict=True)):
        assert torch.equal(a, b) if i in trained else a is None


def test_products_are_summed_in_float32_and_rounded_once():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(*shape, generator=generator).bfloat16() for shape in ((5, 700), (700, 6)))
    exact = left.double() @ right.double()
    torch.testing.assert_close(products.wide(left, right).double(), exact, rtol=1e-5, atol=1e-4)
    total = torch.full((5, 6), 2.0)
    products.add(total, left, right)
    torch.testing.assert_close(total.double(), 2 + exact, rtol=1e-5, atol=1e-4)
    out = torch.empty(5, 6, dtype=torch.bfloat16)
    products.rounded(left, right, out=out)
    torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-4)


# -- when it is chosen --


@pytest.fixture
def an_h200(monkeypatch):
    """Meta tensors count as on a GPU with nvcc and Triton."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=150_754_820_096)
    )
    monkeypatch.setattr(cuda_backend, "compiler", lambda: "nvcc")
    backends.say.cache_clear()
    gemm_backend.device_budget.cache_clear()
    yield
    gemm_backend.device_budget.cache_clear()


class OnGPU(torch.Tensor):
    """A tensor without memory that says it is on a GPU."""

    device = torch.device("cuda", 0)


def on_gpu(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta").as_subclass(OnGPU)


def test_auto_takes_it_on_a_gpu_and_leaves_tight_budgets_and_mixed_dtypes_to_triton(an_h200, caplog):
    triton_backend = pytest.importorskip("aepo.llm.fused.triton_backend")
    hidden, weight = on_gpu(8192, 3584), on_gpu(152_064, 3584)
    with caplog.at_level("INFO", logger="aepo"):
        assert backends.chosen("auto", hidden, weight) is gemm_backend
    assert caplog.messages == ["fused: gemm backend (cuda:0)"]
    # Gradients of all rows do not fit, and a float32 sum of the weight's size does or does not.
    summed = 4 * 152_064 * 3584
    for budget, want in ((summed, gemm_backend), (summed - 1, triton_backend)):
        assert backends.chosen("auto", hidden, weight, block_bytes=budget) is want
    # Few rows need no sum, and 128 of logits.
    enough = gemm_backend.FEWEST_ROWS * gemm_backend.LOGITS_SHARE * 4 * 152_064
    few = hidden[:200]
    assert backends.chosen("auto", few, weight, block_bytes=enough) is gemm_backend
    assert backends.chosen("auto", few, weight, block_bytes=enough - 1) is triton_backend
    assert backends.chosen("gemm", hidden, weight, block_bytes=1) is gemm_backend, "whoever names it has it"
    wide = on_gpu(152_064, 3584, dtype=torch.float32)
    assert backends.chosen("auto", hidden, wide) is triton_backend
    with pytest.raises(ValueError, match="hidden is bfloat16 and weight float32: it multiplies operands of one dtype"):
        backends.chosen("gemm", hidden, wide)
    assert backends.chosen("auto", on_gpu(1, 1, dtype=torch.float64)) is torch_backend


@pytest.mark.parametrize(
    ("memory", "rows_of_logits", "rows_of_gradients", "several"),
    # An H200's, an A100's of 80 GB, and one of 40 GB: bytes / 32 / 8 / (4 V) rows; the rest / (2 V), at most all.
    [(150_754_820_096, 968, 8192, False), (85_899_345_920, 551, 7724, True), (42_949_672_960, 275, 3863, True)],
)
def test_what_is_stored_follows_from_the_gpus_memory(memory, rows_of_logits, rows_of_gradients, several):
    room = gemm_backend.Workspace(
        rows=8192, width=3584, vocabulary=152_064, itemsize=2, budget=memory // gemm_backend.DEVICE_SHARE
    )
    assert (room.logits_rows, room.panel_rows) == (rows_of_logits, rows_of_gradients)
    assert room.sum_bytes == (4 * 152_064 * 3584 if several else 0)
    assert room.bytes == (4 * rows_of_logits + 2 * rows_of_gradients) * 152_064 + room.sum_bytes
    assert (room.too_tight is None) == (memory > 5e10)


def test_without_nvcc_its_row_kernel_is_tritons(an_h200, monkeypatch):
    triton_rows = pytest.importorskip("aepo.llm.fused.triton_rows")
    gpu = torch.device("cuda", 0)
    assert gemm_backend.row_kernel(gpu) is cuda_backend
    monkeypatch.setattr(cuda_backend, "compiler", lambda: None)
    assert gemm_backend.row_kernel(gpu) is triton_rows
    assert backends.chosen("auto", on_gpu(8, 8), on_gpu(16, 8)) is gemm_backend
    monkeypatch.setattr(backends, "_installed", lambda: False)
    with pytest.raises(ValueError, match="triton is not installed, and nvcc was not found"):
        backends.chosen("gemm", on_gpu(8, 8), on_gpu(16, 8))


def test_what_cannot_run_is_refused_by_name():
    value = torch.zeros(1, 1)
    assert backends.chosen("auto", value, value) is torch_backend
    with pytest.raises(ValueError, match="backend 'gemm' cannot run here: tensors are on cpu; use 'torch'"):
        backends.chosen("gemm", value, value)
    with pytest.raises(ValueError, match="backend must be one of auto, torch, gemm, triton, got 'cublas'"):
        backends.chosen("cublas", value, value)
    with pytest.raises(ValueError, match="block_bytes must be at least 1, or None for the backend's own, got 0"):
        linear_token_stats(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0]), block_bytes=0)
