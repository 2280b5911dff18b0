"""Weights for the engine's numerics: right at the sampling temperature, and what the naive ratio would do to AEPO."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aepo import zoo
from aepo.batch import Rollouts
from aepo.categorical import entropy, log_softmax
from aepo.controller import Loop
from aepo.correction import corrected, measured, truncated_importance, trusted
from aepo.method import assemble

ACTIONS = 6
NO_CAP = 1e9


def distributions(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Trainer's logits, the engine's, which differ a little, and any function of the action."""
    generator = torch.Generator().manual_seed(seed)
    trainer = 2 * torch.randn(ACTIONS, generator=generator, dtype=torch.float64)
    engine = trainer + 0.2 * torch.randn(ACTIONS, generator=generator, dtype=torch.float64)
    return trainer, engine, torch.randn(ACTIONS, generator=generator, dtype=torch.float64)


def expectation(engine_logp: torch.Tensor, weight: torch.Tensor, value: torch.Tensor) -> float:
    """Of weight x value over what the engine samples, exactly."""
    return float((engine_logp.exp() * weight * value).sum())


@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 1.2, 2.0]))
def test_at_the_sampling_temperature_the_weights_turn_the_engines_expectation_into_the_trainers(seed, temperature):
    trainer, engine, value = distributions(seed)
    theirs, ours = log_softmax(engine, temperature), log_softmax(trainer, temperature)
    weight = truncated_importance(ours, theirs, torch.ones(ACTIONS), cap=NO_CAP)
    assert expectation(theirs, weight, value) == pytest.approx(float((ours.exp() * value).sum()), abs=1e-12)


@given(st.integers(0, 10**6), st.sampled_from([0.8, 1.2]))
def test_the_naive_ratio_would_cancel_the_steering(seed, temperature):
    trainer, engine, value = distributions(seed)
    tempered, plain = log_softmax(engine, temperature), log_softmax(trainer)
    naive = truncated_importance(plain, tempered, torch.ones(ACTIONS), cap=NO_CAP)
    # It samples at T and ends with the expectation, and so with the gradient, of T = 1 ...
    assert expectation(tempered, naive, value) == pytest.approx(float((plain.exp() * value).sum()), abs=1e-12)
    right = truncated_importance(log_softmax(trainer, temperature), tempered, torch.ones(ACTIONS), cap=NO_CAP)
    # ... where the tempered one is more or less random: log-probs under it are lower or higher, for every policy.
    flatter = expectation(tempered, right, plain) < float((plain.exp() * plain).sum())
    assert flatter == (temperature > 1) and entropy(trainer) > 0


def graded(seed: int, rows: int, temperature: float) -> Rollouts:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, 3)
    mask = torch.tensor([[1.0, 1.0, 1.0]] * (rows - 1) + [[1.0, 0.0, 0.0]])
    logp = -torch.rand(shape, generator=generator)
    return Rollouts(
        prompt=torch.arange(rows) // 2,
        token=torch.randint(ACTIONS, shape, generator=generator),
        mask=mask,
        reward=(torch.arange(rows) % 2).float(),
        group_size=2,
        old_logp=logp * temperature,
        logp_t=logp,
        entropy=torch.full(shape, 0.5),
        engine_logp=logp + 0.5 * torch.randn(shape, generator=generator),
    )


def test_every_row_of_a_batch_is_corrected_at_its_own_temperature():
    method = zoo.build("aepo", normalizer="all")
    main, second = graded(0, 8, 1.0), graded(1, 4, 1.7)
    loop = Loop.start(method.controller, torch.zeros(()))
    _, control = loop.decide(method.controller, entropy=main.mean_entropy(), target=0.75, sees="current")
    batch = assemble(method, control, main, second)
    found = corrected(batch, main, second, cap=2.0, sequence_bound=None)
    for row in range(12):
        part, i = (main, row) if row < 8 else (second, row - 8)
        mine = (part.old_logp if row < 8 else part.logp_t)[i]
        for t in range(3):
            want = min(2.0, math.exp(mine[t] - part.engine_logp[i, t])) if part.mask[i, t] else 1.0
            assert found.weight[row, t] == pytest.approx(float(batch.weight[row, t]) * want, rel=1e-5)
    assert torch.equal(found.entropy_weight, batch.entropy_weight) and torch.equal(found.advantage, batch.advantage)
    assert not torch.equal(found.weight, batch.weight)
    with pytest.raises(ValueError, match="logp_t is missing"):
        corrected(batch, main, Rollouts(**{**vars(second), "logp_t": None}), cap=2.0, sequence_bound=None)


def test_a_response_far_from_the_engines_is_left_out_whole():
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    engine = torch.zeros(4, 2)
    # Mean log-ratios: ln 2 (inside 2.1), ln 3 on the one token that counts, ln(4 x 1/4) / 2 = 0, none.
    trainer = torch.tensor([[4.0, 1.0], [3.0, 1e6], [4.0, 0.25], [9.0, 9.0]]).log()
    assert trusted(trainer, engine, mask, bound=2.1).tolist() == [True, False, True, True]


def test_what_is_logged_agrees_with_hand_sums():
    rows = graded(0, 2, 1.0)
    difference = torch.tensor([[0.0, math.log(2.0), -math.log(4.0)], [math.log(1.5), 50.0, -50.0]])
    found = measured(rows.replace(old_logp=rows.engine_logp + difference))
    # Four tokens count; |d| sums to ln(2 x 4 x 1.5), r - 1 - ln r is 0, 1 - ln 2, ln 4 - .75, .5 - ln 1.5.
    assert found["mismatch/abs"] == pytest.approx(math.log(12) / 4, rel=1e-5)
    assert found["mismatch/kl"] == pytest.approx((1 - 0.75 + 0.5 + math.log(4 / 2 / 1.5)) / 4, rel=1e-5)
    assert found["mismatch/worst_ratio"] == pytest.approx(4.0, rel=1e-5)
