"""What holds for the doctests of the package and for the tests: which files are collected, and which see a GPU."""

import os
from importlib.util import find_spec

from _pytest.mark.expression import Expression

# Files whose host is not installed.
collect_ignore = [] if find_spec("verl") else ["aepo/integrations/verl", "tests/integrations/verl_configuration.py"]


def pytest_configure(config) -> None:
    """Hide the GPUs, before torch looks, from a choice of tests (-m) that has none of those marked `gpu`.

    Tests of the CPU start as many ranks as they need, each of which would take a GPU that need not be there, and they
    compare with numbers of the CPU.
    """
    chosen = config.option.markexpr
    if chosen and not Expression.compile(chosen).evaluate(lambda name, **_: name == "gpu"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
