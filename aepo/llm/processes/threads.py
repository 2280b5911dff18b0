"""How many threads a rank computes in on a CPU: by the model's size and the cores, the same from start to end."""

import logging
import os

import torch

from aepo.llm.processes import ranks

log = logging.getLogger("aepo")

SMALL = 50_000_000
"""Parameters below which one thread is as fast: the parts of a product are too short to pay for handing them out."""


def threads(parameters: int, *, cores: int, ranks: int) -> int:
    """By the rule.

    Args:
        parameters: of the model.
        cores: of this machine that the process may use.
        ranks: on this machine.

    >>> threads(100_000, cores=8, ranks=1), threads(135_000_000, cores=8, ranks=2), threads(10**9, cores=1, ranks=4)
    (1, 4, 1)
    """
    return 1 if parameters < SMALL else max(1, cores // ranks)


def one_until_known() -> None:
    """Until the model's size is known: threads that spin for work cost a small model an order of magnitude as soon as
    the cores are busy."""
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def choose(parameters: int, *, asked: int | None, before: int | None) -> int | None:
    """Set this process's threads, and say how many and why; called by all ranks together.

    Args:
        parameters: of the model.
        asked: `train.threads`.
        before: those of the run that is resumed.

    Returns:
        their number, the same on every rank; None on a GPU where nothing was asked, which leaves torch alone.
    """
    if asked is not None:
        number, why = asked, "train.threads"
    elif torch.cuda.is_available():
        return None
    elif before is not None:
        number, why = before, "as before --resume"
    elif "OMP_NUM_THREADS" in os.environ:
        number, why = torch.get_num_threads(), "OMP_NUM_THREADS"
    else:
        cores, beside = _cores(), _ranks_here()
        number = threads(parameters, cores=cores, ranks=beside)
        why = f"{parameters / 1e6:.3g} million parameters, {cores} cores, {beside} ranks here"
        if number > 1:
            why += "; where other work uses the cores, train.threads=1 is faster"
    # Ranks on machines of different sizes go at one pace.
    number = -int(ranks.largest(-number))
    torch.set_num_threads(number)
    log.info("threads: %d a rank (%s)", number, why)
    return number


def _cores() -> int:
    """That this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ranks_here() -> int:
    """On this machine, as its launcher says; all of them where it does not."""
    told = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE")
    return int(told) if told and told.isdecimal() and int(told) > 0 else ranks.world_size()
