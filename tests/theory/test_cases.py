"""The counterexample gallery in exact arithmetic, from the definitions alone, and the float figures beside it.

With z_a = k_a ln(base) every probability is rational, so that Delta H is a rational number times ln(base), its slope
one times ln(base)^2, and a change of the reward a rational number. Entropies need logarithms: the two cases about
sequences are decided in interval arithmetic.
"""

import itertools
import math
from fractions import Fraction

import pytest
from mpmath import iv

from aepo.theory import cases
from aepo.theory.cases import Case

iv.dps = 40

Q = Fraction


# -- one state, exactly --


def policy(case: Case, t: Fraction) -> list[Fraction]:
    """pi^T_a = base^(k_a / T) / sum_b base^(k_b / T)."""
    return normalised(case.base, case.exponents, t)


def normalised(base: Fraction, exponents, t: Fraction) -> list[Fraction]:
    powers = [Q(k) / t for k in exponents]
    assert all(power.denominator == 1 for power in powers), "an exponent over T is no integer"
    weights = [base ** int(power) for power in powers]
    total = sum(weights)
    return [weight / total for weight in weights]


def mean(p: list[Fraction], values) -> Fraction:
    return sum(a * b for a, b in zip(p, values, strict=True))


def gradient(case: Case) -> list[Fraction]:
    """dH/dz_b over ln(base): -pi_b (k_b - E k), since ln pi_b = z_b - ln Z."""
    p = policy(case, Q(1))
    return [-a * (k - mean(p, case.exponents)) for a, k in zip(p, case.exponents, strict=True)]


def push(case: Case, weight: list[Fraction]) -> list[Fraction]:
    """sum_a weight_a M (e_a - pi): the step of the logits, M the features' Gram matrix or the identity."""
    p = policy(case, Q(1))
    score = [w - sum(weight) * a for w, a in zip(weight, p, strict=True)]
    return score if case.gram is None else [mean(row, score) for row in case.gram]


def drift(case: Case, t: Fraction, advantage=None) -> Fraction:
    """Delta H(T) over ln(base)."""
    credit = [Q(int(right)) for right in case.correct] if advantage is None else advantage
    weight = [a * b for a, b in zip(policy(case, t), credit, strict=True)]
    return mean(gradient(case), push(case, weight))


def slope(case: Case) -> Fraction:
    """d Delta H / dT at T = 1 over ln(base)^2: d pi^T_a / dT = -pi_a (z_a - m) there."""
    p = policy(case, Q(1))
    m = mean(p, case.exponents)
    weight = [-a * (k - m) * int(c) for a, k, c in zip(p, case.exponents, case.correct, strict=True)]
    return mean(gradient(case), push(case, weight))


def reward_change(case: Case, t: Fraction) -> Fraction:
    """The first-order change of pi(A*) when the mean is over the correct samples drawn at T."""
    p, tempered = policy(case, Q(1)), policy(case, t)
    total = sum(a for a, right in zip(tempered, case.correct, strict=True) if right)
    move = push(case, [a * int(right) / total for a, right in zip(tempered, case.correct, strict=True)])
    # dpi_a = pi_a (dz_a - E dz)
    return sum(a * (v - mean(p, move)) for a, v, right in zip(p, move, case.correct, strict=True) if right)


def figures(case: Case, exact: dict[str, Fraction | float]) -> None:
    """What the page prints is the exact value, to 1e-12."""
    got = case.measure(case)
    assert set(got) == set(exact)
    for name, value in exact.items():
        assert got[name] == pytest.approx(float(value), rel=1e-12, abs=0), name


def times_log(case: Case, value: Fraction, power: int = 1) -> float:
    return float(value) * math.log(case.base) ** power


def confirm_without_its_premise(case: Case) -> None:
    change, rate = drift(case, Q(1)), slope(case)
    assert case.base > 1 and change > 0 > rate
    figures(case, {"Delta H(1)": times_log(case, change), "Delta H'(1)": times_log(case, rate, 2)})


def confirm_low_half(case: Case) -> None:
    base, cold = (drift(case, t) for t in case.temperatures)
    assert case.temperatures[1] < 1 and base < 0 and cold > base
    figures(case, {"Delta H(1)": times_log(case, base), "Delta H(1/4)": times_log(case, cold)})


def confirm_features(case: Case) -> None:
    change, rate = drift(case, Q(1)), slope(case)
    assert change < 0 and rate < 0
    assert_gram(case.gram)
    figures(case, {"Delta H(1)": times_log(case, change), "Delta H'(1)": times_log(case, rate, 2)})
    # With orthonormal features the premise is met and the theorem holds.
    plain = Case(**{**vars(case), "gram": None})
    assert drift(plain, Q(1)) >= 0 or slope(plain) > 0


def confirm_unequal_norms(case: Case) -> None:
    confirm_features(case)
    size = range(len(case.gram))
    assert all(case.gram[i][j] == 0 for i in size for j in size if i != j)


def confirm_correlated(case: Case) -> None:
    confirm_features(case)
    assert all(case.gram[i][i] == 1 for i in range(len(case.gram)))  # the norms are equal: correlation alone does it


def assert_gram(gram) -> None:
    """Symmetric and positive definite: the leading minors of a 3 x 3 matrix."""
    (a, b, c), (d, e, f), (g, h, i) = gram
    assert (b, c, f) == (d, g, h)
    assert a > 0 and a * e - b * d > 0
    assert a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g) > 0


def confirm_signed(case: Case) -> None:
    def change(t: Fraction) -> Fraction:
        p = policy(case, t)
        expected = sum(a for a, right in zip(p, case.correct, strict=True) if right)
        return drift(case, t, [int(right) - expected for right in case.correct])

    base, hot = (change(t) for t in case.temperatures)
    assert base < 0 and hot < base
    figures(case, {"Delta H(1)": times_log(case, base), "Delta H(2)": times_log(case, hot)})
    # With the reward itself, its negative part gone, the theorem holds.
    assert drift(case, Q(1)) < 0 and drift(case, Q(2)) > drift(case, Q(1))


def confirm_reward_falls(case: Case) -> None:
    (t,) = case.temperatures
    assert reward_change(case, t) < 0 <= reward_change(case, Q(1))
    figures(case, {"Delta J(2)": reward_change(case, t)})


# -- sequences, in intervals --


def interval(value: Fraction):
    return iv.mpf(value.numerator) / iv.mpf(value.denominator)


def state_entropy(p: list[Fraction]):
    """-sum p ln p, an interval."""
    return -sum(interval(a) * iv.log(interval(a)) for a in p)


def confirm_sequence_entropy(case: Case) -> None:
    root, children = case.exponents

    def h(t: Fraction):
        p = normalised(case.base, root, t)
        after = sum(interval(a) * state_entropy(normalised(case.base, k, t)) for a, k in zip(p, children, strict=True))
        return (state_entropy(p) + after) / 2

    low, high = (h(t) for t in case.temperatures)
    assert case.temperatures == (1, 2)
    assert high.b < low.a
    in_intervals(case, {"H(1)": low, "H(2)": high})


def confirm_autoregressive(case: Case) -> None:
    root, children = case.exponents
    levels = {(): root, **{(i,): child for i, child in enumerate(children)}}
    pi = {prefix: normalised(case.base, k, Q(1)) for prefix, k in levels.items()}

    def change(t: Fraction):
        """The derivative of 1/2 (h() + sum_a P(a) h(a)) along the step, by the product rule."""
        tempered = {prefix: normalised(case.base, k, t) for prefix, k in levels.items()}
        move = {prefix: [Q(0)] * len(k) for prefix, k in levels.items()}
        for a, b in itertools.product(range(len(root)), range(len(children[0]))):
            if case.correct[a][b]:
                weight = tempered[()][a] * tempered[(a,)][b]
                for prefix, chosen in (((), a), ((a,), b)):
                    for c, p in enumerate(pi[prefix]):
                        move[prefix][c] += weight * (int(c == chosen) - p)

        def turned(prefix) -> list[Fraction]:  # dpi_a = pi_a (dz_a - E dz)
            return [p * (v - mean(pi[prefix], move[prefix])) for p, v in zip(pi[prefix], move[prefix], strict=True)]

        def entropy_change(prefix):  # -sum dp ln p, for sum dp = 0
            return -sum(interval(dp) * iv.log(interval(p)) for dp, p in zip(turned(prefix), pi[prefix], strict=True))

        total = entropy_change(())
        for a, (dp, p) in enumerate(zip(turned(()), pi[()], strict=True)):
            total += interval(dp) * state_entropy(pi[(a,)]) + interval(p) * entropy_change((a,))
        return total / 2

    base, hot = (change(t) for t in case.temperatures)
    assert case.temperatures == (1, 2)
    assert base.b < 0 and hot.b < base.a
    in_intervals(case, {"Delta H(1)": base, "Delta H(2)": hot})


def in_intervals(case: Case, exact: dict) -> None:
    got = case.measure(case)
    assert set(got) == set(exact)
    for name, value in exact.items():
        assert float(value.b - value.a) < 1e-30 * abs(float(value.mid)) + 1e-30
        assert got[name] == pytest.approx(float(value.mid), rel=1e-12, abs=0), name


CONFIRM = {
    cases.sequence_entropy_falls_with_temperature: confirm_sequence_entropy,
    cases.theorem_without_its_premise: confirm_without_its_premise,
    cases.low_temperature_loses_less: confirm_low_half,
    cases.unequal_features: confirm_unequal_norms,
    cases.correlated_features: confirm_correlated,
    cases.autoregressive: confirm_autoregressive,
    cases.signed_advantages: confirm_signed,
    cases.reward_falls: confirm_reward_falls,
}


def test_every_case_of_the_gallery_is_confirmed_here():
    assert set(CONFIRM) == set(cases.GALLERY)
    assert len(cases.GALLERY) == len({build().name for build in cases.GALLERY}) >= 8


@pytest.mark.parametrize("build", cases.GALLERY, ids=lambda build: build.__name__)
def test_the_claim_fails_exactly_where_the_gallery_says(build):
    CONFIRM[build](build())


def test_the_exact_arithmetic_knows_a_case_worked_by_hand():
    # pi = (3/4, 1/4), m = 3/4 in units of ln 3; dH/dz = (-3/16, 3/16). The second is correct: step (-3/16, 3/16) at
    # T = 1, whose mass is 1/4; at T = 1/2, pi^T = (9/10, 1/10), it is (-3/40, 3/40).
    case = Case(
        name="", claim="", meaning="", base=Q(3), exponents=(1, 0), correct=(False, True), measure=lambda case: {}
    )
    assert drift(case, Q(1)) == Q(18, 256) and drift(case, Q(1, 2)) == Q(18, 640)
    # The pushed mass 1/4 grows with T at rate pi (1 - pi) = 3/16 ln 3, and Delta H with it: 18/256 x 4 x 3/16.
    assert slope(case) == Q(18, 256) * 4 * Q(3, 16)
    assert reward_change(case, Q(1)) == Q(1, 4) * (Q(3, 4) - (Q(1, 4) * Q(3, 4) - Q(3, 4) * Q(3, 4)))


def test_the_page_has_a_row_per_case_with_its_figures():
    rows = cases.table().splitlines()[2:]
    assert len(rows) == len(cases.GALLERY)
    for build, row in zip(cases.GALLERY, rows, strict=True):
        case = build()
        assert row.count("|") == 5 and case.name in row and case.claim in row and case.meaning in row
        for name, value in case.measure(case).items():
            assert f"{name} = {value:.6g}" in row
