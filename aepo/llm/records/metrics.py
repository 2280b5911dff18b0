"""Every number of a step, in one list: metrics.jsonl, the console's row and docs/metrics.md are made from it.

A new metric is an entry of `METRICS`, at the place where it is to stand, and its value in `step_metrics` (what this
rank knows by itself) or in `aepo.llm.train.train_step` (what all ranks find together).
`python -m aepo.llm.records.metrics` prints the table of the documentation.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from aepo.authority import authority, drift, measurable
from aepo.batch import Batch, Rollouts
from aepo.controller import Control
from aepo.correction import measured
from aepo.llm.grading.overlong import overlong_penalty
from aepo.llm.policy.update import Update
from aepo.llm.records.usage import extremes
from aepo.llm.settings import Settings
from aepo.method import Method


def duration(seconds: float) -> str:
    """A time to wait.

    >>> duration(75), duration(4000), duration(300000), duration(1959.9999)
    ('1:15', '1:06:40', '3d 11h', '32:40')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, in_day = divmod(hours, 24)
    if days:
        return f"{days}d {in_day:02d}h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def seconds(value: float) -> str:
    """A phase's time in at most five characters up to a day.

    >>> seconds(0.123), seconds(83.21), seconds(2345.6)
    ('0.12', '83.2', '2346')
    """
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 999.95 else f"{value:.0f}"


@dataclass(frozen=True)
class Column:
    """A column of the console's row."""

    title: str
    width: int
    """In characters."""
    form: str | Callable[[float], str]
    """A format specification, or a function from the value to its text."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of a step."""

    name: str
    """Its key in metrics.jsonl, TensorBoard and W&B."""
    unit: str
    meaning: str
    """One sentence, without its full stop."""
    column: Column | None = None
    """Where the console shows it; None: it does not."""
    stored: bool = True
    """Whether it stands in metrics.jsonl, and not in the console's row alone."""
    several: str | None = None
    """The form of its keys, a regular expression, where the name stands for several."""
    of_controller: bool = False
    """Whether it is of a controller: null, and without a column, for a method that follows no target."""

    def keys(self, found: Collection[str]) -> list[str]:
        """Its keys among those found."""
        if self.several is None:
            return [self.name] if self.name in found else []
        return [name for name in found if re.fullmatch(self.several, name)]


HELD_OUT = "held_out/"
"""Before the name of what an evaluation during training measures."""

METRICS = (
    Metric(name="step", unit="", meaning="Number of the step, counted from 0", column=Column("step", 6, "d")),
    Metric(
        name="reward",
        unit="",
        meaning="Mean reward of the T = 1 responses, after the rules for cut and overlong ones",
        column=Column("reward", 6, ".3f"),
    ),
    Metric(
        name="entropy",
        unit="nats",
        meaning="H: exact mean entropy of the policy at T = 1 over the tokens of its responses, before the update",
        column=Column("H", 6, ".3f"),
    ),
    Metric(
        name="entropy_off_policy",
        unit="true or false",
        meaning="Whether H is over responses that were sampled at another temperature than 1, as those of `e3` are",
    ),
    Metric(
        name="entropy_estimate",
        unit="nats",
        meaning="The authors' estimate of H: minus the mean log-prob of the sampled tokens of both branches",
    ),
    Metric(
        name="target",
        unit="nats",
        meaning="H*, also where the setting is a share of the first entropy; null for a method without one, and so are "
        "`error`, `raise_entropy` and `duty_up`",
        column=Column("H*", 6, ".3f"),
        of_controller=True,
    ),
    Metric(name="error", unit="nats", meaning="|H - H*|", column=Column("|err|", 6, ".3f"), of_controller=True),
    Metric(
        name="temperature",
        unit="",
        meaning="Temperature that the controller chose: for the second branch, or for the next step of `e3`",
        column=Column("T", 5, ".2f"),
    ),
    Metric(
        name="push", unit="", meaning="The controller's push; where it has none, ln T: above 0 it raises the entropy"
    ),
    Metric(
        name="raise_entropy",
        unit="true or false",
        meaning="Whether the controller raises the entropy",
        of_controller=True,
    ),
    Metric(
        name="control/drift_main",
        unit="nats per unit of the learning rate",
        meaning="By how much GRPO's part of the update moves H, to first order, as if every place of a response had "
        "logits of its own; null where the controller does not act through credits",
    ),
    Metric(
        name="control/drift_second",
        unit="nats per unit of the learning rate",
        meaning="The same of what the controller adds: the second branch, or a reweighting",
    ),
    Metric(
        name="control/authority",
        unit="",
        meaning="Minus the second drift over the main one: below 1 the controller is overruled; null where the main "
        "part goes towards the target by itself",
    ),
    Metric(name="positives", unit="responses", meaning="Tempered responses that take part in the update"),
    Metric(
        name="normalizer", unit="name", meaning="How the tempered responses are counted; null without a second branch"
    ),
    Metric(name="live_rows", unit="responses", meaning="Responses that can move the policy: the others have weight 0"),
    Metric(
        name="response_length",
        unit="tokens",
        meaning="Mean length of the T = 1 responses",
        column=Column("|o|", 7, ".1f"),
    ),
    Metric(name="ended", unit="share", meaning="T = 1 responses that ended with an end token or a stop text"),
    Metric(name="reward/truncated", unit="share", meaning="T = 1 responses that were cut at the length limit"),
    Metric(name="reward/overlong_penalty", unit="", meaning="Mean of what overlong responses lose, at most 0"),
    Metric(name="loss", unit="", meaning="Policy loss of the mini-batches that were stepped on"),
    Metric(
        name="clip_fraction",
        unit="share",
        meaning="Weight of the tokens whose ratio to the sampling policy left [0.8, 1.2]",
        column=Column("clip", 5, ".3f"),
    ),
    Metric(name="kl", unit="nats", meaning="KL of the sampling policy to the updated one: mean of r - 1 - ln r"),
    Metric(
        name="grad_norm",
        unit="",
        meaning="Mean norm of the mini-batches' gradients before clipping",
        column=Column("grad", 6, ".3f"),
    ),
    Metric(name="lr", unit="", meaning="Learning rate of the last optimizer step"),
    Metric(
        name="train/weights_changed",
        unit="share",
        meaning="Weights that the step changed, as they compute: in bfloat16 an update may round away; counted in a "
        "million of them",
    ),
    Metric(name="train/skipped", unit="mini-batches", meaning="Left out for a gradient that was not finite"),
    Metric(name="reward/errors", unit="responses", meaning="Verdicts that failed, over all ranks and both branches"),
    Metric(
        name="reward/timeouts", unit="responses", meaning="Verdicts that took too long, over all ranks and branches"
    ),
    Metric(
        name="reward/MODULE:FUNCTION",
        unit="",
        meaning="Mean of what this one of several reward functions gave the T = 1 responses, before weights and rules",
        several=r"reward/.*:.*",
    ),
    Metric(
        name=f"{HELD_OUT}pass@K",
        unit="share",
        meaning="Unbiased pass@K on the held-out prompts, of the policy before the update at T = 1; for each K, only "
        "in steps that evaluate",
        several=rf"{HELD_OUT}pass@\w+",
    ),
    Metric(name="response_length_min", unit="tokens", meaning="Shortest T = 1 response"),
    Metric(name="response_length_max", unit="tokens", meaning="Longest T = 1 response"),
    Metric(name="reward_min", unit="", meaning="Smallest reward of a T = 1 response"),
    Metric(name="reward_max", unit="", meaning="Largest reward of a T = 1 response"),
    Metric(name="mismatch/abs", unit="nats", meaning="Mean |log-prob of the engine - that of the trainer| at T = 1"),
    Metric(
        name="mismatch/kl",
        unit="nats",
        meaning="KL of engine to trainer at T = 1: mean of r - 1 - ln r with r = trainer / engine",
        column=Column("mism.kl", 7, ".1e"),
    ),
    Metric(name="mismatch/worst_ratio", unit="", meaning="Largest ratio between engine and trainer of one token"),
    Metric(name="sync/canary", unit="nats", meaning="The canary's mean difference of log-probs on the worst rank"),
    Metric(
        name="sync/weight_version", unit="optimizer steps", meaning="Behind the weights that the engine sampled from"
    ),
    Metric(
        name="perf/tokens", unit="tokens", meaning="Prompts and responses of both branches, a prompt once a response"
    ),
    Metric(
        name="perf/tokens_per_second",
        unit="tokens/s",
        meaning="Response tokens of all ranks per second of generation on the slowest",
        column=Column("tok/s", 7, ".0f"),
    ),
    Metric(
        name="perf/throughput",
        unit="tokens/s",
        meaning="Tokens of `perf/tokens` per second of the step and rank, less `time/evaluate`",
    ),
    Metric(
        name="perf/memory_gib",
        unit="GiB",
        meaning="Most memory that a rank was seen to use so far: its GPU's, or its process's",
        column=Column("GiB", 6, ".2f"),
    ),
    Metric(
        name="time/push",
        unit="s",
        meaning="Handing the weights to the engine, the canary included, on this rank",
        column=Column("push s", 6, seconds),
    ),
    Metric(name="time/generate", unit="s", meaning="Sampling on this rank", column=Column("gen s", 6, seconds)),
    Metric(
        name="time/reward", unit="s", meaning="Verdicts on this rank's responses", column=Column("reward s", 8, seconds)
    ),
    Metric(
        name="time/score",
        unit="s",
        meaning="Log-probs and entropies before the update, on this rank",
        column=Column("score s", 7, seconds),
    ),
    Metric(
        name="time/update", unit="s", meaning="Optimizer steps, on this rank", column=Column("update s", 8, seconds)
    ),
    Metric(
        name="time/evaluate",
        unit="s",
        meaning="The evaluation on held-out prompts, on this rank; only in steps that evaluate",
    ),
    Metric(name="time/step", unit="s", meaning="The whole step, on this rank", column=Column("step s", 6, seconds)),
    Metric(
        name="duty_up",
        unit="share",
        meaning="Of the last 50 steps, those in which the controller raised the entropy; near 0 or 1 it has lost",
        column=Column("up", 4, ".0%"),
        of_controller=True,
    ),
    Metric(
        name="eta",
        unit="s",
        meaning="Time that the rest of the run will take at the mean pace so far",
        column=Column("ETA", 8, duration),
        stored=False,
    ),
)
"""The numbers of a step in the order of metrics.jsonl; a number that a run does not measure is left out there."""


def step_metrics(
    *,
    step: int,
    settings: Settings,
    method: Method,
    control: Control,
    main: Rollouts,
    compared: Rollouts,
    second: Rollouts | None,
    batch: Batch,
    estimate: Tensor,
    done: Update,
    whole: Tensor,
    beside: Mapping[str, Any],
) -> dict[str, Any]:
    """The stored numbers of one step, in the order of `METRICS`.

    Args:
        step: its number.
        settings, method: of the run.
        control: what the controller decided.
        main, second: scored responses of every rank at T = 1 and at the control's temperature.
        compared: `main` with the log-probs at the temperature that it was sampled at in place of old_logp, which the
            engine's are compared with; `main` itself where that is 1.
        batch: what was trained on.
        estimate: the authors' estimate of the entropy, of the batch before any correction.
        done: what the optimizer steps measured.
        whole: (R,) bool, whether each response of `main` ended, and was not cut.
        beside: further numbers by name, which ranks find together or the clock tells.

    Raises:
        ValueError: a number that `METRICS` does not have.
    """
    entropy = float(main.mean_entropy())
    # What the loop followed: nats, also where the setting is a share of the first entropy.
    goal = None if control.target is None or not method.controlled else as_set(control.target)
    length = main.mask.sum(-1)
    whole = whole.float()
    penalty = overlong_penalty(
        length,
        limit=settings.rollout.max_response_tokens,
        buffer=settings.reward.overlong_buffer_tokens,
        penalty=settings.reward.overlong_penalty,
    )
    found = {
        "step": step,
        "reward": float(main.mean_reward()),
        "entropy": entropy,
        "entropy_off_policy": compared is not main,
        "entropy_estimate": float(estimate),
        "target": goal,
        "error": None if goal is None else abs(entropy - goal),
        "temperature": as_set(control.temperature),
        "push": as_set(control.strength),
        "raise_entropy": bool(control.raise_entropy) if method.controlled else None,
        **_drifts(method, control, batch, main, second),
        "positives": int(method.tempered.kept(second, control).sum()) if second is not None else 0,
        "normalizer": method.tempered.normalizer if method.tempered is not None else None,
        "live_rows": int(batch.live.sum()),
        "response_length": float(length.mean()),
        "ended": float(whole.mean()),
        "reward/truncated": float((1 - whole).mean()),
        "reward/overlong_penalty": float(penalty.mean()),
        "loss": done.sums["loss"],
        "clip_fraction": done.sums["clipped"] / max(done.sums["tokens"], 1e-30),
        "kl": done.sums["kl"] / max(done.sums["tokens"], 1e-30),
        "grad_norm": float(np.mean(done.norms or [0.0])),
        "lr": done.lr,
        "train/weights_changed": done.changed,
        "train/skipped": done.skipped,
        **extremes(main),
        # Below top_p = 1 the engine's log-probs are those of the nucleus: no measure of its numerics.
        **(measured(compared) if settings.rollout.top_p == 1 else {}),
        **beside,
    }
    return ordered(found)


def as_set(value: Tensor) -> float:
    """A number that was set or computed in the tensor's precision, by the fewest digits that mean it there.

    >>> import torch
    >>> as_set(torch.tensor(0.8)), float(torch.tensor(0.8))
    (0.8, 0.800000011920929)
    """
    return float(str(value.detach().cpu().numpy()[()]))


def _drifts(
    method: Method, control: Control, batch: Batch, main: Rollouts, second: Rollouts | None
) -> dict[str, float | None]:
    """control/*: how far the two parts of the update move H."""
    names = ("control/drift_main", "control/drift_second", "control/authority")
    if not measurable(method):
        return dict.fromkeys(names)
    found = drift(method, batch, main, second)
    values = (float(found.main), float(found.second), float(authority(found, control)))
    return {name: None if math.isnan(value) else value for name, value in zip(names, values, strict=True)}


def ordered(found: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers in the order of `METRICS`.

    Raises:
        ValueError: a number that `METRICS` does not have.
    """
    names = [name for metric in METRICS if metric.stored for name in metric.keys(found)]
    if unknown := sorted(set(found) - set(names)):
        raise ValueError(
            f"the metrics {', '.join(unknown)} are not in aepo.llm.records.metrics.METRICS; add them there"
        )
    return {name: found[name] for name in names}


def table() -> str:
    """The stored metrics as a Markdown table."""
    lines = ["| metric | unit | meaning | console |", "|---|---|---|---|"]
    for metric in METRICS:
        if metric.stored:
            title = "" if metric.column is None else f"`{metric.column.title}`"
            cells = (f"`{metric.name}`", metric.unit, metric.meaning, title)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
