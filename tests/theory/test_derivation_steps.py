"""The derivative steps of the proofs, by symbolic differentiation for three actions.

Where the two sides are too long to simplify, they are compared at rational points in 40 digits: a difference of such
expressions that vanishes at all of them vanishes.
"""

import random

import pytest
import sympy as sp

K = 3
z = sp.symbols("z0:3", real=True)
t = sp.Symbol("T", positive=True)
b = sp.Symbol("b", real=True)
POINTS = 5


def softmax(logits):
    weights = [sp.exp(value) for value in logits]
    return [weight / sum(weights) for weight in weights]


def mean(p, values):
    return sum(a * v for a, v in zip(p, values, strict=True))


def covariance(p, x, y):
    return mean(p, [a * c for a, c in zip(x, y, strict=True)]) - mean(p, x) * mean(p, y)


def entropy(p):
    return -sum(a * sp.log(a) for a in p)


tempered = softmax([value / t for value in z])
pi = softmax(z)
m = mean(pi, z)
d = [p * (value - m) for p, value in zip(pi, z, strict=True)]
C = mean(pi, d)


def assert_equal(left, right, *symbols) -> None:
    """Equal at POINTS rational points, one per seed, to 30 of 40 digits."""
    for seed in range(POINTS):
        draw = random.Random(seed)
        point = {s: sp.Rational(draw.randint(-30, 30), 10) for s in z}
        point[t] = sp.Rational(draw.randint(3, 40), 10)
        point |= {s: sp.Rational(draw.randint(-10, 10), 10) for s in symbols}
        left_at, right_at = (sp.N(side.subs(point), 40) for side in (left, right))
        assert abs(left_at - right_at) < 1e-30 * (1 + abs(left_at)), point
        assert abs(left_at) > 1e-20 or right == 0, point  # 0 = 0 would say nothing


def test_the_policys_derivative_by_the_logits_is_pi_times_delta_minus_pi():
    for a in range(K):
        for c in range(K):
            assert_equal(sp.diff(pi[a], z[c]), pi[a] * (int(a == c) - pi[c]))


@pytest.mark.parametrize("a", range(K))
def test_the_tempered_policys_derivative_by_the_temperature(a):
    assert_equal(sp.diff(tempered[a], t), -tempered[a] * (z[a] - mean(tempered, z)) / t**2)


def test_lemma_4_1_the_entropys_derivative_by_the_temperature_is_the_variance_over_t_cubed():
    assert_equal(sp.diff(entropy(tempered), t), covariance(tempered, z, z) / t**3)


def test_the_mean_logits_derivative_by_the_temperature_is_minus_the_variance_over_t_squared():
    assert_equal(sp.diff(mean(tempered, z), t), -covariance(tempered, z, z) / t**2)


@pytest.mark.parametrize("a", range(K))
def test_the_entropys_derivative_by_a_logit_is_minus_d(a):
    assert_equal(sp.diff(entropy(pi), z[a]), -d[a])


def test_the_first_order_identity_the_entropy_changes_by_minus_the_covariance_of_z_and_the_step():
    v = sp.symbols("v0:3", real=True)
    moved = entropy(softmax([value + b * step for value, step in zip(z, v, strict=True)]))
    assert_equal(sp.diff(moved, b).subs(b, 0), -covariance(pi, z, v), *v)


def eq4(right):
    """The step of Eq. 4: sum over A* of pi^T_a (e_a - pi)."""
    mass = sum(p for p, on in zip(tempered, right, strict=True) if on)
    return [p * int(on) - mass * q for p, on, q in zip(tempered, right, pi, strict=True)]


def drift(right):
    return -sum(p * (each - C) for p, each, on in zip(tempered, d, right, strict=True) if on)


SETS = [(True, False, False), (True, True, False), (True, True, True)]


@pytest.mark.parametrize("right", SETS)
def test_theorem_4_3_delta_h_is_the_derivative_of_the_entropy_along_eq_4(right):
    moved = entropy(softmax([value + b * step for value, step in zip(z, eq4(right), strict=True)]))
    assert_equal(sp.diff(moved, b).subs(b, 0), drift(right))


@pytest.mark.parametrize("right", SETS)
def test_theorem_4_3_the_derivative_of_delta_h_by_the_temperature(right):
    centred = [value - mean(tempered, z) for value in z]
    want = sum(p * x * (each - C) for p, x, each, on in zip(tempered, centred, d, right, strict=True) if on) / t**2
    assert_equal(sp.diff(drift(right), t), want)


def test_the_entropys_second_derivative_along_a_step():
    # d^2 H / dt^2 = -E[(1 + z - m)(v - E v)^2], of which the remainder's bound is made.
    v = sp.symbols("v0:3", real=True)
    moved = entropy(softmax([value + b * step for value, step in zip(z, v, strict=True)]))
    square = [(1 + value - m) * (step - mean(pi, v)) ** 2 for value, step in zip(z, v, strict=True)]
    assert_equal(sp.diff(moved, b, 2).subs(b, 0), -mean(pi, square), *v)


def test_the_threshold_d_is_x_e_to_the_x_over_e_to_the_h():
    for a in range(K):
        x = z[a] - m
        assert_equal(d[a], x * sp.exp(x - entropy(pi)))


def test_the_split_of_the_slope_at_the_threshold():
    # sum w (z - E)(d - C) = sum w (z - tau)(d - C) + (tau - E) sum w (d - C), the second sum being -Delta H(T).
    tau = sp.Symbol("tau", real=True)
    right = SETS[1]
    first = sum(p * (x - tau) * (each - C) for p, x, each, on in zip(tempered, z, d, right, strict=True) if on)
    assert_equal(sp.diff(drift(right), t) * t**2, first - (tau - mean(tempered, z)) * drift(right), tau)


@pytest.mark.parametrize("right", SETS)
def test_the_natural_gradients_delta_h_and_its_slope_at_1(right):
    # z_a moves by pi^T_a / pi_a on A*.
    step = [p / q * int(on) for p, q, on in zip(tempered, pi, right, strict=True)]
    moved = entropy(softmax([value + b * s for value, s in zip(z, step, strict=True)]))
    change = -sum(p * (value - m) for p, value, on in zip(tempered, z, right, strict=True) if on)
    assert_equal(sp.diff(moved, b).subs(b, 0), change)
    slope = sum(q * (value - m) ** 2 for q, value, on in zip(pi, z, right, strict=True) if on)
    assert_equal(sp.diff(change, t).subs(t, 1), slope)


def test_steering_is_to_first_order_the_gradient_of_the_correct_answers_entropy():
    # d q_T / dT at T = 1 is grad H(q), q the policy given that the first two actions are correct.
    q_t, q = softmax([z[0] / t, z[1] / t]), softmax([z[0], z[1]])
    for a in range(2):
        assert_equal(sp.diff(q_t[a], t).subs(t, 1), sp.diff(entropy(q), z[a]))


def test_the_split_of_the_direction_into_steering_and_learning():
    right = SETS[1]
    mass, accuracy = tempered[0] + tempered[1], pi[0] + pi[1]
    q_t, q = [tempered[a] / mass for a in range(2)] + [0], [pi[a] / accuracy for a in range(2)] + [0]
    wrong = [0, 0, 1]
    for a in range(K):
        split = mass * (q_t[a] - q[a]) + mass * (1 - accuracy) * (q[a] - wrong[a])
        assert_equal(eq4(right)[a], split)
