"""Runs a stage in a process of its own and tells how it ended; nothing that happens there is an error here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import aepo
from aepo.llm.gpu_check.findings import ENDED
from aepo.llm.gpu_check.stages import Stage

PACKAGE = Path(aepo.__file__).parent
Status = Literal["passed", "failed", "left out"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How one check ended."""

    what: str
    status: Status
    why: str | None
    """Of a check that failed or was left out."""
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one stage ended."""

    stage: Stage
    status: Status
    """Failed if any check failed or the process did not come to its end; left out if no check could be made."""
    why: str | None
    """Of a stage that failed or was left out."""
    seconds: float
    findings: tuple[Finding, ...]

    def facts(self, what: str) -> Mapping[str, Any] | None:
        """The figures of a check that passed, or None."""
        return next((one.facts for one in self.findings if one.what == what and one.status == "passed"), None)


def checkout() -> Path | None:
    """The project's folder with its tests, or None where the package is installed without them."""
    root = PACKAGE.parent
    return root if (root / "tests").is_dir() and (root / "pyproject.toml").is_file() else None


def run(stage: Stage, *, scratch: Path, log: BinaryIO) -> Outcome:
    """Run one stage; whatever it started has ended afterwards.

    Args:
        scratch: an existing folder for what is not kept.
        log: takes what the stage prints.
    """
    log.write(f"\n=== {stage.name}\n".encode())
    log.flush()
    path = scratch / f"{stage.name}.jsonl"
    command = [sys.executable, "-m", f"{__package__}.one_stage", stage.module, str(path), str(stage.seconds)]
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd=scratch,
        env=_environment(),
        start_new_session=True,
    )
    try:
        ended = _reason(process.wait(timeout=stage.seconds))
    except subprocess.TimeoutExpired:
        ended = f"it did not end within {stage.seconds:g} s"
    finally:
        _end(process)
    seconds = time.monotonic() - began
    return _outcome(stage, path, ended, seconds)


def _environment() -> dict[str, str]:
    own = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    # What a stage computes on the CPU is small: a second thread costs more than it brings, on a busy machine above all.
    own["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
    # Stages run elsewhere, and one starts the trainer by its file. An installed package is found anyway, and its folder
    # must not come before the standard library.
    if PACKAGE.parent.name not in ("site-packages", "dist-packages"):
        own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    return os.environ | own


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a process and of all that it started, which are one group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _reason(code: int) -> str | None:
    """What an exit code says, or None for one that a stage gives by intention."""
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}" if code else None


def _outcome(stage: Stage, path: Path, ended: str | None, seconds: float) -> Outcome:
    found, whole = _read(path)
    if ended is None and not whole:
        ended = "it ended before its end"
    failed = [one for one in found if one.status == "failed"]
    left_out = [one for one in found if one.status == "left out"]
    status: Status = "passed"
    why = None
    if ended or failed:
        status = "failed"
        first = f"{failed[0].what}: {failed[0].why}" if failed else None
        why = "; ".join(filter(None, [ended, first]))
    elif not found or len(left_out) == len(found):
        status, why = "left out", left_out[0].why if left_out else "it made no check"
    return Outcome(stage=stage, status=status, why=why, seconds=round(seconds, 1), findings=tuple(found))


def _read(path: Path) -> tuple[list[Finding], bool]:
    """The checks, and whether the stage came to its end; a line that is none is a check that failed."""
    found: dict[str, Finding] = {}
    whole = False
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            one = json.loads(line)
            what, status = one["what"], one["status"]
        except (ValueError, TypeError, KeyError):
            found["its own record"] = Finding(
                what="its own record", status="failed", why=f"holds a line that is none: {line[:80]!r}", facts={}
            )
            continue
        if what == ENDED:
            whole = True
        elif status == "begun":
            found[what] = Finding(what=what, status="failed", why="the stage ended in the middle of it", facts={})
        else:
            found[what] = Finding(what=what, status=status, why=one["why"], facts=one["facts"])
    return list(found.values()), whole
