"""The memory of every device in each phase of a step, computed from a model's sizes and a plan of its training.

Sizes are GiB (2**30 bytes) per device unless a name says otherwise. Activations are those of a dense decoder, and the
KV cache that of attention without a sliding window or latent cache; elsewhere both are upper bounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from aepo.llm.settings import SettingsError
from aepo.llm.settings.fields import EngineName

GIB = 2**30


CUDA_CONTEXT_GIB = 0.8
"""The driver, cuBLAS and NCCL, before any tensor."""


ENGINE_WORKSPACE_GIB = 2.2
"""vLLM awake: CUDA graphs (about 1.5, vllm#47654) and the activations of its largest batch."""


ENGINE_RESIDUE_GIB = 2.5
"""vLLM asleep at level 2: graphs and buffers it does not give back. Between the 1.2 of vllm#28714 and NeMo-RL#2619's
4.1."""


BUCKETS_GIB = 1.5
"""DeepSpeed's reduce and gather buckets in bfloat16: `reduce_bucket_size` counts 5e8 numbers, not bytes."""


GATHERED_GIB = 2.0
"""Weights that ZeRO 3 has gathered at one time, in bfloat16: `stage3_max_live_parameters` is 1e9 numbers."""


BUCKETS_PER_WEIGHT = 4
"""Below ZeRO 3 buckets are no larger than the model: two for gradients and two for gathering."""


KEPT_BUCKET_NUMBERS = 500_000_000
"""ZeRO 3's reduce bucket (`reduce_bucket_size`), which it keeps, full size, from its start on."""


LOGITS_TILE_BYTES = 128 << 20
"""The fused operation's part of the logits on a GPU (`triton_backend.CHUNK_BYTES`, whose module needs triton)."""


FLOAT32 = 4


MOMENTS_BYTES = 2 * FLOAT32
"""AdamW's m and v, float32 whatever the weights are."""


SAMPLER_BYTES = 4 + 8 + 8
"""Of one number of the vocabulary in the embedded sampler, beside the logits: log-prob, and in float64 the
probability and its cumulative sum."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A causal LM's sizes; `from_config` reads them."""

    name: str
    """Class of the model."""
    parameters: int
    """Different numbers in all weights: a tied head counts once."""
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    """Width of the feed-forward block."""
    vocab: int
    tied: bool
    """Whether the head is the embedding."""
    qk_norm: bool
    """Whether queries and keys are normalised, as in Qwen3."""

    @classmethod
    def from_config(cls, config: Any) -> "Architecture":
        """Of a transformers config; parameters are counted on a model without storage, so that they are exact.

        Raises:
            SettingsError: a config that is no causal LM's.
        """
        from transformers import AutoModelForCausalLM

        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(config)
        except ValueError as error:
            raise SettingsError(f"model: {type(config).__name__} is not the config of a causal LM: {error}") from error
        text = config.get_text_config()
        heads = text.num_attention_heads
        # `parameters()` leaves out the second name of a tied weight.
        return cls(
            name=type(model).__name__,
            parameters=sum(p.numel() for p in model.parameters()),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            vocab=text.vocab_size,
            tied=model.get_output_embeddings().weight is model.get_input_embeddings().weight,
            qk_norm=any(name.endswith("q_norm.weight") for name, _ in model.named_parameters()),
        )

    @property
    def head_parameters(self) -> int:
        """Numbers in the head, and in the embedding; the largest single weight."""
        return self.vocab * self.hidden

    def kv_bytes_per_token(self, weight_bytes: int, *, tensor_parallel: int = 1) -> int:
        """Bytes of one token's keys and values on one device; heads are split, but never below one."""
        heads = max(1, self.kv_heads // tensor_parallel)
        return 2 * self.layers * heads * self.head_dim * weight_bytes

    def layer_bytes_per_token(self, weight_bytes: int) -> int:
        """Bytes per token that one layer's forward pass keeps for its backward pass, with an attention that is never
        stored.

        With b bytes a number, h hidden, q heads x head_dim, k the same of the KV heads and m intermediate: two norms
        2 h (4 + 2 b), as they compute in float32; q, k, v and the attention's output b (2 q + 2 k); its log-sum-exp
        4 heads; gate, silu, up and their product 4 b m; norms of q and k (4 + b) (q + k); cosines and sines.
        """
        b, q, k = weight_bytes, self.heads * self.head_dim, self.kv_heads * self.head_dim
        norms = 2 * self.hidden * (FLOAT32 + 2 * b) + 2 * FLOAT32
        attention = b * (2 * q + 2 * k) + FLOAT32 * self.heads + 2 * b * self.head_dim
        qk_norms = ((FLOAT32 + b) * (q + k) + FLOAT32 * (self.heads + self.kv_heads)) if self.qk_norm else 0
        return norms + attention + qk_norms + 4 * b * self.intermediate


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """How a model is trained and sampled: everything but the model that the memory depends on.

    Raises:
        ValueError: sizes that cannot be.
    """

    memory_gib: float
    """Of one device, or of one rank's share of the host."""
    world: int = 1
    """Ranks, one a device."""
    on_gpu: bool = True
    zero_stage: int = 0
    offload_optimizer: bool = False
    """Whether master weights, moments and float32 gradients are in host memory."""
    weight_bytes: int = FLOAT32
    """Of one number of the weights, activations and KV cache: 4 float32, 2 bfloat16; gradients are float32."""
    gradient_checkpointing: bool = False
    engine: EngineName = "embedded"
    tensor_parallel: int = 1
    """Devices that share one vLLM engine's weights."""
    release_buffers: bool = False
    """Whether ZeRO 3 gives its gradients and bucket back while responses are sampled (`engine.offload_states`)."""
    utilization: float | None = None
    """vLLM on a GPU: `rollout.gpu_memory_utilization`; None takes what is left."""
    kv_cache_gib: float | None = None
    """vLLM on a CPU: `rollout.kv_cache_gib`."""
    micro_batch_tokens: int = 0
    """`train.micro_batch_tokens`; a longer row stands alone."""
    sequence_tokens: int = 1
    """Longest prompt and response together."""
    rows_at_once: int = 1
    """Responses that the embedded engine samples side by side."""

    def __post_init__(self) -> None:
        if self.memory_gib <= 0:
            raise ValueError(f"memory_gib must be > 0, got {self.memory_gib}")
        if self.world < 1 or self.tensor_parallel < 1 or self.world % self.tensor_parallel:
            raise ValueError(f"tensor_parallel={self.tensor_parallel} must divide the number of GPUs, {self.world}")
        if self.zero_stage not in range(4):
            raise ValueError(f"zero_stage must be 0, 1, 2 or 3, got {self.zero_stage}")

    @property
    def forward_tokens(self) -> int:
        """Most tokens of one forward pass of the trainer."""
        return max(self.micro_batch_tokens, self.sequence_tokens)


@dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Bytes of one rank's weights, gradients and optimizer state, without activations and buffers."""

    weights: float
    gradients: float
    """While they are held: from the first backward pass to the optimizer's step."""
    optimizer: float
    """Master weights and moments."""
    host: float
    """In host memory, of all ranks together."""


def training_state(
    parameters: int, *, world: int, zero_stage: int, weight_bytes: int, offload_optimizer: bool = False
) -> TrainingState:
    """What ZeRO leaves on one rank (Rajbhandari et al. 2020, section 5): stage 1 shares the optimizer out, 2 the
    gradients too, 3 the weights too.

    The optimizer holds m and v, and float32 master weights where the weights are narrower; DeepSpeed keeps a second
    copy from stage 1 on even where they are float32. Gradients are added up in float32; for narrower weights DeepSpeed
    holds, at stage 1, those of one micro-batch beside the sums.

    Args:
        parameters: of the whole model.
        world: number of ranks.
        zero_stage: 0 to 3; 0 in float32 is also plain torch.
        weight_bytes: 4 or 2.
        offload_optimizer: whether the optimizer, with float32 gradients, is in host memory.

    >>> state = training_state(1000, world=4, zero_stage=2, weight_bytes=2)
    >>> state.weights, state.gradients, state.optimizer  # 1000 x 2; 1000 x 4 / 4; 1000 x (4 + 8) / 4
    (2000.0, 1000.0, 3000.0)
    """
    master = FLOAT32 if weight_bytes < FLOAT32 or zero_stage else 0
    optimizer = parameters * (master + MOMENTS_BYTES)
    shared = [world if zero_stage >= stage else 1 for stage in (1, 2, 3)]
    beside = weight_bytes if weight_bytes < FLOAT32 and zero_stage == 1 else 0
    return TrainingState(
        optimizer=0.0 if offload_optimizer else optimizer / shared[0],
        gradients=parameters * (FLOAT32 + beside) / shared[1],
        weights=parameters * weight_bytes / shared[2],
        host=(optimizer + parameters * FLOAT32) * world / shared[0] if offload_optimizer else 0.0,
    )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase's memory on one device, in GiB."""

    memory: float
    """Of the device."""
    resident: Mapping[str, float]
    """Held through the phase."""
    working: Mapping[str, float]
    """What the phase itself makes, at its peak."""

    @property
    def static(self) -> float:
        """Sum of what is resident."""
        return sum(self.resident.values())

    @property
    def available(self) -> float:
        """What the resident part leaves; negative if it does not fit."""
        return self.memory - self.static

    @property
    def spare(self) -> float:
        """What is left at the peak; negative if the phase does not fit."""
        return self.available - sum(self.working.values())


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Both phases, and what a reader compares them with."""

    generate: Phase
    train: Phase
    kv_gib: float
    """Room for the KV cache on one device; negative if there is none."""
    kv_tokens: int
    """Tokens per device in that room."""
    host_gib: float
    """Host memory of all ranks together."""
    unfused_logits_gib: float
    """What logits would take in training without the fused operation."""
    best_utilization: float
    """Largest `rollout.gpu_memory_utilization` beside the trainer."""
    least_cache_gib: float
    """KV cache without which the engine cannot sample one longest response, or all rows at once."""
    set_cache_gib: float | None
    """KV cache that the settings leave to vLLM; None where they do not say."""

    @property
    def cache_too_small(self) -> bool:
        """Whether the settings leave vLLM less than it needs."""
        return self.set_cache_gib is not None and self.set_cache_gib < self.least_cache_gib

    @property
    def fits(self) -> bool:
        """Whether both phases do, and vLLM starts."""
        return self.generate.spare >= 0 and self.train.spare >= 0 and not self.cache_too_small


def budget(model: Architecture, plan: MemoryPlan) -> Budget:
    """Memory of one device while responses are sampled and while the model is trained.

    Sampling needs a KV cache of one longest response at least (vLLM refuses to start with less), or of all rows that
    the embedded engine samples side by side. Gradients are released before, but under ZeRO 3, which must be told to.
    """
    b = plan.weight_bytes
    state = training_state(
        model.parameters, world=plan.world, zero_stage=plan.zero_stage, weight_bytes=b,
        offload_optimizer=plan.offload_optimizer,
    )  # fmt: skip
    trainer = {"trainer's weights": state.weights / GIB, "optimizer": state.optimizer / GIB}
    context = {"CUDA context": CUDA_CONTEXT_GIB if plan.on_gpu else 0.0}
    kept = {}
    if plan.zero_stage == 1 and b < FLOAT32 and not plan.offload_optimizer:
        kept = {"kept by ZeRO 1": model.parameters * FLOAT32 / GIB}
    if plan.zero_stage == 3 and not plan.release_buffers:
        kept = {"kept by ZeRO 3": ((0 if plan.offload_optimizer else state.gradients) + KEPT_BUCKET_NUMBERS * b) / GIB}
    vllm = plan.engine == "vllm"
    sleeps = vllm and plan.on_gpu
    copied = vllm or plan.zero_stage == 3
    engine = {"engine's weights": copied * model.parameters * b / plan.tensor_parallel / GIB}
    workspace = {"engine's workspace": ENGINE_WORKSPACE_GIB if sleeps else 0.0}

    per_token = model.kv_bytes_per_token(b, tensor_parallel=plan.tensor_parallel)
    at_once = 1 if vllm else plan.rows_at_once
    cache = per_token * plan.sequence_tokens * at_once / GIB
    set_cache = _vllm_cache(model, plan)
    reserved = set_cache or 0.0
    generate = Phase(
        memory=plan.memory_gib,
        resident=trainer | kept | engine | context | workspace,
        working={
            "KV cache": max(cache, reserved),
            "logits": 0.0 if vllm else at_once * model.vocab * (b + SAMPLER_BYTES) / GIB,
        },
    )

    width = b / 2
    buckets = BUCKETS_GIB * width
    if plan.zero_stage < 3:
        buckets = min(buckets, BUCKETS_PER_WEIGHT * model.parameters * b / GIB)
    gathered = min(GATHERED_GIB * width, model.parameters * b / GIB) if plan.zero_stage == 3 else 0.0
    train = Phase(
        memory=plan.memory_gib,
        resident=trainer
        | {"gradients": state.gradients / GIB}
        # An engine that sleeps gives its weights back, any other keeps them.
        | ({} if sleeps else engine)
        | context
        | {
            "engine's residue": ENGINE_RESIDUE_GIB if sleeps else 0.0,
            "communication": buckets,
            "gathered weights": gathered,
        },
        working={
            "activations": _activations(model, plan) / GIB,
            "logits": min(LOGITS_TILE_BYTES, plan.forward_tokens * model.vocab * b) / GIB,
        }
        | ({"KV cache": reserved} if vllm and not sleeps else {}),
    )
    room = generate.available - generate.working["logits"]
    return Budget(
        generate=generate,
        train=train,
        kv_gib=room,
        kv_tokens=max(0, int(room * GIB / (per_token * plan.tensor_parallel))),
        host_gib=state.host / GIB,
        # In the weights' dtype, a float32 copy and that copy's gradient.
        unfused_logits_gib=plan.forward_tokens * model.vocab * (b + 2 * FLOAT32) / GIB,
        best_utilization=max(0.0, 1 - sum((trainer | kept | context).values()) / plan.memory_gib),
        least_cache_gib=cache,
        set_cache_gib=set_cache,
    )


def _activations(model: Architecture, plan: MemoryPlan) -> float:
    """Bytes at the peak of a backward pass: what is saved, and the larger of one layer's and the head's own."""
    b, tokens = plan.weight_bytes, plan.forward_tokens
    inside = model.layer_bytes_per_token(b)
    saved = model.layers * tokens * (model.hidden * b if plan.gradient_checkpointing else inside)
    # The gradients of gate, up and their product live at once; the tracker of torch sees exactly that in bfloat16.
    layer = tokens * (3 * b * model.intermediate + (inside if plan.gradient_checkpointing else 0))
    # The last norm, the float32 gradient by the hidden states, and the head's gradient before it is reduced.
    head = tokens * model.hidden * (2 * FLOAT32 + 2 * b) + model.head_parameters * b
    return saved + max(layer, head)


def _vllm_cache(model: Architecture, plan: MemoryPlan) -> float | None:
    """GiB that vLLM gives its cache by the settings; None where nothing is set."""
    if plan.engine != "vllm":
        return None
    if not plan.on_gpu:
        return plan.kv_cache_gib
    if plan.utilization is None:
        return None
    weights = model.parameters * plan.weight_bytes / plan.tensor_parallel / GIB
    return plan.utilization * plan.memory_gib - weights - ENGINE_WORKSPACE_GIB
