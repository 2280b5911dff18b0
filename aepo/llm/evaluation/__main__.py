"""The command: evaluate a model, or report on evaluations that are done.

python -m aepo.llm.evaluation --model runs/aepo/final --suite paper --out runs/aepo/evaluation
deepspeed --num_gpus 8 --module aepo.llm.evaluation --model ... (or: deepspeed aepo/llm/evaluation/__main__.py ...)
python -m aepo.llm.evaluation report runs/*/evaluation
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aepo import extras

if not __package__:
    # Started as a file, whose folder Python puts first on the path; its modules are not to stand in for others.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import torch

from aepo.errors import ENDED, NOT_WRITTEN, RANK_LOST, AepoError
from aepo.llm.evaluation.options import parse
from aepo.llm.evaluation.runner import run
from aepo.llm.policy.deepspeed_stepper import init_distributed
from aepo.llm.processes import ranks
from aepo.llm.processes.leaving import leave
from aepo.llm.processes.quiet import quieted

log = logging.getLogger("aepo")

# Ranks that are done wait for the last one, whose responses may be the longest.
PATIENCE_SECONDS = 7 * 86400.0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; what its exit codes say is in `aepo.errors.EXIT_CODES`."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["report"]:
        from aepo.llm.evaluation.reporting import report

        return report.main(argv[1:])
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO if first else logging.ERROR)
    quieted()
    try:
        options = parse(argv)
        if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
            # Threads that spin for work cost a small model an order of magnitude as soon as the cores are busy.
            torch.set_num_threads(1)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            init_distributed(PATIENCE_SECONDS)
        run(options)
    except AepoError as error:
        if first or error.of_one_rank:
            _say(f"rank {ranks.rank()}: {error}" if error.of_one_rank else error)
        return error.exit_code
    except OSError as error:
        _say(f"rank {ranks.rank()}: {error}; samples on the disk are safe: make room, then give the same command again")
        return NOT_WRITTEN
    except RuntimeError as error:
        lost = ranks.lost_peer(error)
        if lost is None:
            raise
        _say(f"rank {ranks.rank()}: another rank was lost or does not answer ({lost}); give the same command again")
        return RANK_LOST
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return ENDED


def _say(error: object) -> None:
    """One line, whatever libraries had to say."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    leave(main())
