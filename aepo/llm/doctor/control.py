"""What the doctor says of a run's controller before anything is sampled: the authority that its limits give it."""

from aepo.authority import FEW_PROMPTS, predicted_authority, sufficient_alpha
from aepo.llm.settings import Settings

SUCCESSES = (0.5, 0.8, 0.95)
"""Shares of right responses that the authority is shown at: it depends on them, and they are not known yet."""


def control_lines(settings: Settings) -> list[str]:
    """Lines on the controller's authority at its limit; none for a method without a controlled second branch."""
    method = settings.method.build()
    tempered = method.tempered
    if tempered is None or not method.controlled:
        return []
    prompts, size = settings.train.prompts_per_step, settings.rollout.group_size
    found = {success: predicted_authority(method, success, group_size=size, prompts=prompts) for success in SUCCESSES}
    shown = ", ".join(f"{value:.2f} at {success:.0%} right responses" for success, value in found.items())
    lines = [
        f"control   {method.name}: authority at its upper limit {shown}; below 1 the entropy of equally likely right "
        "answers cannot be held there"
    ]
    least = min(found.values())
    if least < 1 and tempered.normalizer != "replace":
        lines.append(
            f"          method.alpha={sufficient_alpha(tempered.alpha, least):.2g} would suffice for all of these"
        )
    again, most = tempered.prompt_count(prompts), tempered.most_prompts(prompts)
    if most < FEW_PROMPTS:
        lines.append(
            f"          the second branch asks {again} of {prompts} prompts a step: their luck moves the entropy more "
            f"than the controller does; raise {what_asks_more(settings)}"
        )
    return lines


def what_asks_more(settings: Settings) -> str:
    """The settings by which a second branch asks more prompts, with their values: not the share that is whole already.

    >>> from aepo.llm.settings import load
    >>> what_asks_more(load(None, ["method.name=aepo", "train.prompts_per_step=8"]))
    'method.prompt_fraction (now 0.25) or train.prompts_per_step (now 8)'
    """
    tempered, found = (
        settings.method.build().tempered,
        [f"train.prompts_per_step (now {settings.train.prompts_per_step})"],
    )
    if tempered is not None and tempered.prompt_fraction < 1:
        found.insert(0, f"method.prompt_fraction (now {tempered.prompt_fraction:g})")
    return " or ".join(found)
