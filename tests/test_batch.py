"""Rollouts and Batch: what they refuse at birth, what their means are, and how a batch is split."""

import dataclasses
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import EPS, assert_close, batches, double, rollouts, seeds

from aepo.batch import Batch, Rollouts, minibatches

# Sums of fewer than 100 terms of order 1.
ROUNDING = 400 * EPS


def a_rollouts(**changes) -> Rollouts:
    zeros = torch.zeros(4, 3, dtype=torch.float64)
    fields = {
        "prompt": torch.tensor([0, 0, 1, 1]),
        "token": zeros.long(),
        "mask": zeros + 1,
        "reward": double([1, 0, 0, 0]),
        "group_size": 2,
    }
    return Rollouts(**(fields | changes))


def a_batch(**changes) -> Batch:
    zeros = torch.zeros(4, 3, dtype=torch.float64)
    names = ("mask", "old_logp", "advantage", "weight", "entropy_weight")
    fields = {name: zeros for name in names} | {
        "prompt": torch.tensor([0, 0, 1, 1]),
        "token": zeros.long(),
        "group_size": 2,
    }
    return Batch(**(fields | changes))


@pytest.mark.parametrize("field", ["prompt", "mask", "reward", "share", "old_logp", "entropy", "engine_logp"])
def test_rollouts_of_a_wrong_shape_are_refused_by_the_fields_name(field):
    with pytest.raises(ValueError, match=rf"Rollouts\.{field} must have shape .* = \(4.*got \(5, 7\)"):
        a_rollouts(**{field: torch.zeros(5, 7)})


@pytest.mark.parametrize("field", ["prompt", "mask", "old_logp", "advantage", "weight", "entropy_weight"])
def test_a_batch_of_a_wrong_shape_is_refused_by_the_fields_name(field):
    with pytest.raises(ValueError, match=rf"Batch\.{field} must have shape .* = \(4.*got \(5, 7\)"):
        a_batch(**{field: torch.zeros(5, 7)})


@pytest.mark.parametrize("group_size", [0, 3, -2])
def test_a_group_size_that_does_not_divide_the_rows_is_refused(group_size):
    with pytest.raises(ValueError, match=rf"group_size must divide the 4 rows, got {group_size}"):
        a_rollouts(group_size=group_size)


def test_changed_rollouts_are_checked_again():
    with pytest.raises(ValueError, match=r"Rollouts\.old_logp"):
        a_rollouts().replace(old_logp=torch.zeros(4, 2))


def test_values_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_rollouts().reward = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_batch().weight = None


def test_the_entropy_of_unscored_rollouts_is_refused():
    with pytest.raises(ValueError, match=r"Rollouts\.entropy is missing"):
        a_rollouts().mean_entropy()


def shared(rows: Rollouts, seed: int) -> Rollouts:
    """The rollouts under an exact expectation: each group's shares are random and sum to 1."""
    generator = torch.Generator().manual_seed(seed)
    raw = torch.rand(rows.reward.shape, generator=generator, dtype=torch.float64) + 0.01
    grouped = raw.unflatten(-1, (-1, rows.group_size))
    return rows.replace(share=(grouped / grouped.sum(-1, keepdim=True)).flatten(-2))


def row_share(rows: Rollouts, run: int, row: int) -> float:
    return 1 / rows.group_size if rows.share is None else float(rows.share.reshape(-1, rows.share.shape[-1])[run, row])


@given(rollouts(), seeds, st.booleans())
def test_the_row_weights_sum_to_one(rows, seed, exact):
    rows = shared(rows, seed) if exact else rows
    total = rows.row_weight.sum(-1)
    assert_close(total, torch.ones_like(total), atol=ROUNDING)


@given(rollouts(), seeds, st.booleans())
def test_mean_entropy_and_reward_are_means_over_prompts_of_group_expectations(rows, seed, exact):
    rows = shared(rows, seed) if exact else rows
    prompts = rows.reward.shape[-1] // rows.group_size
    entropy = rows.entropy.reshape(-1, *rows.token.shape[-2:]).tolist()
    mask = rows.mask.reshape(-1, *rows.token.shape[-2:]).tolist()
    reward = rows.reward.reshape(-1, rows.reward.shape[-1]).tolist()
    for run in range(len(reward)):
        mean_h = mean_r = 0.0
        for row in range(len(reward[run])):
            on = [h for h, m in zip(entropy[run][row], mask[run][row], strict=True) if m]
            share = row_share(rows, run, row) / prompts
            mean_h += share * (sum(on) / len(on) if on else 0.0)
            mean_r += share * reward[run][row]
        assert_close(rows.mean_entropy().flatten()[run], mean_h, atol=ROUNDING)
        assert_close(rows.mean_reward().flatten()[run], mean_r, atol=ROUNDING)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 7.0])
@given(rows=rollouts())
def test_padding_never_reaches_the_mean_entropy(poison, rows):
    dirty = rows.replace(entropy=rows.entropy.masked_fill(rows.mask == 0, poison))
    assert torch.equal(dirty.mean_entropy(), rows.mean_entropy())


def test_the_mean_entropy_by_hand():
    # Row 1: (1 + 2) / 2; row 2: 4. Their mean is 2.75; the mean over tokens would be 7/3.
    rows = Rollouts(
        prompt=torch.tensor([0, 0]),
        token=torch.zeros(2, 2, dtype=torch.int64),
        mask=double([[1, 1], [1, 0]]),
        reward=double([0, 1]),
        group_size=2,
        entropy=double([[1, 2], [4, 9]]),
    )
    assert rows.mean_entropy().item() == 2.75
    assert rows.replace(share=double([0.75, 0.25])).mean_entropy().item() == 0.75 * 1.5 + 0.25 * 4


@given(batches(), seeds)
def test_rows_selects_the_same_rows_of_every_field(batch, seed):
    index = torch.randint(batch.prompt.shape[-1], (3,), generator=torch.Generator().manual_seed(seed))
    part = batch.rows(index)
    for field in dataclasses.fields(Batch):
        whole, picked = getattr(batch, field.name), getattr(part, field.name)
        if not isinstance(whole, torch.Tensor):
            assert whole == picked
            continue
        axis = batch.prompt.dim() - 1
        for position, row in enumerate(index.tolist()):
            assert torch.equal(picked.select(axis, position), whole.select(axis, row)), field.name


@given(batches(), st.sampled_from([0.5, 3.0]))
def test_scaling_multiplies_both_weights_and_nothing_else(batch, factor):
    scaled = batch.scaled(factor)
    for field in dataclasses.fields(Batch):
        before, after = getattr(batch, field.name), getattr(scaled, field.name)
        if field.name in ("weight", "entropy_weight"):
            before = before * factor
        assert torch.equal(before, after) if isinstance(before, torch.Tensor) else before == after


@given(batches(min_rows=4), st.integers(1, 4))
def test_minibatches_deal_every_row_once_and_weigh_it_count_times(batch, count):
    total = batch.prompt.shape[-1]
    numbered = dataclasses.replace(batch, prompt=torch.arange(total).expand(batch.prompt.shape))
    parts = list(minibatches(numbered, count))
    dealt = [part.prompt[(0,) * (part.prompt.dim() - 1)].tolist() for part in parts]
    assert len(parts) == count
    assert sorted(chain.from_iterable(dealt)) == list(range(total))
    for part, rows in zip(parts, dealt, strict=True):
        assert torch.equal(part.weight, count * batch.rows(torch.tensor(rows, dtype=torch.int64)).weight)
        assert torch.equal(
            part.entropy_weight, count * batch.rows(torch.tensor(rows, dtype=torch.int64)).entropy_weight
        )


@given(batches(min_rows=4), st.integers(1, 4))
def test_minibatches_keep_groups_whole_where_there_are_enough(batch, count):
    total, g = batch.prompt.shape[-1], batch.group_size
    parts = list(minibatches(batch, count))
    unit = g if total >= count * g else 1
    sizes = [part.prompt.shape[-1] for part in parts]
    assert max(sizes) - min(sizes) <= unit
    if unit == g:
        prompts = [set(part.prompt.flatten().tolist()) for part in parts]
        assert sum(len(p) for p in prompts) == len(set.union(*prompts)), "no prompt is in two parts"


def test_a_count_of_minibatches_that_leaves_a_part_without_rows_is_refused():
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        next(minibatches(a_batch(), 0))
    rows = a_batch().prompt.shape[-1]
    assert len(list(minibatches(a_batch(), rows))) == rows
    with pytest.raises(ValueError, match=f"count must be at most the {rows} rows of the batch, got {rows + 1}"):
        next(minibatches(a_batch(), rows + 1))


@given(batches())
def test_live_rows_are_those_with_a_token_that_counts(batch):
    mark = torch.zeros_like(batch.mask) if batch.mark is None else batch.mark.double()
    flat = [
        value.reshape(-1, *batch.token.shape[-2:]).tolist()
        for value in (batch.weight, batch.advantage, batch.entropy_weight, mark)
    ]
    want = [
        [
            any(w * a != 0 or e != 0 or w * m != 0 for w, a, e, m in zip(*tokens, strict=True))
            for tokens in zip(*run, strict=True)
        ]
        for run in zip(*flat, strict=True)
    ]
    assert batch.live.reshape(-1, batch.prompt.shape[-1]).tolist() == want


def test_a_row_without_advantage_is_live_where_a_token_is_marked():
    # KL-Cov's penalty does not ask for the advantage.
    mark = torch.zeros(4, 3, dtype=torch.bool)
    mark[1, 2] = mark[2, 0] = True
    weight = torch.ones(4, 3)
    weight[2] = 0.0
    assert a_batch(weight=weight, mark=mark).live.tolist() == [False, True, False, False]


def test_one_of_two_minibatches_weighs_twice_by_hand():
    batch = a_batch(weight=torch.ones(4, 3), entropy_weight=torch.full((4, 3), 0.25))
    for part, prompt in zip(minibatches(batch, 2), ([0, 0], [1, 1]), strict=True):
        assert part.prompt.tolist() == prompt
        assert part.weight.unique().tolist() == [2.0] and part.entropy_weight.unique().tolist() == [0.5]


@pytest.mark.parametrize("shape", [(), (4,)])
def test_tokens_without_rows_are_refused(shape):
    token = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"Batch.token must have shape \(..., R, T\)"):
        dataclasses.replace(a_batch(), token=token)
    with pytest.raises(ValueError, match=r"Rollouts.token must have shape \(..., R, T\)"):
        Rollouts(prompt=token, token=token, mask=token, reward=token, group_size=1)
