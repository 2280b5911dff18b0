"""What is drawn in which batch, and a batch as rows: sampled, judged, scored.

A batch is fixed by the measurement, the problems and `rows_at_once` alone. Whoever draws it, after whatever was drawn
before, gives the same arithmetic the same shapes: with the embedded engine the same bits. Seeds are counted besides.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aepo.batch import Rollouts
from aepo.llm import seeds
from aepo.llm.engines.engine import Engine, Sampled
from aepo.llm.evaluation.options import Measurement
from aepo.llm.grading.overlong import ended
from aepo.llm.policy.scorer import Scorer
from aepo.llm.questions.task import PromptTokens, Task, fingerprint, stops


@dataclass(frozen=True, kw_only=True)
class Exam:
    """The problems of one set, ready to be asked."""

    benchmark: str
    task: Task
    problems: Sequence[int]
    """What files and tables call them, ascending."""
    prompts: Sequence[int]
    """Where `task` has them."""
    first: int
    """Where the scorer's prompts have the first of them."""

    @property
    def tokens(self) -> list[PromptTokens]:
        """The prompts."""
        return [self.task.prompts[prompt] for prompt in self.prompts]

    @property
    def fingerprint(self) -> str:
        """Of prompts and references: that of other questions differs."""
        return fingerprint(self.task, self.prompts, beside=self.problems)


@dataclass(frozen=True, kw_only=True)
class SamplingBatch:
    """Some samples of some problems: what is drawn side by side."""

    measurement: Measurement
    rows: range
    """Which of the exam's problems, by position."""
    samples: range

    @property
    def size(self) -> int:
        return len(self.rows) * len(self.samples)


def sampling_batches(
    measurement: Measurement, *, problems: int, stages: Sequence[int], rows_at_once: int
) -> Iterator[SamplingBatch]:
    """Every sample of one set and mode, once, in batches.

    Args:
        measurement: of the set and mode.
        problems: their number.
        stages: the numbers of samples that were asked for, ascending, one after the other: what was planned for the
            first stays as it was when more are asked for.
        rows_at_once: most samples of a batch.

    >>> from aepo.llm.evaluation.options import parse
    >>> (measurement,) = parse(["--model=m", "--suite=gsm8k"]).measurements
    >>> [(b.rows, b.samples) for b in sampling_batches(measurement, problems=3, stages=[2, 7], rows_at_once=4)][:3]
    [(range(0, 2), range(0, 2)), (range(2, 3), range(0, 2)), (range(0, 1), range(2, 6))]
    """
    before = 0
    for n in stages:
        block = min(n - before, rows_at_once)
        at_once = max(1, rows_at_once // (n - before))
        for start in range(0, problems, at_once):
            for sample in range(before, n, block):
                yield SamplingBatch(
                    measurement=measurement,
                    rows=range(start, min(start + at_once, problems)),
                    samples=range(sample, min(sample + block, n)),
                )
        before = n


def chunks(batches: Sequence[SamplingBatch], *, most: int) -> list[list[SamplingBatch]]:
    """Batches put together up to so many samples, never of two measurements: asked, judged and written at once."""
    found: list[list[SamplingBatch]] = []
    for batch in batches:
        last = found[-1] if found else []
        if last and last[0].measurement == batch.measurement and sum(b.size for b in last) + batch.size <= most:
            last.append(batch)
        else:
            found.append([batch])
    return found


def batch_seeds(seed: int, exam: Exam, batch: SamplingBatch) -> seeds.UInt64:
    """(rows x samples,) uint64: each counted by (seed, set, mode, problem, sample), whatever the batch."""
    slots = np.array([exam.problems[row] for row in batch.rows], dtype=np.int64)
    branch = f"evaluation/{batch.measurement.benchmark}/{batch.measurement.mode}"
    counted = seeds.row_seeds(seed, 0, branch, slots, batch.samples.stop)
    return counted.reshape(len(slots), -1)[:, batch.samples.start :].reshape(-1)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """An engine, and the same model to score with."""

    engine: Engine
    scorer: Scorer
    exams: Mapping[str, Exam]
    seed: int
    at_once: bool
    """Whether the engine takes a whole chunk in one call and makes its own batches, as vLLM does."""

    def rows(self, chunk: Sequence[SamplingBatch]) -> list[dict[str, Any]]:
        """The samples of a chunk, judged and scored: values by the columns of `ledger.SCHEMA`."""
        return [
            row
            for batch, sampled in zip(chunk, self._sampled(chunk), strict=True)
            for row in self._rows(batch, sampled)
        ]

    def _sampled(self, chunk: Sequence[SamplingBatch]) -> Iterator[Sampled]:
        if not self.at_once:
            yield from (self._drawn([batch], n=len(batch.samples)) for batch in chunk)
            return
        whole, start = self._drawn(chunk, n=1), 0
        for batch in chunk:
            rows = slice(start, start + batch.size)
            start += batch.size
            longest = int(whole.mask[rows].sum(-1).max())
            yield Sampled(
                token=whole.token[rows, :longest], mask=whole.mask[rows, :longest], logp=whole.logp[rows, :longest]
            )

    def _drawn(self, batches: Sequence[SamplingBatch], *, n: int) -> Sampled:
        """Prompts are repeated where the engine is to draw fewer than a batch's samples of each."""
        measurement = batches[0].measurement
        exam = self.exams[measurement.benchmark]
        return self.engine.sample(
            [
                exam.task.prompts[exam.prompts[row]]
                for batch in batches
                for row in batch.rows
                for _ in range(len(batch.samples) // n)
            ],
            n=n,
            temperature=measurement.temperature,
            row_seeds=np.concatenate([batch_seeds(self.seed, exam, batch) for batch in batches]),
            max_tokens=measurement.max_tokens,
            top_p=measurement.top_p,
        )

    def _rows(self, batch: SamplingBatch, sampled: Sampled) -> Iterator[dict[str, Any]]:
        exam, measurement, token, mask = (
            self.exams[batch.measurement.benchmark],
            batch.measurement,
            sampled.token,
            sampled.mask,
        )
        row_of = np.repeat(np.array(batch.rows), len(batch.samples))
        sample_of = np.tile(np.array(batch.samples), len(batch.rows))
        responses = [t[: int(m)] for t, m in zip(token.tolist(), mask.sum(-1), strict=True)]
        verdicts = exam.task.grade([exam.prompts[row] for row in row_of], responses)
        scored = self.scorer.score(
            Rollouts(
                prompt=torch.from_numpy(row_of + exam.first),
                token=token,
                mask=mask,
                reward=torch.tensor([verdict.reward for verdict in verdicts], dtype=torch.float64),
                group_size=1,
            )
        )
        entropy = mean_entropies(scored).tolist()
        whole = ended(token, mask, end_ids=exam.task.end_ids, completed=stops(exam.task)).tolist()
        drawn = batch_seeds(self.seed, exam, batch)
        for i, verdict in enumerate(verdicts):
            yield {
                "benchmark": measurement.benchmark,
                "problem": int(exam.problems[row_of[i]]),
                "mode": measurement.mode,
                "sample": int(sample_of[i]),
                "seed": int(drawn[i]),
                "reward": float(verdict.reward),
                "extracted": verdict.extracted,
                "reason": verdict.reason,
                "response": exam.task.text(responses[i]),
                "response_tokens": len(responses[i]),
                "ended": bool(whole[i]),
                "mean_entropy": entropy[i],
                "temperature": measurement.temperature,
            }


def mean_entropies(rollouts: Rollouts) -> torch.Tensor:
    """(R,) float64: H of Def. B.1 of each response by itself, in nats."""
    # Every row as rollouts of its own: the definition is `Rollouts.mean_entropy`'s.
    alone = Rollouts(
        prompt=rollouts.prompt.unsqueeze(-1),
        token=rollouts.token.unsqueeze(-2),
        mask=rollouts.mask.unsqueeze(-2),
        reward=rollouts.reward.unsqueeze(-1),
        entropy=rollouts.scored("entropy").double().unsqueeze(-2),
        group_size=1,
    )
    return alone.mean_entropy()
