"""What the verifier made of one response, and the reasons that it gives."""

from dataclasses import dataclass

RIGHT = ("exact", "rounded", "algebra", "tolerance")
"""Reasons that pass: "rounded" is a fraction to six digits, "algebra" what sympy finds equal, "tolerance" what a
benchmark allows."""


REASONS = (*RIGHT, "wrong", "no answer", "refused", "timeout", "error", "custom")
"""What `Verdict.reason` starts with; wrong, refused and error may add details after a colon. "custom" is a reward that
somebody else's function gave as a number."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the verifier made of one response, with enough beside the reward to audit it."""

    reward: float
    """1.0 if the final answer is right, else 0.0."""
    extracted: str | None
    """The final answer found, cut to MAX_ANSWER_CHARACTERS; None if the response states none."""
    reason: str
    """One of REASONS, with details after a colon for refused and error."""
