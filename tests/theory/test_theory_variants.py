"""Delta H under other updates: averaged over correct samples, natural gradient, features that are not orthonormal."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BULK, EPS, assert_every, nonnegative_rewards, seeds, states
from three_ways import (
    NORMALISED,
    RELATIVE_TO_AUTOGRAD,
    RELATIVE_TO_STEPS,
    H,
    assert_agree,
    direction,
    drift_by_autograd,
    drift_by_steps,
    drift_rounding,
    entropy_gradient,
    rounding,
)

from aepo.theory import (
    correct_given,
    delta_entropy,
    delta_entropy_natural,
    delta_entropy_normalised,
    delta_entropy_slope,
    delta_entropy_slope_with_features,
    delta_entropy_with_features,
    entropy,
    mean_logit,
    natural_slope_at_one,
    pull,
    tempered,
)


def grams(batch, seed: int) -> np.ndarray:
    """(n, K, K): positive semi-definite, of features of length 1 or so."""
    actions = batch.logits.shape[-1]
    features = np.random.default_rng(seed).normal(size=(len(batch), actions, actions)) / np.sqrt(actions)
    return features @ features.swapaxes(-1, -2)


# -- averaged over the correct samples --


@BULK
@given(states(), seeds)
def test_a_correct_sample_is_a_tempered_sample_given_that_it_is_correct(batch, seed):
    reward, t = nonnegative_rewards(batch, seed), batch.temperature
    q = correct_given(batch.logits, reward, temperature=t)
    assert_every(np.abs(q.sum(-1) - 1) <= 8 * EPS * q.shape[-1], batch)
    assert_every(((q > 0) <= batch.correct).all(-1), batch, q=q)
    weight = tempered(batch.logits, t) * reward
    # The two share no exponential: pi^T is relative to the likeliest action, q to the likeliest correct one.
    noise = 4 * EPS * (np.abs(batch.logits).max(-1) * (1 + 1 / t) + 8)
    off = np.abs(q * weight.sum(-1, keepdims=True) - weight)
    assert_every((off <= noise[:, np.newaxis] * weight).all(-1), batch, q=q)


def test_delta_h_normalised_three_ways():
    met = Counter()

    @BULK
    @given(states())
    def law(batch):
        q = correct_given(batch.logits, batch.correct, temperature=batch.temperature)
        want = delta_entropy_normalised(batch.logits, batch.correct, temperature=batch.temperature)
        noise, one = rounding(batch, q, temperature=batch.temperature), np.ones(len(batch))
        learnt = drift_by_autograd(batch, method=NORMALISED)
        met["by autograd to 1e-8"] += assert_agree(batch, learnt, want, relative=RELATIVE_TO_AUTOGRAD, floor=noise)
        stepped = drift_by_steps(batch, method=NORMALISED, size=one)
        # As in steps_error, with a direction of size 1.
        last = EPS * (1 + np.log(q.shape[-1]) + np.abs(batch.logits).max(-1))
        floor = 20 * H**4 / 30 + 2 * last / H + noise
        met["by steps to 1e-5"] += assert_agree(batch, stepped, want, relative=RELATIVE_TO_STEPS, floor=floor)
        met["instances"] += len(batch)

    law()
    print(dict(met))
    assert met["instances"] > 10_000
    assert met["by autograd to 1e-8"] > 0.5 * met["instances"]
    assert met["by steps to 1e-5"] > 0.5 * met["instances"]


def test_corollary_4_4_holds_both_ways_for_all_pairs_of_temperatures_when_averaged_over_correct_samples():
    met = Counter()

    @BULK
    @given(states(temperature=(0.1, 10.0)), st.booleans(), seeds)
    def law(batch, graded, seed):
        reward = nonnegative_rewards(batch, seed) if graded else batch.correct.astype(np.float64)
        z, other = batch.logits, np.random.default_rng(seed).permutation(batch.temperature)
        cold, hot = np.minimum(batch.temperature, other), np.maximum(batch.temperature, other)
        low, high = (delta_entropy_normalised(z, reward, temperature=t) for t in (cold, hot))
        noise = sum(rounding(batch, correct_given(z, reward, temperature=t), temperature=t) for t in (cold, hot))
        c = (tempered(z) ** 2 * (z - mean_logit(z)[:, np.newaxis])).sum(-1)
        premise = high <= c  # at lr = 1
        assert_every(~premise | (low <= high + noise), batch, low=low, high=high)
        met["premise"] += int(premise.sum())
        met["smaller beyond rounding"] += int((premise & (low < high - noise)).sum())
        met["falls at the colder only"] += int((premise & (low < 0) & (high > 0)).sum())
        # Strict, unless z is one number on A*.
        spread = np.where(reward > 0, z, -np.inf).max(-1) - np.where(reward > 0, z, np.inf).min(-1)
        met["z varies on A*"] += int((premise & (spread > 1e-6) & (spread < 10) & (hot > 1.1 * cold)).sum())

    law()
    print(dict(met))
    assert met["premise"] > 10_000
    assert met["falls at the colder only"] > 100
    assert met["smaller beyond rounding"] > 0.8 * met["z varies on A*"] > 2_000


# -- natural gradient --


@BULK
@given(states(corners=("normal", "grid", "ties")))
def test_the_natural_gradient_is_the_shared_losses_direction_preconditioned_by_the_fisher_matrix(batch):
    z, right = (
        batch.logits * np.minimum(1, 3 / np.abs(batch.logits).max(-1, keepdims=True, initial=1e-9)),
        batch.correct,
    )
    batch = dataclasses.replace(batch, logits=z)
    pi = tempered(z)
    fisher = pi[:, :, np.newaxis] * (np.eye(z.shape[-1]) - pi[:, np.newaxis, :])
    natural = (np.linalg.pinv(fisher, rcond=1e-10, hermitian=True) @ direction(batch)[..., np.newaxis])[..., 0]
    got = (entropy_gradient(z) * natural).sum(-1)
    want = delta_entropy_natural(z, right, temperature=batch.temperature)
    # The constants are its kernel; other eigenvalues are at least the smallest pi >= e^-6 / 8, so that its inverse
    # amplifies rounding by 8 e^6 at most.
    floor = np.full(len(batch), 64 * EPS * 8 * np.exp(6.0))
    assert_agree(batch, got, want, relative=RELATIVE_TO_AUTOGRAD, floor=floor)
    # A step of the definition, z_a <- z_a + pi^T_a / pi_a on A*.
    move = H * tempered(z, batch.temperature) * right / pi
    size = 1 + np.abs(move).max(-1) / H
    move /= size[:, np.newaxis]

    def change(steps):
        return entropy(z + steps * move) - entropy(z - steps * move)

    stepped = size * (8 * change(1) - change(2)) / (12 * H)
    assert_agree(batch, stepped, want, relative=RELATIVE_TO_STEPS, floor=size * (20 * H**4 / 30 + 16 * EPS / H))


def natural_rounding(batch, weight) -> np.ndarray:
    """(n,): of sum_a weight_a (z_a - m): `rounding` without the factor pi_a."""
    largest = np.abs(batch.logits).max(-1)
    u = EPS * (largest * (1 + 1 / batch.temperature) + batch.logits.shape[-1] + 4)
    return 2 * u * (1 + 4 * largest) * np.abs(weight).sum(-1)


def test_under_the_natural_gradient_the_slope_at_1_is_a_second_moment_and_never_negative():
    met = Counter()

    @BULK
    @given(states(corners=("normal", "grid", "ties", "near ties", "dominating")), seeds)
    def law(batch, seed):
        z, reward = batch.logits, nonnegative_rewards(batch, seed)
        slope = natural_slope_at_one(z, reward, lr=batch.lr)
        assert_every(slope >= 0, batch, slope=slope)
        h = 2.0**-10

        def change(steps):
            return delta_entropy_natural(z, reward, temperature=1 + steps * h, lr=batch.lr) - delta_entropy_natural(
                z, reward, temperature=1 - steps * h, lr=batch.lr
            )

        fine = (8 * change(1) - change(2)) / (12 * h)
        coarse = (8 * change(2) - change(4)) / (24 * h)
        one = dataclasses.replace(batch, temperature=np.ones(len(batch)))
        noise = batch.lr * natural_rounding(one, tempered(z) * reward) * 3 / h
        met["to 1e-5"] += assert_agree(
            batch, fine, slope, relative=RELATIVE_TO_STEPS, floor=noise + np.abs(fine - coarse)
        )
        met["instances"] += len(batch)

    law()
    print(dict(met))
    assert met["to 1e-5"] > 0.5 * met["instances"] > 5_000


@BULK
@given(states(temperature=(0.1, 10.0)), seeds)
def test_under_the_natural_gradient_averaged_over_correct_samples_delta_h_rises_with_t_everywhere(batch, seed):
    reward, z = nonnegative_rewards(batch, seed), batch.logits
    other = np.random.default_rng(seed).permutation(batch.temperature)
    cold, hot = np.minimum(batch.temperature, other), np.maximum(batch.temperature, other)
    low, high = (delta_entropy_natural(z, reward, temperature=t, normalised=True) for t in (cold, hot))
    noise = 2 * natural_rounding(dataclasses.replace(batch, temperature=cold), correct_given(z, reward))
    assert_every(low <= high + noise, batch, low=low, high=high)
    spread = np.where(reward > 0, z, -np.inf).max(-1) - np.where(reward > 0, z, np.inf).min(-1)
    clear = (spread > 0.1) & (spread < 5) & (hot > 1.1 * cold) & (cold > 0.5)
    assert_every(~clear | (high > low), batch, low=low, high=high)


# -- features --


def test_delta_h_with_features_three_ways():
    met = Counter()

    @BULK
    @given(states(), seeds)
    def law(batch, seed):
        z, right, gram = batch.logits, batch.correct, grams(batch, seed)
        want = delta_entropy_with_features(z, right, gram, temperature=batch.temperature)
        step = (gram @ direction(batch)[..., np.newaxis])[..., 0]
        learnt = (entropy_gradient(z) * step).sum(-1)
        # Rounding of d (pi_a u (1 + 4 A)) and of the score (u S), through the matrix.
        largest = np.abs(z).max(-1)
        u = EPS * (largest * (1 + 1 / batch.temperature) + z.shape[-1] + 4)
        mass = (tempered(z, batch.temperature) * right).sum(-1)
        noise = 4 * u * (1 + 4 * largest) * mass * np.abs(gram).max((-1, -2)) * z.shape[-1]
        met["by autograd to 1e-8"] += assert_agree(batch, learnt, want, relative=RELATIVE_TO_AUTOGRAD, floor=noise)
        size = np.abs(step).max(-1) + 1e-300
        move = H * step / size[:, np.newaxis]

        def change(steps):
            return entropy(z + steps * move) - entropy(z - steps * move)

        stepped = size * (8 * change(1) - change(2)) / (12 * H)
        # As in steps_error; |v_a| <= 1 for every action here, which the cumulants allow for.
        floor = size * (20 * H**4 / 30 + 4 * EPS * (1 + np.log(z.shape[-1]) + largest) / H) + noise
        met["by steps to 1e-5"] += assert_agree(batch, stepped, want, relative=RELATIVE_TO_STEPS, floor=floor)
        met["instances"] += len(batch)

    law()
    print(dict(met))
    assert met["by autograd to 1e-8"] > 0.5 * met["instances"] > 5_000
    assert met["by steps to 1e-5"] > 0.5 * met["instances"]


@BULK
@given(states(), seeds)
def test_the_slope_with_features_is_the_derivative_at_1(batch, seed):
    z, right, gram, h = batch.logits, batch.correct, grams(batch, seed), 2.0**-10

    def change(steps):
        up, down = (delta_entropy_with_features(z, right, gram, temperature=1 + s * steps * h) for s in (1, -1))
        return up - down

    fine, coarse = (8 * change(1) - change(2)) / (12 * h), (8 * change(2) - change(4)) / (24 * h)
    largest = np.abs(z).max(-1)
    u = EPS * (2 * largest + z.shape[-1] + 4)
    mass = (tempered(z) * right).sum(-1)
    noise = 4 * u * (1 + 4 * largest) * mass * np.abs(gram).max((-1, -2)) * z.shape[-1]
    got = delta_entropy_slope_with_features(z, right, gram)
    assert_agree(batch, got, fine, relative=RELATIVE_TO_STEPS, floor=np.abs(fine - coarse) + 3 * noise / h)


@BULK
@given(states())
def test_orthonormal_features_are_assumption_b4(batch):
    z, right, eye = batch.logits, batch.correct, np.eye(batch.logits.shape[-1])
    got = delta_entropy_with_features(z, right, eye, temperature=batch.temperature, lr=batch.lr)
    want = delta_entropy(z, right, temperature=batch.temperature, lr=batch.lr)
    assert_agree(batch, got, want, relative=1e-12, floor=batch.lr * drift_rounding(batch))
    one = np.ones(len(batch))
    got, want = (
        delta_entropy_slope_with_features(z, right, eye, lr=batch.lr),
        delta_entropy_slope(z, right, lr=batch.lr),
    )
    far = np.abs(z - mean_logit(z)[:, np.newaxis])
    floor = batch.lr * rounding(batch, tempered(z) * right * (1 + far), temperature=one)
    assert_agree(batch, got, want, relative=1e-12, floor=floor)


def test_unequal_norms_by_hand():
    # z = (ln 3, 0): pi = (3/4, 1/4), m = 3/4 ln 3, d = (3/16, -3/16) ln 3. Correct is the second: w = (0, 1/4),
    # S = 1/4, w - S pi = (-3/16, 3/16). With norms (2, 5) the step is (-3/8, 15/16), and
    # Delta H = -(3/16)(-3/8 - 15/16) ln 3.
    got = delta_entropy_with_features([np.log(3.0), 0.0], [False, True], [[2.0, 0.0], [0.0, 5.0]])
    assert got == pytest.approx(3 / 16 * (3 / 8 + 15 / 16) * np.log(3.0), rel=1e-14)


def test_leading_axes_are_instances():
    generator = np.random.default_rng(1)
    z, correct = generator.normal(size=(3, 4)), generator.random((3, 4)) < 0.5
    correct[:, 0] = True
    t, lr = np.array([1.5, 1.0, 2.0]), np.array([0.1, 1.0, 3.0])
    gram = np.stack([np.diag(row) for row in generator.exponential(size=(3, 4))])

    def check(whole, one):
        np.testing.assert_allclose(whole, [one(i) for i in range(3)], rtol=1e-12, atol=1e-15)

    check(correct_given(z, correct, temperature=t), lambda i: correct_given(z[i], correct[i], temperature=t[i]))
    for f in (delta_entropy_normalised, delta_entropy_natural):
        check(f(z, correct, temperature=t, lr=lr), lambda i, f=f: f(z[i], correct[i], temperature=t[i], lr=lr[i]))
    check(
        delta_entropy_natural(z, correct, temperature=t, normalised=True),
        lambda i: delta_entropy_natural(z[i], correct[i], temperature=t[i], normalised=True),
    )
    check(natural_slope_at_one(z, correct, lr=lr), lambda i: natural_slope_at_one(z[i], correct[i], lr=lr[i]))
    check(
        delta_entropy_with_features(z, correct, gram, temperature=t, lr=lr),
        lambda i: delta_entropy_with_features(z[i], correct[i], gram[i], temperature=t[i], lr=lr[i]),
    )
    check(
        delta_entropy_slope_with_features(z, correct, gram, lr=lr),
        lambda i: delta_entropy_slope_with_features(z[i], correct[i], gram[i], lr=lr[i]),
    )
    assert pull(z).shape == z.shape
