"""Rewards of responses that were cut or are nearly too long, and what the trainer makes of them."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from running import ROOT, trained

from aepo.llm.grading.overlong import ended, overlong_penalty, shaped
from aepo.llm.settings import SettingsError, load


@st.composite
def limits(draw):
    limit = draw(st.integers(1, 500))
    return limit, draw(st.integers(1, limit)), draw(st.floats(0.1, 4.0))


@given(limits(), st.integers(0, 600))
def test_the_penalty_is_dapos_three_cases(case, length):
    limit, buffer, penalty = case
    (found,) = overlong_penalty(
        torch.tensor([length], dtype=torch.float64), limit=limit, buffer=buffer, penalty=penalty
    ).tolist()
    if length <= limit - buffer:
        expected = 0.0
    elif length <= limit:
        expected = penalty * ((limit - buffer) - length) / buffer
    else:
        expected = -penalty
    assert found == pytest.approx(expected, abs=1e-12)


@given(limits())
def test_the_penalty_never_rewards_length_and_bounds_a_right_answers_loss(case):
    limit, buffer, penalty = case
    found = overlong_penalty(torch.arange(limit + 2), limit=limit, buffer=buffer, penalty=penalty)
    assert (found.diff() <= 0).all() and found.max() == 0 and found.min() == pytest.approx(-penalty, rel=1e-6)
    # With the paper's penalty a right answer stays a positive until the limit.
    right = 1 + overlong_penalty(torch.arange(limit), limit=limit, buffer=buffer)
    assert (right > 0).all()


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.sampled_from([0.0, 1.0])), min_size=1, max_size=8))
def test_rows_are_judged_alone_and_only_as_asked(rows):
    length = torch.tensor([n for n, _, _ in rows])
    whole = torch.tensor([e for _, e, _ in rows])
    verdict = torch.tensor([v for _, _, v in rows])
    options = {"limit": 6, "buffer": 3, "penalty": 0.5}
    zero, graded = (shaped(verdict, length, whole, truncated=t, **options) for t in ("zero", "graded"))
    for i, (n, e, v) in enumerate(rows):
        loss = 0.5 * max(0, n - 3) / 3
        assert graded[i].item() == pytest.approx(v - loss)
        assert zero[i].item() == pytest.approx((v if e else 0.0) - loss)
    plain = shaped(verdict, length, whole, truncated="graded", limit=6, buffer=0, penalty=1.0)
    assert torch.equal(plain, verdict)


def test_a_response_ends_with_the_end_token_and_padding_does_not_count():
    token = torch.tensor([[5, 1, 1, 1], [5, 6, 7, 1], [5, 6, 7, 8], [1, 5, 1, 1], [1, 1, 1, 1]])
    mask = torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    assert ended(token, mask, end_ids=[1]).tolist() == [True, False, False, False, False]
    assert ended(token, mask, end_ids=[1, 8]).tolist() == [True, False, True, False, False]
    assert ended(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0), end_ids=[0]).tolist() == [False, False]


def test_impossible_values_are_refused_by_name():
    with pytest.raises(ValueError, match=r"buffer must be in \[0, limit=4\], got 5"):
        overlong_penalty(torch.tensor([1]), limit=4, buffer=5)
    with pytest.raises(ValueError, match="penalty must be > 0, got 0"):
        overlong_penalty(torch.tensor([1]), limit=4, buffer=2, penalty=0)
    with pytest.raises(SettingsError, match=r"overlong_buffer_tokens must be at most .*max_response_tokens = 5, got 9"):
        load(None, ["reward.overlong_buffer_tokens=9"])


ALWAYS_RIGHT = "def right(response, answer):\n    return 1.0\n"


@pytest.mark.slow
def test_cut_responses_are_logged_and_paid_as_the_settings_say(tmp_path, monkeypatch):
    # A random model over bytes ends a response once in 258 tokens, so of 6-token responses nearly all are cut.
    (tmp_path / "always_right.py").write_text(ALWAYS_RIGHT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    (tmp_path / "q.jsonl").write_text(
        "".join(json.dumps({"question": f"{i}?", "answer": "1"}) + "\n" for i in range(8))
    )
    common = (
        f"--data.train={tmp_path / 'q.jsonl'}", "--data.held_out_problems=0", "--rollout.max_response_tokens=6",
        "--rollout.group_size=4", "--train.prompts_per_step=8", "--train.steps=1", "--warm_start.steps=0",
        "--reward.function=always_right:right", "--evaluation.samples=0", "--checkpoint.every=0", "--method.cap_up=4",
    )  # fmt: skip

    def first_row(name: str, *options: str) -> dict:
        return trained(tmp_path / name, *common, *options, small=())[0]

    graded = first_row("graded", "--reward.truncated=graded")
    zero = first_row("zero")
    bought = first_row(
        "penalty", "--reward.truncated=graded", "--reward.overlong_buffer_tokens=6", "--reward.overlong_penalty=0.5"
    )
    assert graded["reward"] == 1 and graded["reward/overlong_penalty"] == 0
    assert 0.5 < zero["reward/truncated"] == graded["reward/truncated"] == pytest.approx(1 - zero["ended"])
    assert zero["reward"] == pytest.approx(1 - zero["reward/truncated"])
    # The penalty is linear from the first token on, so its mean is that of the lengths.
    assert bought["reward/overlong_penalty"] == pytest.approx(-0.5 * bought["response_length"] / 6)
    assert bought["reward"] == pytest.approx(1 + bought["reward/overlong_penalty"])
