"""Estimates against enumeration and exact fractions, intervals and p-values against simulation."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from aepo.llm.evaluation.reporting.estimates import (
    compared,
    interval,
    majority_by_problem,
    pass_by_problem,
    summary,
)


def test_pass_at_k_is_what_enumerating_every_subset_gives():
    for n in range(1, 9):
        for c in range(n + 1):
            right = [i < c for i in range(n)]
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(right, k))
                want = sum(map(any, subsets)) / len(subsets)
                assert pass_by_problem([c], samples=n, k=k)[0] == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 64, 512, 1000, 1023, 1024])
def test_pass_at_k_of_1024_samples_loses_no_digit(k):
    counts = [0, 1, 2, 5, 100, 511, 1000, 1023, 1024]
    found = pass_by_problem(counts, samples=1024, k=k)
    for c, got in zip(counts, found, strict=True):
        exact = 1 - Fraction(comb(1024 - c, k), comb(1024, k))
        assert got == pytest.approx(float(exact), abs=1e-12)
    assert (np.diff(found) >= 0).all()


@given(st.lists(st.sampled_from(["1", "2", " 2", "3", None]), min_size=1, max_size=6), st.data())
def test_a_majority_of_all_samples_is_the_most_frequent_answer(answers, data):
    right = [answer is not None and answer.strip() == "2" for answer in answers]
    texts = [a.strip() for a in answers if a is not None]
    want = 0.0
    if texts:
        most = max(texts.count(t) for t in set(texts))
        winners = [t for t in set(texts) if texts.count(t) == most]
        want = winners.count("2") / len(winners)
    assert majority_by_problem(answers, right, k=len(answers)) == pytest.approx(want)
    order = data.draw(st.permutations(range(len(answers))))
    assert majority_by_problem([answers[i] for i in order], [right[i] for i in order], k=len(answers)) == (
        pytest.approx(want)
    )


def test_a_majority_of_one_is_the_share_that_is_right_and_of_more_is_what_enumeration_gives():
    answers, right = ["5", "5", "7", "9", "5", "7"], [True, True, False, False, True, False]
    assert majority_by_problem(answers, right, k=1, votes=20_000) == pytest.approx(0.5, abs=0.02)
    subsets = [majority_by_problem([answers[i] for i in s], [right[i] for i in s], k=3)
               for s in itertools.combinations(range(6), 3)]  # fmt: skip
    assert majority_by_problem(answers, right, k=3, votes=20_000) == pytest.approx(np.mean(subsets), abs=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    draws, problems, samples, a, b = 400, 30, 32, 0.8, 1.6
    covered = 0
    for _ in range(draws):
        accuracy = rng.beta(a, b, size=problems)
        low, high = interval(rng.binomial(samples, accuracy) / samples)
        covered += low <= a / (a + b) <= high
    # Of a true coverage of 0.95 the count is below 365 once in 10,000; a bootstrap of 30 skewed values is known to fall
    # a little short, and 0.92 is where this test draws its line.
    assert stats.binom.cdf(covered, draws, 0.92) > 1e-3, covered / draws
    assert covered / draws < 0.99


def test_p_values_are_uniform_without_a_difference_and_small_with_one():
    rng = np.random.default_rng(1)
    p = []
    for _ in range(150):
        accuracy = rng.beta(1, 1, size=30)
        first, second = (rng.binomial(32, accuracy) / 32 for _ in range(2))
        p.append(compared(first, second).p_value)
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    accuracy = rng.beta(2, 2, size=60)
    better = compared(rng.binomial(32, accuracy) / 32, rng.binomial(32, np.minimum(1, accuracy + 0.15)) / 32)
    assert better.p_value < 0.01 and better.interval[0] > 0 and better.difference == pytest.approx(0.15, abs=0.08)


def test_equal_checkpoints_do_not_differ_and_other_problems_are_refused():
    same = compared([0.1, 0.5, 1.0], [0.1, 0.5, 1.0])
    assert (same.difference, same.p_value) == (0.0, 1.0)
    with pytest.raises(ValueError, match="the same problems, got 3 and 2"):
        compared([0.1, 0.5, 1.0], [0.1, 0.5])
    assert interval([0.25] * 10) == (0.25, 0.25)
    with pytest.raises(ValueError, match="at least one problem"):
        interval([])


def frame(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "benchmark": benchmark, "problem": problem, "mode": "pass@k", "sample": sample, "reward": reward,
                "extracted": extracted, "reason": reason, "response_tokens": tokens, "ended": tokens < 10,
                "mean_entropy": entropy,
            }
            for benchmark, problem, sample, reward, extracted, reason, tokens, entropy in rows
        ]
    )  # fmt: skip


def test_a_summary_by_hand():
    found = summary(
        frame(
            [
                ("amc23", 0, 0, 1.0, "27", "exact", 4, 0.5),
                ("amc23", 0, 1, 0.0, "28", "wrong", 10, 1.0),
                ("amc23", 1, 0, 0.0, None, "no answer", 2, 2.0),
                ("amc23", 1, 1, 0.0, "x", "timeout", 4, 0.0),
            ]
        )
    )["amc23"]["pass@k"]
    assert (found["problems"], found["samples"], found["avg"]) == (2, 2, 0.25)
    assert found["pass"] == {"1": 0.25, "2": 0.5}
    assert found["majority"] == {"2": 0.25}
    # Tokens, not responses, are averaged over: (4 x 0.5 + 10 x 1 + 2 x 2 + 4 x 0) / 20.
    assert found["entropy"] == pytest.approx(0.8)
    assert (found["response_tokens"], found["ended"]) == (5.0, 0.75)
    assert (found["timeouts"], found["errors"]) == (1, 0)


def test_a_problem_that_lacks_samples_is_named():
    with pytest.raises(ValueError, match=r"aime24 pass@k: problem 3 has 1 samples, others have 2"):
        summary(frame([("aime24", p, s, 0.0, None, "no answer", 1, 0.0) for p, s in [(2, 0), (2, 1), (3, 0)]]))
