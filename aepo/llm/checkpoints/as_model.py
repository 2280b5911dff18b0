"""A training run's checkpoint as a model in transformers' format, so that a run can be followed over its steps."""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import torch
from torch import Tensor

from aepo.llm.checkpoints import unpickling
from aepo.llm.policy.model import model_config
from aepo.llm.questions.built_in import tokenizer_from_scratch
from aepo.llm.questions.end_tokens import published_ends
from aepo.llm.settings import Settings, SettingsError, load
from aepo.llm.settings.model_source import of_run

STATE = "state"
PREFIX = "model."
"""Before every weight's name, which the trainer wraps (`aepo.llm.policy.response_stats.ResponseStats`)."""


def is_checkpoint(folder: Path) -> bool:
    """Whether a trainer left this folder under its `checkpoints/`."""
    return (folder / "progress.json").is_file() and (folder / STATE).is_dir()


def step_of(folder: Path) -> int:
    """How many training steps are behind a checkpoint.

    Raises:
        SettingsError: it does not say.
    """
    try:
        return int(json.loads((folder / "progress.json").read_text())["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"--model={folder}: progress.json is unreadable ({error}); name another checkpoint, or the run's final/"
        ) from error


def write_model(checkpoint: Path, folder: Path, *, trusted: bool = False) -> None:
    """Weights, configuration and tokenizer of a checkpoint in `folder`, the weights as the run computed with them.

    Args:
        checkpoint: its folder.
        folder: is made anew.
        trusted: whether the checkpoint may hold more than tensors and DeepSpeed's state, and so run code.

    Raises:
        SettingsError: the checkpoint cannot be read, or is not `trusted` and holds what could run code.
    """
    from transformers import AutoModelForCausalLM

    settings = load(checkpoint / "settings.yaml")
    dtype = getattr(torch, settings.train.dtype)
    # Without numbers of its own, which take long to draw.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(settings, None), dtype=dtype)
    option = f"--model={checkpoint}"
    if not trusted:
        unpickling.check(checkpoint, option=option)
    try:
        with unpickling.only_tensors(checkpoint, option=option, trusted=trusted):
            weights = {name: value.to(dtype) for name, value in _weights(checkpoint, settings).items()}
        left = model.load_state_dict(weights, strict=False, assign=True)
    except SettingsError:
        raise
    # torch and DeepSpeed have errors of their own for files that are cut off, hold something else, or do not fit.
    except Exception as error:
        raise SettingsError(
            f"--model={checkpoint}: its weights cannot be read ({type(error).__name__}: {error}); name another "
            "checkpoint, or the run's final/"
        ) from error
    model.tie_weights()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    wrong = sorted({*left.missing_keys, *left.unexpected_keys} - tied)
    if wrong:
        raise SettingsError(
            f"--model={checkpoint}: {wrong[0]} is in the model or in the checkpoint only; it is damaged"
        )
    if settings.model.path is not None:
        source = of_run(settings.model.path)
        tokenizer = source.tokenizer()
        if ends := published_ends(source.place):
            # No part of the configuration that the model was made by.
            model.generation_config.eos_token_id = list(ends)
    else:
        tokenizer = tokenizer_from_scratch(settings.data.train)
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _weights(checkpoint: Path, settings: Settings) -> dict[str, Tensor]:
    if settings.train.zero_stage == 3:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        # Parted over the ranks that saved it. DeepSpeed prints what it does.
        with contextlib.redirect_stdout(sys.stderr):
            state = get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), tag=STATE)
    else:
        path = checkpoint / STATE / "mp_rank_00_model_states.pt"
        state = torch.load(path, map_location="cpu", weights_only=False)["module"]
    return {name.removeprefix(PREFIX): value for name, value in state.items()}
