"""Every setting of a run, and how it is read from presets and the command line."""

from aepo.llm.settings.fields import (
    CheckpointSettings,
    ControllerSettings,
    DataSettings,
    EndTokens,
    EvaluationSettings,
    LoggingSettings,
    MethodSettings,
    ModelSettings,
    RewardSettings,
    RolloutSettings,
    Section,
    Settings,
    TargetSettings,
    TrainSettings,
    WarmStartSettings,
    WatchdogSettings,
)
from aepo.llm.settings.parsing import CommandLine, field_help, load, parse
from aepo.llm.settings.presets import SettingsError

__all__ = [
    "CheckpointSettings",
    "CommandLine",
    "ControllerSettings",
    "DataSettings",
    "EndTokens",
    "EvaluationSettings",
    "LoggingSettings",
    "MethodSettings",
    "ModelSettings",
    "RewardSettings",
    "RolloutSettings",
    "Section",
    "Settings",
    "SettingsError",
    "TargetSettings",
    "TrainSettings",
    "WarmStartSettings",
    "WatchdogSettings",
    "field_help",
    "load",
    "parse",
]
