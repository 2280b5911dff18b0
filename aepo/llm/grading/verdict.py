"""What the verifier made of one response, and the reasons that it gives."""

from dataclasses import dataclass, field

RIGHT = ("exact", "rounded", "algebra", "tolerance")
"""Reasons that pass: "rounded" is a fraction to six digits, "algebra" what sympy finds equal, "tolerance" what a
benchmark allows."""


REASONS = (*RIGHT, "wrong", "no answer", "refused", "timeout", "error", "custom", "misjudged")
"""What `Verdict.reason` starts with; wrong, refused and error may add details after a colon. "custom" is a reward that
somebody else's function gave as a number, "misjudged" one that `reward.false_positives` or `false_negatives` turned
over."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the verifier made of one response, with enough beside the reward to audit it."""

    reward: float
    """1.0 if the final answer is right, else 0.0."""
    extracted: str | None
    """The final answer found, cut to MAX_ANSWER_CHARACTERS; None if the response states none."""
    reason: str
    """One of REASONS, with details after a colon for refused and error."""
    parts: tuple[float, ...] = field(default=(), repr=False)
    """What each of several reward functions gave; () where there is one, or one of them failed."""
    right_by: float | None = field(default=None, repr=False)
    """Of several functions, what the one gave that says whether the response is right; None: `reward` says it."""

    @property
    def decides(self) -> float:
        """The reward that says whether the response is right, by being above 0."""
        return self.reward if self.right_by is None else self.right_by

    @property
    def right(self) -> bool:
        """Whether the response counts for pass@k."""
        return self.decides > 0
