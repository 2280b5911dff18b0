"""Corollary 4.4, the level that parts the actions, the numbers behind Theorem 4.3, and the temperature of no change."""

import dataclasses
import functools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    BULK,
    EPS,
    HEADLINE,
    PREMISE,
    assert_every,
    assert_not_vacuous,
    collapsing,
    count,
    nonnegative_rewards,
    seeds,
    states,
)
from three_ways import (
    RELATIVE_TO_AUTOGRAD,
    RELATIVE_TO_STEPS,
    assert_agree,
    drift_by_autograd,
    drift_by_steps,
    drift_rounding,
    rounding,
    slope_rounding,
    steps_error,
)

from aepo.theory import (
    contraction_bound,
    critical_temperature,
    delta_entropy,
    delta_entropy_slope,
    entropy,
    mean_logit,
    pull,
    slope_bound,
    tempered,
    threshold,
    threshold_probability,
)


def pull_rounding(batch) -> np.ndarray:
    """(n, K): of d_a - C."""
    eye = np.eye(batch.logits.shape[-1])
    return np.stack([rounding(batch, np.broadcast_to(row, batch.logits.shape)) for row in eye], -1)


def covariance(z: np.ndarray) -> np.ndarray:
    """(n,): C = E[z pi] - E[z] E[pi] under pi, as the definition of a covariance has it."""
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    # Shifted by the likeliest logit: a covariance ignores it, and the products keep their digits.
    z = z - z.max(-1, keepdims=True)
    return (p * z * p).sum(-1) - (p * z).sum(-1) * (p * p).sum(-1)


# -- the threshold --


def test_actions_above_the_threshold_lower_the_entropy_and_actions_below_raise_it():
    met = Counter()

    @BULK
    @given(states())
    def law(batch):
        z = batch.logits
        lowers, noise = pull(z), pull_rounding(batch)
        known = np.abs(lowers) > noise
        above = z - threshold(z)[:, np.newaxis]
        assert_every((~known | (np.sign(lowers) == np.sign(above))).all(-1), batch, pull=lowers, above=above)
        met["actions"] += z.size
        met["above"] += int((known & (lowers > 0)).sum())
        met["below"] += int((known & (lowers < 0)).sum())

    law()
    print(dict(met))
    assert met["above"] > 0.2 * met["actions"] < met["below"]
    assert met["above"] + met["below"] > 0.8 * met["actions"]


@BULK
@given(states())
def test_the_threshold_solves_x_e_to_the_x_as_bisection_does(batch):
    z = batch.logits
    level = np.maximum(covariance(z), 0) * np.exp(entropy(z))
    low, high = np.zeros(len(z)), level.copy()  # x <= x e^x
    for _ in range(100):
        middle = (low + high) / 2
        below = middle * np.exp(middle) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    # C is known up to the rounding of a pull; x moves by at most e^H times as much. m is as large as A.
    noise = rounding(batch, np.ones_like(z) / z.shape[-1]) * np.exp(entropy(z)) * z.shape[-1]
    largest = np.abs(z).max(-1)
    got = threshold(z) - mean_logit(z)
    assert_agree(batch, got, low, relative=1e-9, floor=noise + 16 * EPS * (1 + largest) * (8 + largest))


@BULK
@given(states())
def test_an_action_at_the_threshold_probability_would_leave_the_entropy_alone(batch):
    # Its d is p (ln p + H), since z - m = ln pi + H; at the threshold that is C.
    z, p = batch.logits, threshold_probability(batch.logits)
    assert_every((p > 0) & (p <= 1), batch, p=p)
    noise = rounding(batch, np.ones_like(z))
    assert_every(np.abs(p * (np.log(p) + entropy(z)) - covariance(z)) <= noise, batch, p=p)


@pytest.mark.parametrize("actions", [2, 3, 8])
def test_a_uniform_policys_threshold_is_its_logit_and_its_probability(actions):
    z = np.full(actions, 3.0)
    assert threshold(z) == pytest.approx(3.0, abs=8 * EPS)
    assert threshold_probability(z) == pytest.approx(1 / actions, rel=8 * EPS)


@BULK
@given(states())
def test_the_threshold_is_above_the_mean_logit_and_below_the_largest(batch):
    z = batch.logits
    margin = threshold(z) - mean_logit(z)
    noise = 8 * EPS * (1 + np.abs(z).max(-1))
    assert_every(margin >= -noise, batch, margin=margin)
    # Some action lowers the entropy unless the logits are constant; the likeliest one does.
    assert_every(threshold(z) <= z.max(-1) + noise + pull_rounding(batch).max(-1) * np.exp(entropy(z)), batch)


# -- Theorem 4.3 with a number --


def test_the_slope_is_at_least_the_margin_times_the_loss_of_entropy():
    met = Counter()

    @BULK
    @given(states(temperature=(1.0, 30.0)), st.booleans(), seeds)
    def law(batch, graded, seed):
        batch = collapsing(batch)
        reward = nonnegative_rewards(batch, seed) if graded else batch.correct.astype(float)
        for t in (np.ones(len(batch)), batch.temperature):
            change = delta_entropy(batch.logits, reward, temperature=t)
            bound = slope_bound(batch.logits, reward, temperature=t)
            slope, noise = (
                delta_entropy_slope(batch.logits, reward, temperature=t),
                slope_rounding(batch, reward, temperature=t),
            )
            assert_every(np.isnan(bound) == (change >= 0), batch, bound=bound)
            falls = change < 0
            assert_every(~falls | (bound > 0) | (-change < PREMISE**2), batch, bound=bound)
            assert_every(~falls | (slope >= bound - noise), batch, slope=slope, bound=bound)
            met["premise"] += int(falls.sum())
            met["clear of rounding"] += int((falls & (slope > bound + noise)).sum())
            met["within a tenth"] += int((falls & (slope > 10 * noise) & (slope < 1.1 * bound)).sum())

    law()
    print(dict(met))
    assert met["premise"] >= 20_000
    assert met["clear of rounding"] > 0.7 * met["premise"]


def test_the_slope_bound_is_tight():
    # One correct action just above the threshold: what is left beside the bound is its distance to the threshold.
    low, high = -1.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        below = pull([3.0, middle, -1.0, -1.0])[1] < 0
        low, high = (middle, high) if below else (low, middle)
    z, correct = [3.0, high + 1e-4, -1.0, -1.0], [False, True, False, False]
    ratio = delta_entropy_slope(z, correct) / slope_bound(z, correct)
    assert 1.0 < ratio < 1.001


def test_without_the_premise_the_bounds_are_nan():
    z, rises = [2.0, 0.0, -1.0], [False, False, True]
    assert delta_entropy(z, rises) > 0
    assert np.isnan(slope_bound(z, rises)) and np.isnan(contraction_bound(z, rises, temperature=2.0))
    both = [[True, False, False], rises]
    assert np.isnan(contraction_bound(z, both, temperature=2.0)).tolist() == [False, True]


# -- Corollary 4.4 --


def test_corollary_4_4_where_entropy_falls_it_falls_less_or_rises_at_every_higher_temperature():
    met = Counter()

    @settings(BULK, max_examples=HEADLINE)
    @given(states(temperature=(1.01, 100.0)), st.sampled_from([None, 1e4, 1e9]))
    def law(batch, extreme):
        batch = collapsing(batch)
        if extreme is not None:
            batch = dataclasses.replace(batch, temperature=np.full(len(batch), extreme))
        z, right, t, one = batch.logits, batch.correct, batch.temperature, np.ones(len(batch))
        base, hot = delta_entropy(z, right), delta_entropy(z, right, temperature=t)
        noise = drift_rounding(batch) + drift_rounding(batch, temperature=one)
        assert_every(base < PREMISE, batch)
        assert_every(hot - base > -noise, batch, base=base, hot=hot)
        bound = contraction_bound(z, right, temperature=t)
        assert_every((hot >= bound - noise) & (bound > base - noise), batch, bound=bound, hot=hot)
        met["closed form: higher beyond its rounding"] += int((hot - base > noise).sum())

        learnt, stepped, error = [], [], 0 * t
        for heat, change in ((one, base), (t, hot)):
            closed = drift_rounding(batch, temperature=heat)
            learnt.append(drift_by_autograd(batch, temperature=heat))
            met["by autograd to 1e-8"] += assert_agree(
                batch, learnt[-1], change, relative=RELATIVE_TO_AUTOGRAD, floor=closed
            )
            stepped.append(drift_by_steps(batch, temperature=heat))
            off = steps_error(batch, temperature=heat)
            met["by steps to 1e-5"] += assert_agree(
                batch, stepped[-1], change, relative=RELATIVE_TO_STEPS, floor=off + closed
            )
            error = error + off
        assert_every(learnt[1] - learnt[0] > -noise, batch)
        assert_every(stepped[1] - stepped[0] > -error, batch)
        met["by autograd: higher beyond its rounding"] += int((learnt[1] - learnt[0] > noise).sum())
        met["by steps: higher beyond their error"] += int((stepped[1] - stepped[0] > error).sum())
        met["entropy rises at T"] += int((hot > noise).sum())
        count(batch, met)

    law()
    print(dict(met))
    assert_not_vacuous(met)
    assert met["closed form: higher beyond its rounding"] > 0.9 * met["instances"]
    assert met["by autograd: higher beyond its rounding"] > 0.9 * met["instances"]
    assert met["by steps: higher beyond their error"] > 0.6 * met["instances"]
    assert met["by autograd to 1e-8"] > 0.6 * 2 * met["instances"]
    assert met["by steps to 1e-5"] > 0.6 * 2 * met["instances"]
    assert 0.02 * met["instances"] < met["entropy rises at T"] < 0.98 * met["instances"]


def test_corollary_4_4_where_entropy_falls_it_falls_more_just_below_temperature_1():
    met = Counter()

    @BULK
    @given(states())
    def law(batch):
        batch = collapsing(batch)
        z, right, one = batch.logits, batch.correct, np.ones(len(batch))
        slope = delta_entropy_slope(z, right)
        # On [1/2, 1], |d^2 pi^T_a / dT^2| <= pi^T_a (x^2 + Var + 2 |x| T) / T^4 with |x| and the deviation at most the
        # spread R, so |Delta H''| <= 16 (2 R^2 + 2 R) max |pull| on A*: within `cooler` of 1 the slope's half is left.
        spread = np.ptp(z, axis=-1)
        curvature = 32 * (spread**2 + spread) * (np.abs(pull(z)) * right).max(-1)
        cooler = np.minimum(0.5, slope / curvature)
        t = 1 - cooler
        lost = delta_entropy(z, right) - delta_entropy(z, right, temperature=t)
        noise = drift_rounding(batch, temperature=t) + drift_rounding(batch, temperature=one)
        assert_every(lost >= cooler * slope / 2 - noise, batch, lost=lost, cooler=cooler)
        met["instances"] += len(batch)
        met["falls more, beyond rounding"] += int((lost > noise).sum())
        learnt = drift_by_autograd(batch, temperature=one) - drift_by_autograd(batch, temperature=t)
        assert_agree(batch, learnt, lost, relative=RELATIVE_TO_AUTOGRAD, floor=noise)
        assert_every(learnt > -noise, batch, learnt=learnt)
        met["by autograd, beyond rounding"] += int((learnt > noise).sum())
        stepped = drift_by_steps(batch, temperature=one) - drift_by_steps(batch, temperature=t)
        error = steps_error(batch, temperature=one) + steps_error(batch, temperature=t)
        assert_agree(batch, stepped, lost, relative=RELATIVE_TO_STEPS, floor=noise + error)
        assert_every(stepped > -error, batch, stepped=stepped)
        met["by steps, beyond their error"] += int((stepped > error).sum())

    law()
    print(dict(met))
    assert met["instances"] >= 20_000
    assert met["falls more, beyond rounding"] > 0.7 * met["instances"]
    assert met["by autograd, beyond rounding"] > 0.7 * met["instances"]
    assert met["by steps, beyond their error"] > 0.5 * met["instances"]


def test_far_below_temperature_1_the_low_half_of_corollary_4_4_is_false():
    z, correct = [3.7, 3.9, 3.1, 3.0], [True, False, False, False]
    got = [float(delta_entropy(z, correct, temperature=t)) for t in (1.0, 0.1)]
    assert got == pytest.approx([-0.0024, -0.0009], abs=5e-5)


# -- the temperature of no change --


def test_an_update_lowers_entropy_below_the_critical_temperature_and_raises_it_above():
    met = Counter()

    @BULK
    @given(states(), st.booleans(), seeds)
    def law(batch, graded, seed):
        reward = nonnegative_rewards(batch, seed) if graded else batch.correct.astype(float)
        z = batch.logits
        critical = critical_temperature(z, reward)
        assert_every(np.isnan(critical) | (critical >= 0), batch, critical=critical)
        signs = []
        for t in np.geomspace(0.1, 30.0, 24):
            heat = np.full(len(batch), t)
            change = delta_entropy(z, reward, temperature=heat)
            # What `critical_temperature` takes for rounding, and what is.
            largest = 1 + np.abs(z).max(-1)
            noise = 64 * EPS * largest * reward.sum(-1) + 2 * drift_rounding(batch, reward, temperature=heat)
            sign = np.where(np.abs(change) > noise, np.sign(change), 0)
            assert_every((critical < t) | (sign <= 0) | np.isnan(critical), batch, critical=critical, t=heat)
            assert_every((critical > t) | (sign >= 0) | np.isnan(critical), batch, critical=critical, t=heat)
            assert_every(~np.isnan(critical) | (sign == 0), batch, t=heat, change=change)
            met["down"] += int((sign < 0).sum())
            met["up"] += int((sign > 0).sum())
            signs.append(sign)
        # One threshold, with no premise and whatever `critical_temperature` says: once up, never down again.
        once_up = np.maximum.accumulate(np.stack(signs) > 0, axis=0)
        assert_every(~(once_up & (np.stack(signs) < 0)).any(0), batch)
        finite = np.isfinite(critical) & (critical > 0)
        met["finite"] += int(finite.sum())
        met["never raises"] += int(np.isposinf(critical).sum())
        met["always raises"] += int((critical == 0).sum())
        at = batch.where(finite)
        if len(at):
            change = delta_entropy(at.logits, reward[finite], temperature=critical[finite])
            noise = 2 * drift_rounding(at, reward[finite], temperature=critical[finite])
            assert_every(np.abs(change) <= noise + PREMISE**2, at, change=change, critical=critical[finite])

    law()
    print(dict(met))
    assert min(met["finite"], met["never raises"], met["always raises"]) > 1_000
    assert min(met["up"], met["down"]) > 50_000


def test_where_all_actions_are_correct_the_critical_temperature_is_1():
    met = Counter()

    @BULK
    @given(states(corners=("normal", "grid")))
    def law(batch):
        batch = dataclasses.replace(batch, correct=np.ones_like(batch.correct))
        batch = batch.where(np.ptp(batch.logits, axis=-1) > 0.1)
        critical, one = critical_temperature(batch.logits, batch.correct), np.ones(len(batch))
        # What rounding makes of a zero, over the slope there.
        off = 4 * drift_rounding(batch, temperature=one) / delta_entropy_slope(batch.logits, batch.correct)
        assert_every((np.abs(critical - 1) <= off) | (off > 0.1), batch, critical=critical, off=off)
        met["instances"] += len(batch)
        met["to four digits"] += int((off < 1e-4).sum())

    law()
    print(dict(met))
    assert met["to four digits"] > 0.9 * met["instances"] > 10_000


def test_the_ends_of_the_critical_temperature():
    z = [2.0, 0.0, -1.0]
    assert critical_temperature(z, [True, False, False]) == np.inf
    assert critical_temperature(z, [False, False, True]) == 0.0
    assert np.isnan(critical_temperature([1.0, 1.0, 1.0], [True, False, True]))
    # Several correct: raised by some temperature exactly if the pulls on A* sum to less than 0.
    for correct in ([True, True, False], [True, False, True], [True, True, True]):
        hot = float((pull(z) * correct).sum())
        assert np.isfinite(critical_temperature(z, correct)) == (hot < 0)


def test_leading_axes_are_instances():
    generator = np.random.default_rng(1)
    z = generator.normal(size=(2, 3, 4))
    correct = generator.random((2, 3, 4)) < 0.6
    correct[..., 0] = True
    t = np.array([[1.5, 1.0, 2.0], [1.2, 4.0, 1.1]])
    heated = [functools.partial(f, temperature=t, lr=0.5) for f in (slope_bound, contraction_bound)]
    single = [lambda z, c, t, f=f: f(z, c, temperature=t, lr=0.5) for f in (slope_bound, contraction_bound)]
    for whole, one in zip(heated, single, strict=True):
        alone = [[one(z[i, j], correct[i, j], t[i, j]) for j in range(3)] for i in range(2)]
        np.testing.assert_allclose(whole(z, correct), alone, rtol=1e-12, atol=0)
    for function in (threshold, threshold_probability):
        alone = [[function(z[i, j]) for j in range(3)] for i in range(2)]
        np.testing.assert_allclose(function(z), alone, rtol=1e-12, atol=0)
    alone = [[critical_temperature(z[i, j], correct[i, j]) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(critical_temperature(z, correct), alone, rtol=1e-9, atol=0)
    # A* alone may carry the leading axes.
    assert critical_temperature(z[0, 0], correct).shape == tempered(z).shape[:-1]
