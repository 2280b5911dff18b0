"""What a run says of a controller without authority: when, and what would do."""

import logging
import math
import statistics

import numpy as np
import pytest

from aepo import zoo
from aepo.llm.questions.walk import walk_task
from aepo.llm.records.recorder import Recorder
from aepo.llm.records.saturation import ONE_WAY_STEPS, ceiling_warning, saturation_warning, start_warning
from aepo.llm.settings import MethodSettings, load

MUCH = {"control/drift_main": -0.2, "control/drift_second": 0.1}


def rows(ups: list[bool], *, errors: list[float] | None = None, **more: object) -> list[dict]:
    """Metrics of steps that push so, with |H - H*| = 0.5 unless others are given."""
    return [
        {
            "step": step, "raise_entropy": up, "error": 0.5 if errors is None else errors[step],
            "temperature": 1.5 if up else 0.67, **more,
        }
        for step, up in enumerate(ups)
    ]  # fmt: skip


def written(tmp_path, steps: list[dict], *options: str, cut: int | None = None) -> None:
    """The steps through a recorder, which ends and starts again at `cut`."""
    settings = load(None, [f"out={tmp_path}", "log.plot_every=0", "train.steps=1000", *options])
    beside = {"reward": 0.25, "entropy": 0.5, "target": 1.0, "positives": 50, "time/step": 0.5}
    for part in (steps,) if cut is None else (steps[:cut], steps[cut:]):
        recorder = Recorder(settings, first_step=part[0]["step"])
        for row in part:
            recorder.write({**beside, **row})
        recorder.close()


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize("cut", [None, 7])
def test_a_run_warns_with_the_twentieth_push_one_way_also_after_a_resume(tmp_path, caplog, up, cut):
    caplog.set_level(logging.WARNING, "aepo")
    assert 2.0 ** -(ONE_WAY_STEPS - 1) < 2e-6
    written(tmp_path, rows([up] * (ONE_WAY_STEPS - 1)), cut=cut)
    assert not caplog.records
    (tmp_path / "more").mkdir()
    written(tmp_path / "more", rows([not up] + [up] * ONE_WAY_STEPS), cut=cut)
    (said,) = (record.getMessage() for record in caplog.records)
    assert f"pushed {'up' if up else 'down'} in 20 steps in a row" in said
    lever, other = ("raise method.t_high (now 1.2)", "t_low") if up else ("lower method.t_low", "t_high")
    assert lever in said and other not in said
    assert "raise method.alpha (now 1)" in said and "raise method.prompt_fraction (now 0.25)" in said


def test_a_warning_comes_once_in_fifty_steps(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "aepo")
    written(tmp_path, rows([True] * 125))
    assert len(caplog.records) == 3  # steps 19, 69 and 119


@pytest.mark.parametrize(("other", "warns"), [(2, True), (3, False)])
@pytest.mark.parametrize("up", [True, False])
def test_a_push_the_other_way_now_and_then_is_evidence_over_fifty_steps(up, other, warns):
    # Never twenty in a row, and 96 % or 94 % one way.
    pushes = [up] * 50
    for place in (15, 30, 45)[:other]:
        pushes[place] = not up
    said = saturation_warning(rows(pushes), MethodSettings(name="aepo"), left=1000)
    assert (said is not None) == warns
    if said is not None:
        assert f"pushed {'up' if up else 'down'} in 96% of the last 50 steps" in said


def test_an_entropy_on_its_way_is_left_in_peace():
    falling = [1.0 - 0.01 * step for step in range(30)]
    late, held = (
        saturation_warning(rows([True] * 30, errors=errors), MethodSettings(name="aepo"), left=80)
        for errors in (falling, [0.04] * 30)
    )
    assert late is None and held is None
    # It needs 71 steps more.
    assert saturation_warning(rows([True] * 30, errors=falling), MethodSettings(name="aepo"), left=60) is not None
    assert (
        saturation_warning(rows([True] * 30, errors=falling[::-1]), MethodSettings(name="aepo"), left=9999) is not None
    )


def test_the_warning_says_which_alpha_or_temperature_would_balance_the_pull():
    said = saturation_warning(rows([True] * 30, **MUCH), MethodSettings(name="aepo", t_high=1.5), left=100)
    # The second part is half as strong; with a fifth on top: alpha 2.4, and 1 - 1/T = 2.4 x (1 - 1/1.5) = 0.8.
    assert "moves H 0.50 times as far as the main part" in said
    assert "method.alpha=2.4 or method.t_high=5 would suffice at this entropy" in said
    weak = {"control/drift_main": -0.2, "control/drift_second": 0.05}
    said = saturation_warning(rows([True] * 30, **weak), MethodSettings(name="aepo", t_high=1.5), left=100)
    assert "method.alpha=4.8 would suffice" in said
    replaced = MethodSettings(name="aepo", normalizer="replace", t_high=1.2)
    said = saturation_warning(rows([True] * 30, **MUCH), replaced, left=100)
    assert "method.alpha=" not in said
    down = {"control/drift_main": 0.1, "control/drift_second": -0.1}
    said = saturation_warning(rows([False] * 30, **down), MethodSettings(name="aepo", t_low=0.67), left=100)
    assert "moves H 1.00 times" in said and "method.t_low=0.63" in said
    # A main part that goes the wanted way is no pull.
    assert "times as far" not in saturation_warning(rows([False] * 30, **MUCH), MethodSettings(name="aepo"), left=100)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("name", [name for name in zoo.METHODS if name != "grpo"])
def test_the_warning_names_options_that_the_method_has(name, up):
    method = MethodSettings(name=name)
    said = saturation_warning(rows([up] * 50, **MUCH), method, left=10)
    assert (said is not None) == method.build().controlled
    if said is not None:
        named = {word.removeprefix("method.").partition("=")[0] for word in said.split() if word.startswith("method.")}
        assert named <= set(zoo.options(name))
        # A band has neither gain nor limit, and a gate never pushes down: only the target can be moved.
        assert named or name == "entrocraft" or (name == "stare" and not up)


def test_the_warning_shows_the_caps_that_the_method_itself_sets():
    def said(**options: object) -> str:
        return saturation_warning(rows([True] * 50), MethodSettings(name="aepo", **options), left=10)

    assert "raise method.cap_up (now 60)" in said(normalizer="replace")
    assert "cap_up" not in said()
    assert "prompt_fraction" not in said(prompt_fraction=1.0)


def test_a_temperature_that_finds_nothing_right_is_to_be_lowered_not_raised():
    method = MethodSettings(name="aepo_reach", prompt_fraction=1.0)
    often = {"reward": 0.9, "temperature": 2.5, **MUCH}
    said = saturation_warning(rows([True] * 20, positives=1, **often), method, left=10)
    assert "At T = 2.5 it finds 1.0 right responses a step, at T = 1 90% are right." in said
    assert "lower method.t_high (now 2), lower method.t_highest (now 2.5)" in said
    assert "raise method.t_" not in said and "method.t_high=" not in said and "raise method.alpha" in said
    # Enough of them, a model that is seldom right at T = 1 either, or a push down: the temperature is not to blame.
    for more in ({**often, "positives": 8}, {**often, "positives": 1, "reward": 0.2}):
        said = saturation_warning(rows([True] * 20, **more), method, left=10)
        assert "raise method.t_high (now 2), raise method.t_highest (now 2.5)" in said and "it finds" not in said
    down = saturation_warning(rows([False] * 20, **{**often, "positives": 1}), method, left=10)
    assert "it finds" not in down and "lower method.t_low (now 0.5)" in down


def test_the_first_step_says_that_its_second_branch_is_too_small(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "aepo")
    few = load(None, [f"out={tmp_path}", "method.name=aepo", "train.prompts_per_step=8"])
    said = start_warning({"positives": 11}, few)
    assert "11 right responses to 2 prompts a step" in said
    assert "method.prompt_fraction (now 0.25) or train.prompts_per_step (now 8)" in said
    many = load(None, [f"out={tmp_path}", "method.name=aepo", "train.prompts_per_step=64"])
    assert start_warning({"positives": 80}, many) is None
    assert "7 right responses to 16 prompts" in start_warning({"positives": 7}, many)
    # A controller that may ask for more prompts will.
    reach = load(None, [f"out={tmp_path}", "method.name=aepo_reach", "train.prompts_per_step=8"])
    assert start_warning({"positives": 11}, reach) is None
    written(tmp_path, [{**rows([True])[0], "positives": 1}], "method.name=aepo")
    assert len(caplog.records) == 1
    for name in ("grpo", "reweighting", "aepo_eq2"):
        assert start_warning({"positives": 0}, load(None, [f"out={tmp_path}", f"method.name={name}"])) is None


def test_a_target_above_what_right_answers_allow_is_named_at_the_start():
    task = walk_task()
    ceiling = task.entropy_ceiling
    # Ways to sum four moves of 1 to 9 either way: the coefficients of a polynomial's fourth power.
    once = np.array([*[1] * 9, 0, *[1] * 9])
    ways = np.convolve(np.convolve(once, once), np.convolve(once, once))
    right = [ways[36 + task.pairs[prompt][1] - task.pairs[prompt][0]] for prompt in task.train]
    assert ceiling == pytest.approx(statistics.fmean(math.log(n) for n in right) / 5) and 1.55 < ceiling < 1.65
    high, low, other = (
        load(None, [f"method.name={name}", f"target.value={value}", "train.steps=10"])
        for name, value in (("aepo", 1.75), ("aepo", 1.5), ("grpo", 1.75))
    )
    assert "H* = 1.75 lies above 1.6" in ceiling_warning(high, ceiling)
    assert ceiling_warning(low, ceiling) is ceiling_warning(other, ceiling) is ceiling_warning(high, None) is None
    rising = load(
        None, ["target.schedule=linear", "target.start=1", "target.end=2", "target.steps=10", "train.steps=8"]
    )
    assert "H* = 1.7 " in ceiling_warning(rising, ceiling)
    assert ceiling_warning(load(None, ["target.relative=true", "target.value=2.0"]), ceiling) is None
