r"""Where a response states its final answer: its last boxes, else what follows its last mark."""

import re
from itertools import pairwise
from typing import NamedTuple

# Longer "answers" are essays or loops: parsing one takes math-verify seconds, and no reference comes near it.
MAX_ANSWER_CHARACTERS = 2000
# "$, \text{ or } $" is as long as it gets.
MAX_JOINT_CHARACTERS = 40
MAX_UNIT_CHARACTERS = 80
MAX_JOINED = 32
"""Formulas in a row: no list of answers is longer."""
_LABEL = r"(?:[A-Za-z]'?(?:_(?:\w|\{\w+\}))?\s*=\s*)?"
_PERHAPS = r"(?:\s*(?:else|maybe|possibly|perhaps|alternatively|even|also|both|either)\b)?"
_AROUND = r"(?:[\s$]|\\[,;: ()\[\]])*"
# Something that lists, among dollar signs and spacing, and the name of what comes next: blanks alone do not join.
_JOINT = re.compile(
    rf"{_AROUND}(?:[,;](?:\s*(?:and|or)\b)?|,?\s*\b(?:and|or)\b|\\text\s*\{{\s*,?\s*(?:and|or)\s*\}}){_PERHAPS}{_AROUND}{_LABEL}"
)
_FORMULA = r"(?:\${1,2}[^$]+\$|\\\(.+?\\\)|[-+]?(?:[0-9][0-9,./]*[0-9]|[0-9])|[-+]?\\[dt]?(?:frac|sqrt)[^\s$]*)"
# Another answer outside the box or the formula: "or 6", "or $6$".
_OR_AFTER = re.compile(
    rf"{_AROUND}(?:,\s*)?(?:\bor\b|\\text\s*\{{\s*or\s*\}}){_PERHAPS}\s*(?:\$\s*)??(?P<answer>{_LABEL}{_FORMULA})",
    re.DOTALL,
)
_OR_BEFORE = re.compile(
    rf"(?P<answer>{_FORMULA})\s*\$?\s*,?\s*(?:\bor\b|\\text\s*\{{\s*or\s*\}}){_PERHAPS}{_AROUND}{_LABEL}$", re.DOTALL
)
_NEXT_FORMULA = re.compile(
    r"\s*(?:,|,?\s*\band\b)\s*(?P<answer>\${1,2}[^$]+\$|\\\(.+?\\\))(?=\s*(?:,|\band\b|\.|$))", re.DOTALL
)


class Stated(NamedTuple):
    """What a response states as its answer."""

    answer: str
    after: str
    """What stands behind it, at most a unit's length: "cm" outside the box."""


def stated_answer(response: str) -> Stated | None:
    r"""The final answer stated: the last \boxed{...} (`final_boxes`), else after the last '####', else 'answer is'.

    After 'answer is' that is the formula between $ signs or \( \) if one follows directly, with those that "or",
    "and" and commas join to it, else the rest of the sentence. None if there is none of the three, or nothing in it.
    Outside a box it is cut one character past MAX_ANSWER_CHARACTERS. Who writes "\boxed{5} or 6" has not said 5.

    >>> stated_answer(r"so \boxed{45} minutes."), stated_answer(r"\boxed{5} or 6")
    (Stated(answer='45', after=' minutes.'), Stated(answer='5 or 6', after=''))
    >>> stated_answer("The answer is $5$ or $6$.")
    Stated(answer='5 or 6', after='.')
    """
    boxes = _last_boxes(response)
    if boxes:
        return _boxed(response, boxes)
    marks = list(re.finditer(r"####|answer is", response, re.IGNORECASE))
    if not marks:
        return None
    hashes = [mark for mark in marks if mark.group() == "####"]
    mark = (hashes or marks)[-1]
    rest = response[mark.end() :].lstrip(" \t\r\n:*")[: MAX_ANSWER_CHARACTERS + 1]
    # \$ in a formula is a dollar and no end of it.
    formula = None if hashes else re.match(r"\${1,2}((?:\\.|[^$\\])+)\$\$?|\\\((.+?)\\\)", rest, re.DOTALL)
    if formula:
        return _formulas(rest, formula)
    line = rest.split("\n", 1)[0]
    sentence = line if hashes else re.split(r"\.(?=\s|\*|$)", line, maxsplit=1)[0]
    sentence = sentence.strip(" \t\r*")
    return Stated(sentence, "") if sentence else None


def _boxed(response: str, boxes: "list[_Box]") -> Stated | None:
    """The contents of boxes that are one answer, with what "or" joins to them outside."""
    parts = [box.content.strip() for box in boxes if box.content.strip()]
    if not parts:
        return None
    joints = [response[one.end : other.start] for one, other in pairwise(boxes)]
    alternatives = any(re.search(r"\bor\b", joint) for joint in joints)
    before = _OR_BEFORE.search(response[max(0, boxes[0].start - MAX_JOINT_CHARACTERS) : boxes[0].start])
    rest = response[boxes[-1].end : boxes[-1].end + MAX_UNIT_CHARACTERS]
    after = _OR_AFTER.match(rest)
    parts = [*([_bare(before["answer"])] if before else []), *parts, *([_bare(after["answer"])] if after else [])]
    if len(set(parts)) == 1:
        parts = parts[:1]
    answer = (" or " if alternatives or before or after else ", ").join(parts)
    if len(boxes) == 1 and not before and not after:
        answer, rest = _with_what_touches(answer, response[: boxes[0].start], rest)
    return Stated(answer, rest[after.end() :] if after else rest)


# A sign or "not" that stands alone before the box: in "8 - \boxed{3}" it belongs to the 8.
_SIGN_BEFORE = re.compile(r"(?:[=$]|\\[(\[]|\bis)\s*(-|−|\\pm ?)$|\bnot[\s$]*$")
_POWER_AFTER = re.compile(
    r"\s*([_^]\s*(?:\{\s*-?[0-9A-Za-z]+\s*\}|[0-9A-Za-z])(?!\s*\\circ)|\\(?:times|cdot)\s*10\s*\^\s*(?:\{[^{}]*\}|[0-9]))"
)
_MAGNITUDE_AFTER = re.compile(
    r"[\s$~]*(?:\\[,;: ])*(?:\\(?:text|mathrm)\s*\{\s*)?((?:hundred|thousand|million|billion|trillion)s?)\b\s*\}?"
)


def _with_what_touches(answer: str, before: str, rest: str) -> tuple[str, str]:
    r"""The content of a box with the sign, index, power or magnitude outside that belongs to it, and the rest.

    >>> _with_what_touches("3", "so $x = -", "$."), _with_what_touches("3", "", r"\times 10^8$")
    (('-3', '$.'), ('3\\times 10^8', '$'))
    >>> _with_what_touches("3", "it is $8 - ", "$")
    ('3', '$')
    """
    sign = _SIGN_BEFORE.search(before[-MAX_JOINT_CHARACTERS:])
    touching = _POWER_AFTER.match(rest) or _MAGNITUDE_AFTER.match(rest)
    magnitude = bool(touching and touching[1][0].isalpha())
    if ((sign and sign[1]) or (touching and not magnitude)) and not re.fullmatch(r"[0-9A-Za-z.,]+", answer):
        answer = f"({answer})"
    if touching:
        answer, rest = f"{answer}{' ' * magnitude}{touching[1]}", rest[touching.end() :]
    if sign:
        answer = f"{sign[1] or 'not '}{answer}"
    return answer, rest


def _formulas(rest: str, first: re.Match) -> Stated | None:
    """A formula and those that are joined to it."""
    parts, end, alternatives = [(first.group(1) or first.group(2)).strip()], first.end(), False
    while len(parts) < MAX_JOINED:
        follows = _OR_AFTER.match(rest, end)
        alternatives = alternatives or follows is not None
        follows = follows or _NEXT_FORMULA.match(rest, end)
        if follows is None:
            break
        parts.append(_bare(follows["answer"]))
        end = follows.end()
    answer = (" or " if alternatives else ", ").join(filter(None, parts))
    return Stated(answer, rest[end : end + MAX_UNIT_CHARACTERS]) if answer else None


def _bare(formula: str) -> str:
    r"""A formula without the dollar signs or \( \) around it."""
    return re.sub(r"\$|\\[()]", "", formula).strip()


def extracted_answer(response: str) -> str | None:
    r"""The final answer of `stated_answer`, or None.

    >>> extracted_answer(r"first \boxed{1}, then \boxed{\frac{1}{2}} and \boxed{3")
    '\\frac{1}{2}'
    >>> extracted_answer("#### 1,080"), extracted_answer("The answer is 3.5. Done."), extracted_answer("3.5")
    ('1,080', '3.5', None)
    """
    stated = stated_answer(response)
    return stated.answer if stated is not None else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...} whose braces balance, or None; linear in the text.

    >>> last_boxed(r"\boxed{a} and \boxed{\frac{1}{2}} and \boxed{cut off"), last_boxed("no box")
    ('\\frac{1}{2}', None)
    """
    boxes = _boxes(text)
    return boxes[-1].content if boxes else None


def final_boxes(text: str) -> tuple[str, ...]:
    r"""The contents of the last boxes that nothing but commas, "and" and "or" stands between.

    They are one answer: whoever writes "\boxed{5} or \boxed{6}" has not said 6. Boxes with other words or
    only blanks between them are separate statements, of which the last counts.

    >>> final_boxes(r"\boxed{1} then $\boxed{3}$, $\boxed{5}$ and \boxed{7}."), final_boxes(r"\boxed{3} \boxed{4}")
    (('3', '5', '7'), ('4',))
    """
    contents = tuple(box.content for box in _last_boxes(text))
    return contents[:1] if len(set(contents)) == 1 else contents


def _last_boxes(text: str) -> "list[_Box]":
    boxes = _boxes(text)
    first = len(boxes) - 1
    while first > 0:
        between = text[boxes[first - 1].end : boxes[first].start]
        if len(between) > MAX_JOINT_CHARACTERS or not _JOINT.fullmatch(between):
            break
        first -= 1
    return boxes[max(first, 0) :]


class _Box(NamedTuple):
    start: int
    end: int
    """Past the closing brace."""
    content: str


def _boxes(text: str) -> list[_Box]:
    """Every box that holds no other box and whose braces balance, by where its content starts."""
    opened: list[tuple[int, int] | None] = []  # start of the box and of its content, None for any other group
    found: list[_Box] = []
    # A doubled backslash is LaTeX that the response escaped as in JSON; an escaped brace is a printed one.
    for token in re.finditer(r"\\\\?(?:boxed|fbox)\s*\{|\\.|[{}]", text, re.DOTALL):
        if token.group() == "}":
            start = opened.pop() if opened else None
            # An outer box closes after its inner one, which was there first.
            if start is not None and (not found or start[0] > found[-1].start):
                found.append(_Box(start[0], token.end(), text[start[1] : token.start()]))
        elif token.group().endswith("{") and token.group() != r"\{":
            opened.append((token.start(), token.end()) if len(token.group()) > 1 else None)
    return found
