"""The model that is evaluated: what is wrong with its folder is said before anything is loaded."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from aepo.llm.checkpoints.as_model import is_checkpoint
from aepo.llm.settings import SettingsError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
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
    def positions(self) -> int | None:
        """Longest prompt and response together, where the model has a bound."""
        return getattr(self.config, "max_position_embeddings", None)

    @property
    def name(self) -> str:
        """For people: the last part of a hub id or folder; for what a run left, the run's, whatever the step."""
        path = Path(self.source).expanduser()
        if not path.is_dir():
            return path.name
        above = 2 if is_checkpoint(path) else int(path.resolve().name == "final")
        return path.resolve().parts[-1 - above]


def inspected(source: str, *, made: Path | None = None) -> Subject:
    """Configuration and tokenizer of a model.

    Args:
        source: folder or hub id.
        made: the folder of what was made of the source, where that is a checkpoint.

    Raises:
        SettingsError: no such folder or hub model, no weights, no tokenizer or none with an end token.
    """
    place, folder = source, made or Path(source).expanduser()
    if folder.exists() or source[0] in "./~" or source.count("/") > 1:
        _check_folder(source, folder)
        place = str(folder)
    config, tokenizer = _config(source, place), _tokenizer(source, place)
    if tokenizer.eos_token_id is None:
        raise SettingsError(
            f"--model={source}: its tokenizer has no end token, so no response would end; set eos_token in its "
            "tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    rows = getattr(config.get_text_config(), "vocab_size", None)
    largest = max(tokenizer.get_vocab().values())
    if rows is not None and largest >= rows:
        raise SettingsError(
            f"--model={source}: its tokenizer has the token {largest}, and the model embeds {rows} (vocab_size); "
            "put the tokenizer that it was trained with in its folder"
        )
    return Subject(
        source=source, place=place, config=config, tokenizer=tokenizer, fingerprint=_fingerprint(place, config)
    )


def _check_folder(source: str, folder: Path) -> None:
    if not folder.exists():
        raise SettingsError(f"--model={source}: no such folder; name one with config.json, weights and tokenizer")
    if not folder.is_dir():
        raise SettingsError(f"--model={source}: a file; name the folder that holds it, with config.json and tokenizer")
    if not (folder / "config.json").is_file():
        hint = "name a folder that transformers wrote"
        if (folder / "final" / "config.json").is_file():
            hint = f"a run's folder; its trained model is --model={folder / 'final'}"
        elif (folder / "progress.json").is_file():
            hint = (
                "a checkpoint for --resume, which is no model in transformers' format; a run writes that to its final/"
            )
        raise SettingsError(f"--model={source}: no config.json there; {hint}")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(read_json(index, source).get("weight_map", {}).values())
        missing = sorted(name for name in names if not (folder / name).is_file())
        if missing:
            raise SettingsError(
                f"--model={source}: {index.name} names {missing[0]}, which is not there ({len(missing)} of "
                f"{len(names)} missing); copy or download the folder again"
            )
    if not _weights(folder):
        raise SettingsError(
            f"--model={source}: no weights there ({' or '.join(WEIGHTS)}); copy or download the folder again"
        )
    if not any((folder / name).is_file() for name in TOKENIZER):
        raise SettingsError(
            f"--model={source}: no tokenizer there (tokenizer.json); copy the one that the model was trained with into "
            "the folder"
        )


def _weights(folder: Path) -> list[Path]:
    return sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))


def read_json(path: Path, source: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"--model={source}: {path.name} is unreadable ({error}); copy or download it again"
        ) from error
    if not isinstance(found, dict):
        raise SettingsError(f"--model={source}: {path.name} must hold an object; copy or download it again")
    return found


def _config(source: str, place: str) -> Any:
    from transformers import AutoConfig

    if Path(place).is_dir():
        read_json(Path(place) / "config.json", source)
    try:
        return AutoConfig.from_pretrained(place)
    # transformers raises both for what is not there and for what it does not know.
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(
            f"--model={source}: no folder of that name, and no model can be had: {_line(error)}; check the name, or "
            "download the model and name its folder"
        ) from error


def _tokenizer(source: str, place: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place)
    # Depending on what a file lacks it is any of these, or the plain Exception of its Rust part.
    except Exception as error:
        raise SettingsError(
            f"--model={source}: its tokenizer cannot be read: {_line(error)}; copy or download its files again"
        ) from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


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
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            subject.place, dtype=dtype if dtype == "auto" else getattr(torch, dtype), output_loading_info=True
        )
    # Truncated files are errors of safetensors' own kind.
    except Exception as error:
        raise SettingsError(
            f"--model={subject.source}: its weights cannot be loaded: {_line(error)}; copy or download them again"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        # transformers would draw them at random and only warn.
        raise SettingsError(
            f"--model={subject.source}: {len(missing)} weights are not in its files, such as {missing[0]}; copy or "
            "download them again"
        )
    return model.to(device).eval()
