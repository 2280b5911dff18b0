r"""Formulas as sympy reads them, by math-verify's parser.

The parser is given the text as it stands, without math-verify's own clean-up, which drops units, labels and trailing
letters: what it cannot read to the last sign is no formula.
"""

import re
import zlib
from functools import lru_cache
from typing import Any

from aepo.errors import AepoError
from aepo.llm.grading.too_costly import refusal

MAX_NESTING = 16
"""Of brackets: the parser takes exponentially long, and no answer comes near it."""


class UnreadableError(AepoError, ValueError):
    """A text that is no formula."""


# Decorated names and those that the parser takes for constants: it drops primes, and reads few indices.
_NAME = re.compile(
    r"\\(?:vec|hat|bar|tilde|dot|ddot|overline|overrightarrow|widehat|widetilde|mathcal|mathfrak|angle|triangle)(?![A-Za-z])"
    r"\s*(?:\{[^{}]*\}|[A-Za-z]+)'*(?:_(?:\w|\{[^{}]*\}))?'*"
    r"|(?:(?<![A-Za-z\\])[A-Za-z]|\\(?:alpha|beta|gamma|delta|epsilon|varepsilon|zeta|eta|theta|vartheta|iota|kappa|lambda"
    r"|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|varphi|chi|psi|omega|Gamma|Delta|Theta|Lambda|Xi|Sigma|Phi|Psi|Omega|ell|hbar)"
    r"(?![A-Za-z]))(?:'+|_(?:\w|\{[^{}]*\})'*|'+_(?:\w|\{[^{}]*\}))"
    r"|(?<![A-Za-z\\])I(?![A-Za-z])"
)
_DECIMAL = re.compile(r"(?<![0-9.])([0-9]*)\.([0-9]+)(?![0-9.])")
_DEGREE = re.compile(
    r"([0-9.]+|\([^()]*\)|\\frac\{[^{}]*\}\{[^{}]*\}|(?<![A-Za-z])[A-Za-z]|\\[a-z]+)\s*\^\\circ(?![A-Za-z])"
)
# x(y) is a product; f(x) is a function of x.
_PRODUCT = re.compile(r"(?<![A-Za-z\\])([a-eijk-zA-EI-OR-Z])\((?=[a-z]\))")


def _readable(text: str) -> str:
    r"""The text without what the parser would misread.

    >>> _readable("0.5x"), _readable(r"\sin 30^\circ")
    ('(\\frac{05}{10})x', '\\sin (30 \\cdot \\frac{\\pi}{180})')
    """
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    text = re.sub(r"^\s*([+-]?[0-9.]+)[eE]\+?(-?[0-9]+)\s*$", r"\1 \\times 10^{\2}", text)
    text = _DEGREE.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
    if re.search(r"[0-9]\.[0-9]+\.[0-9]", text):
        raise UnreadableError("a number with two points")
    text = _DECIMAL.sub(lambda d: rf"(\frac{{{d[1]}{d[2]}}}{{1{'0' * len(d[2])}}})", text)
    text = _NAME.sub(lambda name: rf"\xi_{{{zlib.crc32(_key(name.group()).encode())}}}", text)
    # Of a number the parser drops it: 90' are minutes of arc.
    if "'" in text:
        raise UnreadableError("a prime behind no name")
    return _PRODUCT.sub(r"\1 \\cdot (", text)


def _key(name: str) -> str:
    r"""A name without braces, blanks and commands of looks: x_{\max} and x_{\text{max}} are one."""
    return re.sub(r"\\text|[\s{}\\]", "", name)


@lru_cache(maxsize=4096)
def formula(text: str) -> Any:
    """What a formula is to sympy. References come again with each response of their group, hence the cache.

    Raises:
        UnreadableError: it cannot be read to its last sign, or would cost too much.
    """
    from latex2sympy2_extended import latex2sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig

    refused = refusal(text) or ("brackets in brackets" if _nesting(text) > MAX_NESTING else None)
    if refused or r"\text" in text:
        raise UnreadableError(refused or "it holds words")
    config = ConversionConfig(interpret_as_mixed_fractions=False, lowercase_symbols=False)
    try:
        parsed = latex2sympy(_readable(text), normalization_config=None, conversion_config=config)
        return _with_constants(parsed)
    except (RecursionError, MemoryError):
        raise
    # The parser raises Exception itself, and sympy anything, on what a model writes.
    except Exception as problem:
        raise UnreadableError(f"{type(problem).__name__}: {problem}") from problem


def _nesting(text: str) -> int:
    depth = deepest = 0
    for sign in re.findall(r"[()\[\]{}]", text):
        depth += 1 if sign in "([{" else -1
        deepest = max(deepest, depth)
    return deepest + 2 * text.count("||")


def _with_constants(parsed: Any) -> Any:
    """The parsed formula with i as the imaginary unit, and with sums and the like worked out."""
    from sympy import Basic, Derivative, Expr, I, Symbol, nan, zoo

    if not isinstance(parsed, Basic):
        return parsed
    if parsed.has(Derivative):
        # dv/dt is a name: sympy, to which v does not depend on t, would take it for 0.
        parsed = parsed.replace(
            lambda one: isinstance(one, Derivative) and one.expr.is_Symbol and one.expr not in one.variables,
            lambda one: Symbol(str(one)),
        )
    if isinstance(parsed, Expr):
        parsed = parsed.doit()
    unit = Symbol("i")
    parsed = parsed.subs(unit, I) if parsed.has(unit) else parsed
    if parsed.has(nan, zoo):
        raise UnreadableError("it is divided by 0")
    return parsed


GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega hbar ell".split()
)
"""Commands of letters that stand for something; pi is a number."""


def names(text: str) -> frozenset[str]:
    r"""The letters that stand for something in a formula, its words left out; Euler's number and i are none.

    >>> sorted(names(r"a e^{-\lambda t} \text{cm}"))
    ['a', 'lambda', 't']
    """
    text = re.sub(r"\\(?:text|operatorname|mathbb)\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}", " ", text)
    found = re.findall(r"\\([a-zA-Z]+)|([a-zA-Z])", text)
    return frozenset(({command for command, _ in found} & GREEK) | ({letter for _, letter in found} - {"", "e", "i"}))
