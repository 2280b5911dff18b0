r"""Words in answers: which may be left out and which decide.

They stand in the way of writing of `aepo.llm.grading.written`: `\text{word}`, one each.
"""

import re
from dataclasses import dataclass

WORD = re.compile(r"\s*\\text\{([^{}]*)\}\s*")

FILLERS = frozenset(
    "a an the of is are was be it its this that there so thus hence therefore answer result value total final "
    "number in to at about approximately approx roughly exactly precisely only just either both equals equal old "
    "long tall wide high deep away far each every altogether overall".split()
)
"""They say nothing about which answer it is."""

DECIDING = frozenset(
    "or not no nor non none never neither without except unless if when where otherwise but than plus minus "
    "negative positive times half twice double triple squared cubed square cube root over divided factorial mod "
    "modulo base more less fewer greater smaller larger bigger least most minimum maximum min max under above "
    "below between up down increase increases increased increasing decrease decreases decreased decreasing rise "
    "fall gain loss profit win lose won lost odd even am pm noon midnight before after early late earlier later "
    "ago ahead behind left right north south east west northeast northwest southeast southwest clockwise "
    "counterclockwise anticlockwise true false yes heads tails inside outside inner outer upper lower top bottom "
    "front back first last next previous inclusive exclusive open closed rational irrational real complex "
    "imaginary prime composite finite infinite infinitely many undefined impossible nothing exist exists diverges "
    "converges divergent convergent parallel perpendicular acute obtuse convex concave hundred thousand million "
    "billion trillion dozen pair score january february march april may june july august september october "
    "november december jan feb mar apr jun jul aug sep sept oct nov dec monday tuesday wednesday thursday friday "
    "saturday sunday bc ad bce ce two three four five six seven eight nine ten eleven twelve twenty hundredth "
    "thousandth tenth third fourth fifth sixth seventh eighth ninth".split()
)
"""They have an opposite, or make another number of the one beside them: where one side alone has one, it decides."""

_MONTHS = frozenset("january february march april may june july august september october november december".split())
_SAME_WORD = {"an": "a", "metre": "meter", "metres": "meters", "litre": "liter", "colour": "color", "grey": "gray"}


@dataclass(frozen=True)
class Worded:
    """A text as formulas and the words behind each."""

    formulas: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    """Behind the formula at the same place; the first formula is empty where words come first."""

    @property
    def spoken(self) -> tuple[str, ...]:
        """All words in their order."""
        return tuple(word for group in self.words for word in group)


def worded(text: str) -> Worded:
    r"""The formulas of a text and its words, which are told apart by where they stand.

    >>> worded(r"3 \text{cm} \times 4 \text{cm}")
    Worded(formulas=('3', '\\times 4'), words=(('cm',), ('cm',)))
    >>> worded(r"\text{July} 4").formulas, worded(r"\text{not} \text{east}").words
    (('', '4'), (('not', 'east'),))
    """
    formulas, words, at = [""], [[]], 0
    for found in WORD.finditer(text):
        between = text[at : found.start()].strip(" .")
        at = found.end()
        if between.strip(",;:-"):
            formulas.append(between)
            words.append([])
        words[-1].append(_folded(found[1]))
    rest = text[at:].strip(" ,;:.")
    if rest:
        formulas.append(rest)
        words.append([])
    if not words[0] and len(formulas) > 1:
        formulas, words = formulas[1:], words[1:]
    return Worded(tuple(formulas), tuple(map(tuple, words)))


def _folded(word: str) -> str:
    word = word.casefold()
    return _SAME_WORD.get(word, word)


def telling(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words without fillers and without the plural's s.

    >>> telling(("the", "red", "Apples"))
    ('red', 'apple')
    """
    return tuple(_singular(word.casefold()) for word in words if word.casefold() not in FILLERS)


def _singular(word: str) -> str:
    if word == "halves":
        return "half"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-3] + "y" if word.endswith("ies") else word[:-1]
    return word


def same_words(found: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """Whether they say the same: word by word, but for fillers and plurals."""
    return telling(found) == telling(wanted)


def harmless(words: tuple[str, ...]) -> bool:
    """Whether words that only one side has may be looked away from: none of them decides.

    >>> harmless(("apples",)), harmless(("per", "cent", "decrease"))
    (True, False)
    """
    return not any({word.casefold(), _singular(word.casefold())} & DECIDING for word in words)


def is_date(words: tuple[str, ...]) -> bool:
    """Whether a month is among them."""
    return any(word in _MONTHS for word in words)
