"""Stage train: the trainer's real command on one rank, with NCCL on a GPU and gloo on a CPU.

A small model from scratch on the walk task, a plain run first; then ZeRO 3 in bfloat16 with everything that a large
model needs; then that run resumed to more steps. Each ends with an export.
"""

import dataclasses
import json
import math
import sys
from pathlib import Path

import aepo.llm
from aepo.llm.gpu_check import aloud, packages
from aepo.llm.gpu_check.findings import Facts, Findings, LeftOut, Wrong

TRAIN = Path(aepo.llm.__file__).with_name("train.py")
NEEDED = ("torch", "transformers", "deepspeed", "pydantic")
SETTINGS = {
    "model": {"hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": 160},
    "data": {"train": "walk"},
    # Enough that some answers are right: without any there is no gradient.
    "warm_start": {"steps": 100, "rows": 128, "cache": "warm_start"},
    "rollout": {"engine": "embedded", "group_size": 8, "max_response_tokens": 5},
    "method": {"name": "aepo"},
    "target": {"value": 0.5},
    "train": {"prompts_per_step": 32, "minibatches": 2, "lr": 4.5e-4},
    "evaluation": {"samples": 8, "ks": [1, 4]},
}
"""Of every run, apart from its steps."""
LARGE = {
    "train.zero_stage": "3",
    "train.dtype": "bfloat16",
    "train.packing": "true",
    "train.gradient_checkpointing": "true",
    "train.release_buffers": "true",
}
"""What the presets of large models turn on."""
SHOWN = ("entropy", "grad_norm", "sync/canary", "perf/tokens_per_second", "perf/memory_gib", "time/step")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One start of the command."""

    name: str
    folder: Path
    """Relative to the stage's folder."""
    steps: int
    every: int
    """Steps from one checkpoint to the next."""
    changes: dict[str, str]
    resumed: bool = False


def run(findings: Findings) -> None:
    """Three runs; the last needs the one before."""
    absent = [name for name in NEEDED if not packages.installed(name)]
    if absent:
        raise LeftOut(f"not installed: {', '.join(absent)}")
    import torch

    steps = 20 if torch.cuda.is_available() else 2
    half = max(1, steps // 2)
    Path("settings.yaml").write_text(json.dumps(SETTINGS))
    plain = Run(name="plain", folder=Path("plain"), steps=steps, every=half, changes={})
    large = Run(
        name="ZeRO 3, bfloat16, packed, checkpointed, buffers released",
        folder=Path("large"),
        steps=steps,
        every=half,
        changes=LARGE,
    )
    again = dataclasses.replace(large, name="the same resumed", steps=steps + half, resumed=True)
    findings.check(plain.name, lambda: trained(plain))
    if findings.check(large.name, lambda: trained(large)):
        findings.check(again.name, lambda: trained(again))
    else:
        findings.left_out(again.name, "the run that it goes on from did not end well")


def trained(one: Run) -> Facts:
    """Run the command; what its last step measured."""
    # Bound only seconds later, by a process that is still importing torch.
    from aepo.llm.processes.ports import free_port

    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    rank |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, str(TRAIN), "--config", "settings.yaml", f"--out={one.folder}"]
    command += [f"--train.steps={one.steps}", f"--checkpoint.every={one.every}"]
    command += [f"--{name}={value}" for name, value in one.changes.items()] + ["--resume"] * one.resumed
    done = aloud.run(command, environment=rank)
    if done.code:
        raise Wrong(f"exit code {done.code}: {done.last_line[:300]}")
    return judged(one)


def judged(one: Run) -> Facts:
    """What the run left in its folder: every step once, some gradient, and an export."""
    rows = [json.loads(line) for line in (one.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "step" in row]
    if steps != list(range(one.steps)):
        raise Wrong(f"its metrics are of steps {steps}, not of 0 to {one.steps - 1}")
    norms = [row["grad_norm"] for row in rows]
    if not all(map(math.isfinite, norms)) or not any(norms):
        raise Wrong(f"the gradient's norms are {norms}")
    exported = sum(file.stat().st_size for file in (one.folder / "final").glob("*.safetensors"))
    if not exported:
        raise Wrong("there is no export")
    last = {name: rows[-1][name] for name in SHOWN if name in rows[-1]}
    return {"steps": len(steps), **last, "exported MB": exported / 1e6}
