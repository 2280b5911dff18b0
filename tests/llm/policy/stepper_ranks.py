"""Optimizer steps of a tiny model on one rank of a launched group: what test_deepspeed_stepper.py compares.

The cases come as JSON on the command line, and OUT.RANK.pt holds what each found.
"""

import faulthandler
import json
import sys
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from aepo.llm.policy import masters
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper, init_distributed
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.processes import ranks
from aepo.llm.processes.leaving import leave
from aepo.llm.settings import TrainSettings

LR, STEPS, MICROS, ROWS = 1e-2, 4, 3, 2
IDS = torch.randint(1, 61, (2, MICROS, ROWS, 9), generator=torch.Generator().manual_seed(1))
# Norms are 11 to 17: some steps are clipped, some are not.
TRAIN = {"lr": LR, "max_grad_norm": 12.7, "weight_decay": 0.1}


def model(dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    made = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=61, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=False,
        )
    )  # fmt: skip
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
        parameter.data = parameter.data.to(dtype)
    return made


def objective(module, rank: int, micro: int, step: int, shared: bool | None = None) -> torch.Tensor:
    """One micro-batch's part of a global loss that differs from step to step.

    With `shared`, all rows answer the first one's prompt, which is computed once (True) or with each (False); one
    micro-batch of the first rank has responses of a single token.
    """
    ids = IDS[rank, micro]
    if shared is not None:
        ids = torch.cat([ids[:1, :3].expand(ROWS, -1), ids[:, 3:]], 1)[:, : 4 if (rank, micro) == (0, 1) else 9]
    response, place = ids[:, 3:], torch.arange(ids.shape[1]).expand(ROWS, -1)
    mask = torch.ones(response.shape)
    if shared:
        answers = torch.zeros(ROWS, dtype=torch.int64)
        logp, entropy, _ = module(ids[:1, :3], None, place[:1, :3], response, mask, 1.0, None, False, answers)
    else:
        logp, entropy, _ = module(ids, None, place, response, mask)
    weight = torch.sin(1.0 + step + torch.arange(response.numel())).view(response.shape)
    return (weight * logp + 0.1 * entropy).sum() * 0.1


def trained(case: dict, save: str | None = None) -> dict:
    """Norms and weights after STEPS steps; `bad` makes this rank's loss nan in an extra step before that one."""
    bad, halfway, load = case.pop("bad", None), case.pop("halfway", None), case.pop("load", None)
    shared, dither = case.pop("shared", None), case.pop("dither", False)
    settings = TrainSettings(**TRAIN, **case)
    stepper = DeepSpeedStepper(ResponseStats(model(getattr(torch, settings.dtype))), settings)
    started = {}
    if dither:
        stepper.start_masters(lambda name, weight: masters.start(weight, seed=0, name=name))
        started = {
            "started": {name: value.clone() for name, value in stepper.masters()},
            "computed": {name: value.clone() for name, value in stepper.weights()},
        }
    norms, skipped, kept = [], [], True
    first = 0
    if load is not None:
        stepper.load(Path(load))
        first = STEPS // 2

    def step(number: int, factor: float = 1.0) -> float:
        stepper.reclaim()
        for micro in range(MICROS):
            loss = objective(stepper, ranks.rank(), micro, number, shared)
            stepper.backward(loss * factor if micro == 1 else loss, last=micro + 1 == MICROS)
        norm = stepper.step(LR * (number + 1) / STEPS)
        stepper.release()
        return norm

    released = []
    for number in range(first, STEPS):
        if number == bad:
            before = {name: value.clone() for name, value in stepper.weights()}
            skipped.append(step(number, factor=float("nan") if ranks.rank() == 1 else 1.0))
            kept = all(torch.equal(value, before[name]) for name, value in stepper.weights())
        norms.append(step(number))
        if settings.release_buffers:
            released.append(sum(b.untyped_storage().nbytes() for b in stepper._gradient_buffers()))
        if number + 1 == halfway:
            stepper.save(Path(save))
    weights = {name: value.clone() for name, value in stepper.weights()}
    return {"norms": norms, "skipped": skipped, "kept": kept, "weights": weights, "released": released} | started


if __name__ == "__main__":
    faulthandler.enable()
    torch.set_num_threads(1)
    init_distributed()
    out, cases = sys.argv[1], json.loads(sys.argv[2])
    found = [trained(case, save=f"{out}.saved{i}") for i, case in enumerate(cases)]
    torch.save(found, f"{out}.{ranks.rank()}.pt")
    torch.distributed.destroy_process_group()
    leave(0)
