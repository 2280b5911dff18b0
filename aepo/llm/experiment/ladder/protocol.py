"""The protocol as it is committed: stages, arms with their settings, evaluations, claims; read and checked at once."""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from aepo import zoo
from aepo.llm.experiment.ladder.claims import Beyond, Claim, Metric
from aepo.llm.experiment.side_by_side import Job
from aepo.llm.settings import Section, Settings, SettingsError, load, plain_yaml, presets
from aepo.suggest import did_you_mean

PROTOCOL = Path(__file__).with_name("protocol.yaml")
"""The one that the committed results are of."""
UNRELATED = ("out", "seed", "log", "watchdog", "checkpoint")
"""Settings that no number of a result depends on, or that its file's name has."""


class Seeds(Section):
    """Consecutive seeds."""

    first: int = Field(ge=0)
    count: int = Field(ge=1)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.first + self.count))


class Stage(Section):
    """Runs that are made in one go."""

    what: str
    seeds: Seeds
    arms: tuple[str, ...] = Field(min_length=1)
    judges: bool = True
    """Whether its seeds are those that claims are judged on; else they choose."""


class Sampled(Section):
    """How each held-out prompt is sampled."""

    temperature: float = Field(gt=0)
    samples: int = Field(ge=1)


class More(Section):
    """What some arms are evaluated by besides."""

    arms: tuple[str, ...]
    top_p: float = Field(gt=0, lt=1)
    """Of a second evaluation at either temperature."""
    samples: int = Field(ge=1)
    """At T = 1 and top-p 1, on `seeds`."""
    seeds: Seeds


class Checkpoints(Section):
    """The evaluations of a run's checkpoints, at T = 1."""

    every: int = Field(ge=1)
    samples: int = Field(ge=1)


class Evaluation(Section):
    """How the last model of every run is evaluated, and what is looked at besides."""

    last_steps: int = Field(ge=1)
    """Of the training, which its last entropy is the mean of."""
    prompts: int = Field(ge=1)
    narrow: Sampled
    whole: Sampled
    more: More
    checkpoints: Checkpoints


class Precision(Section):
    """What is asked of a metric, in points."""

    smallest: float = Field(gt=0)
    """The least difference that would interest."""
    wanted: float = Field(gt=0)
    """Half the width of the 95 % interval."""


class Arm(Section):
    """What is trained over several seeds."""

    label: str
    trained: bool = True
    """Or the model before RL."""
    followed: bool = False
    """Whether its checkpoints are evaluated too."""
    own_defaults: bool = False
    """Whether the method's own defaults stand in place of the preset's options."""
    settings: Mapping[str, Any] = {}
    """Over the preset's; `target.path` is relative to the protocol's folder."""


class Protocol(Section):
    """See the module's first line; `read` makes it."""

    preset: str
    steps: int = Field(ge=2)
    middle_target: float = Field(gt=0)
    stages: Mapping[str, Stage]
    most_seeds: int = Field(ge=1)
    evaluation: Evaluation
    metrics: Mapping[str, Precision]
    alpha: float = Field(gt=0, lt=1)
    claims: tuple[Claim, ...]
    arms: Mapping[str, Arm]
    folder: Path = Path()
    """Where it was read, which the paths of its settings are relative to."""

    @model_validator(mode="after")
    def _stages_fit_the_arms(self) -> "Protocol":
        for name, stage in self.stages.items():
            for arm in stage.arms:
                if arm not in self.arms:
                    raise ValueError(f"stages.{name}.arms: unknown arm {arm!r}{did_you_mean(arm, self.arms)}")
        for arm in self.arms:
            judging = [name for name, stage in self.stages.items() if stage.judges and arm in stage.arms]
            if len(judging) != 1:
                raise ValueError(f"arms.{arm}: must be in one stage that judges, got {', '.join(judging) or 'none'}")
        judging = {stage.seeds.first for stage in self.stages.values() if stage.judges}
        if len(judging) != 1:
            raise ValueError(f"stages: those that judge must begin with the same seed, got {sorted(judging)}")
        choosing = {seed for stage in self.stages.values() if not stage.judges for seed in stage.seeds}
        if both := choosing & set(self.judging(self.most_seeds)):
            raise ValueError(f"stages: the seeds {sorted(both)} choose and judge")
        return self

    @model_validator(mode="after")
    def _claims_fit_the_arms(self) -> "Protocol":
        for number, claim in enumerate(self.claims, 1):
            for test in claim.tests:
                for arm, metric in test.needed():
                    if arm not in self.arms:
                        raise ValueError(f"claim {number}: unknown arm {arm!r}{did_you_mean(arm, self.arms)}")
                    if metric is not None and not self.has(arm, metric):
                        raise ValueError(f"claim {number}: {arm} is not evaluated with as many samples as {metric}")
                for metric in getattr(test, "metrics", ()):
                    if metric not in self.metrics:
                        raise ValueError(f"claim {number}: metrics has no {metric!r}")
                    if isinstance(test, Beyond) and metric != (whole := f"pass@{self.evaluation.whole.samples}"):
                        raise ValueError(f"claim {number}: beyond is of all samples, {whole}, got {metric!r}")
        for arm in self.evaluation.more.arms:
            if arm not in self.arms:
                raise ValueError(f"evaluation.more.arms: unknown arm {arm!r}{did_you_mean(arm, self.arms)}")
        return self

    @cached_property
    def config(self) -> Path:
        """The preset's file."""
        return presets.find(self.folder / self.preset if (self.folder / self.preset).is_file() else self.preset)

    def judging(self, count: int) -> range:
        """The first so many seeds that claims are judged on."""
        first = next(stage.seeds.first for stage in self.stages.values() if stage.judges)
        return range(first, first + count)

    @property
    def choosing(self) -> list[int]:
        """The seeds that choose."""
        return sorted({seed for stage in self.stages.values() if not stage.judges for seed in stage.seeds})

    def stage_of(self, arm: str, seed: int | None = None) -> str:
        """The name of the stage in which an arm is judged, or of the one that chooses by it if that has the seed."""
        judges = seed not in self.choosing
        return next(name for name, stage in self.stages.items() if stage.judges == judges and arm in stage.arms)

    def arm_named(self, name: str) -> str:
        """An arm by its name, or the arm at the middle target by the name without it.

        Raises:
            SettingsError: there is none, with the nearest.
        """
        for known in (name, f"{name}_{self.middle_target:g}"):
            if known in self.arms:
                return known
        raise SettingsError(
            f"--arms: unknown arm {name!r}{did_you_mean(name, self.arms)}; known: {', '.join(self.arms)}"
        )

    def typed(self, arm: str) -> list[str]:
        """`section.field=value` of an arm, over the preset's, without a seed."""
        chosen = self.arms[arm]
        settings = {
            name: self.folder / value if name == "target.path" else value for name, value in chosen.settings.items()
        }
        own = self._own_defaults(str(settings["method.name"])) if chosen.own_defaults else {}
        return [f"{name}={'null' if value is None else value}" for name, value in (own | settings).items()]

    def _own_defaults(self, method: str) -> dict[str, Any]:
        """Of the options that the preset sets, those that a method has, at the method's own defaults."""
        of_preset = load(self.config).method.model_extra or {}
        return {
            f"method.{name}": option.default
            for name, option in inspect.signature(zoo.METHODS[method]).parameters.items()
            if name in of_preset
        }

    def arguments(self, arm: str, seed: int) -> list[str]:
        """`section.field=value` of one run, over the preset's."""
        checkpoints = self.evaluation.checkpoints
        return [
            *self.typed(arm),
            f"seed={seed}",
            f"warm_start.seed={seed}",
            f"train.steps={self.steps}",
            f"checkpoint.every={checkpoints.every}",
            f"checkpoint.keep_last={1 + self.steps // checkpoints.every if self.arms[arm].followed else 2}",
            "evaluation.samples=0",
            "log.samples=0",
            "log.plot_every=0",
        ]

    def settings(self, arm: str, seed: int) -> Settings:
        """The resolved settings of one run.

        Raises:
            SettingsError: settings that cannot be used.
        """
        return load(self.config, self.arguments(arm, seed))

    def job(self, arm: str, seed: int, out: Path) -> Job:
        """One run's training, under `out`."""
        return Job(
            title=f"{self.arms[arm].label}, seed {seed}",
            folder=out / f"{arm}_seed{seed}",
            arguments=tuple(f"--{one}" for one in self.arguments(arm, seed)),
        )

    def usual(self, metric: str) -> bool:
        """Whether every arm is evaluated with enough samples for a metric, on every seed."""
        wanted, chosen = Metric.named(metric), self.evaluation
        most = {chosen.narrow.temperature: chosen.narrow.samples, chosen.whole.temperature: chosen.whole.samples}
        return wanted.k <= most.get(wanted.temperature, 0)

    def has(self, arm: str, metric: str) -> bool:
        """Whether an arm is evaluated with enough samples for a metric, on some seed at least."""
        wanted, chosen = Metric.named(metric), self.evaluation
        more = arm in chosen.more.arms and wanted.temperature == chosen.whole.temperature
        return self.usual(metric) or (more and wanted.k <= chosen.more.samples)

    def evaluated(self, arm: str) -> dict[str, Any]:
        """How an arm is evaluated, as JSON has it."""
        chosen = self.evaluation.model_dump(mode="json")
        more = chosen.pop("more")
        if arm in more.pop("arms"):
            chosen["more"] = more
        if not self.arms[arm].followed:
            del chosen["checkpoints"]
        return chosen

    @cached_property
    def digests(self) -> dict[str, str]:
        """By arm."""
        return {arm: self._digest(arm) for arm in self.arms}

    def _digest(self, arm: str) -> str:
        """Of all that an arm's numbers depend on but its seed and the code: the settings, and how it is evaluated.

        What stands at its default is left out, so that a field which a later version adds changes no digest.
        """
        settings = self.settings(arm, seed=0).model_dump(mode="json", exclude=set(UNRELATED), exclude_defaults=True)
        for name in ("seed", "cache"):
            settings["warm_start"].pop(name, None)
        if not self.arms[arm].trained:
            # A model before RL is the same whatever would be done with it.
            settings = {name: settings.get(name) for name in ("model", "data", "warm_start", "rollout")}
        elif (path := settings.get("target", {}).get("path")) is not None:
            settings["target"]["path"] = Path(path).read_text(encoding="utf-8")
        made_by = {"settings": settings, "evaluation": self.evaluated(arm)}
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path = PROTOCOL) -> Protocol:
    """The protocol of a file.

    Raises:
        SettingsError: no such file, none of YAML, or one that says what cannot be; every problem on a line of its own.
    """
    try:
        found = plain_yaml.loaded(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"protocol {path}: not readable: {error}") from error
    if not isinstance(found, dict):
        raise SettingsError(f"protocol {path}: must hold sections, got {type(found).__name__}")
    try:
        return Protocol.model_validate({**found, "folder": path.parent})
    except ValidationError as error:
        raise SettingsError("\n".join(f"protocol {path}: {said}" for said in _readable(error))) from error


def _readable(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"]))
        said = problem["msg"].removeprefix("Value error, ")
        yield f"{place}: {said}" if place else said
