"""Files of runs that never were, with numbers that are known: what a report and its verdicts are tested by."""

from collections.abc import Mapping

import numpy as np

from aepo.llm.experiment.ladder.outcome import Counts, Outcome
from aepo.llm.experiment.ladder.protocol import Protocol
from aepo.llm.questions.ladder import LEVELS


def made(
    protocol: Protocol,
    arm: str,
    seed: int,
    *,
    whole: float = 0.5,
    narrow: float = 0.5,
    solved: float = 1.0,
    entropy: tuple[float, float] = (1.2, 0.5),
    error: float | None = 0.02,
) -> Outcome:
    """A run of an arm.

    Args:
        protocol: of the arm.
        arm, seed: of the run.
        whole, narrow: share of right samples of the prompts that are solved, at T = 1 and at the low temperature.
        solved: share of the prompts, the first ones, of which anything is right.
        entropy: the first and the last.
        error: mean |H - H*|; None of an arm without a target.
    """
    chosen, trained = protocol.evaluation, protocol.arms[arm].trained
    is_solved = np.arange(chosen.prompts) < round(solved * chosen.prompts)

    def counts(samples: int, share: float, *, different: bool = True) -> Counts:
        # Every prompt has the share but for rounding, which is spread so that the mean has it too.
        exact = share * samples * np.arange(1, chosen.prompts + 1)
        right = np.diff(np.floor(exact + 1e-9), prepend=0).astype(np.int64)
        right = np.where(is_solved, np.clip(right, 1 if share else 0, samples), 0)
        return Counts(samples=samples, right=right, different=np.minimum(right, 10) if different else None)

    found = {"whole": counts(chosen.whole.samples, whole), "narrow": counts(chosen.narrow.samples, narrow)}
    if arm in chosen.more.arms:
        found["whole_nucleus"] = counts(chosen.whole.samples, whole, different=False)
        found["narrow_nucleus"] = counts(chosen.narrow.samples, narrow, different=False)
        if seed in chosen.more.seeds:
            found["more"] = counts(chosen.more.samples, whole)
    checkpoints = range(chosen.checkpoints.every, protocol.steps, chosen.checkpoints.every)
    summary: Mapping[str, float | None] = {
        "entropy_first": entropy[0], "entropy_last": entropy[1], "entropy_last_half": entropy[1],
        "tracking_error": error, "target_last": None if error is None else 0.5, "duty_up": 0.5, "reward": whole,
        "authority": 1.5, "authority_measured": 0.9,
    }  # fmt: skip
    steps = list(range(0, protocol.steps, 5))
    curve = {
        "step": steps,
        "entropy": np.linspace(*entropy, len(steps)).round(4).tolist(),
        "reward": [round(whole, 3)] * len(steps),
    }
    if error is not None:
        curve["target"] = [0.5] * len(steps)
        curve["control/authority"] = [1.5] * len(steps)
    return Outcome(
        arm=arm, seed=seed, digest=protocol.digests[arm],
        about={
            "command": f"aepo experiment --task ladder --arms {arm}", "device": "CPU", "capability": "AVX2",
            "versions": {"torch": "2"}, "said": [], "evaluation_cpu_seconds": 10.0,
            "training_cpu_seconds": 30.0 if trained else None, "training_seconds": 33.0 if trained else None,
        },
        summary=summary if trained else {}, curve=curve if trained else {}, counts=found,
        checkpoints={step: counts(chosen.checkpoints.samples, whole, different=False) for step in checkpoints}
        if protocol.arms[arm].followed else {},
        surprise={level: {"right": [0.3, 1000], "wrong": [0.9, 1000]} for level in LEVELS},
    )  # fmt: skip
