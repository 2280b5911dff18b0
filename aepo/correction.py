"""Rollout engine against trainer: how far their log-probs are apart, and the weights that correct for it.

Everything here compares the two *at the sampling temperature*. The ratio of the trainer at T = 1 to the engine at T
would not correct numerics: it would turn the expectation under pi^T back into one under pi, which steers nothing.
Letters as in `aepo.batch`.
"""

import dataclasses
import math

import torch
from torch import Tensor

from aepo.batch import Batch, Rollouts


def truncated_importance(trainer_logp: Tensor, engine_logp: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """min(pi_trainer / pi_engine, cap) per token (truncated importance sampling).

    Args:
        trainer_logp: (R, T), at the sampling temperature, of the weights that the engine sampled from.
        engine_logp: (R, T), as the engine computed it at the same temperature.
        mask: (R, T).
        cap: >= 1; what is above is a token whose gradient would be noise.

    Returns:
        (R, T), 1 on padding.

    >>> truncated_importance(torch.tensor([[-1.0, 0.0]]), torch.tensor([[-1.0, -9.0]]), torch.ones(1, 2), cap=2.0)
    tensor([[1., 2.]])
    """
    return torch.where(mask != 0, (trainer_logp - engine_logp).exp().clamp(max=cap), 1.0)


def trusted(trainer_logp: Tensor, engine_logp: Tensor, mask: Tensor, *, bound: float) -> Tensor:
    """Which responses have a geometric mean ratio of trainer to engine within [1 / bound, bound].

    Args:
        trainer_logp, engine_logp, mask: as in `truncated_importance`.
        bound: > 1.

    Returns:
        (R,) bool; an empty response is trusted.
    """
    difference = torch.where(mask != 0, trainer_logp - engine_logp, 0.0)
    mean = difference.sum(-1) / mask.sum(-1).clamp(min=1)
    return mean.abs() <= math.log(bound)


def corrected(
    batch: Batch, main: Rollouts, second: Rollouts | None, *, cap: float, sequence_bound: float | None
) -> Batch:
    """The batch of `aepo.method.assemble` with every token's weight times its truncated importance.

    The entropy bonus keeps its weight: it is a mean over states, whose correction would only add variance.

    Args:
        batch: main rows, then the second ones.
        main: sampled at T = 1, with old_logp and engine_logp.
        second: sampled at the control's T, with logp_t and engine_logp there.
        cap: of the token's ratio.
        sequence_bound: rows outside it (`trusted`) weigh 0; None keeps all.
    """
    parts = [(main.scored("old_logp"), main)]
    if second is not None:
        parts.append((second.scored("logp_t"), second))
    factors = []
    for logp, rows in parts:
        if rows.engine_logp is None:
            raise ValueError("Rollouts.engine_logp is missing: there is nothing to correct for")
        factor = truncated_importance(logp, rows.engine_logp, rows.mask, cap=cap)
        if sequence_bound is not None:
            kept = trusted(logp, rows.engine_logp, rows.mask, bound=sequence_bound)
            factor = factor * kept.unsqueeze(-1)
        factors.append(torch.nn.functional.pad(factor, (0, batch.token.shape[-1] - factor.shape[-1]), value=1.0))
    return dataclasses.replace(batch, weight=batch.weight * torch.cat(factors))


def measured(main: Rollouts) -> dict[str, float]:
    """How engine and trainer differ on the T = 1 rows, in nats: mean |difference|, KL(engine || trainer), worst ratio.

    The KL is the mean of r - 1 - ln r over the engine's own samples, r = trainer / engine: never negative, unbiased.
    """
    if main.engine_logp is None or not main.mask.sum():
        return {"mismatch/abs": 0.0, "mismatch/kl": 0.0, "mismatch/worst_ratio": 1.0}
    difference = torch.where(main.mask != 0, main.scored("old_logp") - main.engine_logp, 0.0).double()
    tokens = main.mask.sum()
    return {
        "mismatch/abs": float(difference.abs().sum() / tokens),
        "mismatch/kl": float((difference.exp() - 1 - difference).sum() / tokens),
        "mismatch/worst_ratio": float(difference.abs().max().exp()),
    }
