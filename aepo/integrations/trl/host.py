"""What differs between TRL's versions, found by what a trainer has and not by its number.

Tested: 1.10.0, 1.14.2 and 1.16.0. Before 1.10 no gradient reaches a token's entropy (an entropy bonus would silently do
nothing), and 1.15.0 cannot run GRPO on a CPU: its log-probs ask for a Triton kernel.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

try:
    from trl.trainer.utils import add_fused_lm_head
except ImportError:  # Before 1.15 the trainer divides logits by its own `temperature`.
    add_fused_lm_head = None

LOWEST = "1.10.0"
"""The oldest version of TRL that is tested."""


def check_trainer(trainer: GRPOTrainer) -> None:
    """Nothing, if this trainer has all that an integration takes.

    Raises:
        ImportError: a version of TRL that is too old.
        ValueError: a model whose loss has more terms, or a kind that the rows of two branches are not joined for.
    """
    if not hasattr(trainer, "_entropy_bonus_enabled"):
        raise ImportError(f"aepo.integrations.trl needs trl >= {LOWEST}: older ones give an entropy no gradient")
    if getattr(trainer, "use_liger_kernel", False):
        raise ValueError(
            "use_liger_kernel must be False with this version of TRL, whose loss it is: the method's is ours"
        )
    if getattr(trainer, "aux_loss_enabled", False):
        raise ValueError(
            "router_aux_loss_coef must be 0 for this model: the method is the whole objective, and the experts' "
            f"auxiliary loss is another, got {trainer.router_aux_loss_coef}"
        )
    if trainer._is_vlm:
        raise ValueError(
            "processing_class must be a tokenizer: the pixels of a second branch are not joined to those of the first"
        )


def check_server(trainer: GRPOTrainer) -> None:
    """Nothing, if the log-probs of a vLLM server, where one samples, are those at the sampling temperature.

    Raises:
        ValueError: they are not.
    """
    if not (trainer.use_vllm and trainer.vllm_mode == "server" and trainer.accelerator.is_main_process):
        return
    mode = trainer.vllm_generation.vllm_client.get_server_info()["model_config"]["logprobs_mode"]
    if mode != "processed_logprobs":
        raise ValueError(
            f"the vLLM server's logprobs_mode is {mode!r}: start it with --logprobs-mode processed_logprobs, or set "
            "correction='none'; its log-probs have to be those at the sampling temperature"
        )


@contextlib.contextmanager
def sampling_at(trainer: GRPOTrainer, temperature: float) -> Iterator[None]:
    """The trainer's next responses are sampled at this temperature, whatever samples them."""
    holders = [trainer.vllm_generation] if trainer.use_vllm else [trainer.generation_config]
    keys = {} if trainer.use_vllm else trainer.generation_kwargs
    before = [holder.temperature for holder in holders], dict(keys)
    for holder in holders:
        holder.temperature = temperature
    if keys:
        # TRL puts these over the model's own configuration.
        keys["temperature"] = temperature
    try:
        yield
    finally:
        for holder, value in zip(holders, before[0], strict=True):
            holder.temperature = value
        keys |= before[1]


def stats(
    trainer: GRPOTrainer,
    model: Any,
    inputs: dict[str, Any],
    *,
    temperature: float = 1.0,
    batch_size: int | None = None,
    entropy_gradient: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-prob and entropy at the temperature, each (R, T), float32 or wider; anything on padding.

    Args:
        trainer: whose head and mixed precision are used.
        model: the one that is trained, wrapped or not.
        inputs: prompts and responses as TRL's own dict holds them.
        temperature: > 0.
        batch_size: rows of one forward pass; None: all.
        entropy_gradient: whether the entropy carries a gradient.
    """
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with _head_at(trainer, temperature), _entropy_gradient(trainer, entropy_gradient):
        logp, entropy, *_ = trainer._get_per_token_logps_and_entropies(
            model, ids, attention, inputs["completion_ids"].size(1), batch_size=batch_size, compute_entropy=True
        )
    wide = torch.promote_types(logp.dtype, torch.float32)
    return logp.to(wide), entropy.to(wide)


@contextlib.contextmanager
def _head_at(trainer: GRPOTrainer, temperature: float) -> Iterator[None]:
    if temperature == 1:
        yield
    elif add_fused_lm_head is None:
        before, trainer.temperature = trainer.temperature, temperature
        try:
            yield
        finally:
            trainer.temperature = before
    else:
        # The head has its temperature from the time that it was put on, and one that is put over it wins.
        model = trainer.accelerator.unwrap_model(trainer.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        own, had = model.forward, "forward" in vars(model)
        add_fused_lm_head(
            model,
            temperature=temperature,
            cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32,
            outputs=("log_probs", "entropy"),
        )
        try:
            yield
        finally:
            if had:
                model.forward = own
            else:
                del model.forward


@contextlib.contextmanager
def _entropy_gradient(trainer: GRPOTrainer, wanted: bool) -> Iterator[None]:
    # Before 1.15 a trainer without a bonus of its own takes the entropy without a gradient.
    before, trainer._entropy_bonus_enabled = trainer._entropy_bonus_enabled, wanted
    try:
        yield
    finally:
        trainer._entropy_bonus_enabled = before
