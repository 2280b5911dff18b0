"""What the doctor says of a controller's authority."""

import pytest

from aepo.authority import predicted_authority
from aepo.llm.doctor.__main__ import main
from aepo.llm.doctor.control import control_lines
from aepo.llm.settings import load


def test_the_advised_alpha_gives_the_authority_that_was_lacking(tmp_path):
    settings = load(None, ["method.name=aepo", "train.prompts_per_step=64", "rollout.group_size=8"])
    authority, cure = control_lines(settings)
    for success in (0.5, 0.8, 0.95):
        value = predicted_authority(settings.method.build(), success, group_size=8, prompts=64)
        assert f"{value:.2f} at {success:.0%} right responses" in authority
    alpha = cure.partition("method.alpha=")[2].split()[0]
    enough = load(None, ["method.name=aepo", f"method.alpha={float(alpha) * 1.05}", "train.prompts_per_step=64"])
    assert len(control_lines(enough)) == 1


def test_a_second_branch_of_two_prompts_is_named_and_one_that_may_widen_is_not():
    few = load(None, ["method.name=aepo_adaptive", "train.prompts_per_step=8"])
    assert "asks 2 of 8 prompts a step" in control_lines(few)[-1]
    assert control_lines(few)[-1].endswith("raise method.prompt_fraction (now 0.25) or train.prompts_per_step (now 8)")
    whole = load(None, ["method.name=aepo", "train.prompts_per_step=2", "method.prompt_fraction=1"])
    assert control_lines(whole)[-1].endswith("raise train.prompts_per_step (now 2)")
    assert not any(
        "of 8 prompts" in line
        for line in control_lines(load(None, ["method.name=aepo_reach", "train.prompts_per_step=8"]))
    )


@pytest.mark.parametrize("name", ["grpo", "reweighting", "aepo_eq2", "pi_bonus"])
def test_a_method_without_a_controlled_second_branch_has_no_line(name):
    assert control_lines(load(None, [f"method.name={name}"])) == []


def test_the_command_prints_it(capsys):
    assert (
        main(
            [
                "--config",
                "demo_cpu",
                "--method.name=aepo_reach",
                "--method.normalizer=all",
                "--method.cap_up=null",
                "--method.cap_down=null",
            ]
        )
        == 0
    )
    assert "control   aepo_reach: authority at its upper limit" in capsys.readouterr().out
