"""Answers of words: opposites, numbers that a word decides on, names, yes and no, choices."""

from random import Random

from answer_pairs.case import Case, Form, case

OPPOSITES = [
    ("east", "west"), ("north", "south"), ("even", "odd"), ("increasing", "decreasing"), ("convex", "concave"),
    ("rational", "irrational"), ("converges", "diverges"), ("left", "right"), ("acute", "obtuse"),
    ("linear", "nonlinear"), ("dependent", "independent"), ("bounded", "unbounded"), ("maximum", "minimum"),
    ("prime", "composite"),
]  # fmt: skip

WORDS: tuple[Form, ...] = (
    lambda w: w,
    lambda w: rf"\text{{{w}}}",
    lambda w: rf"\text{{{w.capitalize()}}}",
    lambda w: rf"\textbf{{{w}}}",
    lambda w: rf"\mathrm{{{w}}}",
    lambda w: f"{w}.",
    lambda w: w.capitalize(),
)


def opposite_words(draw: Random) -> Case:
    pair = draw.choice(OPPOSITES)
    word, other = draw.sample(pair, 2)
    return case(
        draw,
        (word,),
        WORDS,
        {"opposite word": (other,), "negation": (f"not {word}",)},
        references=[WORDS[1], WORDS[1], WORDS[0]],
    )


DECIDING = [
    ("increase", "decrease"), ("more", "less"), ("red", "blue"), ("even", "odd"), ("June", "July"), ("wins", "losses"),
    ("clockwise", "counterclockwise"), ("above", "below"), ("north", "south"), ("times as many", "more"),
]  # fmt: skip


def numbers_with_words(draw: Random) -> Case:
    word, other = draw.sample(draw.choice(DECIDING), 2)
    n = draw.randint(2, 30)
    forms: list[Form] = [
        lambda n, w: rf"{n}\text{{ {w}}}",
        lambda n, w: rf"{n} \text{{ {w}}}",
        lambda n, w: f"{n} {w}",
        lambda n, w: rf"\text{{{n} {w}}}",
        lambda n, w: rf"{n}\ \textbf{{{w}}}",
        lambda n, w: rf"{n} \mathrm{{~{w}}}" if " " not in w else "",
    ]
    return case(draw, (n, word), forms, {"number": (n + 1, word), "word": (n, other)}, references=forms[:2])


NAMES = "Evelyn Carla Angela Briana Debra Peter Maria Quentin Ravi Susan Tomas Wei".split()


def names(draw: Random) -> Case:
    name, other = draw.sample(NAMES, 2)
    return case(
        draw,
        (name,),
        [WORDS[0], WORDS[1], WORDS[3], WORDS[4], WORDS[5]],
        {"name": (other,), "name added": (f"{name} and {other}",), "negation": (f"not {name}",)},
        references=[WORDS[1], WORDS[0]],
    )


def yes_and_no(draw: Random) -> Case:
    word, other = draw.sample(draw.choice([("yes", "no"), ("true", "false")]), 2)
    capital = draw.random() < 0.5
    written = (lambda w: w.capitalize()) if capital else str
    return case(
        draw,
        (word,),
        WORDS,
        {"opposite word": (other,)},
        references=[lambda w: rf"\text{{{written(w)}}}", written],
    )


def choices(draw: Random) -> Case:
    letter, other = draw.sample("ABCDE", 2)
    option = draw.choice([str(draw.randint(2, 90)), r"\frac{1}{2}", r"3\sqrt{2}"])
    forms: list[Form] = [
        str,
        lambda c: f"({c})",
        lambda c: rf"\text{{{c}}}",
        lambda c: rf"\text{{({c})}}",
        lambda c: rf"\mathrm{{({c})}}",
        lambda c: rf"\textbf{{({c})}}\ {option}",
        lambda c: rf"\textbf{{({c}) }} {option}",
        lambda c: f"{c}. {option}",
        lambda c: f"{c}) {option}",
        lambda c: rf"\text{{{c}: the value }} {option}",
        lambda c: c.lower(),
        lambda c: f"({c.lower()})",
    ]
    return case(
        draw,
        (letter,),
        forms,
        {"letter": (other,)},
        references=[str, str, lambda c: rf"\text{{({c})}}", lambda c: f"({c})"],
        wrong=[
            (f"{letter}, {other}", letter, "letter added"),
            (rf"{letter} \text{{ or }} {other}", letter, "letter added"),
        ],
    )
