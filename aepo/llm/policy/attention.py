"""Causal attention over sequences whose queries and keys have lengths of their own, and no mask of tokens x tokens.

Three kernels compute it: torch's varlen attention, the package flash-attn, and torch's scaled dot product, sequence by
sequence, which runs everywhere. Shapes: N queries and M keys of all sequences of a pass, one after the other; H heads,
of which keys and values may have fewer; D the numbers of a head.
"""

import functools
import importlib
import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from aepo.llm.policy.layout import Spans

Attend = Callable[..., Tensor]
"""(query (N, H, D), key (M, heads, D), value (M, heads, D), spans, *, scale, window, softcap) -> (N, H, D).

`window` is how many keys a query sees at most, its own among them; `softcap` bounds the scores by its tanh. None: none.
"""

BLOCK = 256
"""Queries that share a mask where one is needed: it grows with the keys, and not with their square."""
HALF = (torch.bfloat16, torch.float16)
"""What the flash kernels compute in."""
AMPERE = (8, 0)
"""Compute capability from which on the flash kernels run."""


def varlen(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, scale: float | None, window: int | None, softcap: None
) -> Tensor:
    """By `torch.nn.attention.varlen`, flash attention in torch itself.

    Raises:
        ValueError: a soft cap; or a window, where torch is older than 2.11.
    """
    _refuse("torch's varlen attention", softcap=softcap)
    return _varlen_options(window, torch_varlen())(
        query, key, value, spans.query_ends, spans.key_ends, *spans.longest, scale=scale
    )


def _varlen_options(window: int | None, kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The kernel with what makes it causal from the end, which torch 2.10 says in another way than later ones."""
    known = inspect.signature(kernel).parameters
    grouped = {"enable_gqa": True} if "enable_gqa" in known else {}
    if "window_size" in known:
        return functools.partial(kernel, window_size=(-1 if window is None else window - 1, 0), **grouped)
    _refuse(f"the varlen attention of torch {torch.__version__}", window=window)
    return functools.partial(kernel, is_causal=True, **grouped)


def torch_varlen() -> Callable[..., Tensor]:
    """The kernel of `torch.nn.attention.varlen`."""
    return importlib.import_module("torch.nn.attention.varlen").varlen_attn


def flash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Spans,
    *,
    scale: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """By the package flash-attn."""
    return flash_varlen()(
        query,
        key,
        value,
        spans.query_ends,
        spans.key_ends,
        *spans.longest,
        softmax_scale=scale,
        causal=True,
        window_size=(-1, -1) if window is None else (window - 1, 0),
        softcap=softcap or 0.0,
    )


def flash_varlen() -> Callable[..., Tensor]:
    """The kernel of the package flash-attn."""
    return importlib.import_module("flash_attn").flash_attn_varlen_func


def sdpa(
    query: Tensor, key: Tensor, value: Tensor, spans: Spans, *, scale: float | None, window: int | None, softcap: None
) -> Tensor:
    """By torch's scaled dot product, one call for each run of sequences of the same lengths.

    Raises:
        ValueError: a soft cap.
    """
    _refuse("torch's scaled dot product", softcap=softcap)
    lengths = itertools.groupby(zip(spans.queries, spans.keys, strict=True))
    runs = [(asked, seen, len(list(same))) for (asked, seen), same in lengths]
    queries = query.split([asked * count for asked, _, count in runs])
    keys, values = (x.split([seen * count for _, seen, count in runs]) for x in (key, value))
    found = []
    for (_, _, count), *parts in zip(runs, queries, keys, values, strict=True):
        together = _causal_from_the_end(
            *(x.unflatten(0, (count, -1)).transpose(1, 2) for x in parts), scale=scale, window=window
        )
        found.append(together.transpose(1, 2).flatten(0, 1))
    return found[0] if len(found) == 1 else torch.cat(found)


def _causal_from_the_end(
    query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, window: int | None
) -> Tensor:
    """Of sequences of the same lengths, shaped like the query: (count, H, queries, D) with (count, heads, keys, D)."""
    asked, seen = query.shape[-2], key.shape[-2]
    group = query.shape[1] // key.shape[1]
    if asked == seen and (window is None or window >= seen):
        return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=group > 1)
    # With a mask, heads that share keys would make scores of queries x keys outside of any kernel.
    key, value = (x if group == 1 else x.repeat_interleave(group, 1) for x in (key, value))
    found = []
    for first in range(0, asked, BLOCK):
        last = min(asked, first + BLOCK)
        # A query's own key, and the first one that the block sees.
        own = torch.arange(first, last, device=query.device).unsqueeze(-1) + seen - asked
        begin = 0 if window is None else max(0, first + seen - asked - window + 1)
        place = torch.arange(begin, last + seen - asked, device=query.device)
        mask = place <= own if window is None else (place <= own) & (place > own - window)
        some_keys, some_values = (x[:, :, begin : last + seen - asked] for x in (key, value))
        found.append(
            scaled_dot_product_attention(query[:, :, first:last], some_keys, some_values, attn_mask=mask, scale=scale)
        )
    return found[0] if len(found) == 1 else torch.cat(found, -2)


def _refuse(who: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{who} has no {name}, got {name}={value}")


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A way to compute attention."""

    attend: Attend
    means: str
    """What it is, for a person."""
    halves: bool
    """Whether it computes in bfloat16 and float16 alone, on CUDA devices from Ampere on."""


KERNELS = {
    "varlen": Kernel(attend=varlen, means="torch.nn.attention.varlen", halves=True),
    "flash": Kernel(attend=flash, means="flash-attn's varlen attention", halves=True),
    "sdpa": Kernel(attend=sdpa, means="torch's scaled dot product", halves=False),
}
"""By the word of `model.attention`, the fastest first."""


def missing(name: str, device: torch.device) -> str | None:
    """Why a kernel cannot run on a device, whatever the model; None where it can.

    >>> missing("varlen", torch.device("cpu"))
    'torch.nn.attention.varlen needs a CUDA device, and there is none'
    >>> missing("sdpa", torch.device("cpu"))
    """
    kernel = KERNELS[name]
    if not kernel.halves:
        return None
    if device.type != "cuda":
        return f"{kernel.means} needs a CUDA device, and there is none"
    capability = torch.cuda.get_device_capability(device)
    if capability < AMPERE:
        return (
            f"{kernel.means} needs a device of compute capability {'.'.join(map(str, AMPERE))} or above, and "
            f"{torch.cuda.get_device_name(device)} has {'.'.join(map(str, capability))}"
        )
    if name == "flash" and find_spec("flash_attn") is None:
        return "the package flash-attn is not installed"
    if name == "varlen" and find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no torch.nn.attention.varlen, which came with 2.10"
    return None


def unfit(name: str, dtypes: set[torch.dtype]) -> str | None:
    """Why a kernel cannot compute in the dtypes of a model's weights; None where it can.

    >>> unfit("flash", {torch.float32})
    "flash-attn's varlen attention computes in bfloat16 or float16, and the weights are float32"
    """
    other = sorted(str(dtype).removeprefix("torch.") for dtype in dtypes - set(HALF))
    if KERNELS[name].halves and other:
        return f"{KERNELS[name].means} computes in bfloat16 or float16, and the weights are {', '.join(other)}"
    return None
