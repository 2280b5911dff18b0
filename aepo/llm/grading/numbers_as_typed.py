r"""Numbers that need no algebra: 1,080, -3.5, 3/4, \frac{3}{4}, 1.5e3, 1.5 \times 10^{3}."""

import re
from fractions import Fraction
from typing import NamedTuple

# A number longer than this is compared as text: Python refuses to convert ints of more than 4,300 digits.
MAX_CHARACTERS = 200

_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
# Exponents of three digits: Fraction("1e999999999") would fill the memory.
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<top>{_DECIMAL})\s*/\s*(?P<sign2>-?)(?P<bottom>{_DECIMAL})"
    rf"|\\frac\s*\{{\s*(?P<inner>-?)\s*(?P<ltop>{_DECIMAL})\s*\}}\s*\{{\s*(?P<inner2>-?)\s*(?P<lbottom>{_DECIMAL})\s*\}}"
    r"|\\frac\s*(?P<dtop>[0-9])\s*(?P<dbottom>[0-9])"
    rf"|(?P<value>{_DECIMAL})(?:[eE](?P<e>[+-]?[0-9]{{1,3}})"
    r"|\s*(?:\\times|\\cdot|\*|×)\s*10\s*\^\s*(?:\{\s*(?P<ten>[+-]?[0-9]{1,3})\s*\}|(?P<one>[0-9])))?)"
)


class PlainNumber(NamedTuple):
    """What a plain number says."""

    value: Fraction
    fraction: bool
    """Whether it is written as one."""
    scale: int
    """Its last digit counts 1 / scale; 1 for whole numbers and fractions."""


def plain_number(text: str) -> PlainNumber | None:
    """What a text says if it is a plain number; None for anything else, and for what is divided by 0.

    >>> plain_number("-1,080.50")
    PlainNumber(value=Fraction(-2161, 2), fraction=False, scale=100)
    """
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if match is None:
        return None
    signs = [match[name] for name in ("sign", "sign2", "inner", "inner2")]
    sign = -1 if signs.count("-") % 2 else 1
    top = match["top"] or match["ltop"] or match["dtop"]
    if top is not None:
        bottom = Fraction(_digits(match["bottom"] or match["lbottom"] or match["dbottom"]))
        return PlainNumber(sign * Fraction(_digits(top)) / bottom, True, 1) if bottom else None
    exponent = int(match["e"] or match["ten"] or match["one"] or 0)
    digits = _digits(match["value"])
    shown = len(digits.partition(".")[2]) - exponent
    return PlainNumber(sign * Fraction(digits) * Fraction(10) ** exponent, False, 10 ** max(shown, 0))


def _digits(decimal: str) -> str:
    return decimal.replace(",", "").rstrip(".")


def typed(text: str) -> str:
    """The text without what numbers are typed among: dollar signs, LaTeX's spacing, a final dot."""
    text = text.strip()
    if text.isdigit():
        return text
    text = re.sub(r",\\!\s*|\{,\}", ",", text)
    text = re.sub(r"\\?\$|\\[!,;: ]|~", " ", text)
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text)
    return text.strip().removesuffix(".").strip()
