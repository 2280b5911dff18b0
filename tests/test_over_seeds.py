import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy import stats

from aepo.over_seeds import band, draw, estimate


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8).filter(lambda values: np.std(values) > 1e-6),
)
def test_the_half_width_is_that_of_scipys_t_interval(values):
    found = estimate(np.array(values))
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high), abs=1e-9)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    drawn = np.random.default_rng(0).normal(3.0, 2.0, (3, 20_000))
    mean, half = band(drawn)
    # The standard error of a share of 20,000 is .0015.
    assert np.mean(np.abs(mean - 3.0) <= half) == pytest.approx(0.95, abs=0.006)


def test_one_seed_has_a_mean_and_no_interval():
    mean, half = band(np.array([[1.0, 2.0]]))
    assert mean.tolist() == [1.0, 2.0] and all(map(math.isnan, half))
    assert f"{estimate(np.array([1.5])):.1f}" == "1.5"


def test_what_is_drawn_is_the_mean_and_its_interval_in_one_colour():
    axes = Figure().subplots()
    values = np.array([[1.0, 2.0], [3.0, 6.0], [2.0, 1.0]])
    colour = draw(axes, [5.0, 6.0], values, label="GRPO", colour="tab:red")
    (line,), (area,) = axes.lines, axes.collections
    mean, half = band(values)
    assert colour == "tab:red" and line.get_label() == "GRPO"
    assert line.get_xydata().tolist() == [[5.0, mean[0]], [6.0, mean[1]]]
    corners = {tuple(corner) for corner in np.round(area.get_paths()[0].vertices, 9)}
    for x, middle, spread in zip((5.0, 6.0), mean, half, strict=True):
        assert {(x, round(middle - spread, 9)), (x, round(middle + spread, 9))} <= corners


def test_two_seeds_are_drawn_themselves_beside_their_mean():
    axes = Figure().subplots()
    draw(axes, [5.0, 6.0], np.array([[1.0, 2.0], [3.0, 6.0]]), label="GRPO")
    mean, first, second = axes.lines
    assert [line.get_ydata().tolist() for line in (mean, first, second)] == [[2.0, 4.0], [1.0, 2.0], [3.0, 6.0]]
    assert not axes.collections and len({line.get_color() for line in axes.lines}) == 1
    assert axes.get_legend_handles_labels()[1] == ["GRPO"]
