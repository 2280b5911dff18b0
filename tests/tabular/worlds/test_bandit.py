"""The bandit: what it samples, what it enumerates, and where it starts."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from aepo.tabular.train import Noise, score
from aepo.tabular.worlds.bandit import Bandit, bandit
from aepo.tabular.worlds.world import tempered_log_probs


def tempered(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(z / T), in NumPy."""
    powers = np.exp((logits - logits.max()) / temperature)
    return powers / powers.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_samples_follow_the_tempered_policy_and_no_other(temperature):
    world = bandit([5], actions=6, correct=2)
    n = 20_000
    uniforms = torch.rand(1, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = world.sample(
        tempered_log_probs(world.logits, torch.tensor([temperature]).double()).exp(), world.prompts, uniforms, n=n
    )
    counts = np.bincount(drawn.token.flatten().numpy(), minlength=6)
    logits = world.logits[0, 0].numpy()
    assert chisquare(counts, n * tempered(logits, temperature)).pvalue > 1e-3
    assert chisquare(counts, n * tempered(logits, temperature * 1.2)).pvalue < 1e-9


def test_inverse_transform_meets_the_edges_of_the_unit_interval():
    # Two actions of probability 1/2: u = 0 is the first, u = 1/2 and just below 1 the second.
    world = Bandit(logits=torch.zeros(1, 1, 2).double(), correct=torch.tensor([[[True, False]]]))
    uniforms = torch.tensor([[0.0, 0.5 - 1e-12, 0.5, 1.0 - 2**-53]], dtype=torch.float64)
    drawn = world.sample(tempered_log_probs(world.logits, torch.ones(1).double()).exp(), world.prompts, uniforms, n=4)
    assert drawn.token.flatten().tolist() == [0, 0, 1, 1]
    assert drawn.reward.flatten().tolist() == [1.0, 1.0, 0.0, 0.0]


def test_each_state_answers_its_own_prompt():
    # State 0 always plays action 1, state 1 always action 0; only (state 0, action 1) is right.
    logits = torch.tensor([[[-60.0, 60.0], [60.0, -60.0]]]).double()
    world = Bandit(logits=logits, correct=torch.tensor([[[False, True], [False, True]]]))
    uniforms = torch.full((1, 6), 0.5).double()
    drawn = world.sample(logits.softmax(-1), world.prompts, uniforms, n=3)
    assert drawn.prompt.tolist() == [[0, 0, 0, 1, 1, 1]]
    assert drawn.token.flatten().tolist() == [1, 1, 1, 0, 0, 0]
    assert drawn.reward.tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0, 0.0]]


def test_enumeration_is_the_expectation():
    world = bandit([3], actions=5, correct=2)
    rows = score(world.logits, world.enumerate(world.logits, world.prompts, temperature=torch.ones(1).double()))
    probability = tempered(world.logits[0, 0].numpy(), 1.0)
    right = world.correct[0, 0].numpy()
    assert rows.mean_reward().item() == pytest.approx(probability[right].sum(), abs=1e-15)
    assert rows.mean_entropy().item() == pytest.approx(-(probability * np.log(probability)).sum(), abs=1e-14)


def test_a_seed_gives_its_bandit_whatever_seeds_stand_beside_it():
    alone, beside = bandit([7]), bandit([3, 7])
    assert torch.equal(alone.logits[0], beside.logits[1])
    assert torch.equal(alone.correct[0], beside.correct[1])
    assert beside.correct.sum(-1).flatten().tolist() == [8, 8]


def test_a_head_start_raises_the_right_actions_alone():
    plain, ahead = bandit([2]), bandit([2], head_start=4.0)
    torch.testing.assert_close(ahead.logits - plain.logits, 4.0 * plain.correct.double())


def test_noise_depends_on_seed_branch_and_step_alone():
    noise, other = Noise([1, 2]), Noise([2])
    assert torch.equal(noise("main", 70, 8)[1], other("main", 70, 8)[0])
    # Back to an earlier chunk and forth again.
    first = noise("main", 3, 8).clone()
    noise("main", 100, 8)
    assert torch.equal(noise("main", 3, 8), first)
    assert not torch.equal(noise("tempered", 3, 8), first)
    # Not the next step, nor the same place of the next chunk.
    assert not torch.equal(noise("main", 4, 8), first)
    assert not torch.equal(noise("main", 3 + Noise.CHUNK, 8), first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": 1}, "actions must be at least 2, got 1"),
        ({"correct": 0}, r"correct must be in \[1, actions=16\], got 0"),
        ({"correct": 17}, r"correct must be in \[1, actions=16\], got 17"),
    ],
)
def test_impossible_bandits_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        bandit([0], **changes)


def test_a_state_without_a_right_answer_is_refused():
    with pytest.raises(ValueError, match="every state needs"):
        Bandit(logits=torch.zeros(1, 1, 2), correct=torch.zeros(1, 1, 2, dtype=torch.bool))


def test_entropy_starts_near_its_expected_level():
    # K = 16, logits N(0, 1): ln 16 = 2.77 less about half the logits' variance.
    assert math.log(16) - 0.7 < _mean_entropy(bandit(range(64))) < math.log(16) - 0.2


def _mean_entropy(world: Bandit) -> float:
    rows = world.enumerate(world.logits, world.prompts, temperature=torch.ones(len(world.logits)).double())
    return score(world.logits, rows).mean_entropy().mean().item()
