r"""Units of measurement in answers: enough to tell minutes from hours and 60 cm from 0.6 m.

A unit that is not in the table is no unit here, so that its words are left to the comparison of values, which ignores
them. Only what could not be read as a variable counts: wrapped in \text{...} or the like, a sign (%, degrees, $), or,
where the caller says so, plain letters after a plain number.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from aepo.llm.grading.numbers_as_typed import plain_number, typed

# Longer texts end in no unit; this bounds the work.
MAX_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A unit as a multiple of base units."""

    factor: float
    """How many of the base units it is."""
    dimension: tuple[tuple[str, int], ...]
    """(base unit, power), sorted; () for a pure number such as percent."""


def _table() -> dict[str, tuple[float, dict[str, int]]]:
    energy, force, pressure = {"kg": 1, "m": 2, "s": -2}, {"kg": 1, "m": 1, "s": -2}, {"kg": 1, "m": -1, "s": -2}
    volt = {"kg": 1, "m": 2, "s": -3, "A": -1}
    symbols = {
        "m": (1.0, {"m": 1}),
        "g": (1e-3, {"kg": 1}),
        "s": (1.0, {"s": 1}),
        "J": (1.0, energy),
        "eV": (1.602176634e-19, energy),
        "cal": (4.184, energy),
        "N": (1.0, force),
        "W": (1.0, energy | {"s": -3}),
        "Pa": (1.0, pressure),
        "Hz": (1.0, {"s": -1}),
        "V": (1.0, volt),
        "L": (1e-3, {"m": 3}),
        "mol": (1.0, {"mol": 1}),
        "pc": (3.0856775814913673e16, {"m": 1}),
        "yr": (31557600.0, {"s": 1}),
    }
    names = {
        "meter": "m", "metre": "m", "gram": "g", "second": "s", "joule": "J", "electronvolt": "eV", "calorie": "cal",
        "newton": "N", "watt": "W", "pascal": "Pa", "hertz": "Hz", "volt": "V", "liter": "L", "litre": "L",
        "mole": "mol", "parsec": "pc", "year": "yr",
    }  # fmt: skip
    small = {"k": 1e3, "M": 1e6, "G": 1e9, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9, "p": 1e-12, "": 1.0}
    large = {"kilo": 1e3, "mega": 1e6, "giga": 1e9, "centi": 1e-2, "milli": 1e-3, "micro": 1e-6, "nano": 1e-9, "": 1.0}
    units = {prefix + symbol: (f * unit[0], unit[1]) for symbol, unit in symbols.items() for prefix, f in small.items()}
    units |= {
        prefix + name: (f * symbols[symbol][0], symbols[symbol][1])
        for name, symbol in names.items()
        for prefix, f in large.items()
    }
    length, mass, time, angle, money = {"m": 1}, {"kg": 1}, {"s": 1}, {"rad": 1}, {"$": 1}
    degree = 0.017453292519943295
    return units | {
        "%": (0.01, {}), "percent": (0.01, {}),
        "angstrom": (1e-10, length), "inch": (0.0254, length), "in": (0.0254, length), "unit": (1.0, {"unit": 1}),
        "inches": (0.0254, length), "foot": (0.3048, length),
        "feet": (0.3048, length), "ft": (0.3048, length), "yard": (0.9144, length), "mile": (1609.344, length),
        "mi": (1609.344, length), "kg": (1.0, mass), "pound": (0.45359237, mass), "lb": (0.45359237, mass),
        "ounce": (0.028349523125, mass), "ton": (907.18474, mass), "tonne": (1000.0, mass),
        "amu": (1.66053906660e-27, mass),
        "sec": (1.0, time), "min": (60.0, time), "minute": (60.0, time), "h": (3600.0, time), "hr": (3600.0, time),
        "hour": (3600.0, time), "day": (86400.0, time), "week": (604800.0, time), "month": (2629800.0, time),
        "mph": (0.44704, {"m": 1, "s": -1}), "kph": (1 / 3.6, {"m": 1, "s": -1}),
        "l": (1e-3, {"m": 3}), "ml": (1e-6, {"m": 3}), "kmh": (1 / 3.6, {"m": 1, "s": -1}), "erg": (1e-7, energy),
        "K": (1.0, {"K": 1}), "kelvin": (1.0, {"K": 1}), "degC": (1.0, {"degC": 1}), "degF": (1.0, {"degF": 1}),
        "deg": (degree, angle), "degree": (degree, angle), "rad": (1.0, angle), "radian": (1.0, angle),
        "arcmin": (degree / 60, angle), "arcminute": (degree / 60, angle), "arcsec": (degree / 3600, angle),
        "arcsecond": (degree / 3600, angle), "$": (1.0, money), "dollar": (1.0, money), "usd": (1.0, money),
        "cent": (0.01, money), "gallon": (3.785411784e-3, {"m": 3}),
    }  # fmt: skip


UNITS = _table()
"""(factor, powers of base units) by name or symbol; longer names also in the plural and in any case."""

_WRAPPER = re.compile(r"\\(?:text|textrm|textbf|mathrm|mathbf|mbox|operatorname|rm)\s*(?:\{([^{}]*)\}|(?=\s))")
_DEGREES = re.compile(r"(?:\{\s*\})?\s*\^\s*\{?\s*\\circ\s*\}?|°|\\degree(?![a-zA-Z])")
_SPACING = re.compile(r"\\[,;:! ]|~|\\(?:quad|qquad|cdot|times)(?![a-zA-Z])|·")
_TOKEN = re.compile(
    r"\s*(?:(?P<over>/|per\b)|(?P<name>[A-Za-z]+|%|\$)\s*(?:\^\s*\{?\s*(?P<power>[+-]?[1-9])\s*\}?)?)\s*"
)
_START = re.compile(r"\\(?:text|textrm|textbf|mathrm|mathbf|mbox|operatorname|rm|AA|mu|%|\$|degree)(?![a-zA-Z])|[%°Å]")
_BARE = re.compile(r"(?<![A-Za-z\\])[A-Za-zµμ]")


def parse(text: str) -> Unit | None:
    r"""The unit that a text is, or None if it is anything else.

    >>> parse(r"\mathrm{~km} / \mathrm{h}") == parse("kmh"), parse("minutes").factor, parse("apples")
    (True, 60.0, None)
    """
    text = _WRAPPER.sub(lambda wrapper: f" {wrapper[1] or ''} ", text)
    text = _SPACING.sub(" ", _DEGREES.sub(" deg ", text))
    text = re.sub(r"(?:\\mu(?![a-zA-Z])|µ|μ)\s*", "u", text)
    text = re.sub(r"\\AA(?![a-zA-Z])|Å", " angstrom ", text)
    text = re.sub(r"deg\s+([CF])\b", r"deg\1", text)
    text = re.sub(r"\b([A-Za-z]+)\s+(squared|cubed)\b", lambda unit: f"{unit[1]}^{2 + (unit[2] == 'cubed')}", text)
    text = re.sub(r"\b(?:square|sq\.?)\s+([A-Za-z]+)", r"\1^2", re.sub(r"\bcubic\s+([A-Za-z]+)", r"\1^3", text))
    text = text.replace("\\%", "%").replace("\\$", "$").replace("{}", "").strip(" .{}")
    factor, powers, sign, at = 1.0, dict[str, int](), 1, 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        at = token.end()
        if token["over"]:
            sign = -1
            continue
        known = _known(token["name"])
        if known is None:
            return None
        power = sign * int(token["power"] or 1)
        sign = 1
        factor *= known[0] ** power
        for base, exponent in known[1].items():
            powers[base] = powers.get(base, 0) + power * exponent
    if not text or sign == -1:
        return None
    return Unit(factor=factor, dimension=tuple(sorted((base, power) for base, power in powers.items() if power)))


def _known(name: str) -> tuple[float, dict[str, int]] | None:
    if name in UNITS or len(name) < 3:
        return UNITS.get(name)
    lower = name.lower()
    return UNITS.get(lower) or UNITS.get(lower.removesuffix("s"))


_TURNS = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_RATE = re.compile(r"\\frac\{(\s*\\text\{[^{}]*\}[^{}]*)\}\{(\s*\\text\{[^{}]*\}[^{}]*)\}")


def split(text: str, *, bare: bool, names: frozenset[str] = frozenset()) -> tuple[str, Unit | None]:
    r"""An answer, as `written` writes it, without its unit, and the unit; itself and None where it ends with none.

    Args:
        text: an answer.
        bare: letters after a plain number may be a unit too. Not for references, where 6m is six times m.
        names: letters that are no units, as they stand for something.

    >>> split(r"15 \text{cm}^2", bare=False)[0], split("6m", bare=False)[1], split("6m", bare=True)[0]
    ('15', None, '6')
    """
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        return text, None
    text = _RATE.sub(r" \1/\2", text)
    starts = [match.start() for pattern in (_DEGREES, _START) for match in pattern.finditer(text)]
    letters = [match.start() for match in _BARE.finditer(text) if match.group() not in names] if bare else []
    for start in sorted({*starts, *letters}):
        value = re.sub(r"(?:[\s~{]|\{\s*\})+$", "", text[:start])
        # A sine's argument is in degrees, not the sine.
        if not value or _TURNS.search(value) or (start not in starts and plain_number(typed(value)) is None):
            continue
        unit = parse(text[start:])
        if unit is not None:
            return value, unit
    return text, None


_MEASURED = re.compile(
    r"\s*(?:,|\\text\{and\})?\s*(?P<value>[0-9][0-9.,]*[0-9]|[0-9]|\\frac\{[0-9]+\}\{[0-9]+\})\s*(?P<unit>\\text\{[^{}]*\}\.?|[mgshLlJNW](?![A-Za-z]))"
)


def compound(text: str) -> tuple[str, Unit] | None:
    r"""A quantity in several units, such as 5 ft 6 in, in the smallest of them; None for anything else.

    >>> compound(r"1 \text{h} 20 \text{min}")[0], compound(r"5 \text{ft}"), compound(r"3 \text{apples}, 4 \text{pears}")
    ('80', None, None)
    """
    at, total, units = 0, Fraction(0), list[Unit]()
    if len(text) > MAX_CHARACTERS or not re.search("[0-9].*[A-Za-z].*[0-9]", text):
        return None
    while at < len(text):
        part = _MEASURED.match(text, at)
        unit = parse(part["unit"]) if part else None
        number = plain_number(part["value"]) if part else None
        if unit is None or number is None or not unit.dimension or part is None:
            return None
        if units and (unit.dimension != units[-1].dimension or unit.factor >= units[-1].factor):
            return None
        # Twelve inches are a foot, whatever binary says.
        total = (
            total * (Fraction(units[-1].factor / unit.factor).limit_denominator(10**6) if units else 1) + number.value
        )
        units.append(unit)
        at = part.end()
    value = str(total) if total.denominator == 1 else rf"\frac{{{total.numerator}}}{{{total.denominator}}}"
    return (value, units[-1]) if len(units) > 1 else None


def leading(text: str) -> Unit | None:
    r"""The unit that a text starts with, such as what follows a box; None if there is none.

    >>> leading(r" \mathrm{~cm}\n\]") == parse("cm"), leading("$ minutes, so it goes.").factor, leading(". In seconds")
    (True, 60.0, None)
    """
    text = re.sub(r"^[$\s}]*(?:\\\)|\\\])?", "", text)
    # The longest beginning that is one: a sentence may go on after it.
    ends = [end.end() for end in re.finditer(r"\\%|[A-Za-z%}]+(?:\s*\^\s*\{?-?[0-9]\}?)?(?![A-Za-z])", text)][:8]
    return next((unit for end in reversed(ends) if (unit := parse(text[:end])) is not None), None)
