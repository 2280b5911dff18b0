"""The labelled answers that checkers are measured on: enough of them, balanced, and their labels beyond dispute."""

import doctest
import re
from collections import Counter, defaultdict

import answer_pairs.case
import answers
import pytest
from answer_pairs import KINDS, checkers, pairs

from aepo.llm.grading import Verdict
from aepo.llm.grading.pool import GradingPool

DEFAULT = pairs(0)


def test_there_are_hundreds_of_pairs_and_half_of_each_kind_is_wrong():
    assert len(DEFAULT) >= 1000 and len(KINDS) >= 45
    counts = Counter((pair.kind, pair.right) for pair in DEFAULT)
    for kind in KINDS:
        assert counts[kind, True] == counts[kind, False] >= 4, kind


def test_the_same_seed_gives_the_same_pairs_and_another_one_others():
    assert pairs(0) == DEFAULT
    assert (
        len({(pair.reference, pair.response) for pair in DEFAULT} & {(p.reference, p.response) for p in pairs(1)}) < 50
    )


def test_the_pairs_of_a_kind_do_not_depend_on_the_other_kinds():
    assert pairs(0, kinds=["sets"]) == [pair for pair in DEFAULT if pair.kind == "sets"]


@pytest.mark.parametrize("seed", range(20))
def test_no_response_is_right_and_wrong_for_the_same_reference(seed):
    labels = defaultdict(set)
    for pair in pairs(seed, answers=20):
        labels[pair.reference, re.sub(r"\s", "", pair.response)].add(pair.right)
    assert [found for found, both in labels.items() if len(both) == 2] == []


def test_a_wrong_response_is_made_from_a_right_one_and_says_what_was_changed():
    for pair in DEFAULT:
        if pair.right:
            assert pair.made_from == pair.change == ""
        else:
            assert pair.change and pair.made_from and pair.made_from != pair.response


def test_the_examples_of_the_generators_hold():
    for module in (answer_pairs, answer_pairs.case):
        assert doctest.testmod(module).failed == 0


def test_the_benchmark_counts_what_was_misjudged():
    chosen = pairs(0, values=1, kinds=["sets"])
    assert [pair.right for pair in chosen] == [True, True, False, False]
    # The first right one is refused, the second too late; the first wrong one is rewarded, the other one an error.
    verdicts = [
        Verdict(reward=reward, extracted=None, reason=reason)
        for reward, reason in ((0.0, "0.001"), (0.0, "timeout"), (1.0, "0.003"), (0.0, "error: no"))
    ]
    found = answers.summary(chosen, verdicts)
    assert found == {
        "false_rewards": 1,
        "false_refusals": 2,
        "timeouts": 1,
        "errors": 1,
        "milliseconds": {"median": 2.0, "quantile_95": 2.9, "worst": 3.0},
    }
    given = {"training": verdicts, "evaluation": verdicts}
    assert answers.kinds(chosen, given) == {"sets": {"wrong": 2, "right": 2, "training": [1, 2], "evaluation": [1, 2]}}
    assert [one["misjudged_by"] for one in answers.misses(chosen, given)] == [["training", "evaluation"]] * 3
    assert "| sets | 1 + 2 | 1 + 2 |" in answers.markdown(chosen, given, {name: found for name in given})


# Each listed with its reason in docs/answers.md.
MOST_REFUSALS = 0.02


@pytest.mark.parametrize(
    ("checker", "seed", "values", "number"),
    [
        (checkers.training, 1, 1, 1),
        (checkers.evaluation, 2, 1, 1),
        # A minute each.
        pytest.param(checkers.training, 3, 6, 2, marks=pytest.mark.slow),
        pytest.param(checkers.evaluation, 3, 6, 2, marks=pytest.mark.slow),
    ],
)
def test_no_wrong_answer_is_rewarded_and_hardly_a_right_one_refused(checker, seed, values, number):
    chosen = pairs(seed, values=values, answers=number)
    with GradingPool(checker, workers=1, deadline_seconds=answers.DEADLINE_SECONDS) as pool:
        verdicts = pool.grade([(pair.response, pair.reference) for pair in chosen])
    misjudged = {True: [], False: []}
    for pair, verdict in zip(chosen, verdicts, strict=True):
        if bool(verdict.reward) != pair.right:
            misjudged[pair.right].append((pair.kind, pair.reference, pair.response))
    assert misjudged[False] == []
    assert len(misjudged[True]) <= MOST_REFUSALS * len(chosen) / 2, misjudged[True]
