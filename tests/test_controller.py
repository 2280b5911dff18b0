"""Controllers and the loop around them: truth tables, memory, and what they refuse."""

import io

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import double, run_shapes

from aepo.controller import BangBang, Control, FixedTemperature, Loop

NAN = float("nan")
entropies = st.one_of(st.just(NAN), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 3))
targets = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 3))


def test_bang_bang_by_its_truth_table():
    table = [  # entropy, target, temperature, raise entropy
        (0.4, 0.5, 1.2, True),
        (0.6, 0.5, 0.8, False),
        (0.5, 0.5, 0.8, False),  # Eq. 1: T_high where H < H*, and only there
        (NAN, 0.5, 1.2, True),
        (0.0, 0.5, 1.2, True),
        (0.0, 0.0, 0.8, False),
    ]
    entropy, target = double([row[0] for row in table]), double([row[1] for row in table])
    state, control = BangBang().update({}, entropy, target)
    assert control.temperature.tolist() == [row[2] for row in table]
    assert control.raise_entropy.tolist() == [row[3] for row in table]
    assert state == {} == BangBang().initial(torch.zeros(2))


@given(st.data(), run_shapes, st.floats(0.1, 1.0), st.floats(1.0, 3.0))
def test_every_run_of_a_batch_is_controlled_on_its_own(data, runs, t_low, t_high):
    entropy = double(data.draw(hnp.arrays(np.float64, runs, elements=entropies)))
    target = double(data.draw(hnp.arrays(np.float64, runs, elements=targets)))
    _, control = BangBang(t_low=t_low, t_high=t_high).update({}, entropy, target)
    assert control.temperature.shape == control.raise_entropy.shape == runs
    for h, goal, t, up in zip(
        *(v.flatten().tolist() for v in (entropy, target, control.temperature, control.raise_entropy)),
        strict=True,
    ):
        below = not h >= goal
        assert (t, up) == (t_high if below else t_low, below)


@given(st.floats(0.1, 3.0), st.lists(entropies, min_size=1, max_size=4), targets)
def test_a_fixed_temperature_ignores_the_entropy_but_still_reports_its_side(temperature, entropy, target):
    _, control = FixedTemperature(temperature=temperature).update({}, double(entropy), double(target))
    assert control.temperature.tolist() == [temperature] * len(entropy)
    assert control.raise_entropy.tolist() == [not h >= target for h in entropy]


@given(st.lists(st.lists(st.floats(0, 3), min_size=2, max_size=2), min_size=1, max_size=6), targets)
def test_previous_shows_the_controller_the_entropy_one_step_late(series, target):
    series = [double(h) for h in series]
    current = previous = Loop.start(BangBang(), series[0])
    seen_now, seen_late = [], []
    for h in series:
        current, control = current.decide(BangBang(), entropy=h, target=target, sees="current")
        seen_now.append(control.raise_entropy.tolist())
        previous, control = previous.decide(BangBang(), entropy=h, target=target, sees="previous")
        seen_late.append(control.raise_entropy.tolist())
    assert seen_late[0] == [True, True], "before the first step the entropy is unknown and counts as below"
    assert seen_late[1:] == seen_now[:-1]
    assert seen_now == [(h < target).tolist() for h in series]


def test_previous_and_current_by_hand():
    # Target 0.5, entropies 0.2, 0.8, 0.2: `previous` has nothing to see at step 0, then 0.2, then 0.8.
    for sees, want in (("current", [1.2, 0.8, 1.2]), ("previous", [1.2, 1.2, 0.8])):
        loop, taken = Loop.start(BangBang(), double(0.0)), []
        for h in (0.2, 0.8, 0.2):
            loop, control = loop.decide(BangBang(), entropy=double(h), target=0.5, sees=sees)
            taken.append(control.temperature.item())
        assert taken == want


@given(st.lists(st.floats(0, 3), min_size=4, max_size=8), targets, st.sampled_from(["current", "previous"]))
def test_a_loop_that_was_saved_and_loaded_goes_on_as_if_nothing_happened(series, target, sees):
    def decisions(loop, part):
        taken = []
        for h in part:
            loop, control = loop.decide(BangBang(), entropy=double([h]), target=target, sees=sees)
            taken.append(control.temperature.item())
        return loop, taken

    start = Loop.start(BangBang(), double([0.0]))
    _, whole = decisions(start, series)
    middle, first = decisions(start, series[:2])
    file = io.BytesIO()
    names = ("previous_entropy", "initial_entropy")
    torch.save({"state": dict(middle.state)} | {name: getattr(middle, name) for name in names}, file)
    file.seek(0)
    _, second = decisions(Loop(**torch.load(file, weights_only=True)), series[2:])
    assert first + second == whole


class Counting:
    """A controller with memory: its state counts the updates, its temperature is 1 + that."""

    def initial(self, like):
        return {"updates": torch.zeros(())}

    def update(self, state, entropy, target):
        updates = state["updates"] + 1
        return {"updates": updates}, Control(temperature=updates + 1, raise_entropy=entropy < target)


def test_the_loop_hands_the_controller_its_own_state_back():
    controller = Counting()
    loop = Loop.start(controller, double(0.0))
    for expected in (2.0, 3.0, 4.0):
        loop, control = loop.decide(controller, entropy=double(1.0), target=0.5, sees="current")
        assert control.temperature.item() == expected
    assert loop.state["updates"].item() == 3


def test_a_relative_target_is_a_share_of_the_first_steps_entropy():
    loop = Loop.start(BangBang(), double([0.0, 0.0]))
    for step, (entropy, share) in enumerate((([2.0, 1.0], 0.5), ([1.2, 0.2], 0.5), ([0.9, 0.7], 0.25))):
        loop, control = loop.decide(
            BangBang(), entropy=double(entropy), target=share, sees="current", step=step, relative=True
        )
        assert control.target.tolist() == [2.0 * share, 1.0 * share] and control.step == step
        assert control.error.tolist() == pytest.approx([2.0 * share - entropy[0], 1.0 * share - entropy[1]])


def test_deciding_leaves_the_old_loop_as_it_was():
    before = Loop.start(BangBang(), double([0.0]))
    after, _ = before.decide(BangBang(), entropy=double([1.5]), target=0.5, sees="current")
    assert before.previous_entropy.isnan().all()
    assert after.previous_entropy.tolist() == [1.5]


@given(st.lists(targets, min_size=3, max_size=3), st.sampled_from([torch.float32, torch.float64]))
def test_a_target_per_run_and_one_target_for_all_mean_the_same(goals, dtype):
    entropy = torch.tensor([0.25, 0.5, 1.0], dtype=dtype)
    loop = Loop.start(BangBang(), entropy)
    _, together = loop.decide(BangBang(), entropy=entropy, target=double(goals), sees="current")
    for i, goal in enumerate(goals):
        _, alone = loop.decide(BangBang(), entropy=entropy, target=goal, sees="current")
        assert together.temperature[i] == alone.temperature[i]
    assert together.temperature.dtype == dtype


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: BangBang(t_low=0.0), r"t_low must be > 0, got 0\.0"),
        (lambda: BangBang(t_high=-1.0), r"t_high must be > 0, got -1\.0"),
        (lambda: BangBang(t_low=NAN), r"t_low must be > 0, got nan"),
        (lambda: BangBang(t_low=1.3), r"t_low must not exceed t_high, got t_low=1\.3, t_high=1\.2"),
        (lambda: FixedTemperature(temperature=0.0), r"temperature must be > 0, got 0\.0"),
        (
            lambda: Loop.start(BangBang(), double([0.0])).decide(
                BangBang(), entropy=double([0.0]), target=0.5, sees="next"
            ),
            r"sees must be 'current' or 'previous', got 'next'",
        ),
    ],
)
def test_a_refused_value_is_named_with_its_field(build, message):
    with pytest.raises(ValueError, match=message):
        build()
