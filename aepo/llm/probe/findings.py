"""The figures of a probe, from responses of the model as it is, and what they say of the run in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aepo import zoo
from aepo.authority import FEW_PROMPTS, predicted_authority, sufficient_alpha
from aepo.batch import Rollouts
from aepo.llm.doctor.control import what_asks_more
from aepo.llm.grading import Verdict
from aepo.llm.grading.rewards import troubles
from aepo.llm.records.saturation import FEW_POSITIVES
from aepo.llm.settings import Settings

FEW_MIXED = 0.2
"""Share of groups with both verdicts below which most of a batch teaches nothing."""
LATER = 0.9
"""Share of right responses that training comes to, where the main part is weaker."""
MANY_CUT = 0.1
"""Share of cut responses from which the length limit shapes the task."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was measured; entropies in nats per token, at T = 1."""

    prompts: int
    responses: int
    success: float
    """Share of responses with a reward above 0, by the run's own rules for cut ones."""
    mixed: float
    """Share of groups with a right and a wrong response: the others teach GRPO nothing."""
    solved: float
    """Share of prompts with a right response: pass@G."""
    entropy: float
    right_entropy: float | None
    """The entropy that right answers alone carry, as the model spreads them: minus their mean log-prob given that they
    are right, per token. None where nothing was right."""
    length: tuple[float, float, float]
    """Shortest, mean and longest response, in tokens."""
    ended: float
    """Share of responses that ended by themselves."""
    errors: Mapping[str, int]
    """Verdicts that failed, by kind."""
    reasons: Sequence[str]
    """Of the first verdicts that failed."""


def findings(rollouts: Rollouts, verdicts: Sequence[Verdict], whole: torch.Tensor) -> Findings:
    """The figures of scored responses.

    Args:
        rollouts: scored, whole groups.
        verdicts: on its rows.
        whole: (R,) bool, whether each response ended.
    """
    size = rollouts.group_size
    right = (rollouts.reward if rollouts.right_by is None else rollouts.right_by) > 0
    share = right.double().reshape(-1, size).mean(-1)
    length = rollouts.mask.sum(-1).double()
    failed = [verdict.reason for verdict in verdicts if any(troubles([verdict]).values())]
    return Findings(
        prompts=len(share),
        responses=len(right),
        success=float(right.double().mean()),
        mixed=float(((share > 0) & (share < 1)).double().mean()),
        solved=float((share > 0).double().mean()),
        entropy=float(rollouts.mean_entropy()),
        right_entropy=_right_entropy(rollouts, right, share),
        length=(float(length.min()), float(length.mean()), float(length.max())),
        ended=float(whole.double().mean()),
        errors={name: int(count) for name, count in troubles(verdicts).items()},
        reasons=tuple(dict.fromkeys(failed))[:3],
    )


def _right_entropy(rollouts: Rollouts, right: torch.Tensor, share: torch.Tensor) -> float | None:
    """Mean over prompts of E[-ln pi(y | right)] over its right responses y, per token of these."""
    if not bool(right.any()):
        return None
    logp = torch.where(rollouts.mask != 0, rollouts.scored("old_logp"), 0.0).double().sum(-1)
    given_right = logp - share.repeat_interleave(rollouts.group_size).clamp(min=1e-12).log()
    # A prompt's own estimate of its share may be too small, and no answer has a probability above 1.
    nats = -given_right.clamp(max=0.0)
    tokens = rollouts.mask.sum(-1).double()
    return float(nats[right].sum() / tokens[right].sum())


def advice(found: Findings, settings: Settings) -> list[str]:
    """What the figures mean for learning at all: a sentence each, with its cure; none where nothing is wrong."""
    size, said = settings.rollout.group_size, []
    if any(found.errors.values()):
        kinds = ", ".join(f"{count} {name.removeprefix('reward/')}" for name, count in found.errors.items() if count)
        said.append(f"{kinds} of {found.responses} verdicts, such as {'; '.join(found.reasons)}: mend the reward first")
    if found.mixed < FEW_MIXED:
        easy = found.success > 0.5
        said.append(
            f"only {found.mixed:.0%} of the groups of {size} have both verdicts, and the others teach nothing: "
            f"{'harder' if easy else 'easier'} questions{'' if easy else ', examples in the prompt'}, or a larger "
            f"rollout.group_size (now {size})"
        )
    if 1 - found.ended > MANY_CUT:
        what = "graded as it is" if settings.reward.truncated == "graded" else "worth 0 whatever it says"
        said.append(
            f"{1 - found.ended:.0%} of the responses are cut, and a cut one is {what}: raise "
            f"rollout.max_response_tokens (now {settings.rollout.max_response_tokens}), or let a text end them "
            "(rollout.stop)"
        )
    return said


@dataclass(frozen=True, kw_only=True)
class Push:
    """What the second branch does at its upper limit to the policy as it is, in one batch."""

    authority: float | None
    """Minus its part of the change of H over the main part's; None where the main part raises H by itself."""
    luck: float
    """Standard deviation of both parts' sum over the size of the main part."""
    positives: int
    """Right responses that it rests on."""


def of_the_method(
    found: Findings, settings: Settings, *, target: float | None = None, push: Push | None = None
) -> list[str]:
    """What the figures mean for the run's method and target.

    Args:
        found: of the model as it is.
        settings: of the run.
        target: H* in nats; None for the setting, which may be a share of the first entropy.
        push: None for a method without a second branch that can be measured.
    """
    method = settings.method.build()
    if not method.controlled:
        return [f"{method.name} follows no target: its entropy goes where the rewards take it, mostly down"]
    target = float(settings.target.build()(0)) if target is None else target
    said = []
    if found.right_entropy is not None:
        room = min(found.right_entropy, found.entropy)
        said.append(
            f"targets up to {room:.2f} nats have room: right answers alone carry {found.right_entropy:.2f} as the "
            f"model spreads them, and its entropy is {found.entropy:.2f} now. H* = {target:g} "
            + ("is among them" if target <= room else "asks it to spread them wider, or to give wrong ones")
        )
    if method.tempered is None or not 0 < found.success < 1:
        return said
    prompts, size = settings.train.prompts_per_step, settings.rollout.group_size
    again = method.tempered.prompt_count(prompts)
    if push is not None and push.authority is not None:
        said.append(
            f"authority: pushing up as hard as it may, the second branch moves H {push.authority:.2f} times as far as "
            f"the main part lowers it (one batch, luck {push.luck:.2f}): "
            + ("enough here" if push.authority >= 1 else "too little here" + _more(settings, push.authority))
            + (". It is not asked to before H is down at H*, when more is right" if target < found.entropy else "")
        )
    predicted = predicted_authority(method, found.success, group_size=size, prompts=prompts)
    said.append(
        f"predicted where right answers are equally likely: {predicted:.2f} at {found.success:.0%} right, "
        f"{predicted_authority(method, LATER, group_size=size, prompts=prompts):.2f} at {LATER:.0%}; below 1 that "
        "entropy cannot be held, and lower ones may"
    )
    positives = push.positives if push is not None else round(again * size * found.success)
    if again < FEW_PROMPTS or positives < FEW_POSITIVES:
        said.append(
            f"the second branch rests on {positives} right responses to {again} of {prompts} prompts a step: their "
            f"luck moves the entropy more than the controller does; raise {what_asks_more(settings)}"
            + _cooler(settings, found.success * again * size, positives)
        )
    return said


def _cooler(settings: Settings, expected: float, positives: int) -> str:
    """The other cure, where a high temperature finds less than a quarter of the right responses that T = 1 would."""
    hottest = (settings.method.model_extra or {}).get("t_high", zoo.options(settings.method.name).get("t_high"))
    if hottest is None or hottest <= 1 or positives >= expected / 4:
        return ""
    return f", or lower method.t_high (now {hottest:g}): T = 1 would find about {expected:.0f}"


def _more(settings: Settings, authority: float) -> str:
    tempered = settings.method.build().tempered
    if tempered is None or tempered.normalizer == "replace" or authority <= 0:
        return ""
    return f"; method.alpha={sufficient_alpha(tempered.alpha, authority):.2g} would suffice"


def as_json(found: Findings, step: Mapping[str, Any], push: Push | None, said: Sequence[str]) -> dict[str, Any]:
    """For programs; nan, which JSON has not, is null."""
    plain = {name: getattr(found, name) for name in found.__dataclass_fields__}
    return {
        **plain,
        "errors": dict(found.errors),
        "push": None if push is None else {name: getattr(push, name) for name in push.__dataclass_fields__},
        "seconds_a_step": step["time/step"],
        "step": {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in step.items()},
        "said": list(said),
    }


def rows_of(parts: Sequence[Rollouts]) -> Rollouts:
    """Rollouts of several requests as one."""
    longest = max(part.token.shape[-1] for part in parts)

    def joined(name: str) -> torch.Tensor | None:
        values = [getattr(part, name) for part in parts]
        if any(value is None for value in values):
            return None
        if values[0].dim() > 1:
            values = [torch.nn.functional.pad(value, (0, longest - value.shape[-1])) for value in values]
        return torch.cat(values)

    names = ("prompt", "token", "mask", "reward", "right_by", "old_logp", "entropy")
    return Rollouts(group_size=parts[0].group_size, **{name: joined(name) for name in names})
