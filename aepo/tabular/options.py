"""What the sweep's command line asks for, checked before any work. Imports no torch: `--help` is quick."""

from __future__ import annotations

import dataclasses
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aepo.tabular.settings import ACTIONS, CORRECT, Settings
from aepo.tabular.worlds.environments import ENVIRONMENTS, Environment

if TYPE_CHECKING:
    from aepo.controller import Sees

TARGETS = (0.25, 0.5, 0.75, 1.0)
"""The paper's four targets, in nats (Fig. 1)."""

PRESETS = {"quick": ("bandit", 16), "paper": ("env_a", 16), "arena": ("env_a", 32)}
"""Name -> environment and seeds."""

OVERRIDES = ("alpha", "t_low", "t_high", "normalizer")
"""Options handed to each method that has them; unset, the method's own defaults hold."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line as a value; `None` means the default of whoever owns the number."""

    preset: str = "quick"
    """`quick`: the paper's figures on the bandit. `paper`: its figures and Tables 2 and 3 in miniature on Env A.
    `arena`: every method of the zoo at every target."""
    environment: str | None = None
    """Where: a name of `ENVIRONMENTS`; None takes the preset's."""
    methods: tuple[str, ...] = ()
    """Run exactly these, and draw one figure; empty for the preset's."""
    targets: tuple[float, ...] = TARGETS
    seeds: int | None = None
    """Number of runs of each configuration; the seeds are 0, 1, ...; None is 16, and 32 in the arena."""
    steps: int | None = None
    """None, here and below, takes the environment's."""
    actions: int = ACTIONS
    correct: int = CORRECT
    lr: float | None = None
    alpha: float | None = None
    t_low: float | None = None
    t_high: float | None = None
    normalizer: str | None = None
    sees: str = Settings.sees
    exact: bool = Settings.exact
    group_size: int | None = None
    states_per_step: int | None = None
    minibatches: int | None = None
    floor: bool = True
    """Whether to measure the floor that noise sets to the error of every method with a controller."""
    workers: int = 2
    """Processes, one thread each; the numbers do not depend on it."""
    out: Path = Path("runs/sweep")

    @property
    def where(self) -> Environment:
        """The environment."""
        return ENVIRONMENTS[self.environment or PRESETS[self.preset][0]]

    @property
    def seed_count(self) -> int:
        """Runs of each configuration."""
        return PRESETS[self.preset][1] if self.seeds is None else self.seeds

    @property
    def training(self) -> Settings:
        """How every run trains: the environment's settings with those of the command line."""
        names = ("steps", "lr", "group_size", "states_per_step", "minibatches")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        sees: Sees = "previous" if self.sees == "previous" else "current"
        return dataclasses.replace(self.where.settings, **given, exact=self.exact, sees=sees)

    @property
    def overrides(self) -> dict[str, object]:
        """The method options that were set."""
        return {name: value for name in OVERRIDES if (value := getattr(self, name)) is not None}

    @property
    def command(self) -> str:
        """The command that gives these options, defaults left out."""
        words = ["python", "-m", "aepo.tabular.sweep"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            flag = "--" + field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag.removeprefix('--')}")
            else:
                words += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
        return shlex.join(words)


def problems(options: Options) -> list[str]:
    """Everything wrong with the options, each line naming the option, its value and what is allowed.

    Ranges of a method's options are the method's own: they are asked by building it.
    """
    found = []

    def flag(name: str, message: str) -> None:
        found.append(f"--{name.replace('_', '-')} {message}")

    if options.preset not in PRESETS:
        flag("preset", f"must be one of {', '.join(PRESETS)}, got {options.preset!r}")
    if options.environment is not None and options.environment not in ENVIRONMENTS:
        flag("environment", f"must be one of {', '.join(ENVIRONMENTS)}, got {options.environment!r}")
    if found:
        return found
    bandit = options.where.name == "bandit"
    for name in ("actions", "correct"):
        if not bandit and getattr(options, name) != getattr(Options, name):
            flag(name, f"belongs to the bandit; {options.where.name} has its own")
    for name in ("lr", "alpha", "t_low", "t_high"):
        value = getattr(options, name)
        if value is not None and math.isinf(value):
            flag(name, f"must be a finite number, got {value}")
    for name, least in (("seeds", 1), ("workers", 1), ("actions", 2)):
        value = getattr(options, name)
        if value is not None and value < least:
            flag(name, f"must be at least {least}, got {getattr(options, name)}")
    if not 1 <= options.correct <= options.actions:
        flag("correct", f"must be in [1, K = {options.actions}], got {options.correct}")
    if not options.targets:
        flag("targets", "needs at least one entropy target in nats, got none")
    if options.actions >= 2:
        most = math.log(options.actions) if bandit else options.where.entropy_limit
        for target in options.targets:
            if not 0 < target <= most:
                flag("targets", f"must be in (0, ln K = {most:.4g}] nats, got {target:g}")
    for name in ("targets", "methods"):
        values = getattr(options, name)
        twice = sorted({str(value) for value in values if values.count(value) > 1})
        if twice:
            flag(name, f"must each be given once, got {', '.join(twice)} again")
    # Each value is checked on its own, so that one wrong number does not hide another.
    for name in ("steps", "group_size", "lr", "sees", "states_per_step", "minibatches"):
        if getattr(options, name) is None:
            continue
        try:
            Settings(**{name: getattr(options, name)})
        except ValueError as error:
            flag(name, str(error).removeprefix(name).strip())
    if found:
        return found
    states, there = options.states_per_step, options.where.prompts
    if states is not None and states > there:
        flag("states_per_step", f"must be at most {there}, the prompts of {options.where.name}, got {states}")
    rows = min(there, states or there) * options.training.group_size
    if options.training.minibatches > rows:
        flag("minibatches", f"must be at most {rows}, the responses of a step, got {options.training.minibatches}")
    return found or _method_problems(options)


def _method_problems(options: Options) -> list[str]:
    from aepo.zoo import METHODS, build
    from aepo.zoo import options as zoo_options

    found: dict[str, None] = {}
    unused = set(options.overrides)
    for name in options.methods or ("aepo", "aepo_eq2", "aepo_eq3"):
        if name not in METHODS:
            try:
                build(name)
            except ValueError as error:
                found[f"--methods: {error}"] = None
            continue
        taken = {key: value for key, value in options.overrides.items() if key in zoo_options(name)}
        unused -= set(taken)
        try:
            method = build(name, **taken)
        except ValueError as error:
            # The zoo's messages start with the option's name.
            first, _, rest = str(error).partition(" ")
            found[f"--{first.replace('_', '-')} {rest}"] = None
            continue
        if options.exact and method.tempered is not None and method.tempered.normalizer == "replace":
            found["--normalizer replace swaps sampled rows; with --exact use all or positives"] = None
    if not found:
        for name in sorted(unused):
            owners = sorted(method for method in METHODS if name in zoo_options(method))
            found[
                f"--{name.replace('_', '-')} {options.overrides[name]} is no option of the methods given "
                f"({', '.join(options.methods)}); methods that have it: {', '.join(owners)}"
            ] = None
    return list(found)
