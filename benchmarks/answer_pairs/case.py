"""One reference with answers that are right, and answers that differ from a right one in a single place.

A generator draws the parts of a value (a numerator, a unit, a bracket) and gives ways of writing them. A wrong answer
is one of these ways with one part changed, so its label needs no checker: it follows from the parts alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

Form = Callable[..., str]

SENTENCES = (
    r"So the result is \boxed{%s}.",
    r"Therefore, the answer is $\boxed{%s}$.",
    "Putting it together:\n\\[\n\\boxed{%s}\n\\]",
    r"We get \(\boxed{%s}\), as we wanted.",
    "**Final Answer**\n\n$$\\boxed{%s}$$",
)
"""How the text around an answer looks."""

# Nearer numbers are the same to a checker that grants six digits.
DISTINCT = 1e-4


@dataclass(frozen=True, kw_only=True)
class Case:
    """A reference and whole responses to its question."""

    reference: str
    right: tuple[str, ...]
    wrong: tuple[tuple[str, str, str], ...]
    """(response, the right one that it was made from, what was changed)."""


def case(
    draw: Random,
    parts: Sequence[Any],
    forms: Sequence[Form],
    changes: Mapping[str, Sequence[Any]],
    *,
    value: Callable[..., Any] = lambda *parts: parts,
    references: Sequence[Form] = (),
    right: Sequence[str] = (),
    wrong: Sequence[tuple[str, str, str]] = (),
    boxed: bool = True,
) -> Case:
    r"""A case from the parts of its value.

    Args:
        draw: picks the reference's form and the sentence around the answers.
        parts: of the value.
        forms: ways of writing the parts; all are right. One that returns "" cannot write these parts.
        changes: other parts by what is changed in them.
        value: what the parts mean. Changed parts that mean the same are left out.
        references: ways of writing the reference; `forms` if none are given.
        right: further right answers.
        wrong: further wrong answers, as (answer, right answer that it was made from, what was changed).
        boxed: answers are put into a sentence with a box; False: they are whole responses.

    >>> one = case(Random(0), (3, 4), [lambda p, q: f"{p}/{q}"], {"numerator": (5, 4), "same": (3, 4)})
    >>> one.reference, one.right[0], one.wrong[0][2], len(one.wrong)
    ('3/4', 'We get \\(\\boxed{3/4}\\), as we wanted.', 'numerator', 1)
    """
    reference = draw.choice([text for form in references or forms if (text := form(*parts))])
    texts = [*(form(*parts) for form in forms), *right]
    changed = [
        (form(*other), form(*parts), what)
        for what, other in changes.items()
        if _differ(value(*other), value(*parts))
        for form in forms
    ]
    bare = {"".join(text.split()) for text in [*texts, reference]}
    kept = [one for one in [*changed, *wrong] if one[0] and one[1] and "".join(one[0].split()) not in bare]
    sentence = draw.choice(SENTENCES) if boxed else "%s"
    return Case(
        reference=reference,
        right=tuple(dict.fromkeys(sentence % text for text in texts if text)),
        wrong=tuple({sentence % text: (sentence % text, sentence % made, what) for text, made, what in kept}.values()),
    )


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, float | complex) or isinstance(other, float | complex):
        return abs(one - other) > DISTINCT * max(1.0, abs(other))
    return one != other


def nonzero(draw: Random, low: int, high: int) -> int:
    """An integer of [low, high] other than 0."""
    return draw.choice([n for n in range(low, high + 1) if n])


def signed(number: int) -> str:
    """A number behind another term: "+ 3", "- 3".

    >>> signed(3), signed(-3)
    ('+ 3', '- 3')
    """
    return f"{'-' if number < 0 else '+'} {abs(number)}"


def times(factor: int, name: str) -> str:
    """A coefficient before a name, which 1 and -1 hide.

    >>> times(3, "x"), times(1, "x"), times(-1, "x")
    ('3x', 'x', '-x')
    """
    return f"{ {1: '', -1: '-'}.get(factor, factor) }{name}"


def term(factor: int, name: str) -> str:
    """A term behind another one: "+ 3x", "- x".

    >>> term(3, "x"), term(-1, "x")
    ('+ 3x', '- x')
    """
    return f"{'-' if factor < 0 else '+'} {times(abs(factor), name)}"


def other_digit(draw: Random, digits: str) -> str:
    """A text in which one digit is another one; a leading digit stays different from zero.

    >>> other_digit(Random(0), "12")
    '17'
    """
    at = draw.choice([i for i, character in enumerate(digits) if character.isdigit()])
    first = not any(character in "123456789" for character in digits[:at])
    return (
        digits[:at]
        + draw.choice([d for d in ("123456789" if first else "0123456789") if d != digits[at]])
        + digits[at + 1 :]
    )
