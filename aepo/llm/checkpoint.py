"""Checkpoints: written beside and renamed, so that a folder `step_N` is always whole."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from aepo.controller import Loop
from aepo.llm import ranks
from aepo.llm.policy import DeepSpeedStepper, Policy
from aepo.llm.settings import Settings, SettingsError, load


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: the next step, and the controller's loop before it."""

    step: int
    loop: Loop


def _folder(settings: Settings) -> Path:
    return Path(settings.out) / "checkpoints"


def save(settings: Settings, policy: Policy, stepper: DeepSpeedStepper, progress: Progress) -> None:
    """Write `step_N` (N steps done) and then delete all but the newest `keep_last`; called by all ranks together."""
    done = _folder(settings) / f"step_{progress.step:06d}"
    beside = done.with_name(f".{done.name}.part")
    if ranks.rank() == 0:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        (beside / "settings.yaml").write_text(settings.dump())
        (beside / "progress.json").write_text(json.dumps({"step": progress.step, "updates": policy.updates}))
        loop = {
            "state": dict(progress.loop.state),
            "previous_entropy": progress.loop.previous_entropy,
            "initial_entropy": progress.loop.initial_entropy,
        }
        torch.save(loop, beside / "controller.pt")
    ranks.barrier()
    stepper.save(beside)
    ranks.barrier()
    if ranks.rank() == 0:
        shutil.rmtree(done, ignore_errors=True)
        beside.rename(done)
        for old in _complete(settings)[: -settings.checkpoint.keep_last]:
            shutil.rmtree(old)
    ranks.barrier()


def _complete(settings: Settings) -> list[Path]:
    return sorted(p for p in _folder(settings).glob("step_*") if (p / "progress.json").is_file())


def newest(settings: Settings) -> Path:
    """The newest complete checkpoint of this run.

    Raises:
        SettingsError: there is none, or it belongs to other settings (each difference is listed).
    """
    complete = _complete(settings)
    if not complete:
        raise SettingsError(f"--resume: no checkpoint under {_folder(settings)}; leave --resume out to start anew")
    saved = load(complete[-1] / "settings.yaml").model_dump()
    differ = sorted(_differences(saved, settings.model_dump()))
    if differ:
        raise SettingsError(
            f"--resume: {complete[-1]} was made with other settings; undo these or start anew in another --out:\n"
            + "\n".join(differ)
        )
    return complete[-1]


# What may change between the parts of one run without changing the steps already done.
_FREE = ("train.steps", "checkpoint.", "evaluation.", "train.micro_batch_tokens", "warm_start.cache")


def _differences(saved: dict, now: dict, prefix: str = "") -> list[str]:
    lines = []
    for key in sorted(saved.keys() | now.keys()):
        name = prefix + key
        old, new = saved.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, name + ".")
        elif old != new and not name.startswith(_FREE):
            lines.append(f"  {name}: checkpoint {old!r}, now {new!r}")
    return lines


def restore(folder: Path, policy: Policy, stepper: DeepSpeedStepper) -> Progress:
    """Weights, optimizer and controller as they were; called by all ranks together."""
    stepper.load(folder)
    counts = json.loads((folder / "progress.json").read_text())
    policy.updates = counts["updates"]
    loop = torch.load(folder / "controller.pt", weights_only=True)
    return Progress(step=counts["step"], loop=Loop(**loop))
