"""Runs that are ended in the middle: by SIGTERM, by kill -9 in each phase, by a rank that hangs. Real processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil  # which DeepSpeed brings
import pytest
import torch
from running import ROOT, SMALL, STEPS, assert_equal_runs, rows, start, trained, weights

from aepo.llm.processes.ports import free_port

# For a run of a quarter of a minute, on a machine that is busy with others.
PATIENCE = 300.0
# Many times what an honest phase takes there.
LATE = 15.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    trained(out, *STEPS)
    return out


def test_sigterm_saves_and_exits_with_0_and_a_damaged_checkpoint_is_passed_over(tmp_path, whole):
    out = tmp_path / "run"
    # More steps than it will make: their number may change on the way.
    running = start(out, "--resume", "auto", "--train.steps=1000")
    metrics = out / "metrics.jsonl"
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 1):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0, said
    saved = sorted((out / "checkpoints").iterdir())
    done = len(rows(out))
    assert saved[-1].name == f"step_{done:06d}" and f"SIGTERM: saved after step {done - 1}" in said
    assert done < 12, "SIGTERM came after the steps that are compared"
    if len(saved) > 1:
        state = max((p for p in saved[-1].rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        state.write_bytes(state.read_bytes()[:-100])
    resumed = start(out, "--resume", "auto")
    _, said = resumed.communicate(timeout=PATIENCE)
    assert resumed.returncode == 0, said
    assert len(saved) == 1 or f"{saved[-1].name} is damaged and passed over" in said
    assert_equal_runs(whole, out)


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused_until_the_first_is_gone(tmp_path):
    """As where a launcher was killed and its ranks go on, and a queue has started the job again."""
    out = tmp_path / "run"
    first = start(out, "--train.steps=100000", "--checkpoint.every=100000")
    metrics = out / "metrics.jsonl"
    while not metrics.is_file():
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.02)
    for chosen in (("--resume", "auto"), ("--overwrite",)):
        second = start(out, *chosen)
        _, said = second.communicate(timeout=PATIENCE)
        assert second.returncode == 2, said
        assert f"error: out={out}: another run works there (process {first.pid} on " in said
    assert first.poll() is None
    first.kill()
    first.communicate()
    assert [row["step"] for row in rows(out)] == list(range(len(rows(out))))
    third = start(out, "--resume", "auto")
    _, said = third.communicate(timeout=PATIENCE)
    assert third.returncode == 0, said


@pytest.mark.slow
@pytest.mark.parametrize("told", ["ranks", "all"])
def test_sigterm_under_the_launcher_saves_too(tmp_path, told):
    """To all, as queues send it: each rank hears it twice, from the queue and from the launcher, which ends with 1."""
    out = tmp_path / "run"
    command = [
        str(Path(sys.executable).with_name("deepspeed")), "--num_gpus=2", f"--master_port={free_port()}",
        str(ROOT / "aepo/llm/train.py"), "--config", str(ROOT / "configs/demo_cpu.yaml"), f"--out={out}",
        *SMALL, "--checkpoint.every=0", "--train.steps=1000",
    ]  # fmt: skip
    with (tmp_path / "said").open("w") as said:
        launcher = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
            stdout=said, stderr=said,
        )  # fmt: skip
    metrics = out / "metrics.jsonl"
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) >= 2):
        assert launcher.poll() is None, (tmp_path / "said").read_text()
        time.sleep(0.02)
    if told == "all":
        os.killpg(launcher.pid, signal.SIGTERM)
    else:
        started = psutil.Process(launcher.pid).children(recursive=True)
        mine = [p for p in started if any(word.startswith("--local_rank=") for word in p.cmdline())]
        assert len(mine) == 2
        mine[1].send_signal(signal.SIGTERM)
    code = launcher.wait(PATIENCE)
    assert told == "all" or code == 0, (tmp_path / "said").read_text()
    deadline = time.monotonic() + PATIENCE
    # The command itself does not wait for what it has started when it is told to end.
    while not re.search(
        r"received SIGTERM, exiting|(exits successfully[^$]*){2}", text := (tmp_path / "said").read_text()
    ):
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
    done = len(rows(out))
    assert [p.name for p in checkpoints(out)] == [f"step_{done:06d}"], text
    assert f"SIGTERM: saved after step {done - 1}" in text and "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["generate", "reward", "score", "update", "save"])
def test_kill_9_in_any_phase_costs_no_step_that_was_saved(tmp_path, whole, phase):
    out = tmp_path / "run"
    killed = start(out, fault=f"kill:{phase}:2")
    killed.communicate(timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    again = start(out, "--resume", "auto")
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert_equal_runs(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize("full", [0, 1])
def test_a_disk_that_is_full_for_one_of_two_ranks_ends_both_at_once_and_the_run_goes_on(tmp_path, full):
    out, port = tmp_path / "run", free_port()
    # A watchdog that comes later than our patience: it is not what ends them.
    chosen = ("--train.zero_stage=1", f"--watchdog.save={2 * PATIENCE:g}")
    ranks = [start(out, *chosen, fault=f"full:save:2:{full}", rank=r, world=2, port=port) for r in range(2)]
    said = [running.communicate(timeout=PATIENCE)[1] for running in ranks]
    assert ranks[full].returncode == 3, said
    assert f"error: rank {full}: writing {out / 'checkpoints' / 'step_000003'} failed (" in said[full]
    assert ranks[1 - full].returncode == 7 and "another rank was lost" in said[1 - full], said
    assert all("Traceback" not in text for text in said), said
    assert [p.name for p in checkpoints(out)] == ["step_000001", "step_000002"]
    port = free_port()
    ranks = [start(out, *chosen, "--resume", "auto", rank=r, world=2, port=port) for r in range(2)]
    said = [running.communicate(timeout=PATIENCE)[1] for running in ranks]
    assert [running.returncode for running in ranks] == [0, 0], said
    assert [row["step"] for row in rows(out)] == list(range(12))
    assert [p.name for p in (out / "checkpoints").iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "said_of_it"),
    [("evaluate", "writing the trained model to {out}/final failed"), ("generate", "make room under out={out}")],
)
def test_a_disk_that_is_full_at_any_other_write_is_one_line_and_a_resume_loses_nothing(
    tmp_path, whole, phase, said_of_it
):
    out = tmp_path / "run"
    at = 12 if phase == "evaluate" else 2
    ended = start(out, fault=f"full:{phase}:{at}:0")
    _, said = ended.communicate(timeout=PATIENCE)
    assert ended.returncode == 3, said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert said_of_it.format(out=out) in line and "File too large" in line, said
    again = start(out, "--resume", "auto")
    _, said = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, said
    assert_equal_runs(whole, out)


def checkpoints(out: Path) -> list[Path]:
    return sorted((out / "checkpoints").glob("step_*"))


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["generate", "update"])
def test_a_rank_that_hangs_ends_the_run_with_the_stacks_of_every_rank(tmp_path, phase):
    port, fault = free_port(), f"hang:{phase}:1:1"
    deadlines = [f"--watchdog.{name}={LATE:g}" for name in ("generate", "score", "update")]
    ranks = [start(tmp_path / "run", *deadlines, fault=fault, rank=r, world=2, port=port) for r in range(2)]
    said = [running.communicate(timeout=PATIENCE)[1] for running in ranks]
    assert [running.returncode for running in ranks] == [4, 4], said
    assert f"rank 1: phase '{phase}' of step 1 has run for {LATE:g} s" in said[1] and "faulty_train.py" in said[1]
    # The other waits for it in a collective, there or in the next phase, and says so.
    assert "rank 0: phase '" in said[0] and f"of step 1 has run for {LATE:g} s" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen", [(), ("--train.zero_stage=3", "--train.dtype=bfloat16")], ids=["float32", "bfloat16"]
)
def test_one_loss_that_is_nan_on_one_rank_costs_one_mini_batch(tmp_path, chosen):
    port = free_port()
    ranks = [start(tmp_path / "run", *chosen, fault="nan:loss:2", rank=r, world=2, port=port) for r in range(2)]
    said = [running.communicate(timeout=PATIENCE)[1] for running in ranks]
    assert [running.returncode for running in ranks] == [0, 0], said
    # Which mini-batch is the first with a gradient, from step 2 on, depends on the machine's arithmetic.
    (step,) = map(int, re.findall(r"step (\d+), mini-batch [12] of 2: the gradient's norm is", said[0]))
    assert "the loss is not finite on rank 1; left out, 1 in a row, 3 are fatal" in said[0]
    found = rows(tmp_path / "run")
    assert step >= 2 and [row["train/skipped"] for row in found] == [int(k == step) for k in range(12)]
    assert all(torch.tensor([row["loss"], row["grad_norm"]]).isfinite().all() for row in found)
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


@pytest.mark.slow
def test_three_losses_in_a_row_that_are_nan_end_the_run_which_goes_on_from_before_them(tmp_path, whole):
    out, port = tmp_path / "run", free_port()
    # Two mini-batches a step, of which one may have no gradient: the third is one of step 3, and step_000003 was saved
    # before it.
    ranks = [start(out, "--watchdog.update=60", fault="nan:loss:2:3", rank=r, world=2, port=port) for r in range(2)]
    said = [running.communicate(timeout=PATIENCE)[1] for running in ranks]
    assert [running.returncode for running in ranks] == [6, 6], said
    for rank, text in enumerate(said):
        (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
        assert re.match(rf"error: rank {rank}: step 3, mini-batch [12] of 2: the gradient's norm is ", line), line
        assert "the loss is not finite on rank 1; neither were those of the 2 mini-batches before" in line
        assert "Traceback" not in text
    skipped = [row["train/skipped"] for row in rows(out)]
    assert skipped in ([0, 0, 2], [0, 0, 1]), "the step that failed is not there"
    saved = sorted(p.name for p in (out / "checkpoints").iterdir())
    assert saved == ["step_000002", "step_000003"]
    progress = json.loads((out / "checkpoints" / "step_000003" / "progress.json").read_text())
    # The weights after step 2 are those before it.
    assert progress["skipped_in_a_row"] == skipped[2] and progress["updates"] == rows(out)[2]["sync/weight_version"] > 0
    port = free_port()
    ranks = [start(out, "--resume", "auto", rank=r, world=2, port=port) for r in range(2)]
    said = [running.communicate(timeout=PATIENCE)[1] for running in ranks]
    assert [running.returncode for running in ranks] == [0, 0], said
    assert [row["step"] for row in rows(out)] == list(range(12))
    # Up to the fault the run was the one without it.
    assert all(abs(a["loss"] - b["loss"]) < 1e-4 for a, b in zip(rows(out)[:2], rows(whole)[:2], strict=True))
