"""Whether a response's final answer is the reference answer: a cheap exact path first, then math-verify.

`math_reward` is pure and picklable, and so is its `Verdict`: a pool of killable workers can wrap it as it is.
"""

import logging
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

# Longer "answers" are essays or loops: parsing one takes math-verify seconds, and no reference comes near it.
MAX_ANSWER_CHARACTERS = 2000
# 10^99999 and 99999! still compare in a third of a second; ten times more costs a whole deadline.
MAX_LITERAL_DIGITS = 5
# e^{-x^{2}} nests twice; what nests three times is a tower whatever its letters, since n/n simplifies to 1.
MAX_EXPONENT_DEPTH = 2
# A number longer than this is compared as text: Python refuses to convert ints of more than 4,300 digits.
MAX_NUMBER_CHARACTERS = 200
# A fraction and its decimal agree to six digits: 0.333333 is 1/3, 0.33 is not.
ROUNDING = Fraction(1, 10**6)
# math-verify's own default: nearly all comparisons take milliseconds, what takes longer never ends.
TIMEOUT_SECONDS = 5
# A deadline that was swallowed comes again after this long.
DEADLINE_REPEAT_SECONDS = 0.2

REASONS = ("exact", "rounded", "math-verify", "wrong", "no answer", "refused", "timeout", "error", "custom")
"""What `Verdict.reason` starts with; refused and error add details after a colon. The first three pass;
"custom" is a reward that somebody else's function gave as a number."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the verifier made of one response, with enough beside the reward to audit it."""

    reward: float
    """1.0 if the final answer is right, else 0.0."""
    extracted: str | None
    """The final answer found, cut to MAX_ANSWER_CHARACTERS; None if the response states none."""
    reason: str
    """One of REASONS, with details after a colon for refused and error."""


def math_reward(response: str, answer: str, *, timeout_seconds: float | None = TIMEOUT_SECONDS) -> Verdict:
    r"""1 if the response's final answer equals the reference, with the reason (the paper's binary reward).

    The final answer is `extracted_answer(response)`; a bare number at the end of a text does not count. Two
    plain numbers (integers, decimals, a/b, \frac{a}{b}, 1.5e3, 1.5 \times 10^{3}; commas and $ are ignored)
    are decided here: equal, or, where one is a fraction, equal to six digits ("rounded"). Texts that are
    equal up to spacing are right. Everything else goes to math-verify, unless it is so large that sympy would
    not come back (`refusal`). math-verify ignores units, percent signs and the subscripts of number bases.

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
    refused = refusal(extracted)
    reason = _exact(extracted, answer) if len(extracted) <= MAX_ANSWER_CHARACTERS else None
    if reason is None:
        reason = f"refused: {refused}" if refused else _math_verify(extracted, answer, timeout_seconds)
    right = reason in ("exact", "rounded", "math-verify")
    return Verdict(reward=float(right), extracted=extracted[:MAX_ANSWER_CHARACTERS], reason=reason)


def extracted_answer(response: str) -> str | None:
    r"""The final answer stated: the last \boxed{...}, else after the last '####', else 'answer is'.

    After 'answer is' that is the formula between $ signs or \( \) if one follows directly, else the rest of
    the sentence. None if there is none of the three, or nothing in it. Outside a box it is cut one character
    past MAX_ANSWER_CHARACTERS.

    >>> extracted_answer(r"first \boxed{1}, then \boxed{\frac{1}{2}} and \boxed{3")
    '\\frac{1}{2}'
    >>> extracted_answer("#### 1,080"), extracted_answer("The answer is 3.5. Done."), extracted_answer("3.5")
    ('1,080', '3.5', None)
    """
    boxed = last_boxed(response)
    if boxed is not None:
        return boxed.strip() or None
    marks = list(re.finditer(r"####|answer is", response, re.IGNORECASE))
    if not marks:
        return None
    hashes = [mark for mark in marks if mark.group() == "####"]
    mark = (hashes or marks)[-1]
    rest = response[mark.end() :].lstrip(" \t\r\n:*")[: MAX_ANSWER_CHARACTERS + 1]
    formula = None if hashes else re.match(r"\${1,2}([^$]+)\$|\\\((.+?)\\\)", rest, re.DOTALL)
    if formula:
        return (formula.group(1) or formula.group(2)).strip() or None
    line = rest.split("\n", 1)[0]
    sentence = line if hashes else re.split(r"\.(?=\s|\*|$)", line, maxsplit=1)[0]
    return sentence.strip(" \t\r*") or None


def last_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...} or \fbox{...} whose braces balance, or None; linear in the text.

    >>> last_boxed(r"\boxed{a} and \boxed{\frac{1}{2}} and \boxed{cut off"), last_boxed("no box")
    ('\\frac{1}{2}', None)
    """
    opened: list[int | None] = []  # start of the content for a box, None for any other group
    best: tuple[int, int] | None = None
    # A doubled backslash is LaTeX that the response escaped as in JSON; an escaped brace is a printed one.
    for token in re.finditer(r"\\\\?(?:boxed|fbox)\s*\{|\\.|[{}]", text, re.DOTALL):
        if token.group() == "}":
            start = opened.pop() if opened else None
            if start is not None and (best is None or start > best[0]):
                best = (start, token.start())
        elif token.group().endswith("{") and token.group() != r"\{":
            opened.append(token.end() if len(token.group()) > 1 else None)
    return None if best is None else text[best[0] : best[1]]


def refusal(text: str) -> str | None:
    """Why an answer is not worth sympy's time (length, exponent towers, huge factorials), or None.

    Not complete: what gets through costs a deadline. Conservative: a few honest answers, such as 2^{2^{3}},
    are turned away too and only count when they equal the reference as text.

    >>> refusal("5^5^5^5"), refusal("2^{1009}"), refusal("(10^9)!")
    ('exponent tower', None, 'factorial')
    """
    if len(text) > MAX_ANSWER_CHARACTERS:
        return f"answer of more than {MAX_ANSWER_CHARACTERS:,} characters"
    if _unbalanced(text):
        return "unbalanced braces"
    # What remains as letters is a name, so what holds no letters is a number.
    flat = re.sub(r"\\(?:left|right|[dt]?frac|cdot|times|[!,;: ])(?![a-zA-Z])|\s", "", text)
    flat = flat.replace("**", "^")
    huge = rf"[0-9]{{{MAX_LITERAL_DIGITS + 1},}}"
    if re.search(rf"\^[{{(\[+-]*{huge}|[0-9][eE][+-]?{huge}", flat):
        return "exponent of too many digits"
    numeric = not re.search("[a-zA-Z]", flat)
    if re.search(rf"!!|{huge}!", flat) or (numeric and "^" in flat and re.search(r"[)}\]]!", flat)):
        return "factorial"
    for caret in re.finditer(r"\^", flat):
        exponent, after = _exponent(flat, caret.end())
        tower = "^" in exponent or "!" in exponent or after == "^"
        if tower and not re.search("[a-zA-Z]", exponent):
            return "exponent tower"
        if _exponent_depth(exponent) >= MAX_EXPONENT_DEPTH:
            return "exponent tower"
    return None


def _unbalanced(text: str) -> bool:
    """Whether braces close before they open, or stay open: such a text would break out of its box."""
    depth = 0
    for token in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth < 0:
            return True
    return depth != 0


def _exponent(flat: str, start: int) -> tuple[str, str]:
    """The exponent that starts there, a group or a number or one character, and the character after it."""
    if flat[start : start + 1] in ("{", "("):
        depth, end = 1, start + 1
        while depth and end < len(flat):
            depth += (flat[end] in "{(") - (flat[end] in "})")
            end += 1
    else:
        number = re.compile(r"[+-]?[0-9]+").match(flat, start)
        end = number.end() if number else start + 1
    return flat[start:end], flat[end : end + 1]


def _exponent_depth(exponent: str) -> int:
    """How many exponents nest inside this one, counted by the groups that open after a caret."""
    depth, deepest, groups = 0, 0, []
    for at, character in enumerate(exponent):
        if character in "{(":
            groups.append(at > 0 and exponent[at - 1] == "^")
            depth += groups[-1]
        elif character in "})" and groups:
            depth -= groups.pop()
        deepest = max(deepest, depth + (character == "^"))
    return deepest


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


def _number(text: str) -> tuple[Fraction, bool] | None:
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


def _normal(text: str) -> str:
    """The text without dollar signs, text wrappers, LaTeX's spacing and a final dot; inner blanks stay."""
    text = re.sub(r",\\!\s*|\{,\}", ",", text)
    text = re.sub(r"\\?\$|\\[!,;: ]|\\(?:left|right)(?![a-zA-Z])|~", " ", text)
    text = re.sub(r"\\[dt]frac(?![a-zA-Z])", r"\\frac", text)
    text = re.sub(r"\\(?:text|textbf|mbox|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    return text.strip().removesuffix(".").strip()


def _exact(extracted: str, answer: str) -> str | None:
    """The reason, "exact", "rounded" or "wrong", where no algebra is needed for it, else None."""
    found, wanted = _normal(extracted), _normal(answer)
    number, reference = _number(found), _number(wanted)
    if number is not None and reference is not None:
        if number[0] == reference[0]:
            return "exact"
        near = abs(number[0] - reference[0]) <= ROUNDING * abs(reference[0])
        return "rounded" if near and (number[1] or reference[1]) else "wrong"
    # Blanks go only now: "10, 100" is two numbers, "10,100" is one.
    same = re.sub(r"\s", "", found) == re.sub(r"\s", "", wanted)
    return "exact" if same and wanted else None


def _math_verify(extracted: str, answer: str, timeout_seconds: float | None) -> str:
    """math-verify's judgement as a reason: "math-verify" (right), "wrong", "timeout" or "error: ..."."""
    # Imported here: sympy and antlr take a second to load, and most answers never need them.
    from math_verify import parse, verify

    if timeout_seconds is not None and threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "math_reward's deadline needs the main thread of its process (SIGALRM): grade in worker "
            "processes, or pass timeout_seconds=None and stop what hangs yourself"
        )
    refused = refusal(answer)
    if refused:
        return f"error: the reference cannot be parsed safely ({refused})"
    # It warns that it runs without a deadline of its own; ours is around it.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    try:
        with _deadline(timeout_seconds):
            gold, prediction = (
                parse(rf"\boxed{{{text}}}", parsing_timeout=None, raise_on_error=True)
                for text in (_power_of_ten(answer), extracted)
            )
            right = verify(gold, prediction, timeout_seconds=None, raise_on_error=True)
    except _DeadlineError:
        return "timeout"
    # The model writes this text and sympy raises anything on it, RecursionError and AttributeError included.
    except Exception as problem:
        return f"error: {type(problem).__name__}: {str(problem)[:200]}"
    return "math-verify" if right else "wrong"


class _DeadlineError(BaseException):
    """Not an Exception: sympy and math-verify catch those and go on."""


@contextmanager
def _deadline(seconds: float | None) -> Iterator[None]:
    """_DeadlineError in the body after that many seconds of wall-clock time; None sets none.

    math-verify's own alarm rings once, and what a signal handler raises inside a destructor or a callback of the
    garbage collector is lost: then nothing stops sympy. This one rings until the body is left.
    """
    if seconds is None:
        yield
        return

    def ring(number, frame):
        raise _DeadlineError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, DEADLINE_REPEAT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _power_of_ten(answer: str) -> str:
    """4.5e33 as LaTeX: math-verify would read Euler's number in it."""
    return re.sub(r"^\s*([+-]?[0-9.]+)[eE]\+?(-?[0-9]+)\s*$", r"\1 \\times 10^{\2}", answer)
