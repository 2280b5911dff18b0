"""Values of sympy's expressions: exact, to many digits, or at points of the domain that two formulas share."""

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import Any

from aepo.llm.grading.formulas import UnreadableError, formula

# A fraction and its decimal agree to six digits: 0.333333 is 1/3, 0.33 is not.
ROUNDING = Fraction(1, 10**6)
DIGITS = 50
"""Of numbers that are not rational, when they are compared."""
_INTEGERS = frozenset("i j k l m n p q r s N M K".split())
"""Names of whole numbers by custom, which the formulas of roundings are about."""
ENOUGH_POINTS = 3
"""Where both formulas are defined: fewer say nothing."""


def equal_values(one: Any, other: Any) -> bool | None:
    """Whether two sympy expressions have the same value: numbers to DIGITS digits, others at every point where both are
    real; None where that cannot be said."""
    if one == other:
        return True
    if one.is_Rational and other.is_Rational:
        return False
    names = tuple(sorted(one.free_symbols | other.free_symbols, key=str))
    if not names:
        values = number_of(one), number_of(other)
        return None if None in values else close(*values, DIGITS - 10)
    functions = as_function(one, names), as_function(other, names)
    if None in functions:
        return None
    agreed = 0
    rounded = _of_integers(one) and _of_integers(other)
    for point in points(names, whole=rounded and all(str(name) in _INTEGERS for name in names)):
        values = [value_at(function, point) for function in functions]
        if None in values:
            continue
        if not close(*values, 18):
            return False
        agreed += 1
    return True if agreed >= ENOUGH_POINTS else None


def number_of(expression: Any) -> Any:
    """The value of an expression without names, or None if it has none."""
    from sympy import N, nan, zoo

    value = N(expression, DIGITS)
    if not value.is_number or value.has(nan, zoo) or not value.as_real_imag()[0].is_Number:
        return None
    return value


def close(one: Any, other: Any, digits: int) -> bool:
    if one == other:
        return True
    size = max(abs(one), abs(other))
    # Infinite ones are equal or not.
    if not size < math.inf:
        return False
    return bool(abs(one - other) <= size * 10.0**-digits) or bool(size < 10.0 ** (-2 * digits))


@lru_cache(maxsize=1024)
def as_function(expression: Any, names: tuple) -> Callable[..., Any] | None:
    """The expression as a function of its names, or None if it holds what has no value (an unknown function)."""
    from sympy import Derivative, Integral, Limit, Product, Sum, lambdify
    from sympy.core.function import AppliedUndef

    if expression.has(AppliedUndef, Derivative, Integral, Limit, Sum, Product):
        return None
    return lambdify(names, expression, "mpmath")


def _of_integers(expression: Any) -> bool:
    from sympy import Mod, ceiling, floor

    return expression.has(ceiling, floor, Mod)


# Small and large, either sign, inside and outside (-1, 1); no two related.
_REALS = (
    0.6180339,
    2.2360679,
    -0.3819660,
    3.6055512,
    -1.7320508,
    0.2360679,
    11.3137085,
    -7.0710678,
    101.9803902,
    1009.3017,
)
_WHOLE = (7, 4, 9, 5, 12, 6, 3, 10)


def points(names: tuple, *, whole: bool) -> Iterator[tuple]:
    """Points to compare at, the same for the same names.

    Whole ones alone where both formulas round, else behind others, for (-1)^n has no other.
    """
    draw = random.Random(len(names))
    if not whole:
        for at in range(len(_REALS)):
            yield tuple(_REALS[(at + 3 * j) % len(_REALS)] * (1 + j / 7) for j in range(len(names)))
        for _ in range(4 * (len(names) > 1)):
            yield tuple(draw.uniform(0.1, 3.0) for _ in names)
    for at in range(len(_WHOLE) if whole else ENOUGH_POINTS + 1):
        # Falling, then rising: of n choose k both cases count.
        yield tuple(_WHOLE[(at + 3 * j) % len(_WHOLE)] + 2 * (len(names) - j) for j in range(len(names)))


def value_at(function: Callable[..., Any], point: tuple) -> Any:
    """The real value there, or None if it has none."""
    import mpmath

    try:
        with mpmath.workdps(30):
            value = mpmath.mpmathify(function(*(mpmath.mpf(x) for x in point)))
            if not mpmath.isfinite(value) or abs(mpmath.im(value)) > 1e-25 * abs(value):
                return None
            return mpmath.re(value)
    except (ArithmeticError, ValueError, TypeError, AttributeError, NameError, mpmath.libmp.NoConvergence):
        return None


def is_rounding(digits: int, scale: int, value: Any) -> bool:
    """Whether digits / scale is a number, cut off or rounded after its last digit, and to six digits at least.

    >>> third = Fraction(1, 3)
    >>> is_rounding(333333, 10**6, third), is_rounding(333334, 10**6, third), is_rounding(33, 100, third)
    (True, False, False)
    """
    if not isinstance(value, Fraction):
        number = number_of(value)
        if number is None or (not number.is_Float and not number.is_Rational) or abs(digits) >= 10**30:
            return False
        value = Fraction(str(number)) if number.is_Float else Fraction(int(number.p), int(number.q))
    scaled = value * scale
    if scaled.denominator == 1 or abs(digits) < 10**5:
        return False
    near = digits in (math.trunc(scaled), math.floor(scaled + Fraction(1, 2)))
    return near and abs(digits - scaled) <= ROUNDING * abs(scaled)


def parsed_number(text: str) -> float | None:
    """The real number that a formula, as `written` writes it, is; None if it is none."""
    from sympy import Expr

    try:
        parsed = formula(text)
        number = number_of(parsed) if isinstance(parsed, Expr) and not parsed.free_symbols else None
    except UnreadableError:
        return None
    if number is None or number.has(1j) or number.as_real_imag()[1] != 0:
        return None
    value = float(number.as_real_imag()[0])
    return value if math.isfinite(value) else None
