"""The CUDA row kernel without a GPU: its source as plain C++, thread after thread, and compiled for the real ones."""

import math
import shutil

import pytest
import torch
from fused_cases import by_logits, pulled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from aepo.llm.fused import backends, cuda_backend, token_stats_from_logits, torch_backend

needs_cpp = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++: the kernel's arithmetic is not checked")
needs_nvcc = pytest.mark.skipif(cuda_backend.compiler() is None, reason="no nvcc: the kernel is not compiled")

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("row_kernel") / "host.so"
    cuda_backend.build(path, "g++", "-O2", "-std=c++17", "-shared", "-fPIC", "-x", "c++")
    return cuda_backend.loaded(path)


@pytest.fixture
def on_cpu(library, monkeypatch):
    """The backend `cuda` runs its kernel on the CPU."""
    monkeypatch.setattr(cuda_backend, "_library_of", lambda device: library)
    monkeypatch.setattr(cuda_backend, "_stream", lambda device: None)
    monkeypatch.setattr(cuda_backend, "obstacle", lambda device, dtype: None)


def wide_logits(rows: int, vocabulary: int, *, seed: int, dtype: torch.dtype, offset: int) -> tuple[Tensor, Tensor]:
    """A leaf and its copy, wider than the logits: a window of it starts and steps at any alignment."""
    generator = torch.Generator().manual_seed(seed)
    leaf = (torch.randn(rows, vocabulary + offset + 1, generator=generator) * 3).to(dtype).requires_grad_()
    # A copy that no backward pass reads.
    return leaf, leaf * 1


@needs_cpp
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 4),
    vocabulary=st.sampled_from([1, 2, 7, 8, 33, 1000, 4097, 20_000]),
    offset=st.integers(0, 8),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(DTYPES),
    temperature=st.sampled_from([0.3, 1.0, 1.7, "per token"]),
    entropy_tempered=st.booleans(),
    ignored=st.booleans(),
    chosen=st.sampled_from([(0,), (1,), (2,), (0, 1, 2)]),
    reuse=st.booleans(),
)
def test_values_and_gradients_are_those_of_whole_logits(
    on_cpu, rows, vocabulary, offset, seed, dtype, temperature, entropy_tempered, ignored, chosen, reuse
):
    generator = torch.Generator().manual_seed(seed)
    leaf, wide = wide_logits(rows, vocabulary, seed=seed, dtype=dtype, offset=offset)
    window = slice(offset, offset + vocabulary)
    z = wide[:, window]
    exact = z.detach().double().requires_grad_()
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    labels[0] = vocabulary - 1
    if ignored:
        labels[rows // 2] = -100
    t = torch.rand(rows, generator=generator) + 0.3 if temperature == "per token" else temperature
    # A row without any gradient now and then, which is left out.
    live = torch.rand(rows, generator=generator) > 0.3
    ups = [torch.randn(rows, generator=generator) * live for _ in range(3)]
    got = token_stats_from_logits(z, labels, t, entropy_tempered=entropy_tempered, backend="cuda", reuse_logits=reuse)
    want = by_logits(exact, labels, t.double() if isinstance(t, Tensor) else t, entropy_tempered)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=2e-5)
    before = z.detach().clone()
    (mine,) = torch.autograd.grad(pulled(got, ups, chosen), leaf)
    (theirs,) = torch.autograd.grad(pulled(want, [up.double() for up in ups], chosen), exact)
    rounding = torch.finfo(dtype).eps if dtype != torch.float32 else 0.0
    torch.testing.assert_close(mine[:, window].double(), theirs, rtol=1e-4 + rounding, atol=2e-5)
    # Nothing beside the window is touched.
    untouched = leaf.detach().clone()
    untouched[:, window] = mine[:, window] if reuse else before
    assert torch.equal(wide.detach(), untouched)


@needs_cpp
def test_the_forward_pass_is_exact_on_a_real_vocabulary(on_cpu):
    # Logits up to 30 and an entropy of about 1.6 nats, as in a language model's answers.
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 151_936, generator=generator) * 2.2
    z[:, :6] = torch.tensor([30.0, 29.5, 29.0, 28.7, 28.1, 27.0])
    labels = torch.tensor([1, 151_935])
    got = token_stats_from_logits(z, labels, 0.6, backend="cuda")
    want = by_logits(z.double(), labels, 0.6)
    assert 1.2 < want.entropy[0] < 2.0
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=5e-5)


@needs_cpp
@pytest.mark.parametrize("level", [-300.0, 0.0, 300.0, -math.inf])
def test_equal_logits_of_any_size_are_the_uniform_distribution(on_cpu, level):
    stats = token_stats_from_logits(torch.full((2, 45), level), torch.tensor([0, 44]), 0.5, backend="cuda")
    # A label that cannot occur keeps its log-prob.
    logp = -math.log(45) if math.isfinite(level) else -math.inf
    for value, want in zip(stats, (logp, logp, math.log(45)), strict=True):
        torch.testing.assert_close(value, torch.full((2,), want), rtol=1e-5, atol=1e-5)


@needs_cpp
def test_an_impossible_token_and_a_nan_stay_where_they_are(on_cpu):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 700, generator=generator)
    z[:, 3] = -math.inf
    z[2, 650] = math.nan
    z.requires_grad_()
    labels = torch.tensor([0, 3, 2, 699])
    found = [token_stats_from_logits(z, labels, 0.7, backend=name) for name in ("cuda", "torch")]
    for a, b in zip(*found, strict=True):
        assert a[2].isnan()
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)
    ups = [torch.tensor([1.0, 0.0, 0.0, -2.0])] * 3
    a, b = (torch.autograd.grad(sum((u * x).nansum() for u, x in zip(ups, s, strict=True)), z)[0] for s in found)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert (a[[0, 3], 3] == 0).all()


@needs_cpp
def test_only_what_is_needed_is_given_and_no_rows_are_fine(on_cpu):
    z = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 19, 7])
    whole = token_stats_from_logits(z, labels, 0.7, backend="cuda")
    for need in (["logp"], ["logp_t"], ["entropy"]):
        got = token_stats_from_logits(z, labels, 0.7, need=need, backend="cuda")
        assert [name for name in got._fields if getattr(got, name) is not None] == need
        assert torch.equal(getattr(got, need[0]), getattr(whole, need[0]))
    none = torch.zeros(0, 5, requires_grad=True)
    stats = token_stats_from_logits(none, torch.zeros(0, dtype=torch.int64), backend="cuda")
    stats.logp.sum().backward()
    assert [x.shape for x in (*stats, none.grad)] == [(0,)] * 3 + [(0, 5)]
    every = torch.zeros(2, 5, requires_grad=True)
    token_stats_from_logits(every, torch.full((2,), -100), backend="cuda").logp.sum().backward()
    assert (every.grad == 0).all()


@needs_cpp
def test_equal_calls_give_equal_bits(on_cpu):
    z = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def once():
        stats = token_stats_from_logits(z, torch.tensor([1, 2, 3]), 0.7, backend="cuda")
        return [*stats, *torch.autograd.grad(sum(x.sum() for x in stats), z)]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


@pytest.mark.parametrize("backend", ["torch", pytest.param("cuda", marks=needs_cpp)])
def test_logits_are_overwritten_only_where_that_is_safe(backend, on_cpu):
    leaf = torch.randn(2, 5, requires_grad=True)
    labels = torch.tensor([0, 4])
    with pytest.raises(ValueError, match="reuse_logits would overwrite a leaf of the graph"):
        token_stats_from_logits(leaf, labels, reuse_logits=True, backend=backend)
    with pytest.raises(ValueError, match="reuse_logits needs rows whose logits lie side by side"):
        token_stats_from_logits((leaf * 1).T.contiguous().T, labels, reuse_logits=True, backend=backend)
    z = leaf * 1
    logp = token_stats_from_logits(z, labels, reuse_logits=True, backend=backend).logp
    (first,) = torch.autograd.grad(logp[1], leaf, retain_graph=True)
    # The row without a gradient upstream is cleared, not left as logits.
    assert torch.equal(first[0], torch.zeros(5)) and torch.equal(z.detach(), first)
    with pytest.raises(RuntimeError, match="a second backward pass needs reuse_logits=False"):
        torch.autograd.grad(logp[1], leaf)


# -- which backend, and the compiler --


def test_auto_takes_torch_without_a_gpu_says_so_and_what_cannot_run_is_refused_by_name(caplog):
    value = torch.zeros(1, 1)
    backends.say.cache_clear()
    with caplog.at_level("INFO", logger="aepo"):
        assert backends.chosen_for_logits("auto", value) is torch_backend
        assert backends.chosen_for_logits("auto", value) is torch_backend
    assert caplog.messages == ["token_stats_from_logits: torch backend (logits are on cpu)"]
    with pytest.raises(ValueError, match="backend 'cuda' cannot run here: logits are on cpu; use 'torch'"):
        backends.chosen_for_logits("cuda", value)
    with pytest.raises(ValueError, match="backend must be one of auto, torch, cuda, got 'triton'"):
        backends.chosen_for_logits("triton", value)


def test_what_stands_in_the_kernels_way_is_named(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(cuda_backend, "compiler", lambda: "nvcc")
    assert cuda_backend.obstacle(gpu, torch.bfloat16) is None
    assert cuda_backend.obstacle(gpu, torch.float64) == "float64 is not its dtype"
    monkeypatch.setattr(cuda_backend, "compiler", lambda: None)
    assert "install the CUDA toolkit or set CUDA_HOME" in str(cuda_backend.obstacle(gpu, torch.float32))


@needs_cpp
def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match=r"row_kernel.cu failed:\n.*no-such-option"):
        cuda_backend.build(tmp_path / "kernel.so", "g++", "--no-such-option")
    assert not list(tmp_path.iterdir())


@needs_nvcc
@pytest.mark.parametrize("capability", [80, 90])
def test_nvcc_compiles_it_for_both_gpus_without_spills(capability, tmp_path):
    found = cuda_backend.resources(capability, tmp_path)
    assert len(found) == 6, "two kernels in three dtypes"
    assert all(spilled == 0 for _, _, spilled in found)
    # Three blocks of 512 threads fit a multiprocessor's 65,536 registers.
    assert all(0 < registers <= 42 for _, registers, _ in found)


@needs_nvcc
def test_a_built_library_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cuda_backend.library.cache_clear()
    cuda_backend.library(80)
    (path,) = (tmp_path / "aepo").iterdir()
    made = path.stat().st_mtime_ns
    cuda_backend.library.cache_clear()
    cuda_backend.library(80)
    assert path.stat().st_mtime_ns == made
