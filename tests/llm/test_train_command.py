"""The real command on a CPU: ranks, resume, refusals, real prompts. Each run is a process of its own."""

import json
import math
import shutil
import sys

import pytest
import torch
from running import FIXTURE, ROOT, SMALL, assert_learned, assert_trained_alike, launch, trained, weights, without_times

from aepo.llm.records.verl_names import ALIASES

# The preset's AEPO; a method that scores the rollouts a second time, at the control's temperature; and a controller
# with state, resumed below, whose target is a share of the first entropy.
SCORES_TWICE = ("--method.name=reweighting",)
HAS_STATE = (
    "--method.name=aepo_adaptive", "--method.normalizer=all", "--method.cap_up=null", "--method.cap_down=null",
    "--method.t_low=0.67", "--method.t_high=1.5", "--target.relative=true", "--target.value=0.5",
)  # fmt: skip
# The same with limits that widen, towards a target that needs it: more prompts are sampled again from step to step.
WIDENS = (
    "--method.name=aepo_reach", "--method.normalizer=all", "--method.cap_up=null", "--method.cap_down=null",
    "--method.grow=2", "--target.value=2.5",
)  # fmt: skip


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "method",
    [pytest.param((), id="aepo"), pytest.param(SCORES_TWICE, id="reweighting", marks=[SLOW, pytest.mark.exhaustive])],
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
    "method",
    [
        pytest.param((), id="aepo", marks=[SLOW, pytest.mark.exhaustive]),
        pytest.param(HAS_STATE, id="aepo_adaptive", marks=[SLOW, pytest.mark.exhaustive]),
        pytest.param(WIDENS, id="aepo_reach"),
    ],
)
def test_two_steps_resumed_for_two_more_equal_four_bit_for_bit(tmp_path, method):
    small = [word for word in SMALL if not (method and word.startswith("--method."))]
    same = {"small": small}
    whole = trained(tmp_path / "whole", "--train.steps=4", "--controller.sees=previous", *method, **same)
    trained(tmp_path / "parts", "--train.steps=2", "--controller.sees=previous", "--log.samples=2", *method, **same)
    refused = launch(tmp_path / "parts", *small, *method, "--train.steps=4", "--resume", "--train.lr=1e-3")
    assert refused.returncode != 0
    assert "train.lr" in refused.stderr
    # What is shown may change between the parts of a run.
    parts = trained(
        tmp_path / "parts", "--train.steps=4", "--controller.sees=previous", *method, "--resume",
        "--log.samples_every=3", **same,
    )  # fmt: skip
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "samples.jsonl").read_text().splitlines()]
    assert steps == [0] * 2 * 2 + [3] * 2 * 4, "two and then four of each temperature"
    assert set(ALIASES.values()) - {"lr"} <= parts[0].keys()
    assert all(row["perf/tokens_per_second"] > 0 and row["perf/memory_gib"] > 0.01 for row in parts)
    # 16 prompts and a quarter of them again, four responses each, to prompts of two tokens.
    assert all(row["perf/tokens"] > 20 * 4 * (2 + 3) for row in parts)
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
def test_e3_samples_at_its_temperature_is_compared_there_and_resumes_bit_for_bit(tmp_path):
    chosen = ("--method.name=e3", "--method.vocabulary=4", "--target.value=2.6", "--log.samples=2")
    same = {"small": [word for word in SMALL if not word.startswith("--method.")]}
    whole = trained(tmp_path / "whole", "--train.steps=4", "--log.samples_every=1", *chosen, **same)
    assert [row["entropy_off_policy"] for row in whole] == [False, True, True, True]
    assert whole[0]["entropy"] < 2.6 and whole[0]["temperature"] > 1.05
    # Each step samples at what the step before chose, and engine and trainer agree there.
    shown = [json.loads(line) for line in (tmp_path / "whole" / "samples.jsonl").read_text().splitlines()]
    chose = [1.0, *(row["temperature"] for row in whole)]
    assert {(row["branch"], row["temperature"] - chose[row["step"]]) for row in shown} == {("main", 0.0)}
    assert all(row["mismatch/abs"] < 1e-4 for row in whole)
    trained(tmp_path / "parts", "--train.steps=2", *chosen, **same)
    parts = trained(tmp_path / "parts", "--train.steps=4", "--resume", *chosen, **same)
    assert without_times(whole) == without_times(parts)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_every_zero_stage_trains_the_same_parameters(tmp_path):
    found = []
    for stage in range(4):
        rows = trained(tmp_path / f"stage{stage}", "--train.steps=5", f"--train.zero_stage={stage}", ranks=2)
        assert_learned(rows)
        found.append(weights(tmp_path / f"stage{stage}"))
    for other in found[1:]:
        assert_trained_alike(other, found[0])


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
@pytest.mark.parametrize(
    "stage", [pytest.param(1, marks=pytest.mark.exhaustive), pytest.param(2, marks=pytest.mark.exhaustive), 3]
)
def test_every_zero_stage_resumes_bit_for_bit_on_two_ranks(tmp_path, stage):
    chosen = (f"--train.zero_stage={stage}", "--controller.sees=previous")
    whole = trained(tmp_path / "whole", "--train.steps=4", *chosen, ranks=2)
    trained(tmp_path / "parts", "--train.steps=2", *chosen, ranks=2)
    parts = trained(tmp_path / "parts", "--train.steps=4", *chosen, "--resume", ranks=2)
    assert_learned(whole)
    assert without_times(whole) == without_times(parts)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)


HALF = (
    "--train.dtype=bfloat16", "--controller.sees=previous", "--train.lr=3e-4", "--train.lr_schedule=cosine",
    "--train.steps=4",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.exhaustive
def test_every_zero_stage_in_bfloat16_resumes_bit_for_bit_and_agrees_with_the_others(tmp_path):
    found = []
    for stage in range(4):
        chosen = (*HALF, f"--train.zero_stage={stage}")
        out = tmp_path / f"stage{stage}"
        whole = trained(out, *chosen, ranks=2)
        first = weights(out)
        # As if it had been killed after the checkpoint of its second step: a falling rate knows the number of steps.
        shutil.rmtree(out / "checkpoints" / "step_000004")
        (out / "final").rename(out / "final of the whole")
        parts = trained(out, *chosen, "--resume", ranks=2)
        assert_learned(whole)
        assert without_times(whole) == without_times(parts)
        second = weights(out)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert all(value.dtype == torch.bfloat16 for value in first.values())
        # 3e-4 falls to a tenth in 4 x 2 optimizer steps; a mini-batch without a live row takes none.
        steps = json.loads((out / "checkpoints" / "step_000004" / "progress.json").read_text())["updates"]
        assert 6 <= steps <= 8
        assert whole[-1]["lr"] == pytest.approx(3e-5 + 2.7e-4 * (1 + math.cos(math.pi * (steps - 1) / 7)) / 2)
        found.append((whole, first))
    # The same samples as long as no rounding has moved one, which in the first step there is none to do.
    rows = [whole for whole, _ in found]
    for other in rows[1:]:
        assert other[0]["entropy"] == pytest.approx(rows[0][0]["entropy"], abs=0.02)
        assert other[0]["grad_norm"] == pytest.approx(rows[0][0]["grad_norm"], rel=0.05)
    for _, other in found[1:]:
        for name, value in found[0][1].items():
            # Eight steps of at most 3e-4 each, and half a unit in the last place of what they are added to.
            apart = (other[name].float() - value.float()).abs()
            assert (apart <= 2 * 8 * 3e-4 + 2**-8 * value.float().abs()).all(), name
    # ZeRO 3 samples from a copy, whose log-probs are compared with the trainer's after every push.
    assert all(0 <= row["sync/canary"] < 0.05 for row in rows[3])


@pytest.mark.slow
def test_checkpointing_and_offload_and_released_buffers_train_the_same(tmp_path):
    plain = trained(tmp_path / "plain", "--train.steps=3", "--train.zero_stage=3", ranks=2)
    more = trained(
        tmp_path / "more", "--train.steps=3", "--train.zero_stage=3", "--train.gradient_checkpointing=true",
        "--train.offload_optimizer=true", "--train.release_buffers=true", ranks=2,
    )  # fmt: skip
    assert_learned(plain)
    for a, b in zip(plain, more, strict=True):
        for name in ("loss", "grad_norm", "entropy", "reward"):
            assert abs(a[name] - b[name]) <= 1e-5, (a["step"], name)
    assert_trained_alike(weights(tmp_path / "more"), weights(tmp_path / "plain"))


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
        # A random model's responses do not end, and none would keep its reward.
        "--reward.truncated=graded",
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
