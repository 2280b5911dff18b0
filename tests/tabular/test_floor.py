"""The measured floor of the noise: against exact distributions, and below every controller's error."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds as any_seed

from aepo import zoo
from aepo.controller import Loop
from aepo.schedule import Constant
from aepo.tabular import floor as measured
from aepo.tabular import runner
from aepo.tabular.floor import Floor, floor_along, floor_states, next_entropies, of_first_seeds
from aepo.tabular.options import Options
from aepo.tabular.plan import configuration
from aepo.tabular.runner import batches, run_all
from aepo.tabular.settings import Settings
from aepo.tabular.train import Noise, train, train_step
from aepo.tabular.worlds.bandit import Bandit, bandit
from aepo.tabular.worlds.contextual import contextual
from aepo.tabular.worlds.sequences import sequences
from aepo.tabular.worlds.world import prompts_of_step
from aepo.theory import estimated_floor, noise_floor

# So small a step that the entropies are those of the policy itself to the last digits.
STILL = 1e-14


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(-1)


def least_distance(values: np.ndarray, chance: np.ndarray) -> float:
    """min_c E|H' - c|: the distance is convex and straight between the values, so one of them is nearest."""
    return min(float((chance * np.abs(values - c)).sum()) for c in values)


def of_one_state(parameters, world, method, settings, *, seeds, **sampling) -> Floor:
    return floor_along({0: parameters}, world, method, settings, seeds=seeds, **sampling)


# -- against exact distributions --


def aepo_outcomes(z: np.ndarray, right: np.ndarray, temperature: float, *, alpha: float, lr: float):
    """Every H' after a step of AEPO on two samples of either branch, and its chance."""
    p, hot = softmax(z), softmax(z / temperature)
    values, chances = [], []
    for main in itertools.product(range(len(z)), repeat=2):
        reward = right[list(main)].astype(float)
        advantage = (reward - reward.mean()) / (reward.std(ddof=1) + 1e-6)
        pushed = sum(a * (np.eye(len(z))[i] - p) for a, i in zip(advantage, main, strict=True)) / 2
        for again in itertools.product(range(len(z)), repeat=2):
            term = sum((np.eye(len(z))[i] - p) * right[i] for i in again) / 2
            values.append(entropy(softmax(z + lr * (pushed + alpha * term))))
            chances.append(p[list(main)].prod() * hot[list(again)].prod())
    return np.array(values), np.array(chances)


def test_the_floor_on_the_bandit_is_that_of_every_outcome_and_its_chance():
    world = bandit([0, 1, 2], actions=4, correct=2)
    method = zoo.build("aepo", alpha=2.0, t_low=0.4, t_high=2.5)
    count, apart = 1500, []
    found = of_one_state(
        world.parameters, world, method, Settings(lr=0.7, group_size=2), seeds=[0, 1, 2], resamples=count
    )
    for run in range(3):
        z, right = world.logits[run, 0].numpy(), world.correct[run, 0].numpy()
        every = [aepo_outcomes(z, right, t, alpha=2.0, lr=0.7) for t in (0.4, 2.5)]
        each = [least_distance(*outcomes) for outcomes in every]
        # The estimates' noise: |H' - c| spreads by at most the deviation of H'.
        spread = max(
            float(np.sqrt((chance * (values - (chance * values).sum()) ** 2).sum())) for values, chance in every
        )
        assert found.low[run] == pytest.approx(min(each), abs=4 * spread / math.sqrt(count))
        assert found.high[run] == pytest.approx(min(each), abs=4 * spread / math.sqrt(count))
        apart.append(max(each) / min(each))
    assert max(apart) > 1.2, "the controls must differ, or the least of them says nothing"


def sampled_entropies(z: np.ndarray) -> list[tuple[float, float]]:
    """Of two responses of two tokens of two: (chance, mean entropy); a token's state is what stands before it."""
    p, h = softmax(z), entropy(softmax(z))
    one = [(p[0, i], (h[0] + h[1 + i]) / 2) for i in range(2)]
    return [(a[0] * b[0], (a[1] + b[1]) / 2) for a, b in itertools.product(one, repeat=2)]


@pytest.mark.parametrize("lr", [STILL, 8.0])
def test_what_the_next_step_samples_is_noise_too_and_independent_of_the_step(lr):
    world = sequences([3], vocabulary=2, length=2, correct=2)
    z, right = world.parameters[0].numpy(), world.correct[0].numpy()
    p = softmax(z)
    # Of each response its chance, its reward, and what a push towards it adds to the logits of the three states.
    responses = []
    for i, j in itertools.product(range(2), repeat=2):
        score = np.zeros_like(z)
        score[0], score[1 + i] = (np.eye(2)[i] - p[0]) / 2, (np.eye(2)[j] - p[1 + i]) / 2
        responses.append((p[0, i] * p[1 + i, j], float(right[2 * i + j]), score))
    outcomes = []
    for pair in itertools.product(responses, repeat=2):
        reward = np.array([one[1] for one in pair])
        advantage = (reward - reward.mean()) / (reward.std(ddof=1) + 1e-6)
        moved = z + lr * sum(a * one[2] for a, one in zip(advantage, pair, strict=True)) / 2
        outcomes += [(pair[0][0] * pair[1][0] * chance, h) for chance, h in sampled_entropies(moved)]
    chance, values = np.array(outcomes).T
    assert chance.sum() == pytest.approx(1.0)
    count = 8000
    found = next_entropies(
        world.parameters, world, zoo.build("grpo"), Settings(lr=lr, group_size=2), step=0, seeds=[3], resamples=count
    )
    want, deviation = least_distance(values, chance), math.sqrt(chance @ values**2 - (chance @ values) ** 2)
    assert want > 0.01
    assert noise_floor(found.numpy())[0] == pytest.approx(want, abs=4 * deviation / math.sqrt(count))
    # Not only the floor: the whole distribution, as far as its mean and its deviation tell.
    assert found.mean().item() == pytest.approx(chance @ values, abs=4 * deviation / math.sqrt(count))
    assert found.std().item() == pytest.approx(deviation, rel=0.05)


def test_prompts_that_nobody_knows_yet_are_noise_too():
    world = contextual([5], actions=4, features=3, states=7, held_out=1, most=3)
    h = entropy(softmax(world.table(world.parameters)[0].numpy()))
    still = Settings(lr=STILL, group_size=2, states_per_step=1)
    grpo, count = zoo.build("grpo"), 800
    known = of_one_state(world.parameters, world, grpo, still, seeds=[5], resamples=8)
    drawn = of_one_state(world.parameters, world, grpo, still, seeds=[5], resamples=count, order_known=False)
    assert known.high[0] < 1e-10
    for step in range(4):
        values = next_entropies(world.parameters, world, grpo, still, step=step, seeds=[5], resamples=2)
        asked = prompts_of_step(step + 1, training=7, count=1)
        np.testing.assert_allclose(values, h[asked].repeat(2)[None, None], rtol=0, atol=1e-10)
    orders = next_entropies(world.parameters, world, grpo, still, step=0, seeds=[5], resamples=40, order_known=False)
    # Each resample has an order of its own: 40 draws of 7.
    assert len(np.unique(orders.numpy().round(9))) == 7
    want = least_distance(h, np.full(7, 1 / 7))
    assert drawn.low[0] == pytest.approx(want, abs=4 * float(h.std()) / math.sqrt(count))


@pytest.mark.parametrize("name", ["aepo", "aepo_adaptive", "pi_bonus", "reweighting"])
def test_without_sampling_nothing_is_left(name):
    world = contextual([1, 2], actions=6, features=4, states=5, held_out=1, most=4)
    settings = Settings(exact=True, lr=3.0, steps=6)
    history = train(world, zoo.build(name), Constant(0.5), [1, 2], settings, keep=floor_states(6))
    found = floor_along(history.kept, world, zoo.build(name), settings, seeds=[1, 2], resamples=4)
    assert (found.low <= found.high + 1e-15).all() and found.high.max() < 1e-12


# -- the theorem --


@settings(max_examples=15)
@given(
    seed=any_seed,
    name=st.sampled_from(["aepo", "aepo_adaptive", "aepo_pi", "pi_bonus", "reweighting", "dcpo", "entropic", "repo_r"]),
    scale=st.sampled_from([0.3, 1.0, 2.0]),
    apart=st.sampled_from([-0.3, -0.01, 0.0, 0.01, 0.3]),
)
def test_no_controllers_error_is_below_the_floor(seed, name, scale, apart):
    base = bandit([seed], actions=5, correct=3)
    world = Bandit(logits=scale * base.logits, correct=base.correct)
    method, trained = zoo.build(name), Settings(lr=1.0, group_size=4)
    target, runs = float(entropy(softmax(world.logits[0, 0].numpy()))) + apart, 400
    many = world.repeated(runs)
    noise = Noise([f"another {i}" for i in range(runs)], chunk=1)
    loop = Loop.start(method.controller, torch.zeros(runs, dtype=torch.float64))
    after, _, _ = train_step(many.parameters, many, method, loop, noise, step=0, target=target, settings=trained)
    error = np.abs(entropy(softmax(after[:, 0].numpy())) - target)
    found = of_one_state(world.parameters, world, method, trained, seeds=[seed], resamples=runs)
    # Both are means of some hundred numbers that spread about as much as they are large.
    slack = 4 * (error.std() + found.low[0]) / math.sqrt(runs)
    assert found.low[0] <= error.mean() + slack


def test_the_controller_whose_target_is_the_best_controls_median_is_at_the_floor():
    world, method = bandit([4], actions=5, correct=3), zoo.build("aepo", alpha=4.0, t_low=0.5, t_high=2.0)
    trained = Settings(lr=1.0, group_size=4)
    values = next_entropies(world.parameters, world, method, trained, step=0, seeds=[4], resamples=600)[0].numpy()
    best = values[np.abs(values - np.median(values, -1, keepdims=True)).mean(-1).argmin()]
    fresh = next_entropies(world.parameters, world, method, trained, step=0, seeds=[5], resamples=600)[0].numpy()
    error = np.abs(fresh - np.median(best)).mean(-1).min()
    assert error == pytest.approx(float(estimated_floor(values)[1]), rel=0.15)


# -- the estimate --


def test_a_finer_grid_of_controls_raises_the_floor_by_no_more_than_noise():
    world = contextual([1, 2, 3], actions=6, features=4, states=5, held_out=1, most=4)
    for name in ("pi_bonus", "aepo_adaptive", "aepo_pi"):
        found = [
            of_one_state(
                world.parameters,
                world,
                zoo.build(name),
                Settings(lr=3.0, group_size=4),
                seeds=[1, 2, 3],
                controls=count,
                resamples=64,
            )
            for count in (3, 5, 9)
        ]
        for coarse, fine in itertools.pairwise(found):
            # The noise is the same, so that a wider choice can only lower the least of the means.
            assert (fine.low <= coarse.low + 1e-12).all()
            assert (fine.high <= 1.3 * coarse.high).all()


def test_a_runs_floor_depends_neither_on_the_runs_beside_it_nor_on_how_many_step_at_once(monkeypatch):
    method, trained = zoo.build("aepo_adaptive"), Settings(lr=3.0, group_size=4)

    def values(seeds: list[int], **sampling) -> torch.Tensor:
        world = contextual(seeds, actions=6, features=4, states=5, held_out=1, most=4)
        return next_entropies(world.parameters, world, method, trained, step=3, seeds=seeds, **sampling)

    together, alone = values([1, 2], resamples=5), values([2], resamples=5)
    assert together.shape == (2, 5, 5)
    torch.testing.assert_close(together[1], alone[0], rtol=0, atol=1e-13)
    monkeypatch.setattr(measured, "AT_ONCE", 1)
    torch.testing.assert_close(values([1, 2], resamples=5), together, rtol=0, atol=1e-13)


def test_every_resample_and_every_step_has_noise_of_its_own():
    world, trained = bandit([1]), Settings(lr=1.0, group_size=8)

    def values(step: int) -> np.ndarray:
        return next_entropies(
            world.parameters, world, zoo.build("aepo"), trained, step=step, seeds=[1], resamples=6
        ).numpy()

    assert len(np.unique(values(0))) == 12
    assert not np.isin(values(0), values(1)).any()


def test_the_run_itself_is_no_resample_but_one_of_the_same_distribution():
    world, method, trained = bandit([1]), zoo.build("aepo"), Settings(lr=1.0, group_size=8, steps=2)
    history = train(world, method, Constant(0.5), [1], trained)
    values = next_entropies(world.parameters, world, method, trained, step=0, seeds=[1], resamples=64)[0]
    after = history.entropy[0, 1]
    assert not torch.isin(after, values).any()
    assert values.min() <= after <= values.max()


@pytest.mark.parametrize("name", sorted(zoo.METHODS))
def test_every_method_has_a_floor_in_every_world(name):
    for world in (
        contextual([1], actions=6, features=4, states=5, held_out=1, most=4),
        sequences([1], vocabulary=3, length=3, correct=6, ends=True),
    ):
        method = zoo.build(name)
        found = of_one_state(
            world.parameters, world, method, Settings(lr=1.0, group_size=4), seeds=[1], controls=3, resamples=3
        )
        assert found.low.shape == found.high.shape == (1,)
        assert 0 <= found.low[0] and np.isfinite(found.high[0])


def test_the_temperature_of_the_main_rollouts_is_held_in_the_next_step_too():
    # The second token is nearly sure after a 0 and a coin after a 1, which are the rarer the colder the first token is.
    z = torch.tensor([[[2.0, 0.0], [5.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    world = dataclasses.replace(sequences([2], vocabulary=2, length=2, correct=2), parameters=z)
    method, still = zoo.build("e3", vocabulary=4), Settings(lr=STILL, group_size=2000)
    values = next_entropies(z, world, method, still, step=0, seeds=[2], resamples=8)[0].mean(-1)
    h = entropy(softmax(z[0].numpy()))
    for value, temperature in zip(values.tolist(), method.controls(5).temperature.tolist(), strict=True):
        first = softmax(z[0, 0].numpy() / temperature)
        # A mean of 16,000 numbers that are 0.33 apart at most.
        assert value == pytest.approx((h[0] + first @ h[1:]) / 2, abs=4 * 0.17 / math.sqrt(16_000))
    assert values.max() - values.min() > 0.05


def test_the_states_are_those_that_the_last_half_was_reached_from():
    for steps in (2, 3, 5, 30, 1000):
        chosen = floor_states(steps)
        reached = {step - 1 for step in range(steps // 2, steps)} - {-1}
        assert set(chosen) <= reached
        assert {min(chosen), max(chosen)} <= {max(min(reached), 0), max(reached)}
    assert floor_states(1) == []


def test_the_policies_that_a_run_keeps_are_those_before_the_steps():
    world, method = bandit([1, 2]), zoo.build("aepo")
    whole = train(world, method, Constant(0.5), [1, 2], Settings(steps=7), keep=[0, 4])
    part = train(world, method, Constant(0.5), [1, 2], Settings(steps=4))
    assert list(whole.kept) == [0, 4]
    assert torch.equal(whole.kept[0], world.parameters) and torch.equal(whole.kept[4], part.parameters)
    assert part.kept == {}


def test_the_first_seeds_of_every_configuration():
    runs = torch.arange(6.0).view(6, 1)
    assert of_first_seeds(runs, 2, seeds=3).flatten().tolist() == [0, 1, 3, 4]


# -- in the sweep --


def test_a_sweep_measures_the_first_seeds_of_every_target_and_what_it_measures_is_the_floor(monkeypatch):
    options = Options(environment="env_a", targets=(0.5, 1.0), steps=12)
    aepo, grpo = configuration(options, "aepo"), configuration(options, "grpo")
    moving = dataclasses.replace(aepo, targets=(), schedule=("linear", (("start", 1.0), ("end", 0.5), ("steps", 9.0))))
    assert (aepo.floor, grpo.floor, moving.floor) == (True, False, True)
    monkeypatch.setattr(runner, "FLOOR_SEEDS", 2)
    found = run_all(batches([aepo, grpo, moving]), range(3))
    assert found[grpo].floor is None and found[grpo].floor_low is None
    assert found[aepo].floor.shape == found[aepo].floor_low.shape == (2, 2) and found[moving].floor.shape == (1, 2)
    # The second seed at the second target, by hand.
    world, seeds = options.where.build([1]), [1]
    history = train(world, aepo.build(), Constant(1.0), seeds, options.training, keep=floor_states(12))
    alone = floor_along(history.kept, world, aepo.build(), options.training, seeds=seeds)
    np.testing.assert_allclose(found[aepo].floor[1, 1], alone.high[0], rtol=1e-9)
    np.testing.assert_allclose(found[aepo].floor_low[1, 1], alone.low[0], rtol=1e-9)


def test_configurations_of_one_batch_have_the_floors_of_their_own():
    options = Options(targets=(0.3, 0.6), steps=12)
    aepo = configuration(options, "aepo")
    single = dataclasses.replace(aepo, correct=2, targets=(0.6,))
    (batch,) = batches([aepo, single])
    together = run_all([batch], range(2))
    for one in batch:
        (alone,) = run_all([(one,)], range(2)).values()
        np.testing.assert_allclose(together[one].floor, alone.floor, rtol=1e-9)


@pytest.mark.parametrize("changes", [{"floor": False}, {"exact": True}])
def test_where_there_is_nothing_to_measure_nothing_is_measured(changes):
    assert not configuration(Options(**changes), "aepo").floor


def test_a_run_of_one_step_has_no_floor():
    one = configuration(Options(steps=1, targets=(0.5,)), "aepo")
    assert run_all([(one,)], range(2))[one].floor is None
