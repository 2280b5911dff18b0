"""The runs of a protocol, each trained by the real command, evaluated as soon as it has ended, and left as one file.

What has its file is not made again; what was cut off goes on from its last checkpoint.
"""

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path

from aepo.llm.experiment.ladder import finishing, outcome
from aepo.llm.experiment.ladder.protocol import Protocol
from aepo.llm.experiment.side_by_side import Job, train, warm_starts
from aepo.llm.processes.quiet import quieted


def run(protocol: Protocol, runs: Sequence[tuple[str, int]], *, out: Path, results: Path, parallel: int) -> list[Job]:
    """Make the runs that lack their file.

    Args:
        protocol: of the arms.
        runs: (arm, seed), in this order.
        out: of working folders, each deleted when its file is there.
        results: of the files.
        parallel: processes that compute at the same time, >= 1.

    Returns:
        Those whose training failed; the others are done.

    Raises:
        SettingsError: a file of other settings than the protocol's.
    """
    missing = []
    for arm, seed in runs:
        if outcome.known(protocol, results, arm, seed) is None:
            missing.append((arm, seed))
        else:
            # Of a process that ended between both.
            finishing.remove(protocol, arm, seed, out)
    print(f"{len(runs) - len(missing)} of {len(runs)} runs have their file in {results}", flush=True)
    if not missing:
        return []
    warm_starts(protocol.config, _starts(protocol, missing), parallel=parallel)
    before_rl = [(arm, seed) for arm, seed in missing if not protocol.arms[arm].trained]
    trained = {protocol.job(arm, seed, out): (arm, seed) for arm, seed in missing if protocol.arms[arm].trained}
    # Fresh interpreters: a fork of one that has used torch's threads may hang.
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=fresh, initializer=_evaluates) as pool:

        def finish(arm: str, seed: int) -> None:
            said = pool.submit(finishing.finish, protocol, arm, seed, out=out, results=results).result()
            print(f"{protocol.job(arm, seed, out).title}: {said}, {outcome.path_of(results, arm, seed)}", flush=True)

        waiting = [
            pool.submit(finishing.finish, protocol, arm, seed, out=out, results=results) for arm, seed in before_rl
        ]
        for (arm, seed), done in zip(before_rl, waiting, strict=True):
            print(f"{protocol.job(arm, seed, out).title}: {done.result()}", flush=True)
        return train(
            list(trained), config=protocol.config, parallel=parallel, keep=True, then=lambda job: finish(*trained[job])
        )


def _starts(protocol: Protocol, runs: Sequence[tuple[str, int]]) -> list[list[str]]:
    """What makes each different model before RL of these runs: the settings of one run that starts from it."""
    found = {}
    for arm, seed in runs:
        settings = protocol.settings(arm, seed)
        made_by = settings.model_dump_json(include={"model", "data", "warm_start"})
        found.setdefault(made_by, protocol.arguments(arm, seed))
    return list(found.values())


def _evaluates() -> None:
    """One thread, nothing said between a person's lines, and an end with the process that asks, which cannot say it any
    more when it is killed."""
    import torch

    torch.set_num_threads(1)
    quieted()
    if (parent := multiprocessing.parent_process()) is None:
        raise ValueError("an evaluating process is started by the one that asks")

    def end_with_it() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()
