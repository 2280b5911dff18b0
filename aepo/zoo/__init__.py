"""The field's methods by name: each entry builds a frozen Method from keyword options, whose defaults are its source's.

>>> from aepo.zoo import build
>>> build("aepo", alpha=4.0).tempered.alpha
4.0
>>> build("aepoo")
Traceback (most recent call last):
ValueError: unknown method 'aepoo', did you mean 'aepo'? Known: aepo, aepo_eq2, aepo_eq3, entropy_adv, entropy_reg, \
entropy_reg_nll, grpo, reinforce, reinforce_tempered
"""

import difflib
import inspect
from collections.abc import Callable, Iterable

from aepo.method import Method
from aepo.zoo.aepo import aepo, aepo_eq2, aepo_eq3, reinforce_tempered
from aepo.zoo.entropy_advantage import entropy_adv
from aepo.zoo.entropy_bonus import entropy_reg, entropy_reg_nll
from aepo.zoo.grpo import grpo, reinforce

METHODS: dict[str, Callable[..., Method]] = {
    builder.__name__: builder
    for builder in (
        aepo,
        aepo_eq2,
        aepo_eq3,
        entropy_adv,
        entropy_reg,
        entropy_reg_nll,
        grpo,
        reinforce,
        reinforce_tempered,
    )
}
"""Name -> builder."""


def options(name: str) -> dict[str, object]:
    """The options of a method and their defaults; those that it passes on to GRPO included.

    Raises:
        ValueError: unknown method, with the nearest names.
    """
    if name not in METHODS:
        raise ValueError(_unknown("method", name, METHODS))
    own: dict[str, object] = {}
    for parameter in inspect.signature(METHODS[name]).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            own |= options("grpo")
        else:
            own[parameter.name] = parameter.default
    return own


def build(name: str, **overrides: object) -> Method:
    """The method of that name with some options changed.

    Raises:
        ValueError: unknown method or option, with the nearest names; or a value that the method refuses.
    """
    known = options(name)
    wrong = [_unknown(f"option of method {name!r}:", key, known) for key in overrides if key not in known]
    if wrong:
        raise ValueError("; ".join(wrong))
    return METHODS[name](**overrides)


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(sorted(known))}"
