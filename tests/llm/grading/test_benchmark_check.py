"""What a benchmark's answer may look like, and what it may not: a table checked by hand, and the published answers."""

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aepo.llm.grading import REASONS, Verdict, math_reward
from aepo.llm.grading.benchmark_check import check
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS
from aepo.llm.grading.pool import GradingPool
from aepo.llm.grading.reference import Reference
from aepo.llm.grading.verdict import RIGHT


@dataclass(kw_only=True)
class Pairs:
    """A reference, and forms of an answer with what they were judged to be by hand."""

    answers: tuple[str, ...]
    options: dict = field(default_factory=dict)
    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    known: str = ""
    """Why its only form is misjudged."""


def read_table() -> dict[str, list[Pairs]]:
    """The pairs of answer_pairs.txt by topic."""
    table: dict[str, list[Pairs]] = {}
    topic: list[Pairs] = []
    for line in (Path(__file__).parent / "answer_pairs.txt").read_text().splitlines():
        if line.startswith("== "):
            topic = table.setdefault(line[3:], [])
        elif line.strip() and not line.startswith("#"):
            key, _, value = line.strip().partition(" ")
            value = value.strip()
            if key in ("answer", "several"):
                topic.append(Pairs(answers=tuple(value.split("  ;  ")) if key == "several" else (value,)))
            elif key in ("right", "wrong"):
                getattr(topic[-1], key).append(value)
            elif key == "known":
                topic[-1].known = value
            else:
                topic[-1].options[key] = value if key == "unit" else float(value)
    return table


TABLE = read_table()
MISJUDGED = TABLE.pop("misjudged")


def reference(pairs: Pairs) -> str:
    return Reference(answers=pairs.answers, published=", ".join(pairs.answers), **pairs.options).to_json()


def response(form: str) -> str:
    return form if "boxed" in form or "####" in form else rf"So it is \boxed{{{form}}}."


@pytest.fixture(scope="module")
def pool():
    with GradingPool(check, workers=1, deadline_seconds=10.0) as workers:
        yield workers


def misjudged(pool, topic, right):
    """The pairs of a topic whose verdict is not the one that was worked out by hand."""
    cases = [(form, pairs) for pairs in TABLE[topic] for form in (pairs.right if right else pairs.wrong)]
    verdicts = pool.grade([(response(form), reference(pairs)) for form, pairs in cases])
    assert all(v.reason.split(":")[0] in REASONS and (v.reason in RIGHT) == bool(v.reward) for v in verdicts)
    return [
        (form, pairs.answers, verdict)
        for (form, pairs), verdict in zip(cases, verdicts, strict=True)
        if verdict.reward != float(right)
    ]


@pytest.mark.parametrize("topic", TABLE)
def test_equivalent_forms_are_right(pool, topic):
    assert misjudged(pool, topic, True) == []


@pytest.mark.parametrize("topic", TABLE)
def test_near_misses_are_wrong(pool, topic):
    assert misjudged(pool, topic, False) == []


def test_the_table_has_hundreds_of_pairs_and_no_form_on_both_sides():
    counts = {
        right: sum(len(p.right if right else p.wrong) for t in TABLE.values() for p in t) for right in (True, False)
    }
    assert min(counts.values()) >= 150
    assert [p.answers for topic in TABLE.values() for p in topic if set(p.right) & set(p.wrong)] == []


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(pairs, marks=pytest.mark.xfail(reason=pairs.known, strict=True), id=pairs.known)
        for pairs in MISJUDGED
    ],
)
def test_what_is_known_to_be_misjudged(pool, pairs):
    (form,) = pairs.right + pairs.wrong
    assert pool.grade([(response(form), reference(pairs))])[0].reward == float(bool(pairs.right))


def test_a_single_answer_without_unit_or_tolerance_is_judged_as_in_training():
    for pairs in [p for topic in TABLE.values() for p in topic if len(p.answers) == 1 and not p.options]:
        for form in pairs.right + pairs.wrong:
            verdict = math_reward(response(form), pairs.answers[0], timeout_seconds=None)
            assert check(response(form), reference(pairs)) == verdict


@pytest.mark.parametrize(
    ("text", "extracted", "reason"),
    [
        ("42", None, "no answer"),
        (r"\boxed{}", None, "no answer"),
        (r"\boxed{5^{5^{5^{5}}}}", "5^{5^{5^{5}}}", "refused: exponent tower"),
        (
            r"\boxed{1" + "0" * 3000 + "}",
            "1" + "0" * (MAX_ANSWER_CHARACTERS - 1),
            "refused: answer of more than 2,000 characters",
        ),
        (r"\boxed{42}", "42", "exact"),
        (r"\boxed{41}", "41", "wrong"),
        (r"\boxed{40+2}", "40+2", "algebra"),
    ],
)
def test_every_verdict_has_what_was_extracted_and_why(text, extracted, reason):
    wanted = Reference(answers=("42",), published="42").to_json()
    assert check(text, wanted) == Verdict(reward=float(reason in RIGHT), extracted=extracted, reason=reason)


@settings(deadline=None)
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.integers(0, 5), st.integers(1, 9), st.randoms())
def test_a_list_is_right_in_any_order_and_wrong_with_one_answer_changed(numbers, at, by, shuffle):
    wanted = Reference(answers=tuple(map(str, numbers)), published="").to_json()
    given_answers = shuffle.sample(numbers, len(numbers))
    assert check(rf"\boxed{{{', '.join(map(str, given_answers))}}}", wanted).reason == "exact"
    given_answers[at % len(numbers)] += by
    assert check(rf"\boxed{{{', '.join(map(str, given_answers))}}}", wanted).reward == 0.0


@settings(deadline=None)
@given(st.fractions(1, 10**6, max_denominator=100), st.fractions(-3, 3, max_denominator=100))
def test_a_tolerance_is_kept_on_both_sides(answer, off):
    # In hundredths of the tolerance of 1 %, so that the decimal is exact.
    value = answer * (1 + off / 100)
    wanted = Reference(answers=(str(answer),), published="", relative=0.01).to_json()
    verdict = check(rf"\boxed{{\frac{{{value.numerator}}}{{{value.denominator}}}}}", wanted)
    assert verdict.reward == float(abs(off) <= 1)


@settings(deadline=None, max_examples=60)
@given(st.text(r"0123456789xye+-*/^(){}[],.=\%$ '", max_size=30))
def test_any_formula_gets_a_verdict_against_any_kind_of_reference(formula):
    for pairs in (TABLE["units"][0], TABLE["tolerance"][2], TABLE["percent"][0], TABLE["tuples"][0]):
        verdict = check(rf"\boxed{{{formula}}}", reference(pairs))
        assert verdict.reason.split(":")[0] in REASONS and verdict.reward in (0.0, 1.0)


def test_what_never_ends_costs_its_deadline_and_spares_the_rest():
    endless = Reference(answers=("5", "3"), published="").to_json()
    easy = Reference(answers=("3", "4"), published="").to_json()
    with GradingPool(check, workers=1, deadline_seconds=1.0) as pool:
        verdicts = pool.grade(
            [(r"\boxed{3, 4}", easy), (r"\boxed{\prod_{k=1}^{99999}(k+\sqrt{2}), 3}", endless), (r"\boxed{4, 3}", easy)]
        )
    assert [verdict.reason for verdict in verdicts] == ["exact", "timeout", "exact"]


def test_a_reference_survives_its_json_and_refuses_what_cannot_be_one():
    wanted = Reference(answers=("½", r"\frac{1}{2}"), published="½", unit=r"\mathrm{m}", absolute=0.1, relative=0.02)
    assert Reference.from_json(wanted.to_json()) == pickle.loads(pickle.dumps(wanted)) == wanted
    assert json.loads(wanted.to_json())["unit"] == r"\mathrm{m}"
    for broken in (
        {"answers": ()},
        {"answers": ("1", " ")},
        {"absolute": -1.0},
        {"relative": 1.0},
        {"absolute": float("inf")},
    ):
        with pytest.raises(ValueError, match="must"):
            Reference(**{"answers": ("1",), "published": "1", **broken})
