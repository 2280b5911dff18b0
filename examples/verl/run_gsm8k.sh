#!/usr/bin/env bash
# GSM8K with verl 0.9.1, one GPU: the entropy of the first step held by `reweighting`. More overrides may follow.
set -euo pipefail

python -m verl.trainer.main_ppo \
    actor_rollout_ref.actor.policy_loss._target_=aepo.integrations.verl.AEPOPolicyLossConfig \
    actor_rollout_ref.actor.policy_loss.loss_mode=aepo \
    algorithm.adv_estimator=aepo \
    trainer.v1.trainer_mode=aepo \
    actor_rollout_ref.actor.loss_agg_mode=token-sum \
    +actor_rollout_ref.actor.policy_loss.method=reweighting \
    "+actor_rollout_ref.actor.policy_loss.method_options={alpha: 4.0, scope: position}" \
    +actor_rollout_ref.actor.policy_loss.target=1.0 \
    +actor_rollout_ref.actor.policy_loss.target_relative=true \
    data.train_files=data/gsm8k/train.parquet \
    data.val_files=data/gsm8k/test.parquet \
    data.train_batch_size=128 \
    data.max_prompt_length=512 \
    data.max_response_length=1024 \
    actor_rollout_ref.model.path=Qwen/Qwen2.5-0.5B-Instruct \
    actor_rollout_ref.model.use_remove_padding=True \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=64 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.actor.entropy_from_logits_with_chunking=True \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.4 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=8 \
    algorithm.rollout_correction.rollout_is=token \
    algorithm.rollout_correction.rollout_is_threshold=2.0 \
    trainer.n_gpus_per_node=1 \
    trainer.nnodes=1 \
    trainer.project_name=aepo \
    trainer.experiment_name=verl_gsm8k \
    "trainer.logger=[console,tensorboard]" \
    trainer.save_freq=20 \
    trainer.test_freq=20 \
    trainer.total_epochs=3 \
    "$@"
