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
            "than the controller does; raise method.prompt_fraction or train.prompts_per_step"
        )
    return lines
