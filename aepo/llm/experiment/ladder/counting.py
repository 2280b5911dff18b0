"""Samples of the held-out prompts as counts: judged in memory, nothing of a single sample is kept.

P prompts, n samples of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aepo.llm import seeds
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.experiment.ladder.outcome import Counts, Floats, Ints
from aepo.llm.questions.number_task import RESPONSE_TOKENS, NumberTask

ROWS_AT_ONCE = 2048
"""Samples side by side: of 512 to 16,384 the fastest on a CPU."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """What was drawn of each prompt, sample by sample."""

    right: NDArray[np.bool_]
    """(P, n)."""
    response: Ints
    """(P, n): a number that the same responses to a prompt share."""
    nats: Floats
    """(P, n): -log p of the response, at the temperature and in the nucleus that it was drawn at."""
    tokens: Ints
    """(P, n)."""

    def counts(self, samples: int) -> Counts:
        """Of the first so many samples of each prompt."""
        right, response = self.right[:, :samples], self.response[:, :samples]
        different = [len(np.unique(said[is_right])) for said, is_right in zip(response, right, strict=True)]
        return Counts(samples=samples, right=right.sum(1), different=np.array(different, dtype=np.int64))

    def surprise(self, levels: Sequence[str], samples: int) -> dict[str, dict[str, list[float]]]:
        """Level -> `right`, `wrong` -> mean -log p per token of the first so many samples, and their tokens; without
        tokens 0."""
        of_prompt = np.array(levels)
        found = {}
        for level in sorted(set(levels)):
            found[level] = {}
            for name, chosen in (("right", self.right), ("wrong", ~self.right)):
                here = (chosen & (of_prompt == level)[:, None])[:, :samples]
                tokens = int(self.tokens[:, :samples][here].sum())
                found[level][name] = [round(float(self.nats[:, :samples][here].sum()) / max(1, tokens), 4), tokens]
        return found


def drawn(
    model: Any,
    task: NumberTask,
    prompts: Sequence[int],
    *,
    samples: int,
    temperature: float,
    top_p: float,
    seed: int,
    step: int = 0,
) -> Drawn:
    """Samples of prompts and what is true of them; of more samples the first ones are the same.

    Args:
        model: a causal LM.
        task: whose verdicts, which are true ones.
        prompts: P of the task's.
        samples: n.
        temperature, top_p: of each token.
        seed: of the run: the arms of a seed share their draws.
        step: of the checkpoint; 0 for the last model, and for that before RL.
    """
    engine = EmbeddedEngine(
        model=model, end_ids=task.end_ids, pad_id=task.tokenizer.pad_token_id, max_tokens=RESPONSE_TOKENS,
        rows_at_once=ROWS_AT_ONCE,
    )  # fmt: skip
    sampled = engine.sample(
        [task.prompts[prompt] for prompt in prompts],
        n=samples,
        temperature=temperature,
        row_seeds=seeds.row_seeds(
            seed, step, f"ladder T={temperature:g} top-p={top_p:g}", np.arange(len(prompts)), samples
        ),
        top_p=top_p,
    )
    rows = np.column_stack([np.repeat(np.asarray(prompts), samples), sampled.token.numpy()])
    # Most samples of a prompt are alike: each is judged once.
    first, response = np.unique(rows, axis=0, return_index=True, return_inverse=True)[1:]
    length = sampled.mask.sum(1).long().numpy()
    said = [rows[row, 1 : 1 + length[row]].tolist() for row in first]
    verdicts = task.grade(rows[first, 0].tolist(), said)
    right = np.array([verdict.right for verdict in verdicts])[response.reshape(-1)]
    shape = (len(prompts), samples)
    return Drawn(
        right=right.reshape(shape),
        response=response.reshape(shape),
        nats=-sampled.logp.double().sum(1).numpy().reshape(shape),
        tokens=length.reshape(shape),
    )
