"""The model that is evaluated: what is known of it before its weights are loaded, and how it is told from others."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from aepo.home_path import at_home
from aepo.llm.checkpoints.as_model import is_checkpoint
from aepo.llm.settings import model_source
from aepo.llm.settings.model_source import ModelSource

OPTION = "--model"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
# Two models of one run differ in every weight, so a part tells them apart without reading gigabytes.
READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model before its weights are loaded."""

    source: str
    """As typed: folder or hub id."""
    place: str
    """Where transformers finds it: the source, or what was made of a checkpoint."""
    config: Any
    """transformers' configuration."""
    tokenizer: PreTrainedTokenizerBase
    """With an end and a padding token."""
    fingerprint: str
    """Of configuration and weights: that of another model differs."""

    @property
    def files(self) -> ModelSource:
        """Where the model is."""
        return ModelSource(option=OPTION, typed=self.source, place=self.place)

    @property
    def positions(self) -> int | None:
        """Longest prompt and response together, where the model has a bound."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def name(self) -> str:
        """For people: the last part of a hub id or folder; for what a run left, the run's, whatever the step."""
        path = at_home(self.source)
        if not path.is_dir():
            return path.name
        above = 2 if is_checkpoint(path) else int(path.resolve().name == "final")
        return path.resolve().parts[-1 - above]


def inspected(typed: str, *, made: Path | None = None) -> Subject:
    """Configuration and tokenizer of a model.

    Args:
        typed: folder or hub id.
        made: the folder of what was made of the source, where that is a checkpoint.

    Raises:
        SettingsError: as `aepo.llm.settings.model_source` has it.
    """
    found = model_source.inspected(model_source.located(typed, option=OPTION, made=made))
    place = found.source.place
    return Subject(
        source=typed,
        place=place,
        config=found.config,
        tokenizer=found.tokenizer,
        fingerprint=_fingerprint(place, found.config),
    )


def _weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))


def _fingerprint(place: str, config: Any) -> str:
    if not Path(place).is_dir():
        return str(getattr(config, "_commit_hash", None))
    crc = zlib.crc32((Path(place) / "config.json").read_bytes())
    for path in _weights(Path(place)):
        size = path.stat().st_size
        crc = zlib.crc32(f"{path.name}/{size}".encode(), crc)
        with path.open("rb") as file:
            file.seek(max(0, size - READ_BYTES))
            crc = zlib.crc32(file.read(READ_BYTES), crc)
    return f"{crc:08x}"


def loaded(subject: Subject, *, dtype: str, device: torch.device) -> nn.Module:
    """The causal LM with its weights, in evaluation mode.

    Raises:
        SettingsError: weights that cannot be read, or that are not all there.
    """
    model = subject.files.loaded(dtype=dtype if dtype == "auto" else getattr(torch, dtype))
    return model.to(device).eval()
