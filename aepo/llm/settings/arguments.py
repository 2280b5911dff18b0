"""What is typed behind a command's name, parted into names and values before anything else looks at it.

argparse takes `--x=a b` for no option where it does not know `x`, and hands it to the option before as its value.
"""

import argparse
from collections.abc import Collection, Iterator, Sequence
from typing import NoReturn

from aepo.llm.settings.presets import SettingsError
from aepo.suggest import did_you_mean


class Parser(argparse.ArgumentParser):
    """Whose errors are SettingsErrors: one line, and the command's own exit code."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message)


def parted(
    argv: Sequence[str], *, alone: Collection[str] = (), optional: Collection[str] = ()
) -> Iterator[tuple[str, str | None]]:
    """Name and value of every `--name=value`, `--name value` and `--name`, in their order; values to the letter.

    A value of its own may begin with one dash, as -1 does. One that begins with two is written behind `=`.

    Args:
        argv: arguments after the program's name.
        alone: names without a value.
        optional: names whose value may be left out: the next argument is theirs if it begins with no dash.

    Raises:
        SettingsError: an argument of another form.

    >>> list(parted(["--resume", "--out=a b", "--seed", "-1"], optional=["resume"]))
    [('resume', None), ('out', 'a b'), ('seed', '-1')]
    """
    rest = list(argv)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument in ("-h", "--help"):
            yield "help", None
        elif not argument.startswith("--") or not name.strip(".-"):
            raise SettingsError(f"argument {argument!r}: expected --name=value, such as --section.field=value")
        elif name in alone:
            if equals:
                raise SettingsError(f"argument --{name}: takes no value, got {value!r}; write --{name}")
            yield name, None
        elif equals:
            yield name, value
        elif name in optional:
            yield name, None if not rest or rest[0].startswith("-") else rest.pop(0)
        elif rest and not rest[0].startswith("--"):
            yield name, rest.pop(0)
        else:
            hint = did_you_mean(name, [*alone, *optional])
            raise SettingsError(f"argument --{name}: expected one argument, its value; write --{name}=VALUE{hint}")
