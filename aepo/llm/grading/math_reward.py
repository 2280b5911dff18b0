"""Whether a response's final answer is the reference answer: a cheap exact path first, then math-verify.

`math_reward` is pure and picklable, and so is its `Verdict`: a pool of killable workers can wrap it as it is.
"""

import re
from fractions import Fraction

from aepo.llm.grading.algebra import ROUNDING, TIMEOUT_SECONDS, compared, parsed_number
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS, extracted_answer
from aepo.llm.grading.too_costly import refusal
from aepo.llm.grading.verdict import RIGHT, Verdict

# A number longer than this is compared as text: Python refuses to convert ints of more than 4,300 digits.
MAX_NUMBER_CHARACTERS = 200


def math_reward(response: str, answer: str, *, timeout_seconds: float | None = TIMEOUT_SECONDS) -> Verdict:
    r"""1 if the response's final answer equals the reference, with the reason (the paper's binary reward).

    The final answer is `extracted_answer(response)`; a bare number at the end of a text does not count. Two
    plain numbers (integers, decimals, a/b, \frac{a}{b}, 1.5e3, 1.5 \times 10^{3}; commas and $ are ignored)
    are decided here: equal, or, where one is a fraction, equal to six digits ("rounded"). Texts that are
    equal up to spacing are right; so are a reference's words in any case, a choice's letter, and the digits of
    a number in another base, whose base may be left out. Everything else goes to math-verify, unless it is so
    large that sympy would not come back (`refusal`). math-verify ignores units and percent signs.

    Args:
        response: the model's text, any length.
        answer: the reference, as `Problem.answer` holds it.
        timeout_seconds: deadline of math-verify's whole work, > 0. It comes by SIGALRM, so in the process's main
            thread only. None sets no deadline and works anywhere, for callers that kill what hangs.

    Returns:
        The verdict. What goes wrong inside math-verify is reward 0 with its reason, never an exception.

    Raises:
        ValueError: the reference is empty, or the deadline is not positive.
        RuntimeError: math-verify is needed, with a deadline, off the main thread.

    >>> math_reward(r"so \boxed{\dfrac{1}{2}}", "0.5")
    Verdict(reward=1.0, extracted='\\dfrac{1}{2}', reason='exact')
    >>> math_reward("it is 42", "42")
    Verdict(reward=0.0, extracted=None, reason='no answer')
    """
    if not answer.strip():
        raise ValueError("answer must hold a reference answer, got an empty text")
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be > 0, or None for no deadline, got {timeout_seconds}")
    extracted = extracted_answer(response)
    if extracted is None:
        return Verdict(reward=0.0, extracted=None, reason="no answer")
    reason = equivalence(extracted, answer, timeout_seconds=timeout_seconds)
    return Verdict(reward=float(reason in RIGHT), extracted=extracted[:MAX_ANSWER_CHARACTERS], reason=reason)


def equivalence(extracted: str, answer: str, *, timeout_seconds: float | None) -> str:
    """Why an extracted answer is or is not the reference, as `Verdict.reason`; arguments as of `math_reward`.

    >>> equivalence("2/4", "0.5", timeout_seconds=None), equivalence("52_9", "52_8", timeout_seconds=None)
    ('exact', 'wrong')
    """
    reason = _exact(extracted, answer) if len(extracted) <= MAX_ANSWER_CHARACTERS else None
    if reason is not None:
        return reason
    refused = refusal(extracted)
    return f"refused: {refused}" if refused else compared(extracted, answer, timeout_seconds)


_INTEGER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.[0-9]*)?|\.[0-9]+)"
# Exponents of three digits: Fraction("1e999999999") would fill the memory.
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<top>{_DECIMAL})\s*/\s*(?P<bottom>{_DECIMAL})"
    rf"|\\frac\s*\{{\s*(?P<inner>-?)\s*(?P<ltop>{_DECIMAL})\s*\}}\s*\{{\s*(?P<lbottom>{_DECIMAL})\s*\}}"
    r"|\\frac\s*(?P<dtop>[0-9])\s*(?P<dbottom>[0-9])"
    rf"|(?P<value>{_DECIMAL})(?:[eE](?P<e>[+-]?[0-9]{{1,3}})"
    r"|\s*(?:\\times|\\cdot|\*|×)\s*10\s*\^\s*(?:\{\s*(?P<ten>[+-]?[0-9]{1,3})\s*\}|(?P<one>[0-9])))?)"
)


def plain_number(text: str) -> tuple[Fraction, bool] | None:
    """The value of a plain number, and whether it is written as a fraction; None for anything else."""
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_CHARACTERS else None
    if match is None:
        return None
    sign = -1 if (match["sign"] == "-") != (match["inner"] == "-") else 1
    top = match["top"] or match["ltop"] or match["dtop"]
    if top is not None:
        bottom = Fraction(_digits(match["bottom"] or match["lbottom"] or match["dbottom"]))
        return (sign * Fraction(_digits(top)) / bottom, True) if bottom else None
    exponent = int(match["e"] or match["ten"] or match["one"] or 0)
    return sign * Fraction(_digits(match["value"])) * Fraction(10) ** exponent, False


def _digits(decimal: str) -> str:
    return decimal.replace(",", "").rstrip(".")


def normal(text: str) -> str:
    """The text without dollar signs, text wrappers, LaTeX's spacing and a final dot; inner blanks stay."""
    text = re.sub(r",\\!\s*|\{,\}", ",", text)
    text = re.sub(r"\\?\$|\\[!,;: ]|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])|~", " ", text)
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"([_^])\s*\{\s*(\w)\s*\}", r"\1\2", text)
    text = re.sub(r"\\(?:text|textbf|mbox|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    return text.strip().removesuffix(".").strip()


def _exact(extracted: str, answer: str) -> str | None:
    """The reason, "exact", "rounded" or "wrong", where no algebra is needed for it, else None."""
    found, wanted = normal(extracted), normal(answer)
    number, reference = plain_number(found), plain_number(wanted)
    if number is not None and reference is not None:
        if number[0] == reference[0]:
            return "exact"
        near = abs(number[0] - reference[0]) <= ROUNDING * abs(reference[0])
        return "rounded" if near and (number[1] or reference[1]) else "wrong"
    # Blanks go only now: "10, 100" is two numbers, "10,100" is one.
    same = re.sub(r"\s", "", found) == re.sub(r"\s", "", wanted)
    if same and wanted and reference is None:
        return "exact"
    # {1, 2} is no point and no interval, and the other way round; math-verify takes either for the other.
    kinds = [re.match(r"(\\\{)|[(\[]", text) for text in (found, wanted)]
    if all(kinds) and len({kind[1] for kind in kinds if kind}) == 2:
        return "wrong"
    # To math-verify a time is a ratio, and 3:30 a tenth.
    if re.fullmatch(r"[0-9]{1,2}:[0-5][0-9](?::[0-5][0-9])?", wanted):
        return "wrong"
    claim = _same_digits(found, wanted)
    if claim is None and _WORDS.fullmatch(answer.strip(" $")):
        claim = _same_words(found, wanted)
    return None if claim is None else "exact" if claim else "wrong"


_WORDS = re.compile(r"\\(?:text|textbf|mbox|mathrm|mathbf)\s*\{[^{}0-9]*[a-zA-Z][^{}0-9]*\}\.?")
_BASES = dict(
    zip("two three four five six seven eight nine ten eleven twelve sixteen".split(), [*range(2, 13), 16], strict=True)
)
_BASED = re.compile(rf"(?P<digits>-?[0-9A-F]+)\s*_\s*(?:\{{\s*)?(?P<base>[0-9]{{1,2}}|{'|'.join(_BASES)})(?:\s*\}})?")


def _based(text: str) -> tuple[str, int] | None:
    """The digits and the base of 52_8, 4210_{5} or 52_{eight}; None for anything else, such as the name E_1."""
    number = _BASED.fullmatch(text)
    base = int(_BASES.get(number["base"], number["base"])) if number else 0
    try:
        return (
            (number["digits"], base) if number and 2 <= base <= 36 and int(number["digits"], base) is not None else None
        )
    # A digit that the base does not have.
    except ValueError:
        return None


def _same_digits(found: str, wanted: str) -> bool | None:
    """Whether a number is the reference's in another base than ten; None if the reference is no such number."""
    reference = _based(wanted)
    if reference is None:
        return None
    # Without its base it is the same digits, since the question names the base.
    return _based(found) == reference or found == reference[0]


def _same_words(found: str, wanted: str) -> bool:
    """Whether words are the reference's, whatever their case; of a choice, "(C)", the letter decides."""
    choice = re.fullmatch(r"\(?([A-Z])\)?", wanted)
    if choice:
        letter = re.fullmatch(r"\(?([A-Za-z])(?:\)|[.:)].*)?", found, re.DOTALL)
        return letter is not None and letter[1].upper() == choice[1]
    plain = (re.sub(r"^(?:the|an?)\s+|[^\w\s]", "", text.casefold()).split() for text in (found, wanted))
    return next(plain) == next(plain)


def numeric_value(text: str) -> float | None:
    r"""The real number that an answer is, "x =" before it or not; None if it is none, or cannot be read.

    Without a deadline, like math-verify with timeout_seconds=None.

    >>> numeric_value(r"E = 1.5 \times 10^{3}"), numeric_value("x+1")
    (1500.0, None)
    """
    text = text.rsplit("=", 1)[-1]
    number = plain_number(normal(text))
    return float(number[0]) if number is not None else parsed_number(text)
