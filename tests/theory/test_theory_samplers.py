"""Truncations of the policy: what they keep, and that like T < 1 they never turn a loss of entropy into a gain."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BULK, EPS, assert_every, nonnegative_rewards, seeds, states
from three_ways import drift_rounding, rounding

from aepo.theory import delta_entropy, delta_entropy_of_sampler, min_p, tempered, top_k, top_p

shares = st.sampled_from([1e-3, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0])


@BULK
@given(states(), st.data())
def test_top_k_keeps_the_k_likeliest_and_ties_with_the_last(batch, data):
    z = batch.logits
    k = data.draw(st.integers(1, z.shape[-1]))
    got = top_k(z, k)
    more_likely = (z[:, np.newaxis, :] > z[:, :, np.newaxis]).sum(-1)  # (n, K): how many actions beat this one
    assert_every(((got > 0) == (more_likely < k)).all(-1), batch, got=got)
    assert_restricted(batch, got)
    if k == z.shape[-1]:
        assert_every((np.abs(got - tempered(z)) <= 8 * EPS).all(-1), batch)


@BULK
@given(states(), shares)
def test_top_p_keeps_the_fewest_likeliest_with_that_mass_and_ties_with_the_last(batch, p):
    pi, got = tempered(batch.logits), top_p(batch.logits, p)
    kept = got > 0
    # Sums of at most K probabilities in another order.
    noise = 8 * EPS
    assert_every((pi * kept).sum(-1) >= p - noise, batch, got=got)
    least = np.where(kept, pi, np.inf).min(-1, keepdims=True)
    above = pi * (pi > least)
    assert_every((above.sum(-1) < p + noise), batch, got=got)
    assert_every((kept | (pi < least)).all(-1), batch, got=got)
    assert_restricted(batch, got)


@BULK
@given(states(), st.sampled_from([0.0, 1e-3, 0.1, 0.5, 0.9, 1.0]))
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(batch, ratio):
    pi, got = tempered(batch.logits), min_p(batch.logits, ratio)
    relative = pi / pi.max(-1, keepdims=True)
    clear = np.abs(relative - ratio) > 8 * EPS
    assert_every((~clear | ((got > 0) == (relative > ratio))).all(-1), batch, got=got)
    if ratio == 1:
        assert_every(((got > 0) == (batch.logits == batch.logits.max(-1, keepdims=True))).all(-1), batch, got=got)
    assert_restricted(batch, got)


def assert_restricted(batch, got: np.ndarray) -> None:
    """A probability, in the proportions of pi on what it keeps."""
    pi, kept = tempered(batch.logits), got > 0
    assert_every(np.abs(got.sum(-1) - 1) <= 8 * EPS, batch, got=got)
    assert_every((np.abs(got * (pi * kept).sum(-1, keepdims=True) - pi * kept) <= 8 * EPS * pi).all(-1), batch, got=got)


@pytest.mark.parametrize(("k", "want"), [(1, 2), (2, 2), (3, 3), (4, 4)])
def test_how_many_top_k_keeps_with_a_tie_on_top(k, want):
    assert (top_k([1.0, 1.0, 0.0, -1.0], k) > 0).sum() == want


def test_a_truncation_or_a_lower_temperature_never_turns_a_loss_of_entropy_into_a_gain():
    met = Counter()

    @BULK
    @given(states(temperature=(0.1, 0.999)), st.data(), seeds)
    def law(batch, data, seed):
        reward, z = nonnegative_rewards(batch, seed), batch.logits
        k, share = data.draw(st.integers(1, z.shape[-1])), data.draw(shares)
        base = delta_entropy(z, reward)
        noise = drift_rounding(batch, reward, temperature=np.ones(len(batch)))
        falls = base <= -noise
        samplers = {
            "top k": top_k(z, k),
            "top p": top_p(z, share),
            "min p": min_p(z, share),
            "cooled": tempered(z, batch.temperature),
        }
        for name, sampler in samplers.items():
            change = delta_entropy_of_sampler(z, reward, sampler)
            off = rounding(batch, sampler * reward, temperature=batch.temperature)
            assert_every(~falls | (change <= off), batch, base=base, change=change, sampler=sampler)
            # All correct actions may be cut off, which leaves the entropy alone.
            met[name] += int((falls & (change < -off)).sum())
            met["rises for lack of the premise"] += int((~falls & (change > off)).sum())
        met["premise"] += int(falls.sum())

    law()
    print(dict(met))
    assert met["premise"] > 5_000
    for name in ("top k", "top p", "min p", "cooled"):
        assert met[name] > 0.5 * met["premise"], name
    assert met["rises for lack of the premise"] > 1_000


@pytest.mark.parametrize("k", [0, -1, 4])
def test_top_k_refuses_a_k_outside_the_actions(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, 3\], got {k}"):
        top_k([0.0, 1.0, 2.0], k)


@pytest.mark.parametrize("p", [0.0, -0.5, 1.5, float("nan")])
def test_top_p_refuses_a_p_outside_0_to_1(p):
    with pytest.raises(ValueError, match=r"p must be in \(0, 1\], got"):
        top_p([0.0, 1.0], p)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_min_p_refuses_a_ratio_outside_0_to_1(ratio):
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\], got"):
        min_p([0.0, 1.0], ratio)


def test_leading_axes_are_instances():
    z = np.random.default_rng(1).normal(size=(2, 3, 5))
    for whole in (lambda z: top_k(z, 2), lambda z: top_p(z, 0.6), lambda z: min_p(z, 0.3)):
        alone = [[whole(z[i, j]) for j in range(3)] for i in range(2)]
        np.testing.assert_allclose(whole(z), alone, rtol=1e-12, atol=0)
