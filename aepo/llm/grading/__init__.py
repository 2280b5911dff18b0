"""Whether an answer is right: one place for training and evaluation."""

from aepo.llm.grading.math_reward import math_reward
from aepo.llm.grading.verdict import REASONS, Verdict

__all__ = [
    "REASONS",
    "Verdict",
    "math_reward",
]
