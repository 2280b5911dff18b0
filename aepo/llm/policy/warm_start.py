"""The model before RL: loaded, or built from scratch and, where the task has demonstrations, taught by them first."""

import inspect
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aepo.llm import seeds
from aepo.llm.engines.engine import left_padded
from aepo.llm.questions import small_tokenizers as vocabulary
from aepo.llm.questions import walk
from aepo.llm.questions.end_tokens import published_ends
from aepo.llm.questions.task import DataError, Task, math_task
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import Settings

log = logging.getLogger("aepo")

# The first steps of AdamW at the demo's 5e-3 are large; a short ramp keeps every seed from a bad start.
WARMUP_STEPS = 50


def load_task(settings: Settings) -> Task:
    """The task of `data.train`, with the tokenizer that fits it: the model's own, or one built on the spot.

    Raises:
        DataError: data that cannot be used.
    """
    if settings.data.train == "walk":
        if settings.model.path is not None and not _is_walk_model(settings.model.path):
            raise DataError(
                f"model.path={settings.model.path}: its tokenizer is not the walk task's; "
                "give data.train a file of questions, or leave model.path out"
            )
        return walk_task()
    if settings.model.path is None:
        tokenizer = vocabulary.byte_tokenizer()
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(settings.model.path)
        if tokenizer.eos_token_id is None:
            raise DataError(f"model.path={settings.model.path}: its tokenizer has no end token")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
    published = () if settings.model.path is None else published_ends(settings.model.path)
    task, left_out = math_task(settings.data, settings.reward, tokenizer, seed=settings.seed, published_ends=published)
    if left_out:
        log.info("data: %d prompts over %d tokens left out", left_out, settings.data.max_prompt_tokens)
    return task


def _is_walk_model(path: str) -> bool:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path).get_vocab() == walk_task().tokenizer.get_vocab()


def load_model(settings: Settings, task: Task) -> nn.Module:
    """The causal LM that RL starts from, in `train.dtype`.

    The first caller of a warm start trains it (about a minute) and leaves it in `warm_start.cache`; later ones load it.
    """
    from transformers import AutoModelForCausalLM

    path = settings.model.path
    if path is None and settings.warm_start.steps and settings.data.train == "walk":
        path = str(warm_start(settings, task))
    elif settings.warm_start.steps:
        why = "model.path is given" if path else f"data.train={settings.data.train} has no demonstrations"
        log.info("warm start left out: %s", why)
    dtype = getattr(torch, settings.train.dtype)
    if path is None:
        model = from_scratch(settings, task)
        for parameter in model.parameters():
            # Weights only: the buffers behind positions are float32 in any model.
            parameter.data = parameter.data.to(dtype)
        return model
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)


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


def warm_start(settings: Settings, task: Task) -> Path:
    """Folder of the taught model in HF format; trains it if this combination has not been trained yet.

    Everything that shapes the result is in the folder's name: these settings and the source of the modules used.
    """
    made_by = {
        "model": settings.model.model_dump(),
        "warm_start": settings.warm_start.model_dump(exclude={"cache"}),
        "positions": settings.data.max_prompt_tokens + settings.rollout.max_response_tokens,
        "source": [inspect.getsource(m) for m in (walk, vocabulary, inspect.getmodule(warm_start))],
    }
    folder = Path(settings.warm_start.cache) / f"{seeds.number(json.dumps(made_by, sort_keys=True)):016x}"
    if (folder / "config.json").is_file():
        log.info("warm start: %s", folder)
        return folder
    log.info("warm start: %d supervised steps ...", settings.warm_start.steps)
    model = from_scratch(settings, task)
    loss = _teach(model, settings, task)
    log.info("warm start: loss %.3f; kept in %s", loss, folder)
    beside = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    model.save_pretrained(beside)
    task.tokenizer.save_pretrained(beside)
    try:
        beside.rename(folder)
    except OSError:
        # Another process was first with the same weights.
        if not (folder / "config.json").is_file():
            raise
        shutil.rmtree(beside)
    return folder


def _teach(model: Any, settings: Settings, task: Task) -> float:
    """Cross-entropy on fresh demonstrations, AdamW, warm-up then linear decay; returns the last loss."""
    warm = settings.warm_start
    optimizer = torch.optim.AdamW(model.parameters(), lr=warm.lr, betas=(0.9, 0.95))
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS) * (1 - step / warm.steps)
    )
    pairs = task.demonstrations(warm.steps * warm.rows, right_share=warm.right_share, seed=warm.seed)
    model.train()
    loss = torch.tensor(float("nan"))
    for step in range(warm.steps):
        rows = pairs[step * warm.rows : (step + 1) * warm.rows]
        prompt, attention, _ = left_padded([task.prompts[p] for p, _ in rows], task.tokenizer.pad_token_id)
        if (attention == 0).any():
            raise ValueError("warm_start needs prompts of one length, as the walk task has")
        response = torch.tensor([response for _, response in rows])
        logits = model(input_ids=torch.cat([prompt, response], 1), logits_to_keep=response.shape[1] + 1).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), response.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
    return float(loss.detach())
