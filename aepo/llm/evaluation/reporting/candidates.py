"""Which samples of one problem vote for the same answer: equal answers are one candidate, however they are written."""

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS
from aepo.llm.grading.numbers_as_typed import plain_number
from aepo.llm.grading.values import ROUNDING
from aepo.llm.grading.written import written


def candidates(answers: Sequence[str | None], right: Sequence[bool]) -> list[int | None]:
    r"""The candidate that each sample votes for, numbered from 0; None where it states no answer.

    Answers that were judged right are equal to the reference and so to each other. The others are equal if they are
    the same plain number (`aepo.llm.grading.numbers_as_typed.plain_number`; a fraction and its decimal agree to six
    digits, as in grading) or the same text once written in one way (`aepo.llm.grading.written`). No algebra: two
    forms of one wrong formula stay two, since comparing the formulas of 1,024 samples in pairs would take longer than
    generating them. So the cost is one reading of each text, and nothing here can hang.

    Args:
        answers: (n,) extracted answers.
        right: (n,) verdicts.

    >>> candidates(["0.5", r"\frac{1}{2}", "7", None, "7.0", "x"], [False] * 6)
    [0, 0, 1, None, 1, 2]
    >>> candidates([r"\sqrt{12}", r"2\sqrt{3}", "3"], [True, True, False])
    [0, 0, 1]
    """
    keys = _keys({answer for answer in answers if answer is not None})
    correct = {keys[answer] for answer, verdict in zip(answers, right, strict=True) if verdict and answer is not None}
    numbers: dict[object, int] = {}
    return [
        None if answer is None else numbers.setdefault(True if keys[answer] in correct else keys[answer], len(numbers))
        for answer in answers
    ]


def _keys(texts: set[str]) -> dict[str, tuple[str, Fraction | str]]:
    """What texts that are one candidate have in common."""
    readings = {text: (shown := written(text[:MAX_ANSWER_CHARACTERS]), plain_number(shown)) for text in texts}
    fractions = sorted({number.value for _, number in readings.values() if number is not None and number.fraction})
    keys: dict[str, tuple[str, Fraction | str]] = {}
    for text, (shown, number) in readings.items():
        if number is None:
            keys[text] = ("text", "".join(shown.split()))
        else:
            keys[text] = ("number", number.value if number.fraction else _nearby(number.value, fractions))
    return keys


def _nearby(value: Fraction, fractions: Sequence[Fraction]) -> Fraction:
    """The fraction that a decimal is to six digits, or the decimal itself."""
    at = bisect_left(fractions, value)
    nearest = min(fractions[max(at - 1, 0) : at + 1], key=lambda fraction: abs(fraction - value), default=value)
    return nearest if abs(nearest - value) <= ROUNDING * abs(nearest) else value
