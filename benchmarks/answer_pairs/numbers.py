"""Plain numbers: integers, decimals, fractions, mixed numbers, repeating decimals, powers of ten, bases."""

from decimal import Decimal
from fractions import Fraction
from math import gcd
from random import Random

from answer_pairs.case import Case, case, nonzero, other_digit


def integers(draw: Random) -> Case:
    n = draw.choice([-1, 1, 1, 1]) * draw.randint(1000, 9_999_999)
    text = str(n)
    swap = draw.randrange(len(str(abs(n))) - 1) + (n < 0)
    grouped = lambda mark: lambda n: f"{n:,}".replace(",", mark)  # noqa: E731
    return case(
        draw,
        (n,),
        [
            str,
            *map(grouped, (",", "{,}", r",\!", r"\,")),
            lambda n: f"{n}.0",
            lambda n: rf"\text{{{n}}}",
            lambda n: f"{n}.",
        ],
        {
            "digit": (int(other_digit(draw, text)),),
            "sign": (-n,),
            "order of two digits": (int(text[:swap] + text[swap + 1] + text[swap] + text[swap + 2 :]),),
            "digit left out": (int(text[:-1]),),
            "digit added": (int(text + draw.choice("0123456789")),),
        },
        references=[str, grouped(",")],
    )


def decimals(draw: Random) -> Case:
    places = draw.randint(1, 3)
    whole = draw.choice([0, 0, draw.randint(1, 99), draw.randint(1000, 99999)])
    digits = "".join(draw.choice("123456789") for _ in range(places))
    sign = draw.choice(["", "", "-"])
    exact = lambda text: Fraction(text)  # noqa: E731
    text = f"{sign}{whole}.{digits}"
    value = exact(text)

    def fraction(t: str) -> str:
        f = exact(t)
        return rf"{'-' if f < 0 else ''}\frac{{{abs(f.numerator)}}}{{{f.denominator}}}" if f.denominator > 1 else ""

    return case(
        draw,
        (text,),
        [
            str,
            lambda t: t + "0",
            lambda t: t.replace("0.", ".", 1) if t.lstrip("-").startswith("0.") else f"{Decimal(t):,}",
            fraction,
            lambda t: str(exact(t)),
        ],
        {
            "digit": (other_digit(draw, digits).join([f"{sign}{whole}.", ""]),),
            "sign": (text[1:] if sign else f"-{text}",),
            "place of the point": (str(Decimal(text) * 10),),
            "zero behind the point": (f"{sign}{whole}.0{digits}",),
        },
        value=exact,
        references=[str] if value.denominator > 1 else (),
    )


def _fraction(draw: Random, low: int = 2, high: int = 60) -> Fraction:
    while True:
        p, q = draw.randint(1, high), draw.randint(low, high)
        if p != q and gcd(p, q) == 1:
            return Fraction(p, q)


def fractions(draw: Random) -> Case:
    f = _fraction(draw, 3)
    sign, p, q, k = draw.choice(["", "", "-"]), f.numerator, f.denominator, draw.randint(2, 9)
    decimal = f"{sign}{p / q:.9f}"
    value = lambda s, p, q: Fraction(p, q) * (-1 if s else 1)  # noqa: E731
    return case(
        draw,
        (sign, p, q),
        [
            lambda s, p, q: rf"{s}\frac{{{p}}}{{{q}}}",
            lambda s, p, q: rf"{s}\dfrac{{{p}}}{{{q}}}",
            lambda s, p, q: rf"{s}\tfrac{{{p}}}{{{q}}}",
            lambda s, p, q: rf"{s}{p}/{q}",
            lambda s, p, q: rf"\frac{{{s}{p}}}{{{q}}}",
            lambda s, p, q: rf"\frac{{{p}}}{{{s}{q}}}",
            lambda s, p, q: rf"{s}\frac{{{p * k}}}{{{q * k}}}",
        ],
        {
            "numerator": (sign, p + draw.choice([1, 2, 10]), q),
            "denominator": (sign, p, q + draw.choice([1, 2, 10])),
            "sign": ("" if sign else "-", p, q),
            "upside down": (sign, q, p),
        },
        value=value,
        references=[lambda s, p, q: rf"{s}\frac{{{p}}}{{{q}}}", lambda s, p, q: f"{s}{p}/{q}"],
        right=[decimal],
        wrong=[
            (
                decimal[: (at := decimal.index(".") + 2)] + str((int(decimal[at]) + 3) % 10) + decimal[at + 1 :],
                decimal,
                "digit",
            )
        ],
    )


def mixed_numbers(draw: Random) -> Case:
    d = draw.choice([2, 3, 4, 5, 6, 7, 8, 9, 12])
    n = draw.choice([n for n in range(1, d) if gcd(n, d) == 1])
    w, sign = draw.randint(1, 20), draw.choice(["", "", "", "-"])
    value = lambda s, w, n, d: (w + Fraction(n, d)) * (-1 if s else 1)  # noqa: E731
    improper = lambda s, w, n, d: rf"{s}\frac{{{w * d + n}}}{{{d}}}"  # noqa: E731
    mixed = lambda s, w, n, d: rf"{s}{w}\frac{{{n}}}{{{d}}}"  # noqa: E731
    return case(
        draw,
        (sign, w, n, d),
        [
            mixed,
            lambda s, w, n, d: rf"{s}{w} {n}/{d}",
            lambda s, w, n, d: rf"{s}{w}\dfrac{{{n}}}{{{d}}}",
            lambda s, w, n, d: rf"{s}{w}\,\tfrac{{{n}}}{{{d}}}",
            improper,
            lambda s, w, n, d: "" if s else rf"{w} + \frac{{{n}}}{{{d}}}",
            lambda s, w, n, d: f"{s}{w * d + n}/{d}",
        ],
        {
            "whole number": (sign, w + 1, n, d),
            "numerator": (sign, w, n % (d - 1) + 1, d) if d > 2 else (sign, w, n, d + 1),
            "denominator": (sign, w, n, d + 1),
            "sign": ("" if sign else "-", w, n, d),
        },
        value=value,
        references=[mixed, improper, lambda s, w, n, d: f"{s}{w * d + n}/{d}"],
    )


def _repeating(before: str, again: str) -> Fraction:
    base = Fraction(int(before or "0"), 10 ** len(before))
    return base + Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(before))


def repeating_decimals(draw: Random) -> Case:
    before = draw.choice(["", "", str(draw.randint(1, 9))])
    again = draw.choice([str(draw.randint(1, 8)), draw.choice(["12", "27", "36", "45", "63", "81", "09", "18", "54"])])
    if before and before == again[-1]:
        again = str(int(again[0]) % 8 + 1) if len(again) == 1 else "27"
        before = "4"
    changed = other_digit(draw, again)
    if len(changed) == 2 and changed[0] == changed[1]:
        changed = changed[0] + "5" if changed[0] != "5" else "57"
    fraction = lambda b, r: rf"\frac{{{_repeating(b, r).numerator}}}{{{_repeating(b, r).denominator}}}"  # noqa: E731
    return case(
        draw,
        (before, again),
        [
            lambda b, r: rf"0.{b}\overline{{{r}}}",
            lambda b, r: rf"0.{b}{r * 4}\ldots",
            lambda b, r: f"0.{b}{r * 4}...",
            lambda b, r: rf"0.{b}\overline{{{r * 2}}}",
            lambda b, r: rf"0.{b}\dot{{{r}}}" if len(r) == 1 else rf"0.{b}\bar{{{r}}}",
            fraction,
        ],
        {
            "repeated digit": (before, changed),
            "digit before": (str((int(before or "0") + 2) % 10), again),
            "extent of the bar": ("", before + again) if before else (draw.choice("05"), again),
        },
        value=_repeating,
        references=[fraction, lambda b, r: rf"0.{b}\overline{{{r}}}"],
    )


def powers_of_ten(draw: Random) -> Case:
    mantissa = f"{draw.randint(1, 9)}.{draw.randint(1, 99)}"
    e, sign = nonzero(draw, -9, 12), draw.choice(["", "", "", "-"])
    value = lambda s, m, e: Fraction(m) * Fraction(10) ** e * (-1 if s else 1)  # noqa: E731

    def plain(s: str, m: str, e: int) -> str:
        return f"{s}{Decimal(m).scaleb(e):f}"

    return case(
        draw,
        (sign, mantissa, e),
        [
            lambda s, m, e: rf"{s}{m} \times 10^{{{e}}}",
            lambda s, m, e: rf"{s}{m} \cdot 10^{{{e}}}",
            lambda s, m, e: f"{s}{m}e{e}",
            lambda s, m, e: f"{s}{m}*10^{{{e}}}",
            lambda s, m, e: rf"{s}{Decimal(m) * 10} \times 10^{{{e - 1}}}",
            plain,
        ],
        {
            "digit": (sign, other_digit(draw, mantissa), e),
            "exponent": (sign, mantissa, e + draw.choice([-1, 1])),
            "sign of the exponent": (sign, mantissa, -e),
            "sign": ("" if sign else "-", mantissa, e),
        },
        value=value,
        references=[lambda s, m, e: rf"{s}{m} \times 10^{{{e}}}", lambda s, m, e: rf"{s}{m}\cdot 10^{{{e}}}", plain],
    )


MAGNITUDES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}


def magnitudes(draw: Random) -> Case:
    word = draw.choice(list(MAGNITUDES))
    number = draw.choice([str(draw.randint(2, 99)), f"{draw.randint(1, 99)}.{draw.randint(1, 9)}"])
    full = lambda n, w: str(int(Fraction(n) * 10 ** MAGNITUDES[w]))  # noqa: E731
    return case(
        draw,
        (number, word),
        [
            lambda n, w: f"{n} {w}",
            lambda n, w: rf"{n} \text{{ {w}}}",
            lambda n, w: rf"{n}\text{{ {w}}}",
            full,
            lambda n, w: f"{int(full(n, w)):,}".replace(",", "{,}"),
            lambda n, w: rf"{n} \times 10^{{{MAGNITUDES[w]}}}",
        ],
        {
            "digit": (other_digit(draw, number), word),
            "magnitude": (number, draw.choice([w for w in MAGNITUDES if w != word])),
        },
        value=lambda n, w: Fraction(full(n, w)),
        references=[full, lambda n, w: rf"{n} \text{{ {w}}}", lambda n, w: f"{int(full(n, w)):,}"],
    )


NAMES_OF_BASES = {2: "two", 3: "three", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine", 12: "twelve"}


def number_bases(draw: Random) -> Case:
    base = draw.choice([3, 5, 6, 7, 8, 9])
    digits = draw.choice("123456789"[: base - 1]) + "".join(
        draw.choice("0123456789"[:base]) for _ in range(draw.randint(1, 4))
    )
    at = draw.randrange(1, len(digits))
    changed = digits[:at] + draw.choice([d for d in "0123456789"[:base] if d != digits[at]]) + digits[at + 1 :]
    other = draw.choice([b for b in NAMES_OF_BASES if b != base and b > int(max(digits))])
    based = lambda n, b: f"{n}_{{{b}}}"  # noqa: E731
    return case(
        draw,
        (digits, base),
        [
            based,
            lambda n, b: f"{n}_{b}" if b < 10 else "",
            lambda n, b: rf"{n}_{{\text{{{NAMES_OF_BASES[b]}}}}}",
            lambda n, b: f"({n})_{{{b}}}",
            lambda n, b: rf"{n}_{{({b})}}",
        ],
        {"digit": (changed, base), "base": (digits, other), "digit left out": (digits[:-1], base)},
        references=[based, lambda n, b: f"{n}_{b}", lambda n, b: rf"{n}_{{\text{{{NAMES_OF_BASES[b]}}}}}"],
        right=[digits],
        wrong=[(changed, digits, "digit")],
    )


def ratios(draw: Random) -> Case:
    f = _fraction(draw, 2, 30)
    p, q = f.numerator, f.denominator
    return case(
        draw,
        (p, q),
        [
            lambda p, q: f"{p}:{q}",
            lambda p, q: f"{p} : {q}",
            lambda p, q: rf"{p}\colon {q}",
            lambda p, q: rf"\text{{{p}:{q}}}",
            lambda p, q: f"{p}:{q}.",
        ],
        {"first": (p + 1, q), "second": (p, q + 1), "order": (q, p)},
        value=Fraction,
        references=[lambda p, q: f"{p}:{q}"],
    )
