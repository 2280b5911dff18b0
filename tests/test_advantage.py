"""Advantages: laws of the group normalisation, hand-worked numbers, and the entropy-shaped advantage."""

import math
import statistics

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import EPS, assert_close, double, rewards, seeds

from aepo.advantage import STD_EPSILON, entropy_shaped, group_normalized, quantile_centred

stds = st.sampled_from(["sample", "population", "none"])

# Rewards lie on a grid of 1/4 in [0, 2], so a spread that is not 0 is at least 1/4 / sqrt(G) and division by
# it amplifies rounding by at most 8 sqrt(G); sums of up to 6 such terms lose less than this.
ROUNDING = 8 * 6 * 3 * 16 * EPS


@st.composite
def grouped(draw, min_group: int = 1):
    """Rewards of some runs and prompts, with their group size."""
    group_size = draw(st.integers(min_group, 6))
    runs = draw(st.sampled_from([(), (3,)]))
    return draw(rewards((*runs, group_size * draw(st.integers(1, 4))), group_size)), group_size


def spread(reward: torch.Tensor, group_size: int, std: str) -> torch.Tensor:
    """(..., R): each row's standard deviation of its group, by the statistics module."""
    deviation = statistics.stdev if std == "sample" and group_size > 1 else statistics.pstdev
    groups = reward.reshape(-1, group_size).tolist()
    return double([[deviation(group)] * group_size for group in groups]).reshape(reward.shape)


@given(grouped(), stds)
def test_the_advantages_of_a_group_have_mean_zero(case, std):
    reward, group_size = case
    advantage = group_normalized(reward, group_size=group_size, std=std)
    mean = advantage.reshape(-1, group_size).mean(-1)
    assert_close(mean, torch.zeros_like(mean), atol=ROUNDING)


@given(grouped(), stds)
def test_the_advantage_is_the_centred_reward_over_the_standard_deviation(case, std):
    reward, group_size = case
    groups = reward.reshape(-1, group_size)
    centred = (groups - groups.mean(-1, keepdim=True)).reshape(reward.shape)
    want = centred if std == "none" else centred / (spread(reward, group_size, std) + STD_EPSILON)
    assert_close(group_normalized(reward, group_size=group_size, std=std), want, atol=ROUNDING)


@given(grouped(), stds, st.sampled_from([-3.0, 0.5, 16.0]))
def test_shifting_every_reward_changes_no_advantage(case, std, shift):
    reward, group_size = case
    got = group_normalized(reward + shift, group_size=group_size, std=std)
    assert_close(got, group_normalized(reward, group_size=group_size, std=std), atol=16 * ROUNDING)


@given(grouped(), st.sampled_from(["sample", "population"]), st.sampled_from([0.25, 3.0, 100.0]))
def test_scaling_every_reward_changes_the_advantage_only_by_the_epsilon(case, std, scale):
    reward, group_size = case
    before = group_normalized(reward, group_size=group_size, std=std)
    after = group_normalized(reward * scale, group_size=group_size, std=std)
    # x / (s + e) against c x / (c s + e): the relative change is e |1 - 1/c| / (s + e / c), below e |1 - 1/c|
    # / s.
    s = spread(reward, group_size, std)
    bound = before.abs() * STD_EPSILON * abs(1 - 1 / scale) / s.clamp(min=STD_EPSILON)
    assert ((after - before).abs() <= bound + ROUNDING).all()


def test_without_division_the_advantage_scales_with_the_reward():
    # mean 1/2: advantages +-1/2; ten times the reward, ten times that.
    assert group_normalized(double([1, 0]), group_size=2, std="none").tolist() == [0.5, -0.5]
    assert group_normalized(double([10, 0]), group_size=2, std="none").tolist() == [5.0, -5.0]


@given(st.floats(-1e6, 1e6), st.integers(1, 16), stds, st.sampled_from([torch.float32, torch.float64]))
def test_equal_rewards_have_advantage_exactly_zero(value, group_size, std, dtype):
    # The mean of equal numbers need not be that number in floating point: the zero is exact on purpose.
    advantage = group_normalized(torch.full((group_size,), value, dtype=dtype), group_size=group_size, std=std)
    assert advantage.tolist() == [0.0] * group_size


def test_equal_rewards_by_hand():
    # A third of three times 0.7 is 0.7 - 1.1e-16 in binary, which over the epsilon would be an advantage of 1.1e-10.
    assert group_normalized(double([0.7] * 3), group_size=3).tolist() == [0.0] * 3


@given(grouped(min_group=2))
def test_sample_and_population_advantages_differ_by_the_root_of_g_minus_1_over_g(case):
    reward, group_size = case
    sample = group_normalized(reward, group_size=group_size, std="sample")
    population = group_normalized(reward, group_size=group_size, std="population")
    ratio = math.sqrt((group_size - 1) / group_size)
    # The epsilon beside either deviation moves the ratio by less than epsilon / s, s >= 1/4 / sqrt(6).
    assert_close(sample, population * ratio, rtol=STD_EPSILON * 4 * math.sqrt(6), atol=ROUNDING)


@given(grouped())
def test_a_uniform_share_is_the_population_of_equally_likely_rows(case):
    reward, group_size = case
    share = torch.full_like(reward, 1 / group_size)
    want = group_normalized(reward, group_size=group_size, std="population")
    for std in ("sample", "population"):
        got = group_normalized(reward, group_size=group_size, share=share, std=std)
        assert_close(got, want, atol=ROUNDING)


@given(grouped(), seeds, stds)
def test_under_a_share_the_expected_advantage_is_zero_and_its_variance_one(case, seed, std):
    reward, group_size = case
    raw = torch.rand(reward.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
    share = (raw.unflatten(-1, (-1, group_size)) / raw.unflatten(-1, (-1, group_size)).sum(-1, keepdim=True)).flatten(
        -2
    )
    advantage = group_normalized(reward, group_size=group_size, share=share, std=std)
    by_group = (share * advantage).reshape(-1, group_size).sum(-1)
    assert_close(by_group, torch.zeros_like(by_group), atol=8 * ROUNDING)
    if std != "none":
        groups = reward.reshape(-1, group_size)
        unequal = groups.amax(-1) > groups.amin(-1)
        variance = (share * advantage.square()).reshape(-1, group_size).sum(-1)[unequal]
        # A share is at least 0.05 / (1.05 G), so s^2 >= 0.05 / (1.05 * 6) / 2 / 16 and 2 epsilon / s < 1e-4.
        assert_close(variance, torch.ones_like(variance), atol=1e-4)


@given(grouped(), seeds)
def test_a_share_counts_like_that_many_copies_of_the_row(case, seed):
    reward, group_size = case
    counts = torch.randint(1, 4, (group_size,), generator=torch.Generator().manual_seed(seed))
    groups = reward.reshape(-1, group_size)
    copies = groups.repeat_interleave(counts, -1)
    share = (counts / counts.sum().double()).expand(groups.shape)
    got = group_normalized(groups.flatten(), group_size=group_size, share=share.flatten())
    want = group_normalized(copies.flatten(), group_size=int(counts.sum()), std="population")
    first = counts.cumsum(0) - counts
    assert_close(got.reshape(groups.shape), want.reshape(copies.shape)[:, first], atol=8 * ROUNDING)


@given(grouped(), seeds, stds)
def test_permuting_a_group_permutes_its_advantages(case, seed, std):
    reward, group_size = case
    order = torch.randperm(group_size, generator=torch.Generator().manual_seed(seed))
    shuffled = reward.reshape(-1, group_size)[:, order].reshape(reward.shape)
    got = group_normalized(shuffled, group_size=group_size, std=std).reshape(-1, group_size)
    want = group_normalized(reward, group_size=group_size, std=std).reshape(-1, group_size)[:, order]
    assert_close(got, want, atol=ROUNDING)


@given(grouped(), stds)
def test_a_group_does_not_see_the_other_groups(case, std):
    reward, group_size = case
    together = group_normalized(reward, group_size=group_size, std=std).reshape(-1, group_size)
    for i, group in enumerate(reward.reshape(-1, group_size)):
        assert torch.equal(together[i], group_normalized(group, group_size=group_size, std=std))


def test_grpo_advantages_by_hand():
    # (1, 0, 0, 1): mean 1/2, sample variance 4 (1/4) / 3 = 1/3, so +-(1/2) sqrt 3 = +-0.8660.
    got = group_normalized(double([1, 0, 0, 1]), group_size=4)
    half = 0.5 / (math.sqrt(1 / 3) + 1e-6)
    assert_close(got, [half, -half, -half, half], atol=4 * EPS)
    # One right of eight: mean 1/8, sample variance (49/64 + 7 (1/64)) / 7 = 1/8: (7/8) sqrt 8 = 2.4749,
    # -(1/8) sqrt 8.
    got = group_normalized(double([1] + [0] * 7), group_size=8)
    assert_close(got, [2.474866] + [-0.353552] * 7, atol=1e-6)
    # The same with the population's variance (49/64 + 7/64) / 8 = 7/64: (7/8) 8 / sqrt 7 = 2.6458, -1 / sqrt
    # 7.
    got = group_normalized(double([1] + [0] * 7), group_size=8, std="population")
    assert_close(got, [2.645743] + [-0.377963] * 7, atol=1e-6)


def test_an_exact_expectation_by_hand():
    # Shares (1/4, 3/4), rewards (1, 0): mean 1/4, variance 3/16: (3/4) 4 / sqrt 3 = sqrt 3 and -1 / sqrt 3.
    got = group_normalized(double([1, 0]), group_size=2, share=double([0.25, 0.75]))
    # The epsilon takes 1e-6 / (sqrt 3 / 4) = 2.3e-6 of it.
    assert_close(got, [math.sqrt(3), -1 / math.sqrt(3)], rtol=3e-6)


def test_an_unknown_standard_deviation_is_refused_by_name():
    with pytest.raises(ValueError, match=r"std must be .*'none', got 'unbiased'"):
        group_normalized(double([1, 0]), group_size=2, std="unbiased")


ks = st.sampled_from([0.0, 0.1, 0.4, 0.5, 0.75, 1.0])


@given(grouped(), ks)
def test_the_quantile_baseline_is_the_smallest_reward_that_a_share_of_k_does_not_exceed(case, k):
    reward, group_size = case
    got = quantile_centred(reward, group_size=group_size, k=k).reshape(-1, group_size).tolist()
    for group, credits in zip(reward.reshape(-1, group_size).tolist(), got, strict=True):
        baseline = next(r for r in sorted(group) if sum(one <= r for one in group) >= k * group_size - 1e-9)
        scale = (statistics.stdev(group) if group_size > 1 else 0.0) + STD_EPSILON
        want = [0.0 if min(group) == max(group) else (r - baseline) / scale for r in group]
        assert_close(double(credits), want, atol=ROUNDING)


@given(grouped(), seeds, ks)
def test_a_quantile_under_shares_is_that_of_that_many_copies(case, seed, k):
    reward, group_size = case
    counts = torch.randint(1, 4, (group_size,), generator=torch.Generator().manual_seed(seed))
    groups, total = reward.reshape(-1, group_size), int(counts.sum())
    share = (counts / counts.sum().double()).expand(groups.shape)
    got = quantile_centred(groups.flatten(), group_size=group_size, k=k, share=share.flatten())
    for group, credits in zip(groups.tolist(), got.reshape(groups.shape).tolist(), strict=True):
        copies = sorted(r for r, count in zip(group, counts.tolist(), strict=True) for _ in range(count))
        # The smallest reward that ceil(k n) of the n copies do not exceed.
        baseline = copies[max(math.ceil(k * total - 1e-9), 1) - 1]
        scale = statistics.pstdev(copies) + STD_EPSILON
        want = [0.0 if min(group) == max(group) else (r - baseline) / scale for r in group]
        assert_close(double(credits), want, atol=8 * ROUNDING)


advantages = st.one_of(st.sampled_from([0.0, 1.0, -1.0]), st.floats(-10, 10))
entropies = st.one_of(st.sampled_from([0.0, 12.0]), st.floats(0, 12))
betas, kappas = st.floats(0.01, 5), st.floats(1.01, 10)


@given(advantages, entropies, betas, kappas)
def test_entropy_shaping_adds_the_smaller_of_the_scaled_entropy_and_a_part_of_the_advantage(a, h, beta, kappa):
    got = entropy_shaped(double(a), double(h), beta=beta, kappa=kappa)
    assert_close(got, a + min(beta * h, abs(a) / kappa), rtol=2 * EPS, atol=EPS * abs(a))


@given(advantages, entropies, betas, kappas)
def test_entropy_shaping_never_changes_the_sign_of_an_advantage(a, h, beta, kappa):
    assume(a == 0 or abs(a) > 1e-300)
    assert torch.sign(entropy_shaped(double(a), double(h), beta=beta, kappa=kappa)) == torch.sign(double(a))


@given(advantages, entropies, entropies)
def test_more_entropy_never_lowers_the_shaped_advantage(a, h, other):
    low, high = sorted((h, other))
    assert entropy_shaped(double(a), double(low)) <= entropy_shaped(double(a), double(high))


def test_the_shaped_advantage_takes_the_entropy_as_a_constant():
    h = double([0.5]).requires_grad_()
    assert not entropy_shaped(double([1.0]), h).requires_grad


def test_entropy_shaping_by_hand():
    # beta = 0.4, kappa = 2: 1 + min(3.6, 0.5); -1 + min(0.2, 0.5); 0 + min(3.6, 0).
    assert_close(entropy_shaped(double([1, -1, 0]), double([9, 0.5, 9])), [1.5, -0.8, 0.0], atol=EPS)
