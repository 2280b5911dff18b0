"""A checkpoint for another number of ranks: DeepSpeed's own converter, into a folder beside it that is deleted again.

ZeRO 1 to 3 part the optimizer's state (3 also the weights) over the ranks that saved it. `ds_to_universal` puts every
tensor together and each rank then loads its own part. Folders must be seen by all nodes.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aepo.errors import NOT_WRITTEN, AepoError
from aepo.llm.processes import ranks

# The ranks' fragments and the whole tensors lie side by side before the fragments go; each as large as the checkpoint.
ROOM = 2.0
POLL_SECONDS = 0.5
CONVERTER = "deepspeed.checkpoint.ds_to_universal"
# Its own process, which may load what `unpickling` allows and, unless the checkpoint is trusted, nothing else.
_CONVERT = f"""
import runpy
from aepo.llm.checkpoints.unpickling import allow_deepspeed
with allow_deepspeed():
    runpy.run_module({CONVERTER!r}, run_name="__main__", alter_sys=True)
"""


class ConversionError(AepoError):
    """A checkpoint that could not be converted; it is as it was."""

    exit_code = NOT_WRITTEN
    of_one_rank = True


def parts(folder: Path) -> int:
    """How many ranks the checkpoint's optimizer state is parted over; 0 where it is whole, as under ZeRO 0."""
    return len(list((folder / "state").glob("*_optim_states.pt")))


@contextlib.contextmanager
def universal(folder: Path) -> Iterator[Path]:
    """The checkpoint in DeepSpeed's universal form, as long as this is open; entered and left by all ranks together.

    Raises:
        ConversionError: on every rank; no room, or what the converter said.
    """
    # A folder of its own: a killed run's converter may still write into the one before.
    owner = int(ranks.largest(float(os.getpid() if ranks.rank() == 0 else 0)))
    beside = folder.with_name(f".{folder.name}.universal.{owner}")
    try:
        problem = _converted(folder, beside)
        if ranks.anywhere(problem is not None):
            raise ConversionError(problem or "rank 0 could not convert the checkpoint")
        yield beside
        ranks.barrier()
    finally:
        if ranks.rank() == 0:
            shutil.rmtree(beside, ignore_errors=True)


def remove_leftovers(checkpoints: Path) -> None:
    """Delete what conversions that were killed have left; called by one rank."""
    for folder in checkpoints.glob(".step_*.universal.*"):
        shutil.rmtree(folder, ignore_errors=True)


def _converted(folder: Path, beside: Path) -> str | None:
    """Convert on rank 0, the others wait; what went wrong on rank 0, or None.

    Ranks meet again and again meanwhile: a large model takes longer than any collective may.
    """
    running, problem = None, None
    with tempfile.TemporaryFile("w+") as printed:
        try:
            if ranks.rank() == 0:
                problem = _no_room(folder)
                if problem is None:
                    beside.mkdir()
                    running = subprocess.Popen(
                        [
                            sys.executable, "-c", _CONVERT, "--inject_missing_state",
                            "--input_folder", str(folder.resolve() / "state"),
                            "--output_folder", str(beside.resolve() / "state"),
                            # Each worker holds a whole rank's state; without workers it leaves no processes either.
                            "--num_extract_workers", "1", "--num_merge_workers", "1",
                        ],
                        # `python -c` imports from the folder it is started in: an empty one.
                        cwd=beside, stdout=printed, stderr=subprocess.STDOUT, text=True,
                    )  # fmt: skip
            while ranks.anywhere(running is not None and running.poll() is None):
                time.sleep(POLL_SECONDS)
        finally:
            if running is not None:
                running.kill()
                running.wait()
        if running is not None and running.returncode != 0:
            printed.seek(0)
            last = [line for line in printed.read().splitlines() if line.strip()][-1:] or ["it said nothing"]
            problem = f"{CONVERTER} ended with code {running.returncode}: {last[0].strip()}"
    return problem


def _no_room(folder: Path) -> str | None:
    needed = ROOM * sum(p.stat().st_size for p in (folder / "state").rglob("*") if p.is_file())
    free = shutil.disk_usage(folder.parent).free
    if free >= needed:
        return None
    return (
        f"it takes {needed / 1e9:.1f} GB for as long as it lasts and {free / 1e9:.1f} GB are free under {folder.parent}"
    )
