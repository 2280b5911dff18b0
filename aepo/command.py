"""The command `aepo`: the commands of every world under one name. Imports no world: it starts modules by their names.

aepo sweep --preset paper
"""

import argparse
import runpy
import sys
from dataclasses import dataclass

import aepo
from aepo import extras
from aepo.suggest import did_you_mean


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command."""

    module: str
    """Run as `python -m` runs it."""
    description: str
    """One line for the list."""
    extra: str | None = None
    """Which the module looks for by itself; None for the base install."""
    before: tuple[str, ...] = ()
    """Arguments that stand before those that were typed."""


COMMANDS = {
    "sweep": Command(
        module="aepo.tabular.sweep", extra="sim", description="simulate: entropy curves of every method, in minutes"
    ),
    "train": Command(
        module="aepo.llm.processes.launch", extra="llm", description="train a language model, on one or several GPUs"
    ),
    "probe": Command(
        module="aepo.llm.probe",
        extra="llm",
        description="a task before any training: what is right, what has room",
    ),
    "model": Command(
        module="aepo.llm.model",
        extra="llm",
        description="bring a small model into a folder, or make one of a GGUF file",
    ),
    "show": Command(
        module="aepo.llm.records.show",
        extra="sim",
        description="a run's responses, the tokens of high entropy coloured",
    ),
    "evaluate": Command(
        module="aepo.llm.evaluation", extra="llm", description="sample a model on benchmarks: avg@k and pass@k"
    ),
    "report": Command(
        module="aepo.llm.evaluation", extra="llm", before=("report",), description="tables and figures of evaluations"
    ),
    "doctor": Command(
        module="aepo.llm.doctor", extra="llm", description="what a run needs, before it starts: memory, versions"
    ),
    "demo": Command(
        module="aepo.llm.demo", extra="llm", description="GRPO against AEPO with a tiny model on the CPU, and a picture"
    ),
    "experiment": Command(
        module="aepo.llm.experiment",
        extra="llm",
        description="the paper's experiment, small: train, evaluate, report",
    ),
    # Without an extra: it names what is missing beside what it leaves out for it.
    "gpu-check": Command(module="aepo.llm.gpu_check", description="what works on this machine's GPUs, and how fast"),
}
"""Name -> command, in the order in which they are listed."""


def listing() -> str:
    """Every command with its line and its extra."""
    wide = max(map(len, COMMANDS))
    return "\n".join(
        f"  {name:{wide}}  {command.description}" + (f" [{command.extra}]" if command.extra else "")
        for name, command in COMMANDS.items()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aepo",
        description="Control the entropy of a policy trained by reinforcement learning with verifiable rewards.",
        epilog=f"commands, and the extra that each needs:\n{listing()}\n\n"
        f"aepo COMMAND --help says more. An extra is installed by {extras.install('NAME')}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{extras.DISTRIBUTION} {aepo.__version__}")
    parser.add_argument("command", metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="the command's own")
    return parser


def main() -> None:
    """Run the command that was typed; its exit code is the program's.

    Raises:
        SystemExit: by argparse or the command; code 2 for an unknown command.
    """
    parser = _parser()
    if not sys.argv[1:]:
        parser.print_help()
        return
    typed = parser.parse_args()
    command = COMMANDS.get(typed.command)
    if command is None:
        hint = did_you_mean(typed.command, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        parser.error(f"unknown command {typed.command!r}{hint}")
    # Help texts of what is run take their name from here; `sys.modules` is left alone, or they would name the module.
    sys.argv = [f"aepo {typed.command}", *command.before, *typed.arguments]
    runpy.run_module(command.module, run_name="__main__")


def called(module_form: str) -> str:
    """How a help text names its program: `aepo NAME` where that was typed, else the form without it.

    >>> called("python -m aepo.llm.doctor")
    'python -m aepo.llm.doctor'
    """
    typed = "".join(sys.argv[:1])
    return typed if typed in {f"aepo {name}" for name in COMMANDS} else module_form


if __name__ == "__main__":
    main()
