"""In which words a model is asked, and what ends its answers: as typed, or as in the run that trained it."""

import re
from dataclasses import dataclass
from pathlib import Path

from aepo.home_path import at_home
from aepo.llm.evaluation.evaluated_model import Subject
from aepo.llm.evaluation.options import AUTO, Options
from aepo.llm.questions.templates import CHAT
from aepo.llm.settings import DataSettings, Settings, SettingsError, load
from aepo.llm.settings.fields import EndTokens

TEMPLATES = (("qwen2.5-math", "qwen_math"), ("qwen2.5", "qwen"), ("qwen3", "qwen3"))
"""Template by what the model's name contains; the first that fits."""


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How questions become prompts, and where responses end."""

    template: str
    """A name of `aepo.llm.questions.templates.NAMES`."""
    system_prompt: str | None
    """As `aepo.llm.questions.templates.prompter` has it, and so is the next."""
    instruction: str | None
    end_tokens: EndTokens
    reason: str
    """Why this template, for the log."""
    stop: tuple[str, ...] = ()
    """Texts that end a response, too."""
    trained: Settings | None = None
    """Of the run that trained the model; None where no run did."""


def manner_of(options: Options, subject: Subject) -> Manner:
    """What was typed; what was left to us is as in the training run, or else goes with the model's name.

    Raises:
        SettingsError: the training run's settings cannot be read; a system prompt or an instruction for a template that
            has its own.
    """
    file, trained = _training(subject) or (None, None)
    data = DataSettings() if trained is None else trained.data
    template, reason = options.template, "as asked"
    if template == AUTO and file is not None:
        template, reason = data.template, f"as in {file}, of the training"
    elif template == AUTO:
        template, reason = _by_name(subject)
    # The run's words go with the run's template.
    of_run = data if options.template == AUTO else DataSettings()
    for name in ("system_prompt", "instruction"):
        if getattr(options, name) is not None and template != CHAT:
            raise SettingsError(
                f"--{name.replace('_', '-')}: the template {template!r} ({reason}) has its own; leave it out, or add "
                "--template=chat"
            )
    return Manner(
        template=template,
        system_prompt=of_run.system_prompt if options.system_prompt is None else options.system_prompt,
        instruction=of_run.instruction if options.instruction is None else options.instruction,
        end_tokens=data.end_tokens if options.end_tokens == AUTO else options.end_tokens,
        reason=reason,
        stop=options.stop if options.stop is not None else () if trained is None else trained.rollout.stop,
        trained=trained,
    )


def _training(subject: Subject) -> tuple[Path, Settings] | None:
    """The settings of the run that trained the model, and their file; None where no run did."""
    folder = at_home(subject.source)
    # A checkpoint has the settings of its run inside, a run's final/ beside it.
    for file in (folder / "settings.yaml", folder.parent / "settings.yaml"):
        if folder.is_dir() and file.is_file():
            return file, load(file)
    return None


def _by_name(subject: Subject) -> tuple[str, str]:
    """Template and reason."""
    names = [subject.source]
    if Path(subject.source).is_dir():
        # transformers leaves the name of what was fine-tuned in some folders.
        names.append(str(subject.files.read_json("config.json").get("_name_or_path", "")))
    for name in names:
        for part, template in TEMPLATES:
            if part in re.sub(r"[_ ]", "-", name.lower()):
                return template, f"for {part} in the model's name"
    return "plain", "as the model's name is none of Qwen's; --template chooses another"
