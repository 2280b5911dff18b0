"""What a reward function may be, take and return; several of them; and which one says what is right."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aepo.llm.grading import Verdict
from aepo.llm.grading.pool import GradingPool
from aepo.llm.grading.rewards import (
    DEFAULT,
    RewardSum,
    as_number,
    chosen_reward,
    described_function,
    functions_of,
    judged,
    load_reward,
    names_of_parts,
    unhurried_math_reward,
    weighed,
)

CASES = "reward_cases"


@pytest.fixture(autouse=True)
def importable(monkeypatch, request):
    monkeypatch.syspath_prepend(request.path.parent)


NUMBERS = [
    True, 1, 1.0, Fraction(1, 1), Decimal("1.0"), np.bool_(True), np.float16(1), np.float32(1), np.int8(1),
    np.uint64(1), np.array(1.0), np.array([1.0]), np.array([[True]]), torch.tensor(1.0), torch.tensor(True),
    torch.tensor([1]), torch.tensor(1.0, dtype=torch.bfloat16), torch.tensor(1.0, requires_grad=True),
]  # fmt: skip


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_a_number_of_any_library_counts(number):
    assert as_number(number) == 1.0 and type(as_number(number)) is float
    verdict = judged(lambda response, answer: number, "", "")
    assert verdict == Verdict(reward=1.0, extracted=None, reason="custom")
    as_verdict = judged(lambda response, answer: Verdict(reward=number, extracted="7", reason="exact"), "", "")
    assert as_verdict == Verdict(reward=1.0, extracted="7", reason="exact")


@pytest.mark.parametrize(
    "value",
    [
        None, "1", b"1", np.str_("1"), [1.0], (1.0,), {}, 1j, np.complex64(1), torch.tensor(1j), float("nan"),
        float("inf"), np.float32("nan"), Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), 10**400, np.array([]),
        np.array([1.0, 2.0]), torch.tensor([1.0, 1.0]), torch.tensor([]), torch.tensor(float("nan")), object(),
        np.datetime64("2020-01-01"),
    ],
    ids=lambda value: type(value).__name__,  # What an object shows holds its address.
)  # fmt: skip
def test_what_is_no_number_is_an_error_of_the_item(value):
    verdict = judged(lambda response, answer: value, "", "")
    assert verdict.reward == 0 and verdict.reason.startswith("error: ")


@given(
    st.lists(
        st.tuples(st.floats(-5, 5, width=16), st.sampled_from(["a:f", "b.c:g", "d:h.i"])),
        min_size=1,
        unique_by=lambda t: t[1],
    )
)
def test_a_setting_of_several_is_read_whatever_the_blanks(terms):
    assert weighed(" , ".join(f" {weight!r} * {name} " for weight, name in terms)) == terms
    assert weighed(",".join(name for _, name in terms)) == [(1.0, name) for _, name in terms]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a name is missing"),
        ("a:f,", "a name is missing"),
        ("2*", "a name is missing"),
        ("x*a:f", "the weight of 'a:f' must be a finite number, got 'x'"),
        ("nan*a:f", "must be a finite number"),
        ("*a:f", "must be a finite number, got ''"),
        ("a:f, 2*a:f", "'a:f' is there twice"),
        (f"{CASES}:two, b", "named as 'package.module:function', got 'b'"),
        (f"2*3*{CASES}:two", r"importing '3\*reward_cases' failed"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named(text, said):
    with pytest.raises(ValueError, match=said):
        chosen_reward(text)


def test_one_function_of_two_parameters_is_itself_and_nothing_is_added():
    assert chosen_reward(None) is unhurried_math_reward
    assert chosen_reward(None, right=DEFAULT) is unhurried_math_reward
    assert chosen_reward(f"{CASES}:two") is load_reward(f"{CASES}:two")
    assert names_of_parts(chosen_reward(f"{CASES}:two")) == ()
    verdict = judged(chosen_reward(f"{CASES}:two"), "a", "a")
    assert (verdict.parts, verdict.right_by, verdict.right) == ((), None, True)


@pytest.mark.parametrize(
    ("function", "row", "reward"),
    [
        ("by_level", {"level": 3}, 3.0),
        ("by_level", {"level": 3, "scale": 2, "other": 1}, 6.0),
        ("keyword_only", {"level": 3}, 3.0),
        ("every", {"level": 3, "question": "?", "answer": "a", "response": "r"}, 1.0),
        ("own_name", {"question": "?", "answer": "a"}, 1.0),
        ("places_only", {"answer": "a"}, 1.0),
        ("judge", {"level": 3}, 6.0),
        ("judge", {}, 0.0),
        ("any_place", {"level": 3}, 2.0),
        ("two", {"level": 3}, 0.0),
    ],
)
def test_a_function_is_given_the_columns_that_it_takes(function, row, reward):
    verdict = judged(described_function(function, load_reward(f"{CASES}:{function}")), "r", "a", row)
    assert (verdict.reward, verdict.reason) == (reward, "custom")


def test_a_function_that_cannot_be_called_so_is_refused_by_its_signature():
    for name, said in (
        ("one", "takes \\(response\\)"),
        ("verl_batch", "takes \\(\\*\\*kwargs\\)"),
        ("hidden", "behind the '/'"),
    ):
        with pytest.raises(ValueError, match=said):
            chosen_reward(f"{CASES}:{name}")
    # Of C, without a signature.
    assert not described_function("max", max).takes_columns


def test_several_add_up_and_the_first_says_what_is_right():
    chosen = chosen_reward(f"{CASES}:two, 0.2*{CASES}:form")
    assert isinstance(chosen, RewardSum) and names_of_parts(chosen) == (f"{CASES}:two", f"{CASES}:form")
    # Right in good form; wrong in good form, which is no right answer; right in bad form; wrong in bad form.
    table = [("<a", "<a", 1.2, True), ("<b", "a", 0.2, False), ("a", "a", 0.8, True), ("b", "a", -0.2, False)]
    for response, answer, reward, right in table:
        verdict = judged(chosen, response, answer)
        assert verdict.reward == pytest.approx(reward) and verdict.right is right
        assert verdict.parts == (float(right), 1.0 if response[0] == "<" else -1.0)


def test_another_function_may_say_what_is_right_and_one_that_is_not_in_the_sum_has_no_weight():
    chosen = chosen_reward(f"{CASES}:form", right=f" {CASES}:two")
    verdict = judged(chosen, "<b", "a")
    assert (verdict.reward, verdict.right, verdict.parts) == (1.0, False, (1.0, 0.0))
    second = chosen_reward(f"{CASES}:form, 2*{CASES}:two", right=f"{CASES}:two")
    assert judged(second, "a", "a").right and judged(second, "a", "a").reward == 1.0
    with_math = chosen_reward(None, right=f"{CASES}:two")
    assert names_of_parts(with_math) == (DEFAULT, f"{CASES}:two")
    verdict = judged(with_math, "#### 4", "4")
    assert (verdict.reward, verdict.right) == (1.0, False)
    # What the default would say, in a sum too.
    beside = judged(chosen_reward(f"{DEFAULT}, {CASES}:form"), "#### 4", "4")
    assert (beside.reward, beside.extracted, beside.reason, beside.right) == (0.0, "4", "exact", True)


def test_a_weight_alone_does_not_change_what_is_right():
    assert judged(chosen_reward(f"-1*{CASES}:two"), "a", "a").right
    assert judged(chosen_reward(f"-1*{CASES}:two"), "a", "a").reward == -1.0


def test_one_of_several_that_fails_makes_the_whole_an_error_that_names_it():
    verdict = judged(chosen_reward(f"{CASES}:two, {CASES}:broken"), "a", "a")
    assert (verdict.reward, verdict.parts, verdict.right) == (0.0, (), False)
    assert verdict.reason == f"error: LookupError: no judge here (in {CASES}:broken)"


def test_a_reason_can_always_be_written_to_a_file():
    def lone(response, answer):
        return Verdict(reward=1.0, extracted="\ud800", reason="\udfff")

    verdict = judged(lone, "", "")
    assert (verdict.extracted, verdict.reason) == ("?", "?")


def test_workers_are_given_columns_and_send_every_part_back():
    chosen = chosen_reward(f"{CASES}:numpy_truth, 0.5*{CASES}:by_level, {CASES}:every")
    with GradingPool(chosen, workers=1, deadline_seconds=20.0) as pool:
        row = {"level": 3, "question": "?"}
        verdicts = pool.grade([("a", "a", row), ("b", "a", {"level": 1}), ("b", "a")])
    assert [(v.reward, v.parts, v.right) for v in verdicts[:2]] == [
        (3.5, (1.0, 3.0, 1.0), True),
        (0.5, (0.0, 1.0, 0.0), False),
    ]
    assert verdicts[2].reason.startswith("error: TypeError: by_level() missing")
    assert all(one.name.startswith(CASES) for one in functions_of(chosen))
