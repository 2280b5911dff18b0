r"""Whether two answers are equal: one principle for training and evaluation.

Both sides are written in one way (`aepo.llm.grading.written`), then compared as what the reference is: a choice, a
time, a number in a base, words, several answers, a tuple or interval, a matrix, a union, a relation, a quantity with
its unit, a formula. What a comparison looks away from (a label, words, a unit) is on both sides, or known to be
harmless.
"""

import re
from collections.abc import Callable, Iterable
from itertools import pairwise

from aepo.llm.grading import algebra
from aepo.llm.grading.answer_lists import (
    answers,
    at_top_level,
    bracketed,
    grouped_answers,
    letters,
    same_argument,
    sides,
    unlabelled,
)
from aepo.llm.grading.kinds import based, choice, lettering, ratio, time, unspaced
from aepo.llm.grading.numbers_as_typed import plain_number
from aepo.llm.grading.quantities import NOTHING, Allowed, numeric_value, quantity_reason, value_reason
from aepo.llm.grading.units import compound, leading
from aepo.llm.grading.verdict import RIGHT
from aepo.llm.grading.wording import WORD, harmless, telling, worded
from aepo.llm.grading.written import written

# Sixteen tuples of three are the longest published list; each pair of formulas costs milliseconds.
MAX_ANSWERS = 32
NEARLY = 0.01
"""How far a decimal behind an approximation sign may be from the number before it, as a fraction of that."""
MAX_DEPTH = 8
"""Of brackets in brackets: no reference comes near it."""


def same_answer(found: str, wanted: str, allowed: Allowed = NOTHING, *, after: str = "") -> str:
    r"""The reason why an answer is the wanted one, or is not: one of `aepo.llm.grading.REASONS`.

    Without a deadline.

    Args:
        found: the answer of a response.
        wanted: the reference's.
        allowed: its unit and tolerance, if a benchmark states them.
        after: what stands behind the answer in the response, where its unit may be.

    >>> same_answer(r"3\text{ apples, }4\text{ pears}", r"3\text{ apples, }5\text{ pears}")
    'wrong: no answer is 5 \\text{pears}'
    >>> same_answer("B. 7", "B"), same_answer(r"x_{\max}=5", "5"), same_answer("3:45 AM", r"3:45\text{ PM}")
    ('exact', 'exact', 'wrong')
    """
    half = _HALF_BEHIND.match(after)
    found, wanted = written(f"{found} {half[1]}m" if half else found), written(wanted)
    found, wanted = _condition(found), _condition(wanted)
    return _as_what_it_is(found, wanted, allowed, after, 0) if wanted else "wrong"


_HALF_BEHIND = re.compile(r"[\s$~]*(?:\\(?:text|mathrm)\{\s*)?([ap])\.?\s?m\b", re.IGNORECASE)


def _as_what_it_is(found: str, wanted: str, allowed: Allowed, after: str, depth: int) -> str:
    if depth > MAX_DEPTH:
        return "refused: brackets in brackets"
    for decide in (choice, time, ratio, based, lettering):
        reason = decide(found, wanted)
        if reason is not None:
            return reason
    if unspaced(found) == unspaced(wanted) and leading(after) is None:
        return "exact"
    union = _union(found, wanted, allowed, depth)
    if union is not None:
        return union
    quantity = compound(wanted)
    if quantity is None and compound(found) is None:
        listed = _lists(found, wanted, allowed, depth)
        if listed is not None:
            return listed
    return _single(found, wanted, allowed, after, depth)


def _lists(found: str, wanted: str, allowed: Allowed, depth: int) -> str | None:
    """The reason for texts that list answers, in the best way in which they can be read; None if neither does."""
    ways = re.split(r"\s*\\text\{or\}\s*", found)
    if len(ways) > 1 and r"\text{or}" not in wanted and _of_different_things(answers(wanted)):
        return "wrong"
    if len(ways) > 1 and len(answers(wanted)) == 1:
        # One value in several forms, "1/2 or 0.5", is one answer.
        reasons = [_as_what_it_is(way, wanted, allowed, "", depth + 1) for way in ways[:MAX_ANSWERS]]
        return next((reason for reason in reasons if reason not in RIGHT), reasons[0])
    reasons = []
    for read in (answers, grouped_answers):
        listed, reference = read(found), read(wanted)
        if len(reference) > 1 or len(listed) > 1:
            reasons.append(matched(listed, reference, allowed, depth))
        elif (listed, reference) != ((found,), (wanted,)) and listed and reference:
            if len(listed[0]) < len(found) or len(reference[0]) < len(wanted):
                reasons.append(_as_what_it_is(listed[0], reference[0], allowed, "", depth + 1))
        if not reasons or reasons[-1] in RIGHT:
            break
    return next((reason for reason in reasons if reason in RIGHT), reasons[0] if reasons else None)


def matched(found: Iterable[str], wanted: Iterable[str], allowed: Allowed, depth: int = 0) -> str:
    """Whether each wanted answer has an answer of its own, and none is left: in any order, unless what tells the wanted
    ones apart (names, words) is missing in the found ones."""
    found, wanted = _opened(list(found), list(wanted)), list(wanted)
    if len(wanted) == 1 and wanted[0][:1] in "([":
        return _single(_as_tuple(found, wanted[0]), wanted[0], allowed, "", depth)
    if len(found) != len(wanted) or len(found) > MAX_ANSWERS:
        return f"wrong: {len(found)} answer{'s' * (len(found) != 1)} of {len(wanted)}"
    named = [unlabelled(same_argument(one, wanted[0])) for one in found]
    names = [unlabelled(one, reference=True) for one in wanted]
    may_pair: Callable[[int, int], bool] = lambda i, j: True  # noqa: E731
    labels = [label for label, _ in named], [label for label, _ in names]
    if None not in labels[1] and len(set(labels[1])) == len(found):
        if set(labels[0]) == set(labels[1]):
            may_pair = lambda i, j: labels[0][i] == labels[1][j]  # noqa: E731
        elif _named_otherwise(*labels):
            return "wrong: other names"
        elif set(labels[0]) == {None}:
            may_pair = lambda i, j: i == j  # noqa: E731
        elif None in labels[0]:
            may_pair = lambda i, j: labels[0][i] not in labels[1] or labels[0][i] == labels[1][j]  # noqa: E731
    elif _told_apart(wanted) and not any(telling(_words(one)) for one in found):
        may_pair = lambda i, j: i == j  # noqa: E731
    left, worst = set(range(len(found))), "exact"
    for j, (_, answer) in enumerate(names):
        reasons: dict[int, str] = {}
        # The same text first: it costs nothing, and formulas are compared for what remains.
        for i in sorted((i for i in left if may_pair(i, j)), key=lambda i: unspaced(named[i][1]) != unspaced(answer)):
            reasons[i] = _as_what_it_is(named[i][1], answer, allowed, "", depth + 1)
            if reasons[i] in RIGHT:
                break
        match = next((i for i, reason in reasons.items() if reason in RIGHT), None)
        if match is None:
            trouble = next((r for r in reasons.values() if not r.startswith("wrong")), None)
            return trouble or f"wrong: no answer is {answer[:80]}"
        left.remove(match)
        worst = max(worst, reasons[match], key=RIGHT.index)
    return worst


def _of_different_things(wanted: Iterable[str]) -> bool:
    """Whether values of different names are asked for, of which "or" leaves some out."""
    labels = [unlabelled(one, reference=True)[0] for one in wanted]
    return None not in labels and len({re.sub("_.*", "", label or "") for label in labels}) > 1


def _named_otherwise(found: list[str | None], wanted: list[str | None]) -> bool:
    """Whether other things are named than those asked for. Words may describe what a letter names; an index may be left
    out, as in x = 1 or x = 3 for x_1 = 1 and x_2 = 3."""
    labels = [label for label in (*found, *wanted) if label]
    if None in found or any(r"\text" in label for label in labels):
        return False
    return {re.sub("_.*", "", label) for label in found if label} != {
        re.sub("_.*", "", label) for label in wanted if label
    } or len({*found}) == len(found)


def _words(text: str) -> tuple[str, ...]:
    return worded(text).spoken


def _told_apart(wanted: list[str]) -> bool:
    """Whether words that no unit is tell answers apart."""
    spoken = [telling(_words(one)) for one in wanted]
    return all(spoken) and len(set(spoken)) > 1


def _opened(found: list[str], wanted: list[str]) -> list[str]:
    """ "(m, n) = (221, 8)" as its parts, where a list of that many was asked for."""
    if len(found) == 1 and len(wanted) > 1:
        label, value = unlabelled(found[0])
        if label is not None and label.startswith("(") and value.startswith("("):
            return list(answers(value[1:-1]))
    return found


def _as_tuple(found: list[str], wanted: str) -> str:
    """ "x = 2, y = 4" as the tuple that the reference is; anything else as it is."""
    parts = [unlabelled(part) for part in found]
    if len(parts) > 1 and all(label for label, _ in parts) and len({label for label, _ in parts}) == len(parts):
        return f"({', '.join(value for _, value in parts)})"
    return ", ".join(found)


_RELATION = re.compile(r"<|>|\\(?:le|ge|ne|equiv|subset|to|mid)(?![A-Za-z])|(?<![<>!])=")


def _single(found: str, wanted: str, allowed: Allowed, after: str, depth: int) -> str:
    """One answer that no list is."""
    found = same_argument(found, wanted)
    if not _consistent(found):
        return "wrong: its sides differ"
    (label, value), (name, reference) = unlabelled(found), unlabelled(wanted, reference=True)
    if label is not None and name is not None and label != name and not _described(label, name):
        # Two named values, or an equation that is written in another way.
        return _relation(found, wanted)
    if label is None and name is not None and _relations(found):
        return _relation(found, wanted)
    if name is None and _relations(wanted) and _relations(found):
        return _relation(found, wanted)
    # A point is no number, whatever its comma may be.
    if plain_number(reference) is not None and len((bracketed(value) or ("", []))[1]) > 1:
        return "wrong"
    for decide in (_brackets, _matrix):
        reason = decide(value, reference, allowed, depth)
        if reason is not None:
            return reason
    if _relations(value) or _relations(reference):
        return _relation(value, reference)
    return quantity_reason(value, reference, allowed, after)


_SET_OF = re.compile(r"\\\{\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\{R\})?\s*[|:](?P<condition>.*)\\\}", re.DOTALL)


def _condition(text: str) -> str:
    r"""Of {x | x > 2} what holds for x; of anything else itself."""
    match = _SET_OF.fullmatch(text)
    return match["condition"].strip() if match else text


def _consistent(text: str) -> bool:
    """Whether the numbers of a = 2 + 3 = 5 are one number, or nearly where it says so."""
    parts, signs = sides(text)
    numbers = [
        (part, sign)
        for part, sign in zip(parts, ["=", *signs], strict=True)
        if part and not letters(part) and not WORD.search(part)
    ]
    for (one, _), (other, sign) in pairwise(numbers):
        if value_reason(one, other) in RIGHT:
            continue
        values = numeric_value(one), numeric_value(other)
        if sign == "=" or None in values or abs(values[0] - values[1]) > NEARLY * abs(values[0]):
            return False
    return True


def _described(label: str, name: str) -> bool:
    """Whether one of two labels is words, which describe what the other names."""
    words = [bool(re.fullmatch(r"(?:\\text\{[^{}]*\})+", one.replace(" ", ""))) for one in (label, name)]
    return words[0] != words[1] and all(harmless(_words(one)) for one in (label, name))


def _relations(text: str) -> bool:
    """Whether a relation stands outside all brackets."""
    return any(True for _ in at_top_level(text, _RELATION))


def _relation(found: str, wanted: str) -> str:
    if _words(found) != _words(wanted):
        return "wrong"
    return (
        "exact"
        if unspaced(found) == unspaced(wanted)
        else algebra.compared(*(WORD.sub(" ", one) for one in (found, wanted)))
    )


_SETS = re.compile(r"\\(?:in|cup|mathbb)(?![A-Za-z])")


def _brackets(found: str, wanted: str, allowed: Allowed, depth: int) -> str | None:
    """A tuple, a point or an interval, part by part; None where the reference is none."""
    reference = bracketed(wanted)
    if reference is None or len(reference[1]) < 2:
        return None
    given = bracketed(found)
    if given is None:
        column = _entries(found)
        if column is not None and reference[0] == "()":
            return _each(
                [cell for row in column[1] for cell in row] if 1 in _shape(column) else [], reference[1], allowed, depth
            )
        return algebra.compared(found, wanted) if _relations(found) or _SETS.search(found) else "wrong"
    if given[0] != reference[0]:
        return "wrong"
    return _each(given[1], reference[1], allowed, depth)


def _each(found: list[str], wanted: list[str], allowed: Allowed, depth: int) -> str:
    """Parts in their order."""
    if len(found) != len(wanted):
        return "wrong"
    worst = "exact"
    for one, other in zip(found, wanted, strict=True):
        reason = _as_what_it_is(one, other, allowed, "", depth + 1)
        if reason not in RIGHT:
            return "wrong" if reason.startswith("wrong") else reason
        worst = max(worst, reason, key=RIGHT.index)
    return worst


_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{([bpvBV]?matrix|smallmatrix|array)\}\s*(?:\{[lcr|\s]*\})?(.*?)\\end\{\1\}\s*[)\]]?", re.DOTALL
)


def _entries(text: str) -> tuple[bool, list[list[str]]] | None:
    """Whether a text is a determinant, and the rows of the matrix that it is; None if it is none."""
    match = _MATRIX.fullmatch(text.strip())
    if match is None:
        return None
    body = re.sub(r"\\hline", "", match[2]).strip()
    rows = [
        [cell.strip() for cell in row.split("&")] for row in re.split(r"\\\\|\\cr(?![A-Za-z])", body) if row.strip()
    ]
    return match[1] in ("vmatrix", "Vmatrix"), rows


def _shape(matrix: tuple[bool, list[list[str]]]) -> tuple[int, int]:
    return len(matrix[1]), max(map(len, matrix[1]), default=0)


def _matrix(found: str, wanted: str, allowed: Allowed, depth: int) -> str | None:
    """A matrix, entry by entry, in whatever brackets; a vector may be a tuple. None where the reference is none."""
    reference = _entries(wanted)
    if reference is None:
        return None
    given = _entries(found)
    if given is None:
        point = bracketed(found)
        if 1 in _shape(reference) and point is not None and point[0] == "()":
            return _each(point[1], [cell for row in reference[1] for cell in row], allowed, depth)
        return "wrong"
    if given[0] != reference[0] or [len(row) for row in given[1]] != [len(row) for row in reference[1]]:
        return "wrong"
    return _each(*([cell for row in matrix[1] for cell in row] for matrix in (given, reference)), allowed, depth)


_EITHER = re.compile(r"\s*(?:\\text\{or\}|\\lor(?![A-Za-z]))\s*")
_CUP = re.compile(r"\\cup(?![A-Za-z])")


def _union(found: str, wanted: str, allowed: Allowed, depth: int) -> str | None:
    """A union, in any order, of intervals or of the relations that say them; None where the reference is none."""
    reference = _split(unlabelled(wanted)[1], _CUP)
    value = unlabelled(found)[1]
    if len(reference) == 1 and any(True for _ in at_top_level(value, _CUP)):
        reference = [part for part in _EITHER.split(wanted) if part]
    if len(reference) == 1:
        return None
    given = _split(value, _CUP)
    if len(given) == 1:
        given = [part for part in _EITHER.split(found) if part]
    if len(given) == len(reference) and matched(given, reference, allowed, depth + 1) in RIGHT:
        return "exact"
    return algebra.compared(value, unlabelled(wanted)[1])


def _split(text: str, pattern: re.Pattern) -> list[str]:
    """The text between what matches outside all brackets."""
    parts, start = [], 0
    for match in at_top_level(text, pattern):
        parts.append(text[start : match.start()])
        start = match.end()
    return [part.strip() for part in [*parts, text[start:]]]
