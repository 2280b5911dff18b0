"""The numbers that say how well an entropy follows its target."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aepo.tracking import duty_cycle, initial_slope, last_half, tracking_error

entropies = hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=9), elements=st.floats(0, 3))
# Means of at most 9 values up to 6.
ROUNDING = 1e-13


@given(entropies)
def test_the_last_half_is_the_end_of_the_run_and_the_larger_part_of_an_odd_one(entropy):
    half = last_half(entropy)
    assert half.shape[-1] == -(-entropy.shape[-1] // 2)
    assert np.array_equal(half, entropy[..., -half.shape[-1] :])


@given(entropies, st.floats(0, 3))
def test_tracking_error_is_the_mean_distance_over_the_last_half(entropy, target):
    flat = entropy.reshape(-1, entropy.shape[-1]).tolist()
    tails = [run[len(run) // 2 :] for run in flat]
    want = [sum(abs(h - target) for h in tail) / len(tail) for tail in tails]
    assert tracking_error(entropy, target).reshape(-1) == pytest.approx(want, abs=ROUNDING)


@given(entropies, st.floats(0.0, 1.0))
def test_a_constant_offset_from_a_moving_target_is_the_error(target, offset):
    assert tracking_error(target + offset, target) == pytest.approx(np.full(target.shape[:-1], offset), abs=ROUNDING)


@given(entropies, st.floats(0, 3))
def test_the_first_half_does_not_count(entropy, target):
    changed = entropy.copy()
    changed[..., : entropy.shape[-1] // 2] += 100.0
    assert np.array_equal(tracking_error(changed, target), tracking_error(entropy, target))


@given(hnp.arrays(np.bool_, st.integers(1, 9)))
def test_the_duty_cycles_count_the_steps_up_and_down(raised):
    tail = raised.tolist()[len(raised) // 2 :]
    up, down = duty_cycle(raised)
    assert float(up) == pytest.approx(sum(tail) / len(tail), abs=ROUNDING)
    assert float(down) == pytest.approx(tail.count(False) / len(tail), abs=ROUNDING)


@given(st.floats(-1, 1), st.floats(0, 3), st.integers(2, 9), st.integers(0, 5))
def test_the_initial_slope_of_a_line_is_its_slope_whatever_follows(slope, start, steps, more):
    line = start + slope * np.arange(steps)
    run = np.concatenate([line, np.full(more, 77.0)])
    assert float(initial_slope(run, steps=steps)) == pytest.approx(slope, abs=ROUNDING)


@given(hnp.arrays(np.float64, (3, 6), elements=st.floats(0, 3)), st.integers(2, 6))
def test_the_initial_slope_is_the_least_squares_slope(entropy, steps):
    want = [np.polyfit(np.arange(steps), run[:steps], 1)[0] for run in entropy]
    # polyfit solves by a singular value decomposition of a matrix of condition below 100.
    assert initial_slope(entropy, steps=steps) == pytest.approx(want, abs=1e-11)
