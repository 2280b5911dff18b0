"""A method that nobody knew of, added by one entry of the registry, runs in both worlds by its name."""

import dataclasses

import pytest
import torch
from strategies import double
from test_one_token_llm_is_the_bandit import TOLERANCE, both_steps

from aepo import zoo
from aepo.batch import Rollouts
from aepo.controller import Control, Proportional
from aepo.llm.settings import load
from aepo.method import Method
from aepo.schedule import Constant
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.bandit import bandit
from aepo.tabular.worlds.contextual import contextual
from aepo.tabular.worlds.sequences import sequences
from aepo.zoo.grpo import grpo


def toy(*, gain: float = 4.0, baseline: float = 0.5, **grpo_options) -> Method:
    """The reward less a constant, and an entropy bonus of either sign in proportion to the error."""

    def advantage(rollouts: Rollouts) -> torch.Tensor:
        return rollouts.reward - baseline

    def push(control: Control) -> torch.Tensor:
        return control.strength

    return dataclasses.replace(
        grpo(**grpo_options),
        name="toy",
        advantage=advantage,
        controller=Proportional(gain=gain, low=-2.0, high=2.0),
        entropy_coef=push,
        label=f"gain={gain:g}",
    )


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(zoo.METHODS, "toy", toy)


def test_it_is_known_by_name_with_its_options_and_grpos():
    assert set(zoo.options("toy")) == {"gain", "baseline"} | set(zoo.options("grpo"))
    assert zoo.build("toy", gain=2.0, clip_high=0.3).label == "gain=2"
    assert zoo.build("toy").controlled and zoo.build("toy").has_bonus
    with pytest.raises(ValueError, match="unknown option of method 'toy': 'gian', did you mean 'gain'"):
        zoo.build("toy", gian=2.0)


def test_the_simulator_trains_it_to_the_target():
    world, seeds = bandit([1, 2, 3]), [1, 2, 3]
    settings = Settings(steps=400, exact=True)
    held = train(world, zoo.build("toy"), Constant(0.8), seeds, settings)
    # Proportional control stops short of the target where a constant push is needed: by push / gain, and here a bonus
    # below 0.5 holds the entropy.
    assert ((held.entropy[:, -1] - 0.8).abs() < 0.5 / 4).all()
    assert (held.reward[:, -1] > 0.9).all()
    free = train(world, zoo.build("grpo"), Constant(0.8), seeds, settings)
    assert (free.entropy[:, -1] < 0.3).all(), "without control it collapses"


@pytest.mark.parametrize(
    "world",
    [
        contextual([1], actions=6, features=4, states=5, held_out=3, most=4),
        sequences([1], vocabulary=3, length=3, correct=6, ends=True),
    ],
    ids=["contextual", "sequences"],
)
@pytest.mark.parametrize("exact", [False, True])
def test_every_world_of_the_simulator_runs_it(world, exact):
    history = train(world, zoo.build("toy"), Constant(0.8), [1], Settings(steps=5, exact=exact, group_size=6))
    assert history.entropy.shape == (1, 5) and history.parameters.isfinite().all()
    error = 0.8 - history.entropy
    torch.testing.assert_close(history.push, (4.0 * error).clamp(-2.0, 2.0))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("tokens", [1, 4])
def test_the_llm_trainers_step_is_the_simulators(tokens, parts):
    got, expected, before = both_steps("toy", {"gain": 1.5}, tokens=tokens, token_budget=5, parts=parts)
    assert (got - expected).abs().max() < TOLERANCE
    assert (expected - before).abs().max() > 1e-3, "the step must move the table, or the comparison is empty"


def test_the_llm_trainers_settings_accept_its_name_and_options():
    settings = load(None, ["method.name=toy", "method.gain=3.0"])
    assert settings.method.build().label == "gain=3"
    assert settings.method.build().controller.update({}, double(0.4), double(0.5))[1].push.item() == pytest.approx(0.3)
