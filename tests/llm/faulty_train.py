"""The trainer with one fault planted: FAULT=kill:update:2, FAULT=hang:score:1:RANK in a phase of a step,
FAULT=frozen:engine:2 for an engine that takes no weights from its third push on."""

import itertools
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


def freeze(engine: type, from_push: int) -> None:
    """The engine goes on without a word, with the weights of its last push."""
    load, pushes = engine.load, itertools.count()

    def forgetful(self, weights):
        return load(self, weights) if next(pushes) < from_push else sum(1 for _ in weights)

    engine.load = forgetful


if __name__ == "__main__":
    phases.GRACE = 2.0
    if os.environ["FAULT"].startswith("frozen:"):
        freeze(train.VLLMEngine, int(os.environ["FAULT"].split(":")[2]))
    train.Phases = Faulty
    raise SystemExit(train.main())
