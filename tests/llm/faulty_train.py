"""The trainer with one fault planted: FAULT=kill:update:2, FAULT=hang:score:1:RANK in a phase of a step,
FAULT=full:save:2:RANK for a rank whose files end at 4 kB from then on, as on a full disk,
FAULT=frozen:engine:2 for an engine that takes no weights from its third push on, FAULT=nan:loss:2:3 for a loss that is
nan on the last rank in three mini-batches from step 2 on (one if the 3 is left out)."""

import itertools
import os
import resource
import signal
import time

from aepo.llm import train, trainer
from aepo.llm.engines import vllm_engine
from aepo.llm.policy import policy, update
from aepo.llm.processes import watchdog as phases


class Faulty(phases.Phases):
    """Phases of which one kills its process, finds its disk full or never ends."""

    def __call__(self, phase: str):
        kind, name, at_step, *rank = os.environ["FAULT"].split(":")
        Faulty.now = self.step
        entered = super().__call__(phase)
        if phase != name or self.step != int(at_step) or (rank and self.rank != int(rank[0])):
            return entered
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            return entered
        with entered:
            time.sleep(600)
        raise AssertionError("the watchdog let this pass")


def freeze(engine: type, from_push: int) -> None:
    """The engine goes on without a word, with the weights of its last push."""
    load, pushes = engine.load, itertools.count()

    def forgetful(self, weights):
        return load(self, weights) if next(pushes) < from_push else sum(1 for _ in weights)

    engine.load = forgetful


def poison(at_step: int, count: int = 1) -> None:
    """The last rank's losses are nan in `count` mini-batches."""
    loss_and_sums, step, left = update.policy_loss, policy.Policy.step, [count]

    def poisoned(*args, **kwargs):
        loss, sums = loss_and_sums(*args, **kwargs)
        hit = Faulty.now >= at_step and left[0] > 0 and os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
        return loss * (float("nan") if hit else 1.0), sums

    def counted(self):
        left[0] -= Faulty.now >= at_step
        return step(self)

    update.policy_loss, policy.Policy.step = poisoned, counted


if __name__ == "__main__":
    if os.environ["FAULT"].startswith("frozen:"):
        freeze(vllm_engine.VLLMEngine, int(os.environ["FAULT"].split(":")[2]))
    if os.environ["FAULT"].startswith("nan:"):
        poison(*map(int, os.environ["FAULT"].split(":")[2:]))
    trainer.Phases = Faulty
    raise SystemExit(train.main())
