"""From an engine's name to the engine, and to the canary that proves its weights: the place to plug in another one.

A new engine is a class with the methods of `aepo.llm.engines.engine.Engine`, a function here that makes it from
`Needs`, its entry in `ENGINES`, and its name in `aepo.llm.settings.fields.EngineName`. Trainer and evaluation then
take it.
"""

import copy
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from aepo.llm.engines.canary import LIMITS, LONGEST, RESPONSE_TOKENS, Canary, canary_prompts
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.engines.engine import Engine
from aepo.llm.engines.vllm_engine import INSTALL, VLLMEngine
from aepo.llm.policy.scorer import Scorer
from aepo.llm.processes import ranks
from aepo.llm.questions.stop_texts import StopTexts


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What is asked of an engine, whichever it is; each uses what concerns it."""

    end_ids: Sequence[int]
    """Tokens that end a response."""
    longest_prompt: int
    """Tokens of the longest prompt."""
    max_tokens: int
    """Tokens of the longest response, the end token included."""
    rows_at_once: int
    """Responses that the embedded engine samples side by side."""
    kv_cache_gib: int
    """Size of vLLM's KV cache on a CPU, in GiB."""
    gpu_memory_utilization: float
    """vLLM's share of a GPU's whole memory, in (0, 1)."""
    stop: StopTexts | None = None
    """Texts that end a response, too."""
    tensor_parallel: int = 1
    """Ranks that share the weights of one vLLM engine."""
    shared_out: bool = False
    """Whether ranks share the trainer's weights out (ZeRO 3). A forward pass then needs all ranks, and ranks do not
    sample equally many tokens, so an engine in the trainer's process needs a copy of the weights."""


def embedded(model: nn.Module, tokenizer: PreTrainedTokenizerBase, needs: Needs) -> EmbeddedEngine:
    """The sampler over the trainer's model, or over a copy of it."""
    return EmbeddedEngine(
        model=copy.deepcopy(model).to(ranks.own_device()) if needs.shared_out else model,
        has_own_weights=needs.shared_out,
        end_ids=needs.end_ids,
        stop=needs.stop,
        pad_id=tokenizer.pad_token_id,
        max_tokens=needs.max_tokens,
        rows_at_once=needs.rows_at_once,
    )


def vllm(model: nn.Module, tokenizer: PreTrainedTokenizerBase, needs: Needs) -> VLLMEngine:
    """vLLM in this process, with room for the prompts that are asked and for the canary's."""
    if not torch.distributed.is_initialized():
        # vLLM's groups are made of one that is there already.
        torch.distributed.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            store=torch.distributed.TCPStore("127.0.0.1", 0, 1, is_master=True),
            rank=0,
            world_size=1,
        )
    longest_canary = max(map(len, _canary_prompts(model, tokenizer))) + RESPONSE_TOKENS
    return VLLMEngine(
        model,
        tokenizer,
        end_ids=needs.end_ids,
        stop=needs.stop,
        max_length=max(needs.longest_prompt + needs.max_tokens, longest_canary),
        max_tokens=needs.max_tokens,
        kv_cache_gib=needs.kv_cache_gib,
        gpu_memory_utilization=needs.gpu_memory_utilization,
        tensor_parallel=needs.tensor_parallel,
    )


ENGINES: Mapping[str, Callable[[Any, Any, Needs], Engine]] = {"embedded": embedded, "vllm": vllm}
"""Every engine by the name that `rollout.engine` and the evaluation's `--engine` take."""
PACKAGES = {"vllm": ("vllm", f"vLLM is not installed; {INSTALL}")}
"""The package that an engine needs beside the trainer's own, and what to say where it is missing."""


def missing(name: str) -> str | None:
    """What to say of an engine whose package this environment lacks; None where nothing is missing."""
    package, message = PACKAGES.get(name, (None, None))
    return message if package is not None and importlib.util.find_spec(package) is None else None


def start(name: str, model: nn.Module, tokenizer: PreTrainedTokenizerBase, needs: Needs) -> Engine:
    """The engine of that name; called by all ranks together, and before DeepSpeed takes the device's memory.

    Args:
        name: a key of `ENGINES`.
        model: the transformers causal LM that is trained or evaluated.
        tokenizer: the model's, with a padding token.
        needs: what is asked of the engine.

    Raises:
        EngineError: the engine is not installed, or cannot do what is asked.
    """
    return ENGINES[name](model, tokenizer, needs)


def canary_for(
    engine: Engine, scorer: Scorer, tokenizer: PreTrainedTokenizerBase, *, limit: float | None = None
) -> Canary | None:
    """What proves after each push that the engine has the weights; None where it samples from the trainer's own.

    Args:
        engine: as `start` made it.
        scorer: the trainer's side, over any prompts.
        tokenizer: the model's.
        limit: largest mean |difference| of the log-probs, in nats; None takes that of the weights' dtype.
    """
    if not engine.has_own_weights:
        return None
    prompts = _canary_prompts(scorer.model, tokenizer)
    dtype = next(scorer.model.parameters()).dtype
    return Canary(scorer.over(prompts), prompts, limit=limit or LIMITS[dtype])


def _canary_prompts(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, ...]]:
    # Models need not have positions for the longest of them.
    positions = getattr(model.config, "max_position_embeddings", None) or LONGEST + RESPONSE_TOKENS
    return canary_prompts(len(tokenizer), longest=min(LONGEST, positions - RESPONSE_TOKENS))
