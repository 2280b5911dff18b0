"""The mean step's prediction against runs that are sampled."""

import dataclasses
import math

import pytest
import torch

from aepo import zoo
from aepo.controller import Loop
from aepo.schedule import Constant
from aepo.tabular.reach import FAR, MeanRun, _luck, band, mean_credit, mean_run
from aepo.tabular.settings import Settings
from aepo.tabular.train import Noise, train, train_step
from aepo.tabular.worlds.bandit import bandit
from aepo.tabular.worlds.environments import ENVIRONMENTS

SEEDS = range(4)


def late(values: torch.Tensor) -> float:
    """The mean over runs and the last half of the steps."""
    return float(values[:, values.shape[1] // 2 :].mean())


@pytest.mark.parametrize("target", [FAR, -FAR])
@pytest.mark.parametrize(
    ("correct", "alpha", "t_high", "lr"),
    [
        (8, 1.0, 1.2, 1.0),
        (8, 0.25, 2.0, 1.0),
        (4, 1.0, 1.2, 1.0),
        (8, 16.0, 2.0, 0.3),
        (2, 1.0, 2.0, 3.0),
        (8, 4.0, 1.2, 3.0),
    ],
)
def test_a_pinned_bandit_saturates_where_the_mean_step_says(correct, alpha, t_high, lr, target):
    world = bandit(SEEDS, correct=correct)
    settings = Settings(steps=800, lr=lr)
    method = zoo.build("aepo", alpha=alpha, t_low=1 / t_high, t_high=t_high)
    measured = train(world, method, Constant(target), list(SEEDS), settings).entropy
    predicted = mean_run(world, method, settings, Constant(target)).entropy
    assert late(predicted) == pytest.approx(late(measured), abs=0.1)


def test_noise_takes_what_samples_take_and_more_of_them_take_less():
    # Alpha 4 at learning rate 3: without noise the policy would sit at the ceiling of ln 8.
    world, method = bandit(SEEDS), zoo.build("aepo", alpha=4.0)
    lost = {}
    for size in (64, 256, 1024):
        settings = Settings(steps=800, lr=3.0, group_size=size)
        found = mean_run(world, method, settings, Constant(FAR))
        measured = late(train(world, method, Constant(FAR), list(SEEDS), settings).entropy)
        lost[size] = late(found.lost)
        assert late(found.entropy) == pytest.approx(measured, abs=0.12)
    assert lost[64] > 2 * lost[256] > 4 * lost[1024] > 0.02


@pytest.mark.parametrize("name", ["env_a", "env_n"])
def test_the_band_of_a_contextual_world_is_where_pinned_runs_end(name):
    world = ENVIRONMENTS[name].build(SEEDS)
    settings = dataclasses.replace(ENVIRONMENTS[name].settings, steps=400)
    method = zoo.build("aepo", alpha=4.0)
    found = band(world, method, settings)
    for edge, target in ((found.lowest, -FAR), (found.highest, FAR)):
        measured = train(world, method, Constant(target), list(SEEDS), settings).policy_entropy
        assert late(edge) == pytest.approx(late(measured), abs=0.06)
    inside, outside = (late(found.lowest) + late(found.highest)) / 2, late(found.highest) + 0.3
    assert float(found.miss(Constant(inside)).max()) < 0.1
    assert float(found.miss(Constant(outside)).mean()) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("name", ["aepo", "aepo_reach"])
def test_the_mean_credit_is_the_mean_gradient_of_sampled_groups(name):
    # One step of the mean against the mean of many sampled ones.
    world, method = bandit([3]), zoo.build(name)
    settings = Settings(steps=1, group_size=6)
    many = 4000
    drawn = train(world.repeated(many), method, Constant(1.5), list(range(many)), settings).parameters
    exact = dataclasses.replace(settings, exact=True)
    mean = train(world, mean_credit(method, 6), Constant(1.5), [0], exact).parameters
    error = drawn.std(0) / many**0.5
    assert ((drawn.mean(0) - mean[0]).abs() < 5 * error + 1e-12).all()
    # And not the step of an unlimited number of samples, which divides by another deviation.
    plain = train(world, method, Constant(1.5), [0], exact).parameters
    assert ((drawn.mean(0) - plain[0]).abs() > 5 * error).any()


@pytest.mark.parametrize("name", ["bandit", "env_a", "sequence"])
def test_the_luck_of_a_step_is_the_deviation_of_many_sampled_ones(name):
    many = 200
    settings = dataclasses.replace(ENVIRONMENTS[name].settings, lr=0.05, group_size=16)
    world, method = ENVIRONMENTS[name].build([5]), zoo.build("aepo", alpha=4.0, prompt_fraction=1.0)
    copies = world.repeated(many)
    zero = torch.zeros(many, dtype=torch.float64)
    after, _, record = train_step(
        copies.parameters, copies, method, Loop.start(method.controller, zero), Noise(range(many)),
        step=0, target=FAR, settings=settings,
    )  # fmt: skip
    exact = dataclasses.replace(settings, exact=True)
    again = train_step(
        after,
        copies,
        method,
        Loop.start(method.controller, zero),
        Noise(range(many)),
        step=0,
        target=FAR,
        settings=exact,
    )[2].entropy
    control = dataclasses.replace(record.control, temperature=record.control.temperature[:1])
    luck, push, scatter = _luck(world, world.parameters, method, control, settings)
    assert float(luck) == pytest.approx(float(again.std()), rel=0.2)
    assert float(push) > 0
    # All prompts are asked.
    assert float(scatter) == 0


def test_the_scatter_of_a_step_is_the_deviation_of_what_many_steps_measure():
    method, settings = zoo.build("aepo"), dataclasses.replace(ENVIRONMENTS["env_a"].settings, states_per_step=16)
    world = ENVIRONMENTS["env_a"].build([5])
    # A policy whose states differ in their entropy.
    generator = torch.Generator().manual_seed(4)
    drawn = torch.randn(world.parameters.shape, generator=generator, dtype=torch.float64)
    world = dataclasses.replace(world, parameters=world.parameters + 2 * drawn)
    noise, zero = Noise([5]), torch.zeros(1, dtype=torch.float64)
    records = [
        train_step(
            world.parameters, world, method, Loop.start(method.controller, zero), noise,
            step=step, target=FAR, settings=settings,
        )[2]
        for step in range(200)
    ]  # fmt: skip
    apart = torch.cat([record.entropy - record.policy_entropy for record in records])
    scatter = float(_luck(world, world.parameters, method, records[0].control, settings)[2])
    assert scatter == pytest.approx(float(apart.std()), rel=0.12)
    assert scatter > 0.01


def test_what_luck_and_scatter_leave_of_a_walk_is_what_the_prediction_says():
    # H changes by luck and by a controller's pushes, and is seen with scatter: the best filter, and whole pushes.
    luck, scatter, push, steps = 0.02, 0.05, 0.004, 4000
    generator = torch.Generator().manual_seed(3)
    gain = (math.sqrt(luck**4 + 4 * luck**2 * scatter**2) - luck**2) / (2 * scatter**2)
    filtered, whole, found = torch.zeros(64), torch.zeros(64), []
    for _ in range(steps):
        kick, seen = torch.randn(2, 64, generator=generator)
        found.append(torch.stack([filtered.abs(), whole.abs()]).mean(1))
        filtered = filtered - gain * (filtered + scatter * seen) + luck * kick
        whole = whole - push * (whole + scatter * seen).sign() + luck * kick
    measured = torch.stack(found)[steps // 2 :].mean(0)
    flat = torch.zeros(1, 8, dtype=torch.float64)
    for aside, expected in zip((True, False), measured, strict=True):
        run = MeanRun(
            entropy=flat, lost=flat, luck=flat + luck, authority=flat + push, scatter=flat + scatter, steps_aside=aside
        )
        assert float(run.error(Constant(0.0))) == pytest.approx(float(expected), rel=0.15)
