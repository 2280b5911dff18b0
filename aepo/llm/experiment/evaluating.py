"""Many evaluations in a few processes: loading torch and transformers takes longer than evaluating a tiny model."""

import logging
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def evaluate(commands: Sequence[Sequence[str]], *, parallel: int, log: Path) -> list[int]:
    """Each `python -m aepo.llm.evaluation` with these arguments; what is there already is not sampled again.

    Args:
        commands: arguments of each.
        parallel: processes, >= 1.
        log: file that takes what they say.

    Returns:
        Their exit codes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # Fresh interpreters: a fork of one that has used torch's threads may hang.
    fresh = multiprocessing.get_context("spawn")
    began, codes = time.monotonic(), []
    with ProcessPoolExecutor(parallel, mp_context=fresh, initializer=_quiet, initargs=(log,)) as pool:
        for code in pool.map(_one, commands):
            codes.append(code)
            if len(codes) % 20 == 0 or len(codes) == len(commands):
                print(f"[{len(codes)}/{len(commands)}] evaluations, {time.monotonic() - began:.0f} s", flush=True)
    return codes


def _quiet(log: Path) -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    sys.stdout = sys.stderr = log.open("a", buffering=1)
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING, stream=sys.stderr)


def _one(arguments: Sequence[str]) -> int:
    from aepo.llm.evaluation.__main__ import main

    print(f"$ python -m aepo.llm.evaluation {' '.join(arguments)}")
    return main(arguments)
