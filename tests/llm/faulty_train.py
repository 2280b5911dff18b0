"""The trainer with one fault planted in a phase of a step: FAULT=kill:update:2 or FAULT=hang:score:1:RANK."""

import os
import signal
import time

from aepo.llm import phases, train


class Faulty(phases.Phases):
    """Phases of which one kills its process or never ends."""

    def __call__(self, phase: str):
        kind, name, at_step, *rank = os.environ["FAULT"].split(":")
        entered = super().__call__(phase)
        if phase != name or self.step != int(at_step) or (rank and self.rank != int(rank[0])):
            return entered
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        with entered:
            time.sleep(600)
        raise AssertionError("the watchdog let this pass")


if __name__ == "__main__":
    phases.GRACE = 2.0
    train.Phases = Faulty
    raise SystemExit(train.main())
