"""Laws of every controller, and what tells each of them apart: limits, memory, anti-windup, dead bands."""

import dataclasses
import io
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import double

from aepo.controller import (
    AdaptiveGain,
    Band,
    BangBang,
    Control,
    Controller,
    Doubling,
    Dual,
    FixedTemperature,
    Gate,
    Held,
    Hysteresis,
    Loop,
    Proportional,
    ProportionalIntegral,
    SignAndSize,
    Staircase,
    TemperatureScheduler,
    WideningReach,
    temperature_law,
)

NAN = float("nan")
# A few units in the last place: exp(log(limit)) is not always the limit.
ROUNDING = 1e-14

BUILDERS = {
    "adaptive_gain": AdaptiveGain,
    "bang_bang": BangBang,
    "band": lambda: Band(width=0.1),
    "doubling": lambda: Doubling(start=0.02, lowest=0.01, limit=0.3),
    "dual": lambda: Dual(rate=0.7, low=0.01, high=2.0, start=0.1),
    "fixed": FixedTemperature,
    "gate": lambda: Gate(start=0.1, step=0.15, high=0.5),
    "still_gate": lambda: Gate(start=0.1, high=0.5),
    "hysteresis": lambda: Hysteresis(low=-0.4, high=0.3, width=0.1),
    "pi": lambda: ProportionalIntegral(gain=2.0, rate=0.3, low=-0.5, high=1.0, within=0.4),
    "plain_pi": lambda: ProportionalIntegral(gain=0.0, rate=0.3, low=-0.5, high=1.0),
    "proportional": lambda: Proportional(gain=2.0, low=-0.5, high=1.0, bias=0.1),
    "sign_and_size": lambda: SignAndSize(limit=0.1),
    "scheduler": lambda: TemperatureScheduler(vocabulary=16, t_low=0.5, t_high=2.0),
    "staircase": lambda: Staircase(step=0.05, low=0.0, high=0.12),
    "temperature_law": lambda: temperature_law(gain=8.0, rate=0.2, t_low=0.5, t_high=2.0, within=0.1),
    "widening_reach": lambda: WideningReach(strength=4.0, grow=1.5),
}
LIMITS = {
    "adaptive_gain": (-1.0, 1.0),
    "bang_bang": (math.log(0.8), math.log(1.2)),
    "band": (-1.0, 1.0),
    "doubling": (-0.3, 0.3),
    "dual": (0.01, 2.0),
    "fixed": (0.0, 0.0),
    "gate": (0.0, 0.5),
    "still_gate": (0.0, 0.1),
    "hysteresis": (-0.4, 0.3),
    "pi": (-0.5, 1.0),
    "plain_pi": (-0.5, 1.0),
    "proportional": (-0.5, 1.0),
    "sign_and_size": (-0.1, 0.1),
    "scheduler": (math.log(0.5), math.log(2.0)),
    "staircase": (0.0, 0.12),
    "temperature_law": (math.log(0.5), math.log(2.0)),
    "widening_reach": (-4.0, 4.0),
}
# Of each controller: together they are hundreds of examples a law.
SOME = settings(max_examples=30)
every_controller = pytest.mark.parametrize("name", sorted(BUILDERS))
entropies = st.one_of(st.just(NAN), st.sampled_from([0.0, 0.45, 0.5, 0.55, 1.0]), st.floats(0, 3))
series = st.lists(entropies, min_size=1, max_size=12)


def driven(controller: Controller, measured, target=0.5, *, like=None, state=None) -> tuple[dict, list[Control]]:
    """The last state and every control of a run that measured these entropies."""
    like = double(0.0) if like is None else like
    state, controls = controller.initial(like) if state is None else state, []
    for h in measured:
        h = torch.as_tensor(h, dtype=like.dtype).expand_as(like)
        state, control = controller.update(state, h, torch.as_tensor(target, dtype=like.dtype))
        controls.append(control)
    return dict(state), controls


def strengths(controls: list[Control]) -> list[float]:
    return [control.strength.item() for control in controls]


# -- every controller --


@every_controller
@SOME
@given(measured=series, target=st.floats(0, 2))
def test_the_output_stays_within_the_limits_whatever_is_measured(name, measured, target):
    low, high = LIMITS[name]
    for control in driven(BUILDERS[name](), measured, target)[1]:
        assert low - ROUNDING <= control.strength.item() <= high + ROUNDING
        if name == "adaptive_gain":  # two temperatures; the push is the strength of the term sampled at them
            assert control.temperature.item() == (2.0 if control.push.item() > 0 else 0.5)
        elif name == "widening_reach":
            reached = math.log(control.temperature.item()) / math.log(1.5 if control.push.item() > 0 else 0.67)
            assert 1.0 - ROUNDING <= reached <= 2.5
        elif name == "sign_and_size":
            assert control.temperature.item() == (1.2 if control.raise_entropy.item() else 0.8)
        else:
            assert control.temperature.item() == pytest.approx(math.exp(control.strength.item()), rel=ROUNDING)


@every_controller
@SOME
@given(measured=series)
def test_an_unknown_entropy_counts_as_below_the_target_and_never_stays_in_the_state(name, measured):
    controller = BUILDERS[name]()
    state, controls = driven(controller, [*measured, NAN])
    assert controls[-1].raise_entropy.item()
    assert all(value.isfinite().all() for value in state.values())
    # It pushes at least as hard as the lowest entropy would, from the same state; a coefficient that climbs by the
    # error's size stands still.
    before, _ = driven(controller, measured)
    _, (lowest,) = driven(controller, [0.0], state=before)
    unknown = controls[-1].strength.item()
    assert unknown >= lowest.strength.item() - ROUNDING or name in ("dual", "scheduler")
    if name == "dual":
        assert unknown == pytest.approx(before["log_coef"].exp().item())
    if name == "scheduler":
        assert unknown == pytest.approx(before["temperature"].log().item())


@every_controller
@SOME
@given(measured=series)
def test_the_same_state_and_entropy_give_the_same_decision_and_leave_the_state_untouched(name, measured):
    controller = BUILDERS[name]()
    state, _ = driven(controller, measured)
    kept = {key: value.clone() for key, value in state.items()}
    results = [controller.update(state, double(0.4), double(0.5)) for _ in range(2)]
    for first, second in (results, (results[0], BUILDERS[name]().update(state, double(0.4), double(0.5)))):
        assert torch.equal(first[1].strength, second[1].strength)
        assert all(torch.equal(first[0][key], second[0][key]) for key in first[0])
    assert all(torch.equal(state[key], kept[key]) for key in kept), "the old state is still what it was"


@every_controller
@SOME
@given(measured=st.lists(entropies, min_size=4, max_size=8), sees=st.sampled_from(["current", "previous"]))
def test_a_saved_and_loaded_loop_goes_on_as_if_nothing_happened(name, measured, sees):
    controller = BUILDERS[name]()

    def turn(loop: Loop, part) -> tuple[Loop, list[float]]:
        taken = []
        for h in part:
            loop, control = loop.decide(controller, entropy=double([h]), target=0.5, sees=sees)
            taken.append(control.strength.item())
        return loop, taken

    start = Loop.start(controller, double([0.0]))
    _, whole = turn(start, measured)
    middle, first = turn(start, measured[:2])
    file = io.BytesIO()
    torch.save(vars(middle) | {"state": dict(middle.state)}, file)
    file.seek(0)
    _, second = turn(Loop(**torch.load(file, weights_only=True)), measured[2:])
    assert first + second == whole


@every_controller
@SOME
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_runs_side_by_side_are_controlled_as_if_each_were_alone(name, data, dtype):
    steps, runs = data.draw(st.integers(1, 6)), data.draw(st.sampled_from([(3,), (2, 2)]))
    measured = torch.as_tensor(data.draw(hnp.arrays(np.float64, (steps, *runs), elements=entropies))).to(dtype)
    target = torch.as_tensor(data.draw(hnp.arrays(np.float64, runs, elements=st.floats(0, 2)))).to(dtype)
    controller = BUILDERS[name]()
    together = driven(controller, measured, target, like=torch.zeros(runs, dtype=dtype))[1]
    for run in np.ndindex(*runs):
        alone = driven(controller, [h[run] for h in measured], target[run], like=torch.zeros((), dtype=dtype))[1]
        for both, one in zip(together, alone, strict=True):
            assert both.strength.dtype == both.temperature.dtype == dtype
            assert torch.equal(both.strength[run], one.strength)
            assert both.raise_entropy[run] == one.raise_entropy


@every_controller
def test_float32_decides_as_float64_does(name):
    # No entropy at a switching point; float32 rounds at 1e-7 a step.
    measured = [0.1, 0.3, 0.47, 0.8, 1.7, 0.62, 0.2]
    single, wide = (
        driven(BUILDERS[name](), measured, like=torch.zeros((), dtype=dtype))[1]
        for dtype in (torch.float32, torch.float64)
    )
    assert strengths(single) == pytest.approx(strengths(wide), abs=1e-5)


# What is decided lies between the listed controls, and where there are only a few it is one of them.
FEW = {"bang_bang", "band", "fixed", "hysteresis", "still_gate"}


@every_controller
@SOME
@given(measured=series, target=st.floats(0, 2), count=st.integers(2, 7))
def test_the_listed_controls_span_whatever_is_decided(name, measured, target, count):
    controller = BUILDERS[name]()
    listed = controller.controls(count)
    assert listed.temperature.dtype == torch.float64 and listed.raise_entropy.dtype == torch.bool
    assert (listed.push is None) == (name in ("bang_bang", "fixed", "scheduler"))
    ends = (listed.strength.min().item(), listed.strength.max().item())
    assert ends == pytest.approx(LIMITS[name], abs=ROUNDING)
    for control in driven(controller, measured, target)[1]:
        same = listed.raise_entropy == control.raise_entropy
        for got, of in ((control.strength, listed.strength[same]), (control.temperature, listed.temperature[same])):
            assert of.min() - ROUNDING <= got <= of.max() * (1 + ROUNDING) + ROUNDING
            assert name not in FEW or (of - got).abs().min() <= ROUNDING


@every_controller
def test_a_range_has_both_ends_and_as_many_controls_as_were_asked_for(name):
    of = {}
    for count in (2, 5, 9):
        listed = BUILDERS[name]().controls(count)
        pairs = zip(listed.strength.tolist(), listed.temperature.tolist(), strict=True)
        of[count] = sorted({(round(s, 12), round(t, 12)) for s, t in pairs})
    assert all((of[count][0], of[count][-1]) == (of[9][0], of[9][-1]) for count in of)
    if name in FEW:
        assert of[2] == of[5] == of[9]
    else:
        for count in of:
            # Two of them have a range of sizes for either sign.
            want = 2 * count if name in ("doubling", "sign_and_size") else count
            if name == "widening_reach":  # the same sizes down and up, two at least, and nothing
                want = 1 + 2 * max(2, count // 2)
            assert len(of[count]) == want, (name, count)
        with pytest.raises(ValueError, match="count must be at least 2, got 1"):
            BUILDERS[name]().controls(1)


def test_the_listed_temperatures_of_the_adaptive_gain_are_those_of_its_pushes():
    listed = AdaptiveGain().controls(5)
    assert listed.push.tolist() == [-1, -0.5, 0, 0.5, 1] * 2
    assert listed.temperature.tolist() == [0.5, 0.5, 0.5, 2, 2] * 2
    assert listed.raise_entropy.tolist() == [False] * 5 + [True] * 5


@given(series, st.floats(0, 2))
def test_a_held_control_is_what_it_is_whatever_is_measured(measured, target):
    control = Control(temperature=double([0.5, 2.0]), raise_entropy=torch.tensor([False, True]), push=double([-1, 1]))
    held = Held(control=control)
    state, controls = driven(held, measured, target, like=double([0.0, 0.0]))
    assert all(one is control for one in controls) and held.controls(3) is control
    assert state["temperature"].tolist() == [0.5, 2.0]


@given(entropies, st.floats(0, 2), st.integers(0, 9), st.sampled_from(["current", "previous"]))
def test_the_control_carries_the_error_that_was_seen_and_the_step(h, target, step, sees):
    loop = Loop.start(BangBang(), double(0.0))
    loop, _ = loop.decide(BangBang(), entropy=double(0.25), target=target, sees=sees)
    _, control = loop.decide(BangBang(), entropy=double(h), target=target, sees=sees, step=step)
    want = target - (h if sees == "current" else 0.25)
    assert control.step == step
    assert control.error.item() == want or (math.isnan(want) and control.error.isnan())


def test_the_error_is_positive_below_the_target_by_hand():
    _, control = Loop.start(BangBang(), double(0.0)).decide(
        BangBang(), entropy=double(0.25), target=1.0, sees="current", step=7
    )
    assert (control.error.item(), control.step) == (0.75, 7)


# -- each controller --


def test_hysteresis_switches_only_outside_its_band_by_hand():
    # Target 0.5, band 0.4 to 0.6: it starts by raising and goes on at 0.55; 0.65 turns it, 0.45 does not, 0.35 does.
    measured = [0.45, 0.55, 0.65, 0.55, 0.45, 0.35, 0.55]
    _, controls = driven(BUILDERS["hysteresis"](), measured)
    assert [c.raise_entropy.item() for c in controls] == [True, True, False, False, False, True, True]
    assert strengths(controls) == [0.3, 0.3, -0.4, -0.4, -0.4, 0.3, 0.3]


@given(series, st.floats(0, 2), st.floats(0, 0.5))
def test_hysteresis_changes_its_mind_only_outside_the_band(measured, target, width):
    _, controls = driven(Hysteresis(low=-1.0, high=1.0, width=width), measured, target)
    sides = [True] + [control.raise_entropy.item() for control in controls]
    for h, before, after in zip(measured, sides[:-1], sides[1:], strict=True):
        outside = math.isnan(h) or abs(target - h) > width
        assert after == before if not outside else after == (not h >= target)


@given(series, st.floats(0, 2))
def test_hysteresis_without_a_band_is_bang_bang(measured, target):
    _, controls = driven(Hysteresis(low=math.log(0.8), high=math.log(1.2), width=0.0), measured, target)
    _, plain = driven(BangBang(), measured, target)
    for h, one, other in zip(measured, controls, plain, strict=True):
        # Exactly on the target bang-bang goes down, and a band of width 0 has nothing to say.
        assert h == target or one.raise_entropy.item() == other.raise_entropy.item()


@given(st.floats(0, 3), st.floats(0, 2), st.floats(0.1, 9), st.floats(-1, 1))
def test_the_proportional_law_is_its_formula(h, target, gain, bias):
    controller = Proportional(gain=gain, low=-0.5, high=1.0, bias=bias)
    want = min(max(bias + gain * (target - h), -0.5), 1.0)
    assert strengths(driven(controller, [h], target)[1]) == [pytest.approx(want, abs=ROUNDING)]


def test_the_integral_removes_the_error_that_a_constant_load_leaves():
    # The entropy settles at push - 0.3: proportional control alone stops short of the target by 0.3 / (1 + gain).
    def settled(controller) -> float:
        h, state = double(0.0), controller.initial(double(0.0))
        for _ in range(400):
            state, control = controller.update(state, h, double(0.2))
            h = h + 0.2 * (control.push - 0.3 - h)
        return h.item()

    offset = 0.2 - (2 * 0.2 - 0.3) / (1 + 2)
    assert settled(Proportional(gain=2.0, low=-9.0, high=9.0)) == pytest.approx(0.2 - offset, abs=1e-9)
    assert settled(ProportionalIntegral(gain=2.0, rate=0.1, low=-9.0, high=9.0)) == pytest.approx(0.2, abs=1e-6)


def test_proportional_integral_control_by_hand():
    # gain 2, rate 0.5: errors 0.1, 0.1, -0.05: I = 0.05, 0.1, 0.075; outputs 0.25, 0.3, -0.1 + 0.075.
    controller = ProportionalIntegral(gain=2.0, rate=0.5, low=-1.0, high=1.0)
    state, controls = driven(controller, [0.4, 0.4, 0.55])
    assert strengths(controls) == pytest.approx([0.25, 0.3, -0.025])
    assert state["integral"].item() == pytest.approx(0.075)


@SOME
@given(st.integers(1, 300), st.floats(0.3, 2.0), st.booleans())
def test_after_a_long_saturation_the_output_leaves_the_limit_when_the_error_changes_sign(steps, error, up):
    controller = ProportionalIntegral(gain=1.0, rate=0.2, low=-0.5, high=0.5)
    sign = 1 if up else -1
    state, controls = driven(controller, [0.0] * steps, sign * error)
    saturated = controls[-1].push.item()
    assume(abs(saturated) == 0.5)
    # A summed error of hundreds of nats would need as many steps to unwind; here the limit is left in two.
    _, after = driven(controller, [0.0] * 2, -sign * 0.1, state=state)
    assert sign * after[-1].push.item() < 0.5 - 0.1
    assert abs(state["integral"].item()) <= 0.5


def test_windup_by_hand():
    # Error 1 for a hundred steps: the output is at its limit 0.5 by the proportional part alone and I stays 0, where
    # a plain sum would have reached 20. Then error -0.1: I = -0.02, the output -0.1 - 0.02.
    controller = ProportionalIntegral(gain=1.0, rate=0.2, low=-0.5, high=0.5)
    state, controls = driven(controller, [0.0] * 100, 1.0)
    assert (controls[-1].push.item(), state["integral"].item()) == (0.5, 0.0)
    state, controls = driven(controller, [0.1], 0.0, state=state)
    assert controls[-1].push.item() == pytest.approx(-0.12)


@given(series, st.floats(0, 2), st.floats(0.05, 1))
def test_the_integral_moves_only_while_the_error_is_within_its_range(measured, target, within):
    controller = ProportionalIntegral(gain=0.5, rate=0.3, low=-2.0, high=2.0, within=within)
    state = controller.initial(double(0.0))
    for h in measured:
        before = state["integral"].item()
        state, _ = controller.update(state, double(h), double(target))
        error, moved = target - h, state["integral"].item() - before
        if math.isnan(h) or abs(error) >= within:
            assert moved == 0
        else:
            # By rate x error, or not at all where the output is at the limit that the error pushes into.
            held = abs(0.5 * error + before) >= 2.0 and error * before > 0
            want = 0.0 if held else min(max(before + 0.3 * error, -2.0), 2.0) - before
            assert moved == pytest.approx(want, abs=ROUNDING)


@given(
    series,
    st.floats(0, 2),
    st.sampled_from([0.0, 0.05, 1.0]),
    st.sampled_from([0.05, 0.1, float("inf")]),
    st.sampled_from([1.0, 0.25, 0.1]),
    st.sampled_from([0.0, 0.2]),
)
def test_the_adaptive_gain_grows_until_the_error_turns(measured, target, rate, within, memory, band):
    controller = AdaptiveGain(up=1.03, down=0.8, rate=rate, within=within, memory=memory, band=band)
    gain, integral, mean, last = 4.0, 0.0, 0.0, 0.0
    for h, control in zip(measured, driven(controller, measured, target)[1], strict=True):
        error = target - h
        if math.isnan(error):
            mean, last = mean * (1 - memory), 0.0
            assert control.push.item() == 1.0
            continue
        before = gain * error + integral
        at_limit = (before >= 1 and error > 0) or (before <= -1 and error < 0)
        if abs(error) >= band:
            turned = error * mean < 0 or (error * last < 0 and at_limit)
            gain = min(max(gain * (0.8 if turned else 1.03), 0.5), 100.0)
        held = (gain * error + integral >= 1 and error > 0) or (gain * error + integral <= -1 and error < 0)
        if abs(error) < within and not held:
            integral = min(max(integral + rate * gain * error, -1.0), 1.0)
        mean, last = mean + memory * (error - mean), error
        assert control.push.item() == pytest.approx(min(max(gain * error + integral, -1.0), 1.0), abs=1e-12)


def test_the_adaptive_gain_by_hand():
    # Errors 0.02, 0.02, -0.01 from a gain of 4: 4.12, 4.2436, then the turn: 3.39488. I = 0.05 x (0.0824 + 0.084872
    # - 0.0339488).
    state, controls = driven(AdaptiveGain(up=1.03, down=0.8), [0.48, 0.48, 0.51])
    integrals = [0.00412, 0.0083636, 0.00666616]
    assert strengths(controls) == pytest.approx([0.0824 + 0.00412, 0.084872 + 0.0083636, -0.0339488 + 0.00666616])
    assert state["integral"].item() == pytest.approx(integrals[-1])
    assert state["gain"].item() == pytest.approx(3.39488, abs=1e-12)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=12), st.floats(0, 2), st.floats(0.01, 3))
def test_the_duals_log_coefficient_adds_up_the_errors_within_its_limits(measured, target, rate):
    controller = Dual(rate=rate, low=0.01, high=2.0, start=0.1)
    log_coef = math.log(0.1)
    for h, control in zip(measured, driven(controller, measured, target)[1], strict=True):
        log_coef = min(max(log_coef + rate * (target - h), math.log(0.01)), math.log(2.0))
        assert control.push.item() == pytest.approx(math.exp(log_coef), rel=1e-12)


@given(series, st.floats(0, 2))
def test_the_staircase_moves_by_its_step_and_acts_only_below_the_target(measured, target):
    controller = Staircase(step=0.05, low=0.0, high=0.12)
    coef = 0.0
    for h, control in zip(measured, driven(controller, measured, target)[1], strict=True):
        below = not h >= target
        coef = min(max(coef + (0.05 if below else -0.05), 0.0), 0.12)
        assert control.push.item() == pytest.approx(coef if below else 0.0, abs=ROUNDING)


@given(series, st.floats(0, 2), st.sampled_from([0.0, 0.15]))
def test_the_gate_is_open_below_the_target_and_its_strength_climbs_there(measured, target, step):
    strength = 0.1
    controller = Gate(start=0.1, step=step, high=0.5)
    for h, control in zip(measured, driven(controller, measured, target)[1], strict=True):
        towards = -1 if h > target else 0 if h == target else 1
        strength = min(max(strength + step * towards, 0.0), 0.5)
        assert control.push.item() == pytest.approx(strength if towards > 0 else 0.0, abs=ROUNDING)


@given(series, st.floats(0, 2), st.sampled_from([0.02, 0.0, -0.3]))
def test_the_doubling_push_is_never_small_and_turns_only_from_its_least_size(measured, target, start):
    controller = Doubling(start=start, lowest=0.01, limit=0.3)
    before = start
    for h, control in zip(measured, driven(controller, measured, target)[1], strict=True):
        push, wanted = control.push.item(), 0 if h == target else -1 if h > target else 1
        if wanted == 0:
            assert push == before
        elif wanted * before > 0:
            assert push == wanted * min(2 * abs(before), 0.3)
        elif abs(before) / 2 >= 0.01:
            assert push == before / 2
        else:
            assert push == wanted * 0.01
        before = push


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=12), st.floats(0.01, 2), st.sampled_from([2, 16, 151936]))
def test_the_temperature_scheduler_is_its_formula_within_its_limits(measured, target, vocabulary):
    controller = TemperatureScheduler(vocabulary=vocabulary, t_low=0.5, t_high=2.0)
    t = 1.0
    for h, control in zip(measured, driven(controller, measured, target)[1], strict=True):
        t = t * (1 + t * math.log(target / h) / (math.log(vocabulary) + math.log(math.log(vocabulary))))
        t = min(max(t, 0.5), 2.0)
        assert control.temperature.item() == pytest.approx(t, rel=1e-12)


@given(entropies, st.floats(0, 2), st.floats(0, 1))
def test_the_band_has_three_modes(h, target, width):
    (push,) = strengths(driven(Band(width=width), [h], target)[1])
    error = target - h
    assert push == (1.0 if math.isnan(h) or error > width else -1.0 if error < -width else 0.0)


@given(st.floats(0.3, 0.9), st.floats(1.1, 3.0), st.floats(0, 3), st.floats(0, 2))
def test_the_temperature_law_is_proportional_in_the_logarithm_within_its_limits(t_low, t_high, h, target):
    controller = temperature_law(gain=2.0, rate=0.0, t_low=t_low, t_high=t_high)
    (control,) = driven(controller, [h], target)[1]
    want = min(max(math.exp(2.0 * (target - h)), t_low), t_high)
    assert control.temperature.item() == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(
    ("period", "memory", "grows"),
    [(6.3, 1.0, True), (6.3, 0.25, False), (12.7, 0.25, True), (12.7, 0.1, False), (2.1, 1.0, False)],
)
def test_a_longer_memory_takes_slower_swings_for_overshoot(period, memory, grows):
    # Those of frequency w = 2 pi / period shrink the gain where cos w < 1 - memory.
    assert (math.cos(2 * math.pi / period) >= 1 - memory) == grows
    errors = [0.1 * math.cos(2 * math.pi * (k + 0.25) / period) for k in range(500)]
    state, _ = driven(AdaptiveGain(memory=memory, start=7.0), [1.0 - e for e in errors], 1.0)
    assert (state["gain"].item() > 7.0) == grows


def late(controller, *, momentum, per_push, noise, steps=400):
    """|H - H*| over the last half of runs whose pushes act through a mean of the last ones, as under momentum."""
    generator = torch.Generator().manual_seed(5)
    entropy, speed = torch.full((8,), 1.5, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    state, errors = controller.initial(entropy), []
    for _ in range(steps):
        state, control = controller.update(state, entropy, double(0.75))
        errors.append((entropy - 0.75).abs())
        luck = noise * torch.randn(8, generator=generator, dtype=torch.float64)
        speed = momentum * speed + (1 - momentum) * (per_push * control.push + luck)
        entropy = entropy + speed
    return torch.stack(errors)[steps // 2 :].mean().item()


def test_a_memory_costs_little_where_pushes_act_at_once():
    now = {m: late(WideningReach(memory=m), momentum=0.0, per_push=0.03, noise=0.01) for m in (1.0, 0.1)}
    assert now[0.1] < 1.2 * now[1.0]


@pytest.mark.parametrize("cycle", [[-1.0, 0.1], [-1.0, -0.05, 0.1]])
def test_a_cycle_with_a_large_error_on_one_side_shrinks_the_gain(cycle):
    # The mean of the errors has the large one's sign throughout, so by it alone the gain would fall and rise in turn.
    state, controls = driven(AdaptiveGain(memory=0.1, start=100.0), [1.0 - e for e in cycle * 60], 1.0)
    assert {control.push.item() for control in controls[3 : 3 + len(cycle)]} == {-1.0, 1.0}
    assert state["gain"].item() < 50.0


def test_a_dead_band_keeps_errors_that_matter_to_nobody_from_growing_the_gain():
    quiet = [1.0 - 0.001] * 500
    without, _ = driven(AdaptiveGain(), quiet, 1.0)
    within, _ = driven(AdaptiveGain(band=0.01), quiet, 1.0)
    assert without["gain"].item() == 100.0
    assert within["gain"].item() == AdaptiveGain().start
    # The mean of recent errors goes on, so a disturbance is compared with what came before it.
    assert within["error"].item() == pytest.approx(0.001)


def test_the_reach_grows_only_where_the_limit_of_the_push_is_the_obstacle():
    law = WideningReach(start=100.0, grow=1.5, speed=9.0)
    # Far below the target and standing still: 1, 1.5, 2.25, ... to the largest demand.
    state, controls = driven(law, [0.5] * 6, 1.0)
    assert state["reach"].item() == pytest.approx(1.5**6)
    expected = [1.0, 1.5, 1.5**2, 1.5**3, 1.5**4 / widened(1.5**4, law), 1.5**5 / widened(1.5**5, law)]
    assert strengths(controls) == pytest.approx(expected)
    # Nearer by more than the mean of recent errors remembers: what it has is enough.
    state, _ = driven(law, [0.5] * 30, 1.0)
    near, controls = continued(law, state, [0.6, 0.65, 0.7], 1.0)
    assert near["reach"].item() <= state["reach"].item()
    # On the target again it shrinks by as much a step.
    state, _ = driven(law, [0.5] * 6, 1.0)
    on, _ = continued(law, state, [1.0] * 3, 1.0)
    assert on["reach"].item() == pytest.approx(1.5**3)


def continued(law, state, measured, target):
    """The state and the controls after further entropies."""
    controls = []
    for h in measured:
        state, control = law.update(state, double(h), double(target))
        controls.append(control)
    return state, controls


@given(st.floats(0.1, 2.5), st.floats(0.1, 2.5), st.sampled_from([0.01, 0.05]))
def test_what_is_followed_leaves_the_first_entropy_at_its_speed_and_then_stays_on_the_target(start, target, speed):
    law = WideningReach(speed=speed)
    state, begun = law.initial(torch.zeros((), dtype=torch.float64)), start
    for step in range(1, 60):
        state, control = law.update(state, double(begun), double(target))
        moved = min(step * speed, abs(target - start))
        want = start + math.copysign(moved, target - start)
        assert state["reference"].item() == pytest.approx(want, abs=1e-12)
        # It is ahead of the policy, which follows it, until it is there.
        assert control.push.item() * (target - start) >= 0
        begun = want


def test_a_reference_waits_for_the_first_known_entropy():
    law = WideningReach(speed=0.1)
    state, _ = driven(law, [NAN, NAN, 2.0], 1.0)
    assert state["reference"].item() == pytest.approx(1.9)


def widened(demand, law):
    """By how much the rule widens ln T at a demand: no more than to the widest range."""
    return min(max(demand / law.covered, 1.0), math.log(law.t_highest) / math.log(law.t_high))


@given(st.floats(0.5, 40.0), st.booleans())
def test_a_demand_is_met_by_prompts_then_by_the_range_then_by_strength_alone(demand, up):
    law = WideningReach()
    state = law.initial(torch.zeros((), dtype=torch.float64)) | {
        "integral": double(demand if up else -demand),
        "reach": double(law.largest),
        "begun": double(1.0),
        "reference": double(1.0),
    }
    _, control = law.update(state, double(1.0), double(1.0))
    demand = min(demand, law.largest)
    low, high = math.log(law.t_low), math.log(law.t_high)
    widest = math.log(law.t_highest) / high if up else math.log(law.t_lowest) / low
    wider = min(max(demand / 4.0, 1.0), widest)
    assert control.prompt_fraction.item() == pytest.approx(min(max(0.25 * demand, 0.25), 1.0))
    assert control.temperature.log().item() == pytest.approx((high if up else low) * wider)
    assert abs(control.strength.item()) == pytest.approx(min(demand / wider, law.strength))


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: WideningReach(grow=1.0), r"grow must be > 1, got 1\.0"),
        (lambda: WideningReach(speed=0.0), r"speed must be > 0, got 0\.0"),
        (lambda: WideningReach(strength=0.5), r"strength must be >= 1, got 0\.5"),
        (lambda: WideningReach(t_highest=1.5), r"t_high <= t_highest must hold, got 0\.4, 0\.5, 2\.0, 1\.5"),
        (lambda: WideningReach(prompt_fraction=0.0), r"widest_fraction <= 1 must hold, got 0\.0, 1\.0"),
        (lambda: WideningReach(memory=0.0), r"memory must be in \(0, 1\], got 0\.0"),
        (lambda: AdaptiveGain(memory=1.5), r"memory must be in \(0, 1\], got 1\.5"),
        (lambda: AdaptiveGain(band=-0.01), r"band must be >= 0, got -0\.01"),
        (lambda: Hysteresis(low=1.0, high=1.0), r"low must be below high, got low=1\.0, high=1\.0"),
        (lambda: Hysteresis(low=0.0, high=1.0, width=-0.1), r"width must be >= 0, got -0\.1"),
        (lambda: Proportional(gain=0.0, low=0.0, high=1.0), r"gain must be > 0, got 0\.0"),
        (lambda: Proportional(gain=1.0, low=2.0, high=1.0), r"low must be below high, got low=2\.0, high=1\.0"),
        (
            lambda: ProportionalIntegral(gain=0.0, rate=0.0, low=0.0, high=1.0),
            r"not both 0, got gain=0\.0, rate=0\.0",
        ),
        (lambda: ProportionalIntegral(gain=-1.0, rate=1.0, low=0.0, high=1.0), r"got gain=-1\.0, rate=1\.0"),
        (
            lambda: ProportionalIntegral(gain=1.0, rate=1.0, low=0.0, high=1.0, within=0.0),
            r"within must be > 0, got 0\.0",
        ),
        (lambda: temperature_law(gain=1.0, rate=0.0, t_low=0.0, t_high=1.0), r"t_low must be > 0 .* got t_low=0\.0"),
        (lambda: temperature_law(gain=1.0, rate=0.0, t_low=2.0, t_high=1.0), r"got t_low=2\.0, t_high=1\.0"),
        (lambda: Dual(rate=1.0, low=0.0, high=1.0, start=0.5), r"low must be > 0, got 0\.0"),
        (lambda: Dual(rate=0.0, low=0.1, high=1.0, start=0.5), r"rate must be > 0, got 0\.0"),
        (lambda: Dual(rate=1.0, low=0.1, high=1.0, start=2.0), r"start must be in \[low=0\.1, high=1\.0\], got 2\.0"),
        (lambda: Staircase(step=0.0, low=0.0, high=1.0), r"step must be > 0, got 0\.0"),
        (lambda: Staircase(step=0.1, low=1.0, high=1.0), r"low must be below high"),
        (lambda: Doubling(start=0.0, lowest=0.0, limit=1.0), r"lowest must be in \(0, limit=1\.0\], got 0\.0"),
        (lambda: Doubling(start=0.0, lowest=2.0, limit=1.0), r"lowest must be in \(0, limit=1\.0\], got 2\.0"),
        (
            lambda: Doubling(start=-2.0, lowest=0.1, limit=1.0),
            r"start must be in \[-limit, limit\], limit=1\.0, got -2",
        ),
        (lambda: TemperatureScheduler(vocabulary=1, t_low=0.5, t_high=2.0), "vocabulary must be at least 2, got 1"),
        (lambda: TemperatureScheduler(vocabulary=9, t_low=1.5, t_high=2.0), "t_low <= 1 <= t_high must hold.*1.5"),
        (lambda: Gate(start=0.6, high=0.5), r"strength must be in \(0, high=0\.5\], got 0\.6"),
        (lambda: Gate(start=0.0, high=0.5), r"strength must be in \(0, high=0\.5\], got 0\.0"),
        (lambda: Gate(start=0.1, step=-0.1, high=0.5), r"step must be >= 0, got -0\.1"),
        (lambda: AdaptiveGain(up=0.9, down=0.8), r"up >= 1 > down > 0 must hold, got up=0\.9, down=0\.8"),
        (lambda: AdaptiveGain(rate=-1.0), r"rate must be >= 0, got -1\.0"),
        (lambda: AdaptiveGain(start=200.0), r"0 < lowest <= start <= highest must hold, got 0\.5, 200\.0, 100\.0"),
        (lambda: AdaptiveGain(t_low=1.0), r"0 < t_low < 1 < t_high must hold, got t_low=1\.0, t_high=2\.0"),
        (lambda: Band(width=-1.0), r"width must be >= 0, got -1\.0"),
    ],
)
def test_a_controller_that_makes_no_sense_is_refused_by_name(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_controller_is_a_frozen_value():
    for build in BUILDERS.values():
        assert dataclasses.is_dataclass(build()) and build() == build()
