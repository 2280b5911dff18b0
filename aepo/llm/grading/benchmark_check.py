r"""Whether a response answers a benchmark's question: the training's rule, and what published answers need beyond it.

A single answer is decided by `aepo.llm.grading.math_reward.equivalence`, which training uses too. Here come several
answers in any order, units, percent and stated tolerances.
"""

from collections.abc import Callable

# A worker imports this module before its first item's time runs; sympy takes a second.
import math_verify  # noqa: F401

from aepo.llm.grading import Verdict
from aepo.llm.grading.algebra import ROUNDING
from aepo.llm.grading.answer_lists import answers, grouped_answers, plain, same_argument, unlabelled
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS, extracted_answer, text_after_box
from aepo.llm.grading.math_reward import equivalence, numeric_value
from aepo.llm.grading.reference import Reference
from aepo.llm.grading.units import Unit, leading, parse, split
from aepo.llm.grading.verdict import RIGHT

# Sixteen tuples of three are the longest published list; each pair of formulas costs milliseconds.
MAX_ANSWERS = 32


def check(response: str, reference: str) -> Verdict:
    r"""The verdict on a response to a benchmark's question, for the workers of a `GradingPool`.

    The final answer is found as in training (`aepo.llm.grading.extraction.extracted_answer`). Then, in this order:
    several answers must be matched one to one, in any order, as their publishers judge them (so "m = 221, n = 8"
    and "8, 221" are the same unless both sides name them); a unit may be left out, but one that is stated, in the box
    or right after it, must measure the same thing and the number is converted; a percentage may be written as the
    fraction it is; a number may be off by the reference's tolerance. What remains is `equivalence`.

    Without a deadline: whoever calls it outside a `GradingPool` waits as long as sympy takes.

    Args:
        response: the model's text, any length.
        reference: a `Reference` as JSON.

    Returns:
        The verdict, with the extracted text and the reason (`aepo.llm.grading.REASONS`).

    >>> wanted = Reference(answers=("1", "3"), published="1,3").to_json()
    >>> check(r"\boxed{x=3 \text{ or } x=1}", wanted).reward, check(r"\boxed{3}", wanted).reason
    (1.0, 'wrong: 1 answer of 2')
    >>> wanted = Reference(answers=("45",), published="45", unit="minute").to_json()
    >>> check(r"\boxed{0.75} hours", wanted).reason, check(r"\boxed{45 \text{ km}}", wanted).reason
    ('rounded', 'wrong: its unit measures something else')
    """
    wanted = Reference.from_json(reference)
    extracted = extracted_answer(response)
    if extracted is None:
        return Verdict(reward=0.0, extracted=None, reason="no answer")
    if len(extracted) > MAX_ANSWER_CHARACTERS:
        reason = _plainly(extracted, wanted.answers[0])
    elif len(wanted.answers) == 1:
        reason = _single(_as_tuple(extracted, wanted.answers[0]), wanted.answers[0], wanted, text_after_box(response))
    else:
        reason = _several(extracted, wanted)
    return Verdict(reward=float(reason in RIGHT), extracted=extracted[:MAX_ANSWER_CHARACTERS], reason=reason)


def _plainly(found: str, answer: str) -> str:
    return equivalence(found, answer, timeout_seconds=None)


def _single(found: str, answer: str, wanted: Reference, after: str) -> str:
    """The reason for one answer, with `after` standing behind it in the response."""
    value, unit = split(answer, bare=False)
    unit = parse(wanted.unit) if wanted.unit else unit
    if unit is None:
        # Whatever unit is stated, nobody said which is right.
        return _same(same_argument(found, answer), answer, wanted, shown=split(found, bare=True))
    found_value, found_unit = split(found, bare=True)
    found_unit = found_unit or leading(after)
    if found_unit is None:
        reason = _same(found, value, wanted)
        # A percentage is a number: 0.175 is 17.5%.
        return (
            reason if reason in RIGHT or unit.dimension else _converted(found, value, 1 / unit.factor, wanted, reason)
        )
    if found_unit.dimension != unit.dimension:
        return "wrong: its unit measures something else"
    ratio = found_unit.factor / unit.factor
    if abs(ratio - 1) <= ROUNDING:
        return _same(found_value, value, wanted)
    return _converted(found_value, value, ratio, wanted, "wrong: in the unit it states")


def _same(found: str, answer: str, wanted: Reference, *, shown: tuple[str, Unit | None] | None = None) -> str:
    """The reason for an answer in the reference's unit; `shown` is it without and with the unit it states, if any."""
    reason = _plainly(found, answer)
    if reason in RIGHT or not (wanted.absolute or wanted.relative):
        return reason
    value, unit = shown or (found, None)
    if unit is not None and not unit.dimension:
        percent = _converted(value, answer, unit.factor, wanted, reason)
        if percent in RIGHT:
            return percent
    return _converted(value, answer, 1.0, wanted, reason)


def _converted(found: str, answer: str, ratio: float, wanted: Reference, otherwise: str) -> str:
    """Whether a number times `ratio` is the reference's, within its tolerance, or to six digits if converted."""
    number, reference = numeric_value(found), numeric_value(answer)
    if number is None or reference is None:
        return otherwise
    off = abs(number * ratio - reference)
    if ratio != 1.0 and off <= float(ROUNDING) * abs(reference):
        return "rounded"
    # A decimal like 4.3 is not exactly 0.1 away from 4.2 in binary.
    slack = 1 + 1e-9
    return "tolerance" if off <= max(wanted.absolute, wanted.relative * abs(reference)) * slack else otherwise


def _as_tuple(found: str, answer: str) -> str:
    """ "x = 2, y = 4" and "(x, y) = (2, 4)" as the tuple that the reference is; anything else as it is."""
    if not plain(answer).startswith("("):
        return found
    parts = [unlabelled(part) for part in answers(found)]
    if len(parts) > 1 and all(label for label, _ in parts) and len({label for label, _ in parts}) == len(parts):
        return f"({', '.join(value for _, value in parts)})"
    label, value = unlabelled(plain(found))
    return value if label is not None and label.startswith("(") else found


def _several(extracted: str, wanted: Reference) -> str:
    """The reason for a list of answers: the best of the ways in which it can be read."""
    reasons = [
        _matched(list(found), wanted) for found in dict.fromkeys([answers(extracted), grouped_answers(extracted)])
    ]
    return next((reason for reason in reasons if reason in RIGHT), reasons[0])


def _matched(found: list[str], wanted: Reference) -> str:
    """Whether each reference has an answer of its own, and none is left."""
    found = _opened(found, len(wanted.answers))
    if len(found) != len(wanted.answers) or len(found) > MAX_ANSWERS:
        return f"wrong: {len(found)} answer{'s' * (len(found) != 1)} of {len(wanted.answers)}"
    named = [unlabelled(same_argument(one, wanted.answers[0])) for one in found]
    names = [unlabelled(one) for one in wanted.answers]
    pairs: Callable[[int, int], bool] = lambda i, j: True  # noqa: E731
    labels = [label for label, _ in named], [label for label, _ in names]
    if None not in labels[1] and len(set(labels[1])) == len(found) and set(labels[0]) == set(labels[1]):
        pairs = lambda i, j: labels[0][i] == labels[1][j]  # noqa: E731
    left = set(range(len(found)))
    worst = "exact"
    for j, (_, answer) in enumerate(names):
        reasons = {}
        # The same text first: it costs nothing, and formulas are compared for what remains.
        candidates = sorted((i for i in left if pairs(i, j)), key=lambda i: plain(named[i][1]) != plain(answer))
        for i in candidates:
            reasons[i] = _single(named[i][1], answer, wanted, "")
            if reasons[i] in RIGHT:
                break
        match = next((i for i, reason in reasons.items() if reason in RIGHT), None)
        if match is None:
            trouble = next((r for r in reasons.values() if not r.startswith("wrong")), None)
            return trouble or f"wrong: no answer is {answer[:80]}"
        left.remove(match)
        worst = max(worst, reasons[match], key=RIGHT.index)
    return worst


def _opened(found: list[str], count: int) -> list[str]:
    """ "(m, n) = (221, 8)" as its parts, where a list of that many was asked for."""
    if len(found) == 1 and count > 1:
        label, value = unlabelled(found[0])
        if label is not None and label.startswith("(") and value.startswith("("):
            return list(answers(value[1:-1]))
    return found
