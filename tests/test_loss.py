"""The policy loss: clip cases by hand, the gradient at ratio 1, and that no split of a batch changes it."""

import dataclasses
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    ACTIONS,
    EPS,
    assert_close,
    batches,
    double,
    log_ratios,
    padded,
    policy_logits,
    seeds,
)
from torch import Tensor

from aepo.batch import Batch, minibatches
from aepo.categorical import token_stats
from aepo.loss import ClippedSurrogate, ScoreFunction, policy_loss
from aepo.zoo.clipping import EntropyRatioSurrogate, GradientPreservingSurrogate, KLCovSurrogate

surrogates = st.sampled_from(
    [
        ClippedSurrogate(),
        ClippedSurrogate(clip_low=0.1, clip_high=0.3),
        ClippedSurrogate(clip_low=0.0, clip_high=0.0),
        ClippedSurrogate(dual_clip=3.0),
        ScoreFunction(),
    ]
)
comparing = EntropyRatioSurrogate(base=ClippedSurrogate(), low=0.8, high=1.2)
preserving = GradientPreservingSurrogate(clip_low=0.2, clip_high=0.28, beta_low=0.75, beta_high=1.0, dual_clip=3.0)
every_surrogate = surrogates | st.sampled_from([KLCovSurrogate(coef=1.0), preserving, comparing])
"""Those of the zoo too; `surrogates` are those with a plain formula in this file."""
# Fewer than 100 terms are summed, each of order 10 at most (|A| < 5, ratio < e^1.5), in two orders.
ROUNDING = 100 * 10 * 4 * EPS


def one_token(advantage: float, ratio: float, **batch_changes) -> tuple[Tensor, Batch]:
    """logp with gradient, and a batch of one row of one token of weight 1."""
    one = torch.ones(1, 1, dtype=torch.float64)
    fields = {
        "prompt": torch.zeros(1, dtype=torch.int64),
        "token": one.long(),
        "mask": one,
        "old_logp": -2 * one,
        "advantage": advantage * one,
        "weight": one,
        "entropy_weight": 0 * one,
        "group_size": 1,
    }
    return (-2 * one + math.log(ratio)).requires_grad_(), Batch(**(fields | batch_changes))


def value_and_slope(surrogate, advantage: float, ratio: float) -> list[float]:
    """The objective, and its derivative by the log-prob, for one token."""
    logp, batch = one_token(advantage, ratio)
    loss, _ = policy_loss(logp, torch.zeros_like(logp), batch, surrogate)
    (gradient,) = torch.autograd.grad(loss, logp)
    return [-loss.item(), -gradient.item()]


def test_the_clipped_surrogate_by_hand():
    table = [  # advantage, ratio, objective, derivative by logp
        (+2.0, 0.5, 1.0, 1.0),  # r A, below the range but not favourable: not clipped
        (+2.0, 1.1, 2.2, 2.2),  # inside
        (+2.0, 1.5, 2.4, 0.0),  # 1.2 A: clipped above
        (-2.0, 0.5, -1.6, 0.0),  # 0.8 A: clipped below
        (-2.0, 0.9, -1.8, -1.8),  # inside
        (-2.0, 1.5, -3.0, -3.0),  # r A, above the range but not favourable: not clipped
        (-2.0, 9.0, -18.0, -18.0),  # unbounded without dual clip
        (0.0, 5.0, 0.0, 0.0),
    ]
    for advantage, ratio, objective, slope in table:
        got = value_and_slope(ClippedSurrogate(), advantage, ratio)
        assert got == pytest.approx([objective, slope], abs=1e-14), (advantage, ratio)


def test_the_low_and_the_high_clip_range_are_separate():
    asymmetric = ClippedSurrogate(clip_low=0.1, clip_high=0.5)
    table = [
        (+1.0, 1.4, 1.4, 1.4),
        (+1.0, 1.6, 1.5, 0.0),
        (-1.0, 0.95, -0.95, -0.95),
        (-1.0, 0.85, -0.9, 0.0),
    ]
    for advantage, ratio, objective, slope in table:
        got = value_and_slope(asymmetric, advantage, ratio)
        assert got == pytest.approx([objective, slope], abs=1e-14), (advantage, ratio)


def test_dual_clip_bounds_negative_advantages_only():
    dual = ClippedSurrogate(dual_clip=3.0)
    table = [
        (-2.0, 2.5, -5.0, -5.0),  # r < 3
        (-2.0, 9.0, -6.0, 0.0),  # 3 A: bounded
        (-2.0, 0.5, -1.6, 0.0),  # the ordinary clip is untouched
        (+2.0, 9.0, 2.4, 0.0),  # positive: 1.2 A, never 3 A
    ]
    for advantage, ratio, objective, slope in table:
        got = value_and_slope(dual, advantage, ratio)
        assert got == pytest.approx([objective, slope], abs=1e-14), (advantage, ratio)


def test_the_score_function_has_no_ratio():
    for advantage, ratio in [(2.0, 9.0), (-1.0, 0.1)]:
        logp, batch = one_token(advantage, ratio)
        loss, _ = policy_loss(logp, torch.zeros_like(logp), batch, ScoreFunction())
        (gradient,) = torch.autograd.grad(loss, logp)
        assert loss.item() == pytest.approx(-advantage * (-2 + math.log(ratio)), abs=1e-14)
        assert gradient.item() == -advantage


def test_the_loss_is_what_descends_when_a_good_token_gets_likelier():
    loss = {}
    for ratio in (1.0, 1.1):
        logp, batch = one_token(1.0, ratio)
        loss[ratio] = policy_loss(logp, torch.zeros_like(logp), batch, ClippedSurrogate())[0].item()
    assert loss[1.1] < loss[1.0]


def two_rows(**changes) -> Batch:
    """Responses of 1 and 3 tokens in a mean over responses, of advantages 1 and 2."""
    mask = double([[1, 0, 0], [1, 1, 1]])
    fields = {
        "prompt": torch.tensor([0, 0]),
        "token": torch.zeros(2, 3, dtype=torch.int64),
        "mask": mask,
        "old_logp": -mask,
        "advantage": double([[1, 0, 0], [2, 2, 2]]),
        "weight": double([[1 / 2, 0, 0], [1 / 6, 1 / 6, 1 / 6]]),
        "entropy_weight": torch.zeros_like(mask),
        "group_size": 2,
    }
    return Batch(**(fields | changes))


def test_the_parts_of_a_batch_add_up_by_hand():
    # At ratio 1: 1/2 (1) + 3 (1/6) (2) = 3/2. A mean within each part would say (1/2) / 1 and 1 / 3.
    batch = two_rows()
    for rows, want in (([0, 1], -1.5), ([0], -0.5), ([1], -1.0)):
        part = batch.rows(torch.tensor(rows))
        loss, _ = policy_loss(part.old_logp, 0 * part.mask, part, ClippedSurrogate())
        assert loss.item() == pytest.approx(want, abs=1e-15)


def test_a_nan_in_the_padding_by_hand():
    batch = two_rows()
    logp = batch.old_logp.masked_fill(batch.mask == 0, math.nan).requires_grad_()
    loss, _ = policy_loss(logp, 0 * batch.mask, batch, ClippedSurrogate())
    (gradient,) = torch.autograd.grad(loss, logp)
    assert loss.item() == pytest.approx(-1.5, abs=1e-15)
    assert_close(gradient, [[-1 / 2, 0, 0], [-1 / 3, -1 / 3, -1 / 3]], atol=EPS)


def test_the_entropy_bonus_lowers_the_loss_by_hand():
    # 1/2 (0.4) for the first row, 3 (1/6) (0.4) for the second: 0.4 lower at an entropy of 0.4 everywhere.
    batch = two_rows()
    with_bonus = dataclasses.replace(batch, entropy_weight=batch.weight)
    entropy = torch.full_like(batch.mask, 0.4)
    loss, _ = policy_loss(batch.old_logp, entropy, with_bonus, ClippedSurrogate())
    assert loss.item() == pytest.approx(-1.5 - 0.4, abs=1e-15)


@given(st.floats(-5, 5), st.floats(0.05, 5), st.floats(0, 1), st.floats(0, 2))
def test_the_clipped_surrogate_never_promises_more_than_the_ratio_does(advantage, ratio, low, high):
    objective, _ = value_and_slope(ClippedSurrogate(clip_low=low, clip_high=high), advantage, ratio)
    assert objective <= ratio * advantage + 1e-13


def gradients(batch: Batch, logp: Tensor, entropy: Tensor, surrogate) -> tuple[Tensor, Tensor, Tensor]:
    """The loss per run, and its derivatives by logp and by the entropy."""
    logp, entropy = logp.detach().requires_grad_(), entropy.detach().requires_grad_()
    loss, _ = policy_loss(logp, entropy, batch, surrogate)
    return loss.detach(), *torch.autograd.grad(loss.sum(), (logp, entropy))


def comparable(batch: Batch, surrogate) -> Batch:
    """The batch with an entropy before the update where the surrogate compares."""
    if surrogate != comparing or batch.old_entropy is not None:
        return batch
    return dataclasses.replace(batch, old_entropy=1.0 + batch.old_logp.sin().square())


def policy_of(batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
    """Some current policy's log-probs, on all sides of the clip range, and entropies, on a batch's tokens."""
    _, entropy = token_stats(policy_logits(batch, seed), batch.token)
    return batch.old_logp + log_ratios(tuple(batch.token.shape), seed), entropy


@given(batches(), seeds)
def test_at_ratio_one_the_gradient_is_the_policy_gradient_of_the_score_function(batch, seed):
    z = policy_logits(batch, seed).requires_grad_()
    logp, entropy = token_stats(z, batch.token)
    on_policy = dataclasses.replace(batch, old_logp=logp.detach(), entropy_weight=0 * batch.entropy_weight)
    loss, _ = policy_loss(logp, entropy, on_policy, ClippedSurrogate())
    (got,) = torch.autograd.grad(loss.sum(), z)
    # grad log softmax(z)_a = e_a - pi, written out.
    score = torch.eye(ACTIONS, dtype=torch.float64)[batch.token] - z.detach().exp() / z.detach().exp().sum(
        -1, keepdim=True
    )
    assert_close(got, -(batch.weight * batch.advantage).unsqueeze(-1) * score, atol=ROUNDING)


@given(batches(), seeds, surrogates)
def test_the_loss_is_minus_the_sum_of_weight_times_objective_and_of_weight_times_entropy(batch, seed, surrogate):
    logp, entropy = policy_of(batch, seed)
    loss, _, by_entropy = gradients(batch, logp, entropy, surrogate)
    flat = [
        value.reshape(-1, *batch.token.shape[-2:]).tolist()
        for value in (batch.weight, batch.advantage, logp, batch.old_logp, batch.entropy_weight, entropy)
    ]
    for run in range(len(flat[0])):
        want = 0.0
        for row in zip(*(value[run] for value in flat), strict=True):
            for w, a, lp, old, ew, h in zip(*row, strict=True):
                want -= w * objective(surrogate, a, lp, old) + ew * h
        assert_close(loss.flatten()[run], want, atol=ROUNDING)
    assert_close(by_entropy, -batch.entropy_weight, atol=EPS)


def objective(surrogate, a: float, logp: float, old: float) -> float:
    """The surrogate of one token, in plain arithmetic."""
    if isinstance(surrogate, ScoreFunction):
        return a * logp
    r = math.exp(logp - old)
    value = min(r * a, min(max(r, 1 - surrogate.clip_low), 1 + surrogate.clip_high) * a)
    return max(value, surrogate.dual_clip * a) if surrogate.dual_clip and a < 0 else value


@given(batches(), seeds, seeds, st.integers(1, 4), every_surrogate)
def test_no_split_into_micro_batches_changes_the_loss_the_gradient_or_the_metrics(batch, seed, split, parts, surrogate):
    batch = comparable(batch, surrogate)
    logp, entropy = policy_of(batch, seed)
    whole, by_logp, by_entropy = gradients(batch, logp, entropy, surrogate)
    sums = policy_loss(logp, entropy, batch, surrogate)[1]
    axis = batch.prompt.dim() - 1
    owner = torch.randint(parts, (batch.prompt.shape[-1],), generator=torch.Generator().manual_seed(split))
    total, part_sums = (
        torch.zeros_like(whole),
        {name: torch.zeros_like(value) for name, value in sums.items()},
    )
    for part in range(parts):
        rows = (owner == part).nonzero().squeeze(-1)
        some = [value.index_select(axis, rows) for value in (logp, entropy)]
        loss, part_logp, part_entropy = gradients(batch.rows(rows), *some, surrogate)
        total = total + loss
        assert torch.equal(part_logp, by_logp.index_select(axis, rows))
        assert torch.equal(part_entropy, by_entropy.index_select(axis, rows))
        for name, value in policy_loss(*some, batch.rows(rows), surrogate)[1].items():
            part_sums[name] = part_sums[name] + value
    assert_close(total, whole, atol=ROUNDING)
    for name in sums:
        assert_close(part_sums[name], sums[name], atol=ROUNDING)


@given(batches(min_rows=4), seeds, st.integers(1, 4), every_surrogate)
def test_the_minibatches_gradients_add_up_to_count_times_the_whole(batch, seed, count, surrogate):
    batch = comparable(batch, surrogate)
    z = policy_logits(batch, seed)[..., 0, 0, :].clone().requires_grad_()  # one distribution for all tokens of a run

    def gradient(part: Batch) -> Tensor:
        logits = z[..., None, None, :].expand(*part.token.shape, ACTIONS)
        logp, entropy = token_stats(logits, part.token)
        loss, _ = policy_loss(logp, entropy, part, surrogate)
        return torch.autograd.grad(loss.sum(), z)[0]

    total = sum(gradient(part) for part in minibatches(batch, count))
    # Any old_logp of the generator is in (-5, 0] and logp above -7: ratios stay below e^5.
    assert_close(total, count * gradient(batch), rtol=1e-12, atol=math.exp(5) * ROUNDING)


@given(batches(runs=(3,)), seeds, every_surrogate)
def test_a_run_does_not_depend_on_the_runs_beside_it(batch, seed, surrogate):
    batch = comparable(batch, surrogate)
    logp, entropy = policy_of(batch, seed)
    loss, by_logp, by_entropy = gradients(batch, logp, entropy, surrogate)
    for run in range(3):
        alone = Batch(
            **{
                f.name: value[run] if isinstance(value := getattr(batch, f.name), Tensor) else value
                for f in dataclasses.fields(Batch)
            }
        )
        one, one_logp, one_entropy = gradients(alone, logp[run], entropy[run], surrogate)
        assert_close(loss[run], one, atol=ROUNDING)
        assert torch.equal(by_logp[run], one_logp) and torch.equal(by_entropy[run], one_entropy)


@given(batches(), seeds, st.integers(1, 3), every_surrogate)
def test_more_padding_changes_nothing(batch, seed, columns, surrogate):
    batch = comparable(batch, surrogate)
    logp, entropy = policy_of(batch, seed)
    loss, by_logp, _ = gradients(batch, logp, entropy, surrogate)
    wide = [torch.nn.functional.pad(value, (0, columns)) for value in (logp, entropy)]
    wide_loss, wide_logp, _ = gradients(padded(batch, columns), *wide, surrogate)
    assert_close(wide_loss, loss, atol=ROUNDING)
    assert torch.equal(wide_logp[..., :-columns], by_logp)
    assert (wide_logp[..., -columns:] == 0).all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@given(batch=batches(), seed=seeds, surrogate=every_surrogate)
def test_an_infinity_or_nan_in_the_padding_is_harmless(poison, batch, seed, surrogate):
    batch = comparable(batch, surrogate)
    logp, entropy = policy_of(batch, seed)
    padding = batch.mask == 0
    clean = gradients(batch, logp, entropy, surrogate)
    clean_sums = policy_loss(logp, entropy, batch, surrogate)[1]
    dirty_batch = dataclasses.replace(batch, old_logp=batch.old_logp.masked_fill(padding, poison))
    for dirty in (batch, dirty_batch):
        values = [value.masked_fill(padding, poison) for value in (logp, entropy)]
        for got, want in zip(gradients(dirty, *values, surrogate), clean, strict=True):
            assert torch.equal(got, want)
        for name, value in policy_loss(*values, dirty, surrogate)[1].items():
            assert torch.equal(value, clean_sums[name]), name


@given(batches(runs=()), seeds, every_surrogate)
def test_dropping_rows_that_are_not_live_changes_nothing(batch, seed, surrogate):
    batch = comparable(batch, surrogate)
    assume(batch.live.any() and not batch.live.all())
    logp, entropy = policy_of(batch, seed)
    loss, by_logp, by_entropy = gradients(batch, logp, entropy, surrogate)
    sums = policy_loss(logp, entropy, batch, surrogate)[1]
    rows = batch.live.nonzero().squeeze(-1)
    kept = batch.rows(rows)
    kept_loss, kept_logp, kept_entropy = gradients(kept, logp[rows], entropy[rows], surrogate)
    assert_close(kept_loss, loss, atol=ROUNDING)
    assert torch.equal(kept_logp, by_logp[rows]) and torch.equal(kept_entropy, by_entropy[rows])
    assert (by_logp[~batch.live] == 0).all() and (by_entropy[~batch.live] == 0).all()
    for name, value in policy_loss(logp[rows], entropy[rows], kept, surrogate)[1].items():
        assert_close(value, sums[name], atol=ROUNDING)


@given(batches(), seeds, surrogates)
def test_the_metrics_count_tokens_ratios_outside_the_papers_range_and_schulmans_k3(batch, seed, surrogate):
    logp, entropy = policy_of(batch, seed)
    loss, sums = policy_loss(logp.requires_grad_(), entropy, batch, surrogate)
    assert loss.requires_grad or not batch.mask.any()
    flat = [
        value.detach().reshape(-1, *batch.token.shape[-2:]).tolist()
        for value in (batch.weight, batch.advantage, batch.mask, logp, batch.old_logp)
    ]
    for run in range(len(flat[0])):
        tokens = clipped = kl = 0.0
        for row in zip(*(value[run] for value in flat), strict=True):
            for w, a, m, lp, old in zip(*row, strict=True):
                if m and a != 0:
                    r = math.exp(lp - old)
                    tokens += abs(w)
                    clipped += abs(w) * (not 0.8 <= r <= 1.2)
                    kl += abs(w) * (r - 1 - math.log(r))
        for name, want in {"tokens": tokens, "clipped": clipped, "kl": kl}.items():
            assert not sums[name].requires_grad
            assert_close(sums[name].flatten()[run], want, atol=ROUNDING)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"clip_low": -0.1}, r"clip_low must be in \[0, 1\], got -0\.1"),
        ({"clip_low": 1.5}, r"clip_low must be in \[0, 1\], got 1\.5"),
        ({"clip_high": -0.1}, r"clip_high must be >= 0, got -0\.1"),
        ({"dual_clip": 1.0}, r"dual_clip must be > 1 or None, got 1\.0"),
    ],
)
def test_a_clip_range_that_makes_no_sense_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        ClippedSurrogate(**options)
