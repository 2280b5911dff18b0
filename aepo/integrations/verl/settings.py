"""The settings, which stand in verl's policy_loss, where its driver and its workers read them; and what is refused.

verl makes this object of its configuration before anything is loaded, and in every worker again.
"""

# pyright: reportMissingImports=false

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf
from verl.workers.config import PolicyLossConfig

from aepo.controller import Sees
from aepo.method import Method
from aepo.schedule import Constant, Schedule, named
from aepo.zoo import build

NAME = "aepo"
"""Of the loss, of the advantages and of the trainer, in verl's registries."""
SECTION = "actor_rollout_ref.actor.policy_loss"
TARGET = "aepo.integrations.verl.AEPOPolicyLossConfig"


@dataclass
class AEPOPolicyLossConfig(PolicyLossConfig):
    """verl's `PolicyLossConfig` with a method of the zoo, its entropy target and its controller.

    Raises:
        ValueError: an unknown method or option, a method that verl's loss cannot carry, or a target that is missing.
    """

    loss_mode: str = NAME
    method: str = "reweighting"
    """Name of a method in `aepo.zoo`."""
    method_options: dict[str, Any] = field(default_factory=dict)
    """The method's own options, such as {alpha: 4}."""
    target: float | None = None
    """H*, the entropy to hold, in nats per token."""
    target_schedule: str = "constant"
    """Name of a schedule in `aepo.schedule`; its steps are training steps."""
    target_options: dict[str, Any] = field(default_factory=dict)
    """The schedule's arguments, such as {start: 1.0, end: 0.5, steps: 200}."""
    target_relative: bool = False
    """Whether targets are shares of the entropy that the first step measures."""
    sees: Sees = "current"
    """Which entropy the controller sees: that of this step, or `previous`."""

    def __post_init__(self) -> None:
        if problems := self._problems():
            raise ValueError("; ".join(f"{SECTION}.{problem}" for problem in problems))

    def named_method(self) -> Method:
        """The zoo's method of this name with these options."""
        return build(self.method, **self.method_options)

    def named_target(self) -> Schedule | None:
        """The schedule of the target; None where none is set."""
        if self.target is not None:
            return Constant(self.target)
        return named(self.target_schedule, self.target_options) if self.target_options else None

    def _problems(self) -> list[str]:
        found = []
        if self.loss_mode != NAME:
            found.append(f"loss_mode must be {NAME} beside method={self.method}, got {self.loss_mode!r}")
        if self.sees not in get_args(Sees):
            found.append(f"sees must be one of {', '.join(get_args(Sees))}, got {self.sees!r}")
        if not isinstance(self.target_relative, bool):
            found.append(f"target_relative must be true or false, got {self.target_relative!r}")
        if not (self.target is None or _positive(self.target)):
            found.append(f"target must be a number > 0, in nats, got {self.target!r}")
        elif self.target is not None and (self.target_options or self.target_schedule != "constant"):
            found.append(
                f"target={self.target} is constant: leave it out beside target_schedule={self.target_schedule} and "
                f"target_options={self.target_options}, or leave these out"
            )
        elif problem := self._schedule_problem():
            found.append(problem)
        try:
            method = self.named_method()
        except (TypeError, ValueError) as error:
            return [*found, f"method={self.method}, method_options={self.method_options}: {error}"]
        if reason := refusal(method):
            found.append(f"method={self.method} cannot run inside verl: {reason}")
        if method.controlled and self.target is None and not self.target_options:
            found.append(
                f"target is missing: method={self.method} holds an entropy; set target, in nats, or target_schedule "
                "and target_options"
            )
        return found

    def _schedule_problem(self) -> str | None:
        if self.target is not None:
            return None
        if not self.target_options:
            return (
                None
                if self.target_schedule == "constant"
                else f"target_schedule={self.target_schedule} needs "
                + ("target_options, such as {start: 1.0, end: 0.5, steps: 200}")
            )
        chosen = f"target_schedule={self.target_schedule}, target_options={self.target_options}"
        try:
            level = named(self.target_schedule, self.target_options)(0)
        except (TypeError, ValueError) as error:
            return f"{chosen}: {error}"
        return None if _positive(level) else f"{chosen}: the target must be > 0 nats at step 0, got {level!r}"


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def refusal(method: Method) -> str | None:
    """Why verl cannot carry a method; None where it can.

    verl's policy loss is shown the log-probs before and now, one number a token (the advantage) and the mask.
    """
    if method.tempered is not None:
        return (
            "it samples a second branch at the controller's temperature, and verl's rollouts have one temperature; "
            "take a method without a second branch, such as reweighting, or run it with aepo's own trainer"
        )
    if method.main_temperature is not None:
        return (
            "it moves the temperature of the rollouts, which verl's samplers read once, and at which verl takes its "
            "own log-probs; run it with aepo's own trainer"
        )
    if method.has_bonus:
        return (
            "its entropy bonus has a weight per token, which verl's loss is not shown; take a method that acts through "
            "the advantages, such as repo_r or reweighting, or run it with aepo's own trainer"
        )
    if method.mark is not None:
        return (
            "it marks tokens that its loss treats apart, and verl's loss is not shown the marks; run it with aepo's "
            "own trainer"
        )
    if method.compares_entropy:
        return (
            "it compares a token's entropy before and after the update, and verl's loss is shown neither; run it with "
            "aepo's own trainer"
        )
    if method.needs_mean_effect:
        return (
            "it needs a mean over the whole distribution of every token, which verl's scoring pass does not give; run "
            "it with aepo's own trainer"
        )
    return None


SAMPLING = "the entropy, the ratio and the controller are about samples of the policy itself at temperature 1"
OBJECTIVE = "the method is the whole objective"
CLIP = f"{OBJECTIVE}, and its clip is method_options={{clip_low: ..., clip_high: ..., dual_clip: ...}}"

# verl's settings that have to have one of these values, with the reason and what to set instead.
FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "trainer.v1.trainer_mode": ((NAME,), "this trainer holds the controller and gives it the entropy"),
    "algorithm.adv_estimator": ((NAME,), "the method's weights and advantages are this estimator's"),
    f"{SECTION}._target_": ((TARGET,), "it holds the method and its target, and the workers read them there"),
    f"{SECTION}.loss_mode": ((NAME,), "the method's loss is this one"),
    "actor_rollout_ref.actor.loss_agg_mode": (
        ("token-sum",),
        "every mean is in the method's weights already, and another mode would divide once more; means over tokens are "
        "method_options={average: token}",
    ),
    "actor_rollout_ref.rollout.temperature": ((1,), SAMPLING),
    "actor_rollout_ref.rollout.top_p": ((1,), f"{SAMPLING}, not of a nucleus"),
    "actor_rollout_ref.rollout.top_k": ((-1, 0, None), f"{SAMPLING}, not of its k likeliest tokens"),
    "actor_rollout_ref.rollout.do_sample": ((True, None), f"{SAMPLING}, not its likeliest tokens"),
    "actor_rollout_ref.actor.entropy_coeff": (
        (0, None),
        f"{OBJECTIVE}, and a bonus beside it pushes the entropy without the controller's knowing",
    ),
    "actor_rollout_ref.actor.use_kl_loss": (
        (False, None),
        f"{OBJECTIVE}, and a KL to a reference pulls the entropy to the reference's",
    ),
    "algorithm.use_kl_in_reward": (
        (False, None),
        f"{OBJECTIVE}, and a KL in the reward makes wrong responses right and pulls the entropy to the reference's",
    ),
    "algorithm.norm_adv_by_std_in_grpo": (
        (True, None),
        f"{OBJECTIVE}; method_options={{std: none}} divides by no deviation",
    ),
    "algorithm.filter_groups.enable": (
        (False, None),
        "the entropy would be that of the prompts that are neither all right nor all wrong",
    ),
    "algorithm.rollout_correction.bypass_mode": (
        (False, None),
        "it takes the sampler's log-probs for the policy's, and no pass measures the entropy",
    ),
    "algorithm.rollout_correction.rollout_rs": (
        (None,),
        "it cuts tokens out of the mask before the means and the entropy are taken; rollout_is=token corrects by "
        "weights",
    ),
    "actor_rollout_ref.actor.clip_ratio": ((0.2, None), CLIP),
    "actor_rollout_ref.actor.clip_ratio_low": ((0.2, None), CLIP),
    "actor_rollout_ref.actor.clip_ratio_high": ((0.2, None), CLIP),
    "actor_rollout_ref.actor.clip_ratio_c": ((3.0, None), CLIP),
    "trainer.critic_warmup": ((0, None), "the controller would turn while the policy stands still"),
    "distillation.enabled": ((False, None), f"{OBJECTIVE}, and a distillation's loss replaces or adds to it"),
}


def problems(config: DictConfig | Mapping[str, Any]) -> list[str]:
    """What of verl's whole configuration would falsify the entropy or the method, each with the reason and the cure.

    Args:
        config: verl's, as its trainer gets it.
    """
    config = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    found = []
    for path, (allowed, why) in FIXED.items():
        value = OmegaConf.select(config, path)
        if not any(value is one or (one is not None and value == one) for one in allowed):
            wanted = " or ".join("null" if one is None else str(one) for one in allowed[:1])
            found.append(f"{path} must be {wanted}, got {value!r}: {why}")
    return found
