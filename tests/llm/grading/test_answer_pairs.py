"""The labelled answers that checkers are measured on: enough of them, balanced, and their labels beyond dispute."""

import doctest
import re
from collections import Counter, defaultdict

import answer_pairs.case
import pytest
from answer_pairs import KINDS, pairs

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
