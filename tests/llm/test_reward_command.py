"""Reward functions of a user's in the real command: several with columns, and ones that fail on everything."""

import json
import os

import pytest
from running import FIXTURE, launch, rows, trained

pytestmark = pytest.mark.slow

JUDGES = """
from pathlib import Path

import numpy as np

# Every second response is right, whatever it says: a model from scratch must have something to learn.
def half(response, answer):
    return np.bool_(len(response) % 2)

def form(response, answer, level):
    return level / 2

def failing(response, answer):
    if Path(__file__).with_name("mended").exists():
        return 1.0
    raise LookupError("no judge here")
"""
# A model of bytes from scratch, whose responses are cut before their end.
SMALL = (
    "--warm_start.steps=0", "--data.held_out_problems=4", "--train.prompts_per_step=4", "--train.minibatches=1",
    "--rollout.group_size=4", "--rollout.max_response_tokens=12", "--evaluation.samples=2", "--evaluation.ks=[1,2]",
    "--checkpoint.every=1", "--reward.truncated=graded", "--log.samples_every=1",
)  # fmt: skip


@pytest.fixture
def judged(tmp_path, monkeypatch):
    (tmp_path / "judges_of_a_run.py").write_text(JUDGES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps({**row, "level": 2}) + "\n" for row in FIXTURE))
    return f"--data.train={data}", *SMALL


def test_two_ranks_add_up_several_functions_and_go_by_the_first(tmp_path, judged):
    f, g = "judges_of_a_run:half", "judges_of_a_run:form"
    run = trained(tmp_path / "run", *judged, f"--reward.function={f}, 0.5*{g}", "--train.steps=2", ranks=2, small=())
    for row in run:
        assert row[f"reward/{g}"] == 1.0 and 0 < row[f"reward/{f}"] < 1
        assert row["reward"] == pytest.approx(row[f"reward/{f}"] + 0.5, abs=1e-6)
        # All have a positive reward; those that the first function calls right are fewer.
        assert 0 < row["positives"] < 4
    shown = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert all(one["right"] == (one["rewards"][f] > 0) and one["rewards"][g] == 1.0 for one in shown)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert 0 < summary["pass@1"] < 1
    alone = trained(tmp_path / "alone", *judged, f"--reward.function={f}", "--train.steps=1", small=())
    assert not any(":" in name for name in alone[0])


def test_three_steps_of_errors_end_the_run_with_code_8_and_a_resumed_one_counts_on(tmp_path, judged):
    out, function = tmp_path / "run", "judges_of_a_run:failing"
    settings = (*judged, f"--reward.function={function}", "--train.steps=8")
    ended = launch(out, *settings, ranks=2)
    assert ended.returncode == 8, ended.stderr[-3000:]
    warned = [line for line in ended.stderr.splitlines() if "3 steps in a row end the run" in line]
    assert "step 0: all " in warned[0] and function in warned[0] and "LookupError: no judge here" in warned[0]
    said = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "step 2: all " in said[0] and function in said[0] and "no judge here" in said[0]
    assert "Traceback" not in ended.stderr and len(rows(out)) == 3
    # The two steps before were saved, with their count.
    again = launch(out, *settings, "--resume")
    assert again.returncode == 8 and "step 2: all " in again.stderr
    (tmp_path / "mended").touch()
    assert launch(out, *settings, "--train.steps=4", "--resume").returncode == 0
    assert [row["reward/errors"] > 0 for row in rows(out)] == [True, True, False, False]


def test_a_parameter_without_a_column_is_refused_before_a_model_is_built(tmp_path, judged):
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FIXTURE))
    refused = launch(tmp_path / "run", *judged, "--reward.function=judges_of_a_run:form")
    assert refused.returncode == 2 and "Traceback" not in refused.stderr
    assert "error: reward.function: judges_of_a_run:form takes 'level', and" in refused.stderr
    assert not (tmp_path / "run").exists()
