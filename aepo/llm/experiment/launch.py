"""How the trainer is started: DeepSpeed's launcher on the installed `train.py`, with a port that is free.

aepo train --config demo_cpu --method.name=aepo --target.value=0.5
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import aepo
from aepo.llm.processes.ports import free_port

TRAIN = Path(aepo.__file__).with_name("llm") / "train.py"
VISIBLE = "CUDA_VISIBLE_DEVICES"
HELP = f"""\
aepo train [--ranks N] ...: DeepSpeed's launcher starts N processes of the trainer on this machine, each on a GPU of its
own; N is the number of GPUs, and 1 where there is none. Several machines: deepspeed --hostfile FILE
{TRAIN} ...
Every other argument is the trainer's:
"""


def command(arguments: Sequence[str], *, ranks: int | None = None) -> list[str]:
    """The command line that trains on this machine.

    Args:
        arguments: the trainer's.
        ranks: how many processes; None for one on each visible GPU, or one where there is none.
    """
    # By module, as the script `deepspeed` need not lie beside the interpreter; without the working directory on the
    # path, whose folders are nobody's packages.
    launcher = [sys.executable, "-P", "-m", "deepspeed.launcher.runner", "--master_port", str(free_port())]
    return [*launcher, *_devices(ranks), str(TRAIN), *arguments]


def _devices(ranks: int | None) -> list[str]:
    if not torch.cuda.is_available():
        # The launcher's own choice is the number of sockets.
        return ["--num_gpus", str(ranks or 1)]
    if ranks is None:
        return []
    if visible := os.environ.get(VISIBLE):
        # The launcher takes its first GPUs, whatever is visible, where it is told a number.
        return ["--include", f"localhost:{','.join(visible.split(',')[:ranks])}"]
    return ["--num_gpus", str(ranks)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command: becomes the launcher, whose exit code is the trainer's; 2 for a number of ranks that cannot be."""
    parser = argparse.ArgumentParser(prog="aepo train", add_help=False, allow_abbrev=False)
    parser.add_argument("--ranks", type=int)
    typed, rest = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    if {"-h", "--help"} & set(rest):
        from aepo.llm.settings import parse

        print(HELP, flush=True)
        parse(["--help"])
    gpus = torch.cuda.device_count()
    if typed.ranks is not None and (typed.ranks < 1 or 0 < gpus < typed.ranks):
        most = f", and at most the {gpus} GPU(s) that are visible" if gpus else ""
        print(f"error: --ranks must be at least 1{most}, got {typed.ranks}", file=sys.stderr, flush=True)
        return 2
    started = command(rest, ranks=typed.ranks)
    # In this process's place, so that signals reach the launcher, and its end is the command's.
    os.execv(started[0], started)


if __name__ == "__main__":
    sys.exit(main())
