"""verl's names for what we measure, so that its dashboards and scripts read our runs.

Source: verl's `trainer/ppo/metric_utils.py` and `ray_trainer.py`. Where the same name is a slightly different number
there, it says so beside it. JSONL keeps our names only.
"""

from collections.abc import Mapping
from typing import Any

ALIASES = {
    # Over the T = 1 responses of the step; verl's is a mean over tokens by default, ours over responses first.
    "actor/entropy": "entropy",
    "actor/pg_loss": "loss",
    "actor/grad_norm": "grad_norm",
    "actor/lr": "lr",
    # E[r - 1 - ln r]; verl has E[-ln r], of the same expectation.
    "actor/ppo_kl": "kl",
    # verl counts where clipping won; ours where the ratio left the paper's clip range.
    "actor/pg_clipfrac": "clip_fraction",
    "critic/score/mean": "reward",
    "critic/score/max": "reward_max",
    "critic/score/min": "reward_min",
    "critic/rewards/mean": "reward",
    "critic/rewards/max": "reward_max",
    "critic/rewards/min": "reward_min",
    "response_length/mean": "response_length",
    "response_length/max": "response_length_max",
    "response_length/min": "response_length_min",
    "rollout_corr/k3_kl": "mismatch/kl",
    "timing_s/gen": "time/generate",
    "timing_s/reward": "time/reward",
    # verl scores with the old weights in a phase of its own, as we do.
    "timing_s/old_log_prob": "time/score",
    "timing_s/update_actor": "time/update",
    "timing_s/update_weights": "time/push",
    "timing_s/step": "time/step",
    "perf/time_per_step": "time/step",
    "perf/total_num_tokens": "perf/tokens",
}
"""verl's name -> ours. perf/throughput, tokens per second of the step and device, has the same name in both."""


def aliases(row: Mapping[str, Any]) -> dict[str, Any]:
    """verl's names of a step's metrics, and of what was not measured none.

    response_length/clip_ratio is the share that the length limit cut off; verl also counts responses that ended with
    their last allowed token.

    >>> aliases({"entropy": 0.5, "ended": 0.75})
    {'actor/entropy': 0.5, 'response_length/clip_ratio': 0.25}
    """
    named = {theirs: row[ours] for theirs, ours in ALIASES.items() if ours in row}
    if "ended" in row:
        named["response_length/clip_ratio"] = 1 - row["ended"]
    return named
