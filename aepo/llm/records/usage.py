"""What a step costs beside its seconds: tokens per second, and memory."""

import resource
import sys
from collections.abc import Sequence

import torch

from aepo.batch import Rollouts
from aepo.llm.processes import ranks

GIB = 1 << 30


class Memory:
    """The most memory that this rank was seen to use: its GPU's, everything on it, or without one the process's own.

    torch counts what it allocated, but a rollout engine that sleeps frees memory behind its back; the device knows.
    torch keeps what it once took, so a look at the end of a phase sees the phase's peak.
    """

    def __init__(self) -> None:
        self.peak = 0

    def look(self) -> int:
        """Take the present use into account; the peak so far, in bytes."""
        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            self.peak = max(self.peak, total - free)
        else:
            # Linux counts in KiB, macOS in bytes; the system itself keeps the peak.
            self.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return self.peak


def usage(
    rollouts: Sequence[Rollouts], prompts: Sequence[Sequence[int]], *, generate_seconds: float, step_seconds: float
) -> dict[str, float]:
    """perf/* of one step; called by all ranks together.

    Args:
        rollouts: of every rank and branch.
        prompts: every prompt's tokens; Rollouts.prompt indexes them.
        generate_seconds: that this rank's engine sampled; the slowest rank's count.
        step_seconds: of the whole step, less an evaluation.

    Returns:
        perf/tokens (prompts and responses, a prompt once per response), perf/tokens_per_second (of the responses, all
        ranks, per second of generation) and perf/throughput (perf/tokens per second of the step and rank: verl's).

    >>> one = Rollouts(prompt=torch.tensor([0, 0]), token=torch.zeros(2, 3).long(), mask=torch.ones(2, 3),
    ...                reward=torch.zeros(2), group_size=2)
    >>> usage([one], [range(7)], generate_seconds=0.5, step_seconds=2.0)
    {'perf/tokens': 20, 'perf/tokens_per_second': 12.0, 'perf/throughput': 10.0}
    """
    sampled = sum(int(part.mask.sum()) for part in rollouts)
    tokens = sampled + sum(len(prompts[prompt]) for part in rollouts for prompt in part.prompt.tolist())
    return {
        "perf/tokens": tokens,
        "perf/tokens_per_second": sampled / ranks.largest(generate_seconds),
        "perf/throughput": tokens / (step_seconds * ranks.world_size()),
    }


def extremes(main: Rollouts) -> dict[str, float]:
    """The shortest and the longest response, and the smallest and the largest reward, of the T = 1 rows."""
    length = main.mask.sum(-1)
    return {
        "response_length_min": int(length.min()),
        "response_length_max": int(length.max()),
        "reward_min": float(main.reward.min()),
        "reward_max": float(main.reward.max()),
    }
