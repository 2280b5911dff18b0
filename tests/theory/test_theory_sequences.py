"""Autoregressive policies: Def. B.1's entropy and its first-order change, against the core on whole responses.

Letters: n tokens, R responses, B_t tokens to choose from at position t.
"""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import BULK, EPS, seeds
from three_ways import PAPER, RELATIVE_TO_AUTOGRAD, RELATIVE_TO_STEPS

from aepo import categorical
from aepo.batch import Rollouts
from aepo.controller import Control
from aepo.loss import policy_loss
from aepo.method import assemble
from aepo.theory import (
    delta_entropy,
    delta_entropy_of_sequences,
    entropy,
    prefix_probabilities,
    reinforce_step,
    sequence_step,
    tempered,
    token_entropy,
)

TREES = 16
"""Trees per example."""


@st.composite
def trees(draw, *, depths=(2, 3)) -> list[tuple[list[np.ndarray], np.ndarray]]:
    """TREES policies of one shape, B_t from 1 to 4, with their correct responses, or graded ones."""
    branching = draw(st.lists(st.integers(1, 4), min_size=min(depths), max_size=max(depths)))
    scale, graded = draw(st.sampled_from([0.3, 1.0, 3.0])), draw(st.booleans())
    generator = np.random.default_rng(draw(seeds))

    def tree():
        levels = [scale * generator.normal(size=branching[: t + 1]) for t in range(len(branching))]
        reward = (generator.random(branching) < 0.5).astype(np.float64)
        return levels, reward * generator.exponential(size=branching) if graded else reward

    return [tree() for _ in range(TREES)]


temperature = st.one_of(st.just(1.0), st.floats(0.3, 4.0))


# -- the core on whole responses --


def responses(levels: list[torch.Tensor], reward: np.ndarray, heat: float) -> tuple[Rollouts, torch.Tensor]:
    """Every response with its probability at the temperature, scored at T = 1; and the logits (R, n, B) of its tokens.

    Where a position has fewer tokens than the widest, the others are impossible.
    """
    widest = max(reward.shape)
    token = torch.tensor(list(itertools.product(*(range(b) for b in reward.shape))))
    rows = []
    for t, level in enumerate(levels):
        at = level[tuple(token[:, i] for i in range(t))] if t else level.expand(len(token), -1)
        rows.append(torch.nn.functional.pad(at, (0, widest - at.shape[-1]), value=-torch.inf))
    logits = torch.stack(rows, 1)
    logp, h = categorical.token_stats(logits, token)
    share = categorical.log_prob(logits, token, heat).sum(-1).exp()
    ones = torch.ones(token.shape, dtype=torch.float64)
    return Rollouts(
        prompt=torch.zeros(len(token), dtype=torch.int64),
        token=token,
        mask=ones,
        reward=torch.tensor(reward.reshape(-1)),
        group_size=len(token),
        share=share,
        old_logp=logp,
        entropy=h,
    ), logits


def shared_gradients(levels: list[np.ndarray], reward: np.ndarray, heat: float):
    """Per level: the gradient of the core's mean entropy, and minus the gradient of the shared loss, times n.

    The loss averages over a response's tokens, where Eq. 4 adds them up: hence the n.
    """
    leaves = [torch.tensor(level).requires_grad_() for level in levels]
    main, logits = responses(leaves, reward, 1.0)
    uphill = torch.autograd.grad(main.mean_entropy(), leaves, retain_graph=True)
    second, _ = responses([leaf.detach() for leaf in leaves], reward, heat)
    control = Control(temperature=torch.tensor(heat), raise_entropy=torch.tensor(True))
    fixed, _ = responses([leaf.detach() for leaf in leaves], reward, 1.0)
    batch = assemble(PAPER, control, fixed, second)
    logp, h = categorical.token_stats(torch.cat([logits, logits]), batch.token)
    loss, _ = policy_loss(logp, PAPER.bonus(logp, h), batch, PAPER.surrogate)
    ascent = torch.autograd.grad(-loss, leaves)
    return [g.numpy() for g in uphill], [len(levels) * g.numpy() for g in ascent]


def last_place(levels) -> float:
    """What a number of size 1 is off by after all tokens' softmaxes."""
    largest = max(np.abs(level).max() for level in levels)
    return 16 * EPS * len(levels) * (4 + largest)


@settings(BULK)
@given(trees(depths=(1, 3)), temperature)
def test_prefixes_are_as_likely_as_all_that_follows_them(cases, heat):
    for levels, _ in cases:
        reached = prefix_probabilities(levels, heat)
        assert len(reached) == len(levels) + 1 and reached[0] == 1
        for shorter, longer in itertools.pairwise(reached):
            np.testing.assert_allclose(longer.sum(-1), shorter, rtol=0, atol=8 * EPS)
        leaves = [torch.tensor(level) for level in levels]
        share = responses(leaves, np.zeros([level.shape[-1] for level in levels]), heat)[0].share
        np.testing.assert_allclose(reached[-1].reshape(-1), share, rtol=0, atol=last_place(levels) / heat)


@settings(BULK)
@given(trees(depths=(1, 3)))
def test_the_token_entropy_is_the_cores_mean_entropy(cases):
    for levels, reward in cases:
        main, _ = responses([torch.tensor(level) for level in levels], reward, 1.0)
        assert token_entropy(levels) == pytest.approx(float(main.mean_entropy()), abs=2 * last_place(levels))


@settings(BULK)
@given(trees(depths=(1, 3)), st.floats(0.3, 4.0), st.floats(0.3, 4.0))
def test_with_the_prefixes_held_fixed_the_token_entropy_rises_with_the_temperature(cases, heat, fixed):
    for levels, _ in cases:
        low, high = (token_entropy(levels, t, prefix_temperature=fixed) for t in (heat, 1.1 * heat))
        assert low <= high + last_place(levels) / heat
        several = any(level.shape[-1] > 1 for level in levels)
        assert not several or low < high or max(np.ptp(level) for level in levels) > 3


def test_delta_h_of_sequences_three_ways():
    met = Counter()

    @settings(BULK)
    @given(trees(), temperature)
    def law(cases, heat):
        for levels, reward in cases:
            want = delta_entropy_of_sequences(levels, reward, temperature=heat)
            uphill, ascent = shared_gradients(levels, reward, heat)
            step = sequence_step(levels, reward, temperature=heat)
            noise = last_place(levels) * (1 + 1 / heat) * (1 + reward.max())
            for level, after, direction in zip(levels, step, ascent, strict=True):
                np.testing.assert_allclose(after - level, direction, rtol=0, atol=noise)
            learnt = sum(float((g * v).sum()) for g, v in zip(uphill, ascent, strict=True))
            assert abs(learnt - want) <= RELATIVE_TO_AUTOGRAD * abs(want) + 4 * noise
            met["by autograd to 1e-8"] += int(4 * noise <= RELATIVE_TO_AUTOGRAD * abs(want))

            size = max(float(np.abs(v).max()) for v in ascent) + 1e-12
            h = 2.0**-8

            def along(steps, levels=levels, reward=reward, size=size, h=h):
                up, down = (
                    token_entropy(sequence_step(levels, reward, temperature=heat, lr=sign * steps * h / size))
                    for sign in (1, -1)
                )
                return up - down

            fine, coarse = (8 * along(1) - along(2)) / (12 * h), (8 * along(2) - along(4)) / (24 * h)
            off = size * (abs(fine - coarse) + 3 * last_place(levels) / h)
            assert abs(size * fine - want) <= RELATIVE_TO_STEPS * abs(want) + off + 4 * noise
            met["by steps to 1e-5"] += int(off + 4 * noise <= RELATIVE_TO_STEPS * abs(want))
            met["trees"] += 1
            met["moved"] += abs(want) > 1e-6  # nothing moves where no response is correct, or each token the only one
            met["falls"] += want < 0
            met["unequal branching"] += len(set(reward.shape)) > 1
            met["three tokens"] += len(levels) == 3

    law()
    print(dict(met))
    assert met["by autograd to 1e-8"] > 0.5 * met["moved"] > 100
    assert met["by steps to 1e-5"] > 0.5 * met["moved"]
    for kind in ("falls", "unequal branching", "three tokens"):
        assert met[kind] > 0.1 * met["trees"] > 50, kind


@settings(BULK)
@given(trees(depths=(1, 1)), temperature, st.sampled_from([0.1, 1.0, 5.0]))
def test_one_token_is_the_bandit(cases, heat, lr):
    for levels, reward in cases:
        z = levels[0]
        options = {"temperature": heat, "lr": lr}
        noise = lr * last_place(levels) * (1 + 1 / heat) * (1 + reward.max())
        want = float(delta_entropy(z, reward, **options))
        assert delta_entropy_of_sequences(levels, reward, **options) == pytest.approx(want, abs=noise, rel=1e-12)
        step = reinforce_step(z, reward, **options)
        np.testing.assert_allclose(sequence_step(levels, reward, **options)[0], step, rtol=0, atol=noise)
        assert token_entropy(levels, heat) == pytest.approx(float(entropy(z, heat)), abs=last_place(levels))
        np.testing.assert_allclose(prefix_probabilities(levels, heat)[1], tempered(z, heat), rtol=1e-14)


def test_the_entropy_of_two_tokens_by_hand():
    # Uniform root; after the first token a certain one, after the second a uniform one: H = (ln 2 + ln 2 / 2) / 2.
    levels = [np.zeros(2), np.array([[0.0, -800.0], [0.0, 0.0]])]
    assert token_entropy(levels) == pytest.approx(0.75 * np.log(2.0), rel=1e-15)
    # Pushing the second response pair's prefix: H gains the prefix's future, ln 2 / 2, times dP = 1/4 x 1/2 x ln 2 ...
    # grad at the root: 1/2 (U_a - E U) / n = 1/4 (-+ ln 2 / 2); direction S (e_2 - pi) with S = 1/2: (-1/4, 1/4).
    got = delta_entropy_of_sequences(levels, [[False, False], [True, True]])
    assert got == pytest.approx(1 / 4 * (np.log(2.0) / 2) * (1 / 4 + 1 / 4), rel=1e-14)
