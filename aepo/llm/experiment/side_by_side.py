"""Training runs beside each other on one machine: each is the real command, and what is done is not done again."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aepo
from aepo import atomic
from aepo.llm.processes.ports import free_port
from aepo.llm.settings import load

ROOT = Path(aepo.__file__).parents[1]
BEFORE = "done before"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run."""

    title: str
    """What a person sees of it."""
    folder: Path
    """Its --out; what it says goes to FOLDER.log, its settings to FOLDER.settings.json."""
    arguments: tuple[str, ...]
    """`--section.field=value` after the preset."""

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def record(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.settings.json")


def warm_start(config: Path) -> Path:
    """The model that every run of this preset starts from, made once before the runs that would each make it.

    Returns:
        Its folder, in transformers' format.

    Raises:
        subprocess.CalledProcessError: it could not be made; what was wrong has been printed.
    """
    code = (
        "import logging, sys, torch, transformers; torch.set_num_threads(1); logging.basicConfig(format='%(message)s');"
        "transformers.utils.logging.disable_progress_bar();"
        "logging.getLogger('aepo').setLevel(logging.INFO);"
        "from aepo.llm.settings import load; from aepo.llm.policy.warm_start import load_task, warm_start;"
        "s = load(sys.argv[1]); print(warm_start(s, load_task(s)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(config)], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(done.stdout.splitlines()[-1])


def train(jobs: Sequence[Job], *, config: Path, parallel: int, keep: bool) -> list[Job]:
    """Run them, so many at a time; those that failed are returned.

    Args:
        jobs: with different folders.
        config: the preset of all.
        parallel: how many at a time, >= 1.
        keep: whether a run that has ended well under the same settings is left as it is, and one that was cut off goes
            on from its last checkpoint; else all are made anew.
    """
    began = time.monotonic()
    states: list[str] = []
    lock = threading.Lock()

    def one(job: Job) -> int:
        state, code = _trained(job, config, keep)
        with lock:
            states.append(state)
            # Runs that were done before took no time and say nothing about the others.
            ran, missing = len(states) - states.count(BEFORE), len(jobs) - len(states)
            left = f"; about {(time.monotonic() - began) / ran * missing / 60:.0f} min left" if ran and missing else ""
            print(f"[{len(states)}/{len(jobs)}] {job.title}: {state}{left}", flush=True)
        return code

    with ThreadPoolExecutor(parallel) as pool:
        codes = list(pool.map(one, jobs))
    return [job for job, code in zip(jobs, codes, strict=True) if code]


def _trained(job: Job, config: Path, keep: bool) -> tuple[str, int]:
    settings = load(config, [argument.removeprefix("--") for argument in job.arguments]).model_dump(mode="json")
    known = _known(job) if keep else {}
    same = known.get("settings") == settings
    if same and known.get("finished"):
        return BEFORE, 0
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    command = [
        launcher, "--master_port", str(free_port()), str(ROOT / "aepo/llm/train.py"), "--config", str(config),
        *job.arguments, f"--out={job.folder}",
        *(["--resume", "auto"] if same else ["--overwrite"]),
    ]  # fmt: skip
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    _write(job, settings, finished=False)
    began = time.monotonic()
    with job.log.open("a" if same else "w") as log:
        code = subprocess.run(
            command, stdout=log, stderr=log, env={"OMP_NUM_THREADS": "1", **os.environ}, check=False
        ).returncode
    if code:
        return f"FAILED (exit {code}), see {job.log}", code
    _write(job, settings, finished=True)
    return f"done in {time.monotonic() - began:.0f} s", 0


def _known(job: Job) -> dict[str, Any]:
    try:
        return json.loads(job.record.read_text())
    except (OSError, ValueError):
        return {}


def _write(job: Job, settings: dict[str, Any], *, finished: bool) -> None:
    atomic.write_text(job.record, json.dumps({"settings": settings, "finished": finished}, indent=1))
