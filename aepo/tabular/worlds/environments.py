"""The environments by name, each with the settings that show its phenomena. Imports no torch until one is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aepo.tabular.settings import Settings

if TYPE_CHECKING:
    from aepo.tabular.worlds.world import World


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A kind of world and how a run on it trains."""

    name: str
    about: str
    build: Callable[[Sequence[int]], World]
    """Seeds -> one run each."""
    settings: Settings
    prompts: int
    """Training prompts: states of a contextual world, 1 elsewhere."""
    entropy_limit: float
    """ln of the number of actions, nats: no token entropy is larger."""
    strengths: Mapping[str, Mapping[str, object]]
    """Method -> options that differ from the zoo's here; a report names them."""


def _bandit(seeds: Sequence[int]) -> World:
    from aepo.tabular.worlds.bandit import bandit

    return bandit(seeds)


def _env_a(seeds: Sequence[int]) -> World:
    from aepo.tabular.worlds.contextual import contextual

    return contextual(seeds)


def _env_d(seeds: Sequence[int]) -> World:
    from aepo.tabular.worlds.contextual import contextual

    return contextual(seeds, fewest=1, most=4)


def _env_n(seeds: Sequence[int]) -> World:
    from aepo.tabular.worlds.contextual import contextual

    return contextual(seeds, fewest=1, most=4, false_positive=0.1)


def _sequence(seeds: Sequence[int]) -> World:
    from aepo.tabular.worlds.sequences import sequences

    return sequences(seeds)


def _short(seeds: Sequence[int]) -> World:
    from aepo.tabular.worlds.sequences import sequences

    return sequences(seeds, vocabulary=4, length=4, correct=40, ends=True)


def _ladder(seeds: Sequence[int]) -> World:
    from aepo.tabular.worlds.ladder import ladder

    return ladder(seeds)


CONTEXTUAL = Settings(steps=1000, group_size=8, lr=3.0)
LN_16, LN_8, LN_4 = 2.772588722239781, 2.0794415416798357, 1.3862943611198906
# The paper gives no alpha; 4 is the strength at which its two temperatures hold Env A.
OF_16: dict[str, Mapping[str, object]] = {"e3": {"vocabulary": 16}}
OF_4: dict[str, Mapping[str, object]] = {"e3": {"vocabulary": 4}}
ALPHA_4: Mapping[str, Mapping[str, object]] = OF_16 | {
    name: {"alpha": 4.0} for name in ("aepo", "aepo_eq2", "aepo_eq3")
}
WIDE: Mapping[str, Mapping[str, object]] = OF_16 | {
    "aepo": {"alpha": 4.0, "t_low": 0.5, "t_high": 2.0},
    "aepo_eq2": {"alpha": 4.0},
    "aepo_eq3": {"alpha": 4.0, "t_low": 0.5, "t_high": 2.0},
}

ENVIRONMENTS: dict[str, Environment] = {
    one.name: one
    for one in (
        Environment(
            name="bandit",
            about="one state, K = 16, |A*| = 8",
            build=_bandit,
            settings=Settings(),
            prompts=1,
            entropy_limit=LN_16,
            strengths=OF_16,
        ),
        Environment(
            name="env_a",
            about="contextual, linear policy, 64 training and 256 held-out states, |A*| 2 to 8 of 16, exact verifier",
            build=_env_a,
            settings=CONTEXTUAL,
            prompts=64,
            entropy_limit=LN_16,
            strengths=ALPHA_4,
        ),
        Environment(
            name="env_d",
            about="Env A with |A*| 1 to 4",
            build=_env_d,
            settings=CONTEXTUAL,
            prompts=64,
            entropy_limit=LN_16,
            strengths=WIDE,
        ),
        Environment(
            name="env_n",
            about="Env D with a verifier that accepts one wrong action in ten, always the same ones",
            build=_env_n,
            settings=CONTEXTUAL,
            prompts=64,
            entropy_limit=LN_16,
            strengths=WIDE,
        ),
        Environment(
            name="sequence",
            about="4 tokens of a vocabulary of 4, 32 of 256 responses correct, tabular policy by prefix",
            build=_sequence,
            settings=Settings(steps=1000, group_size=64, lr=3.0),
            prompts=1,
            entropy_limit=LN_4,
            strengths=OF_4
            | {
                "aepo": {"t_low": 0.5, "t_high": 2.0, "prompt_fraction": 1.0},
                "aepo_eq3": {"t_low": 0.5, "t_high": 2.0},
            },
        ),
        Environment(
            name="short",
            about="up to 4 tokens with an end token, 40 correct responses of all lengths",
            build=_short,
            settings=Settings(steps=1000, group_size=64, lr=0.3),
            prompts=1,
            entropy_limit=LN_4,
            strengths=OF_4 | {"aepo": {"t_low": 0.5, "t_high": 2.0}},
        ),
        Environment(
            name="ladder",
            about="prompts of 3 among 16 instructions, half of them hard, with a hop for each, 2 of 8 right; linear "
            "policy, 1,024 training and 256 held-out prompts",
            build=_ladder,
            # The least rate of a grid at which GRPO collapses in so many steps (`benchmarks/ladder_small.py`).
            settings=Settings(steps=3000, group_size=8, lr=30.0, states_per_step=64),
            prompts=1024,
            entropy_limit=LN_8,
            strengths=WIDE | {"e3": {"vocabulary": 8}},
        ),
    )
}
"""Name -> environment."""
