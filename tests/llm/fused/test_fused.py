"""The fused operation against formulas with whole logits, in float64: values, every gradient, and what it refuses."""

import dataclasses
import gc
import math
import weakref
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from fused_cases import F64, MIXED, Largest, by_logits, case, pulled, realistic, upstream
from hypothesis import given
from hypothesis import strategies as st
from split_vocabulary import split_over
from strategies import assert_close
from torch import Tensor

from aepo.llm.fused import TokenStats, linear_policy_loss, linear_token_stats, token_stats_from_logits, torch_backend

# Sums of at most a hundred terms of size 10.
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-11}
TEMPERATURES = (0.3, 0.6, 1.0, 1.7, "per token")


@pytest.fixture(params=[(256, 2048), (3, 4)], ids=["one tile", "ragged tiles"])
def tiles(request, monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_ROWS", request.param[0])
    monkeypatch.setattr(torch_backend, "TILE_COLUMNS", request.param[1])


cases = st.builds(
    case,
    rows=st.integers(1, 8),
    width=st.integers(1, 6),
    vocabulary=st.integers(1, 11),
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from(TEMPERATURES),
    bias=st.booleans(),
    softcap=st.sampled_from([None, 2.0]),
    entropy_tempered=st.booleans(),
    ignored=st.integers(0, 2),
)


# -- values and gradients --


@given(cases, st.sampled_from([(1, 1), (2, 3), (4, 4), (256, 2048)]), st.sampled_from([(0,), (1,), (2,), (0, 1, 2)]))
def test_values_and_gradients_are_those_of_whole_logits(one, tile, chosen):
    before = torch_backend.TILE_ROWS, torch_backend.TILE_COLUMNS
    torch_backend.TILE_ROWS, torch_backend.TILE_COLUMNS = tile
    try:
        got, want, ups = one.stats(), one.oracle(), upstream(one)
        for mine, theirs in zip(got, want, strict=True):
            assert_close(mine, theirs, **CLOSE)
        mine, theirs = (torch.autograd.grad(pulled(s, ups, chosen), one.leaves) for s in (got, want))
        for a, b in zip(mine, theirs, strict=True):
            assert_close(a, b, **CLOSE)
    finally:
        torch_backend.TILE_ROWS, torch_backend.TILE_COLUMNS = before


@given(cases, st.sampled_from([1, 100, 300, 10**9]))
def test_the_policy_loss_is_that_of_whole_logits_with_its_gradients(one, block_bytes):
    ups = upstream(one)

    def token_loss(stats: TokenStats, rows: Tensor) -> Tensor:
        # Curved in each statistic, so that a slope taken at another value shows.
        return ups[0][rows] * stats.logp.exp() + ups[1][rows] * stats.logp_t.square() + ups[2][rows] * stats.entropy

    everyone = torch.arange(len(one.labels))
    want = (token_loss(one.oracle(), everyone) * (one.labels != -100)).sum()
    loss, stats = linear_policy_loss(
        one.hidden, one.weight, one.labels, token_loss, block_bytes=block_bytes, **one.options
    )
    assert_close(loss, want, **CLOSE)
    for mine, theirs in zip(stats, one.oracle(), strict=True):
        assert_close(mine, theirs.detach(), **CLOSE)
        assert not mine.requires_grad
    # The upstream gradient multiplies.
    mine, theirs = (torch.autograd.grad(-3 * x, one.leaves) for x in (loss, want))
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a, b, **CLOSE)


@given(cases)
def test_from_logits_values_and_gradients_are_the_same(one):
    z = (one.hidden @ one.weight.T).detach().requires_grad_()
    got = token_stats_from_logits(z, one.labels, one.temperature, entropy_tempered=one.entropy_tempered)
    want = by_logits(z, one.labels, one.temperature, one.entropy_tempered)
    for mine, theirs in zip(got, want, strict=True):
        assert_close(mine, theirs, **CLOSE)
    ups = upstream(one)
    a, b = (torch.autograd.grad(pulled(s, ups), z)[0] for s in (got, want))
    assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", ["logp", "logp_t", "entropy"])
@pytest.mark.parametrize("entropy_tempered", [False, True])
def test_gradcheck_of_each_statistic_alone(name, temperature, entropy_tempered, tiles):
    one = case(rows=4, temperature=temperature, bias=True, softcap=3.0, entropy_tempered=entropy_tempered)

    def alone(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        changed = dataclasses.replace(one, hidden=hidden, weight=weight, bias=bias)
        return getattr(changed.stats(need=[name]), name)

    assert torch.autograd.gradcheck(alone, one.leaves)


@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2)])
def test_what_is_frozen_gets_no_gradient_and_changes_none(trained, tiles):
    one = case(bias=True, ignored=1)
    whole = torch.autograd.grad(pulled(one.stats(), upstream(one)), one.leaves)
    leaves = [x.detach().requires_grad_(i in trained) for i, x in enumerate(one.leaves)]
    frozen = dataclasses.replace(one, hidden=leaves[0], weight=leaves[1], bias=leaves[2])

    def token_loss(stats, rows):
        return sum(up[rows] * value for up, value in zip(upstream(one), stats, strict=True))

    for loss in (
        pulled(frozen.stats(), upstream(one)),
        linear_policy_loss(leaves[0], leaves[1], one.labels, token_loss, **frozen.options)[0],
    ):
        for leaf in leaves:
            leaf.grad = None
        loss.backward()
        for i, leaf in enumerate(leaves):
            if i in trained:
                assert_close(leaf.grad, whole[i], **CLOSE)
            else:
                assert leaf.grad is None


def test_only_what_is_needed_is_given(tiles):
    one = case()
    whole = one.stats()
    for need in (["logp"], ["entropy"], ["entropy", "logp_t"]):
        got = one.stats(need=need)
        for name in TokenStats._fields:
            if name in need:
                assert_close(getattr(got, name), getattr(whole, name), **CLOSE)
            else:
                assert getattr(got, name) is None


def test_a_graph_that_nobody_used_is_freed_at_once(tiles):
    # An output kept on its own graph would hold the hidden states until the garbage collector came by.
    one = case()
    for make in (
        lambda hidden: linear_token_stats(hidden, one.weight, one.labels, 1.7).logp,
        lambda hidden: token_stats_from_logits(hidden, one.labels.clamp(max=4), 1.7).logp,
        lambda hidden: linear_policy_loss(hidden, one.weight, one.labels, lambda s, rows: s.entropy, 1.7)[0],
    ):
        hidden = one.hidden.detach().clone().requires_grad_()
        held = weakref.ref(hidden)
        gc.disable()
        try:
            made = make(hidden)
            del hidden, made
            assert held() is None
        finally:
            gc.enable()


def test_without_gradients_the_policy_loss_forms_none(tiles):
    one = case()
    with torch.no_grad():
        loss, _ = linear_policy_loss(one.hidden, one.weight, one.labels, lambda s, rows: s.logp, **one.options)
    assert not loss.requires_grad
    assert_close(loss, one.oracle().logp.sum().detach(), **CLOSE)


def test_a_second_backward_pass_through_the_policy_loss_is_refused():
    one = case()
    loss, _ = linear_policy_loss(one.hidden, one.weight, one.labels, lambda s, rows: s.logp, **one.options)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="call it again for a second backward pass"):
        loss.backward()


# -- laws --


@given(cases)
def test_the_entropy_lies_between_zero_and_the_vocabularys_logarithm(one):
    stats = one.stats()
    assert (stats.entropy >= 0).all() and (stats.entropy <= math.log(len(one.weight)) + 1e-12).all()
    assert (stats.logp <= 1e-12).all() and (stats.logp_t <= 1e-12).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from(TEMPERATURES[:-1]))
def test_probabilities_sum_to_one_and_the_expected_score_is_zero(seed, temperature):
    one = case(rows=1, vocabulary=7, seed=seed, temperature=temperature)
    hidden = one.hidden.detach().expand(7, -1).clone().requires_grad_()
    every = linear_token_stats(hidden, one.weight, torch.arange(7), temperature)
    for logp in (every.logp, every.logp_t):
        assert_close(logp.exp().sum(), torch.ones((), dtype=F64), **CLOSE)
        # sum_v p_v d ln p_v = 0.
        score = torch.autograd.grad((logp.exp().detach() * logp).sum(), hidden, retain_graph=True)[0]
        assert_close(score.sum(0), torch.zeros(one.hidden.shape[1], dtype=F64), **CLOSE)


@given(cases, st.floats(-50, 50))
def test_a_shift_of_all_logits_changes_nothing(one, shift):
    plain = dataclasses.replace(one, bias=torch.zeros(len(one.weight), dtype=F64), softcap=None)
    moved = dataclasses.replace(plain, bias=torch.full((len(one.weight),), shift, dtype=F64))
    for a, b in zip(plain.stats(), moved.stats(), strict=True):
        assert_close(a, b, atol=1e-10)


@given(cases, st.integers(0, 100))
def test_a_permutation_of_the_vocabulary_changes_nothing(one, seed):
    order = torch.randperm(len(one.weight), generator=torch.Generator().manual_seed(seed))
    place = order.argsort()
    labels = torch.where(one.labels < 0, one.labels, place[one.labels.clamp(min=0)])
    bias = None if one.bias is None else one.bias[order]
    for a, b in zip(
        one.stats(), dataclasses.replace(one, weight=one.weight[order], labels=labels, bias=bias).stats(), strict=True
    ):
        assert_close(a, b, **CLOSE)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.6, 1.7]))
def test_the_tempered_entropys_slope_by_temperature_is_the_variance_over_t_cubed(seed, t):
    one = case(rows=3, seed=seed, temperature=t, entropy_tempered=True)
    step = 1e-4
    above, below = (one.stats(temperature=t + d).entropy for d in (step, -step))
    z = one.hidden @ one.weight.T
    p = (z / t).softmax(-1)
    variance = (p * z.square()).sum(-1) - (p * z).sum(-1).square()
    # A central difference: third derivatives times step squared.
    assert_close((above - below) / (2 * step), variance / t**3, rtol=1e-3, atol=1e-5)


@given(cases, st.integers(0, 3))
def test_rows_do_not_see_each_other(one, row):
    row %= len(one.labels)
    t = one.temperature[row : row + 1] if isinstance(one.temperature, Tensor) else one.temperature
    alone = dataclasses.replace(one, hidden=one.hidden[row : row + 1], labels=one.labels[row : row + 1], temperature=t)
    for a, b in zip(one.stats(), alone.stats(), strict=True):
        assert_close(a[row : row + 1], b, **CLOSE)


def test_equal_calls_give_equal_bits(tiles):
    def once():
        one = case(rows=40, vocabulary=33, ignored=3)
        stats = one.stats()
        return [*stats, *torch.autograd.grad(pulled(stats, upstream(one)), one.leaves)]

    for a, b in zip(once(), once(), strict=True):
        assert torch.equal(a, b)


# -- edges --


@pytest.mark.parametrize("level", [-300.0, 0.0, 300.0])
def test_equal_logits_of_any_size_are_the_uniform_distribution(level, tiles):
    # In float32, where exp(300) is inf; all ties at the maximum.
    hidden, weight = torch.ones(2, 1), torch.full((11, 1), level)
    stats = linear_token_stats(hidden, weight, torch.tensor([0, 10]), 0.5)
    for value, want in zip(stats, (-math.log(11), -math.log(11), math.log(11)), strict=True):
        torch.testing.assert_close(value, torch.full((2,), want), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("label", [0, 5, 10])
def test_one_dominating_logit_has_entropy_zero_and_finite_gradients(label, tiles):
    hidden = torch.ones(1, 1, requires_grad=True)
    weight = torch.full((11, 1), -300.0)
    weight[label] = 300.0
    weight.requires_grad_()
    stats = linear_token_stats(hidden, weight, torch.tensor([label]), 2.0)
    assert [x.item() for x in stats] == [0.0, 0.0, 0.0]
    gradients = torch.autograd.grad(sum(x.sum() for x in stats), [hidden, weight])
    assert all(g.isfinite().all() and g.abs().max() < 1e-6 for g in gradients)


def test_an_impossible_token_has_probability_zero_and_sends_no_nan(tiles):
    one = case(vocabulary=5, rows=3)
    bias = torch.tensor([0.0, -torch.inf, 0.0, 0.0, -torch.inf], dtype=F64, requires_grad=True)
    barred = dataclasses.replace(one, bias=bias, labels=torch.tensor([0, 2, 3]))
    rest = [0, 2, 3]
    kept = dataclasses.replace(one, weight=one.weight[rest], labels=torch.tensor([0, 1, 2]))
    for a, b in zip(barred.stats(), kept.stats(), strict=True):
        assert_close(a, b, **CLOSE)
    mine = torch.autograd.grad(pulled(barred.stats(), upstream(one)), barred.leaves)
    theirs = torch.autograd.grad(pulled(kept.stats(), upstream(one)), one.leaves)
    assert_close(mine[0], theirs[0], **CLOSE)
    assert_close(mine[1], theirs[1], **CLOSE)
    assert (mine[2][[1, 4]] == 0).all()
    impossible = dataclasses.replace(barred, labels=torch.tensor([1, 1, 4])).stats()
    assert impossible.logp.tolist() == [-math.inf] * 3 and impossible.entropy.isfinite().all()


def test_a_nan_stays_in_its_row(tiles):
    one = case(rows=4)
    broken = one.hidden.detach().clone()
    broken[2] = math.nan
    for a, b in zip(dataclasses.replace(one, hidden=broken).stats(), one.stats(), strict=True):
        assert a[2].isnan()
        assert_close(a[[0, 1, 3]], b[[0, 1, 3]].detach(), **CLOSE)


@pytest.mark.parametrize("rows", [0, 3])
def test_no_rows_and_only_ignored_rows_give_zeros(rows, tiles):
    hidden, weight = torch.randn(rows, 4, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    labels = torch.full((rows,), -100)
    stats = linear_token_stats(hidden, weight, labels, 0.7)
    loss, again = linear_policy_loss(hidden, weight, labels, lambda s, i: s.logp, 0.7)
    for value in (*stats, *again, loss):
        assert value.tolist() == ([0.0] * rows if value.dim() else 0.0)
    for total in (torch.stack([x.sum() for x in stats]).sum(), loss):
        for gradient in torch.autograd.grad(total, [hidden, weight]):
            assert (gradient == 0).all()
    empty = token_stats_from_logits(torch.zeros(rows, 6), labels)
    assert [x.tolist() for x in empty] == [[0.0] * rows] * 3


@pytest.mark.parametrize("width", [64, 8192])
def test_narrow_and_wide_hidden_states(width):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, width, generator=generator) / math.sqrt(width)
    weight, labels = torch.randn(101, width, generator=generator), torch.tensor([0, 50, 100])
    got = linear_token_stats(hidden, weight, labels, 0.6)
    want = by_logits(hidden.double() @ weight.double().T, labels, 0.6)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-5)


def test_views_that_are_not_contiguous_give_the_same(tiles):
    one = case()
    wide = one.hidden.detach().repeat_interleave(2, 0)[::2]
    tall = one.weight.detach().T.contiguous().T
    assert not wide.is_contiguous() and not tall.is_contiguous()
    labels = torch.stack([one.labels, one.labels], 1)[:, 0]
    mine = [wide.requires_grad_(), tall.requires_grad_()]
    other = dataclasses.replace(one, hidden=mine[0], weight=mine[1], labels=labels)
    ups = upstream(one)
    for a, b in zip(other.stats(), one.stats(), strict=True):
        assert_close(a, b, **CLOSE)
    whole = torch.autograd.grad(pulled(one.stats(), ups), one.leaves)
    for a, b in zip(torch.autograd.grad(pulled(other.stats(), ups), mine), whole, strict=True):
        assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("names", MIXED)
def test_mixed_and_half_precision_operands_are_multiplied_exactly(names):
    dtypes = [getattr(torch, name) for name in names.split()]
    one = case(rows=6, width=32, vocabulary=50)
    hidden = one.hidden.detach().to(dtypes[0]).requires_grad_()
    weight = one.weight.detach().to(dtypes[1]).requires_grad_()
    exact = dataclasses.replace(
        one, hidden=hidden.detach().double().requires_grad_(), weight=weight.detach().double().requires_grad_()
    )
    got = linear_token_stats(hidden, weight, one.labels, 1.7)
    for a, b in zip(got, exact.oracle(), strict=True):
        assert a.dtype == (F64 if F64 in dtypes else torch.float32)
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5)
    ups = upstream(one)
    mine = torch.autograd.grad(pulled(got, [up.to(got.logp.dtype) for up in ups]), [hidden, weight])
    theirs = torch.autograd.grad(pulled(exact.oracle(), ups), exact.leaves)
    for a, b, leaf in zip(mine, theirs, (hidden, weight), strict=True):
        assert a.dtype == leaf.dtype
        # Summed in float32 (terms up to 40), then rounded once, to the leaf's own precision.
        torch.testing.assert_close(a.double(), b, rtol=torch.finfo(leaf.dtype).eps, atol=5e-5)


def test_bf16_operands_of_a_real_vocabulary_are_within_5e_5_of_float64():
    hidden, weight, labels, want = realistic()
    got = linear_token_stats(hidden, weight, labels, 0.6)
    for a, b in zip(got, want, strict=True):
        assert (a.double() - b).abs().max() < 5e-5


# -- what is never made --


def test_no_tensor_of_tokens_by_vocabulary_is_made(monkeypatch):
    monkeypatch.setattr(torch_backend, "TILE_ROWS", 8)
    monkeypatch.setattr(torch_backend, "TILE_COLUMNS", 16)
    one = case(rows=64, width=4, vocabulary=512)
    with Largest({one.weight.numel()}) as seen:
        stats = one.stats()
        torch.autograd.grad(pulled(stats, upstream(one)), one.leaves)
    assert seen.elements <= 512
    block = 8 * 512
    with Largest({one.weight.numel()}) as seen:
        loss, _ = linear_policy_loss(
            one.hidden, one.weight, one.labels, lambda s, i: s.logp + s.entropy, block_bytes=8 * block, **one.options
        )
        torch.autograd.grad(loss, one.leaves)
    assert seen.elements <= block
    with Largest(set()) as seen:
        one.oracle()
    assert seen.elements == 64 * 512, "the oracle does make one, so the meter works"


def test_rows_without_a_gradient_cost_no_product(monkeypatch):
    one = case(rows=8)
    seen = []
    real = torch_backend.chunked.logits_gradient

    def counted(z, *args, **kwargs):
        seen.append(len(z))
        return real(z, *args, **kwargs)

    monkeypatch.setattr(torch_backend.chunked, "logits_gradient", counted)
    stats = one.stats()
    (stats.logp[[1, 4, 6]].sum() + stats.entropy[4]).backward()
    assert sum(seen) == 3


# -- a vocabulary split over processes --


def test_two_processes_with_half_a_vocabulary_each_agree_with_one(tmp_path):
    options = {"vocabulary": 11, "bias": True, "temperature": "per token", "ignored": 1, "softcap": 3.0}
    mp.spawn(split_over, args=(2, str(tmp_path), options, [0, 4, 11], F64, "torch", CLOSE, CLOSE), nprocs=2)
    assert sorted(p.name for p in tmp_path.glob("agrees_*")) == ["agrees_0", "agrees_1"]


# -- refusals --


def good() -> dict[str, Any]:
    return {"hidden": torch.zeros(3, 4), "weight": torch.zeros(6, 4), "labels": torch.tensor([0, 5, -100])}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hidden": torch.zeros(3, 5)}, ValueError, r"hidden must be \(N, d\) .* got \(3, 5\) and \(6, 4\)"),
        ({"hidden": torch.zeros(1, 3, 4)}, ValueError, r"hidden must be \(N, d\)"),
        ({"weight": torch.zeros(0, 4)}, ValueError, "with V >= 1"),
        ({"labels": torch.tensor([0, 1])}, ValueError, r"labels must be \(N,\) = \(3,\), got \(2,\)"),
        ({"labels": torch.tensor([0, 6, 1])}, ValueError, r"labels must be in \[0, 6\) or -100 .*, got 6 at row 1"),
        ({"labels": torch.tensor([0, 1, -1])}, ValueError, "got -1 at row 2"),
        ({"labels": torch.zeros(3)}, TypeError, "labels must be int64, got torch.float32"),
        ({"hidden": torch.zeros(3, 4).long()}, TypeError, "hidden must have a floating dtype, got torch.int64"),
        ({"temperature": 0.0}, ValueError, "temperature must be a finite number > 0, got 0.0"),
        ({"temperature": math.nan}, ValueError, "temperature must be a finite number > 0, got nan"),
        ({"temperature": math.inf}, ValueError, "temperature must be a finite number > 0, got inf"),
        ({"temperature": torch.tensor([1.0, -2.0, 1.0])}, ValueError, "temperature must be > 0, got -2 at row 1"),
        ({"temperature": torch.ones(2)}, ValueError, r"temperature must be a number or \(N,\) = \(3,\), got \(2,\)"),
        ({"softcap": 0.0}, ValueError, "softcap must be > 0 or None, got 0.0"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must be \(V,\) = \(6,\), got \(4,\)"),
        ({"need": ["entropie"]}, ValueError, r"need must name some of logp, logp_t, entropy, got \['entropie'\]"),
        ({"need": []}, ValueError, "need must name some of"),
    ],
)
def test_bad_input_is_refused_by_name(changes, error, message):
    linear_token_stats(**good())
    with pytest.raises(error, match=message):
        linear_token_stats(**(good() | changes))
    with pytest.raises(error, match=message):
        linear_policy_loss(token_loss=lambda s, i: s.logp, **(good() | changes))


def test_a_token_loss_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"token_loss must return \(2,\) or a scalar, got \(1, 2\)"):
        linear_policy_loss(**good(), token_loss=lambda s, i: s.logp.unsqueeze(0))
