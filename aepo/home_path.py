"""Paths that begin with a home folder's sign."""

from pathlib import Path


def at_home(path: str | Path) -> Path:
    """The path, with the home of whom its `~` or `~name` names; to the letter where there is no such user.

    >>> str(at_home("~no such user/x"))
    '~no such user/x'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
