"""The memory of every device in each phase of a step, and of the export at its end.

Sizes are GiB (2**30 bytes) per device unless a name says otherwise. Activations are those of a dense decoder, and the
KV cache that of attention without a sliding window or latent cache; elsewhere both are upper bounds.
"""

from dataclasses import dataclass

from aepo.llm.doctor import passes
from aepo.llm.doctor.memory import (
    BUCKETS_GIB,
    BUCKETS_PER_WEIGHT,
    CUDA_CONTEXT_GIB,
    ENGINE_GRAPHS_GIB,
    ENGINE_RESIDUE_GIB,
    FLOAT32,
    GATHERED_GIB,
    GIB,
    KEPT_BUCKET_NUMBERS,
    LOGITS_TILE_BYTES,
    SAMPLER_BYTES,
    Architecture,
    MemoryPlan,
    Phase,
    training_state,
)
from aepo.llm.fused import gemm_backend
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper

CANARY_TOKENS = 2048
"""Of one pass of the canary (`aepo.llm.engines.canary.TOKENS_AT_ONCE`), which scores while the engine is awake."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Every phase, and what a reader compares them with."""

    generate: Phase
    """While responses are sampled, and while a canary is scored beside the engine that answered it."""
    score: Phase
    train: Phase
    export: Phase
    """While the trained model is written."""
    kv_gib: float
    """Room for the KV cache on one device; negative if there is none."""
    kv_tokens: int
    """Tokens per device in that room."""
    host_gib: float
    """Host memory of all ranks together."""
    unfused_logits_gib: float
    """What logits would take in training without the fused operation."""
    best_utilization: float
    """Largest `rollout.gpu_memory_utilization` beside the trainer and its canary."""
    least_cache_gib: float
    """KV cache without which the engine cannot sample one longest response, or all rows at once."""
    set_cache_gib: float | None
    """KV cache that the settings leave to vLLM; None where they do not say."""

    @property
    def cache_too_small(self) -> bool:
        """Whether the settings leave vLLM less than it needs."""
        return self.set_cache_gib is not None and self.set_cache_gib < self.least_cache_gib

    @property
    def phases(self) -> dict[str, Phase]:
        """By name, in the order of a step."""
        return {"generate": self.generate, "score": self.score, "train": self.train, "export": self.export}

    @property
    def fits(self) -> bool:
        """Whether all phases do, and vLLM starts."""
        return all(phase.spare >= 0 for phase in self.phases.values()) and not self.cache_too_small


def budget(model: Architecture, plan: MemoryPlan) -> Budget:
    """Memory of one device while responses are sampled and scored, and while the model is trained and written.

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
        # The bucket has the dtype in which ranks add gradients up.
        bucket = KEPT_BUCKET_NUMBERS * FLOAT32
        kept = {"kept by ZeRO 3": ((0 if plan.offload_optimizer else state.gradients) + bucket) / GIB}
    vllm = plan.engine == "vllm"
    sleeps = vllm and plan.on_gpu
    copied = vllm or plan.zero_stage == 3
    engine = {"engine's weights": copied * model.parameters * b / plan.tensor_parallel / GIB}
    workspace = {"engine's workspace": _workspace(model, plan) if sleeps else 0.0}
    width = b / 2
    gathered = min(GATHERED_GIB * width, model.parameters * b / GIB) if plan.zero_stage == 3 else 0.0
    logits = _logits_bytes(model, plan) / GIB
    # What scores beside an engine that is awake: its tokens, and weights of ZeRO 3.
    canary = copied * (_scoring(model, plan, min(CANARY_TOKENS, plan.forward_tokens)) + gathered)

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
            "canary": canary,
        },
    )
    # An engine that sleeps gives its weights back, any other keeps them.
    asleep = ({} if sleeps else engine) | context | {"engine's residue": ENGINE_RESIDUE_GIB if sleeps else 0.0}
    kept_cache = {"KV cache": reserved} if vllm and not sleeps else {}
    awake = sleeps and plan.scores_awake
    score = Phase(
        memory=plan.memory_gib,
        resident=trainer | kept | (engine | context | workspace if awake else asleep) | {"gathered weights": gathered},
        working={
            "activations": passes.scoring_activations(model, plan, plan.forward_tokens) / GIB,
            "mask of packed rows": passes.scoring_mask(model, plan, plan.forward_tokens) / GIB,
            "logits": logits,
        }
        | ({"KV cache": max(cache, reserved)} if awake else kept_cache),
    )

    buckets = BUCKETS_GIB * width
    if plan.zero_stage < 3:
        buckets = min(buckets, BUCKETS_PER_WEIGHT * model.parameters * b / GIB)
    train = Phase(
        memory=plan.memory_gib,
        resident=trainer
        | {"gradients": state.gradients / GIB}
        | asleep
        | {"communication": buckets, "gathered weights": gathered},
        working={
            "activations": passes.training_activations(model, plan) / GIB,
            "mask of packed rows": passes.training_mask(model, plan) / GIB,
            "gradients in float32": passes.reduction(model, plan) / GIB,
            "logits": logits,
        }
        | kept_cache,
    )
    export = Phase(
        memory=plan.memory_gib,
        resident=trainer | kept | asleep,
        working={"handed on": _handed_on(model, plan) / GIB} | kept_cache,
    )
    room = generate.available - generate.working["logits"]
    return Budget(
        generate=generate,
        score=score,
        train=train,
        export=export,
        kv_gib=room,
        kv_tokens=max(0, int(room * GIB / (per_token * plan.tensor_parallel))),
        host_gib=state.host / GIB,
        # In the weights' dtype, a float32 copy and that copy's gradient.
        unfused_logits_gib=plan.forward_tokens * model.vocab * (b + 2 * FLOAT32) / GIB,
        best_utilization=max(0.0, 1 - (sum((trainer | kept | context).values()) + canary) / plan.memory_gib),
        least_cache_gib=cache,
        set_cache_gib=set_cache,
    )


def _logits_bytes(model: Architecture, plan: MemoryPlan) -> int:
    """What the fused operation stores of the logits and of their gradients (`aepo.llm.fused.backends`): those of an
    update, which no scoring exceeds."""
    tile = min(LOGITS_TILE_BYTES, plan.forward_tokens * model.vocab * plan.weight_bytes)
    if not plan.on_gpu:
        return tile
    room = gemm_backend.Workspace(
        rows=plan.forward_tokens,
        width=model.hidden,
        vocabulary=model.vocab,
        itemsize=plan.weight_bytes,
        budget=int(plan.memory_gib * GIB) // gemm_backend.DEVICE_SHARE,
    )
    return tile if room.too_tight else room.bytes


def _scoring(model: Architecture, plan: MemoryPlan, tokens: int) -> float:
    """GiB of a pass without gradient."""
    return (passes.scoring_activations(model, plan, tokens) + passes.scoring_mask(model, plan, tokens)) / GIB


def _workspace(model: Architecture, plan: MemoryPlan) -> float:
    """GiB that vLLM takes beside weights and cache while it is awake on a GPU."""
    return ENGINE_GRAPHS_GIB + passes.engine_batch(model, plan) / GIB


def _handed_on(model: Architecture, plan: MemoryPlan) -> float:
    """Bytes of the weights that ZeRO 3 gathers at one time to hand them on, up to one beyond a round number of them;
    where a device is the host, also of the whole copy that is written."""
    if plan.zero_stage < 3:
        return 0.0
    block = min(model.parameters, DeepSpeedStepper.GATHERED + model.head_parameters)
    return plan.weight_bytes * (block + (0 if plan.on_gpu else model.parameters))


def _vllm_cache(model: Architecture, plan: MemoryPlan) -> float | None:
    """GiB that vLLM gives its cache by the settings; None where nothing is set."""
    if plan.engine != "vllm":
        return None
    if not plan.on_gpu:
        return plan.kv_cache_gib
    if plan.utilization is None:
        return None
    weights = model.parameters * plan.weight_bytes / plan.tensor_parallel / GIB
    return plan.utilization * plan.memory_gib - weights - _workspace(model, plan)
