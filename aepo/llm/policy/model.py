"""The model's architecture: the configuration that a folder holds, or a Qwen3 from scratch with random weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from aepo.llm import seeds
from aepo.llm.questions.built_in import tokenizer_from_scratch
from aepo.llm.questions.task import Task
from aepo.llm.settings import Settings, SettingsError
from aepo.llm.settings.model_source import ModelSource, located


def from_scratch(settings: Settings, task: Task) -> nn.Module:
    """A Qwen3 with random weights, drawn from `warm_start.seed`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape, tokenizer = settings.model, task.tokenizer
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden_size // shape.heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=settings.data.max_prompt_tokens + settings.rollout.max_response_tokens,
        # Qwen's 0.02 suits thousands of dimensions; a narrow model learns the walk several times faster from this.
        initializer_range=shape.hidden_size**-0.5,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.number(settings.warm_start.seed, "model"))
        return Qwen3ForCausalLM(config)


def model_config(settings: Settings, path: str | None) -> Any:
    """The transformers config of `path` (a folder or a config.json), else of the settings' own model.

    Raises:
        SettingsError: nothing that can be read there.
    """
    option, path = ("--model-config", path) if path else ("model.path", settings.model.path)
    if path is None:
        return _from_scratch(settings)
    try:
        if Path(path).is_file():
            return ModelSource(option=option, typed=path, place=path).config()
        return located(path, option=option, weights=False).config()
    except (SettingsError, OSError) as error:
        raise SettingsError(
            f"model config {path}: not readable as a transformers config ({error}); download the model and "
            "name its folder as model.path; the doctor needs its config.json only, as --model-config"
        ) from error


def _from_scratch(settings: Settings) -> Any:
    tokenizer = tokenizer_from_scratch(settings.data.train)
    # The task's prompts are not needed, and reading a data set for its tokenizer would be slow.
    with torch.device("meta"):
        return from_scratch(settings, SimpleNamespace(tokenizer=tokenizer)).config
