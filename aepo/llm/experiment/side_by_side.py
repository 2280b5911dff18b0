"""Training runs beside each other on one machine: each is the real command, and what is done is not done again."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aepo import atomic
from aepo.llm.experiment.waiting import Pace, Progress, shown
from aepo.llm.processes import launch
from aepo.llm.settings import load


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
        "from aepo.llm.settings import load; from aepo.llm.questions.loading import load_task;"
        "from aepo.llm.policy.warm_start import warm_start;"
        "s = load(sys.argv[1]);"
        "print(warm_start(s, load_task(s), told=lambda made, of: print(made, of, flush=True)))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(config)]
    pace, said = Pace(), "0 0"

    def line() -> str:
        made, of = map(int, said.split())
        return f"teaching the model the walk, from which every run starts: {pace.told(made, of)}"

    folder = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, shown(line):
        for text in process.stdout:
            if re.fullmatch(r"\d+ \d+\n", text):
                said = text
            else:
                folder = Path(text.rstrip("\n"))
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    print(f"warm start: {folder}", flush=True)
    return folder


def train(jobs: Sequence[Job], *, config: Path, parallel: int, keep: bool) -> list[Job]:
    """Run them, so many at a time; those that failed are returned.

    Args:
        jobs: with different folders.
        config: the preset of all.
        parallel: how many at a time, >= 1.
        keep: whether a run that has ended well under the same settings is left as it is, and one that was cut off goes
            on from its last checkpoint; else all are made anew.
    """
    asked = {job: _settings(job, config) for job in jobs}
    known = {job: _known(job) if keep else {} for job in jobs}
    same = {job for job in jobs if known[job].get("settings") == asked[job]}
    done = [job for job in jobs if job in same and known[job].get("finished")]
    for number, job in enumerate(done, 1):
        print(f"[{number}/{len(jobs)}] {job.title}: done before", flush=True)
    rest = [job for job in jobs if job not in done]
    progress = Progress(
        {job.folder: asked[job]["train"]["steps"] for job in rest}, resumed=frozenset(job.folder for job in same)
    )
    lock = threading.Lock()

    def one(job: Job) -> int:
        state, code = _trained(job, config, asked[job], resume=job in same)
        with lock:
            progress.ended.add(job.folder)
            print(f"[{len(done) + len(progress.ended)}/{len(jobs)}] {job.title}: {state}", flush=True)
        return code

    if not rest:
        return []
    with shown(progress.line), ThreadPoolExecutor(parallel) as pool:
        codes = list(pool.map(one, rest))
    return [job for job, code in zip(rest, codes, strict=True) if code]


def _settings(job: Job, config: Path) -> dict[str, Any]:
    return load(config, [argument.removeprefix("--") for argument in job.arguments]).model_dump(mode="json")


def _trained(job: Job, config: Path, settings: dict[str, Any], *, resume: bool) -> tuple[str, int]:
    # As `aepo train`: one rank is that process itself, and a launcher and its child would load DeepSpeed twice more.
    command = [
        sys.executable, "-P", "-u", "-m", launch.__name__, "--config", str(config), *job.arguments,
        f"--out={job.folder}", *(["--resume", "auto"] if resume else ["--overwrite"]),
    ]  # fmt: skip
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    _write(job, settings, finished=False)
    began = time.monotonic()
    with job.log.open("a" if resume else "w") as log:
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
