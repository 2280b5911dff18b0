"""Real and complex numbers that are no plain ones: roots, pi, e, logarithms, angles, i, factorials."""

import cmath
import math
from fractions import Fraction
from random import Random

from answer_pairs.case import Case, Form, case, nonzero, signed, times

SQUAREFREE = [2, 3, 5, 6, 7, 10, 11, 13, 14, 15]


def square_roots(draw: Random) -> Case:
    a, b = nonzero(draw, -9, 9), draw.choice(SQUAREFREE)
    sign = lambda a: "-" if a < 0 else ""  # noqa: E731
    root = lambda a, b, r: times(a, rf"\sqrt{r}{{{b}}}")  # noqa: E731
    return case(
        draw,
        (a, b, ""),
        [
            root,
            lambda a, b, r: rf"{sign(a)}\sqrt{{{a * a * b}}}" if not r else "",
            lambda a, b, r: rf"{a} \cdot \sqrt{r}{{{b}}}",
            lambda a, b, r: rf"{a}\sqrt {b}" if b < 10 and not r else "",
            lambda a, b, r: rf"\frac{{{a * b}}}{{\sqrt{{{b}}}}}" if not r else "",
            lambda a, b, r: rf"{a} \cdot {b}^{{1/2}}" if not r else "",
        ],
        {
            "factor": (a + (1 if a > 0 else -1), b, ""),
            "root of": (a, b + 1, ""),
            "sign": (-a, b, ""),
            "degree of the root": (a, b, "[3]"),
        },
        value=lambda a, b, r: a * b ** (1 / 3 if r else 0.5),
        references=[root],
    )


def nested_roots(draw: Random) -> Case:
    a, b = sorted(draw.sample([2, 3, 5, 6, 7, 10, 11], 2), reverse=True)
    nested: Form = lambda s, a, b: rf"\sqrt{{{a + b} {s} 2\sqrt{{{a * b}}}}}"  # noqa: E731
    apart: Form = lambda s, a, b: rf"\sqrt{{{a}}} {s} \sqrt{{{b}}}"  # noqa: E731
    forms: list[Form] = [
        nested,
        apart,
        lambda s, a, b: rf"\sqrt{{{a + b} {s} \sqrt{{{4 * a * b}}}}}",
        lambda s, a, b: rf"\sqrt{{{b}}} + \sqrt{{{a}}}" if s == "+" else rf"-\sqrt{{{b}}} + \sqrt{{{a}}}",
        lambda s, a, b: rf"\left({a + b} {s} 2\sqrt{{{a * b}}}\right)^{{1/2}}",
    ]
    sign = draw.choice("+-")
    inner = rf"\sqrt{{{a + b} {sign} 2\sqrt{{{a * b + 1}}}}}"
    return case(
        draw,
        (sign, a, b),
        forms,
        {"sign": ("-" if sign == "+" else "+", a, b), "number": (sign, a + 1, b)},
        value=lambda s, a, b: math.sqrt(a) + (1 if s == "+" else -1) * math.sqrt(b),
        references=[nested, apart],
        wrong=[(inner, nested(sign, a, b), "number under the inner root")],
    )


def rationalised_denominators(draw: Random) -> Case:
    a, b = sorted(draw.sample([2, 3, 5, 6, 7, 10, 11, 13], 2), reverse=True)
    k = draw.randint(1, 9)
    root = lambda n: rf"\sqrt{{{n}}}"  # noqa: E731
    forms: list[Form] = [
        lambda k, a, b: rf"\frac{{{k}}}{{\sqrt{{{a}}} + \sqrt{{{b}}}}}",
        lambda k, a, b: rf"\frac{{{times(k, '')}(\sqrt{{{a}}} - \sqrt{{{b}}})}}{{{a - b}}}",
        lambda k, a, b: rf"\frac{{{times(k, root(a))} - {times(k, root(b))}}}{{{a - b}}}",
        lambda k, a, b: rf"\frac{{{k}}}{{{a - b}}}\left(\sqrt{{{a}}} - \sqrt{{{b}}}\right)",
    ]
    return case(
        draw,
        (k, a, b),
        forms,
        {"factor": (k + 1, a, b), "root of": (k, a + 1, b), "sign": (-k, a, b)},
        value=lambda k, a, b: k / (math.sqrt(a) + math.sqrt(b)),
        references=forms[:3],
    )


def multiples_of_pi(draw: Random) -> Case:
    p, q = nonzero(draw, -11, 11), draw.choice([2, 3, 4, 6, 5])
    f = Fraction(p, q)

    def fraction(f: Fraction, c: str) -> str:
        if f.denominator == 1:
            return times(f.numerator, c)
        return rf"{'-' if f < 0 else ''}\frac{{{times(abs(f.numerator), c)}}}{{{f.denominator}}}"

    return case(
        draw,
        (f, r"\pi"),
        [
            fraction,
            lambda f, c: (
                rf"{'-' if f < 0 else ''}\frac{{{abs(f.numerator)}}}{{{f.denominator}}}{c}" if f.denominator > 1 else ""
            ),
            lambda f, c: f"{times(f.numerator, c)}/{f.denominator}",
            lambda f, c: rf"{c} \cdot {f.numerator}/{f.denominator}" if f > 0 else "",
            lambda f, c: rf"\frac{{{f.numerator * 2}{c}}}{{{f.denominator * 2}}}",
        ],
        {
            "numerator": (f + Fraction(1, f.denominator), r"\pi"),
            "sign": (-f, r"\pi"),
            "constant": (f, "e"),
            "power": (f, r"\pi^2"),
            "denominator": (Fraction(f.numerator, f.denominator + 1), r"\pi"),
        },
        value=lambda f, c: float(f) * {r"\pi": math.pi, "e": math.e, r"\pi^2": math.pi**2}[c],
        references=[fraction],
    )


def logarithms(draw: Random) -> Case:
    if draw.random() < 0.5:
        k, a = draw.randint(2, 4), draw.choice([2, 3, 5, 7])
        name = r"\ln"
        forms: list[Form] = [
            lambda k, a, n: rf"{times(k, n)} {a}",
            lambda k, a, n: rf"{n} {a ** abs(k)}" if k > 0 else rf"-{n} {a**-k}",
            lambda k, a, n: rf"{times(k, n)}({a})",
            lambda k, a, n: rf"{n}\left({a}^{{{k}}}\right)",
            lambda k, a, n: rf"{k} {n}{{{a}}}",
            lambda k, a, n: rf"{k} \cdot {n} {a}",
        ]
        return case(
            draw,
            (k, a, name),
            forms,
            {
                "factor": (k + 1, a, name),
                "logarithm of": (k, a + 1, name),
                "sign": (-k, a, name),
                "base": (k, a, r"\log_{10}"),
            },
            value=lambda k, a, n: k * (math.log(a) if n == name else math.log10(a)),
            references=forms[:2],
        )
    base, of = draw.sample([2, 3, 5, 6, 7, 10, 11, 15], 2)
    forms = [
        lambda b, a: rf"\log_{{{b}}} {a}",
        lambda b, a: rf"\log_{b} {a}" if b < 10 else "",
        lambda b, a: rf"\log_{{{b}}}({a})",
        lambda b, a: rf"\frac{{\ln {a}}}{{\ln {b}}}",
        lambda b, a: rf"\frac{{\log_{{10}} {a}}}{{\log_{{10}} {b}}}",
        lambda b, a: rf"\frac{{1}}{{\log_{{{a}}} {b}}}",
    ]
    return case(
        draw,
        (base, of),
        forms,
        {"order": (of, base), "base": (base + 1, of), "logarithm of": (base, of + 1)},
        value=lambda b, a: math.log(a) / math.log(b),
        references=forms[:4],
    )


def exponentials(draw: Random) -> Case:
    a, b, k = draw.randint(1, 6), draw.randint(1, 6), draw.randint(1, 4)
    power = lambda k: "" if k == 1 else f"^{{{k}}}"  # noqa: E731
    numeric = {"e": math.e, r"\mathrm{e}": math.e, r"\pi": math.pi}
    forms: list[Form] = [
        lambda a, b, k, c: rf"{a} - \frac{{{b}}}{{{c}{power(k)}}}",
        lambda a, b, k, c: rf"{a} - {times(b, '')}{c}^{{-{k}}}",
        lambda a, b, k, c: rf"\frac{{{times(a, c)}{power(k)} - {b}}}{{{c}{power(k)}}}",
        lambda a, b, k, c: rf"{a} - \frac{{{b}}}{{\mathrm{{{c}}}{power(k)}}}" if c == "e" else "",
        lambda a, b, k, c: rf"{a} - {times(b, '')}\exp(-{k})" if c == "e" else "",
        lambda a, b, k, c: rf"{a} - {times(b, '')}\mathrm{{{c}}}^{{-{k}}}" if c == "e" else "",
    ]
    return case(
        draw,
        (a, b, k, "e"),
        forms,
        {
            "first term": (a + 1, b, k, "e"),
            "factor": (a, b + 1, k, "e"),
            "exponent": (a, b, k + 1, "e"),
            "constant": (a, b, k, r"\pi"),
        },
        value=lambda a, b, k, c: a - b * numeric[c] ** -k,
        references=[forms[0], forms[1], forms[3]],
    )


SINES = {30: r"\frac{1}{2}", 45: r"\frac{\sqrt{2}}{2}", 60: r"\frac{\sqrt{3}}{2}"}


def _degrees(function: str, angle: float) -> float:
    return {r"\sin": math.sin, r"\cos": math.cos, r"\tan": math.tan}[function](math.radians(angle))


def trigonometric_values(draw: Random) -> Case:
    forms: list[Form]
    if draw.random() < 0.4:
        angle = draw.choice(list(SINES))
        forms = [
            lambda f, x: rf"{f} {x}^\circ",
            lambda f, x: rf"{f} {x}^{{\circ}}",
            lambda f, x: rf"{f}({x}^\circ)",
            lambda f, x: rf"{f}\left({x}°\right)",
        ]
        return case(
            draw,
            (r"\sin", angle),
            forms,
            {"function": (r"\tan", angle), "angle": (r"\sin", angle + 5), "sign": (r"-\sin", angle)},
            value=lambda f, x: -_degrees(f[1:], x) if f[0] == "-" else _degrees(f, x),
            references=[lambda f, x: SINES[angle]],
            right=[rf"\cos {90 - angle}^\circ", rf"\sin\frac{{\pi}}{{{180 // angle}}}", SINES[angle]],
            wrong=[
                (rf"\cos {90 - angle + 10}^\circ", rf"\cos {90 - angle}^\circ", "angle"),
                (rf"\sin\frac{{\pi}}{{{180 // angle + 1}}}", rf"\sin\frac{{\pi}}{{{180 // angle}}}", "angle"),
            ],
        )
    k, x = draw.randint(2, 9), draw.choice([10, 20, 25, 35, 40, 50, 55, 70, 80])
    dual = {r"\sin": r"\cos", r"\cos": r"\sin"}
    forms = [
        lambda k, f, x: rf"{k}{f} {x}^\circ",
        lambda k, f, x: rf"{k}{dual[f]} {90 - x}^\circ",
        lambda k, f, x: rf"{k} {f}({x}^{{\circ}})",
        lambda k, f, x: rf"{k} \cdot {dual[f]} {90 - x}^{{\circ}}",
        lambda k, f, x: rf"{k}{f} {180 - x}^\circ" if f == r"\sin" else rf"{k}{f} {360 - x}^\circ",
    ]
    f = draw.choice(list(dual))
    return case(
        draw,
        (k, f, x),
        forms,
        {"factor": (k + 1, f, x), "function": (k, dual[f], x), "angle": (k, f, x + 5), "sign": (-k, f, x)},
        value=lambda k, f, x: k * _degrees(f, x),
        references=forms[:3],
    )


def inverse_trigonometry(draw: Random) -> Case:
    p, q = draw.choice([(1, 2), (1, 3), (2, 3), (1, 4), (3, 4), (2, 5), (3, 5), (4, 5), (5, 13)])
    inverse = {"sin": math.asin, "cos": math.acos, "tan": math.atan}
    f = draw.choice(list(inverse))
    other = draw.choice([g for g in inverse if g != f])
    co = {"sin": "cos", "cos": "sin"}
    forms: list[Form] = [
        lambda s, f, p, q: rf"{s}\arc{f}\left(\frac{{{p}}}{{{q}}}\right)",
        lambda s, f, p, q: rf"{s}\arc{f} \frac{{{p}}}{{{q}}}",
        lambda s, f, p, q: rf"{s}\arc{f}({p}/{q})",
        lambda s, f, p, q: rf"{s}\{f}^{{-1}}\left(\frac{{{p}}}{{{q}}}\right)",
        lambda s, f, p, q: (
            ""
            if s
            else rf"\frac{{\pi}}{{2}} - \arc{co[f]}\frac{{{p}}}{{{q}}}"
            if f in co
            else rf"\frac{{\pi}}{{2}} - \arctan\frac{{{q}}}{{{p}}}"
        ),
    ]
    return case(
        draw,
        ("", f, p, q),
        forms,
        {
            "argument": ("", f, p + 1, q + 2),
            "denominator": ("", f, p, q + 1),
            "function": ("", other, p, q),
            "sign": ("-", f, p, q),
        },
        value=lambda s, f, p, q: (-1 if s else 1) * inverse[f](p / q),
        references=forms[:4],
    )


def complex_numbers(draw: Random) -> Case:
    a, b = nonzero(draw, -12, 12), nonzero(draw, -12, 12)
    forms: list[Form] = [
        lambda a, b: f"{a} {'+' if b > 0 else '-'} {times(abs(b), 'i')}",
        lambda a, b: f"{a}{'+' if b > 0 else '-'}{times(abs(b), 'i')}",
        lambda a, b: f"{times(b, 'i')} {signed(a)}",
        lambda a, b: f"{a} {'+' if b > 0 else '-'} i" + (rf" \cdot {abs(b)}" if abs(b) > 1 else ""),
        lambda a, b: rf"{a} {'+' if b > 0 else '-'} {times(abs(b), '')}\mathrm{{i}}",
    ]
    return case(
        draw,
        (a, b),
        forms,
        {
            "sign of the imaginary part": (a, -b),
            "sign of the real part": (-a, b),
            "real part": (a + 20, b),
            "imaginary part": (a, b + 20),
            "order": (b, a),
        },
        references=forms[:2],
    )


TURNS = {r"\frac{\pi}{3}": 3, r"\frac{\pi}{4}": 4, r"\frac{\pi}{6}": 6, r"\frac{\pi}{2}": 2, r"\pi": 1}
PARTS = {3: ("", r"\sqrt{3}"), 4: (r"\sqrt{2}", r"\sqrt{2}"), 6: (r"\sqrt{3}", "")}


def complex_in_polar_form(draw: Random) -> Case:
    r, angle = draw.randint(2, 9), draw.choice(list(TURNS))

    def cartesian(r: int, sign: str, t: str) -> str:
        n, minus = TURNS[t], sign or "+"
        if n == 1:
            return str(-r)
        if n == 2:
            return f"{sign}{r}i"
        real, imaginary = PARTS[n]
        return rf"\frac{{{r}{real}}}{{2}} {minus} \frac{{{r}{imaginary}}}{{2}}i"

    forms: list[Form] = [
        cartesian,
        lambda r, s, t: rf"{r}e^{{{s}i{t}}}" if "frac" not in t else rf"{r}e^{{{s}{t}i}}",
        lambda r, s, t: rf"{r}e^{{{s}i \cdot {t}}}",
        lambda r, s, t: rf"{r}\left(\cos {t} {s or '+'} i\sin {t}\right)",
        lambda r, s, t: rf"{r}\mathrm{{e}}^{{{s}i{t}}}",
    ]
    other = draw.choice([t for t in TURNS if t != angle])
    return case(
        draw,
        (r, "", angle),
        forms,
        {"modulus": (r + 1, "", angle), "angle": (r, "", other), "sign of the angle": (r, "-", angle)},
        value=lambda r, s, t: complex(r * cmath.exp((-1j if s else 1j) * math.pi / TURNS[t])),
        references=[cartesian, forms[1]],
    )


def factorials(draw: Random) -> Case:
    n = draw.randint(4, 9)
    forms: list[Form] = [
        lambda n: f"{n}!",
        lambda n: str(math.factorial(n)),
        lambda n: rf"{n} \cdot {n - 1}!",
        lambda n: rf"\frac{{{n + 1}!}}{{{n + 1}}}",
        lambda n: f"{math.factorial(n):,}",
    ]
    return case(
        draw,
        (n,),
        forms,
        {"number": (n + 1,), "smaller number": (n - 1,)},
        value=math.factorial,
        references=forms[:2],
        wrong=[(rf"{n + 1} \cdot {n - 1}!", forms[2](n), "factor"), (str(n), forms[0](n), "sign of factorial")],
    )


def binomials(draw: Random) -> Case:
    n = draw.randint(5, 14)
    k = draw.choice([k for k in range(2, n - 1) if 2 * k != n])
    forms: list[Form] = [
        lambda n, k: rf"\binom{{{n}}}{{{k}}}",
        lambda n, k: rf"\binom{{{n}}}{{{n - k}}}",
        lambda n, k: rf"\dbinom{{{n}}}{{{k}}}",
        lambda n, k: rf"\frac{{{n}!}}{{{k}!{n - k}!}}",
        lambda n, k: rf"{{{n} \choose {k}}}",
        lambda n, k: str(math.comb(n, k)),
        lambda n, k: rf"\frac{{{n}!}}{{{k}! \cdot {n - k}!}}",
    ]
    return case(
        draw,
        (n, k),
        forms,
        {"upper number": (n + 1, k), "lower number": (n, k - 1)},
        value=math.comb,
        references=[forms[0], forms[5]],
    )


def powers(draw: Random) -> Case:
    b, e = draw.choice([(2, 10), (2, 12), (3, 6), (3, 4), (5, 4), (7, 4), (6, 4), (2, 16), (3, 8)])
    forms: list[Form] = [
        lambda b, e: f"{b}^{{{e}}}",
        lambda b, e: f"{b**2}^{{{e // 2}}}" if e % 2 == 0 else "",
        lambda b, e: str(b**e),
        lambda b, e: rf"{b} \cdot {b}^{{{e - 1}}}",
        lambda b, e: f"({b})^{{{e}}}",
        lambda b, e: rf"\left({b}^{{{e // 2}}}\right)^2" if e % 2 == 0 else "",
    ]
    return case(
        draw,
        (b, e),
        forms,
        {"base": (b + 1, e), "exponent": (b, e + 1), "order": (e, b)},
        value=lambda b, e: b**e,
        references=[forms[0], forms[2]],
    )
