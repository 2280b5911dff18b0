r"""What a text holds: several answers, a label and its value, parts in brackets.

`1, 3 and 5`, `x = 1 \text{or} x = 3`, `\{1 \pm \sqrt{5}, -2\}`, `(1,2), (3,4)`; texts are as
`aepo.llm.grading.written` writes them.
"""

import re
from collections.abc import Iterator

from aepo.llm.grading.formulas import GREEK

_LISTING = re.compile(
    r"\\(?:text|textrm|mbox|mathrm)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
    r"|\\(?:lor|vee|land|wedge|quad|qquad)(?![A-Za-z])|;|\\\\(?!\w)",
)
_EQUALS = re.compile(r"(?<![<>!:=])=(?!=)|\\approx(?![A-Za-z])|\\in(?![A-Za-z])")
_ORDER = re.compile(r"[<>]|\\(?:le|ge|ne|equiv|subset|to)(?![A-Za-z])")
# One letter or Greek letter with what decorates it.
_LETTER = (
    r"(?:[A-Za-z]|\\(?!(?:text|frac|sqrt|binom|sin|cos|tan|cot|sec|csc|ln|log|exp|cdot|times|div)(?![A-Za-z]))"
    r"[A-Za-z]+)"
)
_NAME = re.compile(rf"\s*{_LETTER}'*(?:_(?:\w|\{{[^{{}}]*\}}))?'*\s*")
# f(x), P(A | B), \angle B E A_1, |AB|, \overline{AB}, \cos A: whatever is in it, it is the name of one thing.
_NAMED = re.compile(
    rf"\s*(?:{_NAME.pattern}(?:'*)\(.*\)|\\(?:angle|triangle|overline|operatorname|mathbb|mathrm|arc|widehat|vec|deg|max|min"
    r"|det|dim|ker|gcd|lim|sum|prod|int|sup|inf|Pr)"
    r"(?![A-Za-z]).*|\|[A-Za-z\s]+\||\\(?:sin|cos|tan|cot|sec|csc)(?:\^2)?\s*(?:[A-Za-z]|\\[a-z]+|\\angle.*|\([^()]*\))"
    r"|\(.*,.*\)|\[[A-Z\s_0-9]+\])\s*",
    re.DOTALL,
)
_FUNCTION = re.compile(r"([A-Za-z])\(([A-Za-z])\)")
# With more signs than one it would not be clear which go together.
_SIGNS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])|±|∓")


def plain(text: str) -> str:
    r"""The text without dollar signs around formulas and without \left and \right; \$ stays."""
    return re.sub(r"(?<!\\)\$|\\(?:left|right)(?![A-Za-z])", "", text).strip()


def answers(text: str, *, grouped: bool = False) -> tuple[str, ...]:
    r"""The answers that a text lists, in its order; one where it lists none.

    >>> answers(r"\{1 \pm \sqrt{5}, -2\}"), answers(r"x=1 \text{or} 3"), answers("(1,2), (3,4)")
    (('1 + \\sqrt{5}', '1 - \\sqrt{5}', '-2'), ('x=1', '3'), ('(1,2)', '(3,4)'))
    """
    text = plain(text)
    text = _LISTING.sub(",", text) if "begin{" not in text else text
    text = re.sub(r"^(?:\\text\{(?:either|both)\}\s*)", "", text.strip(" ,"), flags=re.IGNORECASE)
    member = re.match(r"[A-Za-z](?:_?\w)?\s*(?:\\in|=)\s*(?=\\\{)", text)
    text = text[member.end() :] if member else text
    opened = text.startswith(r"\{") and text.endswith(r"\}") and len(_parts(text)) == 1 and r"\}" not in text[2:-2]
    # The set that holds the empty set is not empty.
    if opened and text[2:-2].strip() != r"\emptyset":
        text = text[2:-2]
    together = _without_commas(text) if grouped else text
    # {1,234} has two members.
    if not opened or "," in together:
        text = together
    return tuple(answer for part in _parts(text) for answer in _signs(part))


def grouped_answers(text: str) -> tuple[str, ...]:
    """As `answers`, with the commas of 1,000 not taken for separators, unless in a bracket.

    >>> grouped_answers("2,500, 7,500"), answers("2,500, 7,500")
    (('2500', '7500'), ('2', '500', '7', '500'))
    """
    return answers(text, grouped=True)


_GROUPED = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")


def _without_commas(text: str) -> str:
    """The text without the commas of 1,000 outside brackets: (1,234) is a point."""
    for number in reversed(list(at_top_level(text, _GROUPED))):
        text = text[: number.start()] + number.group().replace(",", "") + text[number.end() :]
    return text


_OPEN = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle"}
_TOKEN = re.compile(r"\\(?:langle|rangle)(?![A-Za-z])|\\[{}]|\\.|[()\[\]{}]", re.DOTALL)


def at_top_level(text: str, pattern: re.Pattern) -> Iterator[re.Match]:
    """The matches of a pattern outside all brackets. (3,4] counts as a pair."""
    depth, start = 0, 0
    for token in [*_TOKEN.finditer(text), None]:
        if depth <= 0:
            yield from pattern.finditer(text, start, token.start() if token else len(text))
        if token is None:
            return
        closing = token.group() in _OPEN.values()
        depth += (token.group() in _OPEN) - closing
        # A command is text as well.
        start = token.end() if token.group() in _OPEN or closing else token.start()


def bracketed(text: str) -> tuple[str, list[str]] | None:
    r"""The brackets around a whole text and the parts between them; None where none are around all of it.

    >>> bracketed("(1, f(2,3)]"), bracketed(r"\langle 1, 2 \rangle"), bracketed("(1)+(2)")
    (('(]', ['1', 'f(2,3)']), ('()', ['1', '2']), None)
    """
    match = re.fullmatch(r"\s*([(\[]|\\langle(?![A-Za-z]))(.*)([)\]]|\\rangle)\s*", text, re.DOTALL)
    if match is None:
        return None
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += (token.group() in _OPEN) - (token.group() in _OPEN.values())
        if depth == 0 and token.end() < len(text.rstrip()):
            return None
    # A vector in angle brackets is a tuple.
    ends = f"{match[1]}{match[3]}".replace(r"\langle", "(").replace(r"\rangle", ")")
    parts = _parts(match[2])
    # Where commas are decimal, semicolons separate.
    return ends, [part.strip() for part in match[2].split(";")] if len(parts) == 1 and ";" in match[2] else parts


_COMMA = re.compile(",")


def _parts(text: str) -> list[str]:
    """The text between commas that are in no bracket."""
    parts, start = [], 0
    for comma in at_top_level(text, _COMMA):
        parts.append(text[start : comma.start()])
        start = comma.end()
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _signs(part: str) -> tuple[str, ...]:
    if len(_SIGNS.findall(part)) != 1:
        return (part,)
    # Not "+5" for 5: nothing stands before the sign there.
    return tuple(_SIGNS.sub(f" {sign} ", part).replace("  ", " ").strip().removeprefix("+").strip() for sign in "+-")


def unlabelled(answer: str, *, reference: bool = False) -> tuple[str | None, str]:
    r"""The label of `label = value` without blanks and braces, and the value; (None, answer) where it has none.

    A label is one name, in whatever dress, a function of anything, or a formula of several names. The value stands
    behind the last sign of equality; 5 = x has its label behind. 2x = 10 is an equation: its left side is no name.
    Of a reference no formula in small letters is a label: x + y = 9 may be a line, which 9 is not.

    >>> unlabelled(r"\angle B E A_1 = 90"), unlabelled("f(n)=n"), unlabelled("2^n"), unlabelled("2x = 10")
    (('\\angleBEA_1', '90'), ('f(n)', 'n'), (None, '2^n'), (None, '2x = 10'))
    >>> unlabelled("P(X>2)=0.2"), unlabelled(r"\approx 5"), unlabelled("5=x"), unlabelled("m+n = 12")
    (('P(X>2)', '0.2'), (None, '5'), ('x', '5'), ('m+n', '12'))
    """
    parts, signs = sides(answer)
    if len(parts) == 1 or not parts[-1]:
        return None, answer
    label, value = parts[0], parts[-1]
    if len(parts) == 2 and _NAME.fullmatch(value) and not letters(label):
        label, value = value, label
    # An exact value before its decimal is the answer.
    if signs[-1] == r"\approx" and parts[-2] and not letters(parts[-2]) and r"\text" not in parts[-2]:
        value, label = parts[-2], "" if len(parts) == 2 else label
    if not label:
        return None, value
    formula = len(set(letters(label))) > 1 and not (reference and re.search("[a-z]", "".join(letters(label))))
    # As a reference it is an equation, which other numbers solve.
    formula = formula or (not reference and re.match(r"\\l(?:floor|ceil)(?![A-Za-z])", label) is not None)
    if not (_NAME.fullmatch(label) or _NAMED.fullmatch(label) or formula or r"\text" in label):
        return None, value if not letters(label) and len(parts) > 1 and signs[0] == "=" and len(parts) == 2 else answer
    return re.sub(r"[\s{}]", "", label), value


def sides(text: str) -> tuple[list[str], list[str]]:
    r"""What stands between the signs of equality of a text, and the signs; one side where it is no chain of them.

    >>> sides(r"x = \frac{1}{3} \approx 0.33"), sides("x < 2")
    ((['x', '\\frac{1}{3}', '0.33'], ['=', '\\approx']), (['x < 2'], []))
    """
    signs = [] if any(True for _ in at_top_level(text, _ORDER)) else list(at_top_level(text, _EQUALS))
    starts, ends = [0, *(sign.end() for sign in signs)], [*(sign.start() for sign in signs), len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)], [sign.group() for sign in signs]


def letters(text: str) -> list[str]:
    """The names in a formula; Euler's number and i are none."""
    found = re.findall(r"\\text\{[^{}]*\}|\\([A-Za-z]+)|([A-Za-df-hj-z])", text)
    return [letter or command for command, letter in found if letter or command in GREEK]


def same_argument(answer: str, wanted: str) -> str:
    r"""A function's formula written in the reference's variable: f(x) = 2x is f(n) = 2n.

    >>> same_argument("f(x) = 2x + \\max(x, 1)", "f(n)=2 n"), same_argument("2x", "f(n)=2 n")
    ('f(n) = 2n + \\max(n, 1)', '2x')
    """
    here, there = (_FUNCTION.fullmatch(unlabelled(text)[0] or "") for text in (answer, wanted))
    if here is None or there is None or here[1] != there[1] or here[2] == there[2]:
        return answer
    old, new = here[2], there[2]
    # It would bind a name that is there already.
    if re.search(rf"(?<![A-Za-z\\]){new}(?![A-Za-z])", answer):
        return answer
    return re.sub(r"\\[A-Za-z]+|[A-Za-z]", lambda token: new if token.group() == old else token.group(), answer)
