"""The real command on a CPU: ranks, resume, refusals, real prompts. Each run is a process of its own."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FIXTURE = [{"question": f"What is {i} + {i + 1}?", "answer": f"Add them. #### {2 * i + 1}"} for i in range(12)]
# One warm start of a few seconds for all tests: from random weights no response is right, and nothing would be learned.
WARM_STARTS = tempfile.TemporaryDirectory(prefix="aepo_warm_starts_")
# A short run of the real configuration.
SMALL = (
    "--warm_start.steps=400", "--warm_start.rows=64", f"--warm_start.cache={WARM_STARTS.name}",
    "--train.prompts_per_step=16", "--train.minibatches=2", "--rollout.group_size=4",
    "--evaluation.samples=4", "--evaluation.ks=[1,4]", "--checkpoint.every=2", "--method.cap_up=6",
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(out: Path, *arguments: str, ranks: int = 1) -> subprocess.CompletedProcess:
    """`deepspeed aepo/llm/train.py --config configs/demo_cpu.yaml ...`."""
    command = [
        str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", str(ranks), "--master_port", str(free_port()),
        str(ROOT / "aepo/llm/train.py"), "--config", str(ROOT / "configs/demo_cpu.yaml"), f"--out={out}",
        *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, cwd=out.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def trained(out: Path, *arguments: str, ranks: int = 1, small: Sequence[str] = SMALL) -> list[dict]:
    """The metrics of a run that must succeed."""
    done = launch(out, *small, *arguments, ranks=ranks)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_learned(rows: list[dict]) -> None:
    """The weights moved in more than half of the steps: equality of runs that learn nothing would say nothing."""
    assert sum(row["grad_norm"] > 0 for row in rows) > len(rows) / 2, [row["grad_norm"] for row in rows]


def without_times(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def weights(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / "final" / "model.safetensors")


# The preset's AEPO; a method that scores the rollouts a second time, at the control's temperature; and a controller
# with state, resumed below, whose target is a share of the first entropy.
SCORES_TWICE = ("--method.name=reweighting",)
HAS_STATE = (
    "--method.name=aepo_adaptive", "--method.normalizer=all", "--method.cap_up=null", "--method.cap_down=null",
    "--method.t_low=0.67", "--method.t_high=1.5", "--target.relative=true", "--target.value=0.5",
)  # fmt: skip


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "method", [pytest.param((), id="aepo"), pytest.param(SCORES_TWICE, id="reweighting", marks=SLOW)]
)
def test_two_ranks_give_the_metrics_of_one(tmp_path, method):
    small = [word for word in SMALL if not (method and word.startswith("--method."))]
    one = trained(tmp_path / "one", "--train.steps=5", *method, small=small)
    two = trained(tmp_path / "two", "--train.steps=5", *method, ranks=2, small=small)
    assert [row["step"] for row in one] == list(range(5))
    assert_learned(one)
    for a, b in zip(without_times(one), without_times(two), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if isinstance(a[name], float):
                assert abs(a[name] - b[name]) <= 1e-4, (a["step"], name, a[name], b[name])
            else:
                assert a[name] == b[name], (a["step"], name)


@pytest.mark.parametrize(
    "method", [pytest.param((), id="aepo", marks=SLOW), pytest.param(HAS_STATE, id="aepo_adaptive")]
)
def test_two_steps_resumed_for_two_more_equal_four_bit_for_bit(tmp_path, method):
    small = [word for word in SMALL if not (method and word.startswith("--method."))]
    same = {"small": small}
    whole = trained(tmp_path / "whole", "--train.steps=4", "--controller.sees=previous", *method, **same)
    trained(tmp_path / "parts", "--train.steps=2", "--controller.sees=previous", *method, **same)
    refused = launch(tmp_path / "parts", *small, *method, "--train.steps=4", "--resume", "--train.lr=1e-3")
    assert refused.returncode != 0
    assert "train.lr" in refused.stderr
    parts = trained(tmp_path / "parts", "--train.steps=4", "--controller.sees=previous", *method, "--resume", **same)
    assert without_times(whole) == without_times(parts)
    assert_learned(whole)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)
    loops = [
        torch.load(tmp_path / run / "checkpoints" / "step_000004" / "controller.pt", weights_only=True)
        for run in ("whole", "parts")
    ]
    for name in ("previous_entropy", "initial_entropy"):
        assert torch.equal(loops[0][name], loops[1][name])
    assert loops[0]["state"].keys() == loops[1]["state"].keys() and bool(loops[0]["state"]) == bool(method)
    assert all(torch.equal(loops[0]["state"][name], loops[1]["state"][name]) for name in loops[0]["state"])


@pytest.mark.slow
def test_every_zero_stage_trains_the_same_parameters(tmp_path):
    found = []
    for stage in range(4):
        rows = trained(tmp_path / f"stage{stage}", "--train.steps=5", f"--train.zero_stage={stage}", ranks=2)
        assert_learned(rows)
        found.append(weights(tmp_path / f"stage{stage}"))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_ranks_with_unequal_numbers_of_passes_do_not_wait_for_each_other_for_ever(tmp_path):
    # 8 prompts on one rank, 7 on the other, a few rows in each pass; under ZeRO 3 a pass needs all ranks.
    chosen = (
        "--train.steps=3", "--train.prompts_per_step=15", "--train.micro_batch_tokens=40", "--train.minibatches=1",
        "--watchdog.score=60", "--watchdog.update=60",
    )  # fmt: skip
    found = [trained(tmp_path / f"stage{stage}", *chosen, f"--train.zero_stage={stage}", ranks=2) for stage in (0, 3)]
    assert_learned(found[0])
    for a, b in zip(*found, strict=True):
        for name in ("reward", "entropy", "grad_norm", "loss"):
            assert abs(a[name] - b[name]) <= 1e-5, (a["step"], name)
    assert all(0 <= row["sync/canary"] < 1e-3 for row in found[1])


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_zero_stage_resumes_bit_for_bit_on_two_ranks(tmp_path, stage):
    chosen = (f"--train.zero_stage={stage}", "--controller.sees=previous")
    whole = trained(tmp_path / "whole", "--train.steps=4", *chosen, ranks=2)
    trained(tmp_path / "parts", "--train.steps=2", *chosen, ranks=2)
    parts = trained(tmp_path / "parts", "--train.steps=4", *chosen, "--resume", ranks=2)
    assert_learned(whole)
    assert without_times(whole) == without_times(parts)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_questions_from_a_file_are_sampled_verified_and_trained_on(tmp_path):
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in FIXTURE))
    rows = trained(
        tmp_path / "run", f"--data.train={data}", "--data.held_out_problems=2", "--train.steps=2",
        "--rollout.max_response_tokens=12",
    )  # fmt: skip
    assert len(rows) == 2
    assert all(row["reward"] == 0 and row["entropy"] > 4 for row in rows), "random bytes: near ln 258 and never right"


SLEEPY = """
import time


def reward(response, answer):
    if len(response) % 2:
        time.sleep(1000)
    return 0.5
"""


@pytest.mark.slow
def test_a_verifier_that_falls_asleep_costs_a_deadline_and_is_counted(tmp_path, monkeypatch):
    (tmp_path / "sleepy_verifier.py").write_text(SLEEPY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in FIXTURE))
    rows = trained(
        tmp_path / "run", f"--data.train={data}", "--data.held_out_problems=0", "--train.steps=2",
        "--rollout.max_response_tokens=12", "--train.prompts_per_step=2", "--reward.function=sleepy_verifier:reward",
        "--reward.deadline_seconds=0.3", "--watchdog.reward=60",
    )  # fmt: skip
    for row in rows:
        assert row["reward/timeouts"] > 0 and row["reward/errors"] == 0
        assert 0 < row["reward"] < 0.5 and row["time/reward"] >= 0.3
    refused = launch(
        tmp_path / "other",
        f"--data.train={data}",
        "--data.held_out_problems=0",
        "--reward.function=sleepy_verifier:absent",
    )
    assert refused.returncode != 0 and "'sleepy_verifier' has no 'absent'" in refused.stderr


@pytest.mark.parametrize("name", ["gsm8k_train.jsonl", "dapo_math_17k.parquet"])
def test_published_sets_go_through_the_same_path(tmp_path, name):
    data = ROOT.parent / "shared" / "data" / "math" / name
    if not data.is_file():
        pytest.skip(f"{name} is not beside the repository")
    rows = trained(
        tmp_path / "run", f"--data.train={data}", "--train.steps=1", "--rollout.max_response_tokens=8",
        "--data.held_out_problems=2",
    )  # fmt: skip
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--train.lrr=1"], ["train.lrr", "did you mean 'lr'"]),
        (["--data.train=missing/questions.jsonl"], ["missing/questions.jsonl"]),
        (["--train.minibatches=1000"], ["train.minibatches must be at most", "got 1000"]),
        (["--method.name=aepoo"], ["aepoo", "did you mean 'aepo'"]),
    ],
)
def test_bad_input_is_refused_by_name_before_any_model(tmp_path, arguments, named):
    done = launch(tmp_path / "run", *arguments)
    assert done.returncode != 0
    assert all(text in done.stderr for text in named), done.stderr[-2000:]
    assert "warm start" not in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


def test_train_as_a_file_shadows_no_installed_package(tmp_path):
    import importlib.metadata

    importable = set(importlib.metadata.packages_distributions()) | set(sys.stdlib_module_names)
    beside = {p.stem for p in (ROOT / "aepo/llm").iterdir() if p.suffix == ".py" or p.is_dir()} - {
        "__init__",
        "__pycache__",
    }
    assert "train" in beside
    assert not beside & (importable | {"kernels", "evaluate", "datasets", "types", "tokenize", "queue"})
