r"""Several answers in one text: `1, 3 and 5`, `x = 1 \text{ or } x = 3`, `\{1 \pm \sqrt{5}, -2\}`, `(1,2), (3,4)`."""

import re

_LISTING = re.compile(
    r"\\(?:text|textrm|mbox|mathrm)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])"
    r"|\\(?:lor|vee|land|wedge|quad|qquad)(?![A-Za-z])|;|\\\\(?!\w)",
)
_BRACKET = re.compile(r"\\[{}]|\\.|[()\[\]{},]", re.DOTALL)
# A name or a function of names: x, x_1, \angle B E A_{1}, f(n), (x, y).
_LABEL = re.compile(
    r"\s*(?![0-9.\s]*=)(?P<name>[A-Za-z0-9\\_{}()',\s]*[A-Za-z][A-Za-z0-9\\_{}()',\s]*?)\s*(?:=(?!=)|\\in(?![a-z]))"
)
_FUNCTION = re.compile(r"([A-Za-z])\(([A-Za-z])\)")
# With more signs than one it would not be clear which go together.
_SIGNS = re.compile(r"\\(?:pm|mp)(?![A-Za-z])|±|∓")


def plain(text: str) -> str:
    r"""The text without dollar signs around formulas and without \left and \right; \$ stays."""
    return re.sub(r"(?<!\\)\$|\\(?:left|right)(?![A-Za-z])", "", text).strip()


def answers(text: str) -> tuple[str, ...]:
    r"""The answers that a text lists, in its order; one where it lists none.

    >>> answers(r"$\{1 \pm \sqrt{5}, -2\}$"), answers(r"x=1 \text{ or } 3"), answers("(1,2), (3,4)")
    (('1 + \\sqrt{5}', '1 - \\sqrt{5}', '-2'), ('x=1', '3'), ('(1,2)', '(3,4)'))
    """
    text = _LISTING.sub(",", plain(text)).strip(" ,").removesuffix(".")
    member = re.match(r"[A-Za-z](?:_?\w)?\s*(?:\\in|=)\s*(?=\\\{)", text)
    text = text[member.end() :] if member else text
    if text.startswith(r"\{") and text.endswith(r"\}") and len(_parts(text)) == 1 and r"\}" not in text[2:-2]:
        text = text[2:-2]
    return tuple(answer for part in _parts(text) for answer in _signs(part))


def grouped_answers(text: str) -> tuple[str, ...]:
    """As `answers`, with the commas of 1,000 not taken for separators.

    >>> grouped_answers("2,500, 7,500"), answers("2,500, 7,500")
    (('2500', '7500'), ('2', '500', '7', '500'))
    """
    return answers(re.sub(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])", lambda n: n.group().replace(",", ""), text))


def _parts(text: str) -> list[str]:
    """The text between commas that are in no bracket. (3,4] counts as a pair."""
    parts, depth, start = [], 0, 0
    for token in _BRACKET.finditer(text):
        if token.group() in ("(", "[", "{", r"\{"):
            depth += 1
        elif token.group() in (")", "]", "}", r"\}"):
            depth -= 1
        elif token.group() == "," and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _signs(part: str) -> tuple[str, ...]:
    if len(_SIGNS.findall(part)) != 1:
        return (part,)
    # Not "+5" for 5: nothing stands before the sign there.
    return tuple(_SIGNS.sub(f" {sign} ", part).replace("  ", " ").strip().removeprefix("+").strip() for sign in "+-")


def unlabelled(answer: str) -> tuple[str | None, str]:
    r"""The label of `label = value` without blanks and braces, and the value; (None, answer) where it has none.

    >>> unlabelled(r"\angle B E A_{1} = 90"), unlabelled("f(n)=n"), unlabelled("2^n"), unlabelled("x + y = 2")
    (('\\angleBEA_1', '90'), ('f(n)', 'n'), (None, '2^n'), (None, 'x + y = 2'))
    """
    label = _LABEL.match(answer)
    if label is None or not answer[label.end() :].strip():
        return None, answer
    return re.sub(r"[\s{}]", "", label["name"]), answer[label.end() :].strip()


def same_argument(answer: str, wanted: str) -> str:
    r"""A function's formula written in the reference's variable: f(x) = 2x is f(n) = 2n.

    >>> same_argument("f(x) = 2x + \\max(x, 1)", "$f(n)=2 n$"), same_argument("2x", "f(n)=2 n")
    ('f(n) = 2n + \\max(n, 1)', '2x')
    """
    here, there = (_FUNCTION.fullmatch(unlabelled(plain(text))[0] or "") for text in (answer, wanted))
    if here is None or there is None or here[1] != there[1] or here[2] == there[2]:
        return answer
    old, new = here[2], there[2]
    # It would bind a name that is there already.
    if re.search(rf"(?<![A-Za-z\\]){new}(?![A-Za-z])", answer):
        return answer
    return re.sub(r"\\[A-Za-z]+|[A-Za-z]", lambda token: new if token.group() == old else token.group(), answer)
