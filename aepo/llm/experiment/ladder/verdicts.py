"""What numbers over seeds say of a claim: holds, refuted or undecided, by one rule, corrected for many claims."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from aepo.over_seeds import Array, Estimate, estimate

HOLDS, REFUTED, UNDECIDED, NOT_RUN = "holds", "refuted", "undecided", "not run"


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect:
    """What is claimed to be above 0, seed by seed."""

    values: Array
    """(N,), N >= 1."""
    smallest: float
    """The least that would interest, >= 0."""
    wanted: float | None = None
    """Half the width of the 95 % interval that is asked for."""
    either: bool = False
    """Whether it is claimed to be above or below 0."""

    @property
    def estimate(self) -> Estimate:
        """Mean and 95 % t interval."""
        return estimate(self.values)

    @property
    def p(self) -> float:
        """Of the two-sided t-test against 0 (`two_sided_p`)."""
        return two_sided_p(self.values)

    @property
    def too_small(self) -> bool:
        """Whether the interval excludes what would interest; never with one seed."""
        found = self.estimate
        below = found.mean + found.half_width < self.smallest
        return below and (not self.either or found.mean - found.half_width > -self.smallest)


def two_sided_p(values: Array) -> float:
    """p-value of the t-test that the mean over seeds is 0; 1 with one seed, or where every seed has 0.

    >>> two_sided_p(np.array([1.0])), two_sided_p(np.array([0.0, 0.0])), two_sided_p(np.array([1.0, 1.0]))
    (1.0, 1.0, 0.0)
    >>> round(two_sided_p(np.array([1.0, 2.0, 3.0])), 4)  # t = 2 sqrt(3) with two degrees of freedom
    0.0742
    """
    count, mean = len(values), float(np.mean(values))
    if count < 2 or mean == 0:
        return 1.0
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return 2 * float(student_t.sf(abs(mean) / error, count - 1)) if error else 0.0


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected so that one false claim among all has a chance of at most alpha (Holm 1979), in their order.

    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [1.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[at]))
        corrected[at] = largest
    return corrected


def joint_p(effects: Sequence[Effect]) -> tuple[float, bool]:
    """The p-value of a claim that holds where all its effects do, and whether it speaks for the claim.

    For it: the largest one, since each must hold. Against it: the smallest of those at or below 0, times their number,
    since one is enough.

    Args:
        effects: one or more.
    """
    against = [effect.p for effect in effects if effect.estimate.mean <= 0 and not effect.either]
    if not against:
        return max(effect.p for effect in effects), True
    return min(1.0, len(effects) * min(against)), False


def verdict(effects: Sequence[Effect], corrected: float, *, alpha: float) -> str:
    """What the effects of a claim say: the first of the rule's two that is met.

    Args:
        effects: one or more.
        corrected: their `joint_p`, corrected for all claims.
        alpha: below which it counts.
    """
    if corrected < alpha:
        return HOLDS if joint_p(effects)[1] else REFUTED
    return REFUTED if any(effect.too_small for effect in effects) else UNDECIDED


def seeds_needed(values: Array, *, wanted: float, most: int) -> int | None:
    """With how many seeds of this spread half the width of the 95 % interval is at most `wanted`; None: with none up to
    `most`.

    >>> seeds_needed(np.array([-1.0, 1.0]), wanted=1.3, most=24), seeds_needed(np.array([-9.0, 9.0]), wanted=1, most=24)
    (8, None)
    """
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.inf
    for count in range(2, most + 1):
        if student_t.ppf(0.975, count - 1) * spread / math.sqrt(count) <= wanted:
            return count
    return None


def still_asked(effect: Effect, *, most: int) -> str:
    """How many seeds more an interval that is wider than wanted needs, in words; nothing where it is not.

    Args:
        effect: whose interval.
        most: seeds.
    """
    if effect.wanted is None or effect.estimate.half_width <= effect.wanted:
        return ""
    count = len(effect.values)
    needed = seeds_needed(effect.values, wanted=effect.wanted, most=most)
    if count < 2:
        return "one seed says nothing of the spread"
    if needed is None or count >= most:
        return f"±{effect.wanted:g} is not reached with {most} seeds"
    return f"±{effect.wanted:g} takes {max(1, needed - count)} more seeds"
