"""Questions of a file as a task: which are left out, what is shown, and an order that depends on the seed alone."""

import json
import logging
import os
import subprocess
import sys
import zlib
from dataclasses import replace

import pytest
from running import ROOT, launch
from tiny_models import chatting

from aepo.llm.processes.ports import free_port
from aepo.llm.questions.files import DataError
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.task import fingerprint, fingerprint_of_columns, math_task
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import DataSettings, RewardSettings, SettingsError, load
from aepo.llm.trainer import check_positions


def test_the_task_shows_one_prompt_and_counts_what_it_leaves_out(tmp_path, caplog):
    (tmp_path / "q.jsonl").write_text(
        '{"question": "1+1?", "answer": "2"}\n{"question": "2+2?", "answer": "4"}\n'
        '{"question": "1+1?", "answer": "2"}\n{"question": "1+1?", "answer": "3"}\n'
    )
    data = DataSettings(train=str(tmp_path / "q.jsonl"), template="chat", held_out_problems=0)
    with caplog.at_level(logging.INFO, logger="aepo"):
        task, left_out = math_task(data, RewardSettings(workers=1), chatting("Be right."), seed=0)
    task.close()
    shown = "<|im_start|>system\nBe right.<|im_end|>\n<|im_start|>user\n1+1?"
    assert task.text(task.prompts[0]).startswith(shown) and task.answers == ["2", "4"] and left_out == 0
    assert caplog.text.count(shown) == 1
    assert "1 repeated problems and 1 questions that were there before with another answer" in caplog.text


def test_prompts_keep_the_files_order_and_the_split_depends_on_the_seed_alone(tmp_path):
    lines = [{"question": f"{i}?" + "!" * (i % 5 == 0) * 100, "answer": str(i)} for i in range(40)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = DataSettings(train=str(tmp_path / "q.jsonl"), max_prompt_tokens=120, held_out_problems=8)

    def split(seed: int) -> tuple:
        task, left_out = math_task(data, RewardSettings(workers=1), byte_tokenizer(), seed=seed)
        task.close()
        return left_out, task.answers, list(task.train), list(task.held_out)

    left_out, answers, train, held_out = split(3)
    # Those with a hundred bytes more are over the limit.
    assert left_out == 8 and answers == [str(i) for i in range(40) if i % 5]
    assert sorted(train + held_out) == list(range(32)) and len(held_out) == 8
    assert split(3) == (left_out, answers, train, held_out)
    assert split(4)[:2] == (left_out, answers) and split(4)[3] != held_out


JUDGES = """
def level(response, answer, level, question=None):
    return level

def form(response, answer):
    return len(response)

def lacking(response, answer, difficulty):
    return 1.0
"""


@pytest.fixture
def judges(tmp_path, monkeypatch):
    (tmp_path / "judges_of_a_task.py").write_text(JUDGES)
    monkeypatch.syspath_prepend(tmp_path)
    return "judges_of_a_task"


def judging(tmp_path, function: str | None, rows: list[dict] | None = None, **reward):
    """A task of three problems with a column `level`."""
    rows = rows or [{"question": f"{i}+1?", "answer": str(i + 1), "level": i, "tags": [i]} for i in range(3)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSettings(train=str(tmp_path / "q.jsonl"), held_out_problems=0)
    return math_task(data, RewardSettings(workers=1, function=function, **reward), byte_tokenizer(), seed=0)[0]


def test_columns_go_to_the_functions_that_take_them_and_to_no_other(tmp_path, judges):
    task = judging(tmp_path, f"{judges}:form, {judges}:level")
    try:
        assert list(task.columns) == [{"level": i, "question": f"{i}+1?"} for i in range(3)]
        assert task.parts == (f"{judges}:form", f"{judges}:level")
        verdicts = task.grade([2, 1], [task.tokenizer.encode("ab"), task.tokenizer.encode("")])
        assert [(v.reward, v.parts, v.right) for v in verdicts] == [(4.0, (2.0, 2.0), True), (1.0, (0.0, 1.0), False)]
    finally:
        task.close()
    prompts = list(task.train)
    other = replace(task, columns=[{**row, "level": 9} for row in task.columns])
    assert fingerprint_of_columns(task, prompts) != fingerprint_of_columns(other, prompts)
    alone = judging(tmp_path, f"{judges}:form")
    alone.close()
    assert alone.columns == () and alone.parts == () and fingerprint_of_columns(alone, prompts) == []


def test_a_column_that_a_function_needs_and_no_row_has_is_named_before_anything_starts(tmp_path, judges):
    with pytest.raises(
        SettingsError,
        match=r"reward\.function: judges_of_a_task:lacking takes 'difficulty', and .*q\.jsonl, row 1 has no such "
        "column, found question, answer, level, tags",
    ):
        judging(tmp_path, f"{judges}:lacking")
    rows = [{"question": f"{i}+1?", "answer": "1", **({"level": 1} if i != 2 else {})} for i in range(4)]
    with pytest.raises(SettingsError, match=r"level takes 'level', and .*q\.jsonl, row 3 has no such column"):
        judging(tmp_path, f"{judges}:level", rows)
    with pytest.raises(SettingsError, match=r"reward\.function or reward\.right: .*has no 'absent'"):
        judging(tmp_path, None, right=f"{judges}:absent")


def test_messages_for_a_template_that_has_none_are_refused():
    for field in ("system_prompt", "instruction"):
        with pytest.raises(SettingsError, match=f"data: {field} needs template=chat, got template=qwen3"):
            load(None, [f"data.{field}=hello", "data.template=qwen3"])


def test_an_unknown_template_or_file_ends_before_a_verifier_is_started(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    with pytest.raises(ValueError, match="did you mean 'qwen3'"):
        DataSettings(train=str(tmp_path / "q.jsonl"), template="qwen33")
    data = DataSettings(train=str(tmp_path / "q.jsonl"), template=str(tmp_path / "none.jinja"))
    with pytest.raises(DataError, match=r"data\.template=.*none\.jinja: no readable file"):
        math_task(data, RewardSettings(), byte_tokenizer(), seed=0)


def test_a_prompt_and_response_beyond_the_models_positions_are_refused():
    settings = load(None, ["rollout.max_response_tokens=90", "model.path=tiny"])
    check_positions(settings, [(1,) * 10, (1,) * 4], 100)
    check_positions(settings, [(1,) * 11], None)
    with pytest.raises(
        SettingsError, match=r"max_response_tokens=90 .*prompt's 11 .*the 100 positions.*model\.path=tiny"
    ):
        check_positions(settings, [(1,) * 4, (1,) * 11], 100)


@pytest.mark.slow
def test_a_malformed_row_is_refused_with_its_place_and_cure_before_any_model(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n\n{"question": "2+2?", "answer": null}\n')
    done = launch(tmp_path / "run", f"--data.train={tmp_path / 'q.jsonl'}")
    assert done.returncode == 2, done.stderr[-2000:]
    assert f"error: {tmp_path / 'q.jsonl'}, row 3, column 'answer': empty answer; fill it in, or remove" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


# Data that changes under a run: prompts are known by their place.


def test_another_question_answer_order_or_number_has_another_fingerprint():
    walk = walk_task()
    some = [3, 1, 2]
    found = fingerprint(walk, some, beside=(5, 6))
    others = [
        fingerprint(walk, [1, 3, 2], beside=(5, 6)),
        fingerprint(walk, [3, 1], beside=(5, 6)),
        fingerprint(walk, some, beside=(5, 7)),
        fingerprint(walk, some),
        fingerprint(replace(walk, pairs=[(s, n + 1) for s, n in walk.pairs]), some, beside=(5, 6)),
        fingerprint(replace(walk, prompts=[(b, a) for a, b in walk.prompts]), some, beside=(5, 6)),
    ]
    assert len({found, *others}) == 7
    # By pieces or at once: evaluations that were begun with the one go on with the other.
    asked = [[list(walk.prompts[p]), walk.answer(p)] for p in some]
    assert found == f"{zlib.crc32(json.dumps([[5, 6], asked]).encode()):08x}"


QUESTIONS = [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(8)]
# A model of bytes, as small as the walk's.
ON_A_FILE = (
    "--warm_start.steps=0", "--data.held_out_problems=2", "--train.prompts_per_step=4", "--train.minibatches=1",
    "--rollout.group_size=2", "--rollout.max_response_tokens=4", "--evaluation.samples=0", "--checkpoint.every=1",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data(tmp_path):
    file, out = tmp_path / "q.jsonl", tmp_path / "run"
    file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    settings = (f"--data.train={file}", *ON_A_FILE)
    assert launch(out, *settings, "--train.steps=1").returncode == 0
    file.write_text("".join(json.dumps(row) + "\n" for row in [QUESTIONS[1], QUESTIONS[0], *QUESTIONS[2:]]))
    refused = launch(out, *settings, "--train.steps=2", "--resume", "auto")
    assert refused.returncode == 2, refused.stderr[-2000:]
    assert f"error: --resume: {out / 'checkpoints' / 'step_000001'} was trained on other data than" in refused.stderr
    assert "Traceback" not in refused.stderr
    file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    assert launch(out, *settings, "--train.steps=2", "--resume", "auto").returncode == 0


@pytest.mark.slow
def test_nodes_with_different_files_are_refused_by_each(tmp_path):
    port = free_port()
    nodes = []
    for node in range(2):
        (tmp_path / f"node_{node}").mkdir()
        file = tmp_path / f"node_{node}" / "q.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS[node:]))
        command = [sys.executable, str(ROOT / "aepo/llm/train.py"), "--config", str(ROOT / "configs/demo_cpu.yaml")]
        ranked = {"RANK": node, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        nodes.append(
            subprocess.Popen(
                [*command, "--data.train=q.jsonl", *ON_A_FILE, f"--out={tmp_path / 'run'}"],
                cwd=file.parent,
                text=True,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in ranked.items()}},
            )
        )
    said = [node.communicate(timeout=120)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [2, 2], said
    assert "error: data.train=q.jsonl: the ranks do not have the same data (rank 0: " in said[0]
    assert not (tmp_path / "run").exists()
