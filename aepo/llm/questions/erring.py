"""A verifier that errs at known rates, as real ones do: what a run is trained on, never what it is evaluated by."""

from collections.abc import Sequence
from dataclasses import replace

from aepo.llm import seeds
from aepo.llm.grading import Verdict

MISJUDGED = "misjudged"
"""The reason of a verdict that was turned over, one of `aepo.llm.grading.REASONS`."""


def erring(
    verdicts: Sequence[Verdict],
    prompts: Sequence[int],
    responses: Sequence[Sequence[int]],
    *,
    false_positives: float,
    false_negatives: float,
    seed: int,
) -> list[Verdict]:
    """The verdicts, some of them turned over: whether one is depends on seed, prompt and response alone.

    The same wrong answer to the same prompt is therefore rewarded each time, as by a verifier with a blind spot.

    Args:
        verdicts: true ones, of reward 0 or 1.
        prompts, responses: that they are on.
        false_positives: share of the wrong answers that get 1; responses without an answer never do.
        false_negatives: share of the right answers that get 0.
        seed: of the run.

    >>> wrong, none = (Verdict(reward=0.0, extracted=None, reason=why) for why in ("wrong", "no answer"))
    >>> found = erring([wrong, none], [0, 0], [[5], [6]], false_positives=0.999999, false_negatives=0.0, seed=0)
    >>> [(verdict.reward, verdict.reason) for verdict in found]
    [(1.0, 'misjudged'), (0.0, 'no answer')]
    """
    rates = {"wrong": false_positives, "exact": false_negatives}
    return [
        replace(verdict, reward=1.0 - verdict.reward, reason=MISJUDGED)
        if _uniform(seed, prompt, response) < rates.get(verdict.reason, 0.0)
        else verdict
        for verdict, prompt, response in zip(verdicts, prompts, responses, strict=True)
    ]


def _uniform(seed: int, prompt: int, response: Sequence[int]) -> float:
    """In [0, 1)."""
    return seeds.number(seed, "verifier", prompt, *response) / 2**63
