"""The distribution's extras: what each brings, and how a command says that one is missing."""

import importlib.util
import sys

from aepo.errors import UNUSABLE

DISTRIBUTION = "aepo-rl"
"""The name on the package index, where `aepo` is another project."""
SIM = ("matplotlib", "pandas", "pyarrow", "rich", "typer")
LLM = ("datasets", "deepspeed", "math_verify", "pydantic", "tensorboard", "transformers")
TRL = ("peft", "trl")
BRINGS = {"sim": SIM, "llm": (*LLM, *SIM), "trl": TRL}
"""Extra -> the packages, by the names they are imported under, that a command of it looks for before it starts,
and the integration in a trainer of that name when it is imported."""


def install(extra: str) -> str:
    """The command that installs an extra.

    >>> install("sim")
    "pip install 'aepo-rl[sim]'"
    """
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing(extra: str) -> list[str]:
    """Packages of an extra that are not installed; none is imported."""
    found = {name: importlib.util.find_spec(name) for name in BRINGS[extra]}
    # A folder of that name in the working directory, such as `datasets`, is no package: it has no origin.
    return [name for name, spec in found.items() if spec is None or spec.origin is None]


def require(extra: str) -> None:
    """Nothing, if an extra is installed; to be called before the imports that need it, where a module is a command.

    Raises:
        SystemExit: code 2, after one line on stderr that names the packages and the extra.
    """
    if absent := missing(extra):
        print(f"error: this command needs {', '.join(absent)}: {install(extra)}", file=sys.stderr, flush=True)
        raise SystemExit(UNUSABLE)
