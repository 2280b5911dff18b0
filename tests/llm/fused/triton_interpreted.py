"""The Triton kernels under the interpreter against whole logits in float64; `test_fused_triton.py` runs this file.

Whether Triton interprets is settled when it is imported, so these tests have a process of their own. The interpreter
runs a program at a time in numpy: shapes are small. It multiplies bf16 wrongly, so operands are upcast under it, and
what half precision does on a GPU is tested there.
"""

import dataclasses
import math
from unittest import mock

import pytest
import torch
import torch.multiprocessing as mp
from fused_cases import MIXED, by_logits, case, pulled, realistic, upstream
from hypothesis import given, settings
from hypothesis import strategies as st
from split_vocabulary import split_over

from aepo.llm.fused import backends, linear_policy_loss, linear_token_stats, torch_backend, triton_backend


def in_float32(one, dtype=torch.float32):
    """The case with its tensors rounded, and the same numbers in float64."""
    rounded = {
        name: value if value is None else value.detach().to(dtype)
        for name, value in (("hidden", one.hidden), ("weight", one.weight), ("bias", one.bias))
    }
    exact = {name: value if value is None else value.double().requires_grad_() for name, value in rounded.items()}
    leaves = {name: value if value is None else value.requires_grad_() for name, value in rounded.items()}
    return dataclasses.replace(one, **leaves), dataclasses.replace(one, **exact)


def assert_agrees(one, *, dtype=torch.float32, chosen=((0,), (1,), (2,), (0, 1, 2))):
    mine, exact = in_float32(one, dtype)
    got, want = mine.stats(backend="triton"), exact.oracle()
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=3e-5)
    ups = upstream(one)
    for some in chosen:
        a = torch.autograd.grad(pulled(got, [up.float() for up in ups], some), mine.leaves, retain_graph=True)
        b = torch.autograd.grad(pulled(want, ups, some), exact.leaves, retain_graph=True)
        for x, y, leaf in zip(a, b, mine.leaves, strict=True):
            assert x.dtype == leaf.dtype
            # The gradient by the logits is rounded to half precision before it is multiplied, as on a GPU.
            rounding = 0.0 if dtype == torch.float32 else torch.finfo(dtype).eps
            torch.testing.assert_close(x.double(), y, rtol=1e-4 + rounding, atol=1e-4 + rounding * y.abs().max().item())


cases = st.builds(
    case,
    rows=st.sampled_from([1, 2, 16, 21]),
    width=st.sampled_from([1, 16, 19, 40]),
    vocabulary=st.sampled_from([1, 2, 32, 33, 131]),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.3, 1.0, 1.7, "per token"]),
    bias=st.booleans(),
    softcap=st.sampled_from([None, 2.0]),
    entropy_tempered=st.booleans(),
    ignored=st.integers(0, 1),
)


@settings(max_examples=40)
@given(cases, st.integers(1, 5), st.sampled_from([1, 10**9]))
def test_values_and_gradients_are_those_of_whole_logits(one, splits, chunk_bytes):
    changed = dataclasses.replace(triton_backend.INTERPRETED, splits=splits)
    with (
        mock.patch.object(triton_backend, "INTERPRETED", changed),
        mock.patch.object(triton_backend, "CHUNK_BYTES", chunk_bytes),
    ):
        assert_agrees(one)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_operands_are_multiplied_exactly(dtype):
    assert_agrees(case(rows=9, width=24, vocabulary=70, bias=True), dtype=dtype, chosen=((0, 1, 2),))


@pytest.mark.parametrize("names", [names for names in MIXED if "64" not in names])
def test_operands_of_two_dtypes_are_multiplied_exactly(names):
    hidden, weight = (getattr(torch, name) for name in names.split())
    one = case(rows=6, width=32, vocabulary=50)
    mixed = dataclasses.replace(one, hidden=one.hidden.detach().to(hidden), weight=one.weight.detach().to(weight))
    exact = dataclasses.replace(mixed, hidden=mixed.hidden.double(), weight=mixed.weight.double())
    for a, b in zip(mixed.stats(backend="triton"), exact.oracle(), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("width", [64, 8192])
def test_narrow_and_wide_hidden_states(width):
    one, exact = in_float32(case(rows=3, width=width, vocabulary=45))
    scaled = dataclasses.replace(one, hidden=one.hidden.detach() / math.sqrt(width))
    exact = dataclasses.replace(exact, hidden=scaled.hidden.double())
    for a, b in zip(scaled.stats(backend="triton"), exact.oracle(), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=3e-5)


def test_bf16_operands_of_a_real_vocabulary_are_within_5e_5_of_float64():
    hidden, weight, labels, want = realistic()
    # Large tiles, since the interpreter's time goes by their number.
    tile = dataclasses.replace(triton_backend.INTERPRETED.statistics, columns=4096, width=128)
    changed = dataclasses.replace(triton_backend.INTERPRETED, statistics=tile, splits=8)
    with mock.patch.object(triton_backend, "INTERPRETED", changed):
        got = linear_token_stats(hidden, weight, labels, 0.6, backend="triton")
    for a, b in zip(got, want, strict=True):
        assert (a.double() - b).abs().max() < 5e-5


@settings(max_examples=25)
@given(cases)
def test_the_policy_loss_is_that_of_whole_logits_with_its_gradients(one):
    mine, exact = in_float32(one)
    ups = upstream(one)

    def token_loss(ups):
        # Curved in each statistic, so that a slope taken at another value shows.
        return lambda stats, rows: (
            ups[0][rows] * stats.logp.exp() + ups[1][rows] * stats.logp_t.exp() + ups[2][rows] * stats.entropy
        )

    everyone = torch.arange(len(one.labels))
    loss, stats = linear_policy_loss(
        mine.hidden, mine.weight, mine.labels, token_loss([up.float() for up in ups]), backend="triton", **mine.options
    )
    want = (token_loss(ups)(exact.oracle(), everyone) * (one.labels != -100)).sum()
    torch.testing.assert_close(loss.double(), want, rtol=1e-5, atol=1e-4)
    for a, b in zip(stats, exact.oracle(), strict=True):
        torch.testing.assert_close(a.double(), b.detach(), rtol=1e-5, atol=3e-5)
        assert not a.requires_grad
    a, b = (torch.autograd.grad(-3 * x, leaves) for x, leaves in ((loss, mine.leaves), (want, exact.leaves)))
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-4, atol=3e-4)


def test_only_what_is_needed_is_given():
    one, exact = in_float32(case(rows=3, vocabulary=40))
    for need in (["logp"], ["logp_t"], ["entropy"]):
        got = one.stats(need=need, backend="triton")
        assert [name for name in got._fields if getattr(got, name) is not None] == need
        want = getattr(exact.oracle(), need[0])
        torch.testing.assert_close(getattr(got, need[0]).double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", [-300.0, 300.0])
def test_equal_logits_of_any_size_are_the_uniform_distribution(level):
    stats = linear_token_stats(
        torch.ones(2, 1), torch.full((45, 1), level), torch.tensor([0, 44]), 0.5, backend="triton"
    )
    for value, want in zip(stats, (-math.log(45), -math.log(45), math.log(45)), strict=True):
        torch.testing.assert_close(value, torch.full((2,), want), rtol=1e-5, atol=1e-5)


def test_an_impossible_token_and_a_nan_stay_where_they_are():
    one, _ = in_float32(case(rows=4, vocabulary=40, bias=True))
    bias = one.bias.detach().clone()
    bias[[1, 39]] = -torch.inf
    labels = torch.tensor([0, 2, 3, 5])
    barred = dataclasses.replace(one, bias=bias.requires_grad_(), labels=labels)
    for a, b in zip(barred.stats(backend="triton"), barred.stats(backend="torch"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    broken = one.hidden.detach().clone()
    broken[2] = math.nan
    for a, b in zip(
        dataclasses.replace(one, hidden=broken).stats(backend="triton"), one.stats(backend="torch"), strict=True
    ):
        assert a[2].isnan()
        torch.testing.assert_close(a[[0, 1, 3]], b[[0, 1, 3]].detach(), rtol=1e-5, atol=1e-5)


def test_views_that_are_not_contiguous_and_no_rows():
    one, _ = in_float32(case(rows=5, vocabulary=40))
    views = dataclasses.replace(
        one,
        hidden=one.hidden.detach().T.contiguous().T,
        weight=one.weight.detach().repeat_interleave(2, 0)[::2],
        labels=torch.stack([one.labels, one.labels.flip(0)], 1)[:, 0],
    )
    for a, b in zip(views.stats(backend="triton"), one.stats(backend="torch"), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-5, atol=1e-5)
    hidden = torch.zeros(0, 5, requires_grad=True)
    stats = linear_token_stats(hidden, one.weight, torch.zeros(0, dtype=torch.int64), backend="triton")
    stats.logp.sum().backward()
    assert [x.shape for x in (*stats, hidden.grad)] == [(0,)] * 3 + [(0, 5)]


def test_two_processes_with_a_part_of_the_vocabulary_each_agree_with_whole_logits(tmp_path):
    options = {
        "rows": 17, "width": 19, "vocabulary": 83, "bias": True, "temperature": "per token", "ignored": 1,
        "softcap": 3.0,
    }  # fmt: skip
    close, close_gradients = {"rtol": 1e-5, "atol": 3e-5}, {"rtol": 1e-4, "atol": 1e-4}
    # 30 columns are no multiple of a tile, so that the first part's last tile reaches into the second part.
    arguments = (2, str(tmp_path), options, [0, 30, 83], torch.float32, "triton", close, close_gradients)
    mp.spawn(split_over, args=arguments, nprocs=2)
    assert sorted(p.name for p in tmp_path.glob("agrees_*")) == ["agrees_0", "agrees_1"]


def test_equal_calls_give_equal_bits():
    one, _ = in_float32(case(rows=21, vocabulary=131))

    def once():
        stats = one.stats(backend="triton")
        return [*stats, *torch.autograd.grad(pulled(stats, [up.float() for up in upstream(one)]), one.leaves)]

    assert all(torch.equal(a, b) for a, b in zip(once(), once(), strict=True))


def test_auto_takes_torch_on_a_cpu_and_what_cannot_run_is_refused_by_name(monkeypatch):
    value = torch.zeros(1, 1)
    assert backends.chosen("auto", value) is torch_backend, "the interpreter is for tests only"
    assert backends.chosen("triton", value) is triton_backend
    with pytest.raises(ValueError, match="backend 'triton' cannot run here: float64 is not its dtype; use 'torch'"):
        backends.chosen("triton", value.double())
    monkeypatch.delenv("TRITON_INTERPRET")
    with pytest.raises(ValueError, match="backend 'triton' cannot run here: tensors are on cpu"):
        backends.chosen("triton", value)
    with pytest.raises(ValueError, match="backend must be one of auto, torch, triton, got 'cuda'"):
        backends.chosen("cuda", value)


def test_the_interpreters_oracle_is_the_one_of_the_other_tests():
    # by_logits is what `oracle` calls; a change of it must be seen here as well.
    z = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64)
    logp, logp_t, entropy = by_logits(z, torch.tensor([1]), 2.0)
    assert logp.exp().item() == pytest.approx(0.75)
    assert logp_t.exp().item() == pytest.approx(math.sqrt(3) / (1 + math.sqrt(3)))
    assert entropy.item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
