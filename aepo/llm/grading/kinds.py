r"""Answers that are no formulas: choices, times of day, and numbers in another base than ten.

Each function gives the reason for its kind, or None where the reference is of another.
"""

import re

from aepo.llm.grading.answer_lists import unlabelled
from aepo.llm.grading.numbers_as_typed import plain_number
from aepo.llm.grading.wording import WORD, telling


def unspaced(text: str) -> str:
    """Without blanks, to see whether two texts are the same; a blank between digits tells numbers apart."""
    return re.sub(r"(?<![0-9])(?<![0-9],) | (?![0-9])|(?<=,) (?![0-9]{3}(?![0-9]))", "", text)


_LETTER = r"(?:\\text\{\s*([A-J])\s*\}|(?<![A-Za-z\\])([A-J])(?![A-Za-z]))"
_WANTED_CHOICE = re.compile(
    rf"(?:\\text\{{(?:option|choice|answer)\}}\s*)?(\(?)\s*{_LETTER}\s*(\)?)\s*[.:]?", re.IGNORECASE
)
_CHOICE = re.compile(
    rf"(?:\\text\{{(?:option|choice|answer|the|is)\}}\s*:?\s*)*\(?\s*{_LETTER}\s*(?:\)\s*[.:]?|[.:](?![0-9])|$)",
    re.IGNORECASE,
)
_WITH_TEXT = re.compile(r"\(\s*\\text\{([A-J])\}\s*\)\s*[^\s]")
_ANOTHER = re.compile(
    rf"\(\s*{_LETTER}\s*\)|(?:^|,)\s*\(?{_LETTER}(?:[).:,]|\s*$)|\\text\{{(?:or|and)\}}\s*\(?{_LETTER}(?![A-Za-z])"
)


def choice(found: str, wanted: str) -> str | None:
    """Of a choice, "(C)", "C" or "C. 12", its letter decides; None where the reference is none.

    Where the reference is "(C) 12" the letter alone is enough; what has more is compared with all of it.
    """
    both = _WITH_TEXT.match(wanted), _WANTED_CHOICE.fullmatch(found)
    if both[0] and both[1] and bool(both[1][1]) <= bool(both[1][4]):
        return "exact" if both[0][1] == (both[1][2] or both[1][3]).upper() else "wrong"
    reference = _WANTED_CHOICE.fullmatch(wanted)
    # A small letter is a name, unless it stands in brackets or before one.
    if reference is None or bool(reference[1]) > bool(reference[4]):
        return None
    if (reference[2] or reference[3]).islower() and not reference[4]:
        return None
    found = unlabelled(found)[1]
    given = _CHOICE.match(found)
    if given is None:
        return "wrong"
    rest = found[given.end() :].strip(" ,;")
    if _ANOTHER.search(rest) or re.match(r"\\text\{(?:or|and|not)\}", rest):
        return "wrong"
    return "exact" if (given[1] or given[2]).upper() == (reference[2] or reference[3]).upper() else "wrong"


_TIME = re.compile(
    r"(?P<hour>[0-9]{1,2})\s*:\s*(?P<minute>[0-5][0-9])(?:\s*:\s*(?P<second>[0-5][0-9]))?\s*(?:\\text\{(?P<half>[ap]m)\})?"
    r"|(?P<whole>[0-9]{1,2})\s*\\text\{(?P<of>[ap]m)\}|\\text\{(?P<name>noon|midnight)\}",
    re.IGNORECASE,
)


def _clock(text: str) -> tuple[int, int, str] | None:
    """Hour, seconds past it and "am", "pm", or "" where neither stands; None for what is no time of day."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    if match["name"]:
        return 12, 0, "pm" if match["name"].lower() == "noon" else "am"
    half = (match["half"] or match["of"] or "").lower()
    hour = int(match["hour"] or match["whole"])
    if (half and hour > 12) or hour > 24:
        return None
    if not half and (hour > 12 or hour == 0) and hour < 24:
        half, hour = ("pm", hour - 12) if hour else ("am", 12)
    return hour, 60 * int(match["minute"] or 0) + int(match["second"] or 0), half


def time(found: str, wanted: str) -> str | None:
    """A time of day is no ratio and no number; None where neither side is one."""
    reference, given = _clock(wanted), _clock(_without_fillers(unlabelled(found)[1]))
    if reference is None and given is None:
        return None
    return "exact" if reference == given else "wrong"


def _without_fillers(text: str) -> str:
    """The text without words before it that say nothing."""
    first = WORD.match(text)
    while first and not telling((first[1],)):
        text = text[first.end() :]
        first = WORD.match(text)
    return text


_RATIO = re.compile(r":|\\text\{to\}")


def ratio(found: str, wanted: str) -> str | None:
    """Of a ratio of three or more the parts, up to one factor; None where neither side is one.

    "3 to 4" is a ratio where the other side is one with a colon: on both sides it may be a range.
    """
    texts = [unlabelled(text)[1] for text in (wanted, found)]
    reference, given = map(_terms, texts)
    with_colon = [":" in text for text in texts]
    # The parser would divide more than two by one another.
    if max(len(reference), len(given)) < 3 and (with_colon[0] == with_colon[1] or len(reference) != len(given)):
        return None
    if len(reference) != len(given):
        return "wrong"
    numbers = [[plain_number(term) for term in terms] for terms in (given, reference)]
    if None in (*numbers[0], *numbers[1]):
        return "exact" if list(map(unspaced, given)) == list(map(unspaced, reference)) else "wrong"
    ours, theirs = ([number.value for number in side if number] for side in numbers)
    same = all(one * theirs[0] == other * ours[0] for one, other in zip(ours, theirs, strict=True))
    return "exact" if same and any(ours) == any(theirs) else "wrong"


def _terms(text: str) -> list[str]:
    """What stands between the colons of a ratio; one part where it is none."""
    terms = [term.strip() for term in _RATIO.split(text)]
    return terms if all(terms) and not re.search(r"[=|<>\[\]]|\\[{}]", text) else [text]


_CAPITALS = re.compile(r"(?:\\text\{([A-Z]{3,})\}|([A-Z]{3,}))")


def lettering(found: str, wanted: str) -> str | None:
    """Three capitals and more are a word or the corners of a figure, whose order counts; None for anything else."""
    reference, given = _CAPITALS.fullmatch(wanted), _CAPITALS.fullmatch(unlabelled(found)[1])
    if reference is None or given is None:
        return None
    return "exact" if (given[1] or given[2]) == (reference[1] or reference[2]) else "wrong"


_BASES = dict(
    zip("two three four five six seven eight nine ten eleven twelve sixteen".split(), [*range(2, 13), 16], strict=True)
)
_BASED = re.compile(
    rf"(?P<digits>-?[0-9A-Fa-f]+|\(-?[0-9A-Fa-f]+\))\s*_\s*(?:\{{?\s*\(?\s*(?:\\text\{{)?\s*(?P<base>[0-9]{{1,2}}|{'|'.join(_BASES)})\s*\}}?\s*\)?\s*\}}?)"
    r"|(?P<said>-?[0-9A-Fa-f]+)\s*\\text\{(?:in|base)\}\s*(?:\\text\{base\})?\s*(?P<of>[0-9]{1,2})"
)


def _digits(text: str) -> tuple[str, int] | None:
    """The digits and the base of 52_8, 4210_{5} or 52_{eight}; None for anything else, such as the name E_1."""
    number = _BASED.fullmatch(text)
    if number is None:
        return None
    digits, base = (number["digits"] or number["said"]).strip("()").upper(), number["base"] or number["of"]
    base = int(_BASES.get(base, base))
    try:
        return (digits, base) if 2 <= base <= 36 and int(digits, base) is not None else None
    # A digit that the base does not have.
    except ValueError:
        return None


def based(found: str, wanted: str) -> str | None:
    """Whether a number is the reference's in another base than ten; None if neither side states a base."""
    reference, value = _digits(wanted), unlabelled(found)[1]
    given = _digits(value)
    if reference is None:
        # A base that only the answer has may be another one than the question's.
        return "wrong" if given is not None and given[1] != 10 and plain_number(wanted) is not None else None
    # Without its base it is the same digits, since the question names the base.
    same = given == reference if given is not None else unspaced(value) == reference[0]
    return "exact" if same else "wrong"
