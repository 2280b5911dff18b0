"""The counterexample gallery: where Lemma 4.1, Theorem 4.3 and Corollary 4.4 stop being true, one instance each.

Logits are integer multiples of the logarithm of a rational number, z_a = k_a ln(base), and temperatures are such that
k_a / T is an integer: every probability is rational, and tests confirm each case in exact arithmetic, or in interval
arithmetic where an entropy brings logarithms in. `python -m aepo.theory.cases` prints the page.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from aepo.theory.drift import delta_entropy, delta_entropy_slope
from aepo.theory.sequences import delta_entropy_of_sequences, token_entropy
from aepo.theory.softmax import Array, tempered
from aepo.theory.steering import delta_reward
from aepo.theory.variants import delta_entropy_slope_with_features, delta_entropy_with_features


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One state, or a tree of states, in which a claim fails."""

    name: str
    claim: str
    """The statement that fails here."""
    meaning: str
    """What a practitioner learns from it."""
    base: Fraction
    exponents: tuple
    """k: one tuple of integers, or one nested tuple per level of a sequence policy; z = k ln(base)."""
    correct: tuple
    """A*: bools shaped like the actions or the responses; empty where the claim knows no reward."""
    temperatures: tuple[Fraction, ...] = (Fraction(1),)
    """The temperatures that are compared."""
    gram: tuple[tuple[Fraction, ...], ...] | None = None
    """Inner products of the features, in place of Assumption B.4's identity."""
    measure: Callable[["Case"], dict[str, float]]
    """What the claim is about, by name, at lr = 1."""

    @property
    def logits(self) -> Array:
        """(K,): z of a single state."""
        return np.asarray(self.exponents, dtype=np.float64) * np.log(float(self.base))

    @property
    def levels(self) -> list[Array]:
        """z per level of a sequence policy."""
        return [np.asarray(level, dtype=np.float64) * np.log(float(self.base)) for level in self.exponents]


def sequence_entropy_falls_with_temperature() -> Case:
    """Lemma 4.1 for Def. B.1: heat moves prefixes from a token with an open future to one with a closed future.

    >>> case = sequence_entropy_falls_with_temperature()
    >>> {name: round(value, 3) for name, value in case.measure(case).items()}
    {'H(1)': 3.271, 'H(2)': 2.872}
    """
    open_future, closed_future = (0,) * 1000, (64,) + (0,) * 999
    return Case(
        name="Lemma 4.1, sequences",
        claim="H of Def. B.1, averaged over the prefixes that the tempered policy visits, rises with T",
        meaning="a higher sampling temperature need not give responses of higher mean token entropy",
        base=Fraction(3),
        exponents=((2, 0), (open_future, closed_future)),
        correct=(),
        temperatures=(Fraction(1), Fraction(2)),
        measure=lambda case: {f"H({t})": token_entropy(case.levels, float(t)) for t in case.temperatures},
    )


def theorem_without_its_premise() -> Case:
    """Theorem 4.3 where Delta H(1) > 0: entropy is rising, and a higher temperature slows the rise.

    >>> case = theorem_without_its_premise()
    >>> float(delta_entropy(case.logits, case.correct)) > 0 > float(delta_entropy_slope(case.logits, case.correct))
    True
    """
    return Case(
        name="Theorem 4.3, no premise",
        claim="d Delta H / dT > 0 at T = 1 whatever the sign of Delta H(1)",
        meaning="temperature is a brake on collapse; where entropy rises already, hotter need not mean faster",
        base=Fraction(3, 2),
        exponents=(0, 0, 2, 3),
        correct=(False, False, True, False),
        measure=_drift_and_slope,
    )


def low_temperature_loses_less() -> Case:
    """Corollary 4.4's low half, far from T = 1: cold samples are so rarely correct that entropy falls less.

    >>> case = low_temperature_loses_less()
    >>> {name: round(value, 6) for name, value in case.measure(case).items()}
    {'Delta H(1)': -0.000664, 'Delta H(1/4)': -0.000621}
    """
    return Case(
        name="Corollary 4.4, low half",
        claim="Delta H(T) < Delta H(1) for every T < 1 where Delta H(1) < 0",
        meaning="to cool a policy, stay near T = 1 or average over the correct samples; then the claim holds",
        base=Fraction(5, 4),
        exponents=(0, 0, 2, 3),
        correct=(False, False, True, False),
        temperatures=(Fraction(1), Fraction(1, 4)),
        measure=_drifts,
    )


def unequal_features() -> Case:
    """Assumption B.4 with unequal norms: an action that learns faster than the others turns the sign."""
    return Case(
        name="Assumption B.4, unequal norms",
        claim="Theorem 4.3 with <grad z_a, grad z_b> = c_a delta_ab for any c_a > 0",
        meaning="the theorem is about tabular softmax; shared weights can reverse it in a state",
        base=Fraction(3, 2),
        exponents=(0, 1, 2),
        correct=(False, True, False),
        gram=_diagonal(4, 1, 1),
        measure=_drift_and_slope_with_features,
    )


def correlated_features() -> Case:
    """Assumption B.4 with correlated features: pushing one action drags the likeliest one along."""
    r = Fraction(3, 4)
    one, none = Fraction(1), Fraction(0)
    return Case(
        name="Assumption B.4, correlated features",
        claim="Theorem 4.3 for any Gram matrix of the features",
        meaning="as above: similar actions move together",
        base=Fraction(3, 2),
        exponents=(0, 1, 2),
        correct=(False, True, False),
        gram=((one, none, none), (none, one, r), (none, r, one)),
        measure=_drift_and_slope_with_features,
    )


def autoregressive() -> Case:
    """Theorem 4.3 for two tokens: tempering also changes which prefix is pushed.

    >>> case = autoregressive()
    >>> {name: round(value, 4) for name, value in case.measure(case).items()}
    {'Delta H(1)': -0.0147, 'Delta H(2)': -0.0156}
    """
    return Case(
        name="Theorem 4.3, sequences",
        claim="where Delta H(1) < 0, sampling whole responses at T > 1 makes Delta H larger",
        meaning="on sequences the theorem is a tendency to be measured, not a law",
        base=Fraction(2),
        exponents=((0, 0), ((0, 2), (8, 0))),
        correct=((False, True), (True, False)),
        temperatures=(Fraction(1), Fraction(2)),
        measure=lambda case: {
            f"Delta H({t})": delta_entropy_of_sequences(case.levels, case.correct, temperature=float(t))
            for t in case.temperatures
        },
    )


def signed_advantages() -> Case:
    """Eq. 3: with the group's mean subtracted, hotter samples lower the entropy faster (one correct action suffices).

    >>> case = signed_advantages()
    >>> {name: round(value, 4) for name, value in case.measure(case).items()}
    {'Delta H(1)': -0.0356, 'Delta H(2)': -0.0742}
    """
    return Case(
        name="Eq. 3, signed advantages",
        claim="Theorem 4.3 with the group advantage r - mean(r) in place of the reward",
        meaning="wrong answers must not be pushed down at the tempered samples: this ablation collapses",
        base=Fraction(3),
        exponents=(0, 2),
        correct=(False, True),
        temperatures=(Fraction(1), Fraction(2)),
        measure=lambda case: {f"Delta H({t})": _signed_drift(case, float(t)) for t in case.temperatures},
    )


def reward_falls() -> Case:
    """Positive-only updates on tempered samples can lower the accuracy: mass goes to an unlikely correct action.

    >>> case = reward_falls()
    >>> float(delta_reward(case.logits, case.correct, temperature=2.0, normalised=True)) < 0
    True
    """
    return Case(
        name="Reward under positive-only updates",
        claim="reinforcing only correct samples never lowers the expected reward, whatever T they were drawn at",
        meaning="watch the reward when T_high is large; at T = 1 it cannot fall to first order",
        base=Fraction(2),
        exponents=(0, 0, 4),
        correct=(True, False, True),
        temperatures=(Fraction(2),),
        measure=lambda case: {
            f"Delta J({t})": float(delta_reward(case.logits, case.correct, temperature=float(t), normalised=True))
            for t in case.temperatures
        },
    )


GALLERY: tuple[Callable[[], Case], ...] = (
    sequence_entropy_falls_with_temperature,
    theorem_without_its_premise,
    low_temperature_loses_less,
    unequal_features,
    correlated_features,
    autoregressive,
    signed_advantages,
    reward_falls,
)
"""Every counterexample."""


def table() -> str:
    """The gallery as a Markdown table, its figures computed on the spot."""
    lines = ["| case | the claim that fails | figures (nats, lr = 1) | what it means |", "|---|---|---|---|"]
    for build in GALLERY:
        case = build()
        values = ", ".join(f"{name} = {value:.6g}" for name, value in case.measure(case).items())
        lines.append(f"| {case.name} | {case.claim} | {values} | {case.meaning} |")
    return "\n".join(lines)


def _diagonal(*norms: int) -> tuple[tuple[Fraction, ...], ...]:
    return tuple(tuple(Fraction(c if i == j else 0) for j in range(len(norms))) for i, c in enumerate(norms))


def _drifts(case: Case) -> dict[str, float]:
    return {
        f"Delta H({t})": float(delta_entropy(case.logits, case.correct, temperature=float(t)))
        for t in case.temperatures
    }


def _drift_and_slope(case: Case) -> dict[str, float]:
    return _drifts(case) | {"Delta H'(1)": float(delta_entropy_slope(case.logits, case.correct))}


def _drift_and_slope_with_features(case: Case) -> dict[str, float]:
    gram = np.asarray(case.gram, dtype=np.float64)
    return {
        "Delta H(1)": float(delta_entropy_with_features(case.logits, case.correct, gram)),
        "Delta H'(1)": float(delta_entropy_slope_with_features(case.logits, case.correct, gram)),
    }


def _signed_drift(case: Case, temperature: float) -> float:
    """Delta H(T) with the advantage r - E_{pi^T} r in place of the reward (Eq. 3, no division by the deviation)."""
    right = np.asarray(case.correct, dtype=np.float64)
    advantage = right - (tempered(case.logits, temperature) * right).sum()
    return float(delta_entropy(case.logits, advantage, temperature=temperature))


if __name__ == "__main__":
    print(table())
