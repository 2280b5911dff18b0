"""A GGUF file as a transformers model: dequantised by transformers' own reader, its tokenizer completed.

The loaded model counts as quantised, which transformers refuses to save; its weights are plain numbers, so they go into
a fresh model of the same configuration.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch

from aepo.llm.settings import SettingsError
from aepo.llm.settings.model_source import line

NEEDED = ("gguf", "accelerate")
"""Packages that transformers reads GGUF files with."""
DIGITS_ALONE = ("smollm",)
"""By `tokenizer.ggml.pre`: tokenizers that part every digit, which transformers' conversion leaves out."""


def missing() -> list[str]:
    """Those of NEEDED that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def read(path: Path) -> tuple[Any, Any, str]:
    """Model in float32, tokenizer, and how the file's weights were quantised, such as Q4_1.

    Raises:
        SettingsError: a package that is missing, or a file that transformers cannot read.
    """
    if absent := missing():
        raise SettingsError(f"{path}: reading it needs {', '.join(absent)}: pip install {' '.join(absent)}")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        loaded, said = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(**where)
        architecture, quantised = _described(path)
    # An architecture that transformers does not read, a damaged file and a missing part have no class in common.
    except Exception as error:
        raise SettingsError(
            f"{path}: no GGUF file of an architecture that transformers reads: {line(error)}; fetch it again, or take "
            "another"
        ) from error
    if lacking := sorted(said["missing_keys"]):
        raise SettingsError(f"{path}: {len(lacking)} weights are not in it, such as {lacking[0]}; fetch it again")
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    _complete(tokenizer, architecture)
    return model.eval(), tokenizer, quantised


def _described(path: Path) -> tuple[str, str]:
    """Of the file's own words: which tokenizer it is (`tokenizer.ggml.pre`), and the kind that most weights are of."""
    import gguf

    reader = gguf.GGUFReader(path)
    field = reader.get_field("tokenizer.ggml.pre")
    counts: dict[str, int] = {}
    for tensor in reader.tensors:
        counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + int(tensor.n_elements)
    return ("" if field is None else str(field.contents())), max(counts, key=lambda kind: counts[kind])


def _complete(tokenizer: Any, architecture: str) -> None:
    """Put what the conversion of a tokenizer leaves out."""
    from tokenizers import pre_tokenizers

    if architecture in DIGITS_ALONE:
        before = tokenizer.backend_tokenizer.pre_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, before])
