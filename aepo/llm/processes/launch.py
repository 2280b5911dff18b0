"""How the trainer is started: one rank in this process, several by DeepSpeed's launcher, with a port that is free.

aepo train --config demo_cpu --method.name=aepo --target.value=0.5
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import base64
import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import aepo
from aepo.errors import UNUSABLE
from aepo.llm.processes.ports import free_port
from aepo.llm.processes.ranks import be_alone

TRAIN = Path(aepo.__file__).with_name("llm") / "train.py"
HELP = f"""\
aepo train [--ranks N] ...: N processes of the trainer on this machine, each on a GPU of its own; N is the number of
visible GPUs, and 1 where there is none. One is this process itself, more are started by DeepSpeed's launcher. On
several machines:
deepspeed --hostfile FILE {TRAIN} ...
Every other argument is the trainer's:
"""


def command(arguments: Sequence[str], *, ranks: int | None = None) -> list[str]:
    """The command line that trains on this machine.

    It is the part of DeepSpeed's launcher that runs on each machine: the part above it, the program `deepspeed`, leaves
    its processes behind when it is told to end, and this one tells them.

    Args:
        arguments: the trainer's.
        ranks: how many processes; None for one on each visible GPU, or one where there is none.

    Raises:
        ValueError: a number that is not at least 1, or above that of the GPUs.
    """
    gpus = _checked_gpus(ranks)
    devices = {"localhost": gpus[:ranks] or list(range(ranks or 1))}
    # Without the working directory on the path: its folders are nobody's packages.
    return [
        sys.executable, "-P", "-u", "-m", "deepspeed.launcher.launch", "--log_level=error",
        f"--world_info={base64.urlsafe_b64encode(json.dumps(devices).encode()).decode()}",
        "--master_addr=127.0.0.1", f"--master_port={free_port()}", str(TRAIN), *arguments,
    ]  # fmt: skip


def _checked_gpus(ranks: int | None) -> list[str]:
    gpus = _visible_gpus()
    if ranks is not None and (ranks < 1 or 0 < len(gpus) < ranks):
        most = f" and at most {len(gpus)}, the visible GPUs" if gpus else ""
        raise ValueError(f"--ranks must be at least 1{most}, got {ranks}")
    return gpus


def _visible_gpus() -> list[str]:
    """As CUDA_VISIBLE_DEVICES names them, which the launcher sets for its processes."""
    numbers = [str(gpu) for gpu in range(torch.cuda.device_count())]
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA itself stops at the first name that it does not know.
    return named.replace(" ", "").split(",")[: len(numbers)] if named else numbers


def _own(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """--ranks, of which the last counts, and everything else as it was typed.

    Raises:
        ValueError: no whole number.
    """
    found, rest, left = None, [], list(arguments)
    while left:
        argument = left.pop(0)
        name, equals, value = argument.partition("=")
        if name != "--ranks":
            rest.append(argument)
            continue
        value = value if equals or not left else left.pop(0)
        if not re.fullmatch(r"[-+]?\d{1,9}", value):
            raise ValueError(f"--ranks must be a whole number, got {value!r}; write --ranks=2")
        found = int(value)
    return found, rest


def alone(arguments: Sequence[str]) -> int:
    """Train in this process, as its only rank: a launcher and its child would each load torch and DeepSpeed again.

    Args:
        arguments: the trainer's.

    Returns:
        Its exit code.
    """
    if not sys.flags.safe_path and sys.path and Path(sys.path[0] or ".").resolve() == Path.cwd():
        # The working directory, which `python -m` puts there: its folders are nobody's packages.
        del sys.path[0]
    be_alone()
    # By its name, as every command is started: it stands above this room.
    return importlib.import_module("aepo.llm.train").main(list(arguments))


def main(argv: Sequence[str] | None = None) -> int:
    """The command: trains, or becomes the launcher of several ranks; 2 for a number of ranks that cannot be."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(arguments):
        from aepo.llm.settings import parse

        print(HELP, flush=True)
        parse(["--help"])
    try:
        count, rest = _own(arguments)
        gpus = _checked_gpus(count)
        wanted = count or len(gpus) or 1
        started = command(rest, ranks=count) if wanted != 1 else None
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return UNUSABLE
    if started is None:
        return alone(rest)
    # In this process's place, so that signals reach the launcher, and its end is the command's.
    os.execv(started[0], started)


if __name__ == "__main__":
    sys.exit(main())
