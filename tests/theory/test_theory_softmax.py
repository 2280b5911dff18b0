"""Tempering, entropy, Lemma 4.1's slope and the pull of an action, against 50-digit arithmetic and the shared core."""

import math
from collections import Counter
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from strategies import BULK, EPS, assert_every, exact_entropy, exact_log_softmax, logits, states, temperatures
from three_ways import RELATIVE_TO_AUTOGRAD, RELATIVE_TO_STEPS, assert_agree, entropy_gradient

from aepo import categorical
from aepo.theory import (
    entropy,
    entropy_temperature_slope,
    mean_logit,
    pull,
    tempered,
    tempered_slope,
)


def rounding(z, temperature: float) -> float:
    """A few units in the last place of max |z| / T, times what an entropy makes of them: 2 + ln K."""
    return 8 * EPS * (1 + float(abs(z).max()) / temperature + len(z)) * (2 + math.log(len(z)))


def softmax_rounding(batch) -> np.ndarray:
    """(n,): what pi^T can be off by, relative to itself."""
    z = batch.logits
    return 4 * EPS * (np.abs(z).max(-1) * (1 + 1 / batch.temperature) + z.shape[-1] + 4)


@given(logits(), temperatures)
def test_the_tempered_policy_is_softmax_of_the_scaled_logits(z, temperature):
    want = [float(value.exp()) for value in exact_log_softmax(z, temperature)]
    np.testing.assert_allclose(tempered(z, temperature), want, rtol=0, atol=rounding(z, temperature))


@given(logits(), temperatures)
def test_the_entropy_is_minus_the_mean_log_probability(z, temperature):
    want = float(exact_entropy(z, temperature))
    np.testing.assert_allclose(entropy(z, temperature), want, rtol=0, atol=rounding(z, temperature))


@given(logits(), temperatures)
def test_lemma_4_1_the_slope_of_the_entropy_in_temperature_is_the_variance_over_t_cubed(z, temperature):
    # In 50 digits a step of 1e-15 leaves a truncation error of 1e-30 and a cancellation error of 1e-35.
    t, h = Decimal(temperature), Decimal("1e-15")
    want = float((exact_entropy(z, t + h) - exact_entropy(z, t - h)) / (2 * h))
    scale = (1 + float(abs(z).max())) ** 2 / temperature**3
    np.testing.assert_allclose(
        entropy_temperature_slope(z, temperature), want, rtol=0, atol=rounding(z, temperature) * scale
    )


def test_lemma_4_1_three_ways():
    met = Counter()

    @BULK
    @given(states())
    def law(batch):
        z, t = batch.logits, batch.temperature
        want = entropy_temperature_slope(z, t)
        assert_every(want >= 0, batch, slope=want)
        leaf = torch.tensor(t).requires_grad_()
        (learnt,) = torch.autograd.grad(categorical.entropy(torch.tensor(z), leaf).sum(), leaf)
        # Autograd sums z_a / T^2 times p_a (-ln p_a - H), whose two terms nearly cancel where p_a is near 1; the
        # closed form knows z - m, and p relative to itself.
        last = EPS * (4 + z.shape[-1]) * (1 + np.abs(z).max(-1)) / t**2
        centred = (z - mean_logit(z, t)[:, np.newaxis]) ** 2
        noise = 4 * last + 2 * softmax_rounding(batch) * (tempered(z, t) * centred).sum(-1) / t**3
        met["by autograd to 1e-8"] += assert_agree(
            batch, learnt.numpy(), want, relative=RELATIVE_TO_AUTOGRAD, floor=noise
        )
        h = 2.0**-8 * t

        def change(steps):
            # The simulator's entropy, of the logits over the temperature.
            up, down = (categorical.entropy(torch.tensor(z), torch.tensor(t + s * steps * h)) for s in (1, -1))
            return (up - down).numpy()

        fine, coarse = (8 * change(1) - change(2)) / (12 * h), (8 * change(2) - change(4)) / (24 * h)
        last = EPS * (2 + np.log(z.shape[-1])) * (2 + np.abs(z).max(-1) / t)
        met["by differences to 1e-5"] += assert_agree(
            batch, fine, want, relative=RELATIVE_TO_STEPS, floor=np.abs(fine - coarse) + 3 * last / h
        )
        met["instances"] += len(batch)

    law()
    print(dict(met))
    assert met["instances"] > 10_000
    assert met["by autograd to 1e-8"] > 0.5 * met["instances"]
    assert met["by differences to 1e-5"] > 0.5 * met["instances"]


@given(logits(), temperatures)
def test_the_slope_is_positive_unless_the_logits_are_constant(z, temperature):
    slope = entropy_temperature_slope(z, temperature)
    if z.max() == z.min():
        assert slope <= rounding(z, temperature) ** 2
    elif z.max() - z.min() < 300 * temperature:  # beyond that exp underflows and so does the variance
        assert slope > 0


@BULK
@given(states())
def test_lemma_4_1_entropy_does_not_fall_from_one_temperature_to_a_higher_one(batch):
    z, t = batch.logits, batch.temperature
    noise = softmax_rounding(batch) * (2 + np.log(z.shape[-1]))
    for factor in (1.01, 2.0, 100.0):
        assert_every(entropy(z, factor * t) >= entropy(z, t) - noise, batch)


@BULK
@given(states())
def test_the_tempered_policys_slope_is_its_derivative_and_sums_to_0(batch):
    z, t = batch.logits, batch.temperature
    got, h = tempered_slope(z, t), 2.0**-8 * t
    spread = 1 + np.ptp(z, axis=-1)
    assert_every(np.abs(got.sum(-1)) <= softmax_rounding(batch) * spread / t**2, batch, got=got)

    def change(steps):
        return tempered(z, t + steps * h) - tempered(z, t - steps * h)

    width = h[:, np.newaxis]
    fine, coarse = (8 * change(1) - change(2)) / (12 * width), (8 * change(2) - change(4)) / (24 * width)
    floor = np.abs(fine - coarse) + 3 * softmax_rounding(batch)[:, np.newaxis] / width * tempered(z, t)
    assert_every((np.abs(got - fine) <= RELATIVE_TO_STEPS * np.abs(got) + floor + 1e-300).all(-1), batch, got=got)
    # Actions above the mean logit lose.
    above = z - mean_logit(z, t)[:, np.newaxis]
    clear = np.abs(above) > softmax_rounding(batch)[:, np.newaxis] * spread[:, np.newaxis]
    assert_every((~clear | (got * above <= 0)).all(-1), batch, got=got)


@BULK
@given(states())
def test_the_mean_logit_falls_with_the_temperature_from_the_largest_to_the_plain_mean(batch):
    z, t = batch.logits, batch.temperature
    noise = softmax_rounding(batch) * (1 + np.ptp(z, axis=-1)) + 8 * EPS * np.abs(z).max(-1)
    for factor in (1.01, 2.0, 100.0):
        assert_every(mean_logit(z, factor * t) <= mean_logit(z, t) + noise, batch)
    assert_every(mean_logit(z, t) <= z.max(-1) + noise, batch)
    # pi^T - 1/K is at most R / T of 1/K, to first order.
    assert_every(np.abs(mean_logit(z, 1e9) - z.mean(-1)) <= 2e-9 * (1 + np.ptp(z, axis=-1)) ** 2 + noise, batch)


@given(logits())
def test_the_pull_is_the_papers_covariance_in_50_digits(z):
    with localcontext() as context:
        context.prec = 50
        p, exact = [value.exp() for value in exact_log_softmax(z)], [Decimal(float(value)) for value in z]
        m = sum(a * b for a, b in zip(p, exact, strict=True))
        d = [a * (b - m) for a, b in zip(p, exact, strict=True)]
        c = sum(a * b for a, b in zip(p, d, strict=True))
    assert c >= -Decimal("1e-40")  # Chebyshev: z and pi rise together
    # d is a product of a probability and z - m, both known to the rounding of the exponent.
    np.testing.assert_allclose(pull(z), [float(value - c) for value in d], rtol=0, atol=rounding(z, 1.0) * 60)


@BULK
@given(states())
def test_the_pull_has_mean_0_under_the_policy_and_is_minus_the_entropys_gradient_along_the_score(batch):
    z = batch.logits
    pi, got = tempered(z), pull(z)
    largest = 1 + np.abs(z).max(-1)
    noise = softmax_rounding(batch) * 4 * largest
    assert_every(np.abs((pi * got).sum(-1)) <= noise, batch, got=got)
    score = np.eye(z.shape[-1]) - pi[:, np.newaxis, :]  # (n, a, b): d ln pi_a / dz_b
    along = (score * entropy_gradient(z)[:, np.newaxis, :]).sum(-1)
    assert_every((np.abs(got + along) <= noise[:, np.newaxis]).all(-1), batch, got=got, along=along)
    # C, what the uniform part of the pull is, is never below 0.
    d = pi * (z - mean_logit(z)[:, np.newaxis])
    assert_every((d - got).mean(-1) >= -noise, batch, got=got)


@given(logits(), temperatures)
def test_the_oracle_and_the_shared_core_agree(z, temperature):
    tolerance = rounding(z, temperature)
    probs = categorical.log_softmax(z, temperature).exp()
    np.testing.assert_allclose(tempered(z, temperature), probs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(entropy(z, temperature), categorical.entropy(z, temperature), rtol=0, atol=tolerance)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 50.0])
def test_a_policy_of_two_actions_by_hand(temperature):
    # pi^T = 1 / (1 + e^(-1/T)); m = pi, d = pi (1 - pi) (1, -1), C = pi (1 - pi)(2 pi - 1).
    p = 1 / (1 + math.exp(-1 / temperature))
    assert tempered([1.0, 0.0], temperature) == pytest.approx([p, 1 - p], rel=1e-14)
    assert mean_logit([1.0, 0.0], temperature) == pytest.approx(p, rel=1e-14)
    assert tempered_slope([1.0, 0.0], temperature)[0] == pytest.approx(-p * (1 - p) / temperature**2, rel=1e-12)
    q = 1 / (1 + math.exp(-1.0))
    spread, c = q * (1 - q), q * (1 - q) * (2 * q - 1)
    assert pull([1.0, 0.0]) == pytest.approx([spread - c, -spread - c], rel=1e-14)


def test_leading_axes_are_instances_with_their_own_temperatures():
    z = np.array([[0.0, 1.0, 3.0], [2.0, -1.0, 0.0]])
    t = np.array([0.5, 2.0])
    for function in (entropy, entropy_temperature_slope, tempered, tempered_slope, mean_logit):
        assert np.array_equal(function(z, t), np.stack([function(z[i], t[i]) for i in range(2)]))
    assert np.array_equal(pull(z), np.stack([pull(z[i]) for i in range(2)]))


def test_integers_and_tensors_are_taken_as_float64():
    for z in ([0, 1, 3], torch.tensor([0.0, 1.0, 3.0])):
        assert entropy(z).dtype == np.float64
        np.testing.assert_allclose(entropy(z), entropy([0.0, 1.0, 3.0]), rtol=0, atol=4 * EPS)
