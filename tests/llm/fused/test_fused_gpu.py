"""The fused operation on a GPU: exactness, equal bits, 64-bit offsets, memory, and what the sanitizer says.

`make bench-gpu` runs these before it measures. Without a CUDA device they skip.
"""

import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from fused_cases import case, pulled, realistic, upstream
from torch import Tensor

from aepo.llm.fused import cuda_backend, linear_policy_loss, linear_token_stats, token_stats_from_logits

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

MB = 1 << 20


def on_gpu(*tensors: Tensor) -> list[Tensor]:
    return [x.detach().cuda().requires_grad_(x.is_floating_point()) for x in tensors]


def random(*shape: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(sum(shape))
    # Made in its own dtype: a copy in float32 may not fit beside it.
    return torch.randn(*shape, generator=generator, device="cuda", dtype=dtype).mul_(scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("entropy_tempered", [False, True])
def test_values_and_gradients_are_those_of_whole_logits(dtype, entropy_tempered):
    one = case(
        rows=150, width=200, vocabulary=1031, bias=True, ignored=3, softcap=9.0, entropy_tempered=entropy_tempered
    )
    hidden, weight, bias = on_gpu(*(x.detach().to(dtype) * 0.3 for x in one.leaves))
    exact = [x.detach().cpu().double().requires_grad_() for x in (hidden, weight, bias)]
    oracle = type(one)(**(vars(one) | dict(zip(("hidden", "weight", "bias"), exact, strict=True)))).oracle()
    got = linear_token_stats(
        hidden, weight, one.labels.cuda(), 1.7, bias=bias, softcap=9.0, entropy_tempered=entropy_tempered,
        backend="triton",
    )  # fmt: skip
    for a, b in zip(got, oracle, strict=True):
        torch.testing.assert_close(a.cpu().double(), b, rtol=1e-5, atol=5e-5)
    ups = upstream(one)
    mine = torch.autograd.grad(pulled(got, [up.cuda().float() for up in ups]), [hidden, weight, bias])
    for a, b in zip(mine, torch.autograd.grad(pulled(oracle, ups), exact), strict=True):
        rounding = 4 * torch.finfo(dtype).eps if dtype != torch.float32 else 1e-5
        torch.testing.assert_close(a.cpu().double(), b, rtol=rounding, atol=rounding * b.abs().max().item() + 1e-4)


# One column, part of a tile, a whole tile, one and a column of the next: sizes of 1 are constants to Triton.
@pytest.mark.parametrize("vocabulary", [1, 50, 128, 129])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (64, 96)])
def test_a_vocabulary_of_one_tile_gives_values_and_gradients_of_whole_logits(vocabulary, rows, width):
    one = case(rows=rows, width=width, vocabulary=vocabulary)
    hidden, weight = on_gpu(*(x.detach().bfloat16() * 0.3 for x in one.leaves))
    exact = [x.detach().cpu().double().requires_grad_() for x in (hidden, weight)]
    oracle = type(one)(**(vars(one) | dict(zip(("hidden", "weight"), exact, strict=True)))).oracle()
    got = linear_token_stats(hidden, weight, one.labels.cuda(), 1.7, backend="triton")
    for a, b in zip(got, oracle, strict=True):
        torch.testing.assert_close(a.cpu().double(), b, rtol=1e-5, atol=5e-5)
    ups = upstream(one)
    mine = torch.autograd.grad(pulled(got, [up.cuda().float() for up in ups]), [hidden, weight])
    for a, b in zip(mine, torch.autograd.grad(pulled(oracle, ups), exact), strict=True):
        rounding = 4 * torch.finfo(torch.bfloat16).eps
        torch.testing.assert_close(a.cpu().double(), b, rtol=rounding, atol=rounding * b.abs().max().item() + 1e-4)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_bf16_operands_of_a_real_vocabulary_are_within_5e_5_of_float64(backend):
    hidden, weight, labels, want = realistic()
    got = linear_token_stats(hidden.cuda(), weight.cuda(), labels.cuda(), 0.6, backend=backend)
    for a, b in zip(got, want, strict=True):
        assert (a.cpu().double() - b).abs().max() < 5e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("reuse", [False, True])
def test_the_row_kernel_agrees_with_the_torch_backend(dtype, reuse):
    if cuda_backend.compiler() is None:
        pytest.skip("no nvcc: the row kernel cannot be built")
    z = random(37, 10_007, dtype=dtype, scale=3.0).requires_grad_()
    labels = torch.arange(37, device="cuda") * 270
    labels[5] = -100
    ups = [random(37, dtype=torch.float32) * (random(37, dtype=torch.float32) > -0.5) for _ in range(3)]
    found = []
    for options in ({"backend": "cuda", "reuse_logits": reuse}, {"backend": "torch"}):
        stats = token_stats_from_logits(z * 1, labels, 0.7, **options)
        found.append([*stats, *torch.autograd.grad(pulled(stats, ups), z)])
    for a, b in zip(*found, strict=True):
        rounding = torch.finfo(dtype).eps if a.dim() == 2 and dtype != torch.float32 else 1e-5
        torch.testing.assert_close(a.float(), b.float(), rtol=rounding, atol=3e-5)


def test_twenty_runs_give_equal_bits():
    hidden, weight = random(700, 896).requires_grad_(), random(20_011, 896, scale=0.05).requires_grad_()
    labels = torch.arange(700, device="cuda") * 28
    ups = [random(700, dtype=torch.float32) for _ in range(3)]

    def once() -> list[Tensor]:
        stats = linear_token_stats(hidden, weight, labels, 0.7, backend="triton")
        return [*stats, *torch.autograd.grad(pulled(stats, ups), [hidden, weight])]

    first = once()
    for _ in range(19):
        assert all(torch.equal(a, b) for a, b in zip(first, once(), strict=True))


def test_offsets_beyond_32_bits():
    # 65,536 x 33,000 hidden numbers and 40,000 x 65,536 logits: more than 2^31 each, told apart by their last rows.
    rows = 65_536
    hidden, weight = random(rows, 33_000, scale=0.01), random(300, 33_000, scale=0.5)
    labels = torch.arange(rows, device="cuda") % 300
    last = slice(rows - 64, rows)
    whole = linear_token_stats(hidden, weight, labels, 0.7, backend="triton")
    alone = linear_token_stats(hidden[last].clone(), weight, labels[last], 0.7, backend="triton")
    for a, b in zip(whole, alone, strict=True):
        torch.testing.assert_close(a[last], b, rtol=1e-5, atol=1e-5)
    del hidden, weight, whole
    if cuda_backend.compiler() is None:
        return
    logits = random(rows, 40_000)
    stats = token_stats_from_logits(logits, labels, 0.7, backend="cuda")
    alone = token_stats_from_logits(logits[last].clone(), labels[last], 0.7, backend="cuda")
    for a, b in zip(stats, alone, strict=True):
        assert torch.equal(a[last], b)


def peak_beyond(results: int, run: Any) -> int:
    """Bytes allocated at the highest beyond what was there before and what `run` returns."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = run()
    torch.cuda.synchronize()
    del kept
    return torch.cuda.max_memory_allocated() - before - results


def test_the_extra_memory_is_32_mb_forward_and_400_mb_backward():
    n, d, v = 8192, 3584, 152_064
    hidden, weight = random(n, d, scale=0.02).requires_grad_(), random(v, d, scale=0.02).requires_grad_()
    labels = torch.arange(n, device="cuda")
    assert peak_beyond(0, lambda: linear_token_stats(hidden, weight, labels, 0.7, backend="triton")) <= 32 * MB
    stats = linear_token_stats(hidden, weight, labels, 0.7, backend="triton")
    total = stats.logp.sum() + stats.logp_t.sum() + stats.entropy.sum()
    gradients = 2 * (n * d + v * d)
    assert peak_beyond(gradients, lambda: torch.autograd.grad(total, [hidden, weight])) <= 400 * MB


def test_the_policy_loss_agrees_with_the_statistics_and_autograd():
    hidden, weight = random(300, 256).requires_grad_(), random(5003, 256, scale=0.1).requires_grad_()
    labels = torch.arange(300, device="cuda")
    ups = [random(300, dtype=torch.float32) for _ in range(3)]
    loss, _ = linear_policy_loss(
        hidden, weight, labels, lambda s, rows: sum(u[rows] * x for u, x in zip(ups, s, strict=True)), 0.7
    )
    stats = linear_token_stats(hidden, weight, labels, 0.7, backend="triton")
    mine, theirs = (torch.autograd.grad(x, [hidden, weight]) for x in (loss, pulled(stats, ups)))
    torch.testing.assert_close(loss, pulled(stats, ups), rtol=1e-4, atol=1e-2)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a.float(), b.float(), rtol=2e-2, atol=2e-2 * b.abs().max().item())


def test_the_sanitizer_finds_nothing():
    if (tool := shutil.which("compute-sanitizer")) is None:
        pytest.skip("compute-sanitizer is not installed")
    # Errors that a library asks for and handles, such as "no context yet", are no errors of a kernel.
    command = [tool, "--report-api-errors", "no", "--error-exitcode=9", sys.executable, "-m", "pytest", "-q"]
    chosen = "whole_logits or row_kernel or policy_loss"
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", __file__, "-k", chosen],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    if "Device not supported" in done.stdout + done.stderr:
        pytest.skip("compute-sanitizer says: Device not supported")
    assert done.returncode == 0, done.stdout[-4000:]
