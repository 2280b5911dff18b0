"""From a preset, its variants and what was typed to checked settings; unknown or impossible ones are refused at once.

pydantic checks; all problems are listed together, before any model is built.
"""

import argparse
import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from aepo import zoo
from aepo.command import called
from aepo.llm.settings import presets
from aepo.llm.settings.arguments import parted
from aepo.llm.settings.fields import OPTION_KINDS, Section, Settings
from aepo.llm.settings.kinds import OptionsError, shown, typed_value
from aepo.llm.settings.presets import SettingsError
from aepo.schedule import SCHEDULES
from aepo.suggest import did_you_mean, nearest

log = logging.getLogger("aepo")


def load(config: str | Path | None, overrides: Sequence[str] = (), *, variants: Sequence[str] = ()) -> Settings:
    """Preset, then its variants, then overrides, checked together.

    Args:
        config: a preset by its name, or a YAML file (`presets.find`); None for the defaults.
        overrides: `section.field=value` each, as `aepo.llm.settings.kinds` reads them; of equal fields the last counts.
        variants: names of variants that the preset offers; see `aepo.llm.settings.presets`.

    Raises:
        SettingsError: a missing or unreadable file, an unknown variant or field (with the nearest known one), a wrong
            value.
    """
    preset = presets.Preset(sections={}, variants={}) if config is None else presets.read(config)
    sections = preset.chosen(variants, merged=_changed)
    typed: dict[str, Any] = {}
    for override in overrides:
        field, _, text = override.partition("=")
        typed = presets.merged(typed, _nested(field, text))
    try:
        return Settings.model_validate(_changed(sections, typed))
    except ValidationError as error:
        raise SettingsError("\n".join(_readable(error))) from error


def _nested(field: str, text: str) -> dict[str, Any]:
    """The sections that hold one field, as it was typed."""
    path = field.split(".")
    try:
        value: Any = typed_value(_kind(path), text)
    except ValueError as error:
        raise SettingsError(f"{field}: {error}") from error
    if value is None and len(path) == 1 and path[0] in Settings.model_fields and _is_section(_kind(path)):
        value = text
    for name in reversed(path):
        value = {name: value}
    return value


def _kind(path: Sequence[str]) -> Any:
    """The annotation of a field, a method's or schedule's option included; a mapping's for what there is not."""
    section: Any = Settings
    for depth, name in enumerate(path):
        if not _is_section(section):
            return dict
        own, options = section.model_fields, OPTION_KINDS.get(path[0], {}) if depth == 1 else {}
        if name not in own and name not in options:
            return dict
        section = own[name].annotation if name in own else options[name]
    return section


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


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
        known = isinstance(name, str) and (name in zoo.METHODS or name in SCHEDULES)
        if not known or name == before.get(key, default):
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
        cause = problem.get("ctx", {}).get("error")
        if problem["type"] == "extra_forbidden":
            yield f"{place}: unknown field{_hint(problem['loc'])}"
        elif problem["type"] == "model_type":
            yield f"{place}: is a section; write --{place}.FIELD=VALUE, got {shown(problem['input'])}"
        elif isinstance(cause, OptionsError):
            yield from (f"{place}.{name}: {said}" for name, said in cause.problems.items())
        else:
            message = problem["msg"].removeprefix("Value error, ")
            # That of a rule between fields is the whole section.
            whole = problem["type"] == "value_error" and isinstance(problem["input"], dict | BaseModel)
            got = "" if whole else f", got {shown(problem['input'])}"
            yield f"{place}: {message}{got}"


def _hint(path: tuple[int | str, ...]) -> str:
    """What may have been meant by an unknown field: a name of its section, or this name in another section."""
    section: Any = Settings
    for part in path[:-1]:
        section = section.model_fields[str(part)].annotation
    known, name = list(section.model_fields), str(path[-1])
    elsewhere = [
        f"{other}.{name}"
        for other, field in Settings.model_fields.items()
        if _is_section(field.annotation) and name in field.annotation.model_fields
    ]
    if section is Settings and elsewhere:
        return f"; did you mean {' or '.join(map(repr, elsewhere))}?"
    return did_you_mean(name, known) or f"; known: {', '.join(known)}"


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


RESUME = ("must", "auto")
ALONE = ("overwrite", "dry-run", "trust-checkpoint")
OWN = ("config", "variant", "resume", *ALONE, "local_rank")
"""The trainer's options that are no fields; DeepSpeed's `--local_rank` is accepted and ignored."""


def divided(argv: Sequence[str], *, own: Collection[str]) -> tuple[list[str], list[str]]:
    """Options of a command's own, --help among them, and those of the trainer, each to the letter.

    Raises:
        SettingsError: an argument of another form.

    >>> divided(["--gpus", "2", "--seed=1", "--help"], own=["gpus"])
    (['--gpus=2', '--help'], ['--seed=1'])
    """
    mine, rest = [], []
    for name, value in parted(argv, alone=ALONE, optional=("resume",)):
        (mine if name in (*own, "help") else rest).append(f"--{name}" if value is None else f"--{name}={value}")
    return mine, rest


def parse(argv: Sequence[str], *, default_config: str | None = None, bare: bool = True) -> CommandLine:
    """The command line of the trainer; of options that are given twice the last counts.

    Args:
        argv: arguments after the program's name.
        default_config: preset used when no `--config` is given.
        bare: whether no argument at all, and no default preset, is the settings' defaults.

    Raises:
        SettingsError: as for `load`, an argument that is no `--section.field=value`, or none where one is needed, with
            the presets that there are.
    """
    own: dict[str, str | None] = {}
    fields = []
    for name, value in parted(argv, alone=ALONE, optional=("resume",)):
        if name == "help":
            _parser().parse_args(["--help"])
        name = "local_rank" if name == "local-rank" else name
        if name in OWN:
            own[name] = value
        elif "." not in name and name not in Settings.model_fields and (near := nearest(name, OWN)):
            raise SettingsError(f"argument --{name}: unknown option; did you mean --{near}?")
        else:
            fields.append(f"{name}={value}")
    if not bare and default_config is None and not own.keys() - {"local_rank"} and not fields:
        raise SettingsError(f"name a preset; there are\n{presets.listing()}\nand --help lists every field")
    resume = "no"
    if "resume" in own:
        resume = "must" if own["resume"] is None else own["resume"]
        if resume not in RESUME:
            raise SettingsError(f"argument --resume: takes must, auto or no value, got {resume!r}")
    if "dry-run" in own and resume != "no":
        raise SettingsError("--dry-run: starts from a model of its own and resumes nothing; leave --resume out")
    variants = [name.strip() for name in (own.get("variant") or "").split(",") if name.strip()]
    return CommandLine(
        settings=load(own.get("config", default_config), fields, variants=variants),
        resume=resume,
        overwrite="overwrite" in own,
        dry_run="dry-run" in own,
        trust_checkpoint="trust-checkpoint" in own,
    )


HELP = """\
Any field: --section.field=value, or --section.field value. A text is taken to the letter; numbers and lists are YAML.
null or None unsets what may be unset (None below); an empty text does too, but for a part of a prompt
(data.system_prompt, data.instruction), where it is the empty text. Of options that are given twice the last counts.
"""


def _parser() -> argparse.ArgumentParser:
    """For the page of --help."""
    parser = argparse.ArgumentParser(
        prog=called("deepspeed aepo/llm/train.py"),
        description="Train a language model with verifiable rewards at a chosen entropy.",
        epilog=f"{HELP}\n{field_help()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="preset by its name, such as demo_cpu, or a YAML file")
    parser.add_argument("--variant", metavar="NAME[,NAME...]", help="variants of the preset, merged in its own order")
    parser.add_argument(
        "--resume",
        nargs="?",
        choices=RESUME,
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
    return parser


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
