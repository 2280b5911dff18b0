"""The field's methods against what their released code computes, restated here from that code and run on one batch.

Each comment names the repository and the file. Where ours departs on purpose, the inputs are those on which both mean
the same, or the test states the difference; the method's docstring names it.
"""

import math

import pytest
import torch
from strategies import EPS, assert_close, double
from test_zoo_by_hand import EPSILON, ROUNDING, bonus_gradient, control, scored
from torch import Tensor

from aepo import zoo
from aepo.batch import Rollouts
from aepo.categorical import mean_effect, mean_effect_of_squares, token_stats
from aepo.controller import Control, Loop
from aepo.loss import policy_loss
from aepo.method import Method, assemble
from aepo.schedule import Cosine

# Two prompts of four responses with 20 tokens; whatever the padding holds must not matter.
MASK = (torch.arange(5) < torch.tensor([3, 1, 2, 3, 2, 3, 2, 4]).unsqueeze(-1)).double()
PADDING = 50.0


def uniform(low: float, high: float, seed: int) -> Tensor:
    noise = torch.rand(MASK.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(MASK != 0, low + (high - low) * noise, PADDING)


def batch_of(reward: list[int], **fields) -> Rollouts:
    fields = {"old_logp": uniform(-3, -0.1, 1), "entropy": uniform(0, 2, 2)} | fields
    return scored(reward, fields.pop("old_logp"), group_size=4, mask=MASK, **fields)


MIXED = [1, 0, 0, 1, 1, 0, 0, 0]
# Log-ratios on either side of every range below: 0.8 to 1.28, the dual clips 3 and 10, and far out.
LOG_RATIOS = (-1.5, -0.3, -0.1, 0.0, 0.1, 0.23, 0.5, 1.5, 2.5)
OFF_POLICY = torch.tensor([LOG_RATIOS[(7 * i) % 9] for i in range(MASK.numel())], dtype=torch.float64).view(MASK.shape)


# verl/trainer/ppo/core_algos.py, compute_grpo_outcome_advantage: the sample deviation, plus 1e-6.
def grpo_advantage(reward: list[int]) -> Tensor:
    grouped = double(reward).view(-1, 4)
    return ((grouped - grouped.mean(-1, keepdim=True)) / (grouped.std(-1, keepdim=True) + 1e-6)).view(-1, 1)


# verl/trainer/ppo/core_algos.py, agg_loss.
def aggregated(token_loss: Tensor, how: str) -> Tensor:
    kept = torch.where(MASK != 0, token_loss, 0.0)
    return kept.sum() / MASK.sum() if how == "token" else (kept.sum(-1) / MASK.sum(-1)).mean()


# verl/trainer/ppo/core_algos.py, compute_policy_loss_vanilla.
def clipped_loss(ratio: Tensor, a: Tensor, low: float, high: float, dual: float) -> Tensor:
    worse = torch.maximum(-a * ratio, -a * ratio.clamp(1 - low, 1 + high))
    return torch.where(a < 0, torch.minimum(worse, -a * dual), worse)


def with_gradient(loss_of, rows: Rollouts, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    logp = (rows.scored("old_logp") + log_ratio).requires_grad_()
    loss = loss_of(logp)
    return loss.detach(), torch.autograd.grad(loss, logp)[0]


def assert_same_loss(
    method: Method, rows: Rollouts, source, log_ratio: Tensor, decided: Control | None = None, now: Tensor | None = None
) -> None:
    """The value, and the derivative by every token's log-prob, are those of `source`, a function of the log-prob."""
    batch = assemble(method, decided or control(), rows)

    def ours(logp):
        return policy_loss(logp, None, batch, method.surrogate, token_entropy=now)[0]

    for got, want in zip(*(with_gradient(one, rows, log_ratio) for one in (ours, source)), strict=True):
        assert_close(got, want, atol=ROUNDING)


# verl-recipe dapo/run_dapo_qwen2.5_32b.sh: 0.2, 0.28, a dual clip of 10 and the mean over all tokens.
@pytest.mark.parametrize("how", ["token", "sequence"])
def test_clip_higher_is_dapos_loss(how):
    rows = batch_of(MIXED)

    def source(logp):
        return aggregated(clipped_loss((logp - rows.old_logp).exp(), grpo_advantage(MIXED), 0.2, 0.28, 10.0), how)

    assert_same_loss(zoo.build("clip_higher", dual_clip=10.0, average=how), rows, source, OFF_POLICY)


# CE-GPPO verl/trainer/ppo/core_algos.py, compute_gppo_loss_general_beta.
def test_ce_gppo_is_its_sources_loss():
    rows = batch_of(MIXED)

    def source(logp):
        a, ratio = grpo_advantage(MIXED), (logp - rows.old_logp).exp()
        one = ratio / ratio.detach()
        objective = ratio * a
        objective = torch.where((ratio < 0.8) & (a < 0), 0.75 * 0.8 * one * a, objective)
        objective = torch.where((ratio > 1.28) & (a > 0), 1.28 * one * a, objective)
        return aggregated(torch.where(a < 0, torch.minimum(-objective, -3 * a), -objective), "token")

    assert_same_loss(zoo.build("ce_gppo", average="token"), rows, source, OFF_POLICY)


# ERC verl/trainer/ppo/core_algos.py, compute_policy_loss_grpo_erc: 1e-8 on both entropies.
def test_entropy_ratio_clipping_is_its_sources_loss_also_where_the_entropy_is_zero():
    before, now = uniform(0, 2, 2), uniform(0, 2, 2) * uniform(0.6, 1.4, 3)
    before[0, 0] = now[0, 0] = 0.0
    before[4, 1], now[4, 1] = 0.0, 1e-9
    rows = batch_of(MIXED, entropy=before)
    change = (now + 1e-8) / (before + 1e-8)
    kept = (change > 0.8) & (change < 1.2)
    assert kept[0, 0] and kept[4, 1] and 0 < kept[MASK != 0].double().mean() < 1

    def source(logp):
        loss = clipped_loss((logp - rows.old_logp).exp(), grpo_advantage(MIXED), 0.2, 0.2, 10.0)
        return aggregated(torch.where(kept, loss, loss.detach()), "token")

    method = zoo.build("entropy_ratio_clip", dual_clip=10.0, average="token")
    assert_same_loss(method, rows, source, OFF_POLICY, now=now)


# verl/trainer/ppo/core_algos.py, compute_policy_loss_clip_cov and compute_policy_loss_kl_cov: under the current policy.
# In both tests one log-ratio for all tokens leaves every covariance as it was before the update.
def source_covariance(rows: Rollouts) -> Tensor:
    on = MASK != 0
    a = grpo_advantage(MIXED).expand(MASK.shape)
    return torch.where(on, (a - a[on].mean()) * (rows.old_logp - rows.old_logp[on].mean()), -math.inf)


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.4])
def test_clip_cov_is_its_sources_loss_where_every_candidate_goes(shift):
    rows = batch_of(MIXED)
    cov = source_covariance(rows)
    inside = (cov > 0.16) & (cov < 2.2)
    assert 1 < inside.sum() < 10  # int(0.5 x 20) may go: no draw decides

    def source(logp):
        loss = clipped_loss((logp - rows.old_logp).exp(), grpo_advantage(MIXED), 1.0, 1.0, math.inf)
        return aggregated(loss * ~inside, "token")

    options = {"low": 0.16, "high": 2.2, "clip_low": 1.0, "clip_high": 1.0, "average": "token"}
    assert_same_loss(zoo.build("clip_cov", ratio=0.5, **options), rows, source, shift * MASK)
    # With int(0.1 x 20) = 2 the draw decides which, and takes two of the candidates.
    gone = (assemble(zoo.build("clip_cov", ratio=0.1, **options), control(), rows).advantage == 0) & (MASK != 0)
    assert gone.sum() == 2 and inside[gone].all()


@pytest.mark.parametrize("shift", [-0.3, 0.0, 0.9])
@pytest.mark.parametrize("ratio", [2e-3, 0.3])
def test_kl_cov_is_its_sources_loss(shift, ratio):
    rows = batch_of(MIXED)
    largest = source_covariance(rows).flatten().topk(max(1, int(20 * ratio))).indices
    marked = torch.zeros(MASK.numel(), dtype=torch.bool).index_fill(0, largest, True).view(MASK.shape)

    def source(logp):
        log_ratio = logp - rows.old_logp
        return aggregated(-grpo_advantage(MIXED) * log_ratio.exp() + 1.0 * log_ratio.abs() * marked, "token")

    assert_same_loss(zoo.build("kl_cov", ratio=ratio, average="token"), rows, source, shift * MASK)


# TRL trl/trainer/grpo_trainer.py, get_high_entropy_mask: at least the interpolated quantile. Of 20 tokens a fifth is a
# whole number; elsewhere TRL may keep one token more.
def test_top_entropy_is_trls_mask_on_the_loss():
    rows = batch_of(MIXED)
    kept = rows.entropy >= torch.quantile(rows.entropy[MASK != 0], 0.8)

    def source(logp):
        loss = clipped_loss((logp - rows.old_logp).exp(), grpo_advantage(MIXED), 0.2, 0.2, math.inf)
        return aggregated(loss * kept, "sequence")

    assert_same_loss(zoo.build("top_entropy", share=0.2), rows, source, OFF_POLICY)


# STEER verl/trainer/ppo/core_algos.py, compute_token_weights with linear=False; run/run_exp.sh: 0.8, 0.2, 0.28, 10.
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_steer_is_its_sources_loss_on_policy(scale):
    old_logp = torch.where(MASK != 0, scale * uniform(-3, -0.1, 1), PADDING)
    rows = batch_of(MIXED, old_logp=old_logp)
    a, pi = grpo_advantage(MIXED), old_logp.exp()
    omega = (a / pi * pi * (1 - pi) * (pi.log() + rows.entropy)).abs()
    assert (omega[MASK != 0].max() > 0.02) == (scale == 1.0)  # the floor of the largest binds, or not
    weight = torch.exp(omega * math.log(0.8) / max(omega[MASK != 0].max().item(), 0.02)).clamp(0.8, 1.0)

    def source(logp):
        return aggregated(weight * clipped_loss((logp - old_logp).exp(), a, 0.2, 0.28, 10.0), "token")

    assert_same_loss(zoo.build("steer", clip_high=0.28, dual_clip=10.0, average="token"), rows, source, 0 * MASK)


# E3-RL4LLMs e3/worker/temperature_scheduler.py, TemperatureScheduler.step, with its annealing: the target along half a
# cosine from the first entropy to annealing_factor of it, here a relative target's schedule.
@pytest.mark.parametrize("vocabulary", [16, 151936])
def test_e3_is_its_sources_temperature_with_the_annealed_target(vocabulary):
    measured, begin, end, factor = [0.9, 0.7, 0.5, 1.1, 0.6, 0.4, 0.8, 0.5, 0.3], 3, 9, 0.9
    temperature, target, wanted = 1.0, None, []
    for steps, h in enumerate(measured, 1):
        if steps > 1:
            target = measured[0] if target is None else target
            scale = math.log(vocabulary) + math.log(math.log(vocabulary))
            temperature = temperature * (1 + temperature * math.log(target / h) / scale)
            if steps >= begin:
                decay = 0.5 * (1 + math.cos(math.pi * (steps - begin) / (end - begin)))
                target = measured[0] * ((1 - factor) * decay + factor)
        wanted.append(temperature)
    controller = zoo.build("e3", vocabulary=vocabulary, t_low=0.01, t_high=100.0).controller
    loop, got = Loop.start(controller, double(0.0)), []
    for step, h in enumerate(measured):
        # The source's step counts from 1, and its target answers a step later.
        level = Cosine(start=1.0, end=factor, steps=end - begin)(max(step - begin, 0))
        loop, decided = loop.decide(
            controller, entropy=double(h), target=level, sees="current", step=step, relative=True
        )
        got.append(decided.temperature.item())
    assert got == pytest.approx(wanted, rel=1e-12)


# SkyRL pull request 1896, skyrl/backends/skyrl_train/utils/ppo_utils.py, repo_r_rescale_advantages: under the current
# policy. On-policy it is ours.
@pytest.mark.parametrize("zeta", [-1.0, -0.05, 0.0, 0.05, 0.4, 1.0])
def test_repo_r_is_its_sources_loss_on_policy(zeta):
    rows, a = batch_of(MIXED, old_logp=uniform(-30, -0.1, 7)), grpo_advantage(MIXED).expand(MASK.shape)
    logp = rows.old_logp.clamp(min=-20.0)
    up, down = (a * (1 - zeta * logp)).clamp(min=0), (a * (1 + zeta * logp)).clamp(max=0)
    rescaled = torch.where(a > 0, up, torch.where(a < 0, down, a))

    def source(logp):
        loss = clipped_loss((logp - rows.old_logp).exp(), rescaled, 0.2, 0.2, math.inf)
        return aggregated(loss, "token")

    assert_same_loss(zoo.build("repo_r", average="token"), rows, source, 0 * MASK, decided=control(zeta))


# The same file, repo_r_update_zeta; config.py, REPOConfig: 1e-3, 1e-4 and 0.05, at first 1.
@pytest.mark.parametrize(("start", "limit"), [(1e-3, 0.05), (0.0, 0.05), (-0.05, 0.05), (0.5, 1.0)])
def test_repo_rs_zeta_is_its_sources(start, limit):
    def updated(zeta, h):
        if h > 0.5:
            if zeta >= 0:
                zeta /= 2
                return -1e-4 if zeta < 1e-4 else zeta
            return max(-limit, zeta * 2)
        if h < 0.5:
            if zeta >= 0:
                return min(limit, zeta * 2) if zeta > 0 else 1e-4
            zeta /= 2
            return 1e-4 if zeta > -1e-4 else zeta
        return zeta

    controller = zoo.build("repo_r", start=start, limit=limit).controller
    state, zeta = controller.initial(double(0.0)), start
    for h in [0.9] * 25 + [0.1] * 25 + [0.5] + [0.9, 0.1, 0.4] * 9 + [0.6] * 13:
        zeta = updated(zeta, h)
        state, decided = controller.update(state, double(h), double(0.5))
        assert decided.push.item() == zeta


# STARE verl/trainer/ppo/core_algos.py, STAREController and compute_stare_token_weights; run_short_cot_..._STARE.sh: O1,
# 0.1, 1.1, 0.9, fixed. The weights multiply the loss of a token, and its ranks are those before the update.
@pytest.mark.parametrize("entropies", [[0.2], [0.3], [0.5], [0.1, 0.1, 0.6, 0.2]])
@pytest.mark.parametrize(("variant", "alpha"), [("O1", 0.0), ("C2", 0.0), ("C2", 0.05), ("C2", 0.3)])
def test_stare_is_its_sources_loss(variant, alpha, entropies):
    rows, a = batch_of(MIXED), grpo_advantage(MIXED).expand(MASK.shape)
    method = zoo.build("stare", variant=variant, step=alpha, dual_clip=3.0, average="token")
    w, m, gate_on, state = 1.1, 0.9, True, method.controller.initial(double(0.0))
    for h in entropies:
        gate_on, sign = h < 0.3, (0.3 > h) - (0.3 < h)
        w, m = min(max(w + alpha * sign, 1.0), 1.5), min(max(m - alpha * sign, 0.5), 1.0)
        state, decided = method.controller.update(state, double(h), double(0.3))

    def chosen(candidates: Tensor) -> Tensor:
        k = min(max(1, int(int(candidates.sum()) * 0.1 + 0.999999)), int(candidates.sum()))
        places = (-rows.old_logp).masked_fill(~candidates, -math.inf).view(-1).topk(k).indices
        return torch.zeros(MASK.numel(), dtype=torch.bool).index_fill(0, places, True).view(MASK.shape)

    omega = torch.ones_like(a)
    if gate_on:
        omega[chosen((MASK > 0) & (a > 0))] = w
        if variant == "C2":
            omega[chosen((MASK > 0) & (a < 0))] = m

    def source(logp):
        return aggregated(omega * clipped_loss((logp - rows.old_logp).exp(), a, 0.2, 0.2, 3.0), "token")

    assert_same_loss(method, rows, source, OFF_POLICY, decided=decided)


# Trinity-RFT trinity/algorithm/advantage_fn/clipb_advantage.py, ClipBAdvantageFn. Its dropped tokens leave the
# denominators, too; here they count as 0.
@pytest.mark.parametrize("mu", [0.0, 0.4, 0.8, 2.5])
def test_clip_b_is_its_sources_mask_on_the_loss(mu):
    rows = batch_of(MIXED)
    lp, h = (torch.where(MASK != 0, x, 0.0) for x in (rows.old_logp, rows.entropy))
    s, n = lp.exp() * (h + lp), MASK.sum()
    mean = (s * MASK).sum() / n
    std = (((s - mean) ** 2 * MASK).sum() / n).sqrt()
    kept = torch.where(grpo_advantage(MIXED) < 0, s - mean >= -(mu * std), torch.ones_like(s) > 0)
    assert mu == 2.5 or (~kept & (MASK != 0)).any()

    def source(logp):
        loss = clipped_loss((logp - rows.old_logp).exp(), grpo_advantage(MIXED), 0.2, 0.2, math.inf)
        return aggregated(loss * kept, "token")

    assert_same_loss(zoo.build("clip_b", mu=mu, average="token"), rows, source, OFF_POLICY)


# Trinity-RFT trinity/algorithm/advantage_fn/clipv_advantage.py, ClipVAdvantageFn.
def clip_v_mask(d: Tensor, a: Tensor, mu: float, max_frac: float) -> Tensor:
    n = MASK.sum()
    mean = (d * MASK).sum() / n
    std = (((d - mean) ** 2 * MASK).sum() / n).sqrt()
    keep = torch.where(a > 0, torch.ones_like(d) > 0, d <= mu * std)
    if ((MASK > 0) & ~keep).sum() / n <= max_frac:
        return keep
    most = max(int(max_frac * n.item()), 1)
    to_clip = (a < 0) & (MASK > 0) & ~keep
    if to_clip.sum() <= most:
        return keep
    chosen = d.masked_fill(~to_clip, -math.inf).view(-1).topk(most).indices
    limited = torch.zeros(d.numel(), dtype=torch.bool).index_fill(0, chosen, True).view_as(d)
    return (keep | to_clip) & ~limited


@pytest.mark.parametrize("share", [1e-4, 0.1, 0.2, 1.0])
@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0, 8.5])
def test_clip_v_is_its_sources_mask_on_the_loss(mu, share):
    rows = batch_of(MIXED, mean_effect=uniform(0, 0.3, 8))
    a = grpo_advantage(MIXED).expand(MASK.shape)
    d = rows.mean_effect - rows.old_logp.exp() * (rows.entropy + rows.old_logp)
    kept = clip_v_mask(torch.where(MASK != 0, d, 0.0), a, mu, share)

    def source(logp):
        loss = clipped_loss((logp - rows.old_logp).exp(), a, 0.2, 0.2, math.inf)
        return aggregated(loss * kept, "token")

    assert_same_loss(zoo.build("clip_v", mu=mu, share=share, average="token"), rows, source, OFF_POLICY)


# Trinity-RFT examples/entropy/clipv_dp_actor.py, compute_N_from_logits: H sum p^2 + sum p^2 ln p. The second form is
# what the trainer computes it from, the entropies of pi and of q ~ pi^2.
@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0])
def test_the_mean_effect_is_the_sources_n_in_both_forms(scale):
    z = scale * torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    logp = z.log_softmax(-1)
    p2 = logp.exp() ** 2
    want = -(logp.exp() * logp).sum(-1) * p2.sum(-1) + (p2 * logp).sum(-1)
    assert_close(mean_effect(logp), want, atol=ROUNDING)
    token = torch.arange(12).view(3, 4) % 6
    one, squared = token_stats(z, token), token_stats(z, token, 0.5)
    assert_close(mean_effect_of_squares(*one, *squared), want, atol=ROUNDING)


# SIREN verl/verl/workers/actor/dp_actor.py, baseline_entropy_adv, with the kappa of Cheng et al., whose code is closed.
def test_entropy_adv_is_the_formula_that_a_later_baseline_runs():
    rows = batch_of(MIXED)
    plain = grpo_advantage(MIXED)
    a = plain + torch.minimum(0.4 * rows.entropy, plain.abs() / 2)

    def source(logp):
        return aggregated(clipped_loss((logp - rows.old_logp).exp(), a, 0.2, 0.2, 3.0), "token")

    assert_same_loss(zoo.build("entropy_adv", dual_clip=3.0, average="token"), rows, source, OFF_POLICY)


# QAE README: torch.quantile, interpolated, takes the mean's place in verl's GRPO advantage. In a group of 16 its index
# 0.4 x 15 = 6 is whole, and both agree with the paper's gate at p = 1 - k.
@pytest.mark.parametrize("right", range(17))
def test_the_quantile_advantage_is_the_sources_and_gates_at_the_papers_accuracy(right):
    reward = double([1.0] * right + [0.0] * (16 - right))
    got = assemble(zoo.build("quantile"), control(), scored(reward, [[-1.0]] * 16, group_size=16)).advantage.flatten()
    assert_close(got, (reward - torch.quantile(reward, 0.4)) / (reward.std() + 1e-6), atol=ROUNDING)
    assert not (got < 0).any() if right / 16 <= 0.6 else not (got > 0).any()


# DCPO verl/trainer/ray_trainer.py, fit, the branch alg == "DCPO".
@pytest.mark.parametrize(("entropy", "temperature"), [(0.45, 1.2), (0.58, 0.8), (0.1, 1.2), (3.0, 0.8)])
def test_dcpo_is_its_sources_advantage_and_temperature(entropy, temperature):
    rows = batch_of(MIXED, logp_t=uniform(-3, -0.1, 4))
    method = zoo.build("dcpo")
    loop = Loop.start(method.controller, double(0.0))
    _, decided = loop.decide(method.controller, entropy=double(entropy), target=0.5, sees="current")
    assert decided.temperature.item() == temperature
    right = double(MIXED) > 0.05
    ratio = min(abs(0.5 - entropy), 0.1) / (right.sum().item() / len(MIXED))
    alpha = ratio / (ratio + 1)
    tilted = right.double().view(-1, 1) * (rows.logp_t - rows.old_logp).exp()
    want = torch.where(MASK != 0, (1 - alpha) * grpo_advantage(MIXED) + alpha * tilted, 0.0)
    assert_close(assemble(method, decided, rows).advantage, want, atol=ROUNDING)


# Entrocraft verl/trainer/ppo/core_algos.py, compute_grpo_range_outcome_advantage: outside the band it takes the rewards
# +-1 themselves. In groups that are half right ours are that times |A|, which is one number there.
@pytest.mark.parametrize("entropy", [0.3, 0.46, 0.5, 0.54, 0.7])
def test_entrocraft_keeps_the_sources_rows(entropy):
    half = [1, 0, 1, 0, 0, 1, 1, 0]
    score = 2 * double(half) - 1
    want = score.clamp(min=0) if entropy > 0.55 else score.clamp(max=0) if entropy < 0.45 else score
    method = zoo.build("entrocraft")
    _, decided = method.controller.update({}, double(entropy), double(0.5))
    got = assemble(method, decided, batch_of(half)).advantage
    size = 1 / (score.view(2, 4).std(-1)[0] + 1e-6)
    assert_close(got, MASK * size * want.view(-1, 1), rtol=EPSILON)


# EntroPIC core_algos.py, compute_policy_loss_entropic: its extra term is over tokens of probability > 0.95 and is not
# clipped. On-policy, where every token is that likely, it is ours.
@pytest.mark.parametrize("alpha", [-0.7, 0.0, 0.4])
def test_entropic_is_its_sources_loss_on_policy_among_likely_tokens(alpha):
    rows = batch_of(MIXED, old_logp=uniform(math.log(0.96), -1e-3, 5))

    def source(logp):
        a, ratio = grpo_advantage(MIXED), (logp - rows.old_logp).exp()
        loss = aggregated(clipped_loss(ratio, a, 0.2, 0.2, 3.0), "token")
        return loss + alpha * aggregated(-ratio * a.abs(), "token")

    method = zoo.build("entropic", dual_clip=3.0, average="token")
    assert_same_loss(method, rows, source, 0 * MASK, decided=control(-alpha))


# EntroPIC dp_actor.py, update_policy; Entrocraft's compute_entropic_outcome_advantage is the same without the bound.
def test_entropics_push_is_minus_the_sources_alpha_with_this_steps_error_already_in_the_sum():
    controller = zoo.build("entropic").controller
    state, total = controller.initial(double(0.0)), 0.0
    for h in (0.9, 0.3, 0.2, 0.6, 0.5):
        alpha = max(-1.0, min(1.0, 0.01 * total + 1.0 * (h - 0.5)))
        total += h - 0.5
        state, decided = controller.update(state, double(h), double(0.5))
        assert_close(decided.push, -alpha + 0.01 * (0.5 - h), atol=8 * EPS)


# Skywork-OR1 verl/trainer/ppo/core_algos.py, EntController, as in or1_scripts/train/7b_8k.sh and ppo_trainer.yaml; TRL
# trl/trainer/grpo_trainer.py, whose test is H <= H*, which differs on the target alone.
@pytest.mark.parametrize(("step", "high"), [(1e-4, 5e-3), (1e-3, 0.5), (0.005, 1.0), (0.4, 1.0)])
def test_the_adaptive_bonus_is_skyworks_and_trls_coefficient_up_to_both_limits(step, high):
    controller = zoo.build("adaptive_bonus", step=step, high=high).controller
    state, coef = controller.initial(double(0.0)), 0.0
    for h in [0.3] * 2 + [0.1] * 60 + [0.2, 0.25, 0.1] * 3 + [0.4] * 60 + [0.1]:
        coef = min(max(coef + (step if h < 0.2 else -step), 0.0), high)
        state, decided = controller.update(state, double(h), double(0.2))
        assert_close(decided.push, coef if h < 0.2 else 0.0, atol=128 * EPS)


# SIREN verl/verl/workers/actor/dp_actor.py, mask_by_quantile and the branch "siren", with the whole vocabulary as its
# nucleus. Its quantile is within each response; here every response has one token that is the batch's, too.
def test_siren_is_its_sources_loss_where_both_choose_the_same_tokens():
    z = 4 * torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    z[0, 1], z[1, 3] = z[0, 1] / 40, z[1, 3] / 40
    z.requires_grad_()
    mask = double([[1, 1, 1, 1, 1, 0]] * 2)
    logp, h = token_stats(z, torch.zeros(2, 6, dtype=torch.int64))
    floor = torch.nanquantile(h.detach().masked_fill(mask == 0, math.nan), 0.8, dim=-1, keepdim=True)
    chosen = (h > floor) & (mask != 0)
    assert chosen.sum(-1).tolist() == [1, 1]
    mean = ((h * chosen).sum(-1) / chosen.sum(-1)).mean()
    (want,) = torch.autograd.grad(5e-3 * (mean - 0.7) ** 2, z)
    rows = scored([1, 0], logp.detach(), group_size=2, entropy=h.detach(), mask=mask)
    method = zoo.build("siren")
    _, decided = method.controller.update({}, mean.detach(), double(0.7))
    assert_close(bonus_gradient(method, decided, z, rows), want, atol=ROUNDING)
