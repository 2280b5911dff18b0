"""Whether an answer is right: one place for training and evaluation."""

from aepo.llm.grading.math_reward import (
    REASONS,
    Verdict,
    math_reward,
)

__all__ = [
    "REASONS",
    "Verdict",
    "math_reward",
]
