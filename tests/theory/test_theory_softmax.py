"""Tempering, entropy and Lemma 4.1's slope against 50-digit arithmetic."""

import math
from decimal import Decimal

import numpy as np
import torch
from hypothesis import given
from strategies import EPS, exact_entropy, exact_log_softmax, logits, temperatures

from aepo import categorical
from aepo.theory import entropy, entropy_temperature_slope, tempered


def rounding(z, temperature: float) -> float:
    """A few units in the last place of max |z| / T, times what an entropy makes of them: 2 + ln K."""
    return 8 * EPS * (1 + float(abs(z).max()) / temperature + len(z)) * (2 + math.log(len(z)))


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


@given(logits(), temperatures)
def test_the_slope_is_positive_unless_the_logits_are_constant(z, temperature):
    slope = entropy_temperature_slope(z, temperature)
    if z.max() == z.min():
        assert slope <= rounding(z, temperature) ** 2
    elif z.max() - z.min() < 300 * temperature:  # beyond that exp underflows and so does the variance
        assert slope > 0


@given(logits(), temperatures)
def test_the_oracle_and_the_shared_core_agree(z, temperature):
    tolerance = rounding(z, temperature)
    probs = categorical.log_softmax(z, temperature).exp()
    np.testing.assert_allclose(tempered(z, temperature), probs, rtol=0, atol=tolerance)
    np.testing.assert_allclose(entropy(z, temperature), categorical.entropy(z, temperature), rtol=0, atol=tolerance)


def test_leading_axes_are_instances_with_their_own_temperatures():
    z = np.array([[0.0, 1.0, 3.0], [2.0, -1.0, 0.0]])
    t = np.array([0.5, 2.0])
    for function in (entropy, entropy_temperature_slope, tempered):
        assert np.array_equal(function(z, t), np.stack([function(z[i], t[i]) for i in range(2)]))


def test_integers_and_tensors_are_taken_as_float64():
    for z in ([0, 1, 3], torch.tensor([0.0, 1.0, 3.0])):
        assert entropy(z).dtype == np.float64
        np.testing.assert_allclose(entropy(z), entropy([0.0, 1.0, 3.0]), rtol=0, atol=4 * EPS)
