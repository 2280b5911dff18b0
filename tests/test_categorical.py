"""The softmax policy against 50-digit decimal arithmetic, and the laws it obeys."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    EPS,
    assert_close,
    double,
    exact_entropy,
    exact_log_softmax,
    logits,
    seeds,
    temperatures,
)

from aepo.categorical import entropy, entropy_of, log_prob, log_probs_and_probs, log_softmax, token_stats

# Moderate logits, for derivatives: where a probability underflows, a relative comparison of slopes says
# nothing.
moderate = logits(largest=5.0)


def rounding(z: torch.Tensor, temperature: float = 1.0) -> float:
    """What dividing by T, the shift and one sum may lose: a few units in the last place of max |z| / T."""
    return 8 * EPS * (1 + float(z.abs().max()) / temperature + len(z))


@given(logits(), temperatures)
def test_log_softmax_is_the_logit_minus_the_log_of_the_sum_of_exponentials(z, temperature):
    want = [float(value) for value in exact_log_softmax(z, temperature)]
    assert_close(log_softmax(z, temperature), want, atol=rounding(z, temperature))


@given(logits())
def test_log_probs_and_probs_are_the_log_softmax_and_its_exponential(z):
    want = [float(value) for value in exact_log_softmax(z, 1.0)]
    log_probs, probs = log_probs_and_probs(z)
    assert_close(log_probs, want, atol=rounding(z))
    assert_close(probs, [math.exp(value) for value in want], atol=rounding(z))


@given(logits(), temperatures)
def test_entropy_is_minus_the_mean_log_probability(z, temperature):
    # Each term p ln p carries the error of ln p times (p + p |ln p|), and sum p |ln p| <= ln V.
    tolerance = rounding(z, temperature) * (2 + math.log(len(z)))
    assert_close(entropy(z, temperature), float(exact_entropy(z, temperature)), atol=tolerance)


@given(logits(), temperatures, st.floats(-1000, 1000))
def test_a_constant_added_to_all_logits_changes_nothing(z, temperature, shift):
    tolerance = rounding(z.abs() + abs(shift), temperature)
    assert_close(log_softmax(z + shift, temperature), log_softmax(z, temperature), atol=2 * tolerance)
    assert_close(entropy(z + shift, temperature), entropy(z, temperature), atol=2 * tolerance * (2 + math.log(len(z))))


@given(logits(), seeds)
def test_permuting_the_actions_permutes_the_log_probabilities_and_keeps_the_entropy(z, seed):
    order = torch.randperm(len(z), generator=torch.Generator().manual_seed(seed))
    assert_close(log_softmax(z[order]), log_softmax(z)[order], atol=rounding(z))
    assert_close(entropy(z[order]), entropy(z), atol=rounding(z) * (2 + math.log(len(z))))


@given(logits(), temperatures)
def test_entropy_lies_between_zero_and_the_logarithm_of_the_number_of_actions(z, temperature):
    value, most = float(entropy(z, temperature)), math.log(len(z))
    assert 0 <= value <= most + rounding(z, temperature)
    if z.max() - z.min() > 0.01 * temperature:
        # p differs from uniform by at least 0.01 / (e V) somewhere, and H drops at least as the square of
        # that.
        assert value < most


@given(st.integers(2, 1000), st.floats(-30, 30))
def test_equal_logits_have_the_entropy_of_the_uniform_distribution(actions, value):
    z = torch.full((actions,), value, dtype=torch.float64)
    assert_close(entropy(z), math.log(actions), atol=rounding(z))


@given(logits(), temperatures)
def test_entropy_rises_with_temperature_by_the_variance_of_the_logits_over_its_cube(z, temperature):
    t = double(temperature).requires_grad_()
    (slope,) = torch.autograd.grad(entropy(z, t), t)
    p = [math.exp(value) for value in exact_log_softmax(z, temperature)]
    mean = math.fsum(a * b for a, b in zip(p, z.tolist(), strict=True))
    variance = math.fsum(a * (b - mean) ** 2 for a, b in zip(p, z.tolist(), strict=True))
    # Autograd sums p ln p (z - mean) / T^2, terms as large as (|z| / T)^2 / T, before they cancel to the
    # slope.
    scale = (1 + float(z.abs().max()) / temperature) ** 2 / temperature
    assert_close(slope, variance / temperature**3, atol=32 * EPS * len(z) * scale)


@given(moderate, temperatures)
def test_the_derivative_of_the_entropy_is_that_of_finite_differences(z, temperature):
    z, t = z.clone().requires_grad_(), double(temperature).requires_grad_()
    assert torch.autograd.gradcheck(lambda z, t: entropy(z, t), (z, t))


@given(logits(), temperatures)
def test_the_gradient_of_the_entropy_is_minus_p_times_log_p_plus_entropy(z, temperature):
    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(entropy(leaf, temperature), leaf)
    log_p = exact_log_softmax(z, temperature)
    h = float(exact_entropy(z, temperature))
    want = [-math.exp(value) * (float(value) + h) / temperature for value in log_p]
    assert_close(gradient, want, atol=4 * rounding(z, temperature) * (2 + math.log(len(z))) / temperature)


@given(logits(), temperatures, st.data())
def test_an_impossible_action_has_no_probability_and_sends_no_gradient(z, temperature, data):
    position = data.draw(st.integers(0, len(z)))
    allowed = torch.tensor([a != position for a in range(len(z) + 1)])
    with_impossible = torch.full((len(z) + 1,), -float("inf"), dtype=torch.float64)
    with_impossible[allowed] = z
    leaf = with_impossible.requires_grad_()
    token = torch.tensor(int(allowed.nonzero()[0]))
    value = entropy(leaf, temperature) + log_prob(leaf, token, temperature)
    (gradient,) = torch.autograd.grad(value, leaf)
    bare = z.clone().requires_grad_()
    want = entropy(bare, temperature) + log_prob(bare, torch.tensor(0), temperature)
    assert_close(value.detach(), want.detach(), atol=4 * rounding(z, temperature))
    assert gradient[position] == 0
    assert_close(gradient[allowed], torch.autograd.grad(want, bare)[0], atol=8 * rounding(z, temperature) / temperature)


@pytest.mark.parametrize("far", [-2000.0, -float("inf")])
def test_an_action_without_probability_sends_no_nan(far):
    z = double([0.0, far]).requires_grad_()
    value = entropy(z)
    (gradient,) = torch.autograd.grad(value, z)
    assert value == 0
    assert gradient.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@given(z=logits())
def test_half_precision_logits_are_raised_to_float32_before_anything_is_summed(dtype, z):
    half, token = z.to(dtype), torch.tensor(len(z) - 1)
    assert torch.equal(log_softmax(half), log_softmax(half.float()))
    assert torch.equal(entropy(half, 1.2), entropy(half.float(), 1.2))
    assert torch.equal(log_prob(half, token), log_prob(half.float(), token))
    assert [value.dtype for value in token_stats(half, token)] == [torch.float32, torch.float32]


@given(logits(), temperatures, st.data())
def test_log_prob_picks_the_tokens_entry(z, temperature, data):
    token = data.draw(st.integers(0, len(z) - 1))
    rows = torch.stack([z, z.flip(0)])
    got = log_prob(rows, torch.tensor([token, len(z) - 1 - token]), temperature)
    want = float(exact_log_softmax(z, temperature)[token])
    assert_close(got, [want, want], atol=rounding(z, temperature))


@given(logits(), st.data())
def test_token_stats_are_the_log_prob_and_the_entropy(z, data):
    token = torch.tensor(data.draw(st.integers(0, len(z) - 1)))
    logp, h = token_stats(z, token)
    assert torch.equal(logp, log_prob(z, token))
    assert torch.equal(h, entropy(z))
    assert torch.equal(h, entropy_of(log_softmax(z)))


@given(st.lists(logits(min_actions=4, max_actions=4), min_size=2, max_size=3), st.data())
def test_every_row_has_its_own_temperature(rows, data):
    z = torch.stack(rows)
    t = double(data.draw(st.lists(temperatures, min_size=len(rows), max_size=len(rows))))
    together = entropy(z, t)
    for i in range(len(rows)):
        assert_close(together[i], entropy(z[i], float(t[i])), atol=rounding(z[i], float(t[i])))


def test_log_probabilities_of_two_actions_by_hand():
    # softmax(ln 3, 0) = (3/4, 1/4); at T = 1/2 it is (9/10, 1/10).
    z = double([math.log(3), 0.0])
    assert_close(log_softmax(z).exp(), [0.75, 0.25], atol=4 * EPS)
    assert_close(log_softmax(z, 0.5).exp(), [0.9, 0.1], atol=4 * EPS)
    # H = 3/4 ln 4/3 + 1/4 ln 4.
    assert_close(entropy(z), 0.75 * math.log(4 / 3) + 0.25 * math.log(4), atol=4 * EPS)
