"""The model before RL: loaded, or built from scratch and, where the task has demonstrations, taught by them first."""

import inspect
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aepo.llm import seeds
from aepo.llm.policy.microbatch import left_padded
from aepo.llm.policy.model import from_scratch
from aepo.llm.questions import built_in, small_tokenizers
from aepo.llm.questions.task import Task
from aepo.llm.settings import Settings
from aepo.llm.settings.model_source import of_run

log = logging.getLogger("aepo")

# The first steps of AdamW at the demo's 5e-3 are large; a short ramp keeps every seed from a bad start.
WARMUP_STEPS = 50
# About a second of the demo's.
TOLD_EVERY = 20


def load_model(settings: Settings, task: Task) -> nn.Module:
    """The causal LM that RL starts from, in `train.dtype`.

    The first caller of a warm start trains it (about a minute) and leaves it in `warm_start.cache`; later ones load it.

    Raises:
        SettingsError: weights that cannot be read, or that are not all there.
    """
    path = settings.model.path
    if path is None and settings.warm_start.steps and settings.data.built_in:
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
    return of_run(path).loaded(dtype=dtype)


def warm_start(settings: Settings, task: Task, *, told: Callable[[int, int], object] | None = None) -> Path:
    """Folder of the taught model in HF format; trains it if this combination has not been trained yet.

    Everything that shapes the result is in the folder's name: these settings and the source of the modules used.

    Args:
        settings: of the run.
        task: with demonstrations.
        told: is called now and then with the steps that are made and those that will be.
    """
    of_the_task = [one for one in type(task).__mro__ if one.__module__.startswith("aepo.")]
    made_by = {
        "model": settings.model.model_dump(),
        "warm_start": settings.warm_start.model_dump(exclude={"cache"}),
        "positions": settings.data.max_prompt_tokens + settings.rollout.max_response_tokens,
        "task": settings.data.train,
        "source": [
            inspect.getsource(inspect.getmodule(m))
            for m in (*of_the_task, built_in, small_tokenizers, from_scratch, warm_start)
        ],
    }
    folder = Path(settings.warm_start.cache) / f"{seeds.number(json.dumps(made_by, sort_keys=True)):016x}"
    if (folder / "config.json").is_file():
        log.info("warm start: %s", folder)
        return folder
    log.info("warm start: %d supervised steps ...", settings.warm_start.steps)
    model = from_scratch(settings, task)
    loss = _teach(model, settings, task, told)
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


def _teach(model: Any, settings: Settings, task: Task, told: Callable[[int, int], object] | None) -> float:
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
            raise ValueError("warm_start needs prompts of one length, as built-in tasks have")
        response = torch.tensor([response for _, response in rows])
        logits = model(input_ids=torch.cat([prompt, response], 1), logits_to_keep=response.shape[1] + 1).logits[:, :-1]
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), response.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
        if told is not None and step % TOLD_EVERY == 0:
            told(step + 1, warm.steps)
    return float(loss.detach())
