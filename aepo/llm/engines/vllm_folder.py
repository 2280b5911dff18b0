"""The folder that vLLM is given as its model: always the same one for the same architecture and tokenizer.

vLLM keeps what it has compiled for a model under a name that holds the model's path, so a folder of a new name at every
start would have every rank compile anew, for about a minute, and leave that behind.
"""

import copy
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from aepo.llm.engines.engine import EngineError


def model_folder(model: Any, tokenizer: PreTrainedTokenizerFast, *, local_rank: int) -> Path:
    """A folder with the model's config and its tokenizer, without weights; it is kept.

    It lies in `aepo/vllm` under $XDG_CACHE_HOME (~/.cache), named by a hash of what is in it. Every rank of a machine
    has its own, since all of them compile at one time.

    Args:
        model: the transformers causal LM.
        tokenizer: its tokenizer.
        local_rank: this process's index on its machine.

    Raises:
        EngineError: the folder cannot be written.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aepo" / "vllm"
    beside = cache / f".{local_rank}.{os.getpid()}"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(model.config)
        # A model built from its config does not name its class there yet.
        config.architectures = [type(model).__name__]
        config.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
        folder = cache / f"{_hash(beside)}-{local_rank}"
        if folder.is_dir() and _hash(folder) == _hash(beside):
            shutil.rmtree(beside)
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        try:
            beside.rename(folder)
        except OSError:
            # Another run was first with the same files.
            if not folder.is_dir() or _hash(folder) != _hash(beside):
                raise
            shutil.rmtree(beside)
    except OSError as error:
        raise EngineError(
            f"rollout.engine=vllm: {cache}, the folder of the models that vLLM is given, cannot be written "
            f"({error.strerror or error}); set XDG_CACHE_HOME to a folder that can"
        ) from error
    return folder


def _hash(folder: Path) -> str:
    """Of the names and bytes of a folder's files."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]
