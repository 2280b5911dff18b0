"""The canary: after every push of weights the engine samples from fixed prompts and the trainer scores the same tokens.

Engines can go on with old weights, or with an old prefix cache, without any sign of it; their log-probs cannot.
"""

import itertools
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

ALONE, IN_A_ROW = 6, (150, 200)
"""How many prompts are some of the run's, and the tokens of those that are several of them in a row: a stale prefix
cache shows only on prompts that fill a block of it, which has 128 tokens on a CPU."""
LONGEST = max(IN_A_ROW)
RESPONSES, RESPONSE_TOKENS = 32, 4
"""Of each prompt: 256 tokens in all where every response ends at once."""
TOKENS_AT_ONCE = 2048
"""Most tokens that the trainer scores in one pass, since the engine holds its memory meanwhile."""
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.15}
"""Mean |engine - trainer| in nats, by the dtype of the weights. In float32 a right push shows a hundredth of it. Half
precision shows up to 0.04 on text of a task (root mean square; vLLM with its head in bfloat16 against a head in
float32), and wrong weights whole nats."""
TF32_LIMIT = 5e-3
"""In float32 on a GPU, where vLLM's attention multiplies in TF32."""


class StaleWeightsError(AepoError):
    """The engine does not sample from the trainer's weights."""

    exit_code = STALE_WEIGHTS
    of_one_rank = True


def limit_of(dtype: torch.dtype, device: str) -> float:
    """Largest mean |engine - trainer| in nats of a push that is taken for right.

    Args:
        dtype: of the weights.
        device: where they compute, as in `torch.device.type`.

    >>> limit_of(torch.float32, "cpu"), limit_of(torch.float32, "cuda"), limit_of(torch.bfloat16, "cuda")
    (0.001, 0.005, 0.15)
    """
    return TF32_LIMIT if dtype == torch.float32 and device != "cpu" else LIMITS[dtype]


def canary_prompts(prompts: Sequence[Sequence[int]], *, longest: int = LONGEST) -> list[tuple[int, ...]]:
    """Some of a run's prompts, from its shortest to its longest, and several in a row; of the same run always the same.

    What comes before the last `longest` tokens is left out.

    Args:
        prompts: of the run, none empty.
        longest: at least 1.

    >>> found = canary_prompts([[1], [2, 3], [4, 5, 6]], longest=4)
    >>> found[:2], found[5], found[-1]
    ([(1,), (1,)], (4, 5, 6), (3, 4, 5, 6))
    """
    ordered = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    chosen = [ordered[round(k * (len(ordered) - 1) / (ALONE - 1))] for k in range(ALONE)]
    found = [tuple(prompts[i])[-longest:] for i in chosen]
    for tokens in IN_A_ROW:
        row: tuple[int, ...] = ()
        # The longest first, from the end on.
        for i in itertools.cycle(reversed(ordered)):
            if len(row) >= min(tokens, longest):
                break
            row = (*prompts[i], *row)
        found.append(row[-min(tokens, longest) :])
    return found


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
            n=RESPONSES,
            temperature=1.0,
            row_seeds=seeds.row_seeds(0, 0, "canary", slots, RESPONSES),
            max_tokens=RESPONSE_TOKENS,
        )
        rows = torch.from_numpy(slots).repeat_interleave(RESPONSES)
        scored = self.scorer.score(
            Rollouts(
                prompt=rows,
                token=sampled.token,
                mask=sampled.mask,
                reward=torch.zeros(len(rows)),
                group_size=RESPONSES,
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
                f"its log-probs of {int(sampled.mask.sum())} tokens differ from the trainer's by "
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
