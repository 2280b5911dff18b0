"""Unbiased pass@k (Chen et al. 2021)."""

import torch
from torch import Tensor


def pass_at_k(correct: Tensor, *, samples: int, k: int) -> Tensor:
    """Probability that at least one of k samples is right, estimated without bias from n >= k of them.

    1 - C(n - c, k) / C(n, k) = 1 - prod (1 - k / i) over i = n - c + 1 .. n, summed in log space: nothing overflows or
    cancels, and n = 1024 loses no digit.

    Args:
        correct: (...) integer, c, the number of right samples of each prompt, 0 <= c <= n.
        samples: n.
        k: 1 <= k <= n.

    Returns:
        (...) float64 in [0, 1].

    Raises:
        ValueError: k outside [1, n], or a count outside [0, n].

    >>> pass_at_k(torch.tensor([0, 1, 4]), samples=4, k=2).tolist()
    [0.0, 0.5, 1.0]
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k must be in [1, samples={samples}], got {k}")
    outside = (correct < 0) | (correct > samples)
    if outside.any():
        raise ValueError(f"correct must be in [0, samples={samples}], got {correct[outside][0].item()}")
    i = torch.arange(samples, 0, -1, dtype=torch.float64, device=correct.device)
    log_all_wrong = torch.log1p(-(k / i).clamp(max=1.0)).cumsum(0)
    log_all_wrong = torch.cat([log_all_wrong.new_zeros(1), log_all_wrong])
    return 0.0 - torch.expm1(log_all_wrong[correct.long()])
