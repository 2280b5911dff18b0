"""Equations, labels, inequalities, intervals, sets, tuples, lists, matrices, infinity."""

from fractions import Fraction
from random import Random

from answer_pairs.case import Case, Form, case, nonzero, other_digit, signed, term, times


def lines(draw: Random) -> Case:
    m, b = draw.choice([-5, -4, -3, -2, 2, 3, 4, 5]), nonzero(draw, -9, 9)
    forms: list[Form] = [
        lambda m, b, x, y: f"{y} = {times(m, x)} {signed(b)}",
        lambda m, b, x, y: f"{y} = {b} {term(m, x)}",
        lambda m, b, x, y: f"{times(m, x)} - {y} {signed(b)} = 0",
        lambda m, b, x, y: f"{y} {term(-m, x)} = {b}",
        lambda m, b, x, y: f"{times(m, x)} {signed(b)} = {y}",
        lambda m, b, x, y: f"2{y} = {times(2 * m, x)} {signed(2 * b)}",
    ]
    return case(
        draw,
        (m, b, "x", "y"),
        forms,
        {
            "slope": (m + 6, b, "x", "y"),
            "constant": (m, b + 10, "x", "y"),
            "sign": (m, -b, "x", "y"),
            "sign of the slope": (-m, b, "x", "y"),
            "names exchanged": (m, b, "y", "x"),
        },
        references=[forms[0], forms[2]],
    )


def planes(draw: Random) -> Case:
    a, b, c, d = draw.randint(2, 9), nonzero(draw, -9, 9), nonzero(draw, -9, 9), nonzero(draw, -20, 20)
    k = draw.randint(2, 4)
    forms: list[Form] = [
        lambda a, b, c, d: f"{times(a, 'x')} {term(b, 'y')} {term(c, 'z')} {signed(d)} = 0",
        lambda a, b, c, d: f"{times(a, 'x')} {term(b, 'y')} {term(c, 'z')} = {-d}",
        lambda a, b, c, d: f"{times(k * a, 'x')} {term(k * b, 'y')} {term(k * c, 'z')} {signed(k * d)} = 0",
        lambda a, b, c, d: f"0 = {times(a, 'x')} {term(b, 'y')} {term(c, 'z')} {signed(d)}",
        lambda a, b, c, d: f"{times(b, 'y')} {term(a, 'x')} {term(c, 'z')} {signed(d)} = 0",
    ]
    return case(
        draw,
        (a, b, c, d),
        forms,
        {
            "coefficient": (a + 1, b, c, d),
            "sign": (a, -b, c, d),
            "right side": (a, b, c, -d),
            "constant": (a, b, c, d + 21),
        },
        references=forms[:2],
    )


QUANTITIES = [
    "x",
    "k",
    r"x_{\max}",
    "P(X>2)",
    "P(A|B)",
    "f(3)",
    "a_{10}",
    "|AB|",
    r"\angle ABC",
    r"\text{Area}",
    r"\lambda",
    "AB",
    r"P(X \le 1)",
    "x_0",
    r"\max f(x)",
    "S_n",
]


def labels(draw: Random) -> Case:
    name = draw.choice(QUANTITIES)
    fraction = rf"\frac{{{draw.randint(1, 5)}}}{{{draw.choice([7, 11, 13])}}}"
    n = fraction if name.startswith("P") else str(draw.randint(2, 99))
    at = n.rindex("{") + 1 if n == fraction else 0
    changed = n[:at] + other_digit(draw, n[at:])
    negative = f"-{n}"
    return case(
        draw,
        (n, name, "="),
        [
            lambda n, x, r: f"{x} {r} {n}",
            lambda n, x, r: f"{x}{r}{n}",
            lambda n, x, r: f"{n} {r} {x}" if x in ("x", "k", r"\lambda") and r == "=" else "",
            lambda n, x, r: n if r == "=" else "",
            lambda n, x, r: rf"{r} {n}" if r == "=" else "",
            lambda n, x, r: rf"{x} \approx {n}" if r == "=" else "",
            lambda n, x, r: rf"\text{{{x} {r} }} {n}" if x.isalpha() and r == "=" else "",
        ],
        {
            "value": (changed, name, "="),
            "sign": (negative, name, "="),
            "relation": (n, name, draw.choice([r"\ne", ">", r"\le"])),
        },
        references=[lambda n, x, r: n],
    )


def labelled_references(draw: Random) -> Case:
    name, other = draw.sample(["x", "y", "k", "n", "a", "c"], 2)
    n = str(draw.randint(2, 99))
    return case(
        draw,
        (n, name, "="),
        [
            lambda n, x, r: f"{x} {r} {n}",
            lambda n, x, r: f"{x}{r}{n}",
            lambda n, x, r: f"{n} = {x}" if r == "=" else "",
            lambda n, x, r: f"{x} {r} {n}.0",
            lambda n, x, r: rf"{x} {r} {{{n}}}",
        ],
        {
            "value": (other_digit(draw, n), name, "="),
            "sign": (f"-{n}", name, "="),
            "name": (n, other, "="),
            "relation": (n, name, draw.choice([r"\ne", ">", "<"])),
        },
        references=[lambda n, x, r: f"{x} {r} {n}", lambda n, x, r: f"{x}{r}{n}"],
        right=[n],
        wrong=[(other_digit(draw, n), n, "value"), (f"-{n}", n, "sign")],
    )


FLIPPED = {">": "<", "<": ">", r"\ge": r"\le", r"\le": r"\ge"}
STRICT = {">": r"\ge", "<": r"\le", r"\ge": ">", r"\le": "<"}
LONGER = {r"\ge": r"\geq", r"\le": r"\leq"}


def inequalities(draw: Random) -> Case:
    relation, n = draw.choice(list(FLIPPED)), nonzero(draw, -30, 30)

    def interval(x: str, r: str, n: int) -> str:
        closed = r in LONGER
        if FLIPPED[r] in ("<", r"\le"):
            return rf"{'[' if closed else '('}{n}, \infty)"
        return rf"(-\infty, {n}{']' if closed else ')'}"

    forms: list[Form] = [
        lambda x, r, n: f"{x} {r} {n}",
        lambda x, r, n: f"{n} {FLIPPED[r]} {x}",
        lambda x, r, n: f"{x} {LONGER.get(r, r)} {n}",
        interval,
        lambda x, r, n: rf"{x} \in {interval(x, r, n)}",
        lambda x, r, n: rf"{x} {LONGER[r]}slant {n}" if r in LONGER else f"{x}{r}{n}",
    ]
    return case(
        draw,
        ("x", relation, n),
        forms,
        {
            "bound": ("x", relation, n + 40),
            "sign": ("x", relation, -n),
            "direction": ("x", FLIPPED[relation], n),
            "bound in or out": ("x", STRICT[relation], n),
        },
        references=[forms[0], forms[3], forms[0]],
    )


def intervals(draw: Random) -> Case:
    a, b = sorted(draw.sample(range(-20, 21), 2))
    opening, closing = draw.choice("(["), draw.choice(")]")
    less = {"(": "<", "[": r"\le", ")": "<", "]": r"\le"}
    forms: list[Form] = [
        lambda o, a, b, c: f"{o}{a}, {b}{c}",
        lambda o, a, b, c: f"{o}{a},{b}{c}",
        lambda o, a, b, c: rf"\left{o}{a}, {b}\right{c}",
        lambda o, a, b, c: rf"x \in {o}{a}, {b}{c}",
        lambda o, a, b, c: f"{a} {less[o]} x {less[c]} {b}",
        lambda o, a, b, c: rf"{o}{a},\, {b}{c}",
        lambda o, a, b, c: rf"{o}{a}.0, {b}{c}",
    ]
    return case(
        draw,
        (opening, a, b, closing),
        forms,
        {
            "opening bracket": ("[" if opening == "(" else "(", a, b, closing),
            "closing bracket": (opening, a, b, "]" if closing == ")" else ")"),
            "lower bound": (opening, a - 1, b, closing),
            "upper bound": (opening, a, b + 1, closing),
            "sign": (opening, -a, b, closing) if a else (opening, a, -b, closing),
        },
        references=[forms[0], forms[0], forms[2], forms[3]],
    )


def unions(draw: Random) -> Case:
    a, b = sorted(draw.sample(range(-15, 16), 2))
    x, y = draw.choice(")]"), draw.choice("([")
    less, more = {")": "<", "]": r"\le"}, {"(": ">", "[": r"\ge"}
    forms: list[Form] = [
        lambda a, x, o, y, b: rf"(-\infty, {a}{x} {o} {y}{b}, \infty)",
        lambda a, x, o, y, b: rf"{y}{b}, \infty) {o} (-\infty, {a}{x}",
        lambda a, x, o, y, b: rf"\left(-\infty, {a}\right{x} {o} \left{y}{b}, \infty\right)",
        lambda a, x, o, y, b: rf"(-\infty,{a}{x}{o}{y}{b},+\infty)",
        lambda a, x, o, y, b: rf"x \in (-\infty, {a}{x} {o} {y}{b}, \infty)",
        lambda a, x, o, y, b: rf"x {less[x]} {a} \text{{ or }} x {more[y]} {b}" if o == r"\cup" else "",
    ]
    return case(
        draw,
        (a, x, r"\cup", y, b),
        forms,
        {
            "first bracket": (a, "]" if x == ")" else ")", r"\cup", y, b),
            "second bracket": (a, x, r"\cup", "[" if y == "(" else "(", b),
            "first bound": (a - 1, x, r"\cup", y, b),
            "second bound": (a, x, r"\cup", y, b + 1),
            "operator": (a, x, r"\cap", y, b),
        },
        references=forms[:2],
        wrong=[(rf"(-\infty, {a}{x}", forms[0](a, x, r"\cup", y, b), "part left out")],
    )


def _members(draw: Random, count: int) -> tuple[str, ...]:
    members = draw.sample(range(-20, 60), count)
    return tuple(str(n) for n in members)


def _changed_members(draw: Random, members: tuple[str, ...]) -> dict[str, tuple]:
    at = draw.randrange(len(members))
    new = str(draw.choice([n for n in range(60, 99)]))
    sign = draw.choice([i for i, m in enumerate(members) if m != "0"])
    flipped = str(-int(members[sign]))
    changes = {
        "member": (*members[:at], new, *members[at + 1 :]),
        "member left out": members[:-1],
        "member added": (*members, new),
    }
    if flipped not in members:
        changes["sign"] = (*members[:sign], flipped, *members[sign + 1 :])
    return changes


def sets(draw: Random) -> Case:
    members = _members(draw, draw.randint(2, 4))
    order = draw.sample(range(len(members)), len(members))
    shuffled = lambda m: [m[i] for i in order] if len(m) == len(members) else m[::-1]  # noqa: E731
    forms: list[Form] = [
        lambda *m: rf"\{{{', '.join(m)}\}}",
        lambda *m: rf"\{{{','.join(shuffled(m))}\}}",
        lambda *m: rf"\left\{{{', '.join(shuffled(m))}\right\}}",
        lambda *m: rf"\{{{', '.join(reversed(m))}\}}",
        lambda *m: rf"\{{ {', '.join(sorted(m, key=int))} \}}",
    ]
    return case(
        draw,
        members,
        forms,
        _changed_members(draw, members),
        value=lambda *m: sorted(m),
        references=forms[:1],
        wrong=[(f"({', '.join(members)})", forms[0](*members), "brackets")],
    )


def lists(draw: Random) -> Case:
    members = _members(draw, draw.randint(2, 4))
    forms: list[Form] = [
        lambda *m: ", ".join(m),
        lambda *m: ",".join(m[::-1]),
        lambda *m: rf"{', '.join(m[:-1])} \text{{ and }} {m[-1]}",
        lambda *m: f"{', '.join(m[:-1])} and {m[-1]}",
        lambda *m: rf"{', '.join(m[:-1])}, \text{{and }} {m[-1]}",
        lambda *m: ", ".join(f"x = {one}" for one in m),
        lambda *m: r" \text{ or } ".join(f"x = {one}" for one in m),
        lambda *m: ", ".join(f"x_{i} = {one}" for i, one in enumerate(m, 1)),
    ]
    return case(
        draw,
        members,
        forms,
        _changed_members(draw, members),
        value=lambda *m: sorted(m),
        references=forms[:3],
    )


def plus_and_minus(draw: Random) -> Case:
    a, b = nonzero(draw, -9, 9), draw.choice([2, 3, 5, 7, 11, 13])
    both: Form = lambda a, b: rf"{a} \pm \sqrt{{{b}}}"  # noqa: E731
    listed: Form = lambda a, b: rf"{a} + \sqrt{{{b}}}, {a} - \sqrt{{{b}}}"  # noqa: E731
    forms: list[Form] = [
        both,
        listed,
        lambda a, b: rf"{a} - \sqrt{{{b}}}, {a} + \sqrt{{{b}}}",
        lambda a, b: rf"x = {a} \pm \sqrt{{{b}}}",
        lambda a, b: rf"{a} + \sqrt{{{b}}} \text{{ and }} {a} - \sqrt{{{b}}}",
        lambda a, b: rf"{a}\pm\sqrt{b}" if b < 10 else rf"{a}\pm\sqrt{{{b}}}",
    ]
    return case(
        draw,
        (a, b),
        forms,
        {"first term": (a + 10, b), "under the root": (a, b + 1), "sign": (-a, b)},
        references=[both, listed],
        wrong=[
            (rf"{a} + \sqrt{{{b}}}", both(a, b), "one sign only"),
            (rf"{a} - \sqrt{{{b}}}", both(a, b), "one sign only"),
        ],
    )


def tuples(draw: Random) -> Case:
    size = draw.choice([2, 2, 3])
    entries = [str(n) for n in draw.sample(range(-20, 40), size)]
    if draw.random() < 0.3:
        entries[0] = rf"\frac{{{draw.choice([1, 3, 5, 7])}}}{{2}}"
    labels = "xyz"[:size]
    decimal = lambda e: f"{int(e[6]) / 2:g}" if e.startswith(r"\frac") else e  # noqa: E731
    forms: list[Form] = [
        lambda *e: f"({', '.join(e)})",
        lambda *e: f"({','.join(e)})",
        lambda *e: rf"\left({', '.join(e)}\right)",
        lambda *e: rf"({', '.join(labels)}) = ({', '.join(e)})" if len(e) == size else "",
        lambda *e: f"({', '.join(map(decimal, e))})",
        lambda *e: "(" + r",\ ".join(e) + ")",
        lambda *e: ", ".join(f"{x} = {one}" for x, one in zip(labels, e, strict=False)) if len(e) == size else "",
    ]
    last = entries[-1]
    return case(
        draw,
        entries,
        forms,
        {
            "last entry": (*entries[:-1], str(int(last) + 50)),
            "sign": (*entries[:-1], str(-int(last))),
            "order": (*entries[1:], entries[0]),
            "entry left out": entries[:-1] if size == 3 else entries,
            "entry added": (*entries, "1"),
        },
        references=forms[:3],
    )


def matrices(draw: Random) -> Case:
    entries = [draw.randint(-9, 9) for _ in range(4)]
    entries[1] = nonzero(draw, -9, 9)
    at = draw.randrange(4)
    return _array(
        draw,
        [entries[:2], entries[2:]],
        {
            "entry": [[n + (10 if i == at else 0) for i, n in enumerate(entries)][j : j + 2] for j in (0, 2)],
            "sign": [[entries[0], -entries[1]], entries[2:]],
            "transposed": [[entries[0], entries[2]], [entries[1], entries[3]]],
            "row left out": [entries[:2]],
        },
    )


def vectors(draw: Random) -> Case:
    entries = draw.sample([n for n in range(-9, 10) if n], 3)
    column = lambda *numbers: [[n] for n in numbers]  # noqa: E731
    a, b, c = entries
    return _array(
        draw,
        column(a, b, c),
        {
            "entry": column(a, b + 10, c),
            "sign": column(-a, b, c),
            "order": column(b, a, c),
            "entry left out": column(a, b),
        },
    )


def _array(draw: Random, rows: list[list[int]], changes: dict[str, list[list[int]]]) -> Case:
    columns = lambda rows: "c" * len(rows[0])  # noqa: E731
    airy = lambda rows: r" \\ ".join(" & ".join(map(str, row)) for row in rows)  # noqa: E731
    tight = lambda rows: r"\\".join("&".join(map(str, row)) for row in rows)  # noqa: E731
    forms: list[Form] = [
        lambda r: rf"\begin{{pmatrix}} {airy(r)} \end{{pmatrix}}",
        lambda r: rf"\begin{{bmatrix}} {airy(r)} \end{{bmatrix}}",
        lambda r: rf"\begin{{pmatrix}}{tight(r)}\end{{pmatrix}}",
        lambda r: rf"\left(\begin{{array}}{{{columns(r)}}} {airy(r)} \end{{array}}\right)",
        lambda r: rf"\left[\begin{{array}}{{{columns(r)}}}{tight(r)}\end{{array}}\right]",
        lambda r: rf"\left(\begin{{matrix}} {airy(r)} \end{{matrix}}\right)",
    ]
    return case(
        draw, (rows,), forms, {what: (one,) for what, one in changes.items()}, references=[forms[0], forms[3], forms[1]]
    )


def infinity(draw: Random) -> Case:
    sign = draw.choice(["", "-"])
    if draw.random() < 0.5:
        forms: list[Form] = [
            lambda s: rf"{s}\infty",
            lambda s: f"{s}∞",
            lambda s: rf"{s or '+'}\infty",
            lambda s: f"{s or '+'}∞",
            lambda s: rf"{s}{{\infty}}",
        ]
        return case(
            draw,
            (sign,),
            forms,
            {"sign": ("" if sign else "-",)},
            references=forms[:1],
            wrong=[(f"{sign}{draw.randint(1, 999)}", forms[0](sign), "number"), ("0", forms[0](sign), "number")],
        )
    a, bracket = draw.randint(-20, 20), draw.choice("([")
    forms = [
        lambda o, a, b, c: f"{o}{a}, {b}{c}",
        lambda o, a, b, c: f"{o}{a},{b.replace(chr(92) + 'infty', '∞')}{c}",
        lambda o, a, b, c: rf"{o}{a}, +{b}{c}" if "infty" in b else "",
        lambda o, a, b, c: rf"\left{o}{a}, {b}\right{c}",
    ]
    return case(
        draw,
        (bracket, a, r"\infty", ")"),
        forms,
        {
            "bound": (bracket, a + 1, r"\infty", ")"),
            "bracket": ("[" if bracket == "(" else "(", a, r"\infty", ")"),
            "upper bound": (bracket, a, str(draw.randint(50, 99)), ")"),
        },
        references=forms[:1],
    )


def points_with_fractions(draw: Random) -> Case:
    p, q = draw.choice([(1, 2), (3, 2), (1, 4), (3, 4), (5, 2), (7, 4)])
    b, sign = nonzero(draw, -9, 9), draw.choice(["", "-"])
    forms: list[Form] = [
        lambda s, p, q, b: rf"\left({s}\frac{{{p}}}{{{q}}}, {b}\right)",
        lambda s, p, q, b: rf"({s}{p}/{q}, {b})",
        lambda s, p, q, b: f"({s}{p / q:g}, {b})" if q in (2, 4, 8) else "",
        lambda s, p, q, b: rf"\left({s}\dfrac{{{p}}}{{{q}}},\;{b}\right)",
        lambda s, p, q, b: rf"({s}\tfrac{{{p}}}{{{q}}},{b}.0)",
    ]
    return case(
        draw,
        (sign, p, q, b),
        forms,
        {
            "numerator": (sign, p + 2, q, b),
            "denominator": (sign, p, q + 3, b),
            "sign": ("" if sign else "-", p, q, b),
            "second entry": (sign, p, q, b + 10),
        },
        value=lambda s, p, q, b: (Fraction(p, q) * (-1 if s else 1), b),
        references=forms[:2],
    )
