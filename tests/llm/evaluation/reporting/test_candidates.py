"""A majority vote counts answers, not ways of writing them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aepo.llm.evaluation.reporting.candidates import candidates
from aepo.llm.evaluation.reporting.estimates import majority_by_problem

# Ways of writing a fraction that are all the same answer.
FORMS = (
    lambda f: f"{f.numerator}/{f.denominator}",
    lambda f: rf"\frac{{{f.numerator}}}{{{f.denominator}}}",
    lambda f: rf"\dfrac{{{2 * f.numerator}}}{{{2 * f.denominator}}}",
    lambda f: rf"$\frac{{{f.numerator}}}{{{f.denominator}}}$",
    lambda f: f"{float(f):.9f}",
    lambda f: rf"\text{{{f.numerator} / {f.denominator}}}",
)


def test_forms_of_the_right_answer_are_one_candidate():
    answers = ["0.5", "0.5", r"\frac{1}{2}", r"\frac{1}{2}", "3", "3", "3"]
    assert majority_by_problem(answers, [True] * 4 + [False] * 3, k=7) == 1.0


def test_formulas_that_were_judged_right_are_one_candidate_without_being_compared():
    answers = [r"2\sqrt{3}", r"\sqrt{12}", r"\frac{6}{\sqrt{3}}", "7", "7"]
    assert majority_by_problem(answers, [True] * 3 + [False] * 2, k=5) == 1.0


def test_forms_of_a_wrong_answer_are_one_candidate_too():
    answers = ["1", "1", "0.5", r"\frac12", r"\frac{2}{4}"]
    assert majority_by_problem(answers, [True, True, False, False, False], k=5) == 0.0


def test_a_wrong_verdict_on_a_right_form_counts_as_its_share():
    # 1/2 was too late once: three of the four votes for it are right, and it wins over 3.
    assert majority_by_problem(["0.5", "1/2", "0.50", "1/2", "3"], [True, True, True, False, False], k=5) == 0.75


def test_numbers_that_are_only_near_stay_apart():
    assert candidates(["1000000", "1000001", "0.33", "1/3", "10, 80", "1080"], [False] * 6) == [0, 1, 2, 3, 4, 5]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.fractions(1, 9, max_denominator=9), st.sampled_from(FORMS), st.booleans()), min_size=1, max_size=12
    ),
    st.fractions(1, 9, max_denominator=9),
    st.data(),
)
def test_writing_answers_in_other_forms_never_changes_the_vote(samples, reference, data):
    plain = [str(value) if stated else None for value, _, stated in samples]
    rewritten = [form(value) if stated else None for value, form, stated in samples]
    right = [stated and value == reference for value, _, stated in samples]
    k = data.draw(st.integers(1, len(samples)))
    assert candidates(rewritten, right) == candidates(plain, right)
    assert majority_by_problem(rewritten, right, k=k, votes=20) == majority_by_problem(plain, right, k=k, votes=20)
    order = data.draw(st.permutations(range(len(samples))))
    shuffled = majority_by_problem([rewritten[i] for i in order], [right[i] for i in order], k=len(samples))
    assert shuffled == pytest.approx(majority_by_problem(plain, right, k=len(samples)))


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=8)), min_size=1, max_size=8), st.data())
def test_any_texts_are_grouped_and_right_ones_together(answers, data):
    right = [answer is not None and data.draw(st.booleans()) for answer in answers]
    found = candidates(answers, right)
    assert [one is None for one in found] == [answer is None for answer in answers]
    assert len({one for one, verdict in zip(found, right, strict=True) if verdict}) <= 1
