"""What a probe says, from responses made by hand; and the command before a run, which it leaves as it was."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from running import ROOT

from aepo.batch import Rollouts
from aepo.llm.grading import Verdict
from aepo.llm.probe.__main__ import main
from aepo.llm.probe.findings import Findings, Push, advice, findings, of_the_method, rows_of
from aepo.llm.settings import Settings, load


def scored(rewards: list[float], *, logp: float = -1.0, lengths: list[int] | None = None) -> Rollouts:
    lengths = lengths or [2] * len(rewards)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)).float()
    return Rollouts(
        prompt=torch.arange(len(rewards)) // 4, token=torch.ones_like(mask).long(), mask=mask,
        reward=torch.tensor(rewards), group_size=4, old_logp=torch.full_like(mask, logp),
        entropy=torch.full_like(mask, 1.5),
    )  # fmt: skip


def judged(rewards: list[float]) -> list[Verdict]:
    return [Verdict(reward=one, extracted=None, reason="custom") for one in rewards]


def test_the_figures_of_three_groups_by_hand():
    rewards = [1.0, 0, 0, 1.0] + [0.0] * 4 + [1.0] * 4
    lengths = [1, 2, 3, 1, 2, 2, 2, 2, 4, 1, 1, 1]
    whole = torch.tensor([True] * 9 + [False] * 3)
    found = findings(scored(rewards, lengths=lengths), judged(rewards), whole)
    assert (found.prompts, found.responses, found.success, found.entropy) == (3, 12, 0.5, 1.5)
    assert found.mixed == pytest.approx(1 / 3) and found.solved == pytest.approx(2 / 3)
    assert found.length == (1, 22 / 12, 4) and found.ended == 0.75 and not any(found.errors.values())
    # Two right ones of a share of 1/2 with a token each: -ln p = 1 + ln(1/2); four of a share of 1 with 4, 1, 1, 1.
    want = (2 * (1 - math.log(2)) + 4 + 1 + 1 + 1) / (2 + 7)
    assert found.right_entropy == pytest.approx(want)


@given(st.integers(1, 6), st.integers(1, 4), st.floats(0.05, 1.0))
def test_right_answers_that_are_equally_likely_carry_the_logarithm_of_their_number(answers, tokens, share):
    """A policy with `answers` equally likely right answers of the mass `share`: given right, each has 1 / answers."""
    logp = math.log(share / answers) / tokens
    count = round(1000 * share)
    rewards = [1.0] * count + [0.0] * (1000 - count)
    rollouts = scored(rewards, logp=logp, lengths=[tokens] * 1000)
    rollouts = Rollouts(**{**rollouts.__dict__, "group_size": 1000, "prompt": torch.zeros(1000, dtype=torch.int64)})
    found = findings(rollouts, judged(rewards), torch.ones(1000, dtype=torch.bool))
    assert found.right_entropy == pytest.approx(math.log(answers) / tokens, abs=2e-2 / share)


def test_nothing_right_has_no_entropy_and_failed_verdicts_are_named():
    failed = [Verdict(reward=0.0, extracted=None, reason=f"error: ValueError: {i}") for i in range(4)]
    found = findings(scored([0.0] * 4), failed, torch.ones(4, dtype=torch.bool))
    assert found.right_entropy is None and found.solved == 0
    said = advice(found, load(None, ["data.train=q.jsonl"]))
    assert any("have both verdicts" in one and "easier questions" in one for one in said)
    if any(found.errors.values()):
        assert "mend the reward" in said[0] and "ValueError: 0" in said[0]


def figures(**changed) -> Findings:
    plain = dict(
        prompts=8, responses=64, success=0.5, mixed=0.7, solved=0.9, entropy=3.0, right_entropy=2.2,
        length=(1.0, 2.0, 6.0), ended=1.0, errors={"reward/errors": 0, "reward/timeouts": 0}, reasons=(),
    )  # fmt: skip
    return Findings(**{**plain, **changed})


def settings(*overrides: str) -> Settings:
    base = ("data.train=q.jsonl", "train.prompts_per_step=8", "method.prompt_fraction=1", "method.normalizer=all")
    return load(None, [*base, "method.t_low=0.67", "method.t_high=1.5", *overrides])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, None),
        ({"mixed": 0.1, "success": 0.01}, "10% of the groups of 8 have both verdicts.*easier questions, examples in"),
        ({"mixed": 0.1, "success": 0.99}, "harder questions, or a larger"),
        ({"ended": 0.8}, r"20% of the responses are cut.*rollout\.max_response_tokens \(now 5\).*rollout\.stop"),
        ({"errors": {"reward/errors": 3, "reward/timeouts": 0}, "reasons": ("x: y",)}, "3 errors of 64.*x: y.*mend"),
    ],
)
def test_what_is_wrong_with_a_task_is_said_with_its_cure(changed, told):
    said = advice(figures(**changed), settings())
    if told is None:
        assert said == []
    else:
        assert len(said) == 1 and re.search(told, said[0])


def test_a_target_above_what_right_answers_carry_is_said_to_ask_for_more():
    (said, *_) = of_the_method(figures(), settings(), target=2.0)
    assert "up to 2.20 nats" in said and said.endswith("H* = 2 is among them")
    assert of_the_method(figures(), settings(), target=2.5)[0].endswith(
        "asks it to spread them wider, or to give wrong ones"
    )
    # The entropy now bounds it too: right answers that are long and likely carry more than the policy has.
    assert "up to 1.00 nats" in of_the_method(figures(entropy=1.0), settings(), target=0.5)[0]
    # Without a target of its own the setting's counts.
    assert "H* = 0.75 is" in of_the_method(figures(), settings("target.value=0.75"))[0]


def test_measured_authority_is_told_with_the_alpha_that_would_suffice():
    strong = " ".join(of_the_method(figures(), settings(), push=Push(authority=1.31, luck=0.4, positives=30)))
    weak = " ".join(
        of_the_method(figures(), settings("method.alpha=2"), push=Push(authority=0.5, luck=0.4, positives=30))
    )
    few = of_the_method(figures(), settings(), push=Push(authority=1.31, luck=0.4, positives=3))[-1]
    assert "rests on 3 right responses to 8 of 8" in few and few.endswith(
        "raise train.prompts_per_step (now 8), or lower method.t_high (now 1.5): T = 1 would find about 32"
    )
    assert "1.31 times as far" in strong and "luck 0.40): enough here" in strong and "rests on" not in strong
    assert "too little here; method.alpha=4 would suffice" in weak
    # The entropy is 3 nats: whether it has come down to the target by itself decides what a push up means now.
    assert "not asked to before H is down" in weak
    high = of_the_method(figures(), settings("target.value=3.5"), push=Push(authority=0.5, luck=0.4, positives=30))
    assert "not asked to" not in " ".join(high)
    replace = settings("method.normalizer=replace", "method.cap_up=32")
    assert "would suffice" not in " ".join(
        of_the_method(figures(), replace, push=Push(authority=0.5, luck=0, positives=30))
    )


def test_few_right_responses_or_prompts_are_named_and_a_method_without_a_target_says_so():
    few = " ".join(of_the_method(figures(success=0.2), settings("method.prompt_fraction=0.25")))
    assert "rests on 3 right responses to 2 of 8 prompts" in few and "raise method.prompt_fraction" in few
    (plain,) = of_the_method(figures(), load(None, ["data.train=q.jsonl", "method.name=grpo"]))
    assert plain.startswith("grpo follows no target")


def test_rollouts_of_several_steps_are_one_padded_to_the_longest():
    first, second = scored([1.0] * 4), scored([0.0] * 4, lengths=[3, 1, 1, 1])
    both = rows_of([first, second])
    assert both.token.shape == (8, 3) and both.mask.sum().item() == 8 + 6 and both.right_by is None
    assert both.reward.tolist() == [1.0] * 4 + [0.0] * 4 and float(both.mean_entropy()) == 1.5


@pytest.mark.parametrize("typed", [["--prompts=0"], ["--examples=-1"], ["--promts=3"]])
def test_an_option_that_cannot_be_is_one_line(typed, capsys):
    assert main(["--config=demo_cpu", *typed]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_the_command_measures_a_task_and_leaves_nothing_but_the_file_that_was_named(tmp_path):
    (tmp_path / "judge.py").write_text("def even(response, answer):\n    return float(len(response) % 2 == 0)\n")
    rows = [{"question": f"Say {i}:", "answer": "x"} for i in range(20)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    without = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [
            sys.executable, "-m", "aepo.command", "probe", "--config=demo_cpu", "--data.train=q.jsonl",
            "--data.template=raw", "--warm_start.steps=0", "--train.prompts_per_step=4", "--train.minibatches=1",
            "--rollout.group_size=4", "--examples=3",
            "--data.held_out_problems=2", "--reward.function=judge:even", "--reward.truncated=graded", "--out=run",
            "--prompts=8", "--json=found.json", "--method.cap_up=null", "--rollout.stop=[a, b, c]",
        ],
        capture_output=True, text=True, cwd=tmp_path,
        env={**without, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{tmp_path}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["prompts"], found["responses"]) == (8, 32) and 0 < found["success"] < 1
    assert done.stdout.count("main T=1.00 reward") == 3 and "groups with both verdicts" in done.stdout
    assert found["seconds_a_step"] > 0 and found["step"]["step"] == 2 and found["push"]["luck"] > 0
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"judge.py", "q.jsonl", "found.json"}
