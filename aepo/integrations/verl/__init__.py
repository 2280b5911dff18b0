"""AEPO's methods inside verl: its plug-in, which verl finds by the entry point `verl.plugins` and imports with itself.

The name `aepo` then stands for a policy loss, an advantage estimator and a trainer, which are chosen together:

    actor_rollout_ref.actor.policy_loss._target_=aepo.integrations.verl.AEPOPolicyLossConfig
    actor_rollout_ref.actor.policy_loss.loss_mode=aepo
    algorithm.adv_estimator=aepo
    trainer.v1.trainer_mode=aepo
    actor_rollout_ref.actor.loss_agg_mode=token-sum
    +actor_rollout_ref.actor.policy_loss.method=reweighting
    +actor_rollout_ref.actor.policy_loss.target=0.5
"""

from importlib.util import find_spec

from aepo.integrations.verl.driver import Driver, Scores
from aepo.integrations.verl.loss import policy_loss
from aepo.integrations.verl.settings import AEPOPolicyLossConfig, refusal

__all__ = ["AEPOPolicyLossConfig", "Driver", "Scores", "policy_loss", "refusal"]

# verl's trainer needs TransferQueue, which its smaller installations lack; the rest of the plug-in does not.
if find_spec("transfer_queue") is not None:
    from aepo.integrations.verl.trainer import AEPOTrainer

    __all__ += ["AEPOTrainer"]
