"""Training runs beside each other on one machine: each is the real command, and what is done is not done again."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
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

    @property
    def cpu_seconds(self) -> float | None:
        """What a run that has ended computed; None where it was cut off once."""
        return _known(self).get("cpu_seconds")


def warm_start(config: Path) -> Path:
    """The model that every run of this preset starts from, made once before the runs that would each make it.

    Returns:
        Its folder, in transformers' format.

    Raises:
        subprocess.CalledProcessError: it could not be made; what was wrong has been printed.
    """
    (folder,) = warm_starts(config, [()], parallel=1)
    return folder


# Several in one process, since its imports take longer than finding what was made before.
_TEACH = """
import json, logging, sys, torch, transformers
torch.set_num_threads(1)
logging.basicConfig(format="%(message)s")
transformers.utils.logging.disable_progress_bar()
from aepo.llm.policy.warm_start import warm_start
from aepo.llm.questions.loading import load_task
from aepo.llm.settings import load
for number, chosen in json.loads(sys.argv[2]):
    settings = load(sys.argv[1], chosen)
    told = lambda made, of: print("taught", number, made, flush=True)
    print("taught", number, warm_start(settings, load_task(settings), told=told), flush=True)
"""


def warm_starts(config: Path, chosen: Sequence[Sequence[str]], *, parallel: int) -> list[Path]:
    """The models that runs start from, each made once before the runs that would each make it.

    Args:
        config: the preset of all.
        chosen: `section.field=value` over it, of each.
        parallel: how many at a time, >= 1.

    Returns:
        Their folders, in transformers' format.

    Raises:
        subprocess.CalledProcessError: one could not be made; what was wrong has been printed.
    """
    every = [load(config, one) for one in chosen]
    left, made = {number: settings.warm_start.steps for number, settings in enumerate(every)}, {}
    folders: dict[int, Path] = {}
    pace = Pace()
    tasks = " and ".join(dict.fromkeys(settings.data.train for settings in every))
    whom = "the model" if len(every) == 1 else f"{len(every)} models"

    def line() -> str:
        told = pace.told(sum(made.values()), sum(left.values()))
        return f"teaching {whom} the {tasks}, from which every run starts: {told}"

    def teach(some: Sequence[int]) -> None:
        asked = json.dumps([(number, list(chosen[number])) for number in some])
        command = [sys.executable, "-W", "ignore", "-c", _TEACH, str(config), asked]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for text in process.stdout:
                # Libraries print lines of their own.
                if (found := re.fullmatch(r"taught (\d+) (.+)\n", text)) is None:
                    continue
                number, said = int(found[1]), found[2]
                if said.isdecimal():
                    made[number] = int(said)
                    continue
                folders[number] = Path(said)
                # One that was there takes no steps.
                left[number] = left[number] if number in made else 0
                made[number] = left[number]
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)

    with shown(line), ThreadPoolExecutor(parallel) as pool:
        list(pool.map(teach, [range(first, len(every), parallel) for first in range(min(parallel, len(every)))]))
    for number in sorted(folders):
        print(f"warm start: {folders[number]}", flush=True)
    return [folders[number] for number in range(len(every))]


def train(
    jobs: Sequence[Job],
    *,
    config: Path,
    parallel: int,
    keep: bool,
    then: Callable[[Job], object] = lambda job: None,
) -> list[Job]:
    """Run them, so many at a time; those that failed are returned.

    Args:
        jobs: with different folders.
        config: the preset of all.
        parallel: how many at a time, >= 1.
        keep: whether a run that has ended well under the same settings is left as it is, and one that was cut off goes
            on from its last checkpoint; else all are made anew.
        then: is called with each run that has ended well, at once or before, beside the runs that still train.
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
            progress.end(job.folder)
            print(f"[{len(done) + len(progress.ended)}/{len(jobs)}] {job.title}: {state}", flush=True)
        if not code:
            then(job)
        return code

    with shown(progress.line) if rest else contextlib.nullcontext(), ThreadPoolExecutor(parallel) as pool:
        before = pool.map(then, done)
        codes = list(pool.map(one, rest))
        list(before)
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
    summary = job.folder / "summary.json"
    summary.unlink(missing_ok=True)
    began = time.monotonic()
    with job.log.open("a" if resume else "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={"OMP_NUM_THREADS": "1", **os.environ})
        # Not its wait: this one knows how long it computed.
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        return f"FAILED (exit {process.returncode}), see {job.log}", process.returncode
    if not summary.is_file():
        return f"ended by a signal and saved, see {job.log}", 128 + signal.SIGTERM
    # What the part before an interruption took is not known.
    _write(job, settings, finished=True, cpu_seconds=None if resume else used.ru_utime + used.ru_stime)
    return f"done in {time.monotonic() - began:.0f} s", 0


def _known(job: Job) -> dict[str, Any]:
    try:
        return json.loads(job.record.read_text())
    except (OSError, ValueError):
        return {}


def _write(job: Job, settings: dict[str, Any], *, finished: bool, cpu_seconds: float | None = None) -> None:
    kept = {"settings": settings, "finished": finished, "cpu_seconds": cpu_seconds}
    atomic.write_text(job.record, json.dumps(kept, indent=1))
