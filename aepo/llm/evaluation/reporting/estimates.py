"""Statistics of an evaluation: averages, pass@k, majority votes, intervals over problems, and paired comparisons.

A benchmark is a sample of problems: intervals and p-values are over problems, never over samples of one problem, which
are alike. Letters: P problems, n samples of each.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from aepo.llm.evaluation.reporting.candidates import candidates
from aepo.passk import pass_at_k

Floats = NDArray[np.float64]

RESAMPLES = 9999
"""Of a bootstrap and of a permutation test that is not exact."""
VOTES = 200
"""Subsets that a majority vote of fewer than all samples is averaged over."""
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two checkpoints on the same problems."""

    difference: float
    """Mean over problems, second minus first."""
    interval: tuple[float, float]
    """95 %, of the difference."""
    p_value: float
    """Two-sided, of no difference: signs of the problems' differences flipped. Of one comparison: whoever makes m of
    them compares with 0.05 / m."""


def pass_by_problem(correct: Sequence[int] | NDArray[np.int64], *, samples: int, k: int) -> Floats:
    """(P,) unbiased pass@k of each problem (`aepo.passk.pass_at_k`) from its number of right samples."""
    return pass_at_k(torch.tensor(np.asarray(correct), dtype=torch.int64), samples=samples, k=k).numpy()


def majority_by_problem(
    answers: Sequence[str | None], right: Sequence[bool], *, k: int, seed: int = 0, votes: int = VOTES
) -> float:
    """Chance that the most frequent answer among k of one problem's samples is right (self-consistency).

    Samples that state no answer do not vote. Ties are broken at random, in expectation. For k = n this is exact; for
    fewer it is a mean over `votes` subsets drawn with `seed`.

    Args:
        answers: (n,) extracted answers; equal ones are one candidate (`candidates`).
        right: (n,) verdicts. Equal answers have equal verdicts; where they do not, the share that is right counts.
        k: in [1, n].
        seed: of the subsets.
        votes: how many of them.

    Raises:
        ValueError: k outside [1, n], or lengths that differ.

    >>> majority_by_problem(["1", "2", "2", None], [True, False, False, False], k=4)
    0.0
    >>> majority_by_problem(["1", "2"], [True, False], k=2)
    0.5
    >>> majority_by_problem(["0.5", "1/2", "3", "3", "2.0"], [True, True, False, False, False], k=5)
    0.5
    """
    n = len(answers)
    if len(right) != n:
        raise ValueError(f"answers and right must have one entry per sample, got {n} and {len(right)}")
    if not 1 <= k <= n:
        raise ValueError(f"k must be in [1, samples={n}], got {k}")
    voted = candidates(answers, right)
    verdicts: dict[int, list[bool]] = {}
    for candidate, verdict in zip(voted, right, strict=True):
        if candidate is not None:
            verdicts.setdefault(candidate, []).append(bool(verdict))
    share = {candidate: float(np.mean(given)) for candidate, given in verdicts.items()}

    def vote(chosen: Iterable[int]) -> float:
        counts = Counter(candidate for i in chosen if (candidate := voted[i]) is not None)
        if not counts:
            return 0.0
        most = max(counts.values())
        return float(np.mean([share[candidate] for candidate, count in counts.items() if count == most]))

    if k == n:
        return vote(range(n))
    rng = np.random.default_rng(seed)
    return float(np.mean([vote(rng.permutation(n)[:k]) for _ in range(votes)]))


def interval(values: Sequence[float] | Floats, *, confidence: float = CONFIDENCE, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (bias-corrected and accelerated) of the mean over problems.

    Args:
        values: (P,) one number per problem.
        confidence: nominal coverage.
        seed: of the resampling.

    Returns:
        Lower and upper end; the value itself twice where all problems agree, which says nothing about others.

    >>> low, high = interval([0.0, 1.0] * 15)
    >>> 0.3 < low < 0.5 < high < 0.7
    True
    """
    sample = np.asarray(values, dtype=np.float64)
    if not len(sample):
        raise ValueError("an interval needs at least one problem, got none")
    if np.ptp(sample) == 0:
        return float(sample[0]), float(sample[0])
    found = stats.bootstrap(
        (sample,), np.mean, confidence_level=confidence, n_resamples=RESAMPLES, method="BCa", rng=seed, batch=1000
    ).confidence_interval
    return float(found.low), float(found.high)


def compared(first: Sequence[float] | Floats, second: Sequence[float] | Floats, *, seed: int = 0) -> Comparison:
    """The paired comparison of two checkpoints' numbers on the same problems, in the same order.

    The p-value is that of a sign-flip permutation test of the mean difference: exact up to 13 problems, by
    resampling beyond.

    Raises:
        ValueError: other numbers of problems.

    >>> compared([0.0] * 6, [1.0] * 6).p_value
    0.03125
    """
    a, b = (np.asarray(x, dtype=np.float64) for x in (first, second))
    if a.shape != b.shape or not len(a):
        raise ValueError(f"both checkpoints need numbers on the same problems, got {len(a)} and {len(b)}")
    difference = b - a
    if not difference.any():
        return Comparison(difference=0.0, interval=(0.0, 0.0), p_value=1.0)
    test = stats.permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=RESAMPLES, rng=seed, vectorized=True
    )
    return Comparison(
        difference=float(difference.mean()), interval=interval(difference, seed=seed), p_value=float(test.pvalue)
    )


def summary(samples: pd.DataFrame, *, ks: Sequence[int] = ()) -> dict[str, dict[str, Any]]:
    """What results.json says of each benchmark and mode.

    Args:
        samples: a row per sample, with the columns of samples.parquet.
        ks: the k of pass@k and majority@k beside 1 and n; those above n are left out, and powers of two are added.

    Returns:
        benchmark -> mode -> figures; shares in [0, 1], entropy in nats per token, lengths in tokens.

    Raises:
        ValueError: a problem with more or fewer samples than the others of its benchmark and mode.
    """
    found: dict[str, dict[str, Any]] = {}
    for (benchmark, mode), rows in samples.groupby(["benchmark", "mode"], sort=True):
        by_problem = {problem: group for problem, group in rows.groupby("problem", sort=True)}
        found.setdefault(str(benchmark), {})[str(mode)] = _figures(by_problem, f"{benchmark} {mode}", ks)
    return found


def _figures(by_problem: Mapping[Any, pd.DataFrame], what: str, ks: Sequence[int]) -> dict[str, Any]:
    sizes = {problem: len(rows) for problem, rows in by_problem.items()}
    n = max(sizes.values())
    short = [problem for problem, size in sizes.items() if size != n]
    if short:
        raise ValueError(f"{what}: problem {short[0]} has {sizes[short[0]]} samples, others have {n}")
    correct = np.array([(rows["reward"] > 0).sum() for rows in by_problem.values()])
    powers = [2**i for i in range(n.bit_length()) if 2**i <= n]
    chosen = sorted({1, n, *powers, *(k for k in ks if k <= n)})
    average = correct / n
    passes = {k: pass_by_problem(correct, samples=n, k=k) for k in chosen}
    votes = {
        k: float(
            np.mean(
                [
                    majority_by_problem(_texts(rows["extracted"]), (rows["reward"] > 0).tolist(), k=k)
                    for rows in by_problem.values()
                ]
            )
        )
        for k in ([n] if n == 1 else [max(p for p in powers if p <= n), n] if n not in powers else [n])
    }
    every = pd.concat(by_problem.values())
    reason = every["reason"].astype(str)
    return {
        "problems": len(by_problem),
        "samples": n,
        "avg": float(average.mean()),
        "avg_interval": list(interval(average)),
        "pass": {str(k): float(v.mean()) for k, v in passes.items()},
        "pass_interval": {str(k): list(interval(v)) for k, v in passes.items()},
        "majority": {str(k): v for k, v in votes.items()},
        "entropy": float(np.average(every["mean_entropy"], weights=every["response_tokens"].clip(lower=1))),
        "response_tokens": float(every["response_tokens"].mean()),
        "ended": float(every["ended"].mean()),
        "timeouts": int((reason == "timeout").sum()),
        "errors": int(reason.str.startswith("error").sum()),
    }


def _texts(extracted: pd.Series) -> list[str | None]:
    return [None if pd.isna(text) else str(text) for text in extracted]
