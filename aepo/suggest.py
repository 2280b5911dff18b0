"""Did you mean: the known name that is nearest to an unknown one."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[object]) -> str | None:
    """The known name most like `name`, whatever the case of either; None where none is like it.

    >>> nearest("Entropy-Reg", ["grpo", "entropy_reg"]), nearest("xyz", ["grpo"])
    ('entropy_reg', None)
    """
    by_lower = {str(one).lower(): str(one) for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def did_you_mean(name: str, known: Iterable[object], *, mark: str = ";") -> str:
    """The end of a message about an unknown name; '' where no known name is like it.

    Args:
        name: the unknown one.
        known: the names there are.
        mark: what parts it from the message before.

    >>> "unknown method 'grop'" + did_you_mean("grop", ["aepo", "grpo"])
    "unknown method 'grop'; did you mean 'grpo'?"
    """
    near = nearest(name, known)
    return "" if near is None else f"{mark} did you mean {near!r}?"
