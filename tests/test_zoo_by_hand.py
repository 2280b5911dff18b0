"""The field's methods on small fixed inputs, against numbers worked out from their sources' formulas.

Old log-probs, entropies and advantages are chosen so that every expected number is one line of arithmetic.
"""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import EPS, assert_close, double, rollouts, scenes

from aepo import zoo
from aepo.batch import Batch, Rollouts
from aepo.categorical import entropy, token_stats
from aepo.controller import (
    Band,
    Control,
    Doubling,
    Dual,
    Gate,
    Hysteresis,
    Proportional,
    ProportionalIntegral,
    Staircase,
    TemperatureScheduler,
)
from aepo.loss import policy_loss
from aepo.method import assemble
from aepo.zoo.reweighting import centred_ratio

ROUNDING = 400 * EPS
# The epsilon beside a deviation of at least 0.5 takes less than this part of an advantage.
EPSILON = 2e-6


def scored(reward, old_logp, *, group_size: int, entropy=None, logp_t=None, mean_effect=None, mask=None) -> Rollouts:
    old_logp = double(old_logp)
    return Rollouts(
        prompt=torch.arange(len(reward)) // group_size,
        token=torch.zeros(old_logp.shape, dtype=torch.int64),
        mask=torch.ones_like(old_logp) if mask is None else double(mask),
        reward=double(reward),
        group_size=group_size,
        old_logp=old_logp,
        entropy=torch.ones_like(old_logp) if entropy is None else double(entropy),
        logp_t=None if logp_t is None else double(logp_t),
        mean_effect=None if mean_effect is None else double(mean_effect),
    )


def control(push: float | None = None, *, error: float = 0.0, step: int = 0) -> Control:
    return Control(
        temperature=double(1.0),
        raise_entropy=torch.tensor(error > 0),
        push=None if push is None else double(push),
        error=double(error),
        step=step,
    )


def advantages(method, rows: Rollouts, decided: Control) -> list[list[float]]:
    return assemble(method, decided, rows).advantage.tolist()


def value_and_slope(surrogate, advantage: float, ratio: float, **fields) -> list[float]:
    """The objective of one token of weight 1, and its derivative by the log-prob."""
    one = torch.ones(1, 1, dtype=torch.float64)
    now = fields.pop("entropy_now", None)
    batch = Batch(
        prompt=torch.zeros(1, dtype=torch.int64),
        token=one.long(),
        mask=one,
        old_logp=-2 * one,
        advantage=advantage * one,
        weight=one,
        entropy_weight=0 * one,
        group_size=1,
        **{name: value * one if name == "old_entropy" else one == value for name, value in fields.items()},
    )
    logp = (-2 * one + math.log(ratio)).requires_grad_()
    loss, _ = policy_loss(logp, None, batch, surrogate, token_entropy=None if now is None else now * one)
    # A token without gradient is no function of logp at all.
    (slope,) = torch.autograd.grad(loss, logp, allow_unused=True, materialize_grads=True)
    return [-loss.item(), -slope.item()]


# -- clipping --


def test_ce_gppo_by_hand():
    # eps 0.2 / 0.28, beta 0.75 / 1, dual clip 3. Outside the range the value and the slope are constants.
    surrogate = zoo.build("ce_gppo").surrogate
    table = [  # advantage, ratio, objective = slope
        (+2.0, 1.1, 2.2),  # r A: inside
        (+2.0, 0.5, 1.0),  # r A: low, but positive
        (+2.0, 1.5, 2.56),  # 1 x 1.28 A: high and positive, where a plain clip sends nothing
        (+2.0, 9.0, 2.56),  # the same at any height
        (-2.0, 0.5, -1.2),  # 0.75 x 0.8 A: low and negative
        (-2.0, 0.9, -1.8),  # r A: inside
        (-2.0, 2.5, -5.0),  # r A: high, but negative
    ]
    for advantage, ratio, objective in table:
        got = value_and_slope(surrogate, advantage, ratio)
        assert got == pytest.approx([objective, objective], abs=1e-14), (advantage, ratio)
    # Above 3 the dual clip bounds a negative token at 3 A and sends nothing.
    assert value_and_slope(surrogate, -2.0, 4.0) == pytest.approx([-6.0, 0.0], abs=1e-14)
    assert value_and_slope(zoo.build("ce_gppo", dual_clip=None).surrogate, -2.0, 4.0) == pytest.approx([-8.0, -8.0])


def test_clip_higher_lets_a_rare_token_rise_further_by_hand():
    surrogate = zoo.build("clip_higher").surrogate
    assert value_and_slope(surrogate, 1.0, 1.25) == pytest.approx([1.25, 1.25])
    assert value_and_slope(surrogate, 1.0, 1.3) == pytest.approx([1.28, 0.0])
    assert value_and_slope(surrogate, -1.0, 0.75) == pytest.approx([-0.8, 0.0])


def test_kl_cov_penalises_a_marked_token_and_clips_none_by_hand():
    surrogate = zoo.build("kl_cov").surrogate  # coef 1
    # Unmarked: r A, far outside any clip range too. Marked: r A - |ln r|, slope r A - sign(ln r).
    assert value_and_slope(surrogate, 1.0, 4.0, mark=False) == pytest.approx([4.0, 4.0])
    assert value_and_slope(surrogate, 1.0, 4.0, mark=True) == pytest.approx([4.0 - math.log(4), 3.0])
    assert value_and_slope(surrogate, 1.0, 0.25, mark=True) == pytest.approx([0.25 - math.log(4), 1.25])
    assert value_and_slope(surrogate, 1.0, 1.0, mark=True) == pytest.approx([1.0, 1.0])


def test_entropy_ratio_clipping_keeps_the_value_and_stops_the_gradient_by_hand():
    surrogate = zoo.build("entropy_ratio_clip").surrogate  # 0.8 < H / H_old < 1.2
    for now, slope in ((0.5, 1.1), (0.41, 1.1), (0.39, 0.0), (0.59, 1.1), (0.61, 0.0)):
        got = value_and_slope(surrogate, 1.0, 1.1, old_entropy=0.5, entropy_now=now)
        assert got == pytest.approx([1.1, slope]), now
    # A token that was certain and stays so has not moved: (0 + 1e-8) / (0 + 1e-8) = 1. From 0 to 1e-6 it is 101.
    for now, slope in ((0.0, 1.1), (1e-6, 0.0)):
        assert value_and_slope(surrogate, 1.0, 1.1, old_entropy=0.0, entropy_now=now) == pytest.approx([1.1, slope])


# Four responses to one prompt, two right: A = +-a, a = (1/2) / (sqrt(1/3) + 1e-6) = 0.8660. Mean A = 0 and mean
# ln pi = -2, so cov = a (1, -1, 1, -1) x (-1 + 2, -2 + 2, -3 + 2, -2 + 2) = a (1, 0, -1, 0).
COVARYING = ([1, 0, 1, 0], [[-1.0], [-2.0], [-3.0], [-2.0]])
A = 0.5 / (math.sqrt(1 / 3) + 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_penalty_of_kl_cov_has_no_gradient_by_the_luck_of_rounding(dtype):
    surrogate, zeros = zoo.build("kl_cov").surrogate, torch.zeros(1, 3, dtype=dtype)
    old_logp = torch.full((1, 3), -2.0, dtype=dtype)
    batch = Batch(
        prompt=torch.zeros(1, dtype=torch.int64), token=zeros.long(), mask=zeros + 1, old_logp=old_logp,
        advantage=zeros, weight=zeros + 1, entropy_weight=zeros, group_size=1, mark=zeros == 0,
    )  # fmt: skip
    # Two and -2 last digits of a log-prob of -2 apart, and 0.001 nats.
    last = torch.finfo(dtype).eps * 4
    logp = (old_logp + torch.tensor([[last, -last, 1e-3]], dtype=dtype)).requires_grad_()
    assert ((logp - old_logp) != 0).all()
    surrogate(logp, batch).sum().backward()
    assert logp.grad.tolist() == [[0.0, 0.0, -1.0]]


def test_the_covariance_by_hand_and_the_tokens_that_kl_cov_marks():
    rows = scored(*COVARYING, group_size=4)
    # floor(0.4 x 4) = 1 token, the first; floor(0.8 x 4) = 3 with the tie at 0: the first, second and fourth.
    for ratio, marked in ((2e-3, [1, 0, 0, 0]), (0.4, [1, 0, 0, 0]), (0.8, [1, 1, 0, 1])):
        batch = assemble(zoo.build("kl_cov", ratio=ratio), control(), rows)
        assert batch.mark.flatten().int().tolist() == marked, ratio


def test_clip_cov_drops_only_tokens_inside_the_band_by_hand():
    rows = scored(*COVARYING, group_size=4)
    kept = pytest.approx([A, -A, A, -A])
    # cov = 0.866, 0, -0.866, 0. In (1, 5) there is none; in (0.5, 5) the first; in (-1, -0.5) the third.
    for low, high, dropped in ((1.0, 5.0, None), (0.5, 5.0, 0), (-1.0, -0.5, 2)):
        got = [a for (a,) in advantages(zoo.build("clip_cov", low=low, high=high), rows, control())]
        want = [0.0 if i == dropped else value for i, value in enumerate([A, -A, A, -A])]
        assert got == pytest.approx(want), (low, high)
        assert dropped is not None or got == kept


def test_clip_covs_draw_depends_on_the_step_alone_and_reaches_every_candidate():
    rows = scored([1, 0] * 8, [[-1.0]] * 16, group_size=16)
    method = zoo.build("clip_cov", low=-1.0, high=1.0, ratio=2e-4)  # cov = 0 everywhere: 16 candidates, one drawn
    drawn = []
    for step in range(100):
        torch.manual_seed(step % 7)  # no global generator takes part
        first, again = (assemble(method, control(step=step), rows).advantage for _ in range(2))
        assert torch.equal(first, again)
        gone = (first == 0).flatten().nonzero().flatten().tolist()
        assert len(gone) == 1
        drawn += gone
    # Sixteen candidates in 100 draws: one is missed with probability 16 (15/16)^100 < 0.03.
    assert set(drawn) == set(range(16))


@pytest.mark.parametrize(("name", "option"), [("kl_cov", "ratio"), ("top_entropy", "share"), ("siren", "share")])
@settings(max_examples=60)
@given(data=st.data())
def test_a_selection_has_at_least_one_token_never_padding_and_about_its_share(name, option, data):
    scene = data.draw(scenes((name,), runs=(2,)))
    rows = scene.main.replace(reward=torch.rand(scene.main.reward.shape, generator=torch.Generator().manual_seed(1)))
    rows = rows.replace(reward=rows.reward.double())
    method, decided = scene.method, dataclasses.replace(scene.control, push=double([1.0, -1.0]))
    if name == "kl_cov":
        chosen = assemble(method, decided, rows).mark
    elif name == "siren":
        chosen = assemble(method, decided, rows).entropy_weight != 0
    else:
        # Dropped tokens have advantage 0, so an advantage that is nowhere 0 shows the chosen ones.
        plain = dataclasses.replace(method, advantage=lambda r: torch.ones_like(r.reward))
        chosen = assemble(plain, decided, rows).advantage != 0
    assert not chosen[rows.mask == 0].any()
    tokens = rows.mask.sum((-2, -1))
    for run in range(2):
        want = max(int(scene.options[option] * int(tokens[run])), 1) if tokens[run] else 0
        # Ties with the last are all in; of random numbers there are none, but a group of one has cov 0 throughout.
        assert int(chosen[run].sum()) == want or (name == "kl_cov" and int(chosen[run].sum()) >= want)


def test_top_entropy_trains_the_most_uncertain_fifth_by_hand():
    # 2 x 5 tokens: the two highest entropies, 0.9 and 0.8, keep their advantage of +-1 / sqrt 2.
    h = [[0.1, 0.2, 0.9, 0.3, 0.1], [0.4, 0.8, 0.1, 0.1, 0.5]]
    rows = scored([1, 0], [[-1.0] * 5] * 2, group_size=2, entropy=h)
    a = 0.5 / (0.5**0.5 + 1e-6)
    want = double([[0, 0, a, 0, 0], [0, -a, 0, 0, 0]])
    assert_close(assemble(zoo.build("top_entropy"), control(), rows).advantage, want, atol=ROUNDING)


def test_steer_by_hand():
    # pi = 1/2, ln pi = -0.6931. Omega = A (1 - pi)(ln pi + H), A = +-0.7071: with H = 0.6931 + 0.2 it is 0.1 A, with
    # H = 0.6931 + 0.4 0.2 A, the largest: weights 0.8^(1/2) and 0.8.
    h = [[math.log(2) + 0.2], [math.log(2) + 0.4]]
    rows = scored([1, 0], [[-math.log(2)]] * 2, group_size=2, entropy=h)
    a = 0.5 / (0.5**0.5 + 1e-6)
    got = assemble(zoo.build("steer"), control(), rows).advantage
    assert_close(got, [[a * math.sqrt(0.8)], [-a * 0.8]], atol=ROUNDING)
    # Below the floor of 0.02 k is -ln 0.8 / 0.02: |Omega| = 0.01 and 0.005 over a.
    h = [[math.log(2) + 0.02 / a], [math.log(2) + 0.01 / a]]
    rows = rows.replace(entropy=double(h))
    got = assemble(zoo.build("steer"), control(), rows).advantage
    assert_close(got, [[a * 0.8**0.5], [-a * 0.8**0.25]], atol=ROUNDING)


# One prompt, four responses of one token, the last two wrong. pi = 1/2, 1/4, 1/2, 1/4 and H = ln 2, 0, 0, 0: S = pi
# (ln pi + H) is 0, -(ln 4) / 4, -(ln 2) / 2, -(ln 4) / 4, in units of u = (ln 2) / 2: 0, -1, -1, -1.
FALLING = {
    "old_logp": [[-math.log(2)], [-math.log(4)], [-math.log(2)], [-math.log(4)]],
    "entropy": [[math.log(2)], [0.0], [0.0], [0.0]],
}
U = math.log(2) / 2


def test_clip_b_drops_wrong_tokens_far_below_the_mean_by_hand():
    # S = (0, -1, -1, -1) u: mean -3/4 u, population deviation sqrt(3)/4 u = 0.433 u. The wrong ones are -0.577
    # deviations away: mu = 0.5 drops both, 0.6 none. The second, right, is as far away and stays.
    rows = scored([1, 1, 0, 0], **FALLING, group_size=4)
    for mu, kept in ((0.5, [1, 1, 0, 0]), (0.6, [1, 1, 1, 1]), (2.5, [1, 1, 1, 1])):
        got = [a for (a,) in advantages(zoo.build("clip_b", mu=mu), rows, control())]
        assert got == pytest.approx([A * k for A, k in zip([A, A, -A, -A], kept, strict=True)]), mu


def test_clip_b_drops_nothing_where_all_tokens_have_one_effect():
    rows = scored([1, 0], [[-1.0]] * 2, group_size=2)
    a = 0.5 / (0.5**0.5 + 1e-6)
    assert advantages(zoo.build("clip_b", mu=0.0), rows, control()) == [[pytest.approx(a)], [pytest.approx(-a)]]


def test_clip_v_drops_the_few_worst_tokens_against_their_own_distribution_by_hand():
    # E[S] = (0, 0, 1, 0) u: D = E[S] - S = (0, 1, 2, 1) u, mean u, deviation u / sqrt(2). mu sqrt(1/2) = 0.9899 lies
    # below 1: both wrong tokens may go, but of 4 tokens a share of 0.25 is one, that of D = 2 u; 0.5 are two.
    rows = scored([1, 1, 0, 0], **FALLING, group_size=4, mean_effect=[[0.0], [0.0], [U], [0.0]])
    for mu, share, kept in (
        (1.4, 0.25, [1, 1, 0, 1]),
        (1.4, 1e-4, [1, 1, 0, 1]),  # at least one
        (1.4, 0.5, [1, 1, 0, 0]),
        (1.5, 0.5, [1, 1, 0, 1]),  # 1.0607 u: only D = 2 u is above
        (8.5, 1.0, [1, 1, 1, 1]),
    ):
        got = [a for (a,) in advantages(zoo.build("clip_v", mu=mu, share=share), rows, control())]
        assert got == pytest.approx([A * k for A, k in zip([A, A, -A, -A], kept, strict=True)]), (mu, share)


# Four responses of three tokens, two right. The right ones' surprisals 1 .. 6, the wrong ones' 7 .. 12.
SURPRISING = [[-1.0, -5.0, -3.0], [-2.0, -6.0, -4.0], [-7.0, -11.0, -9.0], [-8.0, -12.0, -10.0]]


def test_stare_by_hand():
    # A = +-a over six tokens each. A share of 0.1 is 0.6 tokens, rounded up to one: that of surprisal 6, and for C2
    # that of 12. A share of 1/4 is 1.5, two: 5 and 6; 11 and 12. Below the target w = 0.1, above it all is GRPO.
    rows = scored([1, 1, 0, 0], SURPRISING, group_size=4)
    plain = double([[A] * 3] * 2 + [[-A] * 3] * 2)
    for variant, share, factors in (
        ("O1", 0.1, {(1, 1): 1.1}),
        ("C2", 0.1, {(1, 1): 1.1, (3, 1): 0.9}),
        ("C2", 0.25, {(1, 1): 1.1, (0, 1): 1.1, (3, 1): 0.9, (2, 1): 0.9}),
    ):
        method, want = zoo.build("stare", variant=variant, share=share), plain.clone()
        for place, factor in factors.items():
            want[place] *= factor
        for h, expected in ((0.2, want), (0.3, plain), (0.4, plain)):
            state = method.controller.initial(double(0.0))
            _, decided = method.controller.update(state, double(h), double(0.3))
            assert_close(assemble(method, decided, rows).advantage, expected, atol=ROUNDING)


def test_e3s_controller_by_hand():
    # V = 16: ln 16 + ln ln 16 = 2.772589 + 1.019781 = 3.792370. H* = 1, H = 0.5: T = 1 + ln 2 / 3.792370 = 1.182774.
    # H = 2: T (1 - T 0.182774) = 0.927081.
    controller = zoo.build("e3", vocabulary=16).controller
    state = controller.initial(double(0.0))
    for h, temperature in ((0.5, 1.182774), (2.0, 0.927081)):
        state, decided = controller.update(state, double(h), double(1.0))
        assert decided.temperature.item() == pytest.approx(temperature, abs=1e-6)
        assert zoo.build("e3").main_temperature(state).item() == decided.temperature.item()


def test_repo_r_by_hand():
    # zeta = 0.1: a right token of ln pi = -2 gets A (1 + 0.2), a wrong one A (1 - 0.2); of ln pi = -15 the wrong one's
    # 1 - 1.5 stops at 0. zeta = -0.1: 1 - 0.2 and 1 + 0.2. Below e^-20 a token counts as one of e^-20.
    rows = scored([1, 1, 0, 0], [[-2.0], [-50.0], [-2.0], [-15.0]], group_size=4)
    method = zoo.build("repo_r")
    for zeta, factors in ((0.1, [1.2, 3.0, 0.8, 0.0]), (-0.1, [0.8, 0.0, 1.2, 2.5]), (0.0, [1, 1, 1, 1])):
        got = [a for (a,) in advantages(method, rows, control(zeta))]
        assert got == pytest.approx([f * a for f, a in zip(factors, [A, A, -A, -A], strict=True)]), zeta


def test_repo_rs_controller_by_hand():
    # From 1e-3, limits 1e-4 and 1: twice too low, 2e-3, 4e-3; too high, 2e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4; then half
    # is below 1e-4 and it turns to -1e-4, and doubles; too low again, it halves, and turns from -1e-4 to 1e-4.
    controller = zoo.build("repo_r").controller
    state = controller.initial(double(0.0))
    zetas = [2e-3, 4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, -1e-4, -2e-4, -1e-4, 1e-4]
    for h, zeta in zip([0.1] * 2 + [0.9] * 7 + [0.1] * 2, zetas, strict=True):
        state, decided = controller.update(state, double(h), double(0.5))
        assert decided.push.item() == pytest.approx(zeta, rel=1e-12)
    for _ in range(20):
        state, decided = controller.update(state, double(0.1), double(0.5))
    assert decided.push.item() == 1.0


def test_stares_schedule_by_hand():
    # W - 1 from 0.1 by 0.01: 0.11, 0.12 below the target, 0.11 (and the gate shut) above, 0.12 below again.
    controller = zoo.build("stare", step=0.01).controller
    state = controller.initial(double(0.0))
    for h, w, push in ((0.1, 0.11, 0.11), (0.1, 0.12, 0.12), (0.4, 0.11, 0.0), (0.2, 0.12, 0.12)):
        state, decided = controller.update(state, double(h), double(0.3))
        assert (state["strength"].item(), decided.push.item()) == pytest.approx((w, push))


# -- tilted advantages --


def test_entropic_by_hand():
    # u = 0.25: positives weigh 3/4, negatives 5/4; to lower entropy, the other way round.
    rows = scored([1, 0], [[-1.0]] * 2, group_size=2)
    a = 0.5 / (0.5**0.5 + 1e-6)
    method = zoo.build("entropic")
    assert advantages(method, rows, control(0.25)) == [[pytest.approx(0.75 * a)], [pytest.approx(-1.25 * a)]]
    assert advantages(method, rows, control(-0.5)) == [[pytest.approx(1.5 * a)], [pytest.approx(-0.5 * a)]]


def test_entropics_controller_is_a_pi_loop_by_hand():
    # u = Kp e + Ki sum e, e = H* - H: errors 0.3, 0.1 and Ki = 0.01, Kp = 1 give u = 0.3 + 0.003, then 0.1 + 0.004. The
    # source's code adds this step's error to its sum only afterwards, see test_zoo_sources.
    controller = zoo.build("entropic").controller
    state = controller.initial(double(0.0))
    for h, push in ((0.2, 0.303), (0.4, 0.104)):
        state, decided = controller.update(state, double(h), double(0.5))
        assert decided.push.item() == pytest.approx(push)


def test_entrocraft_by_hand():
    # Target 0.5 +- 0.05. Above: positives alone (RAFT++). Below: negatives alone. Inside: both.
    rows = scored([1, 0], [[-1.0]] * 2, group_size=2)
    a = 0.5 / (0.5**0.5 + 1e-6)
    method = zoo.build("entrocraft")
    for h, want in ((0.6, [a, 0.0]), (0.4, [0.0, -a]), (0.54, [a, -a]), (0.46, [a, -a])):
        _, decided = method.controller.update({}, double(h), double(0.5))
        assert [x for (x,) in advantages(method, rows, decided)] == pytest.approx(want), h


def test_quantile_by_hand():
    # One right of four: the 0.4-quantile of (0, 0, 0, 1) is the second smallest, 0; sample deviation 1/2: A = 2, 0.
    assert_close(
        assemble(zoo.build("quantile"), control(), scored([1, 0, 0, 0], [[-1.0]] * 4, group_size=4)).advantage,
        [[2.0], [0.0], [0.0], [0.0]],
        rtol=EPSILON,
    )
    # Three right of four: of (0, 1, 1, 1) it is 1: the right ones get 0, the wrong one -1 / (1/2).
    assert_close(
        assemble(zoo.build("quantile"), control(), scored([1, 1, 0, 1], [[-1.0]] * 4, group_size=4)).advantage,
        [[0.0], [0.0], [-2.0], [0.0]],
        rtol=EPSILON,
    )
    # Five right of eight are more than 1 - 0.4, so the right ones have nothing to learn.
    rows = scored([1] * 5 + [0] * 3, [[-1.0]] * 8, group_size=8)
    assert (assemble(zoo.build("quantile"), control(), rows).advantage > 0).sum() == 0


def test_dr_grpo_by_hand():
    # (1, 0): A = +-1/2, no deviation. Lengths 1 and 3, constant 4: every token weighs 1/2 / 4.
    rows = scored([1, 0], [[-1.0] * 3] * 2, group_size=2, mask=[[1, 0, 0], [1, 1, 1]])
    batch = assemble(zoo.build("dr_grpo", max_tokens=4), control(), rows)
    assert batch.advantage.tolist() == [[0.5, 0, 0], [-0.5, -0.5, -0.5]]
    assert batch.weight.tolist() == [[0.125, 0, 0], [0.125, 0.125, 0.125]]
    longest = assemble(zoo.build("dr_grpo"), control(), rows)
    assert_close(longest.weight, [[1 / 6, 0, 0], [1 / 6, 1 / 6, 1 / 6]], atol=EPS)


def test_dcpo_by_hand():
    # Two right of four: p = 1/2. |H* - H| = 0.3 counts as 0.1: a = 0.1 / 0.5 = 0.2, w = 0.2 / 1.2 = 1/6.
    # The right ones' ratios are e^0.5 and e^-0.5; A = +-0.8660: 5/6 A + 1/6 ratio, and 5/6 A for the wrong ones.
    rows = scored(
        [1, 1, 0, 0],
        [[-1.0]] * 4,
        group_size=4,
        logp_t=[[-0.5], [-1.5], [-0.2], [-3.0]],
    )
    want = [
        [5 / 6 * A + math.exp(0.5) / 6],
        [5 / 6 * A + math.exp(-0.5) / 6],
        [-5 / 6 * A],
        [-5 / 6 * A],
    ]
    method = zoo.build("dcpo")

    def decided(error: float) -> Control:
        return method.controller.update({}, double(1.0 - error), double(1.0))[1]

    # Unknown counts as far below.
    for error in (0.3, -0.3, math.nan):
        assert_close(assemble(method, decided(error), rows).advantage, want, atol=ROUNDING)
        assert decided(error).temperature.item() == (0.8 if error < 0 else 1.2)
    # |H* - H| = 0.05: a = 0.1, w = 1/11. On the target w is 0, and so it is without a right answer.
    got = assemble(method, decided(0.05), rows).advantage
    assert_close(got[0], [10 / 11 * A + math.exp(0.5) / 11], atol=ROUNDING)
    assert_close(assemble(method, decided(0.0), rows).advantage[:, 0], [A, A, -A, -A], atol=ROUNDING)
    wrong = rows.replace(reward=double([0, 0, 0, 0]))
    assert (assemble(method, decided(0.3), wrong).advantage == 0).all()


def test_reweighting_by_hand():
    # Two right of four, ratios 1 and 3: mean 2, alpha = 4: A + 4 (1/2 - 1), A + 4 (3/2 - 1). The wrong ones keep A.
    rows = scored([1, 1, 0, 0], [[-2.0]] * 4, group_size=4, logp_t=[[-2.0], [-2.0 + math.log(3)], [-1.0], [-0.5]])
    got = assemble(zoo.build("reweighting", scope="group"), control(), rows).advantage
    assert_close(got, [[A - 2.0], [A + 2.0], [-A], [-A]], atol=ROUNDING)
    # One right alone: GRPO's advantage, whatever its ratio.
    alone = rows.replace(reward=double([1, 0, 0, 0]))
    grpo = assemble(zoo.build("grpo"), control(), alone).advantage
    assert torch.equal(assemble(zoo.build("reweighting", scope="group"), control(), alone).advantage, grpo)


def test_a_right_answer_alone_gets_nothing_by_hand():
    # Two tokens of ratios 1 and 3: centred among themselves they would get -2 and 2.
    rows = scored([1, 0], [[-2.0, -2.0]] * 2, group_size=2, logp_t=[[-2.0, -2.0 + math.log(3)], [-1.0, -0.5]])
    assert torch.equal(
        assemble(zoo.build("reweighting", scope="group"), control(), rows).advantage,
        assemble(zoo.build("grpo"), control(), rows).advantage,
    )


@settings(max_examples=60)
@given(data=st.data(), scope=st.sampled_from(["group", "position", "batch", "sequence"]))
def test_the_reweightings_extra_term_is_zero_mean_under_the_losss_weights_in_every_scope(data, scope):
    scene = data.draw(scenes(("reweighting",), runs=(2,), scope=scope))
    batch = assemble(scene.method, scene.control, scene.main)
    names = zoo.options("grpo")
    base = zoo.build("grpo", **{key: value for key, value in scene.options.items() if key in names})
    plain = assemble(base, scene.control, scene.main)
    assert torch.equal(batch.weight, plain.weight)
    extra = batch.weight * (batch.advantage - plain.advantage)
    grouped = extra.unflatten(-2, (-1, scene.main.group_size))
    total = {"position": grouped.sum(-2), "batch": extra.sum((-2, -1))}.get(scope, grouped.sum((-2, -1)))
    assert_close(total, torch.zeros_like(total), atol=ROUNDING)
    # It reaches only the right answers, and none that is alone in its group.
    right = (scene.main.reward > 0).unsqueeze(-1) & (scene.main.mask != 0)
    assert (extra[~right] == 0).all()
    with_tokens = right.any(-1).unflatten(-1, (-1, scene.main.group_size)).sum(-1, keepdim=True)
    if scope != "batch":
        assert (grouped[(with_tokens < 2).expand(grouped.shape[:-1])] == 0).all()


@given(rollouts(runs=(2,)), st.sampled_from(["group", "position", "batch"]), st.sampled_from([0.5, 7.0]))
def test_scaling_every_ratio_or_every_weight_changes_no_centred_ratio(rows, scope, scale):
    ratio, weight = (rows.logp_t - rows.old_logp).exp(), rows.mask * (rows.reward > 0).unsqueeze(-1)
    options = {"group_size": rows.group_size, "scope": scope}
    want = centred_ratio(ratio, weight, **options)
    assert_close(centred_ratio(scale * ratio, weight, **options), want, atol=ROUNDING)
    assert_close(centred_ratio(ratio, scale * weight, **options), want, atol=ROUNDING)


# -- bonuses --


def bonus_gradient(method, decided: Control, z: torch.Tensor, rows: Rollouts) -> torch.Tensor:
    """The derivative of the loss by the logits (R, T, V), without the advantages' part."""
    batch = assemble(method, decided, rows)
    batch = dataclasses.replace(batch, advantage=0 * batch.advantage)
    logp, h = token_stats(z, rows.token)
    loss, _ = policy_loss(logp, method.bonus(logp, h), batch, method.surrogate, token_entropy=h)
    return torch.autograd.grad(loss, z)[0]


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_sirens_gradient_is_that_of_the_squared_distance_by_autograd(share):
    z = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    coef, target = 0.4, 0.9
    logp, h = (value.detach() for value in token_stats(z, torch.zeros(4, 5, dtype=torch.int64)))
    rows = scored([1, 0, 0, 1], logp.tolist(), group_size=4, entropy=h.tolist())
    count = int(share * 20)
    chosen = (h >= h.flatten().sort(descending=True).values[count - 1]).double()
    # The source's term is coef x (mean over the chosen tokens - H*)^2, with the distance of that same mean.
    seen = (chosen * h).sum() / count
    method = zoo.build("siren", coef=coef, share=share, average="token")
    _, decided = method.controller.update({}, seen, double(target))
    got = bonus_gradient(method, decided, z, rows)
    distance = coef * ((chosen * entropy(z)).sum() / count - target).square()
    (want,) = torch.autograd.grad(distance, z)
    assert_close(got, want, atol=ROUNDING)


def test_a_controlled_bonus_is_its_controllers_push_times_the_mean_entropy():
    z = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
    logp, h = (value.detach() for value in token_stats(z, torch.zeros(2, 3, dtype=torch.int64)))
    rows = scored([1, 0], logp.tolist(), group_size=2, entropy=h.tolist())
    (want,) = torch.autograd.grad(-entropy(z).mean(), z)
    for name in ("adaptive_bonus", "dual_bonus", "pi_bonus"):
        for push in (0.3, -0.2):
            assert_close(bonus_gradient(zoo.build(name), control(push), z, rows), push * want, atol=ROUNDING)


@pytest.mark.parametrize(
    ("change", "coefficients"),
    [
        ("constant", [0.4, 0.4, 0.4]),
        ("linear", [0.4, 0.25, 0.1]),  # halfway between 0.4 and 0.1
        ("cosine", [0.4, 0.25, 0.1]),
        ("step", [0.4, 0.4, 0.1]),
    ],
)
@pytest.mark.parametrize("name", ["entropy_reg", "entropy_reg_nll"])
def test_a_scheduled_coefficient_by_hand(name, change, coefficients):
    z = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
    logp, h = (value.detach() for value in token_stats(z, torch.zeros(2, 3, dtype=torch.int64)))
    rows = scored([1, 0], logp.tolist(), group_size=2, entropy=h.tolist())
    method = zoo.build(name, coef=0.4, coef_schedule=change, coef_end=0.1, coef_steps=10)
    rewarded = entropy(z) if name == "entropy_reg" else -token_stats(z, rows.token)[0]
    (want,) = torch.autograd.grad(-rewarded.mean(), z)
    for step, coefficient in zip((0, 5, 10), coefficients, strict=True):
        assert_close(bonus_gradient(method, control(step=step), z, rows), coefficient * want, atol=ROUNDING)
    assert method.label == ("coef=0.4" if change == "constant" else f"coef=0.4, {change} to 0.1 in 10")


def test_a_coefficient_that_is_nowhere_0_but_at_its_start_is_a_bonus():
    assert not zoo.build("entropy_reg", coef=0.0).has_bonus
    assert zoo.build("entropy_reg", coef=0.0, coef_schedule="linear", coef_end=0.1).has_bonus


def test_skyworks_staircase_by_hand():
    # H* = 0.2, steps of 1e-4 in [0, 5e-3], from 0: up, up, then above the target: down, and off.
    controller = Staircase(step=1e-4, low=0.0, high=5e-3)
    assert zoo.build("adaptive_bonus").controller == controller
    state = controller.initial(double(0.0))
    for h, coef, push in ((0.1, 1e-4, 1e-4), (0.1, 2e-4, 2e-4), (0.3, 1e-4, 0.0), (0.1, 2e-4, 2e-4)):
        state, decided = controller.update(state, double(h), double(0.2))
        assert (state["coef"].item(), decided.push.item()) == pytest.approx((coef, push))


def test_sacs_dual_by_hand():
    # ln c <- ln c + 0.1 (H* - H): from 0.01 with an error of 1, 0.01 e^0.1; with -2 after that, 0.01 e^-0.1.
    controller = zoo.build("dual_bonus").controller
    assert controller == Dual(rate=0.1, low=1e-4, high=10.0, start=0.01)
    state = controller.initial(double(0.0))
    for h, push in ((0.0, 0.01 * math.exp(0.1)), (3.0, 0.01 * math.exp(-0.1))):
        state, decided = controller.update(state, double(h), double(1.0))
        assert decided.push.item() == pytest.approx(push)


def test_which_controller_drives_which_method():
    kinds = {
        "aepo_pi": ProportionalIntegral,
        "e3": TemperatureScheduler,
        "entrocraft": Band,
        "entropic": ProportionalIntegral,
        "stare": Gate,
        "pi_bonus": ProportionalIntegral,
        "repo_r": Doubling,
        "reweighting": ProportionalIntegral,
        "siren": Proportional,
    }
    for name, kind in kinds.items():
        assert type(zoo.build(name).controller) is kind, name
    assert not any(isinstance(zoo.build(name).controller, Hysteresis) for name in zoo.METHODS)
