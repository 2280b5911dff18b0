"""A model by its folder or its hub id, for training and evaluation: what is wrong with it is said before it is loaded.

Every refusal is one line that names the option, the model and the cure.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from aepo.home_path import at_home
from aepo.llm.settings.kinds import SHOWN, shown
from aepo.llm.settings.presets import SettingsError

OPTION = "model.path"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""As transformers writes them; several files are named by an index."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
AGAIN = "copy or download them again"
# No model has as many, and a list with an entry for each would not fit the memory.
MOST_LAYERS = 4096
# A hub that is there answers in less; transformers itself asks six times, with pauses.
HUB_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model is; nothing of it has been read."""

    option: str
    """What a person names it by: `model.path` or `--model`."""
    typed: str
    """Folder or hub id, as a person has it."""
    place: str
    """Where transformers finds it: the folder, the hub id, or what was made of a checkpoint."""

    @property
    def label(self) -> str:
        """Such as `model.path=models/a`, which every message about the model begins with."""
        return f"{self.option}={self.typed}"

    @property
    def is_folder(self) -> bool:
        """Whether it is on this machine, and not on the hub."""
        return Path(self.place).is_dir()

    def config(self) -> Any:
        """transformers' configuration.

        Raises:
            SettingsError: none that can be read.
        """
        from transformers import AutoConfig

        if self.is_folder:
            layers = self.read_json("config.json").get("num_hidden_layers")
            if isinstance(layers, int) and layers > MOST_LAYERS:
                raise SettingsError(
                    f"{self.label}: config.json has num_hidden_layers={layers}; copy or download it again"
                )
        try:
            return AutoConfig.from_pretrained(self.place)
        # What transformers says of a model that is not there or that it does not know, and of a value that is not of
        # its field's type, has no class in common.
        except Exception as error:
            raise SettingsError(
                f"{self.label}: no model can be had: {line(error)}; check the name and its config.json, or download "
                "the model and name its folder"
            ) from error

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with an end and a padding token.

        Raises:
            SettingsError: none that can be read, or one without an end token.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.place)
        # Depending on what a file lacks it is any of these, or the plain Exception of its Rust part.
        except Exception as error:
            raise SettingsError(
                f"{self.label}: its tokenizer cannot be read: {line(error)}; copy or download its files again"
            ) from error
        if tokenizer.eos_token_id is None:
            raise SettingsError(
                f"{self.label}: its tokenizer has no end token, so no response would end; set eos_token in its "
                "tokenizer_config.json"
            )
        self._check_tokenizer(tokenizer)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def _check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """That its end token is one of the model's, and its limit a number.

        transformers adds an end token that is not in the vocabulary, its own guess where tokenizer_config.json is
        missing: a token that the model has never seen, and never says.
        """
        if not isinstance(tokenizer.model_max_length, int | float):
            raise SettingsError(
                f"{self.label}: model_max_length in its tokenizer_config.json must be a number, got "
                f"{shown(tokenizer.model_max_length)}; copy or download it again"
            )
        if self.is_folder and _is_file(Path(self.place) / "tokenizer.json"):
            end, written = tokenizer.eos_token, self.read_json("tokenizer.json")
            vocabulary = (written.get("model") or {}).get("vocab") or ()
            # Unigram models list pairs of a token and its score.
            known = {one if isinstance(one, str) else one[0] for one in vocabulary}
            known |= {one["content"] for one in written.get("added_tokens") or ()}
            config = Path(self.place) / "tokenizer_config.json"
            added = self.read_json(config.name).get("added_tokens_decoder") if _is_file(config) else None
            known |= {one["content"] for one in (added or {}).values()}
            if end not in known:
                raise SettingsError(
                    f"{self.label}: its end token {shown(end)} is not in the vocabulary of its tokenizer.json, so no "
                    "response would end; set eos_token in its tokenizer_config.json, or copy that file again"
                )

    def loaded(self, *, dtype: torch.dtype | str) -> nn.Module:
        """The causal LM with its weights.

        Args:
            dtype: of the weights; "auto": as they were saved.

        Raises:
            SettingsError: weights that cannot be read, or that are not all there.
        """
        from transformers import AutoModelForCausalLM

        try:
            model, info = AutoModelForCausalLM.from_pretrained(self.place, dtype=dtype, output_loading_info=True)
        # Truncated files are errors of safetensors' own kind.
        except Exception as error:
            raise SettingsError(f"{self.label}: its weights cannot be loaded: {line(error)}; {AGAIN}") from error
        missing = sorted(info["missing_keys"])
        if missing:
            # transformers would draw them at random and only warn.
            raise SettingsError(
                f"{self.label}: {len(missing)} weights are not in its files, such as {missing[0]}; {AGAIN}"
            )
        return model

    def read_json(self, name: str) -> dict[str, Any]:
        """The object in one of the folder's files.

        Raises:
            SettingsError: it cannot be read, or holds none.
        """
        try:
            found = json.loads((Path(self.place) / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SettingsError(f"{self.label}: {name} is unreadable ({error}); copy or download it again") from error
        if not isinstance(found, dict):
            raise SettingsError(f"{self.label}: {name} must hold an object; copy or download it again")
        return found


def of_run(path: str) -> ModelSource:
    """The model of a run's `model.path`, which `located` has found before."""
    folder = at_home(path)
    return ModelSource(option=OPTION, typed=path, place=str(folder) if folder.exists() else path)


def located(typed: str, *, option: str = OPTION, made: Path | None = None, weights: bool = True) -> ModelSource:
    """Where a model is, once its folder is known to hold what a model has, or the hub to be there.

    Args:
        typed: folder or hub id. What is no folder and cannot be an id, and what begins with a folder that is there,
            was meant as a folder.
        option: what a person names it by.
        made: the folder of what was made of it, where it is a checkpoint.
        weights: whether the model's weights and tokenizer are needed, or its config.json alone.

    Raises:
        SettingsError: no such folder or hub model; no config.json, weights or tokenizer there, or weights whose files
            are not whole.
    """
    folder = made or at_home(typed)
    meant = (
        typed[:1] in ("/", ".", "~")
        or typed.endswith(".gguf")
        or typed.count("/") > 1
        or Path(typed.partition("/")[0]).is_dir()
    )
    if not folder.exists() and not meant:
        source = ModelSource(option=option, typed=typed, place=typed)
        _check_hub(source)
        return source
    source = ModelSource(option=option, typed=typed, place=str(folder))
    _check_folder(source, folder)
    if weights:
        _check_weights(source, folder)
        if not any((folder / name).is_file() for name in TOKENIZER):
            raise SettingsError(
                f"{source.label}: no tokenizer there (tokenizer.json); copy the one that the model was trained with "
                "into the folder"
            )
    return source


def _check_hub(source: ModelSource) -> None:
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        if constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(source.typed, "config.json"), str):
            return
        HfApi().model_info(source.typed, timeout=HUB_SECONDS)
        return
    except (RepositoryNotFoundError, HFValidationError):
        why = "the hub has no model of that name, or it is private"
    except HfHubHTTPError:
        # A hub that has answered: whoever reads the model there says what is wrong.
        return
    # What a connection says depends on the version of what makes it.
    except Exception as error:
        why = f"the hub cannot be reached ({line(error)})"
    raise SettingsError(
        f"{source.label}: no such folder, and {why}; check the name, or download the model and name its folder"
    )


def _check_folder(source: ModelSource, folder: Path) -> None:
    if folder.suffix == ".gguf":
        raise SettingsError(
            f"{source.label}: {'a GGUF file' if folder.is_file() else 'no such file'}; aepo model {source.typed} --out "
            f"DIR makes a folder of {'it' if folder.is_file() else 'a GGUF file'}, which {source.option} takes"
        )
    if not folder.exists():
        raise SettingsError(f"{source.label}: no such folder; name one with config.json, weights and tokenizer")
    if not folder.is_dir():
        raise SettingsError(f"{source.label}: a file; name the folder that holds it, with config.json and tokenizer")
    if not (folder / "config.json").is_file():
        hint = "name a folder that transformers wrote"
        if quantised := sorted(folder.glob("*.gguf")):
            hint = f"aepo model {quantised[0]} --out DIR makes such a folder of a GGUF file"
        if (folder / "final" / "config.json").is_file():
            hint = f"a run's folder; its trained model is {source.option}={folder / 'final'}"
        elif (folder / "progress.json").is_file():
            hint = (
                "a checkpoint for --resume, which is no model in transformers' format; a run writes that to its final/"
            )
        raise SettingsError(f"{source.label}: no config.json there; {hint}")


def _check_weights(source: ModelSource, folder: Path) -> None:
    """That every file of weights is there and whole; of a file of gigabytes a few bytes are read."""
    for name in WEIGHTS:
        index = f"{name}.index.json"
        if (folder / index).is_file():
            _check_shards(source, folder, index)
            return
        if (folder / name).is_file():
            _held(source, folder / name)
            return
    raise SettingsError(f"{source.label}: no weights there ({' or '.join(WEIGHTS)}); {AGAIN.replace('them', 'it')}")


def _check_shards(source: ModelSource, folder: Path, index: str) -> None:
    places = source.read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise SettingsError(f"{source.label}: {index} names no files of weights; copy or download it again")
    names = sorted(set(places.values()))
    missing = [name for name in names if not _is_file(folder / name)]
    if missing:
        raise SettingsError(
            f"{source.label}: {index} names {shown(missing[0])[1:-1]}, which is not there "
            f"({len(missing)} of {len(names)} missing); copy or download the folder again"
        )
    held = {name: _held(source, folder / name) for name in names}
    lacking = sorted(weight for weight, name in places.items() if weight not in held[name])
    if lacking:
        raise SettingsError(
            f"{source.label}: its weights cannot be loaded: {lacking[0]} is not in {places[lacking[0]]}, where {index} "
            f"has it; {AGAIN}"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    # A name that no disk takes.
    except (OSError, ValueError):
        return False


def _held(source: ModelSource, path: Path) -> set[str]:
    """The names of a file's weights."""
    from safetensors import safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return set(file.keys())
        return set(torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path)))
    # Each library has errors of its own for a file that was cut off, and torch several.
    except Exception as error:
        raise SettingsError(
            f"{source.label}: its weights cannot be loaded: {path.name}: {line(error)}; {AGAIN}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """What is known of a model whose weights are not loaded."""

    source: ModelSource
    config: Any
    """transformers' configuration, of which a causal LM can be built."""
    tokenizer: PreTrainedTokenizerBase
    """With an end and a padding token, none of whose tokens is beyond the model's."""


def inspected(source: ModelSource) -> Inspected:
    """Configuration and tokenizer of a model.

    Raises:
        SettingsError: one that cannot be read, a configuration of no causal LM, or a tokenizer of another model.
    """
    from transformers import AutoModelForCausalLM

    config, tokenizer = source.config(), source.tokenizer()
    try:
        # Weights without numbers take no memory.
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(config)
    # Sizes that do not fit together show as whatever is computed from them.
    except Exception as error:
        raise SettingsError(
            f"{source.label}: no causal language model can be built of its config.json "
            f"({type(error).__name__}: {line(error)}); name another model, or copy or download it again"
        ) from error
    rows = getattr(config.get_text_config(), "vocab_size", None)
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if rows is not None and largest >= rows:
        raise SettingsError(
            f"{source.label}: its tokenizer has the token {largest}, and the model embeds {rows} (vocab_size); "
            "put the tokenizer that it was trained with in its folder"
        )
    return Inspected(source=source, config=config, tokenizer=tokenizer)


def line(error: Exception) -> str:
    """What an error of a library says, on one line; its class where it says nothing."""
    said = [one.strip() for one in str(error).splitlines() if one.strip()]
    # The first line of some is a heading.
    text = " ".join(said[:2]) if said and said[0].endswith(":") else "".join(said[:1])
    return text.rstrip(".")[:SHOWN] or type(error).__name__
