"""The real command without a launcher: one rank, with a model of a folder, and none but its own lines."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import ROOT

from aepo.llm.policy.model import from_scratch
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.settings import load


def a_model(folder: Path) -> Path:
    tokenizer = byte_tokenizer()
    from_scratch(load(None, ["data.train=questions.jsonl"]), SimpleNamespace(tokenizer=tokenizer)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_without_a_launcher_one_rank_trains_and_nothing_stands_between_its_lines(tmp_path):
    rows = [{"question": f"What is {i}?", "answer": str(i)} for i in range(8)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    without = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "aepo/llm/train.py"), "--config=demo_cpu", "--out=run", "--train.steps=2",
            f"--model.path={a_model(tmp_path / 'model')}", "--data.train=q.jsonl", "--method.name=grpo",
            "--warm_start.steps=0", "--train.prompts_per_step=2", "--train.minibatches=1", "--data.held_out_problems=2",
            "--log.samples=0", "--evaluation.samples=4", "--evaluation.ks=[1,4]",
        ],
        capture_output=True, text=True, cwd=tmp_path, env={**without, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # The first prompt stands on three lines of its own.
    own = [line for line in done.stderr.splitlines() if line.startswith(("I ", "W "))]
    others = [line for line in done.stderr.splitlines() if line not in own]
    assert others == ["Question: What is 0?", "Put your final answer within \\boxed{}.", "Answer:"]
    header, *table = done.stdout.splitlines()
    assert header.split()[:3] == ["step", "reward", "H"] and [row.split()[0] for row in table] == ["0", "1"]
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert (row["target"], row["error"], row["raise_entropy"], row["duty_up"]) == (None,) * 4
    assert "target" not in done.stderr.splitlines()[-1] and "duty" not in done.stderr.splitlines()[-1]
