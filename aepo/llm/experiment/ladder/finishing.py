"""From a trained run to its file: the last model and checkpoints counted, the curve thinned, then the folder gone."""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aepo
from aepo.llm.checkpoints.as_model import write_model
from aepo.llm.experiment.ladder import outcome
from aepo.llm.experiment.ladder.counting import drawn
from aepo.llm.experiment.ladder.outcome import Counts, Outcome
from aepo.llm.experiment.ladder.protocol import Protocol
from aepo.llm.policy.warm_start import load_model
from aepo.llm.questions.loading import load_task
from aepo.llm.records.recorder import LAST_STEPS as REWARD_STEPS
from aepo.llm.records.recorder import read
from aepo.llm.settings import Settings
from aepo.llm.settings.model_source import of_run
from aepo.tracking import duty_cycle, last_half, tracking_error

CURVE_EVERY = 5
WARNINGS, LONGEST_WARNING = 3, 200
"""Of what a run was warned of."""
PACKAGES = ("torch", "transformers", "deepspeed", "numpy")


def finish(protocol: Protocol, arm: str, seed: int, *, out: Path, results: Path) -> str:
    """Evaluate a run and leave its file; then delete its working folder.

    Args:
        protocol: whose evaluation.
        arm, seed: of the run, which has trained where the arm is trained, and whose warm start is made.
        out: of the working folders.
        results: of the files.

    Returns:
        A line for a person.
    """
    began, computed = time.monotonic(), time.process_time()
    job, settings, trained = protocol.job(arm, seed, out), protocol.settings(arm, seed), protocol.arms[arm].trained
    rows = read(job.folder / "metrics.jsonl") if trained else []
    if trained and len(rows) != protocol.steps:
        raise ValueError(f"{job.folder}: metrics.jsonl has {len(rows)} steps of {protocol.steps}")
    counts, checkpoints, surprise = _evaluated(protocol, arm, seed, out)
    follows = any(name.startswith("target.") for name in protocol.arms[arm].settings)
    evaluated = time.process_time() - computed
    outcome.write(
        results,
        Outcome(
            arm=arm,
            seed=seed,
            digest=protocol.digests[arm],
            about=_about(
                protocol, arm, seed, said=_warnings(job.log) if trained else [], evaluation_cpu_seconds=evaluated,
                training_cpu_seconds=job.cpu_seconds if trained else None,
                training_seconds=sum(row["time/step"] for row in rows) if trained else None,
            ),
            summary=summarized(settings, rows, follows=follows, last=protocol.evaluation.last_steps) if trained else {},
            curve=thinned(settings, rows, follows=follows) if trained else {},
            counts=counts,
            checkpoints=checkpoints,
            surprise=surprise,
        ),
    )  # fmt: skip
    remove(protocol, arm, seed, out)
    return f"evaluated in {time.monotonic() - began:.0f} s ({evaluated:.0f} s computed)"


def remove(protocol: Protocol, arm: str, seed: int, out: Path) -> None:
    """The working folder of a run, if there is one."""
    job = protocol.job(arm, seed, out)
    # First what says that the run has ended: a folder that is half there is never taken for a whole run.
    for path in (job.record, job.log):
        path.unlink(missing_ok=True)
    shutil.rmtree(job.folder, ignore_errors=True)


def _evaluated(
    protocol: Protocol, arm: str, seed: int, out: Path
) -> tuple[dict[str, Counts], dict[int, Counts], dict[str, dict[str, list[float]]]]:
    """Counts of the last model by name, counts of the checkpoints by step, and what its samples' surprise is."""
    chosen, settings = protocol.evaluation, protocol.settings(arm, seed)
    task, folder = load_task(settings), protocol.job(arm, seed, out).folder
    prompts = sorted(task.held_out)[: chosen.prompts]
    model = of_run(str(folder / "final")).loaded(dtype="float32") if protocol.arms[arm].trained else None
    model = load_model(settings, task) if model is None else model

    def of(model: Any, temperature: float, samples: int, *, top_p: float = 1.0, step: int = 0) -> Any:
        return drawn(model, task, prompts, samples=samples, temperature=temperature, top_p=top_p, seed=seed, step=step)

    whole, narrow, more = chosen.whole, chosen.narrow, chosen.more
    has_more = arm in more.arms
    samples = max(whole.samples, more.samples) if has_more and seed in more.seeds else whole.samples
    at_1 = of(model, whole.temperature, samples)
    counts = {
        "whole": at_1.counts(whole.samples),
        "narrow": _of_right(of(model, narrow.temperature, narrow.samples).counts(narrow.samples)),
    }
    if samples > whole.samples:
        counts["more"] = _of_right(at_1.counts(samples))
    if has_more:
        for name, kind in (("whole", whole), ("narrow", narrow)):
            nucleus = of(model, kind.temperature, kind.samples, top_p=more.top_p)
            counts[f"{name}_nucleus"] = _of_right(nucleus.counts(kind.samples))
    checkpoints = {}
    if protocol.arms[arm].followed:
        for step in range(chosen.checkpoints.every, protocol.steps, chosen.checkpoints.every):
            before = _checkpoint(folder / "checkpoints" / f"step_{step:06d}")
            found = of(before, whole.temperature, chosen.checkpoints.samples, step=step)
            checkpoints[step] = _of_right(found.counts(chosen.checkpoints.samples))
    levels = [task.levels[prompt] if task.levels else "all" for prompt in prompts]
    return counts, checkpoints, at_1.surprise(levels, whole.samples)


def _of_right(counts: Counts) -> Counts:
    """Without how many differ."""
    return Counts(samples=counts.samples, right=counts.right)


def _checkpoint(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as made:
        write_model(folder, Path(made) / "model")
        return of_run(str(Path(made) / "model")).loaded(dtype="float32")


def _about(protocol: Protocol, arm: str, seed: int, **measured: Any) -> dict[str, Any]:
    """How a run was made."""
    stage = protocol.stage_of(arm, seed)
    seeds = seed - protocol.stages[stage].seeds.first + 1
    return {
        "command": f"aepo experiment --task ladder --stage {stage} --arms {arm} --seeds {seeds}",
        "settings": {name: str(value) for name, value in protocol.arms[arm].settings.items()},
        "device": f"CPU, {platform.machine()}, {os.cpu_count()} cores, one thread a run",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {"python": platform.python_version(), "aepo": aepo.__version__}
        | {name: version(name) for name in PACKAGES},
        **{name: round(value, 1) if isinstance(value, float) else value for name, value in measured.items()},
    }


def _warnings(log: Path) -> list[str]:
    """What a run was warned of, each once."""
    # The console's warnings begin so.
    lines = [line.removeprefix("W ") for line in log.read_text(errors="replace").splitlines() if line.startswith("W ")]
    return [line[:LONGEST_WARNING] for line in dict.fromkeys(lines)][:WARNINGS]


def _series(rows: Sequence[Mapping[str, Any]], name: str) -> outcome.Floats:
    """(S,): a metric of every step; nan where a step has it not."""
    return np.array([row.get(name) for row in rows], dtype=float)


def _targets(settings: Settings, steps: int) -> outcome.Floats:
    """(S,): H* of every step, also of a method that is told it and does not follow it, as Eq. 2."""
    schedule = settings.target.build()
    return np.array([float(schedule(step)) for step in range(steps)])


def summarized(
    settings: Settings, rows: Sequence[Mapping[str, Any]], *, follows: bool, last: int
) -> dict[str, float | None]:
    """A run's figures, of every step; entropies in nats.

    Args:
        settings: of the run.
        rows: of its metrics.
        follows: whether it was given a target.
        last: steps that the last entropy is the mean of.
    """
    entropy, authority = _series(rows, "entropy"), last_half(_series(rows, "control/authority"))
    raised, measured = _series(rows, "raise_entropy"), authority[~np.isnan(authority)]
    found = {
        "entropy_first": entropy[0],
        "entropy_last": entropy[-last:].mean(),
        "entropy_last_half": last_half(entropy).mean(),
        "tracking_error": tracking_error(entropy, _targets(settings, len(rows))) if follows else None,
        "target_last": _targets(settings, len(rows))[-1] if follows else None,
        "duty_up": None if np.isnan(raised).any() else duty_cycle(raised)[0],
        "reward": _series(rows, "reward")[-REWARD_STEPS:].mean(),
        "authority": np.median(measured) if len(measured) else None,
        "authority_measured": len(measured) / len(authority),
    }
    return {name: None if value is None else round(float(value), 5) for name, value in found.items()}


def thinned(settings: Settings, rows: Sequence[Mapping[str, Any]], *, follows: bool) -> dict[str, list[float | None]]:
    """Every fifth step of a run: entropy, target and reward there; of it and the next four the share that raised the
    entropy, and the median authority where one was measured.

    Args:
        settings, rows, follows: as for `summarized`.
    """
    starts = range(0, len(rows), CURVE_EVERY)

    def numbers(values: Sequence[float] | outcome.Floats, digits: int) -> list[float | None]:
        return [None if np.isnan(value) else round(float(value), digits) for value in values]

    def blocks(name: str) -> list[outcome.Floats]:
        values = _series(rows, name)
        found = (values[start : start + CURVE_EVERY] for start in starts)
        return [block[~np.isnan(block)] for block in found]

    curve = {
        "step": list(starts),
        "entropy": numbers(_series(rows, "entropy")[::CURVE_EVERY], 4),
        "reward": numbers(_series(rows, "reward")[::CURVE_EVERY], 3),
    }
    if follows:
        curve["target"] = numbers(_targets(settings, len(rows))[::CURVE_EVERY], 4)
    for name, digits, number in (("raise_entropy", 1, np.mean), ("control/authority", 2, np.median)):
        measured = [number(block) if len(block) else np.nan for block in blocks(name)]
        if not np.isnan(measured).all():
            curve[name] = numbers(measured, digits)
    return curve
