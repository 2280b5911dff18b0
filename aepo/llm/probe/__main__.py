"""A task before any training: what the model earns, how its responses spread, and what that means for the method.

python -m aepo.llm.probe --config examples/words/words.yaml --prompts 32
"""

from aepo import extras

if __name__ == "__main__":
    # Before the imports that fail without it.
    extras.require("llm")

import argparse
import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aepo import atomic
from aepo.authority import at_the_limit, drift, measurable
from aepo.batch import Rollouts
from aepo.command import called
from aepo.controller import Loop
from aepo.errors import ENDED, UNUSABLE, AepoError
from aepo.llm.grading.overlong import ended
from aepo.llm.policy.deepspeed_stepper import init_distributed
from aepo.llm.probe.findings import Findings, Push, advice, as_json, findings, of_the_method, rows_of
from aepo.llm.processes.quiet import quieted
from aepo.llm.processes.ranks import world_size
from aepo.llm.questions.task import stops
from aepo.llm.records.metrics import seconds
from aepo.llm.records.samples import console_line, samples
from aepo.llm.settings import EvaluationSettings, Settings, SettingsError, parse
from aepo.llm.settings.arguments import Parser
from aepo.llm.settings.parsing import divided
from aepo.llm.train import train_step
from aepo.llm.trainer import Request, Trainer, build
from aepo.method import assemble

PROMPTS = 32
"""Enough to tell a share of 10 % from one of 50 %, and less than a minute of a small model on a CPU."""
EXAMPLES = 6


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=called("python -m aepo.llm.probe"),
        allow_abbrev=False,
        description="Sample a run's task with its model as it is, make one step and throw it away, and say what the "
        "figures mean for the method. Nothing is written but the figures, where a file for them is named.",
        epilog="Every other argument is the trainer's: --config and --section.field=value.",
    )
    parser.add_argument("--prompts", type=int, default=PROMPTS, help=f"training prompts to ask ({PROMPTS} unless told)")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help=f"responses to show ({EXAMPLES} unless told)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    return parser


OWN = ("prompts", "examples", "json")


def _own(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The probe's own options, and the trainer's as they were typed.

    Raises:
        SettingsError: an argument of another form, or a value that is none.
    """
    own, rest = divided(argv, own=OWN)
    found = _parser().parse_args(own)
    if found.prompts < 1 or found.examples < 0:
        raise SettingsError(
            f"--prompts must be at least 1 and --examples at least 0, got {found.prompts} and {found.examples}"
        )
    return found, rest


def probed(settings: Settings, *, prompts: int, examples: int) -> dict[str, Any]:
    """Sample, judge, score, make one step, and print what was found; the figures.

    The prompts are those of the run's first steps, with the responses that it would sample in them before any update.

    Args:
        settings: of the run; its `out` is not touched.
        prompts: to ask, rounded up to whole steps.
        examples: responses to show.

    Raises:
        SettingsError, DataError, EngineError: as for the run.
    """
    init_distributed(settings.watchdog.longest)
    if world_size() > 1:
        raise SettingsError("a probe is one process; start it without a launcher")
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    # The step that is tried evaluates nothing.
    trainer, _ = build(settings.model_copy(update={"evaluation": EvaluationSettings(samples=0)}))
    with contextlib.closing(trainer):
        steps = -(-prompts // settings.train.prompts_per_step)
        trainer.phases.begin(0)
        trainer.push()
        graded = [
            trainer.rollouts(step, Request(branch="main", prompts=trainer.prompts(step), temperature=1.0))[0]
            for step in range(steps)
        ]
        rollouts = rows_of([one.rollouts for one in graded])
        verdicts = [verdict for one in graded for verdict in one.verdicts]
        whole = ended(rollouts.token, rollouts.mask, end_ids=trainer.task.end_ids, completed=stops(trainer.task))
        found = findings(rollouts, verdicts, whole)
        shown = samples(
            rollouts, verdicts, trainer.task, step=0, branch="main", temperature=1.0, count=max(examples, 1)
        )[:examples]
        push = _push(trainer, graded[0].rollouts, trainer.prompts(0))
        step = _one_step(trainer, steps)
    said = [*advice(found, settings), *of_the_method(found, settings, target=step["target"], push=push)]
    _print(found, shown, said, step, settings)
    return as_json(found, step, push, said)


def _push(trainer: Trainer, main: Rollouts, prompts: np.ndarray) -> Push | None:
    """What the second branch does at its upper limit, measured on the first step's prompts."""
    method = trainer.method
    if method.tempered is None or not measurable(method):
        return None
    control = at_the_limit(method, up=True)
    (again,) = trainer.rollouts(0, trainer.tempered_request(prompts, control))
    second = again.rollouts
    found = drift(method, assemble(method, control, main, second), main, second)
    by_main, by_second, noise = (float(one) for one in (found.main, found.second, found.noise))
    return Push(
        authority=-by_second / by_main if by_main < 0 else None,
        luck=noise / abs(by_main) if by_main else math.inf,
        positives=int(method.tempered.kept(second, control).sum()),
    )


def _one_step(trainer: Trainer, step: int) -> dict[str, Any]:
    """Metrics of one step, whose weights nobody keeps."""
    loop = Loop.start(trainer.method.controller, torch.zeros(()))
    return train_step(trainer, loop, step=step)[1].metrics


def _print(found: Findings, shown: Sequence[dict], said: Sequence[str], step: dict, settings: Settings) -> None:
    shortest, mean, longest = found.length
    size = settings.rollout.group_size
    rows = [
        (
            "right",
            f"{found.success:.1%} of {found.responses} responses to {found.prompts} prompts; "
            f"pass@{size} {found.solved:.1%}",
        ),
        ("groups with both verdicts", f"{found.mixed:.1%}"),
        ("entropy", f"{found.entropy:.3f} nats a token at T = 1"),
        ("length", f"{mean:.1f} tokens ({shortest:.0f} to {longest:.0f}); {found.ended:.1%} end by themselves"),
        ("verdicts that failed", ", ".join(f"{n} {name.removeprefix('reward/')}" for name, n in found.errors.items())),
        (
            "a step here",
            ", ".join(
                f"{name.removeprefix('time/')} {seconds(value)} s"
                for name, value in step.items()
                if name.startswith("time/")
            ),
        ),
    ]
    wide = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:{wide}}  {text}")
    for one in shown:
        print(console_line(one))
    for text in said:
        print(f"- {text}")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 2 for settings or data that cannot be used."""
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    logging.getLogger("aepo").setLevel(logging.INFO)
    quieted()
    try:
        typed, rest = _own(sys.argv[1:] if argv is None else argv)
        found = probed(parse(rest, bare=False).settings, prompts=typed.prompts, examples=typed.examples)
        if typed.json is not None:
            atomic.write_text(Path(typed.json), json.dumps(found, indent=1) + "\n")
    except AepoError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return UNUSABLE
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return ENDED


if __name__ == "__main__":
    sys.exit(main())
