"""Our attention as one of transformers': the passes that tell their `Spans` use it, all others what they used before.

A model's layers ask for attention again where they are checkpointed, after the pass itself is over; so a pass hands its
spans down through the layers, and nothing is remembered beside it.
"""

import contextlib
import contextvars
import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from aepo.llm.policy.attention import KERNELS
from aepo.llm.policy.layout import Spans

BEFORE = "sdpa"
"""transformers' attention that ours stands in for: the one of every model that asks for nothing else."""
NAMES = {"varlen": "aepo_varlen", "flash": "aepo_fa", "sdpa": "aepo_sdpa"}
"""Of each kernel in transformers, which takes any name with "flash" in it for one of its own."""
FOREIGN = ("s_aux", "position_bias")
"""What some models add to the scores, and none of the kernels knows."""


@dataclass(kw_only=True)
class Asked:
    """What the layers of a pass asked for."""

    windows: set[int | None] = field(default_factory=set)
    """Of the masks that would have been made."""
    handed: set[int | None] = field(default_factory=set)
    """That attention was told of."""


_pass: contextvars.ContextVar[Asked | None] = contextvars.ContextVar("pass", default=None)


@contextlib.contextmanager
def without_masks() -> Iterator[Asked]:
    """Within, a model with our attention makes no mask: its spans say what one would. An outer one sees it all."""
    asked = _pass.get() or Asked()
    token = _pass.set(asked)
    try:
        yield asked
    finally:
        _pass.reset(token)


def stand_in(model: nn.Module, kernel: str) -> str | None:
    """Give the model our attention, by this kernel; why it cannot be had, else None.

    Args:
        model: one of transformers.
        kernel: of `aepo.llm.policy.attention.KERNELS`.
    """
    why = closed(model)
    if why is None:
        AttentionInterface.register(NAMES[kernel], functools.partial(_attention, kernel))
        AttentionMaskInterface.register(NAMES[kernel], _mask)
        model.set_attn_implementation(NAMES[kernel])
    return why


def closed(model: nn.Module) -> str | None:
    """Why the model's attention cannot be another one; None where it can."""
    now = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if now not in (BEFORE, *NAMES.values()):
        return f"model {type(model).__name__} computes attention in a way of its own ({now})"
    if not type(model)._can_set_attn_implementation():
        return f"model {type(model).__name__} does not let its attention be chosen"
    return None


def give_back(model: nn.Module) -> None:
    """Give the model transformers' attention again, if it has ours."""
    if getattr(getattr(model, "config", None), "_attn_implementation", None) in NAMES.values():
        model.set_attn_implementation(BEFORE)


def _mask(*arguments: Any, **named: Any) -> Tensor | None:
    asked = _pass.get()
    if asked is None:
        return ALL_MASK_ATTENTION_FUNCTIONS[BEFORE](*arguments, **named)
    asked.windows.add(named.get("local_size"))
    return None


def _attention(
    kernel: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Spans | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """(rows, columns, H, D) from (rows, heads, columns, D), as transformers asks for it.

    Raises:
        ValueError: the layer asks for what no kernel of ours computes.
    """
    if spans is None:
        its_own = getattr(sys.modules[type(module).__module__], "ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
        return its_own[BEFORE](module, query, key, value, attention_mask, **given)
    foreign = [name for name in FOREIGN if given.get(name) is not None]
    if given.get("dropout"):
        foreign.append("dropout")
    causal = given.get("is_causal")
    if not (getattr(module, "is_causal", True) if causal is None else causal):
        foreign.append("attention to what comes after")
    if foreign:
        raise ValueError(f"its layers ask for {', '.join(foreign)}")
    window = given.get("sliding_window")
    asked = _pass.get()
    if asked is not None:
        asked.handed.add(window)
    rows, _, columns, _ = query.shape
    query, key, value = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    if spans.key_index is not None:
        key, value = (x.index_select(0, spans.key_index) for x in (key, value))
    found = KERNELS[kernel].attend(
        query, key, value, spans, scale=given.get("scaling"), window=window, softcap=given.get("softcap")
    )
    return found.unflatten(0, (rows, columns)), None
