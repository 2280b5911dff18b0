"""pass@k against exact fractions, against an enumeration of all subsets, and its unbiasedness."""

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aepo.passk import pass_at_k

# Up to 1,024 logarithms are summed: their rounding stays far below the 1e-12 that the estimator promises.
EXACT = 1e-12


@st.composite
def counts(draw):
    samples = draw(st.one_of(st.integers(1, 16), st.sampled_from([256, 1023, 1024])))
    return samples, draw(st.integers(0, samples)), draw(st.integers(1, samples))


def exact(samples: int, correct: int, k: int) -> Fraction:
    return 1 - Fraction(comb(samples - correct, k), comb(samples, k))


@given(counts())
def test_pass_at_k_is_one_minus_the_ratio_of_binomial_coefficients(case):
    samples, correct, k = case
    got = float(pass_at_k(torch.tensor(correct), samples=samples, k=k))
    assert abs(got - float(exact(samples, correct, k))) < EXACT


def test_all_counts_of_a_thousand_samples_are_exact():
    for k in (1, 2, 32, 512, 1023, 1024):
        got = pass_at_k(torch.arange(1025), samples=1024, k=k)
        want = torch.tensor([float(exact(1024, c, k)) for c in range(1025)], dtype=torch.float64)
        assert (got - want).abs().max() < EXACT


def test_a_small_pass_rate_keeps_its_relative_precision():
    # One right of 1,024 at k = 1 is 2^-10: 1 - (1 - x) would lose three digits of it.
    got = float(pass_at_k(torch.tensor(1), samples=1024, k=1))
    assert abs(got * 1024 - 1) < EXACT


@given(
    st.integers(1, 8).flatmap(lambda n: st.tuples(st.lists(st.booleans(), min_size=n, max_size=n), st.integers(1, n)))
)
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(case):
    verdicts, k = case
    subsets = list(combinations(verdicts, k))
    share = sum(any(subset) for subset in subsets) / len(subsets)
    assert abs(float(pass_at_k(torch.tensor(sum(verdicts)), samples=len(verdicts), k=k)) - share) < EXACT


@given(st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))), st.fractions(0, 1))
def test_the_estimate_is_unbiased(case, rate):
    # E over c ~ Binomial(n, p) of the estimate is 1 - (1 - p)^k.
    (samples, k), p = case, rate
    estimate = pass_at_k(torch.arange(samples + 1), samples=samples, k=k).tolist()
    chance = [comb(samples, c) * p**c * (1 - p) ** (samples - c) for c in range(samples + 1)]
    mean = sum(float(w) * e for w, e in zip(chance, estimate, strict=True))
    assert abs(mean - float(1 - (1 - p) ** k)) < EXACT


@given(counts())
def test_more_right_samples_or_a_larger_k_never_lower_pass_at_k(case):
    samples, _, k = case
    by_count = pass_at_k(torch.arange(samples + 1), samples=samples, k=k)
    assert (by_count.diff() >= -EXACT).all() and by_count[0] == 0 and by_count[-1] == 1
    if k < samples:
        assert (pass_at_k(torch.arange(samples + 1), samples=samples, k=k + 1) >= by_count - EXACT).all()


@pytest.mark.parametrize("k", [0, 5, -1])
def test_a_k_that_cannot_be_drawn_is_refused(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, samples=4\], got {k}"):
        pass_at_k(torch.tensor([1]), samples=4, k=k)


@pytest.mark.parametrize("count", [-1, 5])
def test_a_count_that_no_n_samples_can_give_is_refused(count):
    with pytest.raises(ValueError, match=rf"correct must be in \[0, samples=4\], got {count}"):
        pass_at_k(torch.tensor([2, count]), samples=4, k=1)
