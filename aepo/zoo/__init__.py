"""The field's methods by name: each entry builds a frozen Method from keyword options, whose defaults are its source's.

>>> from aepo.zoo import build
>>> build("aepo", alpha=4.0).tempered.alpha
4.0
>>> build("aepoo")  # doctest: +ELLIPSIS
Traceback (most recent call last):
ValueError: unknown method 'aepoo', did you mean 'aepo'? Known: adaptive_bonus, aepo, ...
"""

import inspect
from collections.abc import Callable, Iterable

from aepo.method import Method
from aepo.suggest import did_you_mean
from aepo.zoo.aepo import aepo, aepo_adaptive, aepo_eq2, aepo_eq3, aepo_pi, aepo_reach, reinforce_tempered
from aepo.zoo.bonuses import adaptive_bonus, dual_bonus, pi_bonus, siren
from aepo.zoo.clipping import (
    ce_gppo,
    clip_b,
    clip_cov,
    clip_higher,
    clip_v,
    entropy_ratio_clip,
    kl_cov,
    steer,
    top_entropy,
)
from aepo.zoo.entropy_advantage import entropy_adv
from aepo.zoo.entropy_bonus import entropy_reg, entropy_reg_nll
from aepo.zoo.grpo import dr_grpo, grpo, reinforce
from aepo.zoo.main_temperature import e3
from aepo.zoo.reweighting import dcpo, entrocraft, entropic, quantile, reweighting, shorter
from aepo.zoo.surprisal import repo_r, stare

METHODS: dict[str, Callable[..., Method]] = {
    builder.__name__: builder
    for builder in (
        adaptive_bonus,
        aepo,
        aepo_adaptive,
        aepo_eq2,
        aepo_eq3,
        aepo_pi,
        aepo_reach,
        ce_gppo,
        clip_b,
        clip_cov,
        clip_higher,
        clip_v,
        dcpo,
        dr_grpo,
        dual_bonus,
        e3,
        entrocraft,
        entropic,
        entropy_adv,
        entropy_ratio_clip,
        entropy_reg,
        entropy_reg_nll,
        grpo,
        kl_cov,
        pi_bonus,
        quantile,
        reinforce,
        reinforce_tempered,
        repo_r,
        reweighting,
        shorter,
        siren,
        stare,
        steer,
        top_entropy,
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
            # A method's own default wins over GRPO's of the same name.
            own = options("grpo") | own
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
    hint = did_you_mean(name, known, mark=",") or "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(sorted(known))}"
