"""From a preset, its variants and what was typed to checked settings; unknown or impossible ones are refused at once.

OmegaConf merges, pydantic checks; all problems are listed together, before any model is built.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from aepo import zoo
from aepo.command import called
from aepo.llm.settings import presets
from aepo.llm.settings.fields import Section, Settings
from aepo.llm.settings.presets import SettingsError
from aepo.schedule import SCHEDULES
from aepo.suggest import did_you_mean

log = logging.getLogger("aepo")


def load(config: str | Path | None, overrides: Sequence[str] = (), *, variants: Sequence[str] = ()) -> Settings:
    """Preset, then its variants, then overrides, checked together.

    Args:
        config: a preset by its name, or a YAML file (`presets.find`); None for the defaults.
        overrides: `section.field=value` each, values in YAML syntax.
        variants: names of variants that the preset offers; see `aepo.llm.settings.presets`.

    Raises:
        SettingsError: a missing or unreadable file, an unknown variant or field (with the nearest known one), a wrong
            value.
    """
    preset = presets.Preset(sections={}, variants={}) if config is None else presets.read(config)
    sections = preset.chosen(variants, merged=_changed)
    try:
        typed = OmegaConf.to_container(OmegaConf.from_dotlist(list(overrides)))
        plain = OmegaConf.to_container(OmegaConf.create(_changed(sections, typed)), resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"overrides {' '.join(overrides)}: {error}") from error
    try:
        return Settings.model_validate(plain)
    except ValidationError as error:
        raise SettingsError("\n".join(_readable(error))) from error


def _changed(sections: Any, changes: Any) -> Any:
    """The sections with some changes, less the options of a method or schedule that another took the place of."""
    found = presets.merged(sections, changes)
    _drop_foreign_options(found, sections, changes)
    return found


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
            hint = did_you_mean(str(problem["loc"][-1]), known) or f"; known: {', '.join(known)}"
            yield f"{place}: unknown field{hint}"
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
    dry_run: bool = False
    """Two steps with a shrunk random model, under `out`/dry_run."""
    trust_checkpoint: bool = False
    """Resume from a checkpoint that holds more than tensors and DeepSpeed's state, and so may run code."""


def parse(argv: Sequence[str], *, default_config: str | None = None, bare: bool = True) -> CommandLine:
    """The command line of the trainer.

    Args:
        argv: arguments after the program's name; DeepSpeed's `--local_rank` is accepted and ignored.
        default_config: preset used when no `--config` is given.
        bare: whether no argument at all, and no default preset, is the settings' defaults.

    Raises:
        SettingsError: as for `load`, an argument that is no `--section.field=value`, or none where one is needed, with
            the presets that there are.
    """
    parser = argparse.ArgumentParser(
        prog=called("deepspeed aepo/llm/train.py"),
        allow_abbrev=False,
        description="Train a language model with verifiable rewards at a chosen entropy.",
        epilog="Any field: --section.field=value.\n\n" + field_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", default=default_config, help="preset by its name, such as demo_cpu, or a YAML file")
    parser.add_argument(
        "--variant",
        default="",
        metavar="NAME[,NAME...]",
        help="variants of the preset, merged over it in its own order",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        choices=("must", "auto"),
        const="must",
        default="no",
        help="go on from the newest whole checkpoint under --out; `auto` starts anew where there is none",
    )
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="resume from a checkpoint that holds more than tensors and DeepSpeed's state: it can run any code of "
        "whoever wrote it",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the run that --out holds")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="two whole steps with a random model of the same architecture, shrunk, under OUT/dry_run",
    )
    parser.add_argument("--local_rank", "--local-rank", help=argparse.SUPPRESS)
    known, rest = parser.parse_known_args(list(argv))
    nothing = parser.parse_args([] if known.local_rank is None else [f"--local_rank={known.local_rank}"])
    if not bare and default_config is None and known == nothing and not rest:
        raise SettingsError(f"name a preset; there are\n{presets.listing()}\nand --help lists every field")
    variants = [name.strip() for name in known.variant.split(",") if name.strip()]
    settings = load(known.config, _dotlist(rest), variants=variants)
    if known.dry_run and known.resume != "no":
        raise SettingsError("--dry-run: starts from a model of its own and resumes nothing; leave --resume out")
    return CommandLine(
        settings=settings,
        resume=known.resume,
        overwrite=known.overwrite,
        dry_run=known.dry_run,
        trust_checkpoint=known.trust_checkpoint,
    )


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
