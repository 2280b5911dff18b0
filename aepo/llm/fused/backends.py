"""Which code works through a call: said once in the log, and never a silent fallback."""

import functools
import importlib.util
import logging
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from aepo.llm.fused import cuda_backend, torch_backend

Name = Literal["auto", "torch", "triton"]
LogitsName = Literal["auto", "torch", "cuda"]

log = logging.getLogger("aepo")


def chosen(name: Name, *tensors: Tensor | None) -> Any:
    """The backend's module.

    Raises:
        ValueError: an unknown name, or triton where it cannot run.
    """
    if name not in get_args(Name):
        raise ValueError(f"backend must be one of {', '.join(get_args(Name))}, got {name!r}")
    given = [t for t in tensors if t is not None]
    why_not = _obstacle(name, given[0].device, {t.dtype for t in given})
    if name == "triton" and why_not is not None:
        raise ValueError(f"backend 'triton' cannot run here: {why_not}; use 'torch', or 'auto' to choose by itself")
    if name == "torch" or why_not is not None:
        if name == "auto":
            say(f"fused: torch backend ({why_not})")
        return torch_backend
    from aepo.llm.fused import triton_backend

    if name == "auto":
        say(f"fused: triton backend ({given[0].device})")
    return triton_backend


def chosen_for_logits(name: LogitsName, logits: Tensor) -> Any:
    """The same for logits that exist.

    Raises:
        ValueError: an unknown name, or cuda where it cannot run.
    """
    if name not in get_args(LogitsName):
        raise ValueError(f"backend must be one of {', '.join(get_args(LogitsName))}, got {name!r}")
    if name == "torch":
        return torch_backend
    why_not = cuda_backend.obstacle(logits.device, logits.dtype)
    if why_not is None:
        if name == "auto":
            say(f"token_stats_from_logits: cuda backend ({logits.device})")
        return cuda_backend
    if name == "cuda":
        raise ValueError(f"backend 'cuda' cannot run here: {why_not}; use 'torch', or 'auto' to choose by itself")
    say(f"token_stats_from_logits: torch backend ({why_not})")
    return torch_backend


@functools.cache
def say(line: str) -> None:
    """A line of the log, once a process."""
    log.info(line)


def _obstacle(name: Name, device: torch.device, dtypes: set[torch.dtype]) -> str | None:
    """Why triton cannot run, or None. Its interpreter is for tests: `auto` never takes it."""
    if device.type != "cuda" and not (name == "triton" and _interprets()):
        return f"tensors are on {device.type}"
    if not _installed():
        return "triton is not installed"
    if torch.float64 in dtypes:
        return "float64 is not its dtype"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0 (A100) or newer"
    return None


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interprets() -> bool:
    if not _installed():
        return False
    import triton

    return triton.knobs.runtime.interpret
