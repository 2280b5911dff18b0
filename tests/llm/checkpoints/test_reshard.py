"""Runs that go on with other ranks than they began with, and runs over two nodes of which one may die. Real processes.

Two nodes are two starts of DeepSpeed's own launcher on this machine, one rank each.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from running import ROOT, SMALL, assert_learned, assert_trained_alike, rows, trained, weights, without_times

from aepo.llm.processes.ports import free_port

pytestmark = pytest.mark.slow
# Further combinations of what the others cover: too long for every change.
EXHAUSTIVE = pytest.mark.exhaustive

DEEPSPEED = str(Path(sys.executable).with_name("deepspeed"))


def dumped(out: Path, *arguments: str, ranks: int) -> tuple[list[dict], str]:
    """Metrics and words of a run that also writes its weights and moments beside its checkpoints."""
    command = [
        DEEPSPEED, "--num_gpus", str(ranks), "--master_port", str(free_port()),
        str(Path(__file__).with_name("dumping_train.py")), "--config", str(ROOT / "configs/demo_cpu.yaml"),
        f"--out={out}", *SMALL, "--train.steps=4", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DUMP": str(out.parent), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=out.parent, env=environment)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return rows(out), done.stderr


def assert_close(rows: list[dict], others: list[dict], *, atol: float) -> None:
    """Equal in every entry, numbers to atol."""
    assert len(rows) == len(others)
    for a, b in zip(without_times(rows), without_times(others), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if isinstance(a[name], float):
                assert abs(a[name] - b[name]) <= atol, (a["step"], name, a[name], b[name])
            else:
                assert a[name] == b[name], (a["step"], name)


def assert_the_same_was_loaded(folder: Path) -> None:
    before, after = (torch.load(folder / f"{name}_2.pt") for name in ("saved", "restored"))
    assert before.keys() == after.keys() and {name.rpartition("/")[2] for name in before} == {
        "weight", "exp_avg", "exp_avg_sq", "computes"
    }  # fmt: skip
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
        assert value.abs().max() > 0, name


@pytest.mark.parametrize(
    ("stage", "saved", "resumed"),
    [
        (3, 2, 1),
        *(
            pytest.param(*case, marks=EXHAUSTIVE)
            for case in [
                (0, 1, 2), (0, 2, 1), (1, 1, 2), (1, 2, 1), (2, 1, 2), (2, 2, 1), (2, 2, 3), (3, 1, 2), (3, 2, 3),
            ]
        ),
    ],
)  # fmt: skip
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path, stage, saved, resumed):
    out = tmp_path / "run"
    chosen = (f"--train.zero_stage={stage}", "--controller.sees=previous")
    whole, _ = dumped(out, *chosen, ranks=saved)
    assert_learned(whole)
    whole_weights = weights(out)
    # As if it had been killed after the checkpoint at step 2.
    shutil.rmtree(out / "checkpoints" / "step_000004")
    parts, said = dumped(out, *chosen, "--resume", "auto", ranks=resumed)
    assert said.count(f"converting from {saved} to {resumed} ranks") == (1 if stage else 0)
    assert_the_same_was_loaded(tmp_path)
    assert_close(whole, parts, atol=1e-5)
    assert_trained_alike(weights(out), whole_weights)
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == ["step_000002", "step_000004"]


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        (3, "dtype=bfloat16"),
        *(
            pytest.param(*case, marks=EXHAUSTIVE)
            for case in [
                (1, "dtype=bfloat16"), (1, "offload_optimizer=true"), (2, "offload_optimizer=true"),
                (2, "dtype=bfloat16"), (3, "offload_optimizer=true"),
            ]
        ),
    ],
)  # fmt: skip
def test_weights_and_moments_survive_it_in_half_precision_and_in_host_memory(tmp_path, stage, more):
    # Half precision rounds otherwise where a pass holds other rows, so later steps are not compared here.
    out = tmp_path / "run"
    dumped(out, f"--train.zero_stage={stage}", f"--train.{more}", ranks=2)
    shutil.rmtree(out / "checkpoints" / "step_000004")
    parts, said = dumped(out, f"--train.zero_stage={stage}", f"--train.{more}", "--resume", ranks=1)
    assert "converting from 2 to 1 ranks" in said and [row["step"] for row in parts] == [0, 1, 2, 3]
    assert_the_same_was_loaded(tmp_path)


@pytest.mark.parametrize(("saved", "resumed"), [(1, 2), pytest.param(2, 1, marks=EXHAUSTIVE)])
def test_zero_1_and_2_may_be_exchanged_and_others_are_refused(tmp_path, saved, resumed):
    out = tmp_path / "run"
    whole, _ = dumped(out, f"--train.zero_stage={saved}", ranks=2)
    whole_weights = weights(out)
    shutil.rmtree(out / "checkpoints" / "step_000004")
    parts, _ = dumped(out, f"--train.zero_stage={resumed}", "--resume", ranks=2)
    assert_the_same_was_loaded(tmp_path)
    assert_close(whole, parts, atol=1e-5)
    assert_trained_alike(weights(out), whole_weights)
    with pytest.raises(AssertionError, match=rf"train.zero_stage: checkpoint {resumed}, now 3"):
        trained(out, "--train.steps=6", "--train.zero_stage=3", "--resume", ranks=2)


def node(rank: int, out: Path, *arguments: str, port: int) -> subprocess.Popen:
    """One of two nodes with a rank each, as `deepspeed --hostfile` starts it without ssh."""
    hosts = out.parent / "hosts"
    hosts.write_text("first slots=1\nsecond slots=1\n")
    command = [
        DEEPSPEED, "--hostfile", str(hosts), "--no_ssh", "--node_rank", str(rank), "--master_addr", "127.0.0.1",
        "--master_port", str(port), str(ROOT / "aepo/llm/train.py"), "--config", str(ROOT / "configs/demo_cpu.yaml"),
        f"--out={out}", *SMALL, *arguments,
    ]  # fmt: skip
    # A session of its own, so that its launcher and its rank can be killed together.
    return subprocess.Popen(
        command, cwd=out.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def nodes(out: Path, *arguments: str) -> list[dict]:
    """The metrics of a run over two nodes that must succeed."""
    port = free_port()
    running = [node(rank, out, *arguments, port=port) for rank in range(2)]
    said = [one.communicate(timeout=300)[1] for one in running]
    assert [one.returncode for one in running] == [0, 0], said
    return rows(out)


STEPS = ("--train.steps=12", "--checkpoint.every=1", "--controller.sees=previous", "--train.zero_stage=1")


@pytest.fixture(scope="module")
def one_node(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("one_node") / "run"
    assert_learned(trained(out, *STEPS, ranks=2))
    return out


def assert_equal_weights(out: Path, other: Path) -> None:
    first, second = weights(out), weights(other)
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_two_nodes_give_the_metrics_of_two_ranks_on_one(tmp_path, one_node):
    assert without_times(nodes(tmp_path / "run", *STEPS)) == without_times(rows(one_node))
    assert_equal_weights(tmp_path / "run", one_node)


# Rank 0 holds the ranks' meeting point, so its loss shows itself in other ways than another's.
@pytest.mark.parametrize("dies", [1, 0])
def test_a_node_that_dies_ends_the_other_which_says_so_and_both_go_on(tmp_path, one_node, dies):
    out, port = tmp_path / "run", free_port()
    # More steps than it will make: their number may change on the way.
    running = [node(rank, out, *STEPS, "--train.steps=1000", port=port) for rank in range(2)]
    metrics = out / "metrics.jsonl"
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < 3:
        assert all(one.poll() is None for one in running), [one.communicate() for one in running]
        time.sleep(0.02)
    os.killpg(running[dies].pid, signal.SIGKILL)
    _, said = running[1 - dies].communicate(timeout=300)
    assert running[1 - dies].returncode == 7, said
    (told,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert (
        told.startswith(f"error: rank {1 - dies}: another rank was lost or does not answer (")
        and "--resume auto" in told
    )
    assert "Traceback" not in said
    assert len(rows(out)) < 12, "it died after the steps that are compared"
    assert without_times(nodes(out, *STEPS, "--resume", "auto")) == without_times(rows(one_node))
    assert_equal_weights(out, one_node)


def test_eight_ranks_of_zero_3_make_two_steps(tmp_path):
    done = trained(
        tmp_path / "run", "--train.steps=2", "--train.zero_stage=3", "--checkpoint.every=0", "--evaluation.samples=0",
        ranks=8,
    )  # fmt: skip
    assert [row["step"] for row in done] == [0, 1]
    assert_learned(done)
    assert all(0 <= row["sync/canary"] < 1e-3 for row in done)
