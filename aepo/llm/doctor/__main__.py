"""What a run will need, before it starts: versions, devices, and the memory of every device in each phase of a step.

python -m aepo.llm.doctor --config configs/demo_cpu.yaml --train.zero_stage=3 --gpus 8 --gpu-memory-gib 39.4
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import argparse
import math
import sys
from collections.abc import Sequence

import torch

from aepo.command import called
from aepo.errors import ENDED, UNUSABLE, AepoError
from aepo.llm.doctor.control import control_lines
from aepo.llm.doctor.cures import problems
from aepo.llm.doctor.memory import Architecture, MemoryPlan
from aepo.llm.doctor.report import devices, report
from aepo.llm.policy.model import model_config
from aepo.llm.settings import Settings, SettingsError, parse
from aepo.llm.settings.arguments import Parser
from aepo.llm.settings.parsing import divided


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=called("python -m aepo.llm.doctor"),
        allow_abbrev=False,
        description="Print versions, devices and the memory budget of a run; refuse, with the cure, what cannot fit.",
        epilog="Every other argument is the trainer's: --config and --section.field=value.",
    )
    parser.add_argument("--gpus", type=int, help="plan for this many GPUs; those of this machine if left out")
    parser.add_argument("--gpu-memory-gib", type=float, help="memory of one, in GiB, such as 39.4 of a 40 GB card")
    parser.add_argument("--model-config", help="folder or config.json of a model; model.path if left out")
    return parser


OWN = ("gpus", "gpu-memory-gib", "model-config")


def _own(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The doctor's own options, and the trainer's as they were typed.

    Raises:
        SettingsError: an argument of another form, or a value that is none.
    """
    own, rest = divided(argv, own=OWN)
    found = _parser().parse_args(own)
    memory = found.gpu_memory_gib
    if memory is not None and not 0 < memory < math.inf:
        raise SettingsError(f"--gpu-memory-gib must be a number above 0, got {memory}")
    return found, rest


def plan_of(settings: Settings, typed: argparse.Namespace) -> MemoryPlan:
    """The plan that the settings describe, on the GPUs of this machine or on those that the arguments name.

    Raises:
        SettingsError: GPUs of unknown memory, or sizes that cannot be.
    """
    on_gpu = torch.cuda.is_available() or typed.gpu_memory_gib is not None
    if typed.gpus is not None and not on_gpu:
        raise SettingsError("--gpus: this machine has none to measure; add --gpu-memory-gib, such as 39.4")
    seen = devices()
    memory = typed.gpu_memory_gib if typed.gpu_memory_gib is not None else min(seen.values())
    world = typed.gpus if typed.gpus is not None else len(seen)
    vllm = settings.rollout.engine == "vllm"
    try:
        return MemoryPlan(
            memory_gib=memory,
            world=world,
            on_gpu=on_gpu,
            zero_stage=settings.train.zero_stage,
            offload_optimizer=settings.train.offload_optimizer,
            weight_bytes=getattr(torch, settings.train.dtype).itemsize,
            gradient_checkpointing=settings.train.gradient_checkpointing,
            engine=settings.rollout.engine,
            tensor_parallel=settings.rollout.tensor_parallel,
            release_buffers=settings.train.release_buffers,
            utilization=settings.rollout.gpu_memory_utilization if vllm and on_gpu else None,
            kv_cache_gib=settings.rollout.kv_cache_gib if vllm and not on_gpu else None,
            micro_batch_tokens=settings.train.micro_batch_tokens,
            sequence_tokens=settings.data.max_prompt_tokens + settings.rollout.max_response_tokens,
            rows_at_once=settings.rollout.rows_at_once,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when the run fits, 2 when it does not or its settings cannot be used."""
    try:
        typed, rest = _own(sys.argv[1:] if argv is None else argv)
        settings = parse(rest).settings
        model = Architecture.from_config(model_config(settings, typed.model_config))
        plan = plan_of(settings, typed)
    except AepoError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    report(model, plan)
    for said in control_lines(settings):
        print(said)
    sys.stdout.flush()
    found = problems(model, plan)
    for problem in found:
        print(f"error: {problem}", file=sys.stderr, flush=True)
    return UNUSABLE if found else ENDED


if __name__ == "__main__":
    sys.exit(main())
