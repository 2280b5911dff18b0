r"""Whether two formulas are equal: as exact numbers, at points, or to math-verify.

Numbers are compared exactly or to 40 digits, formulas with names at points of the domain that both have. What neither
settles (relations, sets, unknown functions) goes to math-verify's `verify`.
"""

import logging
import re
from typing import Any

from aepo.llm.grading.formulas import UnreadableError, formula
from aepo.llm.grading.values import ENOUGH_POINTS, as_function, close, equal_values, is_rounding, points, value_at


def compared(found: str, wanted: str) -> str:
    """Whether two formulas, as `written` writes them, are equal: "algebra" (they are), "rounded" or "wrong".

    Without a deadline. What is not read to its end is equal to nothing.
    """
    try:
        gold, prediction = formula(wanted), formula(found)
    except UnreadableError:
        return "wrong"
    if _are_expressions(gold, prediction):
        equal = equal_values(prediction, gold)
        if equal is not None:
            return "algebra" if equal else _rounded(found, wanted, prediction, gold)
    return "algebra" if _equal_relations(prediction, gold) else "wrong"


def _are_expressions(*parsed: Any) -> bool:
    from sympy import Expr

    return all(isinstance(one, Expr) for one in parsed)


def _rounded(found: str, wanted: str, prediction: Any, gold: Any) -> str:
    """ "rounded" if one side is a decimal that is the other's number to its last digit and to six, else "wrong"."""
    if prediction.free_symbols or gold.free_symbols:
        return "wrong"
    for text, other in ((found, gold), (wanted, prediction)):
        decimal = re.fullmatch(r"([+-]?)\s*([0-9]*)\.([0-9]+)", text.strip())
        if decimal and other.is_real:
            scale = 10 ** len(decimal[3])
            digits = int(decimal[2] + decimal[3]) * (-1 if decimal[1] == "-" else 1)
            if is_rounding(digits, scale, other):
                return "rounded"
    return "wrong"


def _equal_relations(prediction: Any, gold: Any) -> bool:
    """Whether relations, sets and what else is no expression are the same."""
    from sympy.core.relational import Relational

    # 2x = 10 is no number.
    if _are_expressions(prediction) != _are_expressions(gold):
        return False
    if isinstance(prediction, Relational) and isinstance(gold, Relational):
        same = _multiples(prediction, gold)
        if same is not None:
            return same
    excluded = _excluded(prediction, gold)
    if excluded is not None:
        return excluded
    from math_verify import verify

    # It warns that it runs without a deadline of its own; the caller's is around it.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    # With relations compared to sets, x > 2 is (2, \infty).
    right = verify([gold], [prediction], allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    return right and _equal_equations(gold, prediction)


def _excluded(prediction: Any, gold: Any) -> bool | None:
    """Whether sides of which one says what a name is not leave the same numbers; None where neither does."""
    from sympy import Ne, Set

    both = prediction, gold
    if not any(isinstance(one, Ne) for one in both):
        return None
    names = {name for one in both if not isinstance(one, Set) for name in one.free_symbols}
    if len(names) != 1:
        return False
    # math-verify has no set for it.
    left, right = (one if isinstance(one, Set) else one.as_set() for one in both)
    return bool(left == right)


def _multiples(prediction: Any, gold: Any) -> bool | None:
    """Whether both sides' difference is the other's times one number, with its sign; None if that does not decide."""
    from sympy import Eq, Ge, Gt, Ne

    def turned(relation: Any) -> tuple[type, Any]:
        """A relation as >, >=, = or != of one expression and 0."""
        kind = relation.func
        if kind in (Gt, Ge, Eq, Ne):
            return kind, relation.lhs - relation.rhs
        return relation.reversed.func, relation.rhs - relation.lhs

    if not _are_expressions(prediction.lhs, prediction.rhs, gold.lhs, gold.rhs):
        return None
    (kind, one), (wanted, other) = turned(prediction), turned(gold)
    if kind is not wanted:
        return None
    names = tuple(sorted(one.free_symbols | other.free_symbols, key=str))
    functions = as_function(one, names), as_function(other, names)
    if None in functions or not names:
        return None
    ratios = []
    for point in points(names, whole=False):
        values = [value_at(function, point) for function in functions]
        if None not in values and values[1] != 0:
            ratios.append(values[0] / values[1])
    if len(ratios) < ENOUGH_POINTS or not all(close(ratio, ratios[0], 18) for ratio in ratios):
        return None
    if kind in (Eq, Ne):
        return bool(ratios[0] != 0)
    return bool(ratios[0] > 0)


def _equal_equations(gold: Any, prediction: Any) -> bool:
    """Whether two equations that nobody can solve for a name are multiples of each other; True for all else."""
    from sympy import Eq, simplify, solve

    if not isinstance(gold, Eq) or not isinstance(prediction, Eq):
        return True
    ratio = simplify((gold.lhs - gold.rhs) / (prediction.lhs - prediction.rhs))
    # A product of names too: an equation of motion may be divided by the mass.
    if all(factor.is_number or factor.is_Symbol for factor in ratio.as_powers_dict()):
        return bool(ratio.is_finite is not False and ratio != 0)
    # Solutions that are equal were found equal; none are equal to none.
    return bool(solve(gold, gold.free_symbols))
