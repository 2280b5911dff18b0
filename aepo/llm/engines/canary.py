"""The canary: after every push of weights the engine samples from fixed prompts and the trainer scores the same tokens.

Engines can go on with old weights, or with an old prefix cache, without any sign of it; their log-probs cannot.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from aepo.batch import Rollouts
from aepo.errors import STALE_WEIGHTS, AepoError
from aepo.llm import seeds
from aepo.llm.engines.engine import Engine
from aepo.llm.policy.scorer import Scorer
from aepo.llm.processes import ranks

# A stale prefix cache shows only on prompts that fill a block of it, which has 128 tokens on a CPU.
LENGTHS = (3, 9, 17, 33, 65, 131, 150, 200)
LONGEST = max(LENGTHS)
RESPONSE_TOKENS = 4
# Mean |engine - trainer| in nats; what a right push shows is a hundredth of it.
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}


class StaleWeightsError(AepoError):
    """The engine does not sample from the trainer's weights."""

    exit_code = STALE_WEIGHTS
    of_one_rank = True


def canary_prompts(vocabulary: int, *, longest: int = LONGEST) -> list[tuple[int, ...]]:
    """Fixed random prompts; those over `longest` tokens are cut to it.

    >>> [len(p) for p in canary_prompts(10)] == list(LENGTHS), [len(p) for p in canary_prompts(10, longest=5)][-1]
    (True, 5)
    """
    generator = np.random.default_rng(seeds.number("canary"))
    return [tuple(generator.integers(0, vocabulary, min(n, longest)).tolist()) for n in LENGTHS]


class Canary:
    """Compares engine and trainer after every push.

    Args:
        scorer: the trainer, over `prompts`.
        prompts: `canary_prompts`, the same on every rank.
        limit: largest mean |difference| of the log-probs, in nats.
    """

    def __init__(self, scorer: Scorer, prompts: Sequence[Sequence[int]], *, limit: float) -> None:
        self.scorer = scorer
        self.prompts = prompts
        self.limit = limit
        self.before: tuple[Tensor, Tensor, Tensor] | None = None

    def check(self, engine: Engine, *, version: int) -> dict[str, float]:
        """Sample, score, compare; called by all ranks together.

        Args:
            engine: whose weights were just pushed.
            version: optimizer steps behind these weights, for the message and the log.

        Returns:
            sync/canary, the worst rank's mean |difference| in nats, and sync/weight_version.

        Raises:
            StaleWeightsError: a difference above the limit on any rank, or an engine that answers to the last bit what
                it answered before although the trainer's log-probs of these tokens have changed.
        """
        slots = np.arange(len(self.prompts))
        sampled = engine.sample(
            self.prompts,
            n=1,
            temperature=1.0,
            row_seeds=seeds.row_seeds(0, 0, "canary", slots, 1),
            max_tokens=RESPONSE_TOKENS,
        )
        scored = self.scorer.score(
            Rollouts(
                prompt=torch.from_numpy(slots),
                token=sampled.token,
                mask=sampled.mask,
                reward=torch.zeros(len(slots)),
                group_size=1,
            )
        )
        on = sampled.mask != 0
        trainer_logp = torch.where(on, scored.scored("old_logp").float(), 0.0)
        engine_logp = torch.where(on, sampled.logp, 0.0)
        difference = float((trainer_logp - engine_logp).abs().sum() / sampled.mask.sum())
        frozen = False
        if self.before is not None and torch.equal(self.before[0], sampled.token):
            frozen = torch.equal(self.before[1], engine_logp) and not torch.equal(self.before[2], trainer_logp)
        self.before = (sampled.token, engine_logp, trainer_logp)
        # Comparing this way round also catches nan.
        apart = not difference <= self.limit
        worst = ranks.largest(difference)
        apart, frozen = ranks.anywhere(apart), ranks.anywhere(frozen)
        if apart or frozen:
            why = (
                f"its log-probs of {int(sampled.mask.sum())} fixed tokens differ from the trainer's by "
                f"{difference:.3g} nats on this rank and {worst:.3g} on the worst, allowed are {self.limit:g} "
                "(rollout.canary_limit)"
                if apart
                else "it answers to the last bit what it answered before this update, and the trainer does not"
            )
            raise StaleWeightsError(
                f"after the push of weight version {version} the rollout engine does not sample from the trainer's "
                f"weights: {why}. Training on would use stale weights; go on with --resume when the cause is found (an "
                "untested engine version, a failed push, a cache that was kept)"
            )
        return {"sync/canary": worst, "sync/weight_version": version}
