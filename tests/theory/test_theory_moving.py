"""A moving target: followed to within B + delta after the hitting time, lost if it is faster than the steps."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BULK, STEPS, TARGETS, UNIT, assert_every, loops, seeds, states

from aepo.theory import (
    controller_band,
    entropy,
    lost_target_bound,
    moving_target_bound,
    moving_target_hitting_time,
    reinforce_step,
)


def numbers_of(batch) -> dict[str, np.ndarray]:
    return {"authority": batch.authority, "step": batch.step, "speed": batch.speed}


# -- (a) followed --


def test_the_error_of_a_moving_target_is_bounded_at_every_step_and_stays_in_the_band_after_the_hitting_time():
    met = Counter()

    @BULK
    @given(loops())
    def law(batch):
        steps = batch.moved.shape[-1]
        off = np.abs(batch.error)
        start, numbers = batch.error[:, 0], numbers_of(batch)
        hit = moving_target_hitting_time(start, **numbers)
        band = batch.step + batch.speed
        tight = np.zeros(len(batch), dtype=bool)
        for k in range(steps + 1):
            bound = moving_target_bound(start, k, **numbers)
            assert_every(off[:, k] <= bound, batch, bound=bound)
            assert_every((k < hit) | (off[:, k] <= band), batch, hit=hit)
            tight |= (off[:, k] == bound) & (k > 0)
        # From any later step on, too: after a jump the clock starts again.
        late = moving_target_bound(batch.error[:, 7], steps - 7, **numbers)
        assert_every(off[:, -1] <= late, batch, late=late)
        met["instances"] += len(batch)
        met["start outside"] += int((off[:, 0] > band).sum())
        met["band reached"] += int(((off[:, 0] > band) & (hit <= steps)).sum())
        met["crossed the target"] += int((np.sign(batch.error[:, 1:]) != np.sign(batch.error[:, :-1])).any(-1).sum())
        met["as bad as the bound"] += int(tight.sum())
        met["moves"] += int((batch.speed > 0).sum())
        for name in TARGETS:
            met[name] += int((batch.target == name).sum())
        for name in STEPS:
            met[name] += int((batch.length == name).sum())

    law()
    print(dict(met))
    assert met["instances"] >= 20_000
    for name in ("start outside", "band reached", "crossed the target", "as bad as the bound", "moves"):
        assert met[name] > 3_000, name
    for name in (*TARGETS, *STEPS):
        assert met[name] > 2_000, name


def reachable(start: int, *, authority: int, step: int, speed: int, steps: int) -> list[set[int]]:
    """Every error that some choice of steps and of moves of the target leads to, in whole numbers, step by step."""
    found = [{start}]
    for _ in range(steps):
        found.append(
            {
                e + (size if e < 0 else -size) - move
                for e in found[-1]
                for size in range(authority, step + 1)
                for move in range(-speed, speed + 1)
            }
        )
    return found


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_no_choice_of_steps_and_moves_is_worse_than_the_bound_and_one_is_as_bad(step):
    worst = Counter()
    for authority in range(1, step + 1):
        for speed in range(authority):
            for start in range(-12, 13):
                numbers = {"authority": authority, "step": step, "speed": speed}
                for k, errors in enumerate(reachable(start, steps=10, **numbers)):
                    off = max(map(abs, errors))
                    bound = float(moving_target_bound(start, k, **numbers))
                    assert off <= bound, (numbers, start, k)
                    inside = abs(start) - k * (authority - speed) <= step + speed
                    worst["inside" if inside else "outside", off == bound] += 1
    # On the way to the band some choice is exactly as bad as the bound; inside it, at some of the steps.
    assert worst["outside", False] == 0 < worst["outside", True]
    assert worst["inside", True] > 0


@BULK
@given(seeds)
def test_the_hitting_time_is_the_first_step_at_which_the_bound_is_the_band(seed):
    generator = np.random.default_rng(seed)
    step = generator.integers(2, 200, 256)
    authority = generator.integers(1, step + 1)
    speed = generator.integers(0, authority)
    error = generator.integers(-3000, 3001, 256)
    hit = moving_target_hitting_time(error * UNIT, authority=authority * UNIT, step=step * UNIT, speed=speed * UNIT)
    for e, eps, b, delta, n in zip(error, authority, step, speed, hit, strict=True):
        way = Fraction(max(0, abs(int(e)) - int(b) - int(delta)), int(eps) - int(delta))
        assert n == -(-way.numerator // way.denominator)


def test_a_lipschitz_function_of_the_step_is_followed_below_the_ceiling():
    met = Counter()

    @BULK
    @given(seeds)
    def law(seed):
        # Sums of waves and ramps: a function's greatest slope is the sum of its parts' slopes.
        generator = np.random.default_rng(seed)
        rows, steps, parts = 512, 80, 3
        b = generator.uniform(0.01, 0.2, rows)
        eps = b * generator.uniform(0.2, 1.0, rows)
        slope = eps * generator.uniform(0.0, 0.95, rows)
        share = generator.dirichlet(np.ones(parts), rows) * slope[:, None]
        rate = generator.uniform(0.02, 1.0, (rows, parts))
        k = np.arange(steps + 1)
        wave = share[:, :2, None] / rate[:, :2, None] * np.sin(rate[:, :2, None] * k)
        target = wave.sum(1) + share[:, 2, None] * np.abs(k - 40 * rate[:, 2, None])
        # Authority ends at the lowest and the highest entropy, which the target stays B away from.
        lowest, highest = target.min(-1) - b, target.max(-1) + b
        h = generator.uniform(lowest, highest)
        start = h - target[:, 0]
        hit = moving_target_hitting_time(start, authority=eps, step=b, speed=slope)
        for i in range(steps + 1):
            off = np.abs(h - target[:, i])
            noise = 1e-12
            assert ((lowest - noise <= h) & (h <= highest + noise)).all()
            bound = moving_target_bound(start, i, authority=eps, step=b, speed=slope)
            assert (off <= bound + noise).all()
            assert ((i < hit) | (off <= b + slope + noise)).all()
            met["followed"] += int((i >= hit).sum())
            h = h + np.where(h < target[:, i], 1, -1) * generator.uniform(eps, b)
        met["instances"] += rows

    law()
    assert met["instances"] >= 20_000 and met["followed"] > 20 * met["instances"]


def test_the_updates_of_eq_4_follow_a_moving_target_wherever_their_steps_meet_the_premise():
    met = Counter()

    @BULK
    @given(states(corners=("normal", "grid", "ties")), st.sampled_from([0.02, 0.1]), st.sampled_from([0.0, 1e-4, 1e-3]))
    def law(batch, lr, speed):
        batch = batch.where((batch.correct.sum(-1) > 1) & (np.arange(len(batch)) < 192))
        z, actions = batch.logits, batch.logits.shape[-1]
        ceiling = np.log(batch.correct.sum(-1))
        steps = 40
        target = 0.6 * ceiling[:, None] + speed * 20 * np.sin(np.arange(steps + 1) / 20)
        h = np.empty((len(batch), steps + 1))
        h[:, 0] = entropy(z)
        for k in range(steps):
            below = h[:, k] < target[:, k]
            z = reinforce_step(z, batch.correct, temperature=np.where(below, 3.0, 0.5), lr=lr)
            h[:, k + 1] = entropy(z)
        towards = np.where(h < target, 1, -1)[:, :-1] * np.diff(h)
        assert_every((towards.max(-1) <= controller_band(actions, lr=lr) + 1e-12), batch)
        # eps and B as they turned out: where the least step beats the target, the run is in the theorem's hands.
        eps, b, delta = towards.min(-1), towards.max(-1), np.abs(np.diff(target)).max(-1)
        holds = eps > delta + 1e-9
        numbers = {"authority": np.where(holds, eps, 1.0), "step": b, "speed": delta}
        for k in range(steps + 1):
            bound = moving_target_bound(h[:, 0] - target[:, 0], k, **numbers)
            assert_every(~holds | (np.abs(h - target)[:, k] <= bound + 1e-12), batch, bound=bound)
        met["runs"] += len(batch)
        met["premise"] += int(holds.sum())
        met["premise, moving target"] += int(holds.sum()) if speed else 0

    law()
    print(dict(met))
    assert met["premise"] > 1_000 and met["premise, moving target"] > 300


# -- (a) without a premise --


def test_without_authority_over_the_target_the_error_may_stay_for_ever():
    # eps = B = delta: H and H* rise side by side; every other premise holds.
    k = np.arange(1_000)
    h, target = 0.25 * k, 3.0 + 0.25 * k
    assert (np.abs(h - target) == 3.0).all()
    assert np.isnan(moving_target_bound(3.0, 10, authority=0.25, step=0.25, speed=0.25))
    assert moving_target_hitting_time(3.0, authority=0.25, step=0.25, speed=0.25) == np.inf
    # A little more authority, and the band is reached.
    assert moving_target_hitting_time(3.0, authority=0.375, step=0.375, speed=0.25) < 1_000


def test_without_a_longest_step_the_error_may_be_anything():
    # Steps towards the target, of at least eps = 1; one of length 2 where B = 1/2 was said crosses it by 1.
    assert abs(1.0 - 2.0) > moving_target_bound(1.0, 9, authority=0.5, step=0.5)


def test_steps_away_from_the_target_break_the_bound():
    # |step| <= B alone, without the right direction.
    assert abs(1.0 + 10 * 0.25) > moving_target_bound(1.0, 10, authority=0.25, step=0.25)


def test_one_step_without_authority_in_each_period_is_enough_to_lose_a_target():
    # eps = B = 2 in three of four steps, none in the fourth, where the target makes up for it: its mean speed is 1.5.
    h = 2.0 * np.array([k - (k + 3) // 4 for k in range(401)])
    target = 1.75 * np.arange(401) + 1.0
    assert target[-1] - h[-1] > 90 > moving_target_bound(1.0, 400, authority=2.0, step=2.0, speed=1.75)


def test_a_jump_of_the_target_beyond_its_speed_breaks_the_bound_and_the_clock_starts_again():
    # In the band, then the target jumps by 5: outside for the hitting time of an error of 5.5, and inside after it.
    numbers = {"authority": 0.5, "step": 0.5}
    errors = [0.5, -5.0]
    for _ in range(20):
        errors.append(errors[-1] + (0.5 if errors[-1] < 0 else -0.5))
    assert abs(errors[1]) > moving_target_bound(errors[0], 1, **numbers)
    hit = int(moving_target_hitting_time(errors[1], **numbers))
    assert hit == 9 and max(map(abs, errors[1 + hit :])) <= 0.5 < abs(errors[hit])


# -- (d) lost --


def test_a_target_that_is_faster_than_the_steps_is_lost_at_the_difference_of_the_two():
    met = Counter()

    @BULK
    @given(seeds, st.sampled_from([-1, 1]))
    def law(seed, way):
        generator = np.random.default_rng(seed)
        rows, steps = 512, 60
        b = generator.integers(1, 200, rows)
        delta = b + generator.integers(1, 100, rows)
        start = generator.integers(-2000, 2001, rows)
        e = start.copy()
        for k in range(steps + 1):
            bound = lost_target_bound(way * start * UNIT, k, step=b * UNIT, speed=delta * UNIT)
            assert (np.abs(e) * UNIT >= bound).all()
            met["as lost as that"] += int((np.abs(e) * UNIT == bound).sum())
            before = way * e
            chases = generator.random(rows) < 0.8
            step = np.where(chases, b, generator.integers(-3 * b, b + 1))  # backwards by anything: no premise of it
            e = e + way * step - way * (delta + generator.integers(0, 2, rows) * generator.integers(0, 50, rows))
            # The signed error falls behind by delta - B in every step.
            assert (before - way * e >= delta - b).all()
        met["instances"] += rows
        met["lost"] += int((np.abs(e) > np.abs(start)).sum())

    law()
    print(dict(met))
    assert met["instances"] >= 20_000 and met["lost"] > 0.5 * met["instances"] and met["as lost as that"] > 1_000


def test_the_bound_of_a_lost_target_is_met_by_a_controller_that_does_all_it_can():
    b, delta, start = 0.25, 0.375, -1.0
    errors = start - (delta - b) * np.arange(50)
    np.testing.assert_array_equal(np.abs(errors), lost_target_bound(start, np.arange(50), step=b, speed=delta))


def test_a_target_that_is_fast_but_turns_is_not_lost():
    # Up and down by 3 with B = 1: one direction is a premise.
    errors = np.array([0.0, -2.0] * 50)
    assert np.abs(errors).max() < lost_target_bound(0.0, 99, step=1.0, speed=3.0)


def test_leading_axes_are_instances():
    e, b = np.array([[1.0], [-2.0]]), np.array([0.25, 0.5, 0.75])
    for k in (0, 3):
        whole = moving_target_bound(e, k, authority=0.25, step=b, speed=0.125)
        lost = lost_target_bound(e, k, step=b, speed=1.0)
        hit = moving_target_hitting_time(e, authority=0.25, step=b, speed=0.125)
        assert whole.shape == lost.shape == hit.shape == (2, 3)
        for i in range(2):
            for j in range(3):
                assert whole[i, j] == moving_target_bound(e[i, 0], k, authority=0.25, step=b[j], speed=0.125)
                assert lost[i, j] == lost_target_bound(e[i, 0], k, step=b[j], speed=1.0)
                assert hit[i, j] == moving_target_hitting_time(e[i, 0], authority=0.25, step=b[j], speed=0.125)
