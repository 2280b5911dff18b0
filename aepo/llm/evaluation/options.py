"""What is typed after `python -m aepo.llm.evaluation`, checked before anything is read, and the paper's protocol.

Every problem is one line that names the option, the value met and the cure.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from aepo.command import called
from aepo.llm.evaluation.suite import BENCHMARKS, Protocol
from aepo.llm.questions.files import SUFFIXES
from aepo.llm.questions.number_task import RESPONSE_TOKENS
from aepo.llm.settings import Section, SettingsError
from aepo.llm.settings.arguments import parted
from aepo.llm.settings.fields import BUILT_IN, EndTokens, EngineName, stop_texts
from aepo.llm.settings.kinds import Words, shown, typed_value
from aepo.suggest import did_you_mean, nearest

PAPER = "paper"
"""The suite of the seven benchmarks."""
PROTOCOLS = {name: benchmark.protocol for name, benchmark in BENCHMARKS.items()} | {
    # As AIME is, and pass@256 of the experiment in small.
    name: Protocol(samples=32, pass_ks=(256,), max_new_tokens=RESPONSE_TOKENS)
    for name in BUILT_IN
}
"""How each set is sampled by default."""
OF_A_FILE = Protocol(samples=16, pass_ks=(16,), top_p=1.0)
"""How a file of one's own is sampled: at top-p 1, where T = 1 is what a run's own evaluation measures."""
MODES = ("pass@1", "pass@k")
AUTO = "auto"
"""What is left to `aepo.llm.evaluation.prompting`."""
# Of sets that the paper's Table 2 leaves out, for whoever asks for their pass@k: as Minerva's and OlympiadBench's.
OTHER_SAMPLES = 128


class Options(Section):
    """One evaluation."""

    model: str
    """Folder (such as a run's final/) or hub id of a transformers causal LM with its tokenizer, or a run's checkpoint
    (checkpoints/step_N), whose weights are then put into a model under `out`."""
    suite: str = PAPER
    """`paper`, the seven benchmarks; `walk` or `ladder` (also `ladder_easy`, `ladder_single`), the held-out prompts of
    a built-in task; names with commas between them, of these and of aime24, aime25, amc23, gsm8k, math500, minerva,
    olympiadbench; or a .jsonl, .json or .parquet file of questions and answers, by itself."""
    reward: str | None = None
    """Of a file of one's own, as the trainer's reward.function; None: that of the run that trained the model, or else
    whether the final answer is the reference."""
    question_column: str | None = None
    """Of such a file, as the trainer's data.question_column; None: that of the run, or else the usual names."""
    answer_column: str | None = None
    stop: tuple[str, ...] | None = None
    """As the trainer's rollout.stop; None: those of the run that trained the model."""
    data: str = "data/math"
    """Folder of the benchmarks' files, as their publishers ship them."""
    out: str = "runs/evaluation"
    """Folder of the results. The same command goes on there with what an ended evaluation has left undone."""
    engine: EngineName = "embedded"
    """`embedded`: a KV-cached sampler over the model itself, the same bits however the work is split. `vllm`: vLLM in
    this process, beside the model that scores."""
    mode: Literal["pass@1", "pass@k", "paper"] = "paper"
    """`pass@1`: temperature 0.1, 32 samples on AIME and AMC and one elsewhere. `pass@k`: temperature 1, 1024 samples on
    AIME, 128 elsewhere. `paper`: pass@1 on all of the suite, pass@k on the sets of its Table 2."""
    samples: int | None = Field(None, ge=1)
    """Per problem, of every set and mode: the n of avg@n and pass@k; None: the paper's. It may grow when an evaluation
    goes on."""
    k: tuple[int, ...] = ()
    """More k of pass@k, with commas between them, beside the powers of two up to n, and n."""
    rows: int | None = Field(None, ge=1)
    """Only the first so many problems of each set."""
    max_tokens: int | None = Field(None, ge=1)
    """Longest response, the end token included; None: 8192, for a built-in task 5."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Each token is drawn from the nucleus of this mass; None: 0.95."""
    temperature: float | None = Field(None, gt=0)
    """Of every mode; None: 0.1 for pass@1, 1 for pass@k."""
    template: str = AUTO
    """As the trainer's data.template: plain, qwen_math, qwen, qwen3 or chat. `auto`: that of the run that trained the
    model, or else the one that goes with its name, or else plain."""
    system_prompt: Words = None
    """With `chat` only; None: that of the run whose template `auto` took, or else that of the tokenizer's template."""
    instruction: Words = None
    """With `chat` only: put right behind the question, separator included; None: that of the run whose template `auto`
    took, or else what asks for steps and a boxed answer."""
    end_tokens: EndTokens | Literal["auto"] = "auto"
    """As the trainer's data.end_tokens. `model`: the model's own end tokens. `turn`: also the template's <|im_end|>, as
    Qwen's own evaluation does. `auto`: that of the run that trained the model, or else `turn`."""
    seed: int = 0
    label: str | None = None
    """What tables call this model; None: its name."""
    step: int | None = Field(None, ge=0)
    """Training step of the model, for curves over a run's checkpoints, which tell theirs."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the weights; `auto`: as they were saved."""
    rows_at_once: int = Field(256, ge=1)
    """Responses sampled and scored side by side; bounds the memory of the embedded engine."""
    samples_per_call: int = Field(1024, ge=1)
    """Responses asked of the engine in one go, judged and written to disk together; what a kill can cost."""
    micro_batch_tokens: int = Field(16384, ge=1)
    """Most tokens (padding included) of one scoring pass."""
    workers: int = Field(2, ge=1)
    """Processes per rank that judge answers."""
    deadline_seconds: float = Field(5.0, gt=0)
    """For judging one answer; one that takes longer is wrong, and counted as a timeout."""
    kv_cache_gib: int = Field(1, ge=1)
    """vLLM on a CPU: size of the KV cache."""
    gpu_memory_utilization: float = Field(0.6, gt=0, lt=1)
    """vLLM on a GPU: share of the whole memory for its weights and KV cache, beside the model that scores."""
    trust_checkpoint: bool = False
    """Load a checkpoint that holds more than tensors and DeepSpeed's state: it can run any code of whoever wrote it."""

    @field_validator("stop", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return stop_texts(value)

    @field_validator("k", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.own_file is None:
            for name in ("reward", "question_column", "answer_column"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name.replace('_', '-')}: is of a file of one's own, got --suite={self.suite}")
        self.benchmarks  # noqa: B018 - unknown names show here
        self.measurements  # noqa: B018 - and so does an n that is too small
        return self

    @property
    def own_file(self) -> str | None:
        """The file that the suite is; None where it is names."""
        return self.suite if self.suite.lower().endswith(SUFFIXES) else None

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """Names of the suite's sets; a file's own name for one.

        Raises:
            ValueError: unknown, repeated or no names.
        """
        if self.own_file is not None:
            return (Path(self.own_file).name,)
        names = [name.strip().lower() for name in self.suite.split(",") if name.strip()]
        names = [one for name in names for one in (BENCHMARKS if name == PAPER else (name,))]
        known = (*PROTOCOLS, PAPER)
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"suite: there is no benchmark {name!r}; known: {', '.join(known)}{hint}")
        if not names:
            raise ValueError(f"suite: names no benchmark; known: {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError(f"suite: names a benchmark twice, got {self.suite!r}; leave one out")
        return tuple(names)

    @property
    def measurements(self) -> tuple["Measurement", ...]:
        """What is asked of each set, sorted by set and mode.

        Raises:
            ValueError: a k above n.
        """
        wanted = [(name, mode) for name in self.benchmarks for mode in self._modes(name)]
        return tuple(self._of(name, mode) for name, mode in sorted(wanted))

    def _modes(self, benchmark: str) -> tuple[str, ...]:
        if self.mode != "paper":
            return (self.mode,)
        return MODES if PROTOCOLS.get(benchmark, OF_A_FILE).pass_ks else MODES[:1]

    def _of(self, benchmark: str, mode: str) -> "Measurement":
        paper, explores = PROTOCOLS.get(benchmark, OF_A_FILE), mode == "pass@k"
        n = self.samples or (max(paper.pass_ks, default=OTHER_SAMPLES) if explores else paper.samples)
        # Where every mode has its own n, a k beyond that of pass@1 is meant for pass@k.
        bad = [k for k in self.k if k < 1 or (k > n and (explores or self.samples is not None))]
        if bad:
            has = f"--samples={n}" if self.samples is not None else f"{benchmark} {mode} has n={n}"
            raise ValueError(f"k: pass@{bad[0]} needs 1 <= k <= n, and {has}; raise --samples or lower --k")
        temperature = paper.pass_temperature if explores else paper.temperature
        return Measurement(
            benchmark=benchmark,
            mode=mode,
            n=n,
            temperature=self.temperature or temperature,
            top_p=self.top_p or paper.top_p,
            max_tokens=self.max_tokens or paper.max_new_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How one set is sampled in one mode."""

    benchmark: str
    mode: str
    n: int
    """Samples per problem."""
    temperature: float
    top_p: float
    max_tokens: int

    @property
    def name(self) -> str:
        """Such as aime24 pass@1."""
        return f"{self.benchmark} {self.mode}"


def parse(argv: Sequence[str]) -> Options:
    """The command line: `--name=value` or `--name value`; DeepSpeed's `--local_rank` is accepted and ignored.

    Values are read as the trainer's are (`aepo.llm.settings.kinds`); of options that are given twice the last counts.

    Raises:
        SettingsError: an unknown option (with the nearest known one) or value; one line.
    """
    fields = Options.model_fields
    # What is true or false may be named alone.
    flags = [name for name, field in fields.items() if field.annotation is bool]
    typed: dict[str, Any] = {}
    texts: dict[str, str | None] = {}
    for option, value in parted(argv, optional=[*flags, *map(_spelled, flags)]):
        name = option.replace("-", "_")
        if name == "help":
            _parser().parse_args(["--help"])
        elif name in fields:
            try:
                texts[name], typed[name] = value, value is None or _value(name, value)
            except ValueError as error:
                raise SettingsError(f"--{_spelled(name)}: {error}") from error
        elif name != "local_rank":
            near = nearest(_spelled(name), map(_spelled, fields))
            hint = f"did you mean --{near}?" if near else "--help lists every option"
            raise SettingsError(f"unknown argument {shown(f'--{option}={value}')}; {hint}")
    try:
        return Options.model_validate(typed)
    except ValidationError as error:
        raise SettingsError("; ".join(_readable(problem, texts) for problem in error.errors())) from error


def _value(name: str, text: str) -> Any:
    # A list here is numbers with commas between.
    return text if name == "k" else typed_value(Options.model_fields[name].annotation, text)


def _spelled(name: str) -> str:
    return name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    """For the page of --help."""
    parser = argparse.ArgumentParser(
        prog=called("python -m aepo.llm.evaluation"),
        description="Evaluate a model as the paper does; `report RUN...` makes tables and figures of finished runs.",
        epilog="A text is taken to the letter. null or None unsets what may be unset (None below); an empty text does "
        "too, but for --system-prompt and --instruction. Of options that are given twice the last counts.",
    )
    for name, info in Options.model_fields.items():
        meaning = " ".join((info.description or "").split()).replace("%", "%%")
        default = "required" if info.is_required() else f"default: {info.default}"
        alone = {"nargs": "?"} if info.annotation is bool else {}
        parser.add_argument(f"--{_spelled(name)}", metavar="VALUE", help=f"{meaning} ({default})".strip(), **alone)
    return parser


def _readable(problem: Any, texts: Mapping[str, str | None]) -> str:
    """The problem in a line, with the value as it was typed."""
    field = str(problem["loc"][0]) if problem["loc"] else ""
    name = _spelled(field)
    if problem["type"] == "missing":
        return f"--{name} is missing; name a folder or a hub id"
    message = problem["msg"].removeprefix("Value error, ")
    if not name:
        option, colon, rest = message.partition(": ")
        return f"--{option}{colon}{rest}"
    return f"--{name}: {message}, got {shown(texts.get(field))}"
