"""Checkpoints: written beside and renamed, so that a folder `step_N` was whole, and checked when it is read.

A manifest names every file with its size and CRC-32; a checkpoint that no longer agrees is passed over for the one
before, and said so. Ranks share the reading.
"""

import functools
import json
import logging
import math
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aepo import atomic
from aepo.controller import Loop
from aepo.errors import NOT_WRITTEN, AepoError
from aepo.llm.checkpoints import reshard, unpickling
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper
from aepo.llm.policy.policy import Policy
from aepo.llm.processes import ranks
from aepo.llm.processes.run_lock import only_first
from aepo.llm.settings import Settings, SettingsError, load

log = logging.getLogger("aepo")

MANIFEST, PROGRESS, SETTINGS, CONTROLLER = "manifest.json", "progress.json", "settings.yaml", "controller.pt"
NEEDED = {PROGRESS, SETTINGS, CONTROLLER}
"""Of every checkpoint, beside DeepSpeed's files."""
# Weights and two moments in float32 and a second copy of the weights: no more than a checkpoint takes.
BYTES_PER_PARAMETER = 16
READ_BYTES = 1 << 22


class CheckpointError(AepoError):
    """A checkpoint that could not be written, or not be converted for this number of ranks; those before it are whole,
    and so is the converted one."""

    exit_code = NOT_WRITTEN
    of_one_rank = True


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: the next step, and the controller's loop before it."""

    step: int
    loop: Loop
    reward: float = math.nan
    """Mean training reward over the steps since the checkpoint before; nan where there were none."""
    data: str | None = None
    """Fingerprint of what was trained on."""
    failed_in_a_row: int = 0
    """Steps before this one, one after the other, in which no response could be judged."""
    held_out: Mapping[int, float] = field(default_factory=dict)
    """Held-out pass@1 of the policy by the number of steps done; of this checkpoint itself it is not known yet."""


def _folder(settings: Settings) -> Path:
    return Path(settings.out) / "checkpoints"


def save(settings: Settings, policy: Policy, stepper: DeepSpeedStepper, progress: Progress) -> None:
    """Write `step_N` (N steps done) and then delete all but those to keep (`kept`); called by all ranks together.

    Raises:
        CheckpointError: not enough room, or a write that failed, on this rank; others are left to notice that it ends.
            What was written of it goes at the latest when the next is.
    """
    done = _folder(settings) / f"step_{progress.step:06d}"
    beside = done.with_name(f".{done.name}.part")
    if ranks.rank() == 0:
        for unfinished in done.parent.glob(".step_*.part"):
            shutil.rmtree(unfinished, ignore_errors=True)
        beside.mkdir(parents=True)
    problem = _no_room(settings, policy) if ranks.rank() == 0 else None
    _together(problem, beside)
    try:
        if ranks.rank() == 0:
            (beside / SETTINGS).write_text(settings.dump())
            counts = {
                "step": progress.step,
                "updates": policy.updates,
                "skipped_in_a_row": policy.skipped_in_a_row,
                "world_size": ranks.world_size(),
                "zero_stage": settings.train.zero_stage,
                "reward": progress.reward,
                "data": progress.data,
                "failed_in_a_row": progress.failed_in_a_row,
                "held_out": dict(progress.held_out),
            }
            (beside / PROGRESS).write_text(json.dumps(counts))
            loop = {
                "state": dict(progress.loop.state),
                "previous_entropy": progress.loop.previous_entropy,
                "initial_entropy": progress.loop.initial_entropy,
            }
            torch.save(loop, beside / CONTROLLER)
        unpickling.write_enums_by_value()
        stepper.save(beside)
        ranks.barrier()
        part = beside / f".{MANIFEST}.{ranks.rank()}"
        part.write_text(json.dumps({str(p.relative_to(beside)): _written(p) for p in _own_files(beside)}))
        ranks.barrier()
        if ranks.rank() == 0:
            _join_manifest(beside)
            # Those before are deleted below: by then all of this one is on the disk, whatever happens to the node.
            for folder in (beside, *(p for p in beside.rglob("*") if p.is_dir())):
                atomic.sync(folder)
            shutil.rmtree(done, ignore_errors=True)
            beside.rename(done)
            atomic.sync(done.parent)
    # torch writes files through its own stream, whose failures are RuntimeErrors.
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and ranks.lost_peer(error) is not None:
            raise
        free = shutil.disk_usage(beside.parent).free
        # Other ranks may still write there.
        if ranks.world_size() == 1:
            shutil.rmtree(beside, ignore_errors=True)
        # Or wait in the middle of DeepSpeed's part: they learn of this when this rank ends.
        raise CheckpointError(f"writing {done} failed ({free / 1e9:.1f} GB free): {error}") from error
    if ranks.rank() == 0:
        complete = _complete(settings)
        # Later ones are of a run that was resumed from before them.
        by_reward = settings.checkpoint.best_by == "reward"
        figures = {p: _reward(p) if by_reward else _held_out(p, progress) for p in complete if p.name <= done.name}
        keep = kept(figures, newest=settings.checkpoint.keep_last, best=settings.checkpoint.keep_best)
        for other in set(complete) - keep:
            shutil.rmtree(other)
    ranks.barrier()


def kept(figures: Mapping[Path, float], *, newest: int, best: int) -> set[Path]:
    """The checkpoints to keep: the newest, and the best of the rest; of equal ones the newer.

    Args:
        figures: checkpoint -> its figure of checkpoint.best_by; nan is worse than any.
        newest: how many for being new.
        best: how many more for their figure.

    >>> sorted(kept({"step_1": 0.9, "step_2": 0.5, "step_3": 0.9, "step_4": 0.1}, newest=1, best=2))
    ['step_1', 'step_3', 'step_4']
    """
    in_order = sorted(figures)
    rest = in_order[:-newest]
    worth = {p: -math.inf if math.isnan(figures[p]) else figures[p] for p in rest}
    by_worth = sorted(rest, key=lambda p: (worth[p], p), reverse=True)
    return {*in_order[-newest:], *by_worth[:best]}


def _reward(folder: Path) -> float:
    """A checkpoint's mean training reward; nan for one that was written without or cannot be read."""
    try:
        return float(_counts(folder).get("reward", math.nan))
    except (OSError, ValueError, TypeError):
        return math.nan


def _held_out(folder: Path, progress: Progress) -> float:
    """Held-out pass@1 of a checkpoint's weights; nan where they were not evaluated, or it cannot be read."""
    try:
        return progress.held_out.get(_counts(folder)["step"], math.nan)
    except (OSError, ValueError):
        return math.nan


def data_of(folder: Path) -> str | None:
    """Fingerprint of what a checkpoint was trained on; None for one that does not say."""
    return _counts(folder).get("data")


def threads_of(folder: Path) -> int | None:
    """How many threads the run of a checkpoint computes in; None for one that does not say."""
    return load(folder / SETTINGS).train.threads


def _no_room(settings: Settings, policy: Policy) -> str | None:
    """Why the disk cannot hold another checkpoint; as large as the last one, or by the number of parameters."""
    folder, before = _folder(settings), _complete(settings)
    needed = BYTES_PER_PARAMETER * policy.parameter_count
    if before:
        needed = sum(p.stat().st_size for p in before[-1].rglob("*") if p.is_file())
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return None
    return (
        f"no room for a checkpoint under {folder}: it takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
        "free some, lower checkpoint.keep_last or keep_best, or choose another --out, then go on with --resume"
    )


def _together(problem: str | None, beside: Path) -> None:
    """Raise on every rank if one has a problem, so that none waits for it."""
    if ranks.anywhere(problem is not None):
        if ranks.rank() == 0:
            shutil.rmtree(beside, ignore_errors=True)
        raise CheckpointError(problem or "another rank could not write its part of the checkpoint")


def _own_files(folder: Path) -> list[Path]:
    """This rank's share of a checkpoint's files, to be read."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.lstrip(".").startswith(MANIFEST))
    return files[ranks.rank() :: ranks.world_size()]


def _fingerprint(path: Path) -> list[int]:
    """Size and CRC-32."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            crc = zlib.crc32(block, crc)
    return [path.stat().st_size, crc]


def _written(path: Path) -> list[int]:
    """Its fingerprint, once it is on the disk and not in the system's cache only."""
    atomic.sync(path)
    return _fingerprint(path)


def _join_manifest(folder: Path) -> None:
    parts = sorted(folder.glob(f".{MANIFEST}.*"))
    files = {name: value for part in parts for name, value in json.loads(part.read_text()).items()}
    (folder / MANIFEST).write_text(json.dumps(files, indent=1, sort_keys=True))
    atomic.sync(folder / MANIFEST)
    for part in parts:
        part.unlink()


def _damage(folder: Path) -> str | None:
    """What is wrong with this rank's share of the files, or None."""
    try:
        expected = json.loads((folder / MANIFEST).read_text())
        if not isinstance(expected, dict) or (unnamed := sorted(NEEDED - expected.keys())):
            return f"{MANIFEST} does not name {unnamed[0] if isinstance(expected, dict) else 'any file'}"
        if not any(name.startswith("state/") for name in expected):
            return f"{MANIFEST} names no file of weights"
        missing = sorted(name for name in expected if not (folder / name).is_file())
        if missing:
            return f"{missing[0]} is missing"
        for path in _own_files(folder):
            name = str(path.relative_to(folder))
            if name in expected and _fingerprint(path) != expected[name]:
                return f"{name} is not what was written"
        _counts(folder)
    except (OSError, ValueError, RecursionError) as error:
        return f"unreadable: {error}"
    return None


def _counts(folder: Path) -> dict[str, Any]:
    """What progress.json says.

    Raises:
        OSError, ValueError: it cannot be read, or does not say how far the run had come.
    """
    found = json.loads((folder / PROGRESS).read_text())
    if not isinstance(found, dict) or not all(type(found.get(name)) is int for name in ("step", "updates")):
        raise ValueError(f"{PROGRESS} does not say how many steps and updates were made")
    return found


def _complete(settings: Settings) -> list[Path]:
    return sorted(p for p in _folder(settings).glob("step_*") if (p / PROGRESS).is_file())


def newest(settings: Settings, *, required: bool = True, trusted: bool = False) -> Path | None:
    """The newest checkpoint of this run whose files are what was written; called by all ranks together.

    Damaged ones are named in the log and passed over. Without any whole one: None, if none is `required`.

    Args:
        settings: of the run.
        required: whether there must be one.
        trusted: whether it may hold more than tensors and DeepSpeed's state, and so run code when it is restored.

    Raises:
        SettingsError: there is none, it belongs to other settings (each difference is listed), or it is not `trusted`
            and holds what could run code.
    """
    for folder in sorted((p for p in _folder(settings).glob("step_*") if p.is_dir()), reverse=True):
        damage = _damage(folder)
        if damage is not None:
            log.error("checkpoint %s is damaged and passed over: %s", folder, damage)
        if ranks.anywhere(damage is not None):
            continue
        saved = load(folder / SETTINGS)
        # A learning rate that falls until the last step has always known how many there are.
        free = tuple(f for f in _FREE if f != "train.steps" or saved.train.lr_schedule == "constant")
        differ = sorted(_differences(saved.model_dump(), settings.model_dump(), free))
        if differ:
            raise SettingsError(
                f"--resume: {folder} was made with other settings; undo these or start anew in another --out:\n"
                + "\n".join(differ)
            )
        if not trusted:
            only_first(functools.partial(unpickling.check, folder, option="--resume"))
        return folder
    if required:
        raise SettingsError(
            f"--resume: no whole checkpoint under {_folder(settings)}; `--resume auto` or no --resume starts anew"
        )
    log.warning("--resume auto: no whole checkpoint under %s, starting anew", _folder(settings))
    return None


# What may change between the parts of one run without changing the steps already done.
_FREE = (
    "train.steps",
    "train.micro_batch_tokens",
    "train.packing",
    "train.shared_prompts",
    "train.threads",
    "train.gradient_checkpointing",
    "train.release_buffers",
    "checkpoint.",
    "watchdog.",
    "evaluation.",
    "log.",
    "reward.workers",
    "warm_start.cache",
)


def _differences(saved: dict, now: dict, free: tuple[str, ...], prefix: str = "") -> list[str]:
    lines = []
    for key in sorted(saved.keys() | now.keys()):
        name = prefix + key
        old, new = saved.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differences(old, new, free, name + ".")
        elif old != new and not name.startswith(free) and not (name == "train.zero_stage" and {old, new} == {1, 2}):
            lines.append(f"  {name}: checkpoint {old!r}, now {new!r}")
    return lines


def restore(folder: Path, policy: Policy, stepper: DeepSpeedStepper, *, trusted: bool = False) -> Progress:
    """Weights, optimizer and controller as they were, whatever the number of ranks; called by all ranks together.

    Args:
        folder: of the checkpoint.
        policy: its counts are set.
        stepper: takes the weights and the optimizer's state.
        trusted: as for `newest`.

    Raises:
        CheckpointError: another number of ranks saved it, and it cannot be converted.
    """
    if ranks.rank() == 0:
        reshard.remove_leftovers(folder.parent)
    counts = _counts(folder)
    policy.updates = counts["updates"]
    policy.skipped_in_a_row = counts.get("skipped_in_a_row", 0)
    parts = reshard.parts(folder)
    # Checkpoints that do not say how many ranks wrote them have a file of each.
    saved, now = counts.get("world_size", parts), ranks.world_size()
    with unpickling.only_tensors(folder, option="--resume", trusted=trusted):
        if not parts or (saved, counts.get("zero_stage", stepper.zero_stage)) == (now, stepper.zero_stage):
            stepper.load(folder)
        elif not policy.updates:
            # The optimizer holds nothing that could be converted, and every start makes these weights.
            log.info("checkpoint %s: was saved by %d ranks, before the first update", folder, saved)
        else:
            _load_converted(folder, stepper, saved)
    loop = torch.load(folder / CONTROLLER, weights_only=True)
    return Progress(
        step=counts["step"],
        loop=Loop(**loop),
        failed_in_a_row=counts.get("failed_in_a_row", 0),
        # JSON has no numbers for names.
        held_out={int(step): passed for step, passed in counts.get("held_out", {}).items()},
    )


def _load_converted(folder: Path, stepper: DeepSpeedStepper, saved: int) -> None:
    """What `saved` ranks wrote."""
    now = ranks.world_size()
    log.info("checkpoint %s: converting from %d to %d ranks", folder, saved, now)
    try:
        with reshard.universal(folder) as converted:
            stepper.load(converted, universal=True)
    except reshard.ConversionError as error:
        raise CheckpointError(
            f"{folder} was saved by {saved} ranks and could not be converted for {now}: {error}; it is as it was: "
            f"go on with --resume once that is mended, or with {saved} ranks"
        ) from error
