"""How an answer is written down and stated: Unicode, wrappers of looks, no backslashes, hedges, boxes, final marks."""

from random import Random

from answer_pairs.case import Case, Form, case, nonzero, other_digit

WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
HALVES = {(1, 2): "½", (1, 4): "¼", (3, 4): "¾", (1, 3): "⅓", (2, 3): "⅔"}


def unicode_numbers(draw: Random) -> Case:
    n = draw.choice(["", "-"]) + str(draw.randint(11, 999))
    minus = lambda n: n.replace("-", "−")  # noqa: E731
    return case(
        draw,
        (n,),
        [
            str,
            lambda n: minus(n).translate(WIDE),
            lambda n: n.replace("-", "－").translate(WIDE),
            lambda n: f"{minus(n)}。",
            lambda n: f"{minus(n)}．",
            lambda n: f"\u2009{minus(n)}\u00a0",
        ],
        {"digit": (other_digit(draw, n),), "sign": (n[1:] if n[0] == "-" else f"-{n}",)},
        references=[str],
    )


def unicode_formulas(draw: Random) -> Case:
    kind = draw.randrange(7)
    a, b = draw.randint(2, 9), draw.choice([2, 3, 5, 6, 7])
    forms: list[Form]
    if kind == 0:
        forms = [
            lambda a, b: rf"{a}\sqrt{{{b}}}",
            lambda a, b: f"{a}√{b}",
            lambda a, b: f"{a}√({b})",
            lambda a, b: f"{a} √{b}",
        ]
    elif kind == 1:
        forms = [
            lambda a, b: f"x^{a} + {b}",
            lambda a, b: f"x{str(a).translate(RAISED)}+{b}",
            lambda a, b: f"x{str(a).translate(RAISED)} ＋ {b}",
        ]
    elif kind == 2:
        forms = [
            lambda a, b: f"({a},{b})",
            lambda a, b: f"（{a}，{b}）",
            lambda a, b: f"({a}，{b})",
            lambda a, b: f"（{a}, {b}）",
        ]
    elif kind == 3:
        forms = [
            lambda a, b: rf"\frac{{{a}\pi}}{{{b}}}",
            lambda a, b: f"{a}π/{b}",
            lambda a, b: rf"\frac{{{a}π}}{{{b}}}",
        ]
    elif kind == 4:
        forms = [
            lambda a, b: rf"{a} \times 10^{{{b}}}",
            lambda a, b: f"{a}×10{str(b).translate(RAISED)}",
            lambda a, b: f"{a} × 10^{b}",
            lambda a, b: f"{a}·10{str(b).translate(RAISED)}",
        ]
    elif kind == 5:
        forms = [
            lambda a, b: rf"{a} \le x \le {a + b}",
            lambda a, b: f"{a} ≤ x ≤ {a + b}",
            lambda a, b: f"{a}≤x≤{a + b}",
            lambda a, b: f"{a}⩽x⩽{a + b}",
        ]
    else:
        top, bottom = draw.choice(list(HALVES))
        other = draw.choice([one for one in HALVES if one != (top, bottom)])
        return case(
            draw,
            (top, bottom),
            [
                lambda p, q: rf"\frac{{{p}}}{{{q}}}",
                lambda p, q: HALVES[p, q],
                lambda p, q: f"{p}⁄{q}",
                lambda p, q: f"{p}／{q}",
            ],
            {"fraction": other},
            references=[lambda p, q: rf"\frac{{{p}}}{{{q}}}", lambda p, q: f"{p}/{q}"],
        )
    return case(draw, (a, b), forms, {"first number": (a + 1, b), "second number": (a, b + 1)}, references=forms[:1])


def looks(draw: Random) -> Case:
    n = draw.choice(
        [str(draw.randint(11, 999)), f"-{draw.randint(2, 99)}", f"{draw.randint(1, 9)}.{draw.randint(1, 9)}"]
    )
    return case(
        draw,
        (n,),
        [
            lambda n: rf"\boldsymbol{{{n}}}",
            lambda n: rf"\bm{{{n}}}",
            lambda n: rf"{{\bf {n}}}",
            lambda n: rf"\textcolor{{blue}}{{{n}}}",
            lambda n: rf"{{\color{{red}}{n}}}",
            lambda n: rf"\mathsf{{{n}}}",
            lambda n: rf"\underline{{{n}}}",
            lambda n: rf"\mathbf{{{n}}}",
            lambda n: rf"\displaystyle {n}",
            lambda n: f"**{n}**",
            lambda n: rf"\large {n}",
            lambda n: rf"\mathbf{{\textit{{{n}}}}}",
        ],
        {"digit": (other_digit(draw, n),), "sign": (n[1:] if n[0] == "-" else f"-{n}",)},
        references=[str],
    )


def no_backslashes(draw: Random) -> Case:
    a, b = draw.randint(2, 9), draw.choice([2, 3, 5, 6, 7])
    kind = draw.randrange(5)
    forms: list[Form]
    if kind == 0:
        forms = [
            lambda a, b: rf"{a}\sqrt{{{b}}}",
            lambda a, b: f"{a}sqrt({b})",
            lambda a, b: f"{a}*sqrt({b})",
            lambda a, b: f"{a} sqrt{{{b}}}",
        ]
    elif kind == 1:
        forms = [
            lambda a, b: rf"\frac{{{a}\pi}}{{{b}}}",
            lambda a, b: f"{a}pi/{b}",
            lambda a, b: f"{a}*pi/{b}",
            lambda a, b: f"({a} pi)/{b}",
        ]
    elif kind == 2:
        forms = [
            lambda a, b: rf"{a}\ln {b}",
            lambda a, b: f"{a} ln {b}",
            lambda a, b: f"{a}ln({b})",
            lambda a, b: f"{a}*ln({b})",
        ]
    elif kind == 3:
        forms = [
            lambda a, b: rf"{a}\sin(x) + {b}",
            lambda a, b: f"{a}sin(x) + {b}",
            lambda a, b: f"{b} + {a} sin(x)",
            lambda a, b: f"{a}*sin(x)+{b}",
        ]
    else:
        forms = [
            lambda a, b: f"{a}x^{b}",
            lambda a, b: f"{a}*x^{b}",
            lambda a, b: f"{a}*x**{b}",
            lambda a, b: f"{a} x^{b}",
        ]
    return case(
        draw,
        (a, b),
        forms,
        {"first number": (a + 1, b), "second number": (a, b + 1), "sign": (-a, b)},
        references=forms[:1],
    )


def hedges(draw: Random) -> Case:
    a, b, c = draw.sample(range(2, 99), 3)
    if draw.random() < 0.4:
        return case(
            draw,
            (a, b),
            [
                lambda a, b: rf"Either $x=\boxed{{{a}}}$ or $x=\boxed{{{b}}}$.",
                lambda a, b: rf"Either $x=\boxed{{{b}}}$ or $x=\boxed{{{a}}}$.",
                lambda a, b: rf"The answer is $\boxed{{{a}}}$ or $\boxed{{{b}}}$.",
                lambda a, b: rf"So \boxed{{{a} \text{{ or }} {b}}}.",
                lambda a, b: rf"Hence $x = \boxed{{{a}}}$ and $x = \boxed{{{b}}}$.",
            ],
            {"number": (a, c)},
            value=lambda a, b: {a, b},
            references=[lambda a, b: f"{a},{b}", lambda a, b: f"{a}, {b}"],
            boxed=False,
            wrong=[
                (
                    rf"Hence $x = \boxed{{{a}}}$.",
                    rf"Hence $x = \boxed{{{a}}}$ and $x = \boxed{{{b}}}$.",
                    "answer left out",
                )
            ],
        )
    return case(
        draw,
        (a, ""),
        [
            lambda a, h: f"The answer is ${a}$" + (h and f" or ${h}$") + ".",
            lambda a, h: f"The answer is {a}" + (h and f" or {h}") + ".",
            lambda a, h: rf"So the answer is $\boxed{{{a}}}$" + (h and rf" or $\boxed{{{h}}}$") + ".",
            lambda a, h: rf"We get \boxed{{{a}" + (h and rf" \text{{ or }} {h}") + "}.",
            lambda a, h: rf"We get \boxed{{{a}" + (h and rf"\text{{, {h}}}") + "}.",
            lambda a, h: rf"Hence $x=\boxed{{{a}}}$" + (h and rf" or $x=\boxed{{{h}}}$") + ".",
            lambda a, h: rf"The answer is \({a}\)" + (h and rf" or \({h}\)") + ".",
            lambda a, h: f"#### {a}" + (h and f" or {h}"),
        ],
        {"answer added": (a, c)},
        references=[lambda a, h: str(a)],
        boxed=False,
    )


def several_boxes(draw: Random) -> Case:
    a, b, c = draw.sample(range(2, 99), 3)
    if draw.random() < 0.5:
        return case(
            draw,
            (a, b),
            [
                lambda a, b: rf"First we find \boxed{{{b}}}. Then, after the second step, we get \boxed{{{a}}}.",
                lambda a, b: rf"So the sum is \boxed{{{a}}}. Checking again, it is \boxed{{{a}}}.",
                lambda a, b: rf"The first part gives $\boxed{{{b}}}$. Finally, the result is $\boxed{{{a}}}$.",
                lambda a, b: rf"\boxed{{\boxed{{{a}}}}}",
            ],
            {"last box": (c, b), "order": (b, a)},
            references=[lambda a, b: str(a)],
            boxed=False,
        )
    return case(
        draw,
        (a, b),
        [
            lambda a, b: rf"The solutions are \boxed{{{a}}} and \boxed{{{b}}}.",
            lambda a, b: rf"We find $\boxed{{{b}}}$, $\boxed{{{a}}}$.",
            lambda a, b: rf"They are $\boxed{{{a}}}$ and $\boxed{{{b}}}$.",
            lambda a, b: rf"So they are \boxed{{{a}, {b}}}.",
        ],
        {"second answer": (a, c), "first answer": (c, b)},
        references=[lambda a, b: f"{a}, {b}", lambda a, b: rf"{a} \text{{ and }} {b}"],
        boxed=False,
        wrong=[(rf"So they are \boxed{{{a}}}.", rf"So they are \boxed{{{a}, {b}}}.", "answer left out")],
    )


def final_marks(draw: Random) -> Case:
    n = draw.choice(
        [
            str(draw.randint(2, 999)),
            str(draw.randint(1000, 99999)),
            f"{draw.randint(1, 99)}.{draw.randint(1, 9)}",
            f"-{draw.randint(2, 99)}",
        ]
    )
    return case(
        draw,
        (n,),
        [
            lambda n: f"We add them up.\n#### {n}",
            lambda n: f"The answer is {n}.",
            lambda n: f"So the answer is: ${n}$.",
            lambda n: f"**The answer is {n}**",
            lambda n: f"The final answer is **{n}**.",
            lambda n: f"#### {int(n):,}" if n.isdigit() and len(n) > 3 else f"#### {n}\n",
            lambda n: rf"The answer is \({n}\).",
            lambda n: rf"Therefore the final answer is $\boxed{{{n}}}$. I hope it is correct.",
        ],
        {
            "digit": (other_digit(draw, n),),
            "sign": (n[1:] if n[0] == "-" else f"-{n}",),
            "digit added": (n + str(nonzero(draw, 1, 9)),),
        },
        references=[str],
        boxed=False,
    )
