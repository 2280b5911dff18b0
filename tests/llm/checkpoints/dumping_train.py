"""The trainer, which also writes whole weights and Adam moments to DUMP as every checkpoint leaves and enters it."""

import os
from pathlib import Path

import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

from aepo.llm import train
from aepo.llm.checkpoints import checkpoint
from aepo.llm.processes import ranks


def dump(stepper, name: str) -> None:
    """Whole tensors by DeepSpeed's own gathering; all ranks together."""
    found = {}
    for parameter_name, parameter in stepper.module.model.named_parameters():
        if stepper.zero_stage == 0:
            state = stepper.engine.optimizer.state[parameter]
            values = {"weight": parameter, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
        else:
            values = {"weight": safe_get_full_fp32_param(parameter)}
            values |= {key: safe_get_full_optimizer_state(parameter, key) for key in ("exp_avg", "exp_avg_sq")}
        found |= {f"{parameter_name}/{key}": value.detach().clone() for key, value in values.items()}
    # The weights that compute, which in bfloat16 are others than the optimizer's.
    found |= {f"{name}/computes": value.clone() for name, value in stepper.weights()}
    if ranks.rank() == 0:
        torch.save(found, Path(os.environ["DUMP"]) / f"{name}.pt")
    ranks.barrier()


def dumping_save(settings, policy, stepper, progress) -> None:
    dump(stepper, f"saved_{progress.step}")
    save(settings, policy, stepper, progress)


def dumping_restore(folder, policy, stepper, **options) -> checkpoint.Progress:
    progress = restore(folder, policy, stepper, **options)
    dump(stepper, f"restored_{progress.step}")
    return progress


if __name__ == "__main__":
    save, restore = checkpoint.save, checkpoint.restore
    checkpoint.save, checkpoint.restore = dumping_save, dumping_restore
    raise SystemExit(train.main())
