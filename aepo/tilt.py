"""Target distributions: which of the right answers to prefer, as a log-ratio to the policy (the paper's last section).

AEPO trains on samples of q = pi^T that are right; anything that can be sampled from, or weighed against pi, can take
the place of pi^T. A tilt gives ln q / pi, up to a constant, of ordinary T = 1 rollouts; only its differences among the
right answers to a prompt matter, so its mean never pushes.

Letters as in `aepo.batch`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from aepo.batch import Rollouts
from aepo.controller import Control

Tilt = Callable[[Rollouts, Control], Tensor]
"""(scored rollouts, control) -> ln q / pi per token (..., R, T), 0 on padding."""


def tempering(rollouts: Rollouts, control: Control) -> Tensor:
    """ln pi^T - ln pi per token: q is the policy at the control's temperature, hot for more entropy.

    Raises:
        ValueError: the rollouts were not scored, or not at that temperature.
    """
    old_logp = rollouts.scored("old_logp")
    return torch.where(rollouts.mask != 0, rollouts.scored("logp_t") - old_logp, 0.0)


def shortness(strength: float) -> Tilt:
    """q proportional to pi exp(-strength x length / mean length of the group): shorter, and as right as before.

    Every token of a response carries the response's ratio. The group's mean length makes the strength a pure number.

    Args:
        strength: >= 0; 0 is the policy itself.

    Raises:
        ValueError: strength < 0.
    """
    if strength < 0:
        raise ValueError(f"strength must be >= 0, got {strength}")

    def tilt(rollouts: Rollouts, control: Control) -> Tensor:
        length = rollouts.mask.sum(-1)
        grouped, weight = (x.unflatten(-1, (-1, rollouts.group_size)) for x in (length, rollouts.row_weight))
        mean = ((weight * grouped).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True)).clamp(min=1.0)
        ratio = (-strength * grouped / mean).flatten(-2)
        return ratio.unsqueeze(-1) * rollouts.mask

    return tilt
