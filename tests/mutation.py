"""Planting a mistake in one function, so that every module that holds the function runs it.

A mutant is one line of a function replaced in its compiled code.
"""

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest


@dataclass(frozen=True)
class Mutant:
    name: str
    function: Callable
    line: str
    """A piece of the function's source that occurs once."""
    mistake: str
    check: Callable[[], None]


def mutated(mutant: Mutant):
    """The function's code with the line replaced."""
    source = textwrap.dedent(inspect.getsource(mutant.function))
    assert source.count(mutant.line) == 1, f"{mutant.name}: the line to replace is not in the source once"
    namespace: dict = {}
    # Names resolve in the function's own module when it runs; only the code object is taken from here.
    mistaken = compile(source.replace(mutant.line, mutant.mistake), mutant.name, "exec")
    exec(mistaken, dict(mutant.function.__globals__), namespace)
    planted = namespace[mutant.function.__name__]
    return (planted.fget if isinstance(planted, property) else planted).__code__


def assert_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check passes on the function as it is, and fails on the mistake."""
    mutant.check()
    monkeypatch.setattr(mutant.function, "__code__", mutated(mutant))
    with pytest.raises(AssertionError):
        mutant.check()


def assert_harmless(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planting itself is not what the check notices."""
    monkeypatch.setattr(mutant.function, "__code__", mutated(replace(mutant, mistake=mutant.line)))
    mutant.check()
