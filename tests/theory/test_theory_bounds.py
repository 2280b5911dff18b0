"""How far real steps are from the first order, when their order is the theorem's, and the controller's band."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BULK, EPS, assert_every, collapsing, nonnegative_rewards, seeds, states
from three_ways import assert_agree, drift_rounding

from aepo.theory import (
    controller_band,
    delta_entropy,
    entropy,
    ordering_lr,
    pushed_mass,
    reinforce_step,
    remainder_bound,
    step_bound,
    tempered,
)


def entropy_rounding(batch, lr) -> np.ndarray:
    """(n,): of a difference of two entropies, whose logits are known to (A + lr) EPS."""
    z = batch.logits
    return 8 * EPS * (1 + np.abs(z).max(-1) + lr) * (2 + np.log(z.shape[-1]))


def graded(batch, seed, draw: bool) -> np.ndarray:
    """(n, K): rewards in [0, 1]: A*, or anything on it."""
    reward = nonnegative_rewards(batch, seed) if draw else batch.correct.astype(np.float64)
    return reward / np.maximum(reward.max(-1, keepdims=True), 1.0)


@BULK
@given(states(), seeds)
def test_the_pushed_mass_is_the_mean_reward_of_a_tempered_sample(batch, seed):
    reward = graded(batch, seed, True)
    scaled = batch.logits / batch.temperature[:, np.newaxis]
    weight = np.exp(scaled - scaled.max(-1, keepdims=True))
    want = (weight * reward).sum(-1) / weight.sum(-1)
    got = pushed_mass(batch.logits, reward, temperature=batch.temperature)
    assert_agree(batch, got, want, relative=1e-12, floor=0 * want)
    assert_every((got >= 0) & (got <= 1 + 8 * EPS), batch, got=got)


def test_a_real_step_differs_from_delta_h_by_at_most_the_remainder():
    met = Counter()

    @BULK
    @given(states(lr=(1e-3, 10.0)), st.booleans(), seeds)
    def law(batch, draw, seed):
        z, t, lr, reward = batch.logits, batch.temperature, batch.lr, graded(batch, seed, draw)
        change = entropy(reinforce_step(z, reward, temperature=t, lr=lr)) - entropy(z)
        off = np.abs(change - delta_entropy(z, reward, temperature=t, lr=lr))
        bound = remainder_bound(z, reward, temperature=t, lr=lr)
        noise = entropy_rounding(batch, lr) + lr * drift_rounding(batch, reward)
        assert_every(off <= bound + noise, batch, off=off, bound=bound)
        known = bound > 100 * noise
        met["bound above rounding"] += int(known.sum())
        met["within a tenth of the bound"] += int((known & (off > 0.1 * bound)).sum())

    law()
    print(dict(met))
    assert met["bound above rounding"] > 10_000
    # A bound that is nowhere approached may be one that says nothing.
    assert met["within a tenth of the bound"] > 100


def test_the_remainder_reaches_a_fifth_of_its_bound():
    # The worst of a random search over two actions: a factor of 4 or so is all that a sharper bound could gain.
    z, correct, temperature = [1.57, 0.47], [False, True], 0.6547
    lr = 1.462 / pushed_mass(z, correct, temperature=temperature)
    change = entropy(reinforce_step(z, correct, temperature=temperature, lr=lr)) - entropy(z)
    off = abs(change - delta_entropy(z, correct, temperature=temperature, lr=lr))
    assert 0.2 < off / remainder_bound(z, correct, temperature=temperature, lr=lr) < 1


@BULK
@given(states(lr=(1.0, 100.0)), st.booleans(), seeds)
def test_no_step_changes_the_entropy_by_more_than_the_step_bound(batch, draw, seed):
    z, t, reward = batch.logits, batch.temperature, graded(batch, seed, draw)
    for lr in (batch.lr, batch.lr / 100, np.full(len(batch), 100.0)):
        change = np.abs(entropy(reinforce_step(z, reward, temperature=t, lr=lr)) - entropy(z))
        bound = step_bound(z, reward, temperature=t, lr=lr)
        assert_every(change <= bound + entropy_rounding(batch, lr), batch, change=change, bound=bound, step=lr)


def test_below_the_ordering_step_size_hotter_samples_end_at_a_higher_entropy():
    met = Counter()

    @BULK
    @given(states(temperature=(1.05, 20.0)), st.floats(0.1, 1.0))
    def law(batch, part):
        batch = collapsing(batch)
        z, right, t = batch.logits, batch.correct, batch.temperature
        largest = ordering_lr(z, right, temperature=t)
        one = np.ones(len(batch))
        known = largest > 0  # rounding may hide a gap that is above 0
        lr = np.where(known, part * largest, 0.0)
        hot = entropy(reinforce_step(z, right, temperature=t, lr=lr))
        base = entropy(reinforce_step(z, right, lr=lr))
        noise = entropy_rounding(batch, lr) + lr * (drift_rounding(batch) + drift_rounding(batch, temperature=one))
        assert_every(hot - base >= -noise, batch, hot=hot, base=base)
        # What the two remainders leave of the gap at this lr.
        left = lr * (1 - part) * (delta_entropy(z, right, temperature=t) - delta_entropy(z, right))
        assert_every(hot - base >= left - noise, batch, hot=hot, base=base, left=left)
        met["instances"] += len(batch)
        met["higher beyond rounding"] += int((hot - base > noise).sum())

    law()
    print(dict(met))
    assert met["instances"] >= 20_000
    assert met["higher beyond rounding"] > 0.8 * met["instances"]


def test_the_ordering_step_size_is_nan_without_the_premise():
    z = [2.0, 0.0, -1.0]
    correct = [[True, False, False], [False, False, True]]
    assert np.isnan(ordering_lr(z, correct, temperature=2.0)).tolist() == [False, True]


def test_once_inside_its_band_a_bang_bang_controller_stays_while_its_steps_have_the_right_sign():
    met = Counter()

    @BULK
    @given(states(corners=("normal", "grid", "ties")), st.sampled_from([0.02, 0.1, 0.5]), st.floats(0.2, 0.9))
    def law(batch, lr, level):
        batch = batch.where(np.arange(len(batch)) < 128)
        z, right, actions = batch.logits, batch.correct, batch.logits.shape[-1]
        target, band = level * np.log(actions), controller_band(actions, lr=lr)
        kept = np.ones(len(batch), dtype=bool)
        entered, h = np.abs(entropy(z) - target) <= band, entropy(z)
        for _ in range(60):
            below = h < target
            z = reinforce_step(z, right, temperature=np.where(below, 2.0, 0.5), lr=lr)
            moved = entropy(z)
            right_way = np.where(below, moved > h, moved < h)
            noise = entropy_rounding(batch, lr)
            assert_every(np.abs(moved - h) <= band + noise, batch)
            inside = np.abs(moved - target) <= band + noise
            # The band is kept from one step to the next; the chain of such steps is "for good".
            assert_every(~(right_way & (np.abs(h - target) <= band)) | inside, batch, h=h, moved=moved)
            kept &= right_way
            assert_every(~(kept & entered) | inside, batch, h=h, moved=moved)
            met["steps"] += len(batch)
            met["steps inside, of the right sign"] += int((right_way & inside).sum())
            met["steps that crossed the target"] += int((right_way & (below != (moved < target))).sum())
            entered, h = entered | inside, moved
        met["runs"] += len(batch)
        met["runs inside at their end, right all along"] += int((kept & entered).sum())

    law()
    print(dict(met))
    assert met["steps inside, of the right sign"] > 0.05 * met["steps"]
    assert met["steps that crossed the target"] > 1_000
    assert met["runs inside at their end, right all along"] > 200


def test_the_band_is_the_step_bounds_for_all_mass():
    z = np.zeros(16)
    assert controller_band(16, lr=0.1) == pytest.approx(float(step_bound(z, np.ones(16, dtype=bool), lr=0.1)))
    assert controller_band(16, lr=0.1, mass=0.5) == pytest.approx(0.05 * np.log(16))


def test_leading_axes_are_instances():
    generator = np.random.default_rng(1)
    z, correct = generator.normal(size=(3, 4)), generator.random((3, 4)) < 0.5
    t, lr = np.array([1.5, 1.0, 2.0]), np.array([0.1, 1.0, 3.0])
    for function in (remainder_bound, step_bound):
        alone = [function(z[i], correct[i], temperature=t[i], lr=lr[i]) for i in range(3)]
        np.testing.assert_allclose(function(z, correct, temperature=t, lr=lr), alone, rtol=1e-12, atol=0)
    for function in (ordering_lr, pushed_mass):
        alone = [function(z[i], correct[i], temperature=t[i]) for i in range(3)]
        np.testing.assert_allclose(function(z, correct, temperature=t), alone, rtol=1e-12, atol=1e-15)
    assert pushed_mass(z, np.ones(4)) == pytest.approx(tempered(z).sum(-1))
