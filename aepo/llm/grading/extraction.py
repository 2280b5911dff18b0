r"""Where a response states its final answer: its last boxes, else what follows its last mark."""

import re
from typing import NamedTuple

# Longer "answers" are essays or loops: parsing one takes math-verify seconds, and no reference comes near it.
MAX_ANSWER_CHARACTERS = 2000
# "$, \text{ or } $" is as long as it gets.
MAX_JOINT_CHARACTERS = 40
MAX_UNIT_CHARACTERS = 80
# Something that lists, among dollar signs and spacing: blanks alone do not join.
_JOINT = re.compile(
    r"(?:[\s$]|\\[,;: ()\[\]])*(?:[,;]|,?\s*\b(?:and|or)\b|\\text\s*\{\s*,?\s*(?:and|or)\s*\})(?:[\s$]|\\[,;: ()\[\]])*"
)


def extracted_answer(response: str) -> str | None:
    r"""The final answer stated: the last \boxed{...} (`final_boxes`), else after the last '####', else 'answer is'.

    After 'answer is' that is the formula between $ signs or \( \) if one follows directly, else the rest of
    the sentence. None if there is none of the three, or nothing in it. Outside a box it is cut one character
    past MAX_ANSWER_CHARACTERS.

    >>> extracted_answer(r"first \boxed{1}, then \boxed{\frac{1}{2}} and \boxed{3")
    '\\frac{1}{2}'
    >>> extracted_answer("#### 1,080"), extracted_answer("The answer is 3.5. Done."), extracted_answer("3.5")
    ('1,080', '3.5', None)
    """
    boxes = final_boxes(response)
    if boxes:
        return ", ".join(filter(None, map(str.strip, boxes))) or None
    marks = list(re.finditer(r"####|answer is", response, re.IGNORECASE))
    if not marks:
        return None
    hashes = [mark for mark in marks if mark.group() == "####"]
    mark = (hashes or marks)[-1]
    rest = response[mark.end() :].lstrip(" \t\r\n:*")[: MAX_ANSWER_CHARACTERS + 1]
    formula = None if hashes else re.match(r"\${1,2}([^$]+)\$|\\\((.+?)\\\)", rest, re.DOTALL)
    if formula:
        return (formula.group(1) or formula.group(2)).strip() or None
    line = rest.split("\n", 1)[0]
    sentence = line if hashes else re.split(r"\.(?=\s|\*|$)", line, maxsplit=1)[0]
    return sentence.strip(" \t\r*") or None


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
    boxes = _boxes(text)
    first = len(boxes) - 1
    while first > 0:
        between = text[boxes[first - 1].end : boxes[first].start]
        if len(between) > MAX_JOINT_CHARACTERS or not _JOINT.fullmatch(between):
            break
        first -= 1
    contents = tuple(box.content for box in boxes[max(first, 0) :])
    return contents[:1] if len(set(contents)) == 1 else contents


def text_after_box(text: str) -> str:
    """What follows the last box, at most a unit's length; "" where there is no box."""
    boxes = _boxes(text)
    return text[boxes[-1].end : boxes[-1].end + MAX_UNIT_CHARACTERS] if boxes else ""


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
