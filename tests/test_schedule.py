"""Entropy targets as functions of the step."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aepo.schedule import CHANGES, SCHEDULES, Constant, Cosine, Csv, Linear, Sinusoid, Stairs, Step, changing

levels = st.floats(0.0, 3.0)
lengths = st.integers(1, 1000)
steps = st.integers(0, 3000)
# A few units in the last place of levels up to 3.
ROUNDING = 1e-14


@given(levels, steps)
def test_a_constant_target_never_moves(value, step):
    assert Constant(value)(step) == value


@pytest.mark.parametrize("ramp", [Linear, Cosine])
@given(start=levels, end=levels, length=lengths, step=steps)
def test_a_ramp_goes_from_its_start_to_its_end_without_overshoot_and_stays(ramp, start, end, length, step):
    schedule = ramp(start=start, end=end, steps=length)
    assert schedule(0) == pytest.approx(start, abs=ROUNDING)
    assert schedule(length + step) == pytest.approx(end, abs=ROUNDING)
    low, high = min(start, end), max(start, end)
    assert low - ROUNDING <= schedule(step) <= high + ROUNDING
    towards = math.copysign(1, end - start)
    assert towards * (schedule(step + 1) - schedule(step)) >= -ROUNDING


@given(levels, levels, lengths, steps)
def test_a_linear_ramp_moves_by_equal_steps(start, end, length, step):
    schedule = Linear(start=start, end=end, steps=length)
    moved = schedule(step + 1) - schedule(step)
    assert moved == pytest.approx((end - start) / length if step < length else 0.0, abs=ROUNDING)


def test_a_cosine_ramp_by_hand():
    # (1 - cos(pi / 3)) / 2 = 1/4 of the way after a third, half after a half.
    schedule = Cosine(start=1.0, end=0.0, steps=6)
    assert [schedule(k) for k in (0, 2, 3, 6)] == pytest.approx([1.0, 0.75, 0.5, 0.0], abs=ROUNDING)


@given(levels, levels, steps, steps)
def test_a_step_jumps_at_its_step_and_not_before(before, after, at, step):
    assert Step(before=before, after=after, at=at)(step) == (before if step < at else after)


@given(levels, levels, st.integers(1, 20), lengths, steps)
def test_stairs_stand_still_between_equal_jumps_and_stay_at_their_end(start, end, stairs, every, step):
    schedule = Stairs(start=start, end=end, stairs=stairs, every=every)
    assert schedule(0) == schedule(every - 1) == start
    assert schedule(stairs * every + step) == pytest.approx(end, abs=ROUNDING)
    jumps = (step + 1) % every == 0 and step + 1 <= stairs * every
    moved = schedule(step + 1) - schedule(step)
    assert moved == pytest.approx((end - start) / stairs if jumps else 0.0, abs=ROUNDING)


@given(levels, levels, st.integers(4, 500), steps)
def test_a_sinusoid_repeats_and_swings_symmetrically_about_its_mean(mean, amplitude, period, step):
    schedule = Sinusoid(mean=mean, amplitude=amplitude, period=2 * period)
    # The argument of the sine grows to 2 pi 3000 / 8, and its rounding with it.
    assert schedule(step + 2 * period) == pytest.approx(schedule(step), abs=1e-11)
    assert (schedule(step) + schedule(step + period)) / 2 == pytest.approx(mean, abs=1e-11)
    assert abs(schedule(step) - mean) <= amplitude + ROUNDING


def test_a_sinusoid_starts_at_its_mean_and_rises():
    schedule = Sinusoid(mean=0.75, amplitude=0.25, period=100)
    assert [schedule(k) for k in (0, 25, 50, 75)] == pytest.approx([0.75, 1.0, 0.75, 0.5], abs=ROUNDING)


@given(st.lists(st.tuples(levels, levels), min_size=1, max_size=4), lengths, steps)
def test_a_target_per_run_is_each_runs_own_target(pairs, length, step):
    starts, ends = (torch.tensor(values, dtype=torch.float64) for values in zip(*pairs, strict=True))
    for ramp in (Linear, Cosine):
        together = ramp(start=starts, end=ends, steps=length)(step)
        alone = [ramp(start=a, end=b, steps=length)(step) for a, b in pairs]
        assert together.tolist() == pytest.approx(alone, abs=ROUNDING)


@pytest.mark.parametrize("steps", [0, -1])
def test_a_ramp_needs_at_least_one_step(steps):
    for ramp in (Linear, Cosine):
        with pytest.raises(ValueError, match=f"steps must be > 0, got {steps}"):
            ramp(start=1.0, end=0.0, steps=steps)
    with pytest.raises(ValueError, match=f"period must be > 0, got {steps}"):
        Sinusoid(mean=1.0, amplitude=0.5, period=steps)


def test_schedules_are_known_by_their_own_names():
    assert {name: schedule.__name__.lower() for name, schedule in SCHEDULES.items()} == {
        name: name for name in SCHEDULES
    }


def test_a_csv_target_runs_straight_between_its_points_and_is_constant_beyond(tmp_path):
    path = tmp_path / "target.csv"
    path.write_text("step,target\n10,1.0\n20,0.5\n40,0.75\n")
    target = Csv(path=str(path))
    assert [target(step) for step in (0, 10, 15, 20, 30, 40, 99)] == [1.0, 1.0, 0.75, 0.5, 0.625, 0.75, 0.75]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "columns step and target"),
        ("step,goal\n1,2\n", "columns step and target"),
        ("step,target\n1,high\n", "line 2: step and target must be numbers, got '1', 'high'"),
        ("step,target\n1,1\n1,2\n", "steps must increase"),
    ],
)
def test_a_csv_target_that_cannot_be_used_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "target.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Csv(path=str(path))
    with pytest.raises(ValueError, match="cannot be read"):
        Csv(path=str(tmp_path / "absent.csv"))


# -- from one value to another, by the change's name --


@pytest.mark.parametrize("change", CHANGES)
@given(start=st.floats(-3.0, 3.0), end=st.floats(-3.0, 3.0), length=lengths, step=steps)
def test_a_change_by_name_is_the_schedule_of_that_name(change, start, end, length, step):
    schedule = changing(change, start=start, end=end, steps=length)
    assert isinstance(schedule, SCHEDULES[change])
    assert schedule(0) == pytest.approx(start, abs=ROUNDING)
    arrived = start if change == "constant" else end
    assert schedule(length + step) == pytest.approx(arrived, abs=ROUNDING)


@pytest.mark.parametrize(
    "change, length, message",
    [
        ("sinusoid", 10, "schedule must be one of constant, linear, cosine, step, got 'sinusoid'"),
        ("linear", 0, "steps"),
    ],
)
def test_a_change_that_there_is_not_is_refused(change, length, message):
    with pytest.raises(ValueError, match=message):
        changing(change, start=1.0, end=0.0, steps=length)
