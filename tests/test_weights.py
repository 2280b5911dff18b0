"""Reductions: where every normaliser becomes a weight. Letters as in `aepo.batch`."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import EPS, assert_close, double, run_shapes

from aepo.weights import sequence_mean, token_mean

# Fewer than 100 weights of at most 1 are summed, each rounded a few times.
ROUNDING = 400 * EPS
reductions = pytest.mark.parametrize("reduction", [sequence_mean, token_mean])


@st.composite
def masks(draw, min_length: int = 0):
    """A ragged mask (..., R, T), any dead rows, and row weights that may be 0."""
    runs, rows, length = draw(run_shapes), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    lengths = draw(hnp.arrays(np.int64, (*runs, rows), elements=st.integers(min_length, length)))
    counts = draw(hnp.arrays(np.int64, (*runs, rows), elements=st.integers(0, 4)))
    return double(np.arange(length) < lengths[..., None]), double(counts / (4 * rows))


@given(masks())
def test_sequence_mean_gives_each_response_its_rows_weight_in_equal_parts(case):
    mask, row_weight = case
    weight = sequence_mean(mask, row_weight)
    filled = mask.sum(-1) > 0
    assert_close(weight.sum(-1), row_weight * filled, atol=ROUNDING)
    most = weight.amax(-1, keepdim=True)
    assert torch.equal(weight, most * mask)


@given(masks())
def test_token_mean_weights_sum_to_one_if_any_token_counts(case):
    mask, row_weight = case
    total = token_mean(mask, row_weight).sum((-2, -1))
    counts = (mask * row_weight.unsqueeze(-1) > 0).any(-1).any(-1)
    assert_close(total, counts.double(), atol=ROUNDING)


@given(masks())
def test_token_mean_of_equal_rows_is_the_plain_mean_over_all_tokens(case):
    mask, _ = case
    values = torch.arange(mask.numel(), dtype=torch.float64).reshape(mask.shape).sin()
    weight = token_mean(mask, torch.full(mask.shape[:-1], 0.125, dtype=torch.float64))
    got = (weight * values).sum((-2, -1)).flatten()
    for i, (run_mask, run_values) in enumerate(
        zip(mask.reshape(-1, *mask.shape[-2:]), values.reshape(-1, *mask.shape[-2:]), strict=True)
    ):
        chosen = run_values[run_mask.bool()]
        assert_close(got[i], chosen.mean() if len(chosen) else 0.0, atol=ROUNDING)


@given(masks(), st.sampled_from([0.25, 3.0, 1e6]))
def test_token_mean_sees_only_the_ratios_of_row_weights(case, scale):
    mask, row_weight = case
    assert_close(token_mean(mask, scale * row_weight), token_mean(mask, row_weight), atol=ROUNDING)


@given(masks(min_length=1))
def test_the_two_means_agree_where_all_responses_are_equally_long(case):
    mask, row_weight = case
    full = torch.ones_like(mask)
    total = row_weight.sum(-1, keepdim=True)
    normal = row_weight / total.masked_fill(total == 0, 1.0)
    assert_close(token_mean(full, normal), sequence_mean(full, normal), atol=ROUNDING)


@reductions
@given(case=masks())
def test_padding_and_rows_of_weight_zero_weigh_nothing(reduction, case):
    mask, row_weight = case
    weight = reduction(mask, row_weight)
    assert (weight[mask == 0] == 0).all()
    assert (weight[row_weight == 0] == 0).all()
    assert (weight[(mask * row_weight.unsqueeze(-1)) > 0] > 0).all()


@reductions
@given(case=masks(), columns=st.integers(1, 3), rows=st.integers(0, 2))
def test_more_padding_changes_no_weight(reduction, case, columns, rows):
    mask, row_weight = case
    wide = torch.nn.functional.pad(mask, (0, columns, 0, rows))
    got = reduction(wide, torch.nn.functional.pad(row_weight, (0, rows), value=0.5))
    # Dead rows may carry a row weight: they hold no token, so they count nowhere.
    assert_close(got[..., : mask.shape[-2], : mask.shape[-1]], reduction(mask, row_weight), atol=ROUNDING)
    assert (got[wide == 0] == 0).all()


def test_the_two_means_by_hand():
    # Lengths 2 and 1, rows 1/2 each. Sequence: 1/2 / 2 each, then 1/2. Token: 1/3 for each of the three
    # tokens.
    mask = double([[1, 1], [1, 0]])
    half = double([0.5, 0.5])
    assert sequence_mean(mask, half).tolist() == [[0.25, 0.25], [0.5, 0.0]]
    assert_close(token_mean(mask, half), [[1 / 3, 1 / 3], [1 / 3, 0]], atol=EPS)
