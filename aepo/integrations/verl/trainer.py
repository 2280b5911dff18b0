"""verl's synchronous trainer with a controller in its driver; what of it is overridden is as little as that takes."""

# pyright: reportMissingImports=false

import copy
import functools
import os
from pathlib import Path
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig
from torch import Tensor
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.utils.padding import response_from_nested

from aepo.integrations.verl.driver import Driver, Scores
from aepo.integrations.verl.settings import NAME, problems


@register_trainer(NAME)
class AEPOTrainer(PPOTrainerSync):
    """verl's `sync` trainer, whose step shows the controller the entropy that verl measures with old_log_probs.

    Raises:
        ValueError: settings of verl that would falsify the entropy or the method, all at once.
    """

    def __init__(self, config: DictConfig) -> None:
        if found := problems(config):
            raise ValueError("; ".join(found))
        actor = config.actor_rollout_ref.actor
        self.driver = Driver(
            omega_conf_to_dataclass(actor.policy_loss),
            group_size=config.actor_rollout_ref.rollout.n,
            minibatch_rows=actor.ppo_mini_batch_size * config.actor_rollout_ref.rollout.n,
        )
        # verl takes every name but this one for an asynchronous trainer's.
        config = copy.deepcopy(config)
        config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)

    def _compute_advantage(self, batch: tq.KVBatchMeta, metrics: dict[str, Any]) -> tq.KVBatchMeta:
        fields = ["old_log_probs", "entropy"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        data = data.to_padded_tensor()
        scores = Scores(
            old_logp=data["old_log_probs"].float(),
            entropy=data["entropy"].float(),
            logp_at=functools.partial(self._logp_at, batch),
        )
        # verl counts steps from 1.
        with self.driver.turn(scores, step=self.global_steps - 1, metrics=metrics):
            return super()._compute_advantage(batch, metrics)

    def _logp_at(self, batch: tq.KVBatchMeta, temperature: float) -> Tensor:
        """(R, T): a scoring pass as verl's for old_log_probs, at another temperature."""
        before = dict(batch.extra_info)
        batch.extra_info.update(calculate_entropy=False, compute_loss=False, temperature=temperature)
        self.actor_rollout_wg.compute_log_prob(batch)
        # What the passes after this one find.
        batch.extra_info.clear()
        batch.extra_info.update(before)
        fields = ["log_probs", "response_mask"]
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=fields)
        return response_from_nested(data["log_probs"], data["response_mask"]).to_padded_tensor(0.0).float()

    def _save_checkpoint(self) -> None:
        # Before verl's own, whose last act is to say that the checkpoint is whole.
        self.driver.save(Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}")
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        chosen = self.config.trainer
        folder = (
            chosen.resume_from_path
            if chosen.resume_mode == "resume_path"
            else os.path.join(chosen.default_local_dir, f"global_step_{self.global_steps}")
        )
        self.driver.restore(Path(folder))
