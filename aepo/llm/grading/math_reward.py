"""Whether a response's final answer is the reference answer: numbers at once, everything else by what it is.

`math_reward` is pure and picklable, and so is its `Verdict`: a pool of killable workers can wrap it as it is.
"""

from aepo.llm.grading.comparison import same_answer
from aepo.llm.grading.deadline import TIMEOUT_SECONDS, deadline
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS, stated_answer
from aepo.llm.grading.numbers_as_typed import typed
from aepo.llm.grading.quantities import NOTHING, Allowed, same_number
from aepo.llm.grading.too_costly import refusal, unbalanced
from aepo.llm.grading.verdict import RIGHT, Verdict
from aepo.llm.grading.written import written


def math_reward(response: str, answer: str, *, timeout_seconds: float | None = TIMEOUT_SECONDS) -> Verdict:
    r"""1 if the response's final answer equals the reference, with the reason (the paper's binary reward).

    The final answer is that of `stated_answer(response)`; a bare number at the end of a text does not count. Whether
    it is right is `equivalence`'s to say, as in an evaluation without unit and tolerance.

    Args:
        response: the model's text, any length.
        answer: the reference, as `Problem.answer` holds it.
        timeout_seconds: deadline of the whole comparison, > 0. It comes by SIGALRM, so in the process's main
            thread only. None sets no deadline and works anywhere, for callers that kill what hangs.

    Returns:
        The verdict. What goes wrong inside the algebra is reward 0 with its reason, never an exception.

    Raises:
        ValueError: the reference is empty, or the deadline is not positive.
        RuntimeError: more than numbers must be compared, with a deadline, off the main thread.

    >>> math_reward(r"so \boxed{\dfrac{1}{2}}", "0.5")
    Verdict(reward=1.0, extracted='\\dfrac{1}{2}', reason='exact')
    >>> math_reward("it is 42", "42")
    Verdict(reward=0.0, extracted=None, reason='no answer')
    """
    if not answer.strip():
        raise ValueError("answer must hold a reference answer, got an empty text")
    if timeout_seconds is not None and not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be > 0, or None for no deadline, got {timeout_seconds}")
    stated = stated_answer(response)
    if stated is None:
        return Verdict(reward=0.0, extracted=None, reason="no answer")
    reason = equivalence(stated.answer, answer, timeout_seconds=timeout_seconds, after=stated.after)
    return Verdict(reward=float(reason in RIGHT), extracted=stated.answer[:MAX_ANSWER_CHARACTERS], reason=reason)


def equivalence(
    extracted: str, answer: str, *, timeout_seconds: float | None, allowed: Allowed = NOTHING, after: str = ""
) -> str:
    """Why an extracted answer is or is not the reference, as `Verdict.reason`.

    Two plain numbers (integers, decimals, a/b, 1.5e3; commas and $ are ignored) are decided here: equal, or, where one
    is a fraction, its decimal to six digits ("rounded"). All else is `aepo.llm.grading.comparison.same_answer`, unless
    it is so large that sympy would not come back (`refusal`).

    Args:
        extracted: the answer of a response.
        answer: the reference.
        timeout_seconds: as of `math_reward`.
        allowed: the unit and tolerance that a benchmark states.
        after: what stands behind the answer, where its unit may be.

    >>> equivalence("2/4", "0.5", timeout_seconds=None), equivalence("52_9", "52_8", timeout_seconds=None)
    ('exact', 'wrong')
    """
    if len(extracted) > MAX_ANSWER_CHARACTERS:
        return f"refused: {refusal(extracted)}"
    if allowed.unit is None and not allowed.tolerance:
        reason = same_number(typed(extracted), typed(answer))
        if reason is not None:
            return reason
        if extracted.strip() == answer.strip():
            return "exact"
    if unbalanced(extracted):
        return "refused: unbalanced braces"
    # Loading the algebra takes seconds where all cores are busy: they are no part of a comparison.
    import latex2sympy2_extended  # noqa: F401

    try:
        with deadline(timeout_seconds):
            found, wanted = written(extracted), written(answer)
            refused = refusal(found), refusal(wanted)
            if any(refused) and found == wanted:
                return "exact"
            if refused[0]:
                return f"refused: {refused[0]}"
            if refused[1]:
                return f"error: the reference cannot be parsed safely ({refused[1]})"
            return same_answer(extracted, answer, allowed, after=after)
    except TimeoutError:
        return "timeout"
    # The model writes this text and sympy raises anything on it, RecursionError and AttributeError included.
    except Exception as problem:
        if isinstance(problem, RuntimeError) and not isinstance(problem, RecursionError):
            raise
        return f"error: {type(problem).__name__}: {str(problem)[:200]}"
