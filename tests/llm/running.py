"""Runs of the real command on a CPU, each a process of its own, and what they leave."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from aepo.llm.processes.ports import free_port

ROOT = Path(__file__).parents[2]
FIXTURE = [{"question": f"What is {i} + {i + 1}?", "answer": f"Add them. #### {2 * i + 1}"} for i in range(12)]
# One warm start of some seconds for all tests. It makes one response in six right: with fewer, a mini-batch has now and
# then no row to learn from, and which one depends on the machine.
WARM_STARTS = tempfile.TemporaryDirectory(prefix="aepo_warm_starts_")
# A short run of the real configuration.
SMALL = (
    "--warm_start.steps=600", "--warm_start.rows=96", f"--warm_start.cache={WARM_STARTS.name}",
    "--train.prompts_per_step=16", "--train.minibatches=2", "--rollout.group_size=4",
    "--evaluation.samples=4", "--evaluation.ks=[1,4]", "--checkpoint.every=2", "--method.cap_up=6",
)  # fmt: skip


def launch(out: Path, *arguments: str, ranks: int = 1, port: int | None = None) -> subprocess.CompletedProcess:
    """`deepspeed aepo/llm/train.py --config configs/demo_cpu.yaml ...`."""
    command = [
        str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", str(ranks),
        "--master_port", str(port or free_port()),
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
    return rows(out)


def assert_learned(rows: list[dict]) -> None:
    """The weights moved in more than half of the steps: equality of runs that learn nothing would say nothing."""
    assert sum(row["grad_norm"] > 0 for row in rows) > len(rows) / 2, [row["grad_norm"] for row in rows]


def without_times(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.startswith(("time/", "perf/"))} for row in rows]


def weights(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(out / "final" / "model.safetensors")


def assert_trained_alike(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], lr: float = 4.5e-4) -> None:
    """Equal up to rounding. Adam divides each gradient by its own size, so where a gradient is little more than
    rounding an element may end some steps away: few may lie apart, and all together by a hundredth of a step `lr`.
    """
    assert first.keys() == second.keys()
    elements = total = 0
    for name, value in first.items():
        apart = (second[name].double() - value.double()).abs()
        assert (apart > 1e-5).sum() <= max(1, apart.numel() // 1000), (name, (apart > 1e-5).sum(), apart.max())
        elements, total = elements + apart.numel(), total + apart.square().sum()
    assert (total / elements).sqrt() <= 1e-2 * lr, (total / elements).sqrt()


STEPS = ("--train.steps=12", "--checkpoint.every=1", "--controller.sees=previous")


def start(out: Path, *arguments: str, fault: str | None = None, rank: int = 0, world: int = 1, port: int = 0):
    """One rank, started by hand."""
    script = ROOT / "aepo/llm/train.py" if fault is None else Path(__file__).with_name("faulty_train.py")
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port()), "FAULT": fault or "",
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, str(script), "--config", str(ROOT / "configs/demo_cpu.yaml"), f"--out={out}", *SMALL]
    return subprocess.Popen(
        [*command, *STEPS, *arguments], cwd=out.parent, env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_equal_runs(whole: Path, parts: Path) -> None:
    assert without_times(rows(whole)) == without_times(rows(parts))
    first, second = weights(whole), weights(parts)
    assert all(torch.equal(first[name], second[name]) for name in first)
