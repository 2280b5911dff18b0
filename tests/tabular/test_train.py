"""The tabular step: the update it makes, and that a run is a function of its seed and settings alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from aepo.batch import Rollouts
from aepo.schedule import Constant
from aepo.tabular.settings import Settings
from aepo.tabular.train import DivergedError, stats, train
from aepo.tabular.worlds.bandit import Bandit, bandit
from aepo.zoo import METHODS, build

temperatures = st.sampled_from([0.5, 0.8, 1.0, 1.2, 2.0])


def one_step(world: Bandit, method, *, lr: float = 1.0, exact: bool = True, group_size: int = 64):
    settings = Settings(steps=1, lr=lr, exact=exact, group_size=group_size)
    return train(world, method, Constant(0.5), list(range(len(world.logits))), settings)


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def entropy(z: np.ndarray) -> np.ndarray:
    p = softmax(z)
    return -(p * np.log(p)).sum(-1)


def worlds(seed: int, actions: int, correct: int, scale: float) -> Bandit:
    base = bandit([seed, seed + 1], actions=actions, correct=min(correct, actions))
    return Bandit(logits=scale * base.logits, correct=base.correct)


@given(
    seed=seeds,
    actions=st.integers(2, 9),
    correct=st.integers(1, 9),
    scale=st.sampled_from([0.0, 1.0, 4.0]),
    temperature=temperatures,
)
def test_exact_reinforce_is_equation_4(seed, actions, correct, scale, temperature):
    world = worlds(seed, actions, correct, scale)
    after = one_step(world, build("reinforce_tempered", temperature=temperature), lr=0.7).parameters
    z, right = world.logits.numpy(), world.correct.numpy()
    # dz = lr sum_{a in A*} pi^T(a) (e_a - pi), Assumption B.4.
    kept = softmax(z / temperature) * right
    expected = z + 0.7 * (kept - kept.sum(-1, keepdims=True) * softmax(z))
    np.testing.assert_allclose(after.numpy(), expected, rtol=0, atol=1e-13)


@given(seed=seeds, actions=st.integers(2, 9), correct=st.integers(1, 9))
def test_exact_reinforce_at_temperature_1_is_the_policy_gradient(seed, actions, correct):
    world = worlds(seed, actions, correct, 1.0)
    after = one_step(world, build("reinforce"), lr=0.7).parameters
    z, right = world.logits.numpy(), world.correct.numpy()
    p = softmax(z)
    expected = z + 0.7 * p * (right - (p * right).sum(-1, keepdims=True))
    np.testing.assert_allclose(after.numpy(), expected, rtol=0, atol=1e-13)


@given(seed=seeds, actions=st.integers(2, 9), correct=st.integers(1, 9), temperature=temperatures)
def test_first_order_entropy_change_is_minus_the_covariance(seed, actions, correct, temperature):
    world = worlds(seed, actions, correct, 1.0)
    method = build("reinforce_tempered", temperature=temperature)
    z = world.logits.numpy()
    p = softmax(z)
    for lr in (1e-2, 1e-3, 1e-4):
        moved = one_step(world, method, lr=lr).parameters.numpy()
        dz = moved - z
        covariance = (p * dz * z).sum(-1) - (p * dz).sum(-1) * (p * z).sum(-1)
        # Along d = dz, H'' = -Var(d) - Cov(d^2, ln p); Var(d) <= lr^2 and |ln p| < 12 give |H''| < 60 lr^2.
        assert np.all(np.abs(entropy(moved) - entropy(z) + covariance) <= 30 * lr**2 + 1e-14)


def test_statistics_are_those_of_each_rows_own_state():
    # Two runs, three states and actions, responses of two tokens: the second one's state is the first.
    table = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = Rollouts(
        prompt=torch.tensor([[0, 2], [1, 2]]),
        token=torch.tensor([[[2, 1], [0, 0]], [[1, 2], [2, 0]]]),
        mask=torch.ones(2, 2, 2).double(),
        reward=torch.ones(2, 2).double(),
        group_size=1,
    )
    logp, entropies = stats(table, rows)
    for run, row in np.ndindex(2, 2):
        first, second = rows.token[run, row].tolist()
        for place, (state, action) in enumerate([(rows.prompt[run, row].item(), first), (first, second)]):
            z = table[run, state].numpy()
            assert logp[run, row, place].item() == pytest.approx(np.log(softmax(z)[action]), abs=1e-14)
            assert entropies[run, row, place].item() == pytest.approx(entropy(z), abs=1e-14)


# These take plain means over the batch's tokens, and every action once is another batch than samples are.
CONVERGING = sorted(set(METHODS) - {"clip_b", "clip_cov", "clip_v", "kl_cov", "stare"})


@pytest.mark.parametrize("name", CONVERGING)
def test_sampled_updates_converge_to_the_exact_one(name):
    world, method = bandit([11], actions=6, correct=3), build(name)
    exact = one_step(world, method).parameters - world.logits
    alpha = 1.0 if method.tempered is None else method.tempered.alpha
    if name == "reweighting":
        alpha = 4.0
    for count in (1_000, 100_000):
        sampled = one_step(world, method, exact=False, group_size=count).parameters - world.logits
        # A coordinate's deviation is at most (1 + alpha) |A| / sqrt(count) with |A| < 3; 4 deviations.
        assert (sampled - exact).abs().max().item() < 4 * 3 * (1 + alpha) / count**0.5


def runs(name: str, seeds: list[int], targets: list[float], **changes):
    settings = Settings(**({"steps": 40} | changes))
    goal = torch.tensor(targets, dtype=torch.float64).repeat_interleave(len(seeds))
    return train(bandit(seeds).repeated(len(targets)), build(name), Constant(goal), seeds * len(targets), settings)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_same_seed_same_bits_whatever_runs_beside(name, exact):
    beside = runs(name, [4, 9, 2], [0.3, 0.6], exact=exact)
    again = runs(name, [4, 9, 2], [0.3, 0.6], exact=exact)
    alone = runs(name, [9], [0.6], exact=exact)
    assert torch.equal(beside.parameters, again.parameters) and torch.equal(beside.entropy, again.entropy)
    # Run 4 of the batch is seed 9 at the second target.
    assert torch.equal(beside.parameters[4], alone.parameters[0])
    assert torch.equal(beside.entropy[4], alone.entropy[0])
    assert torch.equal(beside.reward[4], alone.reward[0])


def test_another_seed_gives_another_run():
    history = runs("aepo", [4, 9], [0.5])
    assert not torch.equal(history.entropy[0], history.entropy[1])


def test_current_control_answers_this_steps_entropy():
    history = runs("aepo", [4, 9], [0.5], steps=80, sees="current")
    assert torch.equal(history.raise_entropy, history.entropy < 0.5)
    assert history.raise_entropy.any() and not history.raise_entropy.all()
    assert torch.equal(history.temperature == 1.2, history.raise_entropy)


def test_previous_control_is_one_step_late_and_starts_by_raising():
    history = runs("aepo", [4, 9], [0.5], steps=80, sees="previous")
    assert history.raise_entropy[:, 0].all()
    assert torch.equal(history.raise_entropy[:, 1:], history.entropy[:, :-1] < 0.5)
    assert not torch.equal(history.raise_entropy, history.entropy < 0.5)


def test_e3_samples_the_main_rollouts_at_its_temperature_and_measures_the_policy_at_1():
    world, method, right = bandit([3]), build("e3", vocabulary=16), bandit([3]).correct[0].numpy()
    temperature, parameters, hot = 1.0, world.parameters, 0
    for steps in range(1, 8):
        at = train(world, method, Constant(2.7), [3], Settings(steps=steps, exact=True))
        plain = parameters[0].flatten().numpy()
        # The last step's rollouts are weighed as those of pi^T, T the temperature that the step before chose.
        assert at.reward[0, -1].item() == pytest.approx((softmax(plain / temperature) * right).sum(), abs=1e-12)
        assert at.entropy[0, -1].item() == pytest.approx(entropy(plain), abs=1e-12)
        temperature, parameters = at.temperature[0, -1].item(), at.parameters
        hot += temperature > 1.01
    assert hot > 3


def test_a_moving_target_is_recorded_and_followed():
    history = train(bandit([1]), build("aepo"), lambda step: 0.9 if step < 20 else 0.1, [1], Settings(steps=40))
    assert history.target[0].tolist() == [0.9] * 20 + [0.1] * 20
    assert torch.equal(history.raise_entropy, history.entropy < history.target)


def test_minibatches_of_an_on_policy_score_function_differ_by_second_order_only():
    # Four quarter steps from moving policies against one whole step: equal to first order in lr.
    gaps = []
    for lr in (1e-2, 1e-3):
        whole = runs("reinforce", [4], [0.5], steps=1, lr=lr / 4).parameters
        parts = runs("reinforce", [4], [0.5], steps=1, lr=lr / 4, minibatches=4).parameters
        start = bandit([4]).logits
        gaps.append(((parts - start) - 4 * (whole - start)).abs().max().item())
    assert 0 < gaps[1] < gaps[0] / 50


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
        ({"minibatches": 0}, "minibatches must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be > 0, got 0.0"),
        ({"lr": float("nan")}, "lr must be > 0, got nan"),
        ({"sees": "next"}, "sees must be 'current' or 'previous', got 'next'"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**changes)


def test_every_run_needs_a_seed():
    with pytest.raises(ValueError, match="one entry per run = 2, got 1"):
        train(bandit([0, 1]), build("grpo"), Constant(0.5), [0], Settings(steps=1))


def test_a_diverged_run_is_named():
    world = Bandit(logits=torch.tensor([[[0.0, 1.0]]]).double(), correct=torch.tensor([[[True, False]]]))
    with pytest.raises(DivergedError, match=r"run 0 \(seed 3\) of method 'reinforce' left non-finite logits"):
        train(world, build("reinforce"), Constant(0.5), [3], Settings(steps=3, lr=float("inf"), exact=True))
