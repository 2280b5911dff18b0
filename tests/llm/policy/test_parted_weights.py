"""ZeRO 3 where it parts weights, gathers them ahead and lets them go, as at 7B: the real command on two ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from running import FIXTURE, ROOT
from scaled_train import MODEL
from transformers import AutoModelForCausalLM

from aepo.llm.processes.ports import free_port


def test_pushes_and_the_export_hand_on_the_trained_weights_also_after_a_step_that_learned_nothing(tmp_path):
    data, out = tmp_path / "questions.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in FIXTURE))
    command = [
        str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2", "--master_port", str(free_port()),
        str(Path(__file__).with_name("scaled_train.py")), "--config", str(ROOT / "configs/demo_cpu.yaml"),
        f"--out={out}", *(f"--model.{name}={value}" for name, value in MODEL.items()), "--train.zero_stage=3",
        f"--data.train={data}", "--data.held_out_problems=2", "--method.name=grpo", "--train.steps=4",
        # A pass is recorded with its gradient only where another one with gradient came before it.
        "--train.prompts_per_step=4", "--train.minibatches=2", "--rollout.group_size=4",
        "--rollout.max_response_tokens=4", "--evaluation.samples=1", "--evaluation.ks=[1]", "--checkpoint.every=0",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DUMP": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["grad_norm"] > 0 for row in rows] == [True, True, False, True]
    assert all(0 <= row["sync/canary"] < 1e-5 for row in rows)
    found = torch.load(tmp_path / "before_the_last_push.pt")
    assert found["in_flight"], "no pass gathered weights ahead of one that did not come"
    assert not found["gathered"], "the engine sampled beside weights that wait for a pass"
    exported = AutoModelForCausalLM.from_pretrained(out / "final", dtype=torch.float32).state_dict()
    assert exported.keys() == found["weights"].keys()
    assert all(torch.equal(value, exported[name]) for name, value in found["weights"].items())
