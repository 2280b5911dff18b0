"""A run's own evaluation, on its held-out prompts: the same at its end and while it goes on.

It draws from counted seeds of its own and keeps no state, so that no other number of the run depends on it.
"""

import numpy as np
import torch

from aepo.llm import seeds
from aepo.llm.engines.engine import Engine
from aepo.llm.processes import ranks
from aepo.llm.questions.task import Task
from aepo.llm.settings import EvaluationSettings, Settings
from aepo.passk import pass_at_k


def held_out_passes(
    engine: Engine,
    task: Task,
    chosen: EvaluationSettings,
    *,
    seed: int,
    step: int | None,
    trained: int | None = None,
) -> dict[str, float]:
    """Unbiased pass@k of the engine's weights on a task's held-out prompts, at T = 1 and top-p 1.

    Called by all ranks together, each of which samples and judges its part of the prompts.

    Args:
        engine: with the weights that are evaluated.
        task: whose prompts and verdicts.
        chosen: how many samples, and which k.
        seed: of the run.
        step: of the run, counted from 0; None at its end. Every evaluation has draws of its own.
        trained: T = 1 responses of the whole training, which bound the evaluation at its end (`most_share`); None: no
            bound.

    Returns:
        pass@k by its name (`pass@4`), in [0, 1], the same on every rank; nothing where no samples are asked for, or no
        prompt is held out.
    """
    held_out, n = np.asarray(task.held_out), chosen.samples
    if n and step is None and trained is not None:
        count, n = chosen.at_the_end(prompts=len(held_out), trained=trained)
        held_out = held_out[:count]
    if not n or not len(held_out):
        return {}
    slots = ranks.share(np.arange(len(held_out)), rank=ranks.rank(), world=ranks.world_size())
    draws = seeds.row_seeds(seed, 0, "evaluation", slots, n)
    if step is not None:
        draws = seeds.row_seeds(seed, step, "held out", slots, n)
    sampled = engine.sample([task.prompts[p] for p in held_out[slots]], n=n, temperature=1.0, row_seeds=draws)
    responses = [t[: int(m)] for t, m in zip(sampled.token.tolist(), sampled.mask.sum(1), strict=True)]
    verdicts = task.grade(np.repeat(held_out[slots], n).tolist(), responses)
    right = torch.zeros(len(held_out), dtype=torch.int64)
    for row, verdict in enumerate(verdicts):
        right[slots[row // n]] += int(verdict.right)
    counts = ranks.total({str(slot): count for slot, count in enumerate(right)})
    right = torch.tensor([int(counts[str(slot)]) for slot in range(len(held_out))])
    return {f"pass@{k}": float(pass_at_k(right, samples=n, k=k).mean()) for k in chosen.ks}


def shorter_evaluation(settings: Settings, prompts: int) -> str | None:
    """That the evaluation at the end of a run is cut, and how to have the whole; None where it is not.

    Args:
        settings: of the run.
        prompts: that are held out.
    """
    chosen = settings.evaluation
    count, samples = chosen.at_the_end(prompts=prompts, trained=settings.sampled)
    if (count, samples) == (prompts, chosen.samples):
        return None
    return (
        f"the evaluation at the end would sample {prompts * chosen.samples} responses ({chosen.samples} to each of "
        f"{prompts} held-out prompts), the training {settings.sampled}: cut to {samples} to each of {count}. "
        "evaluation.most_share=null asks for all"
    )
