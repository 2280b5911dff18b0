r"""math-verify on one answer and one reference, within a deadline, and with what it gets wrong put right.

It is asked for LaTeX only: where that cannot be parsed it would take the last number of the text, so that
E_{1} + 5 would be 5. What it calls right must still pass three checks of its own: the reference's variables occur in
the answer (it drops trailing letters as units), numbers agree to six digits and not six decimals, and equations that
it cannot solve are multiples of each other (it would call any two of them equal).
"""

import logging
import math
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from aepo.llm.grading.too_costly import refusal

# math-verify's own default: nearly all comparisons take milliseconds, what takes longer never ends.
TIMEOUT_SECONDS = 5
# A deadline that was swallowed comes again after this long.
DEADLINE_REPEAT_SECONDS = 0.2

# A fraction and its decimal agree to six digits: 0.333333 is 1/3, 0.33 is not.
ROUNDING = Fraction(1, 10**6)


def compared(extracted: str, answer: str, timeout_seconds: float | None) -> str:
    """math-verify's judgement as a reason: "math-verify" (right), "wrong", "timeout" or "error: ..."."""
    # Imported here: sympy and antlr take a second to load, and most answers never need them.
    from math_verify import verify

    if timeout_seconds is not None and threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "math_reward's deadline needs the main thread of its process (SIGALRM): grade in worker "
            "processes, or pass timeout_seconds=None and stop what hangs yourself"
        )
    refused = refusal(answer)
    if refused:
        return f"error: the reference cannot be parsed safely ({refused})"
    names = _names(answer)
    if not names <= _names(extracted, whole=True):
        return "wrong"
    try:
        with _deadline(timeout_seconds):
            gold, prediction = (_parsed(text, names) for text in (answer, extracted))
            # With relations compared to sets, x > 2 is (2, \infty).
            right = verify(gold, prediction, allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
            if right and gold and prediction:
                right = _equal_equations(gold[0], prediction[0])
                # A percentage may be the number that it is 100 times.
                right = right and ("%" in answer + extracted or _same_size(gold[0], prediction[0]))
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


def parsed_number(text: str) -> float | None:
    """The real number that a formula is, or None; without a deadline, like `compared` with None."""
    if refusal(text):
        return None
    # A boundary like that of `compared`.
    try:
        parsed = _parsed(text, set())
        number = complex(parsed[0].evalf()) if parsed and getattr(parsed[0], "is_number", False) else None
    except Exception:
        return None
    return number.real if number is not None and number.imag == 0 and math.isfinite(number.real) else None


def _parsed(text: str, names: set[str]) -> list:
    """What math-verify reads in a formula in which these names are variables, not units."""
    from math_verify import LatexExtractionConfig, parse

    # It warns that it runs without a deadline of its own; ours is around it.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return parse(
        rf"\boxed{{{_readable(text, names)}}}", [LatexExtractionConfig()], parsing_timeout=None, raise_on_error=True
    )


def _readable(text: str, names: set[str]) -> str:
    r"""The text without what math-verify would misread."""
    # No number in \text{6 days}.
    text = re.sub(r"\\(?:text|mbox|mathrm)\s*\{(\s*[-+]?[0-9][^{}]*)\}", r"\1", text).replace("**", "^")
    # Euler's number in 4.5e33, and in E_{1}, where it can have no index.
    text = re.sub(r"^\s*([+-]?[0-9.]+)[eE]\+?(-?[0-9]+)\s*$", r"\1 \\times 10^{\2}", text)
    text = re.sub(r"(?<![A-Za-z\\])E(?=\s*_)", r"\\Xi", text)
    # Metres in 6m, seconds in r + s.
    last = re.search(r"(?<=[0-9}\s])([A-Za-z])[\s$]*$", text)
    return f"{text[: last.start()]}{{{last[1]}}}" if last and last[1] in names else text


_GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega hbar ell".split()
)


def _names(text: str, *, whole: bool = False) -> set[str]:
    r"""The variables in an answer; unless `whole`, of its right-hand side, and none where it compares.

    Euler's number and the imaginary unit are none: \exp(x) and \sqrt{-1} do without.
    """
    text = re.sub(r"\\(?:text|textbf|mbox|mathrm|operatorname)\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}", " ", text)
    if not whole:
        if re.search(r"[<>]|\\(?:le|ge|lt|gt|leq|geq|leqslant|geqslant|ne|neq)(?![a-zA-Z])", text):
            return set()
        text = re.split(r"=|\\in(?![a-zA-Z])", text)[-1]
    found = re.findall(r"\\([a-zA-Z]+)|([a-zA-Z])", text)
    return ({command for command, _ in found} & _GREEK) | ({letter for _, letter in found} - {"", "e", "i"})


def _same_size(gold: Any, prediction: Any) -> bool:
    """Whether two numbers below 1 agree to six digits: to math-verify's six decimals, 1e-9 is 2e-9."""
    sizes = [abs(one.evalf()) for one in (gold, prediction) if getattr(one, "is_number", False)]
    return len(sizes) < 2 or sizes[0] >= 1 or bool(abs(sizes[0] - sizes[1]) <= float(ROUNDING) * sizes[0])


def _equal_equations(gold: Any, prediction: Any) -> bool:
    """Whether two equations that nobody can solve for a name are multiples of each other; True for all else."""
    from sympy import Eq, simplify, solve

    if not isinstance(gold, Eq) or not isinstance(prediction, Eq):
        return True
    ratio = simplify((gold.lhs - gold.rhs) / (prediction.lhs - prediction.rhs))
    # A product of names too: an equation of motion may be divided by the mass.
    if all(factor.is_number or factor.is_Symbol for factor in ratio.as_powers_dict()):
        return bool(ratio.is_finite is not False and ratio != 0)
    # Solutions that are equal were found equal; none are equal to none.
    return bool(solve(gold, gold.free_symbols))
