r"""Labelled answers: over seventy kinds of references, with equal answers and with answers wrong in one place.

All values come from a seed, and every label from the parts that an answer was written from (`answer_pairs.case`), never
from a checker. What the checkers grant or refuse on purpose is not in it: conversions of units (only evaluation grants
them), a fraction of 1 for a percentage, decimals of less than six digits for a fraction.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random

from answer_pairs import formulas, numbers, quantities, relations, statements, values, words
from answer_pairs.case import Case

KINDS: dict[str, Callable[[Random], Case]] = {
    function.__name__.replace("_", " "): function
    for function in (
        numbers.integers,
        numbers.decimals,
        numbers.fractions,
        numbers.mixed_numbers,
        numbers.repeating_decimals,
        numbers.powers_of_ten,
        numbers.magnitudes,
        numbers.number_bases,
        numbers.ratios,
        quantities.percent,
        quantities.money,
        quantities.lengths,
        quantities.masses,
        quantities.durations,
        quantities.speeds,
        quantities.areas_and_volumes,
        quantities.things,
        quantities.compound_quantities,
        quantities.dimensions,
        quantities.degrees,
        quantities.times_of_day,
        quantities.dates,
        words.opposite_words,
        words.numbers_with_words,
        words.names,
        words.yes_and_no,
        words.choices,
        values.square_roots,
        values.nested_roots,
        values.rationalised_denominators,
        values.multiples_of_pi,
        values.logarithms,
        values.exponentials,
        values.trigonometric_values,
        values.inverse_trigonometry,
        values.complex_numbers,
        values.complex_in_polar_form,
        values.factorials,
        values.binomials,
        values.powers,
        formulas.polynomials,
        formulas.linear_coefficients,
        formulas.rational_functions,
        formulas.radical_functions,
        formulas.several_variables,
        formulas.quotients_of_names,
        formulas.subscripted_names,
        formulas.floors_and_ceilings,
        formulas.function_formulas,
        relations.lines,
        relations.planes,
        relations.labels,
        relations.labelled_references,
        relations.inequalities,
        relations.intervals,
        relations.unions,
        relations.sets,
        relations.lists,
        relations.plus_and_minus,
        relations.tuples,
        relations.points_with_fractions,
        relations.matrices,
        relations.vectors,
        relations.infinity,
        statements.unicode_numbers,
        statements.unicode_formulas,
        statements.looks,
        statements.no_backslashes,
        statements.hedges,
        statements.several_boxes,
        statements.final_marks,
    )
}
"""What draws a case, by the kind of its reference."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A reference and a response, with what it deserves."""

    kind: str
    reference: str
    """As a data file holds it."""
    response: str
    """The model's whole text."""
    right: bool
    made_from: str
    """The right response that a wrong one was made from; "" for a right one."""
    change: str
    """What was changed for it; "" for a right one."""


def pairs(seed: int, *, values: int = 4, answers: int = 2, kinds: Collection[str] = tuple(KINDS)) -> list[Pair]:
    """Pairs of every kind, half of them right and half wrong in each; the same for the same arguments.

    Args:
        seed: of all that is drawn.
        values: references of each kind, >= 1.
        answers: right ones and wrong ones, each, to a reference, at most.
        kinds: names of `KINDS`.

    >>> some = pairs(0, values=1, kinds=["integers"])
    >>> [one.right for one in some], some == pairs(0, values=1, kinds=["integers"])
    ([True, True, False, False], True)
    """
    found = []
    for kind in kinds:
        # Of its own seed, so that one more kind leaves the others as they are.
        draw = Random(f"{seed} {kind}")
        for _ in range(values):
            case = KINDS[kind](draw)
            count = min(answers, len(case.right), len(case.wrong))
            for response in draw.sample(case.right, count):
                found.append(
                    Pair(kind=kind, reference=case.reference, response=response, right=True, made_from="", change="")
                )
            for response, made_from, change in draw.sample(case.wrong, count):
                found.append(
                    Pair(
                        kind=kind,
                        reference=case.reference,
                        response=response,
                        right=False,
                        made_from=made_from,
                        change=change,
                    )
                )
    return found
