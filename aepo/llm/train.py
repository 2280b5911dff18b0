"""Train a language model with verifiable rewards at a chosen entropy: main, and the step.

aepo train --config demo_cpu --method.name=aepo --target.value=0.5
deepspeed aepo/llm/train.py --config configs/demo_cpu.yaml ...      (or python aepo/llm/train.py ..., for one rank)
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import contextlib
import errno
import logging
import math
import os
import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError

from aepo.batch import Batch, Rollouts
from aepo.controller import Control, Loop
from aepo.correction import corrected
from aepo.errors import ENDED, NOT_FINITE, NOT_JUDGED, NOT_WRITTEN, RANK_LOST, AepoError
from aepo.llm.checkpoints import checkpoint
from aepo.llm.doctor import dry_run
from aepo.llm.evaluation.held_out import shorter_evaluation
from aepo.llm.grading.overlong import ended
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper, init_distributed
from aepo.llm.policy.update import update
from aepo.llm.processes import ranks, threads
from aepo.llm.processes.leaving import leave
from aepo.llm.processes.quiet import quieted
from aepo.llm.processes.run_lock import alone, only_first
from aepo.llm.processes.termination import Termination
from aepo.llm.questions.end_tokens import published_ends
from aepo.llm.questions.task import stops
from aepo.llm.records.metrics import HELD_OUT, as_set, step_metrics
from aepo.llm.records.recorder import Recorder, in_words, metrics_path, summarize
from aepo.llm.records.samples import one_line, samples
from aepo.llm.records.saturation import ceiling_warning
from aepo.llm.records.wandb_run import check_wandb
from aepo.llm.settings import CommandLine, Settings, SettingsError, model_source, parse
from aepo.llm.trainer import Graded, Request, Trainer, build, verdicts_of_all_ranks
from aepo.method import assemble

log = logging.getLogger("aepo")

# Without a GPU the command with no arguments shows what it does.
DEMO_CONFIG = "demo_cpu"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a system says of a disk, a quota or a file that takes no more."""
BRANCHES = ("main", "tempered")
"""Both groups of responses of a step, in the order in which they are asked for."""


# Steps without a verdict, one after the other, which are no accident of some responses any more.
FATAL_STEPS = 3


class NotJudgedError(AepoError):
    """Reward functions that fail on every response."""

    exit_code = NOT_JUDGED


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one step sampled and measured."""

    main: Rollouts
    second: Rollouts | None
    graded: Mapping[str, Graded]
    """By branch: the responses as they were sampled, and this rank's verdicts."""
    control: Control
    batch: Batch
    metrics: dict[str, Any]
    temperatures: Mapping[str, float]
    """By branch: what the responses were sampled at."""


def train_step(trainer: Trainer, loop: Loop, *, step: int) -> tuple[Loop, Step]:
    """One step of training (`aepo.tabular.train.train_step` in the large).

    1. Push the weights to the engine; a canary proves that they arrived.
    2. Sample the step's prompts at T = 1, or at the temperature that the method moves; grade and score them. Where the
       controller sees the previous entropy, the tempered samples come out of the same call.
    3. Control: the entropy decides the temperature and the strength of the second branch (Eq. 1).
    4. Sample the first prompts again at that temperature, unless step 2 did. Where an evaluation is due, sample the
       held-out prompts too.
    5. Assemble the global batch: `aepo.method.assemble` makes Eq. 1, 2 or 3 of both branches. Then correct its weights
       for the engine's numerics.
    6. Update: optimizer steps over mini-batches.
    7. Measure.

    Args:
        trainer: the run; its policy is updated.
        loop: the controller's memory.
        step: counted from 0.

    Returns:
        The next loop, and the step's record.

    Raises:
        FloatingPointError: a loss or entropy that is not finite, or three gradients in a row; nothing of it is saved.
    """
    settings, method = trainer.settings, trainer.method
    trainer.phases.begin(step)
    target = settings.target.build()(step)

    def decide(entropy: torch.Tensor) -> tuple[Loop, Control]:
        return loop.decide(
            method.controller,
            entropy=entropy,
            target=target,
            sees=settings.controller.sees,
            step=step,
            relative=settings.target.relative,
        )

    # 1. Push.
    sync = trainer.push()

    # 2. Sample, at T = 1 unless the method moves that.
    prompts = trainer.prompts(step)
    sampled_at = 1.0 if method.main_temperature is None else float(method.main_temperature(loop.state))
    requests = [Request(branch="main", prompts=prompts, temperature=sampled_at)]
    if method.tempered is not None and settings.controller.sees == "previous":
        _, early = decide(loop.previous_entropy)
        requests.append(trainer.tempered_request(prompts, early))
    graded = dict(zip(BRANCHES, trainer.rollouts(step, *requests), strict=False))
    main = graded["main"].rollouts

    # 3. Control.
    next_loop, control = decide(main.mean_entropy())

    # 4. Sample again at the control's temperature.
    if method.tempered is not None and "tempered" not in graded:
        (graded["tempered"],) = trainer.rollouts(step, trainer.tempered_request(prompts, control))
    second = graded["tempered"].rollouts if "tempered" in graded else None
    # The engine's last work before the next push, so that nothing that it keeps reaches a step's own samples.
    held_out = trainer.evaluate(step) if settings.evaluation.due(step) else {}
    trainer.rest()
    # The engine's log-probs are those at the temperature that it sampled at.
    compared = main if sampled_at == 1 else main.replace(old_logp=trainer.tempered_score(main, sampled_at).logp_t)
    if method.needs_logp_t:
        main = trainer.tempered_score(main, float(control.temperature))

    # 5. Assemble, and correct.
    batch = assemble(method, control, main, second)
    estimate = batch.sampled_nll()
    if settings.controller.estimator == "sampled_nll":
        next_loop = next_loop.replace(previous_entropy=estimate)
    if settings.rollout.corrects:
        batch = corrected(
            batch,
            compared,
            None if second is None else trainer.tempered_score(second, float(control.temperature)),
            cap=settings.rollout.correction_cap,
            sequence_bound=settings.rollout.correction_sequence_bound,
        )

    # 6. Update.
    with trainer.phases("update"):
        done = update(trainer.policy, batch, method, parts=settings.train.minibatches, step=step)

    # 7. Measure.
    metrics = step_metrics(
        step=step,
        settings=settings,
        method=method,
        control=control,
        main=main,
        compared=compared,
        second=second,
        batch=batch,
        estimate=estimate,
        done=done,
        whole=ended(main.token, main.mask, end_ids=trainer.task.end_ids, completed=stops(trainer.task)),
        beside={
            **verdicts_of_all_ranks(graded, trainer.task.parts),
            **{f"{HELD_OUT}{name}": value for name, value in held_out.items()},
            **sync,
            **trainer.usage(*(branch.rollouts for branch in graded.values())),
            **trainer.phases.seconds(),
        },
    )
    for name in ("loss", "entropy"):
        # Gradients need not show it: a nan that a mask takes out, say.
        if not math.isfinite(metrics[name]):
            raise FloatingPointError(f"step {step}: {name} is {metrics[name]}")
    return next_loop, Step(
        main=main,
        second=second,
        graded=graded,
        control=control,
        batch=batch,
        metrics=metrics,
        temperatures={"main": as_set(torch.tensor(sampled_at)), "tempered": as_set(control.temperature)},
    )


def failed_in_a_row(trainer: Trainer, record: Step, *, step: int, before: int) -> int:
    """How many steps there were until now, one after the other, of which no verdict was more than an error.

    The first of them is warned of. Called by all ranks, which have the same counts.

    Args:
        trainer: the run.
        record: of this step.
        step: its number.
        before: what was returned for the step before.

    Raises:
        NotJudgedError: FATAL_STEPS of them.
    """
    responses = sum(len(branch.rollouts.reward) for branch in record.graded.values())
    failures = record.metrics["reward/errors"] + record.metrics["reward/timeouts"]
    if failures < responses:
        return 0
    reasons = [v.reason for branch in record.graded.values() for v in branch.verdicts]
    chosen = trainer.settings.reward
    problem = (
        f"step {step}: all {responses} verdicts of reward.function="
        f"{'aepo.llm.grading:math_reward' if chosen.function is None else chosen.function} failed, the last with "
        f"{one_line(reasons[-1]) if reasons else 'what another rank knows'!r}"
    )
    if before + 1 >= FATAL_STEPS:
        raise NotJudgedError(
            f"{problem}; so did those of the {before} steps before. Mend the function, or raise "
            "reward.deadline_seconds, then go on with --resume, or start anew with --overwrite"
        )
    log.warning("%s; %d steps in a row end the run", problem, FATAL_STEPS)
    return before + 1


def step_samples(trainer: Trainer, record: Step, *, step: int) -> list[dict[str, Any]]:
    """Rows of samples.jsonl: what a person is shown of a step, out of this rank's responses; for rank 0."""
    return [
        row
        for branch, graded in record.graded.items()
        for row in samples(
            graded.rollouts,
            graded.verdicts,
            trainer.task,
            step=step,
            branch=branch,
            temperature=record.temperatures[branch],
            count=trainer.settings.log.samples,
        )
    ]


def run(
    settings: Settings,
    *,
    resume: Literal["no", "must", "auto"] = "no",
    trusted: bool = False,
    on_step: Callable[[Step], None] = lambda step: None,
) -> dict[str, Any] | None:
    """Train, checkpoint, evaluate, plot; the summary on rank 0, None elsewhere and where SIGTERM ended the run.

    Args:
        settings: of the run.
        resume: whether to go on from a checkpoint, and whether there must be one.
        trusted: whether that may hold what could run code (`aepo.llm.checkpoints.unpickling`).
        on_step: is shown every step.
    """
    init_distributed(settings.watchdog.longest)
    threads.one_until_known()
    # Nothing draws from the global generators; seeding them keeps a library that does from breaking reproducibility.
    random.seed(settings.seed)
    np.random.seed(settings.seed % 2**32)
    torch.manual_seed(settings.seed)
    out = Path(settings.out)
    with contextlib.ExitStack() as held:

        def hold() -> None:
            held.enter_context(alone(out, option="out"))

        # What is there may not change once it was read; what is not there is made when nothing is wrong with the run.
        there = ranks.anywhere(ranks.rank() == 0 and out.is_dir())
        if there:
            only_first(hold)
        folder = None if resume == "no" else checkpoint.newest(settings, required=resume == "must", trusted=trusted)
        trainer, stepper = build(settings, resumed=folder)
        held.enter_context(contextlib.closing(trainer))
        if not there:
            only_first(hold)
        return _run(trainer, stepper, folder, on_step, trusted=trusted)


def _run(
    trainer: Trainer,
    stepper: DeepSpeedStepper,
    folder: Path | None,
    on_step: Callable[[Step], None],
    *,
    trusted: bool,
) -> dict[str, Any] | None:
    """From the checkpoint in `folder` (None: from the start) to the end."""
    settings, main_rank = trainer.settings, ranks.rank() == 0
    progress = checkpoint.Progress(step=0, loop=Loop.start(trainer.method.controller, torch.zeros(())))
    if folder is not None:
        progress = checkpoint.restore(folder, trainer.policy, stepper, trusted=trusted)
        log.info("resumed from %s at step %d", folder, progress.step)
    recorder = Recorder(settings, first_step=progress.step) if main_rank else None
    if main_rank and (said := ceiling_warning(settings, trainer.task.entropy_ceiling)):
        log.warning("%s", said)
    if main_rank and (said := shorter_evaluation(settings, len(trainer.task.held_out))):
        log.info("%s", said)
    rewards: list[float] = []
    held_out = dict(progress.held_out)
    loop, failed, termination = progress.loop, progress.failed_in_a_row, Termination()
    with termination.listening():
        for step in range(progress.step, settings.train.steps):
            loop, record = train_step(trainer, loop, step=step)
            if recorder is not None:
                recorder.write(record.metrics)
                if recorder.wants_samples(step):
                    recorder.write_samples(step_samples(trainer, record, step=step))
            on_step(record)
            failed = failed_in_a_row(trainer, record, step=step, before=failed)
            rewards.append(record.metrics["reward"])
            if (passed := record.metrics.get(f"{HELD_OUT}pass@1")) is not None:
                held_out[step] = passed
            every, last = settings.checkpoint.every, step + 1 == settings.train.steps
            ends = termination.agreed()
            if ends or (every and ((step + 1) % every == 0 or last)):
                with trainer.phases("save"):
                    reached = checkpoint.Progress(
                        step=step + 1,
                        loop=loop,
                        reward=float(np.mean(rewards)),
                        held_out=held_out,
                        data=trainer.data,
                        failed_in_a_row=failed,
                    )
                    checkpoint.save(settings, trainer.policy, stepper, reached)
                rewards = []
            if ends:
                log.warning("SIGTERM: saved after step %d under %s; go on with --resume", step, settings.out)
                if recorder is not None:
                    recorder.close()
                return None
    trainer.phases.begin(settings.train.steps)
    trainer.push()
    evaluation = trainer.evaluate(None)
    _export(trainer, stepper, Path(settings.out) / "final")
    summary = None
    if recorder is not None:
        recorder.plot()
        recorder.close()
        summary = summarize(settings, trainer.method, evaluation)
        log.info("done: %s", in_words(summary))
    ranks.barrier()
    return summary


def _export(trainer: Trainer, stepper: DeepSpeedStepper, folder: Path) -> None:
    """The model and its tokenizer in transformers' format; called by all ranks together.

    Raises:
        CheckpointError: they could not be written.
    """
    try:
        stepper.export(folder)
        if ranks.rank() == 0:
            trainer.task.tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise checkpoint.CheckpointError(
            f"writing the trained model to {folder} failed: {error}; when that is mended, --resume writes it from the "
            "last checkpoint"
        ) from error


def dry(settings: Settings) -> None:
    """Two steps of this run with a small random model in the place of its own; see `aepo.llm.doctor.dry_run`."""
    init_distributed(settings.watchdog.longest)
    small = dry_run.shrunk(settings)
    if run(small) is not None:
        log.info("dry run: %d steps, their checkpoints and the export went through, under %s", dry_run.STEPS, small.out)


def prepared(argv: Sequence[str]) -> CommandLine:
    """What was typed, once all is checked that can be before ranks meet and data or weights are read.

    Raises:
        SettingsError, DataError: it cannot be used; the message names the option and the cure.
    """
    default = None if torch.cuda.is_available() else DEMO_CONFIG
    typed = parse(argv, default_config=default, bare=False)
    settings = typed.settings
    if settings.model.path is not None:
        # A dry run reads no weights.
        source = model_source.located(settings.model.path, weights=not typed.dry_run)
        model_source.inspected(source)
        published_ends(source.place)
    if typed.dry_run:
        return typed
    check_wandb(settings)
    if typed.resume == "no" and not typed.overwrite and metrics_path(settings).exists():
        raise SettingsError(
            f"out={settings.out} holds a run already: add --resume (or --resume auto, which starts anew "
            "where no checkpoint is whole) to go on, --overwrite to replace it, "
            "or choose another --out"
        )
    return typed


def main(argv: list[str] | None = None) -> int:
    """The command; what its exit codes say is in `aepo.errors.EXIT_CODES`."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO if first else logging.ERROR)
    threading.excepthook = _thread_ended
    quieted()
    try:
        typed = prepared(sys.argv[1:] if argv is None else argv)
        if typed.dry_run:
            dry(typed.settings)
            return ENDED
        run(typed.settings, resume=typed.resume, trusted=typed.trust_checkpoint)
    except AepoError as error:
        if error.of_one_rank:
            _tell(error)
        elif first:
            print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except OSError as error:
        if error.errno not in FULL:
            raise
        _tell(f"{error}: make room under out={typed.settings.out}, then go on with --resume")
        return NOT_WRITTEN
    except FloatingPointError as error:
        _tell(error)
        return NOT_FINITE
    except RuntimeError as error:
        lost = ranks.lost_peer(error)
        if lost is None:
            raise
        _tell(
            f"another rank was lost or does not answer ({lost}): see what it said last, on its own node; then start "
            "every node again with --resume auto"
        )
        return RANK_LOST
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return ENDED


def _thread_ended(said: threading.ExceptHookArgs) -> None:
    """A thread's stack, save for a full disk's: TensorBoard raises that again in the main thread, which says it in one
    line. Two threads that write at once would tear that line."""
    if not (isinstance(said.exc_value, OSError) and said.exc_value.errno in FULL):
        threading.__excepthook__(said)


def _tell(problem: object) -> None:
    """What only this rank may know."""
    print(f"error: rank {ranks.rank()}: {problem}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    leave(main())
