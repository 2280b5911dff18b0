"""Formulas with variables: polynomials, fractions and roots of them, several names, subscripts, rounding brackets."""

from fractions import Fraction
from random import Random

from answer_pairs.case import Case, Form, case, nonzero, signed, term, times

LETTERS = "xyztn"


def polynomials(draw: Random) -> Case:
    x, y = draw.sample(LETTERS, 2)
    a, b, c, d = (nonzero(draw, 1, 4), nonzero(draw, -9, 9), nonzero(draw, 1, 4), nonzero(draw, -9, 9))
    factor = lambda a, b, x: f"({times(a, x)} {signed(b)})"  # noqa: E731

    def expanded(a, b, c, d, x):
        middle = a * d + b * c
        return times(a * c, f"{x}^2") + (f" {term(middle, x)}" if middle else "") + f" {signed(b * d)}"

    def reordered(a, b, c, d, x):
        middle = a * d + b * c
        return f"{b * d}" + (f" {term(middle, x)}" if middle else "") + f" {term(a * c, x + '^{2}')}"

    forms: list[Form] = [
        expanded,
        reordered,
        lambda a, b, c, d, x: factor(a, b, x) + factor(c, d, x),
        lambda a, b, c, d, x: factor(c, d, x) + r" \cdot " + factor(a, b, x),
        lambda a, b, c, d, x: rf"\left({b} {term(a, x)}\right)\left({times(c, x)} {signed(d)}\right)",
    ]
    return case(
        draw,
        (a, b, c, d, x),
        forms,
        {
            "leading coefficient": (a + 1, b, c, d, x),
            "constant": (a, b + 1 or 2, c, d, x),
            "sign": (a, -b, c, d, x),
            "variable": (a, b, c, d, y),
        },
        value=lambda a, b, c, d, x: (a * c, a * d + b * c, b * d, x),
        references=forms[:3],
    )


def rational_functions(draw: Random) -> Case:
    x, y = draw.sample(LETTERS, 2)
    a, b, c = nonzero(draw, 1, 9), nonzero(draw, -9, 9), nonzero(draw, 1, 6)
    forms: list[Form] = [
        lambda a, b, c, x: rf"{c} + \frac{{{a}}}{{{x} {signed(b)}}}",
        lambda a, b, c, x: rf"\frac{{{a}}}{{{x} {signed(b)}}} + {c}",
        lambda a, b, c, x: (
            rf"\frac{{{times(c, x)}" + (f" {signed(a + b * c)}" if a + b * c else "") + rf"}}{{{x} {signed(b)}}}"
        ),
        lambda a, b, c, x: rf"{c} - \frac{{{a}}}{{{-b} - {x}}}",
        lambda a, b, c, x: f"{c} + {a}/({x} {signed(b)})",
    ]
    return case(
        draw,
        (a, b, c, x),
        forms,
        {
            "numerator": (a + 1, b, c, x),
            "denominator": (a, b + 1 or 2, c, x),
            "term": (a, b, c + 1, x),
            "sign in the denominator": (a, -b, c, x),
            "variable": (a, b, c, y),
        },
        references=forms[:3],
    )


def radical_functions(draw: Random) -> Case:
    x, y = draw.sample("xtn", 2)
    a, b = nonzero(draw, 1, 9), draw.choice([0, 0, draw.randint(1, 9)])
    inside = lambda b, x: f"{x} + {b}" if b else x  # noqa: E731
    forms: list[Form] = [
        lambda s, a, b, x: rf"{s}\frac{{{a}}}{{\sqrt{{{inside(b, x)}}}}}",
        lambda s, a, b, x: s + times(a, rf"\sqrt{{\frac{{1}}{{{inside(b, x)}}}}}"),
        lambda s, a, b, x: rf"{s}\frac{{{times(a, '')}\sqrt{{{inside(b, x)}}}}}{{{inside(b, x)}}}",
        lambda s, a, b, x: f"{s}{times(a, '')}({inside(b, x)})^{{-1/2}}",
        lambda s, a, b, x: rf"{s}\sqrt{{\frac{{{a * a}}}{{{inside(b, x)}}}}}",
    ]
    return case(
        draw,
        ("", a, b, x),
        forms,
        {
            "factor": ("", a + 1, b, x),
            "sign": ("-", a, b, x),
            "under the root": ("", a, b + 2, x),
            "variable": ("", a, b, y),
        },
        references=forms[:3],
        wrong=[(rf"\frac{{{a}}}{{\sqrt[3]{{{inside(b, x)}}}}}", forms[0]("", a, b, x), "degree of the root")],
    )


TRIPLES = [
    ("x", "y", "z"),
    ("a", "b", "c"),
    ("p", "q", "r"),
    ("m", "n", "k"),
    (r"\alpha", r"\beta", r"\gamma"),
    ("u", "v", "w"),
]


def several_variables(draw: Random) -> Case:
    x, y, z = draw.choice(TRIPLES)
    k = nonzero(draw, -6, 6)
    forms: list[Form] = [
        lambda k, x, y, z: rf"{x}({y} {term(k, z)})",
        lambda k, x, y, z: rf"{x} {y} {term(k, x + ' ' + z)}",
        lambda k, x, y, z: rf"({times(k, z)} + {y}) {x}",
        lambda k, x, y, z: rf"{times(k, x + ' ' + z)} + {x} {y}",
        lambda k, x, y, z: rf"{x} \cdot {y} {term(k, z)} \cdot {x}",
    ]
    return case(
        draw,
        (k, x, y, z),
        forms,
        {"factor": (k + 7, x, y, z), "sign": (-k, x, y, z), "two names exchanged": (k, y, x, z), "name": (k, x, x, z)},
        value=lambda k, x, y, z: sorted([(1, sorted((x, y))), (k, sorted((x, z)))]),
        references=forms[:2],
    )


def quotients_of_names(draw: Random) -> Case:
    x, y, z = draw.choice(TRIPLES)
    k = draw.randint(2, 9)
    forms: list[Form] = [
        lambda k, x, y, z: rf"\frac{{{k} {x}}}{{{y} + {z}}}",
        lambda k, x, y, z: rf"\frac{{{k}}}{{{y} + {z}}} {x}",
        lambda k, x, y, z: rf"\frac{{{x} \cdot {k}}}{{{z} + {y}}}",
        lambda k, x, y, z: rf"{k} {x} ({y} + {z})^{{-1}}",
        lambda k, x, y, z: rf"{k} {x} / ({y} + {z})",
    ]
    return case(
        draw,
        (k, x, y, z),
        forms,
        {"factor": (k + 1, x, y, z), "names exchanged": (k, y, x, z), "sign": (-k, x, y, z)},
        references=forms[:2],
        wrong=[(rf"\frac{{{k} {x}}}{{{y} - {z}}}", forms[0](k, x, y, z), "sign in the denominator")],
    )


def subscripted_names(draw: Random) -> Case:
    name, other = draw.sample(["a", "x", "E", "v", "T", "S"], 2)
    k, i, j = nonzero(draw, 2, 9), 1, 2
    forms: list[Form] = [
        lambda k, n, i, j: f"{n}_{i} + {k} {n}_{j}",
        lambda k, n, i, j: f"{n}_{{{i}}} + {k} {n}_{{{j}}}",
        lambda k, n, i, j: f"{k} {n}_{{{j}}} + {n}_{{{i}}}",
        lambda k, n, i, j: rf"{n}_{i} + {k} \cdot {n}_{j}",
        lambda k, n, i, j: rf"\frac{{{2 * k}}}{{2}} {n}_{j} + {n}_{i}",
    ]
    return case(
        draw,
        (k, name, i, j),
        forms,
        {
            "factor": (k + 1, name, i, j),
            "first subscript": (k, name, 3, j),
            "second subscript": (k, name, i, 3),
            "name": (k, other, i, j),
            "order": (k, name, j, i),
        },
        references=forms[:2],
    )


def floors_and_ceilings(draw: Random) -> Case:
    n, m = draw.sample("nkm", 2)
    d, c = draw.randint(2, 5), draw.randint(1, 9)
    forms: list[Form] = [
        lambda w, n, d, c: rf"\l{w} {n}/{d} \r{w} + {c}",
        lambda w, n, d, c: rf"\left\l{w} \frac{{{n}}}{{{d}}} \right\r{w} + {c}",
        lambda w, n, d, c: rf"{c} + \l{w} \frac{{{n}}}{{{d}}} \r{w}",
        lambda w, n, d, c: rf"{c} + \left\l{w} {n}/{d} \right\r{w}",
    ]
    which = draw.choice(["floor", "ceil"])
    return case(
        draw,
        (which, n, d, c),
        forms,
        {
            "bracket": ("ceil" if which == "floor" else "floor", n, d, c),
            "divisor": (which, n, d + 1, c),
            "term": (which, n, d, c + 1),
            "sign": (which, n, d, -c),
            "variable": (which, m, d, c),
        },
        references=forms[:2],
    )


def function_formulas(draw: Random) -> Case:
    a, b, x = draw.randint(2, 9), nonzero(draw, -9, 9), "x"
    forms: list[Form] = [
        lambda a, b, x: f"f({x}) = {times(a, x)} {signed(b)}",
        lambda a, b, x: f"{times(a, x)} {signed(b)}" if x == "x" else "",
        lambda a, b, x: f"f({x}) = {b} {term(a, x)}",
        lambda a, b, x: f"{b} {term(a, x)}" if x == "x" else "",
    ]
    return case(
        draw,
        (a, b, x),
        forms,
        {"slope": (a + 1, b, x), "constant": (a, b + 1 or 2, x), "sign": (a, -b, x), "sign of the slope": (-a, b, x)},
        references=forms[:1],
    )


def linear_coefficients(draw: Random) -> Case:
    p, q = draw.choice([(1, 2), (1, 3), (2, 3), (3, 4), (3, 2), (5, 2), (5, 4)])
    x, y, c = *draw.sample(LETTERS, 2), nonzero(draw, -9, 9)
    forms: list[Form] = [
        lambda p, q, x, c: rf"\frac{{{p}}}{{{q}}}{x} {signed(c)}",
        lambda p, q, x, c: rf"\frac{{{times(p, x)}}}{{{q}}} {signed(c)}",
        lambda p, q, x, c: rf"\frac{{{times(p, x)} {signed(c * q)}}}{{{q}}}",
        lambda p, q, x, c: rf"{c} + \frac{{{times(p, x)}}}{{{q}}}",
        lambda p, q, x, c: f"{p / q:g}{x} {signed(c)}" if q in (2, 4) else "",
    ]
    return case(
        draw,
        (p, q, x, c),
        forms,
        {
            "numerator": (p + 1, q, x, c),
            "denominator": (p, q + 2, x, c),
            "constant": (p, q, x, c + 1 or 2),
            "sign": (p, q, x, -c),
            "variable": (p, q, y, c),
        },
        value=lambda p, q, x, c: (Fraction(p, q), x, c),
        references=forms[:3],
    )
