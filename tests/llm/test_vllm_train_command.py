"""The real command with vLLM rollouts on two CPU ranks: skips where vLLM is not installed (`make test-vllm`)."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import (
    ROOT,
    SMALL,
    STEPS,
    assert_equal_runs,
    assert_learned,
    start,
    trained,
    weights,
    without_times,
)
from scipy.stats import ttest_ind

from aepo.llm.processes.ports import free_port

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm installs and tests it")

VLLM = ("--rollout.engine=vllm",)


def test_two_ranks_train_with_every_push_proven_and_resume_with_the_same_tokens(tmp_path):
    chosen = (*VLLM, "--controller.sees=previous", "--train.zero_stage=2")
    whole = trained(tmp_path / "whole", "--train.steps=4", *chosen, ranks=2)
    assert_learned(whole)
    assert all(0 <= row["sync/canary"] < 1e-3 and row["mismatch/abs"] < 1e-3 for row in whole)
    versions = [row["sync/weight_version"] for row in whole]
    assert versions == sorted(versions) and versions[-1] > 0
    trained(tmp_path / "parts", "--train.steps=2", *chosen, ranks=2)
    parts = trained(tmp_path / "parts", "--train.steps=4", *chosen, "--resume", ranks=2)
    assert without_times(whole) == without_times(parts)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_engine_with_frozen_weights_ends_the_run_with_the_figures(tmp_path):
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "FAULT": "frozen:engine:1",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [
            sys.executable, str(Path(__file__).with_name("faulty_train.py")), "--config",
            str(ROOT / "configs/demo_cpu.yaml"), f"--out={tmp_path / 'run'}", *SMALL, *VLLM, "--train.steps=12",
        ],
        env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr[-3000:]
    assert "the rollout engine does not sample from the trainer's weights" in done.stderr
    assert ("weight version" in done.stderr and "to the last bit" in done.stderr) or "nats" in done.stderr


@pytest.mark.slow
def test_half_precision_stays_within_its_limit_at_every_push(tmp_path):
    rows = trained(
        tmp_path / "run", *VLLM, "--train.steps=6", "--train.zero_stage=2", "--train.dtype=bfloat16", ranks=2
    )
    assert_learned(rows)
    assert all(0 < row["sync/canary"] < 0.05 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_two_ranks_that_share_an_engine_sample_what_two_engines_do(tmp_path, stage):
    chosen = (*VLLM, "--train.steps=3", f"--train.zero_stage={stage}", "--controller.sees=previous")
    own = trained(tmp_path / "own", *chosen, ranks=2)
    shared = trained(tmp_path / "shared", *chosen, "--rollout.tensor_parallel=2", ranks=2)
    assert_learned(own)
    assert all(row["sync/canary"] < 1e-3 for row in shared)
    for a, b in zip(own, shared, strict=True):
        for name in ("reward", "entropy", "grad_norm", "loss", "response_length"):
            assert abs(a[name] - b[name]) <= 1e-3, (a["step"], name, a[name], b[name])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_every_zero_stage_trains_and_resumes_with_the_same_tokens(tmp_path, stage):
    chosen = (*VLLM, f"--train.zero_stage={stage}")
    whole = trained(tmp_path / "whole", "--train.steps=4", *chosen, ranks=2)
    assert_learned(whole)
    assert all(row["sync/canary"] < 1e-3 for row in whole)
    trained(tmp_path / "parts", "--train.steps=2", *chosen, ranks=2)
    parts = trained(tmp_path / "parts", "--train.steps=4", *chosen, "--resume", ranks=2)
    assert without_times(whole) == without_times(parts)


@pytest.mark.slow
def test_kill_9_while_vllm_samples_costs_no_step_that_was_saved(tmp_path):
    chosen = (*VLLM, *STEPS)
    out, whole = tmp_path / "run", tmp_path / "whole"
    trained(whole, *chosen)
    killed = start(out, *VLLM, fault="kill:generate:2")
    killed.communicate(timeout=600)
    assert killed.returncode == -signal.SIGKILL
    again = start(out, *VLLM, "--resume", "auto")
    _, said = again.communicate(timeout=600)
    assert again.returncode == 0, said
    assert "resumed from" in said and "at step 2" in said
    assert_equal_runs(whole, out)


@pytest.mark.slow
def test_both_engines_give_the_same_entropy_curve_within_sampling_error_over_three_seeds(tmp_path):
    steps, curves = 60, {}
    # A rate at which entropy moves by several times the noise of a step.
    chosen = (f"--train.steps={steps}", "--train.lr=1e-3", "--checkpoint.every=0", "--target.value=1.5")
    for engine in ("embedded", "vllm"):
        runs = [
            trained(tmp_path / f"{engine}{seed}", *chosen, f"--rollout.engine={engine}", f"--seed={seed}", ranks=2)
            for seed in range(3)
        ]
        assert_learned(runs[0])
        curves[engine] = np.array([[row["entropy"] for row in run] for run in runs])
    moved = np.abs(curves["embedded"][:, -1] - curves["embedded"][:, 0]).mean()
    assert moved > 0.2, "curves that stay where they start would agree whatever the engine does"
    # Five stretches of twelve steps, each compared over the seeds.
    parts = {name: curve.reshape(3, 5, steps // 5).mean(-1) for name, curve in curves.items()}
    p = ttest_ind(parts["embedded"], parts["vllm"], axis=0).pvalue
    print({name: part.round(4).tolist() for name, part in parts.items()}, p.round(3).tolist())
    assert (p > 0.01).all(), (parts, p)
