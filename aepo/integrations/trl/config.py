"""The settings: TRL's, with the method, its target and its controller; and what of TRL's would falsify them."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, get_args

from trl import GRPOConfig

from aepo.controller import Sees
from aepo.method import Method
from aepo.schedule import Constant, Schedule, named
from aepo.zoo import build

CORRECTIONS = ("auto", "none", "truncated")

SAMPLING = "H, the ratio and the controller are about samples of the policy itself at temperature 1"
OBJECTIVE = "the method is the whole objective"
# TRL's options that have to keep their value, with the reason and what to write instead.
FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "temperature": ((1.0,), f"{SAMPLING}; the second branch's temperature is the controller's (method_options)"),
    "top_p": ((1.0,), f"{SAMPLING}, not of a nucleus"),
    "top_k": ((0, -1, None), f"{SAMPLING}, not of its k likeliest tokens"),
    "min_p": ((None, 0.0), f"{SAMPLING}, not of what is likely enough"),
    "repetition_penalty": ((1.0,), f"{SAMPLING}, not of one that avoids what it said"),
    "vllm_structured_outputs_regex": ((None,), f"{SAMPLING}, not of what a pattern allows"),
    "beta": ((0.0,), f"{OBJECTIVE}: a KL to a reference pulls H to the reference's"),
    "use_adaptive_entropy": ((False,), "two controllers would move one entropy; method='adaptive_bonus' is this one's"),
    "entropy_coef": ((0.0,), f"{OBJECTIVE}; method='entropy_reg' with method_options={{'coef': ...}} is a bonus"),
    "top_entropy_quantile": ((1.0,), f"{OBJECTIVE}; method='top_entropy' trains on those tokens"),
    "loss_type": (("grpo",), f"{OBJECTIVE}; method_options={{'average': 'token'}} averages over tokens, as dapo does"),
    "scale_rewards": (("group",), f"{OBJECTIVE}; method_options={{'std': 'none'}} divides by no deviation"),
    "multi_objective_aggregation": (("sum_then_normalize",), f"{OBJECTIVE}, and it takes one reward for a response"),
    "importance_sampling_level": (("token",), f"{OBJECTIVE}, and its ratio is a token's"),
    "epsilon": ((0.2,), f"{OBJECTIVE}; its clip is method_options={{'clip_low': ..., 'clip_high': ...}}"),
    "epsilon_high": ((None,), f"{OBJECTIVE}; its clip is method_options={{'clip_low': ..., 'clip_high': ...}}"),
    "delta": ((None,), f"{OBJECTIVE}; its bound is method_options={{'dual_clip': ...}}"),
    "off_policy_mask_threshold": (
        (None,),
        f"{OBJECTIVE}; correction_sequence_bound leaves out what an engine distorts",
    ),
    "mask_truncated_completions": ((False,), "H is over all responses, and a response without tokens would count as 0"),
    "vllm_importance_sampling_correction": (
        (False,),
        "it compares log-probs at T = 1 with those of a sampler at another temperature and would cancel the second "
        "branch; correction='truncated' compares both at the sampling temperature",
    ),
}
# Keys of TRL's generation_kwargs that do not change which distribution is sampled.
HARMLESS_GENERATION = {"max_new_tokens", "max_tokens", "use_cache", "cache_implementation", "seed", "eos_token_id"}


@dataclass
class AEPOConfig(GRPOConfig):
    """TRL's `GRPOConfig` with a method of the zoo.

    Steps of a schedule are TRL's optimizer steps (`global_step`). TRL's options that the method owns, such as its loss,
    have to keep their defaults, and a ValueError says which and why.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*GRPOConfig._VALID_DICT_FIELDS, "method_options", "target_options"]

    method: str = field(default="aepo", metadata={"help": "Name of a method in aepo.zoo."})
    method_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "The method's own options, such as {'t_low': 0.8, 't_high': 1.2}."}
    )
    target: float | None = field(default=None, metadata={"help": "H*, the entropy to hold, in nats per token."})
    target_schedule: str = field(default="constant", metadata={"help": "Name of a schedule in aepo.schedule."})
    target_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "The schedule's arguments, such as {'start': 1.0, 'end': 0.5, 'steps': 200}."}
    )
    target_relative: bool = field(
        default=False, metadata={"help": "Whether targets are shares of the entropy that the first step measures."}
    )
    sees: str = field(
        default="current",
        metadata={"help": "Which entropy the controller sees: 'current', or 'previous', one generation late."},
    )
    right_by: str | None = field(
        default=None,
        metadata={"help": "Of several reward functions, the one that says which responses are right: above 0."},
    )
    correction: str = field(
        default="auto",
        metadata={"help": "Weights for vLLM's numerics: 'truncated', 'none', or 'auto', which is the first with vLLM."},
    )
    correction_cap: float = field(default=2.0, metadata={"help": "Largest weight of a token; at least 1."})
    correction_sequence_bound: float | None = field(
        default=None,
        metadata={"help": "Responses whose mean ratio is outside [1 / bound, bound] are left out; None keeps all."},
    )
    report_authority: bool = field(
        default=False,
        metadata={"help": "Whether control/drift_* and control/authority are measured: one more forward pass."},
    )
    loss_type: str = field(
        default="grpo", metadata={"help": "Of the evaluation's loss alone: the training's is the method's."}
    )
    vllm_importance_sampling_correction: bool = field(
        default=False, metadata={"help": "TRL's own, which would cancel the second branch; see `correction`."}
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "With dropout H and the ratio would be those of another model in every pass."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if problems := [*self._fixed(), *self._batch(), *self._own()]:
            raise ValueError("; ".join(problems))

    @property
    def corrects(self) -> bool:
        """Whether weights are corrected for the sampler's numerics."""
        return self.correction == "truncated" or (self.correction == "auto" and self.use_vllm)

    @property
    def minibatches(self) -> int:
        """Optimizer steps that a generation is split into, each time that it is gone through."""
        return self.steps_per_generation // self.gradient_accumulation_steps

    def named_method(self) -> Method:
        """The zoo's method of this name with these options."""
        return build(self.method, **(self.method_options or {}))

    def named_target(self) -> Schedule | None:
        """The schedule of the target; None where none is set."""
        if self.target is not None:
            return Constant(self.target)
        return named(self.target_schedule, self.target_options) if self.target_options else None

    def _fixed(self) -> list[str]:
        known = {one.name for one in fields(self)}
        found = [
            f"{name} must be {' or '.join(map(repr, allowed))}, got {getattr(self, name)!r}: {why}"
            for name, (allowed, why) in FIXED.items()
            if name in known and getattr(self, name) not in allowed
        ]
        changed = sorted(set(self.generation_kwargs or {}) - HARMLESS_GENERATION)
        if changed:
            found.append(f"generation_kwargs must not hold {', '.join(changed)}: {SAMPLING}")
        return found

    def _batch(self) -> list[str]:
        found = []
        local = self.per_device_train_batch_size * self.steps_per_generation
        if local % self.num_generations:
            found.append(
                f"num_generations={self.num_generations} must divide per_device_train_batch_size x "
                f"steps_per_generation, which is {local}: a prompt's group must not straddle ranks"
            )
        if self.steps_per_generation % self.gradient_accumulation_steps:
            found.append(
                f"gradient_accumulation_steps={self.gradient_accumulation_steps} must divide steps_per_generation="
                f"{self.steps_per_generation}: an optimizer step is on responses of one generation, of whose entropy "
                "the controller decides"
            )
        return found

    def _own(self) -> list[str]:
        found = []
        if self.sees not in get_args(Sees):
            found.append(f"sees must be one of {', '.join(get_args(Sees))}, got {self.sees!r}")
        if self.correction not in CORRECTIONS:
            found.append(f"correction must be one of {', '.join(CORRECTIONS)}, got {self.correction!r}")
        elif self.correction == "truncated" and not self.use_vllm:
            found.append(
                "correction='truncated' needs use_vllm=True: transformers samples with the trainer's own model"
            )
        if not self.correction_cap >= 1:
            found.append(f"correction_cap must be at least 1, got {self.correction_cap}")
        if self.correction_sequence_bound is not None and not self.correction_sequence_bound > 1:
            found.append(f"correction_sequence_bound must be > 1 or None, got {self.correction_sequence_bound}")
        if self.target is not None and not self.target > 0:
            found.append(f"target must be > 0 nats, got {self.target}")
        if self.target is not None and (self.target_options or self.target_schedule != "constant"):
            found.append(
                f"target={self.target} is constant: leave it out with target_schedule={self.target_schedule!r} and "
                f"target_options={self.target_options}, or leave these out"
            )
        if self.target is None and self.target_schedule != "constant" and not self.target_options:
            found.append(f"target_schedule={self.target_schedule!r} needs target_options")
        for made in (self.named_method, self.named_target):
            try:
                made()
            except (TypeError, ValueError) as error:
                found.append(str(error))
        return found


def refusal(method: Method, target: Schedule | None, *, samples_itself: bool) -> str | None:
    """Why a method cannot run here; None where it can.

    Args:
        method, target: of the run.
        samples_itself: whether a rollout function samples, whose temperature nobody here can set.
    """
    if method.main_temperature is not None:
        return (
            f"method {method.name!r} moves the temperature of the main responses, and TRL samples those at one "
            "temperature, which its own log-probs are taken at; run it with `aepo train`"
        )
    capped = method.tempered is not None and method.tempered.cap_up != method.tempered.cap_down
    if (method.controlled or capped) and target is None:
        return f"method {method.name!r} needs a target: set target, the entropy H* in nats, or target_options"
    if method.tempered is not None and samples_itself:
        return (
            f"method {method.name!r} samples a second branch at the controller's temperature, which a rollout_func "
            "does not hear of; take a method without a second branch, such as 'reweighting', or no rollout_func"
        )
    return None
