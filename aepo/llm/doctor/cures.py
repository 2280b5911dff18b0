"""Why a plan does not fit, and the changes of settings that make it fit."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from aepo.llm.doctor.memory import Architecture, MemoryPlan, budget

SETTINGS = {
    "gradient_checkpointing": "train.gradient_checkpointing",
    "kv_cache_gib": "rollout.kv_cache_gib",
    "micro_batch_tokens": "train.micro_batch_tokens",
    "offload_optimizer": "train.offload_optimizer",
    "release_buffers": "train.release_buffers",
    "rows_at_once": "rollout.rows_at_once",
    "tensor_parallel": "rollout.tensor_parallel",
    "utilization": "rollout.gpu_memory_utilization",
    "zero_stage": "train.zero_stage",
}
"""The setting that decides a field of the plan."""


def problems(model: Architecture, plan: MemoryPlan) -> list[str]:
    """Why this cannot run, one sentence each with its cures; empty if it can."""
    found = budget(model, plan)
    lines = []
    for name, phase in (("generate", found.generate), ("train", found.train)):
        if phase.spare < 0:
            needed = plan.memory_gib - phase.spare
            parts = sorted((phase.resident | phase.working).items(), key=lambda part: -part[1])[:3]
            most = ", ".join(f"{part} {size:.2f}" for part, size in parts)
            lines.append(
                f"{name} does not fit: it needs {needed:.2f} GiB of the {plan.memory_gib:.2f} GiB of a device "
                f"(most: {most})"
            )
    if found.generate.spare >= 0 and found.cache_too_small:
        field = "gpu_memory_utilization" if plan.on_gpu else "kv_cache_gib"
        lines.append(
            f"generate does not fit: rollout.{field} leaves {found.set_cache_gib:.2f} GiB for vLLM's KV cache, and one "
            f"row of {plan.sequence_tokens} tokens takes {found.least_cache_gib:.2f} GiB"
        )
    return [*lines, "cure: " + "; or ".join(cures(model, plan))] if lines else []


def cures(model: Architecture, plan: MemoryPlan) -> list[str]:
    """Single changes that make it fit; failing those, several together; failing those, more devices."""
    single = [_cure(f, v) for f, v in _changes(model, plan) if budget(model, dataclasses.replace(plan, **{f: v})).fits]
    if single:
        return single
    for world in [plan.world] + [plan.world * 2**power for power in range(1, 8) if plan.on_gpu]:
        together = _together(model, dataclasses.replace(plan, world=world))
        if together is not None:
            together |= {"world": world} if world > plan.world else {}
            return [" and ".join(_cure(field, value) for field, value in together.items())]
    return ["a smaller model (model.path), shorter responses (rollout.max_response_tokens), or larger devices"]


def _together(model: Architecture, plan: MemoryPlan) -> dict[str, Any] | None:
    """Changes of which none can be left out; None if all together are not enough."""

    def fits(changes: Mapping[str, Any]) -> bool:
        return budget(model, dataclasses.replace(plan, **changes)).fits

    together: dict[str, Any] = {}
    while not fits(together):
        changed = dataclasses.replace(plan, **together)
        more = next(((f, v) for f, v in _changes(model, changed) if getattr(changed, f) != v), None)
        if more is None:
            return None
        together[more[0]] = more[1]
    for field in list(together):
        # What was tried before something better was found.
        fewer = {f: v for f, v in together.items() if f != field}
        if fits(fewer):
            together = fewer
    return together


def _changes(model: Architecture, plan: MemoryPlan) -> Iterator[tuple[str, Any]]:
    """Fields of the plan with a value that takes less, the cheapest in speed first."""
    found = budget(model, plan)
    if plan.engine == "embedded":
        rows = plan.rows_at_once
        while rows > 1 and budget(model, dataclasses.replace(plan, rows_at_once=rows)).generate.spare < 0:
            rows //= 2
        if rows < plan.rows_at_once:
            yield "rows_at_once", rows
    tokens = plan.micro_batch_tokens
    while tokens > plan.sequence_tokens and _train_spare(model, plan, tokens) < 0:
        tokens = max(plan.sequence_tokens, tokens // 2)
    if tokens < plan.micro_batch_tokens:
        yield "micro_batch_tokens", tokens
    if not plan.gradient_checkpointing:
        yield "gradient_checkpointing", True
    if plan.weight_bytes > 2:
        yield "weight_bytes", 2
    if plan.zero_stage == 3 and not plan.release_buffers and found.generate.spare < 0:
        yield "release_buffers", True
    if plan.zero_stage < 3 and plan.world > 1:
        yield "zero_stage", 3
    wider = plan.tensor_parallel * 2
    if plan.engine == "vllm" and plan.on_gpu and plan.world % wider == 0 and model.heads % wider == 0:
        yield "tensor_parallel", wider
    if plan.on_gpu and not plan.offload_optimizer:
        yield "offload_optimizer", True
    if plan.utilization is not None and (found.generate.spare < 0 or found.cache_too_small):
        limit = math.floor(found.best_utilization * 100) / 100
        if limit > 0:
            yield "utilization", limit
    if plan.kv_cache_gib is not None and found.cache_too_small:
        yield "kv_cache_gib", math.ceil(found.least_cache_gib)


def _train_spare(model: Architecture, plan: MemoryPlan, micro_batch_tokens: int) -> float:
    return budget(model, dataclasses.replace(plan, micro_batch_tokens=micro_batch_tokens)).train.spare


def _cure(field: str, value: Any) -> str:
    """What to type for a changed field of a plan."""
    if field == "world":
        return f"{value} GPUs"
    if field == "weight_bytes":
        return "train.dtype=bfloat16"
    return f"{SETTINGS[field]}={str(value).lower()}"
