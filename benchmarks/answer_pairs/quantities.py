"""Numbers of something: percent, money, units, several units, degrees, times of day, dates.

A unit that the reference states may be left out, and one may be stated where it states none; another unit is wrong.
Conversions (0.75 hours for 45 minutes) are not among the pairs: only evaluation grants them.
"""

from random import Random

from answer_pairs.case import Case, Form, case, other_digit


def percent(draw: Random) -> Case:
    n = draw.choice([str(draw.randint(2, 98)), f"{draw.randint(1, 98)}.{draw.choice('123456789')}"])
    forms: list[Form] = [
        lambda n, u: f"{n}{u}",
        lambda n, u: f"{n} {u}",
        lambda n, u: rf"{n}\,{u}",
        lambda n, u: "" if u != r"\%" else f"{n}%",
        lambda n, u: "" if u != r"\%" else rf"{n} \text{{ percent}}",
    ]
    return case(
        draw,
        (n, r"\%"),
        forms,
        {
            "digit": (other_digit(draw, n), r"\%"),
            "place of the point": (f"0.{n.replace('.', '')}", r"\%"),
            "sign": (f"-{n}", r"\%"),
            "unit": (n, r"\text{ cm}"),
        },
        references=[lambda n, u: f"{n}{u}", lambda n, u: f"{n}%"],
        right=[n],
        wrong=[(other_digit(draw, n), n, "digit"), (f"-{n}", n, "sign")],
    )


def money(draw: Random) -> Case:
    n = draw.choice(
        [str(draw.randint(2, 999)), f"{draw.randint(1, 99)}.{draw.randint(10, 99)}", str(draw.randint(1000, 99999))]
    )
    shown = lambda n: f"{int(n):,}" if n.isdigit() else n  # noqa: E731
    return case(
        draw,
        (n, "dollars"),
        [
            lambda n, u: rf"\${n}" if u == "dollars" else "",
            lambda n, u: rf"\${shown(n)}" if u == "dollars" else "",
            lambda n, u: rf"\$ {n}.00" if u == "dollars" and n.isdigit() else "",
            lambda n, u: rf"\text{{\$}}{n}" if u == "dollars" else "",
            lambda n, u: rf"{n} \text{{ {u}}}",
            lambda n, u: f"{n} {u}",
        ],
        {
            "digit": (other_digit(draw, n), "dollars"),
            "place of the point": (f"{n}0" if n.isdigit() else n.replace(".", ""), "dollars"),
            "unit": (n, draw.choice(["cents", "euros"])),
        },
        references=[lambda n, u: rf"\${n}", lambda n, u: rf"\${shown(n)}", lambda n, u: rf"{n} \text{{ dollars}}"],
        right=[n],
        wrong=[(other_digit(draw, n), n, "digit")],
    )


def _with_unit(draw: Random, n: str, unit: tuple[str, str], others: list[tuple[str, str]]) -> Case:
    """A number with a unit of a (symbol, name in the plural)."""
    return case(
        draw,
        (n, *unit),
        [
            lambda n, s, w: rf"{n} \text{{ {s}}}",
            lambda n, s, w: rf"{n}\,\text{{{s}}}",
            lambda n, s, w: rf"{n} \mathrm{{~{s}}}",
            lambda n, s, w: rf"{n}\ \mathrm{{{s}}}",
            lambda n, s, w: f"{n} {s}",
            lambda n, s, w: rf"{n} \text{{ {w}}}",
            lambda n, s, w: f"{n} {w}",
        ],
        {"digit": (other_digit(draw, n), *unit), "sign": (f"-{n}", *unit), "unit": (n, *draw.choice(others))},
        references=[
            lambda n, s, w: rf"{n} \text{{ {s}}}",
            lambda n, s, w: rf"{n} \mathrm{{~{s}}}",
            lambda n, s, w: rf"{n}\text{{ {w}}}",
        ],
        right=[n],
        wrong=[(other_digit(draw, n), n, "digit")],
    )


def _amount(draw: Random) -> str:
    return draw.choice([str(draw.randint(2, 900)), f"{draw.randint(1, 90)}.{draw.choice('123456789')}"])


LENGTHS = [("mm", "millimeters"), ("cm", "centimeters"), ("m", "meters"), ("km", "kilometers"), ("ft", "feet")]
MASSES = [("g", "grams"), ("kg", "kilograms"), ("mg", "milligrams"), ("lb", "pounds")]
DURATIONS = [("s", "seconds"), ("min", "minutes"), ("h", "hours"), ("days", "days"), ("weeks", "weeks")]
AREAS = [("cm", "centimeters"), ("m", "meters"), ("km", "kilometers"), ("in", "inches")]
SPEEDS = [("km/h", "kilometers per hour"), ("m/s", "meters per second"), ("mph", "miles per hour")]


def _one_unit(draw: Random, units: list[tuple[str, str]]) -> Case:
    unit = draw.choice(units)
    return _with_unit(draw, _amount(draw), unit, [one for one in units if one != unit])


def lengths(draw: Random) -> Case:
    return _one_unit(draw, LENGTHS)


def masses(draw: Random) -> Case:
    return _one_unit(draw, MASSES)


def durations(draw: Random) -> Case:
    return _one_unit(draw, DURATIONS)


def speeds(draw: Random) -> Case:
    return _one_unit(draw, SPEEDS)


def areas_and_volumes(draw: Random) -> Case:
    n, unit, power = _amount(draw), draw.choice(AREAS), draw.choice([2, 3])
    words = {2: "square", 3: "cubic"}
    return case(
        draw,
        (n, *unit, power),
        [
            lambda n, s, w, p: rf"{n} \text{{ {s}}}^{p}",
            lambda n, s, w, p: rf"{n}\,\text{{{s}}}^{{{p}}}",
            lambda n, s, w, p: rf"{n} \mathrm{{~{s}}}^{{{p}}}",
            lambda n, s, w, p: rf"{n} \text{{ {words[p]} {w}}}",
            lambda n, s, w, p: f"{n} {words[p]} {w}",
        ],
        {
            "digit": (other_digit(draw, n), *unit, power),
            "unit": (n, *draw.choice([one for one in AREAS if one != unit]), power),
            "power": (n, *unit, 5 - power),
        },
        references=[lambda n, s, w, p: rf"{n} \text{{ {s}}}^{p}", lambda n, s, w, p: rf"{n} \mathrm{{~{s}}}^{{{p}}}"],
        right=[n],
        wrong=[(other_digit(draw, n), n, "digit")],
    )


THINGS = "apples pears students marbles cookies books coins tiles people triangles".split()


def things(draw: Random) -> Case:
    n, what = str(draw.randint(2, 999)), draw.choice(THINGS)
    stated = draw.random() < 0.5
    changes = {"digit": (other_digit(draw, n), what), "sign": (f"-{n}", what)}
    if stated:
        changes["thing"] = (n, draw.choice([one for one in THINGS if one != what]))
    return case(
        draw,
        (n, what),
        [
            lambda n, w: f"{n} {w}",
            lambda n, w: rf"{n} \text{{ {w}}}",
            lambda n, w: rf"{n}\ \text{{{w}}}",
            lambda n, w: rf"\text{{{n} {w}}}",
            lambda n, w: rf"{n} \mathrm{{~{w}}}",
        ],
        changes,
        references=[lambda n, w: rf"{n} \text{{ {w}}}", lambda n, w: f"{n} {w}"] if stated else [lambda n, w: n],
        right=[n],
    )


COMPOUNDS = [
    (("ft", "in"), (9, 11), ("yd", "cm"), ("feet", "inches"), " "),
    (("h", "min"), (12, 59), ("days", "s"), ("hours", "minutes"), " "),
    (("kg", "g"), (20, 900), ("lb", "mg"), ("kilograms", "grams"), " "),
    (("min", "s"), (59, 59), ("h", "days"), ("minutes", "seconds"), " "),
    (("apples", "pears"), (20, 20), ("plums", "nuts"), ("apples", "pears"), ", "),
    (("boys", "girls"), (30, 30), ("men", "cats"), ("boys", "girls"), ", "),
]


def compound_quantities(draw: Random) -> Case:
    (a, b), most, others, words, joint = draw.choice(COMPOUNDS)
    m, n = draw.randint(2, most[0]), draw.randint(2, most[1])
    long = dict(zip((a, b), words, strict=True))
    text = joint.strip()
    return case(
        draw,
        (m, a, n, b),
        [
            lambda m, a, n, b: rf"{m} \text{{ {a}{text} }} {n} \text{{ {b}}}",
            lambda m, a, n, b: rf"{m}\text{{ {a}{text} }}{n}\text{{ {b}}}",
            lambda m, a, n, b: f"{m} {a}{joint}{n} {b}",
            lambda m, a, n, b: rf"{m}\ \mathrm{{{a}}}{text}\ {n}\ \mathrm{{{b}}}",
            lambda m, a, n, b: rf"{m} \text{{ {long.get(a, a)}{text} }} {n} \text{{ {long.get(b, b)}}}",
            lambda m, a, n, b: rf"\text{{{m} {a}{joint}{n} {b}}}",
        ],
        {
            "first number": (m + 1, a, n, b),
            "second number": (m, a, n + 1, b),
            "first unit": (m, others[0], n, b),
            "second unit": (m, a, n, others[1]),
        },
        references=[
            lambda m, a, n, b: rf"{m}\text{{ {a}{text} }}{n}\text{{ {b}}}",
            lambda m, a, n, b: rf"{m} \text{{ {a}}}{text} {n} \text{{ {b}}}",
        ],
    )


def dimensions(draw: Random) -> Case:
    unit, other = draw.sample(["cm", "m", "mm", "ft"], 2)
    m, n = draw.sample(range(2, 60), 2)
    forms: list[Form] = [
        lambda m, a, n, b: rf"{m}\text{{ {a}}}\times{n}\text{{ {b}}}",
        lambda m, a, n, b: rf"{m} \text{{ {a}}} \times {n} \text{{ {b}}}",
        lambda m, a, n, b: rf"{m}\ \mathrm{{{a}}} \times {n}\ \mathrm{{{b}}}",
        lambda m, a, n, b: rf"{m} \mathrm{{~{a}}} \times {n} \mathrm{{~{b}}}",
    ]
    return case(
        draw,
        (m, unit, n, unit),
        forms,
        {
            "first number": (m + 1, unit, n, unit),
            "second number": (m, unit, n + 1, unit),
            "first unit": (m, other, n, unit),
            "second unit": (m, unit, n, other),
        },
        references=forms[:1],
    )


def degrees(draw: Random) -> Case:
    n, signs = str(draw.choice([draw.randint(2, 359), draw.randint(2, 178) + 0.5])), r"^\circ"
    stated = draw.random() < 0.7
    return case(
        draw,
        (n, signs),
        [
            lambda n, u: f"{n}{u}",
            lambda n, u: rf"{n}^{{\circ}}" if u == signs else "",
            lambda n, u: f"{n}°" if u == signs else "",
            lambda n, u: rf"{n} \text{{ degrees}}" if u == signs else "",
            lambda n, u: f"{n} degrees" if u == signs else "",
        ],
        {"digit": (other_digit(draw, n), signs), "sign": (f"-{n}", signs)}
        | ({"unit": (n, r" \text{ radians}")} if stated else {}),
        references=[lambda n, u: n + u, lambda n, u: rf"{n}^{{\circ}}", lambda n, u: f"{n}°"]
        if stated
        else [lambda n, u: n],
        right=[n],
        wrong=[(other_digit(draw, n), n, "digit")],
    )


def times_of_day(draw: Random) -> Case:
    hour, minute, half = draw.randint(1, 11), draw.randint(10, 59), draw.choice(["AM", "PM"])
    forms: list[Form] = [
        lambda h, c, m, x: rf"{h}{c}{m}\text{{ {x}}}",
        lambda h, c, m, x: rf"\text{{{h}{c}{m} {x}}}",
        lambda h, c, m, x: f"{h}{c}{m} {x}",
        lambda h, c, m, x: rf"{h}{c}{m}\,\mathrm{{{x}}}",
        lambda h, c, m, x: rf"{h}{c}{m} \text{{ {x.lower()}}}",
        lambda h, c, m, x: rf"{h}{c}{m} \text{{ {x[0].lower()}.m.}}",
    ]
    return case(
        draw,
        (hour, ":", minute, half),
        forms,
        {
            "hour": (hour % 11 + 1, ":", minute, half),
            "minute": (hour, ":", minute - 1 if minute % 10 else minute + 1, half),
            "half of the day": (hour, ":", minute, "AM" if half == "PM" else "PM"),
            "order": (minute, ":", hour, half),
        },
        references=forms[:3],
    )


MONTHS = "January February March April May June July August September October November December".split()
ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}


def dates(draw: Random) -> Case:
    month, day = draw.choice(MONTHS), draw.randint(1, 27)
    return case(
        draw,
        (month, day),
        [
            lambda m, d: f"{m} {d}",
            lambda m, d: rf"\text{{{m} {d}}}",
            lambda m, d: rf"\text{{{m} }}{d}",
            lambda m, d: rf"\mathrm{{{m}\ {d}}}",
            lambda m, d: rf"\text{{{m} {d}{ENDINGS.get(d, 'th')}}}",
            lambda m, d: rf"{d}\text{{ {m}}}",
        ],
        {"day": (month, day + 1), "month": (draw.choice([m for m in MONTHS if m != month]), day)},
        references=[lambda m, d: rf"\text{{{m} {d}}}", lambda m, d: f"{m} {d}"],
    )
