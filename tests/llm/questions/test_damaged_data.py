"""A damaged file is read to the letter or refused in one line; nothing else is ever asked."""

import logging
from collections import Counter
from pathlib import Path

import pytest
from damaged_data import BYTES, FATAL, FORMS, HARMLESS, TABLE_BYTES, Damaged, damaged, found
from running import launch

from aepo.errors import AepoError
from aepo.llm.questions.loading import load_task
from aepo.llm.questions.templates import prompt_text
from aepo.llm.settings import load

BEFORE, BEHIND = prompt_text("|", "plain").split("|")


def asked_and_answered(path: Path) -> list[tuple[str, str]]:
    """What a run would ask of a file, by the way of the command; AepoError where it would ask nothing."""
    settings = load(None, [f"data.train={path}", "data.held_out_problems=0", "reward.workers=1"])
    task = load_task(settings)
    try:
        prompts = [task.tokenizer.decode(list(prompt)) for prompt in task.prompts]
        assert all(p.startswith(BEFORE) and p.endswith(BEHIND) for p in prompts)
        return [(p.removeprefix(BEFORE).removesuffix(BEHIND), task.answer(i)) for i, p in enumerate(prompts)]
    finally:
        task.close()


def outcome(one: Damaged) -> str:
    """Whether the file was accepted or refused, after all that must hold of either."""
    expected = found(one.path)
    try:
        pairs = asked_and_answered(one.path)
    except AepoError as error:
        message = str(error)
        assert error.exit_code == 2 and message.isprintable() and str(one.path) in message, (one, message)
        assert len(message) < 1000, (one, message)
        assert one.accepted is not True, (one, message)
        return "refused"
    assert one.accepted is not False, (one, pairs)
    assert pairs == expected, one
    return "accepted"


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR, logger="aepo")


@pytest.mark.parametrize("seed", range(100))
def test_a_damaged_file_is_read_to_the_letter_or_refused_in_one_line(tmp_path, seed):
    assert outcome(damaged(tmp_path, seed)) in ("accepted", "refused")


def test_the_seeds_meet_every_kind_of_damage_and_both_outcomes(tmp_path):
    # Drawn only: each was tried above, or among the thousand.
    drawn = Counter(damaged(tmp_path, seed).damage.removeprefix("table: ") for seed in range(1100))
    kinds = {*BYTES, *FATAL, *HARMLESS, *TABLE_BYTES, "one question in most rows", "another suffix", "null", "nothing"}
    assert set(drawn) == kinds and len(FORMS) == 5
    assert len({damaged(tmp_path, seed).damage for seed in range(100)}) > 40


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_thousand_damaged_files(tmp_path):
    counts = Counter(outcome(damaged(tmp_path, seed)) for seed in range(100, 1100))
    assert min(counts["accepted"], counts["refused"]) > 50, counts


TINY = (
    "--warm_start.steps=0", "--data.held_out_problems=0", "--train.prompts_per_step=2", "--train.minibatches=1",
    "--rollout.group_size=2", "--rollout.max_response_tokens=2", "--evaluation.samples=0", "--train.steps=1",
    "--checkpoint.every=0",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_command_ends_with_0_or_in_one_line_with_2(tmp_path):
    for seed in range(10):
        (tmp_path / str(seed)).mkdir()
        one = damaged(tmp_path / str(seed), seed)
        done = launch(tmp_path / str(seed) / "run", f"--data.train={one.path}", *TINY)
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in done.stderr, (one, done.stderr[-2000:])
        expected = 0 if outcome(one) == "accepted" else 2
        assert done.returncode == expected and len(said) == (expected == 2), (one, done.stderr[-2000:])
        assert not said or str(one.path) in said[0]
