"""The policy loss: the method's surrogate on advantages that carry its weights, summed by verl over the global batch.

The core's loss is a sum of weight x surrogate(A) (`aepo.loss.policy_loss`). Every surrogate that is taken here is
proportional to A, for weights >= 0: surrogate(weight x A) = weight x surrogate(A), so that one number a token, which
verl calls the advantage, holds both. What is left is a plain sum over tokens, verl's `token-sum`: it multiplies by the
number of data-parallel ranks, whose mean the backend takes, and micro-batches add up.
"""

# pyright: reportMissingImports=false

from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss
from verl.utils.torch_functional import masked_mean

from aepo.batch import Batch
from aepo.integrations.verl.settings import NAME, SECTION, TARGET, AEPOPolicyLossConfig
from aepo.loss import RATIO_REPORT_RANGE


@register_policy_loss(NAME)
def policy_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-sum",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Minus the sum of the surrogate over the tokens of the global mini-batch; verl's signature.

    Args:
        old_log_prob, log_prob: (R, T), at T = 1, before the update and now.
        advantages: (R, T), weight x advantage, as `Driver.advantages` makes them.
        response_mask: (R, T).
        loss_agg_mode: must be `token-sum`.
        config: verl's ActorConfig, whose policy_loss is an `AEPOPolicyLossConfig`.
        rollout_is_weights: (R, T), the truncated importance of verl's rollout correction; None without one.

    Returns:
        The loss, and verl's own metrics of a policy loss, except that `pg_clipfrac` is the share of tokens whose ratio
        left [0.8, 1.2], whatever the method's clip.

    Raises:
        ValueError: settings of another class, or another loss_agg_mode.
    """
    settings = getattr(config, "policy_loss", None)
    if not isinstance(settings, AEPOPolicyLossConfig):
        raise ValueError(f"{SECTION}._target_ must be {TARGET} with loss_mode={NAME}, got {type(settings).__name__}")
    if loss_agg_mode != "token-sum":
        raise ValueError(
            f"actor_rollout_ref.actor.loss_agg_mode must be token-sum with {SECTION}.loss_mode={NAME}, got "
            f"{loss_agg_mode!r}: every mean is in the method's weights already"
        )
    none = torch.zeros_like(advantages)
    batch = Batch(
        prompt=torch.zeros(len(advantages), dtype=torch.int64, device=advantages.device),
        token=none.long(),
        mask=response_mask.to(advantages.dtype),
        old_logp=old_log_prob,
        advantage=advantages,
        weight=response_mask.to(advantages.dtype),
        entropy_weight=none,
        group_size=1,
    )
    objective = batch.on(settings.named_method().surrogate(batch.on(log_prob, old_log_prob), batch, None), 0.0)
    if rollout_is_weights is not None:
        objective = objective * rollout_is_weights
    loss = agg_loss(-objective, response_mask, loss_agg_mode, **config.global_batch_info)
    with torch.no_grad():
        log_ratio = batch.on(log_prob - old_log_prob, 0.0)
        outside = (log_ratio.expm1().abs() > RATIO_REPORT_RANGE).to(log_ratio.dtype)
        metrics = {
            "actor/pg_clipfrac": masked_mean(outside, response_mask).item(),
            "actor/ppo_kl": masked_mean(-log_ratio, response_mask).item(),
        }
    return loss, metrics
