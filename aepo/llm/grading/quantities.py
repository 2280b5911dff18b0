r"""Values with units and words: what both sides state must agree, and what one side leaves out must be harmless."""

from dataclasses import dataclass

from aepo.llm.grading import algebra
from aepo.llm.grading.formulas import names
from aepo.llm.grading.kinds import unspaced
from aepo.llm.grading.numbers_as_typed import plain_number
from aepo.llm.grading.units import Unit, compound, leading, split
from aepo.llm.grading.values import ROUNDING, is_rounding, parsed_number
from aepo.llm.grading.verdict import RIGHT
from aepo.llm.grading.wording import WORD, Worded, harmless, is_date, same_words, telling, worded


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a benchmark states beside its answer."""

    unit: Unit | None = None
    """That the answer is in."""
    absolute: float = 0.0
    """How far from the answer a number may be; >= 0."""
    relative: float = 0.0
    """The same as a fraction of the answer; >= 0."""

    @property
    def tolerance(self) -> bool:
        """Whether a number may be off."""
        return bool(self.absolute or self.relative)


NOTHING = Allowed()


def quantity_reason(found: str, wanted: str, allowed: Allowed, after: str) -> str:
    """A value with a unit, with words, or with neither."""
    taken = names(wanted)
    value, unit = compound(wanted) or split(wanted, bare=False)
    if allowed.unit is not None and unit is None:
        unit = allowed.unit
    found_value, found_unit = compound(found) or split(found, bare=True, names=taken)
    if found_unit is None and not WORD.search(found):
        found_unit = leading(after) if unit is not None else None
    if WORD.search(value) or ((found_unit is None or unit is None) and WORD.search(found_value)):
        return _worded_quantity(found, wanted, allowed)
    if unit is None:
        if found_unit is None or WORD.search(found_value):
            return _value(found, value, allowed)
        # Whatever unit is stated, nobody said which is right; but 50% may be 50 or 0.5, and 0.5% is neither.
        reason = _value(found_value, value, allowed)
        if found_unit.dimension or (reason in RIGHT and abs(numeric_value(value) or 0.0) >= 1):
            return reason
        reason = "wrong" if reason in RIGHT else reason
        return _converted(found_value, value, found_unit.factor, allowed, reason)
    if found_unit is None:
        reason = _value(found_value, value, allowed)
        # A percentage is a number: 0.175 is 17.5%.
        return (
            reason if reason in RIGHT or unit.dimension else _converted(found, value, 1 / unit.factor, allowed, reason)
        )
    if found_unit.dimension != unit.dimension:
        return "wrong: its unit measures something else"
    ratio = found_unit.factor / unit.factor
    if abs(ratio - 1) <= ROUNDING:
        return _value(found_value, value, allowed)
    return _converted(found_value, value, ratio, allowed, "wrong: in the unit it states")


def _worded_quantity(found: str, wanted: str, allowed: Allowed) -> str:
    """Values among words, which must be the same words or harmless ones."""
    given, reference = worded(found), worded(wanted)
    if is_date(given.spoken) and is_date(reference.spoken):
        same = sorted(telling(given.spoken)) == sorted(telling(reference.spoken))
        numbers = [sorted(filter(None, side.formulas)) for side in (given, reference)]
        return "exact" if same and numbers[0] == numbers[1] else "wrong"
    if given.spoken and reference.spoken:
        if same_words(given.spoken, reference.spoken):
            return _parts(given, reference, allowed)
        # One side's words may all be fillers.
        if telling(given.spoken) and telling(reference.spoken):
            return "wrong"
    if (not any(given.formulas) and not telling(given.spoken)) or (
        not any(reference.formulas) and telling(reference.spoken)
    ):
        return "wrong"
    for side in (given, reference):
        # Words in front or between make another value of what follows.
        if any(telling(words) for words in side.words[:-1]) or (side.formulas[0] == "" and telling(side.words[0])):
            return "wrong"
        if not harmless(side.spoken):
            return "wrong"
    return _value(_joined(given), _joined(reference), allowed)


def _joined(side: Worded) -> str:
    return " ".join(filter(None, side.formulas))


def _parts(given: Worded, reference: Worded, allowed: Allowed) -> str:
    """Formulas between the same words, one by one."""
    one, other = ([formula for formula in side.formulas if formula] for side in (given, reference))
    if len(one) != len(other) or [bool(telling(w)) for w in given.words] != [bool(telling(w)) for w in reference.words]:
        return "exact" if unspaced(_joined(given)) == unspaced(_joined(reference)) and not one else "wrong"
    worst = "exact"
    for left, right in zip(one, other, strict=True):
        reason = "exact" if unspaced(left) == unspaced(right) else _value(left, right, allowed)
        if reason not in RIGHT:
            return reason
        worst = max(worst, reason, key=RIGHT.index)
    return worst


def _value(found: str, wanted: str, allowed: Allowed) -> str:
    """A formula without words, within the tolerance if there is one."""
    reason = value_reason(found, wanted)
    return reason if reason in RIGHT or not allowed.tolerance else _converted(found, wanted, 1.0, allowed, reason)


def value_reason(found: str, wanted: str) -> str:
    """The reason for two formulas: as plain numbers if both are, else by algebra."""
    reason = same_number(found, wanted)
    if reason is None:
        reason = "exact" if unspaced(found) == unspaced(wanted) else algebra.compared(found, wanted)
    return reason


def same_number(found: str, wanted: str) -> str | None:
    """The reason, "exact", "rounded" or "wrong", for two plain numbers; None for anything else.

    >>> same_number("1,080", "1080"), same_number("0.333333", "1/3"), same_number("x", "1")
    ('exact', 'rounded', None)
    """
    number, reference = plain_number(found), plain_number(wanted)
    if number is None or reference is None:
        return None
    if number.value == reference.value:
        return "exact"
    for decimal, other in ((number, reference), (reference, number)):
        if other.fraction and not decimal.fraction and decimal.scale > 1:
            if is_rounding(int(decimal.value * decimal.scale), decimal.scale, other.value):
                return "rounded"
    return "wrong"


def _converted(found: str, wanted: str, ratio: float, allowed: Allowed, otherwise: str) -> str:
    """Whether a number times `ratio` is the reference's, within its tolerance, or to six digits if converted."""
    number, reference = numeric_value(found), numeric_value(wanted)
    if number is None or reference is None:
        return otherwise
    off = abs(number * ratio - reference)
    if ratio != 1.0 and off <= float(ROUNDING) * abs(reference):
        return "rounded"
    # A decimal like 4.3 is not exactly 0.1 away from 4.2 in binary.
    slack = 1 + 1e-9
    return "tolerance" if off <= max(allowed.absolute, allowed.relative * abs(reference)) * slack else otherwise


def numeric_value(text: str) -> float | None:
    """The real number that a formula is; None if it is none, or cannot be read."""
    number = plain_number(text)
    return float(number.value) if number is not None else parsed_number(text)
