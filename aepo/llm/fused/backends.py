"""Which code works through a call: said once in the log, and never a silent fallback."""

import functools
import importlib.util
import logging
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from aepo.llm.fused import cuda_backend, gemm_backend, torch_backend

Name = Literal["auto", "torch", "gemm", "triton"]
LogitsName = Literal["auto", "torch", "cuda"]

log = logging.getLogger("aepo")


def chosen(
    name: Name, hidden: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *,
    block_bytes: int | None = None,
) -> Any:  # fmt: skip
    """The backend's module.

    Args:
        name: which, or `auto`.
        hidden, weight, bias: the operands; their devices, dtypes and sizes decide.
        block_bytes: the call's budget, None for the device's; where it is tight, `auto` has no logits stored.

    Raises:
        ValueError: an unknown name, or a backend that cannot run here.
    """
    if name not in get_args(Name):
        raise ValueError(f"backend must be one of {', '.join(get_args(Name))}, got {name!r}")
    if name == "torch":
        return torch_backend
    given = [t for t in (hidden, weight, bias) if t is not None]
    reasons = {}
    for other in ("gemm", "triton") if name == "auto" else (name,):
        why_not = _obstacle(other, given, tested=name != "auto")
        if why_not is None and name == "auto" and other == "gemm" and weight is not None:
            why_not = gemm_backend.workspace(hidden, weight, block_bytes).too_tight
        if why_not is None:
            if name == "auto":
                say(f"fused: {other} backend ({hidden.device})")
            return _module(other)
        reasons[other] = why_not
    if name != "auto":
        raise ValueError(
            f"backend {name!r} cannot run here: {reasons[name]}; use 'torch', or 'auto' to choose by itself"
        )
    say(f"fused: torch backend ({reasons['triton']})")
    return torch_backend


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


def _module(name: str) -> Any:
    if name == "gemm":
        return gemm_backend
    from aepo.llm.fused import triton_backend

    return triton_backend


def _obstacle(name: str, given: list[Tensor], *, tested: bool) -> str | None:
    """Why gemm or triton cannot run, or None.

    Args:
        name: of the backend.
        given: hidden states first, then the others that are there.
        tested: whether Triton's interpreter, which is for tests, will do: `auto` never takes it.
    """
    device, dtypes = given[0].device, {t.dtype for t in given}
    # The row kernel of gemm has a form in CUDA C++ besides the one in Triton.
    by_cuda = name == "gemm" and cuda_backend.obstacle(device, torch.float32) is None
    if device.type != "cuda" and not by_cuda and not (tested and _interprets()):
        return f"tensors are on {device.type}"
    if not _installed() and not by_cuda:
        return "triton is not installed" + (", and nvcc was not found" if name == "gemm" else "")
    if torch.float64 in dtypes:
        return "float64 is not its dtype"
    if name == "gemm" and len({t.dtype for t in given[:2]}) > 1:
        return f"hidden is {_short(given[0])} and weight {_short(given[1])}: it multiplies operands of one dtype"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "it needs compute capability 8.0 (A100) or newer"
    return None


def _short(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interprets() -> bool:
    if not _installed():
        return False
    import triton

    return triton.knobs.runtime.interpret
