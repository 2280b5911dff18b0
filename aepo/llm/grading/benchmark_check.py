r"""Whether a response answers a benchmark's question: training's rule, and what a benchmark states beside its answer.

That is a unit, a tolerance, and several answers that count in any order.
"""

# A worker imports this module before its first item's time runs; sympy takes a second.
import math_verify  # noqa: F401

from aepo.llm.grading import Verdict
from aepo.llm.grading.answer_lists import answers, grouped_answers
from aepo.llm.grading.comparison import matched
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS, stated_answer
from aepo.llm.grading.math_reward import equivalence
from aepo.llm.grading.quantities import Allowed
from aepo.llm.grading.reference import Reference
from aepo.llm.grading.too_costly import refusal, unbalanced
from aepo.llm.grading.units import parse
from aepo.llm.grading.verdict import RIGHT
from aepo.llm.grading.written import written


def check(response: str, reference: str) -> Verdict:
    r"""The verdict on a response to a benchmark's question, for the workers of a `GradingPool`.

    The final answer is found as in training (`aepo.llm.grading.extraction.stated_answer`), and one answer is judged
    as there (`aepo.llm.grading.math_reward.equivalence`), in the reference's unit and within its tolerance. Several
    answers must be matched one to one, in any order, as their publishers judge them (so "m = 221, n = 8" and "8, 221"
    are the same unless both sides name them).

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
    stated = stated_answer(response)
    if stated is None:
        return Verdict(reward=0.0, extracted=None, reason="no answer")
    extracted = stated.answer
    allowed = Allowed(
        unit=parse(wanted.unit) if wanted.unit else None, absolute=wanted.absolute, relative=wanted.relative
    )
    if len(wanted.answers) == 1 or len(extracted) > MAX_ANSWER_CHARACTERS:
        reason = equivalence(extracted, wanted.answers[0], timeout_seconds=None, allowed=allowed, after=stated.after)
    else:
        reason = _several(extracted, wanted, allowed)
    return Verdict(reward=float(reason in RIGHT), extracted=extracted[:MAX_ANSWER_CHARACTERS], reason=reason)


def _several(extracted: str, wanted: Reference, allowed: Allowed) -> str:
    """The reason for a list of answers: the best of the ways in which it can be read."""
    refused = "unbalanced braces" if unbalanced(extracted) else refusal(written(extracted))
    if refused:
        return f"refused: {refused}"
    references = [written(answer) for answer in wanted.answers]
    found = written(extracted)
    reasons = [
        matched(listed, references, allowed) for listed in dict.fromkeys([answers(found), grouped_answers(found)])
    ]
    return next((reason for reason in reasons if reason in RIGHT), reasons[0])
