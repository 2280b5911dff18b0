"""What AEPO's second term is: its direction's split, an entropy bonus on correct answers, its reach and its price."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import BULK, EPS, assert_every, seeds, states
from three_ways import (
    NORMALISED,
    PAPER,
    RELATIVE_TO_AUTOGRAD,
    RELATIVE_TO_STEPS,
    H,
    assert_agree,
    direction,
    pushed,
)

from aepo import categorical
from aepo.theory import (
    correct_given,
    delta_reward,
    entropy,
    entropy_ceiling,
    pushed_mass,
    reinforce_step,
    steering,
    steering_coefficient,
    tempered,
)


def last_place(batch) -> np.ndarray:
    """(n,): what a probability is off by, relative to itself."""
    z = batch.logits
    return 8 * EPS * (np.abs(z).max(-1) * (1 + 1 / batch.temperature) + z.shape[-1] + 4)


# -- the split --


@BULK
@given(states())
def test_the_two_parts_add_up_to_the_theorems_direction_and_each_moves_no_mass_in_total(batch):
    z, right, t = batch.logits, batch.correct, batch.temperature
    inside, onto = steering(z, right, temperature=t)
    scale = last_place(batch)[:, np.newaxis] * pushed_mass(z, right, temperature=t)[:, np.newaxis]
    step = direction(batch)
    assert_every((np.abs(inside + onto - step) <= 4 * scale).all(-1), batch, inside=inside, onto=onto)
    closed = reinforce_step(z, right, temperature=t) - z
    rounded = 4 * EPS * (1 + np.abs(z).max(-1, keepdims=True))
    assert_every((np.abs(inside + onto - closed) <= 4 * scale + rounded).all(-1), batch)
    for part in (inside, onto):
        assert_every(np.abs(part.sum(-1)) <= 4 * scale[:, 0], batch, part=part)
    assert_every((np.where(right, 0.0, inside) == 0).all(-1), batch, inside=inside)
    # The second part has one direction at every temperature, and gives each correct action of its mass.
    _, at_one = steering(z, right)
    ratio = (pushed_mass(z, right, temperature=t) / pushed_mass(z, right))[:, np.newaxis]
    assert_every((np.abs(onto - ratio * at_one) <= 4 * scale).all(-1), batch, onto=onto, at_one=at_one)
    assert_every((np.where(right, onto >= -4 * scale, onto <= 4 * scale)).all(-1), batch, onto=onto)


@BULK
@given(states(corners=("normal", "grid", "ties", "near ties")))
def test_as_a_change_of_the_probabilities_the_inside_part_leaves_the_reward_alone(batch):
    # The natural gradient makes dpi of it: dz = inside / pi gives dpi_a = inside_a, since inside sums to 0.
    z, right = batch.logits, batch.correct
    inside, onto = steering(z, right, temperature=batch.temperature)
    pi = tempered(z)
    for part, rises in ((inside, False), (onto, True)):
        move = part / pi
        size = np.abs(move).max(-1, keepdims=True) + 1e-300

        def reward(steps, move=move, size=size):
            return (tempered(z + steps * H * move / size) * right).sum(-1)

        change = size[:, 0] * (8 * (reward(1) - reward(-1)) - (reward(2) - reward(-2))) / (12 * H)
        # H^4 / 30 times the fifth derivative of a probability along a direction of length 1, below 20.
        off = size[:, 0] * (20 * H**4 / 30 + 16 * EPS * (1 + np.abs(z).max(-1)) / H)
        off = off + 4 * pushed(batch) * last_place(batch)  # the part's own rounding
        want = (part * right).sum(-1) if rises else 0.0
        assert_every(np.abs(change - want) <= off, batch, change=change)


@BULK
@given(states())
def test_as_a_change_of_the_logits_the_inside_part_lowers_the_reward_above_temperature_1(batch):
    z, right, t = batch.logits, batch.correct, batch.temperature
    inside, onto = steering(z, right, temperature=t)
    pi, q = tempered(z), correct_given(z, right)
    j, mass = (pi * right).sum(-1), pushed_mass(z, right, temperature=t)
    falls = ((q * correct_given(z, right, temperature=t)).sum(-1) - (q * q).sum(-1)) * mass * (1 - j) * j
    got = (pi * right * (inside - (pi * inside).sum(-1, keepdims=True))).sum(-1)
    noise = 4 * mass * last_place(batch)
    assert_every(np.abs(got - falls) <= noise, batch, got=got, falls=falls)
    assert_every(np.where(t > 1, got <= noise, got >= -noise), batch, got=got)
    whole = delta_reward(z, right, temperature=t)
    rest = (pi * right * (onto - (pi * onto).sum(-1, keepdims=True))).sum(-1)
    assert_every(np.abs(got + rest - whole) <= noise, batch, got=got, rest=rest)
    assert_every(rest >= -noise, batch, rest=rest)


def test_the_reward_that_the_inside_part_costs_by_hand():
    # q = (0.8, 0.2) moves towards (2/3, 1/3): E_pi of the move is below 0, and the wrong action gains.
    z, correct = np.log([4.0, 1.0, 1.0]), np.array([True, True, False])
    inside, _ = steering(z, correct, temperature=2.0)
    h = 1e-4
    up, down = ((tempered(z + sign * h * inside) * correct).sum() for sign in (1, -1))
    # S (1 - J) J sum q (q_T - q) = 3/4 x 1/6 x 5/6 x (4/5 - 1/5)(2/3 - 4/5), S = (2 + 1) / (2 + 1 + 1).
    assert (up - down) / (2 * h) == pytest.approx(3 / 4 * 1 / 6 * 5 / 6 * 3 / 5 * (2 / 3 - 4 / 5), rel=1e-6)


# -- the bonus --


def test_steering_is_an_entropy_bonus_on_correct_answers_up_to_second_order():
    met = Counter()

    @BULK
    @given(states(temperature=(0.5, 2.0)), st.sampled_from([1.0, 0.3, 0.03, 1e-3]), st.sampled_from([1.0, 0.25]))
    def law(batch, nearer, alpha):
        z, right = batch.logits, batch.correct
        t = 1 + nearer * (batch.temperature - 1)
        inside, _ = steering(z, right, temperature=t)
        # The gradient of H(q) by the logits of A*, from the shared core.
        leaf = torch.tensor(z).requires_grad_()
        q = leaf.masked_fill(~torch.tensor(right), -torch.inf)
        log_q = categorical.log_softmax(q).masked_fill(~torch.tensor(right), 0.0)
        h = -(torch.where(torch.tensor(right), log_q.exp(), 0.0) * log_q).sum()
        bonus = torch.autograd.grad(h, leaf)[0].numpy()
        coefficient = steering_coefficient(z, right, temperature=t, alpha=alpha)
        off = np.abs(alpha * inside - coefficient[:, np.newaxis] * bonus).max(-1)
        # By 1/T, q_T has the second derivative q (x^2 - Var): at most R^2, R the spread of z on A*.
        spread = np.where(right, z, -np.inf).max(-1) - np.where(right, z, np.inf).min(-1)
        mass = alpha * pushed_mass(z, right, temperature=t)
        bound = mass * (1 - 1 / t) ** 2 * spread**2 / 2
        noise = mass * last_place(batch) * (1 + spread)
        assert_every(off <= bound + 4 * noise, batch, off=off, bound=bound, t=t)
        alone = right.sum(-1) == 1
        assert_every(~alone | (np.abs(inside).max(-1) <= noise), batch, inside=inside)
        met["instances"] += len(batch)
        met["clear of rounding"] += int((bound > 100 * noise).sum())
        met["first order is nine tenths"] += int((off < 0.1 * np.abs(coefficient * np.abs(bonus).max(-1))).sum())
        met["one correct"] += int(alone.sum())

    law()
    print(dict(met))
    assert met["clear of rounding"] > 3_000 < met["first order is nine tenths"]
    assert met["one correct"] > 1_000


@BULK
@given(states(), st.sampled_from([1.0, 0.25]))
def test_the_coefficient_is_alpha_times_the_mass_times_1_minus_1_over_t(batch, alpha):
    t = batch.temperature
    got = steering_coefficient(batch.logits, batch.correct, temperature=t, alpha=alpha)
    assert_agree(batch, got, alpha * pushed(batch) * (1 - 1 / t), relative=1e-14, floor=0 * t)
    assert_every(np.sign(got) == np.sign(t - 1), batch, got=got)


# -- the reward --


def test_the_first_order_change_of_the_reward_three_ways():
    met = Counter()

    @BULK
    @given(states(), st.booleans())
    def law(batch, normalised):
        z, right, t = batch.logits, batch.correct, batch.temperature
        want = delta_reward(z, right, temperature=t, normalised=normalised)
        step = direction(batch, method=NORMALISED if normalised else PAPER)
        leaf = torch.tensor(z).requires_grad_()
        j = (categorical.log_softmax(leaf).exp() * torch.tensor(right)).sum()
        uphill = torch.autograd.grad(j, leaf)[0].numpy()
        size = np.ones(len(batch)) if normalised else pushed(batch)
        # A mean under pi of numbers of at most that size.
        noise = 4 * size * last_place(batch)
        met["by autograd to 1e-8"] += assert_agree(
            batch, (uphill * step).sum(-1), want, relative=RELATIVE_TO_AUTOGRAD, floor=noise
        )

        def reward(steps):
            return (tempered(z + steps * H * step / size[:, np.newaxis]) * right).sum(-1)

        stepped = size * (8 * (reward(1) - reward(-1)) - (reward(2) - reward(-2))) / (12 * H)
        floor = size * (20 * H**4 / 30 + 8 * EPS * (1 + np.abs(z).max(-1)) / H) + noise
        met["by steps to 1e-5"] += assert_agree(batch, stepped, want, relative=RELATIVE_TO_STEPS, floor=floor)
        met["some action wrong"] += int((~right).any(-1).sum())  # else J = 1 and nothing can change
        met["falls"] += int((want < -noise).sum())
        # lr only scales.
        scaled = delta_reward(z, right, temperature=t, lr=batch.lr, normalised=normalised)
        assert_agree(batch, scaled, batch.lr * want, relative=1e-12, floor=0 * t)

    law()
    print(dict(met))
    assert met["by autograd to 1e-8"] > 0.4 * met["some action wrong"] > 4_000
    assert met["by steps to 1e-5"] > 0.4 * met["some action wrong"]
    assert met["falls"] > 50


@BULK
@given(states(), st.booleans())
def test_at_temperature_1_the_reward_never_falls(batch, normalised):
    got = delta_reward(batch.logits, batch.correct, normalised=normalised)
    assert_every(got >= -last_place(batch), batch, got=got)
    j = (tempered(batch.logits) * batch.correct).sum(-1)
    clear = (j > 1e-3) & (j < 1 - 1e-3)
    assert_every(~clear | (got > 0), batch, got=got)


# -- the ceiling --


@BULK
@given(states())
def test_no_policy_has_more_entropy_than_the_ceiling_at_its_accuracy(batch):
    actions = batch.logits.shape[-1]
    for count in range(1, actions):
        rows = batch.where(batch.correct.sum(-1) == count)
        if len(rows) == 0:
            continue
        pi = tempered(rows.logits)
        j = (pi * rows.correct).sum(-1)
        ceiling = entropy_ceiling(j, correct=count, actions=actions)
        noise = 16 * EPS * actions * (1 + np.abs(rows.logits).max(-1))
        assert_every(entropy(rows.logits) <= ceiling + noise, rows, ceiling=ceiling)
        # Uniform among the correct and among the wrong actions: the ceiling itself.
        level = np.where(rows.correct, (j / count)[:, None], ((1 - j) / (actions - count))[:, None])
        possible = (level > 1e-12).all(-1)
        flat = rows.where(possible)
        if len(flat):
            attained = entropy(np.log(level[possible]))
            # ln J is known to EPS / (1 - J) and the like, J to EPS.
            floor = 64 * EPS * actions * np.ones(len(flat))
            assert_agree(flat, attained, ceiling[possible], relative=0, floor=floor)


@pytest.mark.parametrize("j", [0.0, 0.25, 1.0])
def test_the_ceiling_by_hand(j):
    h = 0.0 if j in (0, 1) else -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    want = h + j * np.log(2.0) + (1 - j) * np.log(3.0)
    assert entropy_ceiling(j, correct=2, actions=5) == pytest.approx(want, rel=1e-15)


def test_an_accuracy_that_rounds_past_1_has_the_ceiling_of_1():
    assert entropy_ceiling(1 + 2 * EPS, correct=2, actions=5) == entropy_ceiling(1.0, correct=2, actions=5)


@pytest.mark.parametrize(("correct", "actions"), [(0, 4), (4, 4), (5, 4), (1, 1)])
def test_the_ceiling_needs_a_correct_and_a_wrong_action(correct, actions):
    with pytest.raises(ValueError, match=rf"correct must be in \[1, actions - 1 = {actions - 1}\], got {correct}"):
        entropy_ceiling(0.5, correct=correct, actions=actions)


@BULK
@given(states(corners=("normal",)), seeds)
def test_leading_axes_are_instances(batch, seed):
    pick = np.random.default_rng(seed).integers(0, len(batch), 3)
    z, right, t, lr = (getattr(batch, name)[pick] for name in ("logits", "correct", "temperature", "lr"))

    def check(whole, one):
        np.testing.assert_allclose(whole, [one(i) for i in range(3)], rtol=1e-12, atol=1e-14)

    for part in (0, 1):
        check(steering(z, right, temperature=t)[part], lambda i, p=part: steering(z[i], right[i], temperature=t[i])[p])
    check(
        steering_coefficient(z, right, temperature=t, alpha=lr),
        lambda i: steering_coefficient(z[i], right[i], temperature=t[i], alpha=lr[i]),
    )
    for flag in (False, True):
        check(
            delta_reward(z, right, temperature=t, lr=lr, normalised=flag),
            lambda i, n=flag: delta_reward(z[i], right[i], temperature=t[i], lr=lr[i], normalised=n),
        )
    j = np.array([0.1, 0.5, 1.0])
    check(entropy_ceiling(j, correct=2, actions=6), lambda i: entropy_ceiling(j[i], correct=2, actions=6))
    assert correct_given(z, right).shape == z.shape
