"""Sequences of tokens: prefixes as states, exact enumeration, entropy as the theory defines it, and endings."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from aepo.tabular.worlds.sequences import END, Sequences, sequences
from aepo.tabular.worlds.world import looked_up, tempered_log_probs
from aepo.theory.sequences import token_entropy

FEW = settings(max_examples=25)
run_seeds = st.integers(0, 10_000)
sizes = st.sampled_from([(2, 1), (2, 4), (3, 3), (4, 2)])
PROMPT = torch.zeros(1, dtype=torch.int64)


def one(temperature: float = 1.0, runs: int = 1) -> torch.Tensor:
    return torch.full((runs,), temperature).double()


def conditional(world: Sequences, run: int, prefix: tuple[int, ...], temperature: float = 1.0) -> list[float]:
    """pi^T(. | prefix): prefixes are numbered level by level, each level in the order of its strings."""
    vocabulary = world.parameters.shape[-1]
    place = sum(vocabulary**t for t in range(len(prefix)))
    place += sum(token * vocabulary ** (len(prefix) - 1 - t) for t, token in enumerate(prefix))
    powers = [math.exp(z / temperature) for z in world.parameters[run, place].tolist()]
    return [power / sum(powers) for power in powers]


def strings(world: Sequences) -> list[tuple[int, ...]]:
    """Every response as it is read: up to its first END, where responses end."""
    vocabulary = world.parameters.shape[-1]
    found = []
    for string in itertools.product(range(vocabulary), repeat=world.length):
        if world.ends and END in string:
            string = string[: string.index(END) + 1]
        if string not in found:
            found.append(string)
    return found


def probability(world: Sequences, run: int, string: tuple[int, ...], temperature: float = 1.0) -> float:
    return math.prod(conditional(world, run, string[:t], temperature)[token] for t, token in enumerate(string))


def spelled(world: Sequences, string: tuple[int, ...]) -> int:
    """The string's place in `correct`: its code once it is filled up with END."""
    vocabulary = world.parameters.shape[-1]
    filled = string + (END,) * (world.length - len(string))
    return sum(token * vocabulary ** (world.length - 1 - t) for t, token in enumerate(filled))


@pytest.mark.parametrize(("vocabulary", "length"), [(2, 1), (2, 5), (3, 4), (4, 3)])
def test_the_states_are_the_prefixes_one_number_each(vocabulary, length):
    world = sequences([0], vocabulary=vocabulary, length=length, correct=1)
    responses = torch.tensor(list(itertools.product(range(vocabulary), repeat=length)))[None]
    state = world.state(torch.zeros(responses.shape[:2], dtype=torch.int64), responses)
    seen: dict[int, tuple[int, ...]] = {}
    for row, numbers in zip(responses[0].tolist(), state[0].tolist(), strict=True):
        for t, number in enumerate(numbers):
            assert seen.setdefault(number, tuple(row[:t])) == tuple(row[:t]), "a number is one prefix"
    assert sorted(seen) == list(range(world.parameters.shape[1])), "and every number is used"
    assert len(set(seen.values())) == len(seen)


@FEW
@given(run_seeds, sizes, st.booleans(), st.sampled_from([0.5, 1.0, 2.0]))
def test_enumerated_shares_are_products_of_conditionals_and_sum_to_one(seed, size, ends, temperature):
    world = sequences([seed, seed + 1], vocabulary=size[0], length=size[1], correct=2, ends=ends)
    rows = world.enumerate(world.parameters, PROMPT, temperature=one(temperature, 2))
    assert rows.share.sum(-1).tolist() == pytest.approx([1.0, 1.0], abs=1e-13)
    for run in range(2):
        carried = {
            tuple(token[: int(mask.sum())]): share
            for token, mask, share in zip(
                rows.token[run].tolist(), rows.mask[run], rows.share[run].tolist(), strict=True
            )
            if share > 0
        }
        want = {string: probability(world, run, string, temperature) for string in strings(world)}
        assert carried.keys() == want.keys()
        assert [carried[string] for string in want] == pytest.approx(list(want.values()), abs=1e-13)


@FEW
@given(run_seeds, sizes, st.sampled_from([0.5, 1.0, 2.0]))
def test_the_mean_entropy_is_the_theorys_token_entropy(seed, size, temperature):
    vocabulary, length = size
    world = sequences([seed], vocabulary=vocabulary, length=length, correct=2)
    rows = world.enumerate(world.parameters, PROMPT, temperature=one(temperature))
    log_probs = tempered_log_probs(world.parameters, one())
    per_state = -(log_probs.exp() * log_probs).sum(-1)
    state = world.state(rows.prompt, rows.token)
    entropy = per_state.gather(1, state.view(1, -1)).view(state.shape)
    levels, start = [], 0
    for t in range(length):
        level = world.parameters[0, start : start + vocabulary**t].reshape((vocabulary,) * t + (vocabulary,))
        levels.append(level.numpy())
        start += vocabulary**t
    want = token_entropy(levels, 1.0, prefix_temperature=temperature)
    assert rows.replace(entropy=entropy).mean_entropy().item() == pytest.approx(want, abs=1e-13)


@FEW
@given(run_seeds, sizes, st.booleans())
def test_the_mask_stops_after_the_first_end_and_the_verdict_is_the_strings(seed, size, ends):
    world = sequences([seed], vocabulary=size[0], length=size[1], correct=2, ends=ends)
    rows = world.enumerate(world.parameters, PROMPT, temperature=one())
    assert rows.full == (not ends)
    right = world.correct[0].tolist()
    for token, mask, reward in zip(rows.token[0].tolist(), rows.mask[0].tolist(), rows.reward[0].tolist(), strict=True):
        length = token.index(END) + 1 if ends and END in token else size[1]
        assert mask == [1.0] * length + [0.0] * (size[1] - length)
        assert reward == right[spelled(world, tuple(token[:length]))]


@FEW
@given(run_seeds, sizes, st.booleans())
def test_evaluation_is_a_loop_over_responses(seed, size, ends):
    correct = 2
    world = sequences([seed], vocabulary=size[0], length=size[1], correct=correct, ends=ends)
    right = [string for string in strings(world) if world.correct[0, spelled(world, string)]]
    assert len(right) == correct, "as many different responses are right as were asked for"
    p = [probability(world, 0, string) for string in right]
    success = sum(p)
    got = {name: value.item() for name, value in world.evaluate(world.parameters).items()}
    want = {
        "reward_train": success,
        "reward_held_out": success,
        "correct_length": sum(x * len(string) for x, string in zip(p, right, strict=True)) / success,
    } | {f"pass@{k}": 1 - (1 - success) ** k for k in (1, 4, 16, 64)}
    assert got == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_samples_follow_the_tempered_policy_and_no_other(temperature, ends):
    world, n = sequences([5], vocabulary=3, length=3, correct=4, ends=ends), 20_000
    uniforms = torch.rand(1, 3 * n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    drawn = world.sample(tempered_log_probs(world.parameters, one(temperature)).exp(), PROMPT, uniforms, n=n)
    read = [
        tuple(token[:length])
        for token, length in zip(drawn.token[0].tolist(), drawn.mask[0].sum(-1).long().tolist(), strict=True)
    ]
    every = strings(world)
    counts = np.array([read.count(string) for string in every])
    want, other = (
        np.array([probability(world, 0, string, t) for string in every]) for t in (temperature, 1.2 * temperature)
    )
    assert chisquare(counts, n * want / want.sum()).pvalue > 1e-3
    assert chisquare(counts, n * other / other.sum()).pvalue < 1e-6
    rewards = dict(zip(read, drawn.reward[0].tolist(), strict=True))
    assert all(reward == world.correct[0, spelled(world, string)] for string, reward in rewards.items())


def test_a_response_that_ends_by_hand():
    # Two tokens, two of length, all logits 0: END alone has 1/2, (1, END) and (1, 1) have 1/4 each.
    world = Sequences(
        parameters=torch.zeros(1, 3, 2).double(),
        correct=torch.tensor([[True, False, False, True]]),
        length=2,
        ends=True,
    )
    rows = world.enumerate(world.parameters, PROMPT, temperature=one())
    assert rows.token[0].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert rows.mask[0].tolist() == [[1, 0], [1, 0], [1, 1], [1, 1]]
    assert rows.share[0].tolist() == pytest.approx([0.5, 0.0, 0.25, 0.25], abs=1e-15)
    assert rows.reward[0].tolist() == [1, 1, 0, 1], "(0, 1) reads as (0), which is right"
    # Right: (0) of length 1 with 1/2, (1, 1) of length 2 with 1/4: (1/2 + 2/4) / (3/4) = 4/3.
    got = world.evaluate(world.parameters)
    assert got["reward_train"].item() == pytest.approx(0.75)
    assert got["correct_length"].item() == pytest.approx(4 / 3)


def test_sampled_and_looked_up_log_probs_are_those_of_the_tokens_own_prefix():
    world = sequences([3], vocabulary=3, length=3, correct=2)
    rows = world.enumerate(world.parameters, PROMPT, temperature=one())
    log_probs = tempered_log_probs(world.parameters, one())
    logp = looked_up(log_probs, world.state(rows.prompt, rows.token), rows.token)
    for token, got in zip(rows.token[0].tolist(), logp[0].tolist(), strict=True):
        want = [math.log(conditional(world, 0, tuple(token[:t]))[token[t]]) for t in range(3)]
        assert got == pytest.approx(want, abs=1e-13)


def test_a_seed_gives_its_world_whatever_seeds_stand_beside_it():
    for ends in (False, True):
        alone = sequences([7], vocabulary=3, length=3, correct=4, ends=ends)
        beside = sequences([3, 7], vocabulary=3, length=3, correct=4, ends=ends)
        assert torch.equal(alone.parameters[0], beside.parameters[1])
        assert torch.equal(alone.correct[0], beside.correct[1])
        assert not torch.equal(beside.correct[0], beside.correct[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary": 1}, "vocabulary must be >= 2 and length >= 1, got 1 and 3"),
        ({"length": 0}, "vocabulary must be >= 2 and length >= 1, got 3 and 0"),
        ({"correct": 0}, r"correct must be in \[1, 27\], got 0"),
        ({"correct": 28}, r"correct must be in \[1, 27\], got 28"),
        # (0), 2 x (t, 0), 4 x (t, t, 0) and 8 without an end are 15 responses.
        ({"correct": 16, "ends": True}, r"correct must be in \[1, 15\], got 16"),
    ],
)
def test_impossible_sequences_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        sequences([0], **({"vocabulary": 3, "length": 3, "correct": 2} | changes))


def test_tables_of_another_size_or_without_a_right_response_are_refused():
    world = sequences([0], vocabulary=3, length=3, correct=2)
    with pytest.raises(ValueError, match="length=2 and 3 tokens need 4 prefixes and 9 responses, got 13 and 27"):
        dataclasses.replace(world, length=2)
    with pytest.raises(ValueError, match="every run needs at least one correct response"):
        dataclasses.replace(world, correct=torch.zeros_like(world.correct))
