"""The contextual bandit: a linear policy, its gradient, its verifier's fixed errors, and its exact evaluation."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from aepo.schedule import Constant
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.contextual import Contextual, contextual
from aepo.tabular.worlds.world import tempered_log_probs
from aepo.zoo import build

SMALL = {"actions": 5, "features": 3, "states": 4, "held_out": 6, "most": 3}
FEW = settings(max_examples=25)
run_seeds = st.integers(0, 10_000)


def softmax(z: list[float]) -> list[float]:
    powers = [math.exp(x - max(z)) for x in z]
    return [power / sum(powers) for power in powers]


def logits_by_hand(world: Contextual, features: torch.Tensor, run: int, state: int) -> list[float]:
    phi, w = features[run, state].tolist(), world.parameters[run].tolist()
    return [sum(f * row[a] for f, row in zip(phi, w, strict=True)) for a in range(len(w[0]))]


@FEW
@given(run_seeds)
def test_the_logits_of_a_state_are_its_features_times_the_parameters(seed):
    world = contextual([seed, seed + 1], **SMALL)
    table = world.table(world.parameters)
    for run in range(2):
        for state in range(4):
            want = logits_by_hand(world, world.features, run, state)
            assert table[run, state].tolist() == pytest.approx(want, abs=1e-12)


@FEW
@given(run_seeds, st.sampled_from([0.5, 1.0, 2.0]))
def test_the_exact_step_climbs_the_expected_reward_by_finite_differences(seed, temperature):
    world = contextual([seed], **SMALL)
    # reinforce_tempered's objective: the mean over states of sum_a pi^T(a) [accepted] ln pi(a), the tempered
    # distribution held fixed; at T = 1 its gradient is that of the expected reward.
    fixed = torch.softmax(world.table(world.parameters) / temperature, -1) * world.accepted

    def objective(w: torch.Tensor) -> float:
        return (fixed * torch.log_softmax(world.features @ w, -1)).sum(-1).mean().item()

    after = train(
        world,
        build("reinforce_tempered", temperature=temperature),
        Constant(0.5),
        [seed],
        Settings(steps=1, lr=1.0, exact=True),
    ).parameters
    step = after - world.parameters
    h = 1e-5
    for d in range(3):
        for a in range(5):
            nudge = torch.zeros_like(world.parameters)
            nudge[0, d, a] = h
            slope = (objective(world.parameters + nudge) - objective(world.parameters - nudge)) / (2 * h)
            # Central differences of third derivatives below 10: error 10 h^2 = 1e-9, and rounding 1e-16 / h = 1e-11.
            assert step[0, d, a].item() == pytest.approx(slope, abs=2e-9)
    if temperature == 1.0:
        reward = (torch.softmax(world.features @ world.parameters, -1) * world.accepted).sum(-1).mean()
        moved = (torch.softmax(world.features @ (world.parameters + 1e-3 * step), -1) * world.accepted).sum(-1).mean()
        assert moved > reward or step.abs().max() < 1e-9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_samples_follow_each_states_tempered_policy_and_no_other(temperature):
    world, n = contextual([5], **SMALL), 20_000
    prompts = torch.tensor([2, 0])
    uniforms = torch.rand(1, 2 * n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table = world.table(world.parameters)
    drawn = world.sample(tempered_log_probs(table, torch.tensor([temperature]).double()).exp(), prompts, uniforms, n=n)
    assert drawn.prompt[0].tolist() == [2] * n + [0] * n
    for i, state in enumerate(prompts.tolist()):
        counts = torch.bincount(drawn.token[0, i * n : (i + 1) * n, 0], minlength=5).numpy()
        z = logits_by_hand(world, world.features, 0, state)
        want = [n * p for p in softmax([x / temperature for x in z])]
        assert chisquare(counts, want).pvalue > 1e-3
        other = [n * p for p in softmax([x / (1.2 * temperature) for x in z])]
        assert chisquare(counts, other).pvalue < 1e-6


@FEW
@given(run_seeds, st.sampled_from([0.5, 1.0, 2.0]))
def test_enumeration_lists_every_action_with_its_tempered_probability_and_verdict(seed, temperature):
    world = contextual([seed, seed + 1], **SMALL, false_positive=0.3)
    prompts = torch.tensor([3, 1])
    t = torch.full((2,), temperature).double()
    rows = world.enumerate(world.table(world.parameters), prompts, temperature=t)
    assert rows.group_size == 5 and rows.token.shape == (2, 10, 1)
    for run in range(2):
        for i, state in enumerate(prompts.tolist()):
            part = slice(5 * i, 5 * i + 5)
            z = logits_by_hand(world, world.features, run, state)
            assert rows.prompt[run, part].tolist() == [state] * 5
            assert rows.token[run, part, 0].tolist() == list(range(5))
            assert rows.share[run, part].tolist() == pytest.approx(softmax([x / temperature for x in z]), abs=1e-13)
            assert rows.reward[run, part].tolist() == world.accepted[run, state].double().tolist()


@FEW
@given(run_seeds)
def test_evaluation_is_a_loop_over_states_by_the_truth(seed):
    world = contextual([seed], **SMALL, false_positive=0.4, false_negative=0.4)
    got = {name: value.item() for name, value in world.evaluate(world.parameters).items()}
    train_success, success, greedy = [], [], []
    for state in range(4):
        p = softmax(logits_by_hand(world, world.features, 0, state))
        train_success.append(sum(x for x, right in zip(p, world.correct[0, state].tolist(), strict=True) if right))
    for state in range(6):
        z = logits_by_hand(world, world.held_out_features, 0, state)
        right = world.held_out_correct[0, state].tolist()
        success.append(sum(x for x, ok in zip(softmax(z), right, strict=True) if ok))
        greedy.append(right[z.index(max(z))])
    want = {
        "reward_train": sum(train_success) / 4,
        "reward_held_out": sum(success) / 6,
        "greedy_held_out": sum(greedy) / 6,
    } | {f"pass@{k}": sum(1 - (1 - p) ** k for p in success) / 6 for k in (1, 4, 16, 64)}
    assert got == pytest.approx(want, abs=1e-12)


@FEW
@given(run_seeds, st.integers(1, 3), st.integers(3, 5))
def test_each_state_has_between_fewest_and_most_right_actions(seed, fewest, most):
    world = contextual([seed], **(SMALL | {"fewest": fewest, "most": most}))
    for table in (world.correct, world.held_out_correct):
        counts = table.sum(-1)
        assert fewest <= counts.min() and counts.max() <= most


def test_the_right_actions_are_as_many_as_drawn_in_every_number_between():
    counts = contextual([0]).correct.sum(-1).flatten()
    assert set(counts.tolist()) == set(range(2, 9))
    assert counts.double().log().mean().item() == pytest.approx(1.52, abs=0.15)


@FEW
@given(run_seeds, st.sampled_from([0.0, 0.3, 0.9]), st.sampled_from([0.0, 0.3]))
def test_the_verifiers_errors_are_fixed_and_of_their_kind(seed, false_positive, false_negative):
    plain = contextual([seed], **SMALL)
    noisy, again = (
        contextual([seed], **SMALL, false_positive=false_positive, false_negative=false_negative) for _ in range(2)
    )
    assert torch.equal(noisy.accepted, again.accepted), "the same actions are accepted every time"
    # Everything but the verdict is the world without errors, held-out verdicts included.
    for field in dataclasses.fields(Contextual):
        if field.name != "accepted":
            assert torch.equal(getattr(noisy, field.name), getattr(plain, field.name)), field.name
    assert torch.equal(plain.accepted, plain.correct)
    wrongly, missed = noisy.accepted & ~noisy.correct, noisy.correct & ~noisy.accepted
    assert false_positive > 0 or not wrongly.any()
    assert false_negative > 0 or not missed.any()


def test_false_positives_are_as_frequent_as_asked_and_are_what_training_sees():
    world = contextual(range(20), false_positive=0.1, fewest=1, most=4)
    wrong = ~world.correct
    rate = (world.accepted & wrong).sum() / wrong.sum()
    # 20 x 64 x 13.5 wrong actions: five deviations of the rate are 0.0115.
    assert abs(rate.item() - 0.1) < 5 * (0.1 * 0.9 / int(wrong.sum())) ** 0.5
    prompts = torch.arange(64)
    rows = world.enumerate(world.table(world.parameters), prompts, temperature=torch.ones(20).double())
    assert torch.equal(rows.reward.view(20, 64, 16), world.accepted.double())


def test_a_reward_is_by_what_the_verifier_accepts_by_hand():
    # One state, action 1 right, action 2 accepted by mistake: training sees 0, 1, 1; the truth is 0, 1, 0.
    world = Contextual(
        parameters=torch.zeros(1, 1, 3).double(),
        features=torch.ones(1, 1, 1).double(),
        correct=torch.tensor([[[False, True, False]]]),
        accepted=torch.tensor([[[False, True, True]]]),
        held_out_features=torch.ones(1, 1, 1).double(),
        held_out_correct=torch.tensor([[[False, True, False]]]),
    )
    rows = world.enumerate(world.table(world.parameters), torch.tensor([0]), temperature=torch.ones(1).double())
    assert rows.reward.tolist() == [[0.0, 1.0, 1.0]]
    uniforms = torch.tensor([[0.1, 0.5, 0.9]]).double()
    drawn = world.sample(
        tempered_log_probs(world.parameters, torch.ones(1).double()).exp(), torch.tensor([0]), uniforms, n=3
    )
    assert (drawn.token.flatten().tolist(), drawn.reward.tolist()) == ([0, 1, 2], [[0.0, 1.0, 1.0]])
    assert world.evaluate(world.parameters)["reward_train"].item() == pytest.approx(1 / 3, abs=1e-15)


def test_a_seed_gives_its_world_whatever_seeds_stand_beside_it():
    alone, beside = contextual([7], **SMALL), contextual([3, 7], **SMALL)
    for field in dataclasses.fields(Contextual):
        assert torch.equal(getattr(alone, field.name)[0], getattr(beside, field.name)[1]), field.name
    assert not torch.equal(beside.features[0], beside.features[1])


def test_the_policy_starts_near_the_teacher():
    # W_0 = W* + 1.4 noise: better than chance, far from perfect.
    world = contextual(range(8))
    reward = world.evaluate(world.parameters)["reward_train"].mean().item()
    uniform = world.correct.double().mean().item()
    assert uniform + 0.1 < reward < 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fewest": 0}, r"1 <= fewest <= most <= actions=5 must hold, got fewest=0, most=3"),
        ({"most": 6}, r"got fewest=2, most=6"),
        ({"fewest": 3, "most": 2}, r"got fewest=3, most=2"),
        ({"states": 0}, "states must be at least 1, got 0"),
        ({"held_out": 0}, "held_out must be at least 1, got 0"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"false_positive": 1.0}, r"false_positive must be in \[0, 1\), got 1\.0"),
        ({"false_negative": -0.1}, r"false_negative must be in \[0, 1\), got -0\.1"),
    ],
)
def test_impossible_worlds_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        contextual([0], **(SMALL | changes))


def test_tables_that_disagree_or_lack_a_right_action_are_refused():
    world = contextual([0], **SMALL)
    with pytest.raises(
        ValueError, match=r"correct and accepted must share one shape .* got \(1, 4, 5\) and \(1, 4, 4\)"
    ):
        dataclasses.replace(world, accepted=world.accepted[..., :4])
    with pytest.raises(ValueError, match="every state needs at least one correct action"):
        dataclasses.replace(world, held_out_correct=torch.zeros_like(world.held_out_correct))
