"""`--dry-run`: two whole steps, with a random model of the same architecture that any machine holds.

Data, templates, verifier, engine, every rank, checkpoint and export are the run's own; only sizes are smaller.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from aepo.llm.policy.model import model_config
from aepo.llm.processes import ranks
from aepo.llm.settings import Settings, SettingsError
from aepo.llm.settings.model_source import of_run

log = logging.getLogger("aepo")

FOLDER = "dry_run"
"""Under the run's `out`, which is otherwise left alone."""
STEPS, LAYERS, HEAD_DIM, WIDTH, EXPERTS = 2, 2, 32, 128, 4
"""Of the dry run and its model. 32 is the smallest head that vLLM samples with on a CPU."""
RESPONSE_TOKENS, PROMPTS, HELD_OUT = 32, 8, 4


def shrunk(settings: Settings) -> Settings:
    """The settings of the dry run, whose model rank 0 has written to disk; called by all ranks together.

    Raises:
        SettingsError: a model.path without a config or a tokenizer that can be read.
    """
    out = Path(settings.out) / FOLDER
    changed = settings.model_dump()
    changed["out"] = str(out)
    if ranks.rank() == 0:
        shutil.rmtree(out, ignore_errors=True)
        if settings.model.path is not None:
            write_model(settings, out / "model")
    ranks.barrier()
    if settings.model.path is not None:
        changed["model"]["path"] = str(out / "model")
    # Taught or not, two steps show the same.
    changed["warm_start"]["steps"] = 0
    longest = min(settings.rollout.max_response_tokens, RESPONSE_TOKENS)
    changed["rollout"]["max_response_tokens"] = longest
    changed["reward"]["overlong_buffer_tokens"] = min(settings.reward.overlong_buffer_tokens, longest)
    prompts = min(settings.train.prompts_per_step, max(PROMPTS, settings.train.minibatches))
    # A rate that falls after its warm-up needs a step to fall in.
    warmup = max(0, min(settings.train.warmup_steps, STEPS * settings.train.minibatches - 2))
    changed["train"] |= {"steps": STEPS, "prompts_per_step": prompts, "warmup_steps": warmup}
    changed["checkpoint"] |= {"every": 1}
    # Two steps are no run that somebody wants to find among the others.
    changed["log"] |= {"wandb_project": None, "wandb_name": None}
    changed["data"]["held_out_problems"] = min(settings.data.held_out_problems, HELD_OUT)
    samples = min(settings.evaluation.samples, 2)
    changed["evaluation"] |= {"samples": samples, "ks": [1], "every": min(settings.evaluation.every, 1)}
    return Settings.model_validate(changed)


def write_model(settings: Settings, folder: Path) -> None:
    """A random model of `model.path`'s architecture (its weights are not read), with its tokenizer, in `folder`.

    Raises:
        SettingsError: no config or tokenizer there.
    """
    from transformers import AutoModelForCausalLM

    source = settings.model.path
    config, tokenizer = model_config(settings, None), of_run(source).tokenizer()
    model = AutoModelForCausalLM.from_config(small_config(config, kv_heads=settings.rollout.tensor_parallel))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    log.info(
        "dry run: a random %s of %.2f million parameters stands in for %s",
        type(model).__name__,
        sum(p.numel() for p in model.parameters()) / 1e6,
        source,
    )


def small_config(config: Any, *, kv_heads: int = 1) -> Any:
    """The config with few narrow layers and the same vocabulary, positions and share of KV heads; changed in place.

    Args:
        config: of a transformers causal LM.
        kv_heads: >= 1; ranks that share an engine each take one, and as many of the other heads.

    Raises:
        SettingsError: a model that is not one stack of layers.
    """
    text = config.get_text_config()
    if text is not config:
        raise SettingsError(f"--dry-run: {type(config).__name__} is not one stack of text layers, and is not shrunk")
    group = max(1, config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or 1))
    sizes = {
        "num_hidden_layers": LAYERS,
        "num_attention_heads": group * kv_heads,
        "num_key_value_heads": kv_heads,
        "head_dim": HEAD_DIM,
        "hidden_size": group * kv_heads * HEAD_DIM,
        "intermediate_size": WIDTH,
        "moe_intermediate_size": WIDTH,
        "shared_expert_intermediate_size": WIDTH,
        "num_experts": EXPERTS,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "max_window_layers": LAYERS,
    }
    for name, size in sizes.items():
        if getattr(config, name, None) is not None:
            setattr(config, name, size)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:LAYERS]
    return config
