"""What a model writes that sympy would not come back from: seen from the text alone, before anything parses it."""

import re

from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS

# 10^99999 and 99999! still compare in a third of a second; ten times more costs a whole deadline.
MAX_LITERAL_DIGITS = 5
# e^{-x^{2}} nests twice; what nests three times is a tower whatever its letters, since n/n simplifies to 1.
MAX_EXPONENT_DEPTH = 2


def refusal(text: str) -> str | None:
    """Why an answer is not worth sympy's time (length, exponent towers, huge factorials), or None.

    Not complete: what gets through costs a deadline. Conservative: a few honest answers, such as 2^{2^{3}},
    are turned away too and only count when they equal the reference as text.

    >>> refusal("5^5^5^5"), refusal("2^{1009}"), refusal("(10^9)!")
    ('exponent tower', None, 'factorial')
    """
    if len(text) > MAX_ANSWER_CHARACTERS:
        return f"answer of more than {MAX_ANSWER_CHARACTERS:,} characters"
    if unbalanced(text):
        return "unbalanced braces"
    # What remains as letters is a name, so what holds no letters is a number.
    flat = re.sub(r"\\(?:left|right|[dt]?frac|cdot|times|[!,;: ])(?![a-zA-Z])|\s", "", text)
    flat = flat.replace("**", "^")
    huge = rf"[0-9]{{{MAX_LITERAL_DIGITS + 1},}}"
    if re.search(rf"\^[{{(\[+-]*{huge}|[0-9][eE][+-]?{huge}", flat):
        return "exponent of too many digits"
    numeric = not re.search("[a-zA-Z]", flat)
    if re.search(rf"!!|{huge}!", flat) or (numeric and "^" in flat and re.search(r"[)}\]]!", flat)):
        return "factorial"
    for caret in re.finditer(r"\^", flat):
        exponent, after = _exponent(flat, caret.end())
        tower = "^" in exponent or "!" in exponent or after == "^"
        if tower and not re.search("[a-zA-Z]", exponent):
            return "exponent tower"
        if _exponent_depth(exponent) >= MAX_EXPONENT_DEPTH:
            return "exponent tower"
    return None


def unbalanced(text: str) -> bool:
    """Whether braces close before they open, or stay open: such a text would break out of its box."""
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth < 0:
            return True
    return depth != 0


def _exponent(flat: str, start: int) -> tuple[str, str]:
    """The exponent that starts there, a group or a number or one character, and the character after it."""
    if flat[start : start + 1] in ("{", "("):
        depth, end = 1, start + 1
        while depth and end < len(flat):
            depth += (flat[end] in "{(") - (flat[end] in "})")
            end += 1
    else:
        number = re.compile(r"[+-]?[0-9]+").match(flat, start)
        end = number.end() if number else start + 1
    return flat[start:end], flat[end : end + 1]


def _exponent_depth(exponent: str) -> int:
    """How many exponents nest inside this one, counted by the groups that open after a caret."""
    depth, deepest, groups = 0, 0, []
    for at, character in enumerate(exponent):
        if character in "{(":
            groups.append(at > 0 and exponent[at - 1] == "^")
            depth += groups[-1]
        elif character in "})" and groups:
            depth -= groups.pop()
        deepest = max(deepest, depth + (character == "^"))
    return deepest
