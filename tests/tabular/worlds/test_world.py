"""What all worlds share: which prompts a step takes, pass rates, and that every world trains like any other."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import double, seeds

from aepo.schedule import Constant
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.bandit import bandit
from aepo.tabular.worlds.contextual import contextual
from aepo.tabular.worlds.ladder import ladder
from aepo.tabular.worlds.sequences import sequences
from aepo.tabular.worlds.world import cumulated, draw, pass_rates, prompts_of_step
from aepo.zoo import METHODS, build

WORLDS = {
    "bandit": lambda runs: bandit(runs, actions=6, correct=3),
    "contextual": lambda runs: contextual(runs, actions=6, features=4, states=5, held_out=3, most=4),
    "noisy": lambda runs: contextual(runs, actions=6, features=4, states=5, held_out=3, most=4, false_positive=0.3),
    "sequences": lambda runs: sequences(runs, vocabulary=3, length=3, correct=6),
    "ending": lambda runs: sequences(runs, vocabulary=3, length=3, correct=6, ends=True),
    "ladder": lambda runs: ladder(runs, hops=5, length=2, trained=10, held_out=6),
}
SOME_PROMPTS = ("contextual", "noisy", "ladder")
every_world = pytest.mark.parametrize("world", sorted(WORLDS))


# -- prompts --


@given(st.integers(2, 12), st.data(), st.integers(0, 5))
def test_the_prompts_of_the_steps_are_whole_epochs_one_after_another(training, data, seed):
    count = data.draw(st.integers(1, training))
    taken = torch.cat(
        [prompts_of_step(step, training=training, count=count, seed=seed) for step in range(3 * training)]
    ).tolist()
    assert len(taken) == 3 * training * count
    for epoch in range(len(taken) // training):
        assert sorted(taken[epoch * training : (epoch + 1) * training]) == list(range(training))


def test_epochs_have_orders_of_their_own_which_the_seed_decides():
    orders = [tuple(prompts_of_step(e, training=20, count=20, seed=s).tolist()) for e in range(3) for s in range(3)]
    assert len(set(orders)) == 9
    assert prompts_of_step(4, training=1, count=1).tolist() == [0]
    # A step can end one epoch and begin the next: 3 of 5, then the other 2 and the first of the next order.
    first = prompts_of_step(0, training=5, count=5).tolist()
    second = prompts_of_step(1, training=5, count=5).tolist()
    assert prompts_of_step(1, training=5, count=3).tolist() == first[3:] + second[:1]


def test_every_run_of_a_step_has_the_same_prompts():
    # Each run's parameters move at the states that were taken, and at those alone.
    world = WORLDS["contextual"]([0, 1, 2])
    features = torch.eye(5).double().expand(3, 5, 5)
    alone = type(world)(
        parameters=torch.zeros(3, 5, 6).double(),
        features=features,
        correct=world.correct,
        accepted=world.accepted,
        held_out_features=features,
        held_out_correct=world.correct,
    )
    settings = Settings(steps=1, exact=True, states_per_step=2)
    after = train(alone, build("reinforce"), Constant(0.5), [7, 8, 9], settings).parameters
    moved = (after != 0).any(-1)
    taken = prompts_of_step(0, training=5, count=2).tolist()
    assert [run.nonzero().flatten().tolist() for run in moved] == [sorted(taken)] * 3


# -- sampling and rates --


@given(st.integers(1, 6), st.integers(1, 20), seeds)
def test_pass_at_k_is_the_mean_over_prompts_of_one_minus_all_wrong(prompts, k, seed):
    success = torch.rand(2, prompts, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    (rate,) = pass_rates("x/", success, [k]).items()
    assert rate[0] == f"x/pass@{k}"
    want = [sum(1 - (1 - p) ** k for p in run) / prompts for run in success.tolist()]
    assert rate[1].tolist() == pytest.approx(want, abs=1e-14)


@given(st.integers(1, 6), seeds, st.booleans())
def test_a_draw_is_the_first_action_whose_cumulative_probability_exceeds_the_uniform(actions, seed, shared):
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(2, 3, actions, generator=generator, dtype=torch.float64).softmax(-1)
    uniforms = torch.rand(2, 9, generator=generator, dtype=torch.float64)
    state = torch.randint(3, (9,) if shared else (2, 9), generator=generator)
    got = draw(cumulated(probs), state, uniforms).tolist()
    for run, (tables, u) in enumerate(zip(probs.tolist(), uniforms.tolist(), strict=True)):
        for i, number in enumerate(u):
            p = tables[state.expand(2, 9)[run, i]]
            below = [a for a in range(actions) if sum(p[: a + 1]) > number]
            assert got[run][i] == (below[0] if below else actions - 1)


def test_no_draw_leaves_the_actions_where_rounding_leaves_the_sum_below_one():
    probs = torch.tensor([[[0.1] * 3 + [0.7 - 1e-9], [1.0 - 1e-9, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    below_one = torch.full((1, 2), 1 - 2**-53, dtype=torch.float64)
    for width in (3, 4):
        last = draw(cumulated(probs[..., :width]), torch.tensor([0, 1]), below_one)
        assert last.tolist() == [[width - 1, width - 1]]


# -- training --


def run(world: str, method: str, runs: list[int], **changes):
    chosen = {"steps": 6, "group_size": 6} | changes
    return train(WORLDS[world](runs), build(method), Constant(0.6), runs, Settings(**chosen))


@pytest.mark.parametrize("method", sorted(METHODS))
@every_world
def test_every_method_runs_in_every_world_and_a_run_is_its_seeds_alone(world, method):
    states = {"states_per_step": 3} if world in SOME_PROMPTS else {}
    beside = run(world, method, [4, 9], minibatches=2, **states)
    alone = run(world, method, [9], minibatches=2, **states)
    assert torch.equal(beside.parameters[1], alone.parameters[0])
    assert torch.equal(beside.entropy[1], alone.entropy[0])
    for name, value in alone.evaluation.items():
        assert value.shape == (1,) and value.isfinite().all()
        assert torch.equal(beside.evaluation[name][1], value[0])


@every_world
def test_repeating_a_world_repeats_its_runs(world):
    once, twice = WORLDS[world]([3, 5]), WORLDS[world]([3, 5]).repeated(2)
    for name, value in once.evaluate(once.parameters).items():
        assert torch.equal(twice.evaluate(twice.parameters)[name], value.repeat(2))


@pytest.mark.parametrize("method", ["reinforce", "grpo", "aepo", "reweighting", "pi_bonus", "entropic"])
@every_world
@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
def test_sampled_steps_approach_the_exact_one_in_every_world(world, method, seed):
    # One prompt a step, so that the second branch's prompt is the same; 20,000 samples.
    start = WORLDS[world]([seed])
    prompts = prompts_of_step(0, training=start.training, count=1)
    reward = start.enumerate(start.table(start.parameters), prompts, temperature=double([1.0])).reward
    # Where a faulty verifier accepts every action there is nothing to learn.
    assume(reward.min() < reward.max())
    states = {"states_per_step": 1} if world in SOME_PROMPTS else {}
    moves = [
        train(
            start,
            build(method),
            Constant(0.6),
            [seed],
            Settings(steps=1, lr=1.0, exact=exact, group_size=20_000, **states),
        ).parameters
        - start.parameters
        for exact in (True, False)
    ]
    # Five deviations of a mean over 20,000 terms below |A| (1 + alpha) = 3 x 5.
    assert (moves[0] - moves[1]).abs().max() < 5 * 15 / 20_000**0.5
    assert moves[0].abs().max() > 0


def test_more_states_a_step_than_there_are_is_refused():
    with pytest.raises(ValueError, match="states_per_step must be at most 5, got 6"):
        run("contextual", "grpo", [1], states_per_step=6)
    with pytest.raises(ValueError, match="states_per_step must be at least 1 or None, got 0"):
        Settings(states_per_step=0)


def test_a_number_is_a_float64_everywhere():
    for build_world in WORLDS.values():
        world = build_world([1])
        assert world.parameters.dtype == torch.float64
        prompts = prompts_of_step(0, training=world.training, count=1)
        table = world.table(world.parameters)
        rows = world.enumerate(table, prompts, temperature=double([1.0]))
        assert rows.share is not None and rows.share.dtype == rows.mask.dtype == rows.reward.dtype == torch.float64
