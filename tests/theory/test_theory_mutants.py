"""The theory's tests can fail: each named mistake, in the theory or in the core beneath, must be noticed.

The checks are fast and draw nothing at random but from a fixed seed. Signs alone would miss several mistakes (no C, no
baseline, a uniform mean): what notices them is a real step of a softmax written out here, which shares no line with the
code.
"""

import numpy as np
import pytest
import test_cases
import test_theory_bounds
import test_theory_floor
import test_theory_moving
import test_theory_noise
import test_theory_sequences
import test_theory_steering
import test_theory_threshold
import test_theory_variants
import torch
from mutation import Mutant, assert_harmless, assert_noticed
from strategies import States
from three_ways import NORMALISED, PAPER, ascent, drift_by_steps

from aepo import categorical, loss, method, normalizer, theory
from aepo.batch import Rollouts
from aepo.tabular import train
from aepo.tabular.worlds import bandit
from aepo.theory import bounds, drift, floor, moving, noise, samplers, sequences, softmax, variants
from aepo.theory.softmax import Array
from aepo.theory.steering import delta_reward, entropy_ceiling, steering, steering_coefficient
from aepo.theory.threshold import _margin, contraction_bound, critical_temperature, slope_bound

# -- an independent oracle: a softmax, its entropy, and differences --

RNG = np.random.default_rng(0)
N, K = 40, 4
Z = RNG.normal(size=(N, K)) * 1.5
RIGHT = (RNG.random((N, K)) < 0.5) | (np.arange(K) == RNG.integers(0, K, (N, 1)))
T = RNG.uniform(0.5, 2.5, N)
REWARD = RIGHT * RNG.uniform(0.5, 2.0, (N, K))
STATES = States(corner=np.full(N, "normal"), logits=Z, correct=RIGHT, temperature=T, lr=np.ones(N))


def policy(z: Array, t=1.0) -> Array:
    weight = np.exp(z / np.asarray(t)[..., None])
    return weight / weight.sum(-1, keepdims=True)


def nats(p: Array) -> Array:
    return -(p * np.log(p)).sum(-1)


def step(weight: Array, gram=None) -> Array:
    """E[R grad ln pi] for samples of the given weights, written out action by action."""
    direction = sum(weight[:, [a]] * (np.eye(K)[a] - policy(Z)) for a in range(K))
    return direction if gram is None else direction @ gram


def derivative(f, x=0.0, h=1e-3):
    """Differences of fourth order: good to 1e-10 here."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


def along(move: Array) -> Array:
    """dH along a move of the logits."""
    return derivative(lambda h: nats(policy(Z + h * move)))


def same(got, want) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-9)


def given_correct(t) -> Array:
    weight = policy(Z, t) * REWARD
    return weight / weight.sum(-1, keepdims=True)


# -- the checks --


def check_delta_entropy() -> None:
    same(theory.delta_entropy(Z, REWARD, temperature=T), along(step(policy(Z, T) * REWARD)))


def check_as_printed() -> None:
    same(theory.delta_entropy_as_printed(Z, REWARD, temperature=T), along(step(policy(Z, T) * REWARD)))


def check_step() -> None:
    same(theory.reinforce_step(Z, REWARD, temperature=T, lr=2.0), Z + 2 * step(policy(Z, T) * REWARD))


def check_slope() -> None:
    pulls = np.stack([along(step(np.tile(row, (N, 1)))) for row in np.eye(K)], -1)
    want = derivative(lambda h: (policy(Z, T + h) * REWARD * pulls).sum(-1))
    same(theory.delta_entropy_slope(Z, REWARD, temperature=T), want)


def check_softmax_slopes() -> None:
    same(theory.entropy_temperature_slope(Z, T), derivative(lambda h: nats(policy(Z, T + h))))
    same(theory.tempered_slope(Z, T), derivative(lambda h: policy(Z, T + h)))
    same(theory.mean_logit(Z, T), (policy(Z, T) * Z).sum(-1))


def check_threshold() -> None:
    # Every action on the side of the threshold that a real step says.
    lowers = -np.stack([along(step(np.tile(row, (N, 1)))) for row in np.eye(K)], -1)
    assert (np.sign(lowers) == np.sign(Z - theory.threshold(Z)[:, None])).all()


def check_contraction() -> None:
    base, hot = along(step(policy(Z) * REWARD)), along(step(policy(Z, 1 + T) * REWARD))
    bound = theory.contraction_bound(Z, REWARD, temperature=1 + T)
    falls = base < -1e-6
    assert falls.sum() > 5 and ((bound > base) & (bound <= hot + 1e-9))[falls].all()
    assert np.isnan(bound[base > 1e-6]).all()


def check_slope_bound_is_tight_when_hot() -> None:
    test_theory_threshold.test_the_slope_bound_is_tight()
    z, correct, t = np.array([2.0, 0.5, -1.0, -1.0]), np.array([False, True, False, False]), 2.0
    low, high = -1.0, 2.0
    for _ in range(60):
        z[1] = (low + high) / 2
        low, high = (z[1], high) if theory.pull(z)[1] < 0 else (low, z[1])
    z[1] = high + 1e-4
    ratio = theory.delta_entropy_slope(z, correct, temperature=t) / theory.slope_bound(z, correct, temperature=t)
    assert 1 < ratio < 1.001


def check_critical_temperature() -> None:
    found = theory.critical_temperature(Z, RIGHT)
    finite = np.isfinite(found) & (found > 0.05) & (found < 20)
    assert finite.sum() > 5
    for factor in (0.9, 1.1):
        t = np.where(finite, factor * found, 1.0)
        change = along(step(policy(Z, t) * RIGHT))
        assert (np.sign(change) == np.sign(factor - 1))[finite].all()


def check_remainder_by_hand() -> None:
    # Uniform over two, one correct: S = 1/2, so (1 + ln 2) / 8; twice the step, four times that.
    want = (1 + np.log(2.0)) / 8
    same(theory.remainder_bound([0.0, 0.0], [True, False]), want)
    same(theory.remainder_bound([0.0, 0.0], [True, False], lr=2.0), 4 * want)


def check_step_bound() -> None:
    # Half the mass on the first of 1000 actions, half spread; the first is taken away by ten large steps or so.
    z = np.zeros(1000)
    z[0] = np.log(999.0)
    correct = np.arange(1000) > 0
    changes = [
        abs(nats(policy(theory.reinforce_step(z, correct, lr=lr))) - nats(policy(z))) for lr in (0.1, 1.0, 10.0, 100.0)
    ]
    limits = [theory.step_bound(z, correct, lr=lr) for lr in (0.1, 1.0, 10.0, 100.0)]
    assert all(change <= limit for change, limit in zip(changes, limits, strict=True))
    same(theory.step_bound([0.0] * 3, [True, False, False], lr=3.0), np.log(3.0))


def check_ordering() -> None:
    # Four times the lr at which the two remainders fill the gap: nothing is promised there; at the lr itself all is.
    base, hot = along(step(policy(Z) * RIGHT)), along(step(policy(Z, 2.0) * RIGHT))
    mass = (policy(Z) * RIGHT).sum(-1) ** 2 + (policy(Z, 2.0) * RIGHT).sum(-1) ** 2
    want = np.where(base < 0, 2 * (hot - base) / (mass * (1 + np.log(K))), np.nan)
    clear = np.abs(base) > 1e-6
    same(theory.ordering_lr(Z, RIGHT, temperature=2.0)[clear], want[clear])


def check_normalised() -> None:
    same(theory.delta_entropy_normalised(Z, REWARD, temperature=T), along(step(given_correct(T))))


def check_natural() -> None:
    def drift_at(t):
        return along(policy(Z, t) * REWARD / policy(Z))

    same(theory.delta_entropy_natural(Z, REWARD, temperature=T), drift_at(T))
    same(theory.natural_slope_at_one(Z, REWARD), derivative(lambda h: drift_at(np.full(N, 1 + h))))


def check_features() -> None:
    gram = np.diag([1.0, 3.0, 0.5, 2.0]) + 0.2
    same(theory.delta_entropy_with_features(Z, REWARD, gram, temperature=T), along(step(policy(Z, T) * REWARD, gram)))
    want = derivative(lambda h: along(step(policy(Z, 1 + h) * REWARD, gram)))
    np.testing.assert_allclose(theory.delta_entropy_slope_with_features(Z, REWARD, gram), want, rtol=1e-5, atol=1e-8)


def check_samplers() -> None:
    # 8 : 4 : 2 : 2.
    z = np.log([8.0, 4.0, 2.0, 2.0])
    assert [(theory.top_k(z, k) > 0).sum() for k in (1, 2, 3, 4)] == [1, 2, 4, 4]
    assert [(theory.top_p(z, p) > 0).sum() for p in (0.4, 0.6, 0.7, 0.9)] == [1, 2, 2, 4]
    assert [(theory.min_p(z, ratio) > 0).sum() for ratio in (0.9, 0.4, 0.1)] == [1, 2, 4]
    same(theory.top_k(z, 2), [2 / 3, 1 / 3, 0, 0])


LEVELS = [RNG.normal(size=(2,)), RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3, 2))]
RESPONSES = RNG.random((2, 3, 2)) < 0.5


def check_sequences() -> None:
    uphill, ascents = test_theory_sequences.shared_gradients(LEVELS, RESPONSES.astype(np.float64), 1.7)
    moved = theory.sequence_step(LEVELS, RESPONSES, temperature=1.7, lr=0.5)
    for after, level, ascent_of_level in zip(moved, LEVELS, ascents, strict=True):
        same(after, level + 0.5 * ascent_of_level)
    want = sum((g * v).sum() for g, v in zip(uphill, ascents, strict=True))
    same(theory.delta_entropy_of_sequences(LEVELS, RESPONSES, temperature=1.7), want)
    leaves = [torch.tensor(level) for level in LEVELS]
    main, _ = test_theory_sequences.responses(leaves, RESPONSES.astype(np.float64), 1.0)
    same(theory.token_entropy(LEVELS), float(main.mean_entropy()))


def check_steering() -> None:
    inside, onto = theory.steering(Z, RIGHT, temperature=T)
    same(inside + onto, step(policy(Z, T) * RIGHT))
    same(inside.sum(-1), 0.0)
    # The bonus: near T = 1 the coefficient is what turns the gradient of H(q) into the inside part, by hand 1 - 4/5.
    same(theory.steering_coefficient([0.0, 0.0], [True, True], temperature=1.25), 0.2)


def check_delta_reward() -> None:
    move = step(policy(Z, T) * RIGHT)
    want = derivative(lambda h: (policy(Z + h * move) * RIGHT).sum(-1))
    same(theory.delta_reward(Z, RIGHT, temperature=T), want)


def check_moving_target() -> None:
    test_theory_moving.test_no_choice_of_steps_and_moves_is_worse_than_the_bound_and_one_is_as_bad(2)


def check_noise_bound() -> None:
    test_theory_noise.test_the_bound_by_hand(0.3)


def check_noise_needs_authority() -> None:
    with np.errstate(divide="ignore"):
        test_theory_noise.test_a_target_as_fast_as_the_drift_is_not_bounded()


def check_floor() -> None:
    test_theory_floor.test_the_floor_by_hand([[0.5, 0.5], [0.1, 0.9]], 0.05)


def check_median() -> None:
    # At or below: 1 with 0.3, 2 with 0.5, the median, 5 with 1.
    same(theory.median([5.0, 1.0, 2.0], [0.5, 0.3, 0.2]), 2.0)


# -- the core, judged by the theory --


def shared_direction(method_used=PAPER, reward=REWARD) -> Array:
    return ascent(method_used, torch.tensor(Z), torch.tensor(reward), torch.tensor(T)).numpy()


def check_loss_direction() -> None:
    same(shared_direction(), theory.reinforce_step(Z, REWARD, temperature=T) - Z)


def check_wrong_answers_are_not_pushed_down() -> None:
    signed = np.where(RIGHT, 1.0, -1.0)
    same(shared_direction(reward=signed), theory.reinforce_step(Z, RIGHT, temperature=T) - Z)


def check_loss_direction_over_the_correct() -> None:
    got = shared_direction(NORMALISED, RIGHT * 1.0)
    q = theory.correct_given(Z, RIGHT, temperature=T)
    same(got, q - policy(Z))


def check_simulator() -> None:
    same(drift_by_steps(STATES), theory.delta_entropy(Z, RIGHT, temperature=T))


def check_core_entropy() -> None:
    same(categorical.entropy(torch.tensor(Z), torch.tensor(T)), theory.entropy(Z, T))


MUTANTS = [
    Mutant(
        "Delta H has the wrong sign",
        drift.delta_entropy_of_sampler,
        "return -np.asarray(lr",
        "return np.asarray(lr",
        check_delta_entropy,
    ),
    Mutant(
        "C is dropped from the pull",
        softmax.pull,
        "return d - (pi * d).sum(-1, keepdims=True)",
        "return d",
        check_delta_entropy,
    ),
    Mutant("C is added", softmax.pull, "return d - (pi * d)", "return d + (pi * d)", check_delta_entropy),
    Mutant(
        "the baseline m is dropped", softmax.pull, "(z - (pi * z).sum(-1, keepdims=True))", "z", check_delta_entropy
    ),
    Mutant(
        "m is a uniform mean",
        softmax.pull,
        "(z - (pi * z).sum(-1, keepdims=True))",
        "(z - z.mean(-1, keepdims=True))",
        check_delta_entropy,
    ),
    Mutant(
        "C is a uniform mean",
        softmax.pull,
        "return d - (pi * d).sum(-1, keepdims=True)",
        "return d - d.mean(-1, keepdims=True)",
        check_delta_entropy,
    ),
    Mutant(
        "the printed covariance forgets its means",
        drift.delta_entropy_as_printed,
        " - mean_value * mean_score",
        "",
        check_as_printed,
    ),
    Mutant(
        "the score is the tempered policy's",
        drift.reinforce_step,
        "* tempered(z))",
        "* tempered(z, temperature))",
        check_step,
    ),
    Mutant(
        "the step forgets the policy",
        drift.reinforce_step,
        " - pushed.sum(-1, keepdims=True) * tempered(z)",
        "",
        check_step,
    ),
    Mutant("the slope has the wrong sign", drift.delta_entropy_slope, "* total /", "* -total /", check_slope),
    Mutant(
        "T^2 is T in the slope", drift.delta_entropy_slope, "dtype=np.float64) ** 2", "dtype=np.float64)", check_slope
    ),
    Mutant(
        "the slope centres at T = 1", drift.delta_entropy_slope, "(pi_t * z).sum", "(tempered(z) * z).sum", check_slope
    ),
    Mutant("T^3 is T^2 in Lemma 4.1", softmax.entropy_temperature_slope, "** 3", "** 2", check_softmax_slopes),
    Mutant(
        "the tempered policy's slope has T in place of T^2",
        softmax.tempered_slope,
        "_per_action(temperature) ** 2",
        "_per_action(temperature)",
        check_softmax_slopes,
    ),
    Mutant(
        "the mean logit is uniform",
        softmax.mean_logit,
        "(tempered(logits, temperature) *",
        "(np.full_like(tempered(logits, temperature), 1 / np.shape(logits)[-1]) *",
        check_softmax_slopes,
    ),
    Mutant(
        "W0 is taken of C without e^H",
        _margin,
        "np.maximum(c, 0.0) * np.exp(entropy(z))",
        "np.maximum(c, 0.0)",
        check_threshold,
    ),
    Mutant("the threshold's C is E d", _margin, "(pi**2 *", "(pi *", check_threshold),
    Mutant(
        "the slope's bound is measured from m",
        slope_bound,
        "mean_logit(logits, temperature)",
        "mean_logit(logits)",
        check_slope_bound_is_tight_when_hot,
    ),
    Mutant(
        "the slope's bound has T in place of T^2",
        slope_bound,
        "dtype=np.float64) ** 2",
        "dtype=np.float64)",
        check_slope_bound_is_tight_when_hot,
    ),
    Mutant("the contraction expands", contraction_bound, "np.exp(-(", "np.exp((", check_contraction),
    Mutant(
        "the contraction holds at every sign",
        contraction_bound,
        "np.where(change < 0, shrunk, np.nan)",
        "shrunk",
        check_contraction,
    ),
    Mutant(
        "the critical temperature is its inverse",
        critical_temperature,
        "(1.0 - low) / np.maximum(low, 1e-300)",
        "low / np.maximum(1.0 - low, 1e-300)",
        check_critical_temperature,
    ),
    Mutant("S is not squared in the remainder", bounds.remainder_bound, "mass**2", "mass", check_remainder_by_hand),
    Mutant(
        "lr is not squared in the remainder",
        bounds.remainder_bound,
        "dtype=np.float64) ** 2 *",
        "dtype=np.float64) *",
        check_remainder_by_hand,
    ),
    Mutant("ln K is dropped from the step's bound", bounds.step_bound, " * _ln_actions(logits)", "", check_step_bound),
    Mutant(
        "the ordering step size forgets the square of the masses",
        bounds.ordering_lr,
        "temperature=temperature) ** 2",
        "temperature=temperature)",
        check_ordering,
    ),
    Mutant(
        "the ordering step size has no premise",
        bounds.ordering_lr,
        "np.where(base < 0,",
        "np.where(base < np.inf,",
        check_ordering,
    ),
    Mutant(
        "the band is in bits",
        bounds.controller_band,
        "np.log(actions)",
        "np.log2(actions)",
        test_theory_bounds.test_the_band_is_the_step_bounds_for_all_mass,
    ),
    Mutant(
        "the band of a moving target is the longest step alone",
        moving.moving_target_bound,
        "np.maximum(b + delta,",
        "np.maximum(b,",
        check_moving_target,
    ),
    Mutant(
        "a moving target is neared by the whole authority",
        moving.moving_target_bound,
        "k * (eps - delta)",
        "k * eps",
        check_moving_target,
    ),
    Mutant(
        "a target as fast as the authority is bounded",
        moving.moving_target_bound,
        "np.where(delta < eps,",
        "np.where(delta <= eps,",
        test_theory_moving.test_without_authority_over_the_target_the_error_may_stay_for_ever,
    ),
    Mutant(
        "the hitting time is rounded down",
        moving.moving_target_hitting_time,
        "np.ceil(",
        "np.floor(",
        test_theory_moving.test_the_hitting_time_is_the_first_step_at_which_the_bound_is_the_band,
    ),
    Mutant(
        "the way to the band is the way to the target",
        moving.moving_target_hitting_time,
        "np.abs(e) - (b + delta)",
        "np.abs(e)",
        test_theory_moving.test_the_hitting_time_is_the_first_step_at_which_the_bound_is_the_band,
    ),
    Mutant(
        "a target is lost at its own speed",
        moving.lost_target_bound,
        "(delta - b)",
        "delta",
        test_theory_moving.test_the_bound_of_a_lost_target_is_met_by_a_controller_that_does_all_it_can,
    ),
    Mutant(
        "the start's share of the noise bound does not fade",
        noise.noise_error_bound,
        "(room * n)",
        "room",
        check_noise_bound,
    ),
    Mutant("the noise is not squared", noise.noise_error_bound, "(b + delta) ** 2", "(b + delta)", check_noise_bound),
    Mutant(
        "the target's speed adds no noise", noise.noise_error_bound, "(b + delta) ** 2", "b ** 2", check_noise_bound
    ),
    Mutant("the noise bound is halved", noise.noise_error_bound, "2.0 * (eps", "4.0 * (eps", check_noise_bound),
    Mutant(
        "noise is bounded for a target as fast as the drift",
        noise.noise_error_bound,
        "np.where(delta < eps,",
        "np.where(delta <= eps,",
        check_noise_needs_authority,
    ),
    Mutant(
        "the floor is measured from the mean",
        floor.noise_floor,
        "median(x, p)",
        "(p * x).sum(-1)",
        test_theory_floor.test_the_distance_to_the_mean_is_no_floor,
    ),
    Mutant("the floor is that of the worst control", floor.noise_floor, ".min(-1)", ".max(-1)", check_floor),
    Mutant(
        "a sample is measured from a median that it is one of",
        floor.estimated_floor,
        "others = np.delete(x, i, axis=-1)",
        "others = x",
        test_theory_floor.test_the_estimates_by_hand,
    ),
    Mutant(
        "the control of most noise is chosen",
        floor.estimated_floor,
        ".argmin(-1)",
        ".argmax(-1)",
        test_theory_floor.test_the_estimates_by_hand,
    ),
    Mutant("the floor forgets the chances", floor.noise_floor, "(p * np.abs", "(1.0 * np.abs", check_floor),
    Mutant(
        "chances are not sorted with their values",
        floor.median,
        "for each in (x, p))",
        "if each is x else each for each in (x, p))",
        check_median,
    ),
    Mutant("the median is the first quartile", floor.median, ">= 0.5", ">= 0.25", check_median),
    Mutant(
        "q is not normalised",
        variants.correct_given,
        "weight / weight.sum(-1, keepdims=True)",
        "weight",
        check_normalised,
    ),
    Mutant(
        "q weighs no reward", variants.correct_given, "weight = reward *", "weight = (reward > 0) *", check_normalised
    ),
    Mutant(
        "the natural gradient forgets m",
        variants.delta_entropy_natural,
        "(z - mean_logit(z)[..., np.newaxis])",
        "z",
        check_natural,
    ),
    Mutant("the natural slope is a first moment", variants.natural_slope_at_one, ") ** 2", ") ** 1", check_natural),
    Mutant(
        "the features' score forgets the policy",
        variants._through,
        "pushed - pushed.sum(-1, keepdims=True) * pi",
        "pushed",
        check_features,
    ),
    Mutant(
        "the features' norms are ignored",
        variants._through,
        "np.asarray(gram, dtype=np.float64) @",
        "1.0 *",
        test_theory_variants.test_unequal_norms_by_hand,
    ),
    Mutant(
        "top-k keeps one more",
        samplers.top_k,
        "[..., -k, np.newaxis]",
        "[..., -min(k + 1, z.shape[-1]), np.newaxis]",
        check_samplers,
    ),
    Mutant(
        "top-p stops one early",
        samplers.top_p,
        "reached.argmax(-1)",
        "np.maximum(reached.argmax(-1) - 1, 0)",
        check_samplers,
    ),
    Mutant("min-p counts its ratio from the top", samplers.min_p, ">= ratio)", ">= 1 - ratio)", check_samplers),
    Mutant(
        "a truncation is not normalised", samplers._restricted, "pi / pi.sum(-1, keepdims=True)", "pi", check_samplers
    ),
    Mutant(
        "the sequence gradient has no future",
        sequences.delta_entropy_of_sequences,
        " + to_come - future[..., np.newaxis]",
        "",
        check_sequences,
    ),
    Mutant(
        "the future is the next token's alone",
        sequences.delta_entropy_of_sequences,
        "to_come = h + future",
        "to_come = h",
        check_sequences,
    ),
    Mutant(
        "sequences are drawn at T = 1",
        sequences._directions,
        "(levels, temperature)[-1]",
        "(levels)[-1]",
        check_sequences,
    ),
    Mutant(
        "the token entropy is not averaged over the length",
        sequences.token_entropy,
        " / len(levels)",
        "",
        check_sequences,
    ),
    Mutant("all wrong mass goes to every correct action", steering, "wrong * q", "q", check_steering),
    Mutant("the coefficient is T - 1", steering_coefficient, "(1.0 - 1.0 / t)", "(t - 1.0)", check_steering),
    Mutant(
        "the reward's change is not centred",
        delta_reward,
        "v - (pi * v).sum(-1, keepdims=True)",
        "v",
        check_delta_reward,
    ),
    Mutant(
        "the ceiling counts every action as correct",
        entropy_ceiling,
        "j * np.log(correct)",
        "j * np.log(actions)",
        lambda: test_theory_steering.test_the_ceiling_by_hand(0.25),
    ),
    Mutant(
        "a case's logits are natural numbers",
        type(test_cases.cases.reward_falls()).logits.fget,
        " * np.log(float(self.base))",
        "",
        lambda: test_cases.test_the_claim_fails_exactly_where_the_gallery_says(
            test_cases.cases.low_temperature_loses_less
        ),
    ),
    # The core.
    Mutant(
        "negative rewards are let through",
        method.by_reward,
        "rollouts.reward > 0",
        "rollouts.reward != 0",
        check_wrong_answers_are_not_pushed_down,
    ),
    Mutant(
        "a correct sample is credited with 1 whatever its reward",
        method.reward_credit,
        "return rollouts.reward",
        "return (rollouts.reward > 0) * 1.0",
        check_loss_direction,
    ),
    Mutant(
        "the mean over positives is not normalised",
        normalizer.positives,
        "row_weight / total.masked_fill(total == 0, 1.0)",
        "row_weight",
        check_loss_direction_over_the_correct,
    ),
    Mutant(
        "the score function is the probability's",
        loss.ScoreFunction.__call__,
        "batch.advantage * logp",
        "batch.advantage * logp.exp()",
        check_loss_direction,
    ),
    Mutant(
        "the shares of a group's rows do not add up to its weight",
        Rollouts.row_weight.fget,
        "(self.group_size / ",
        "(1.0 / ",
        check_loss_direction,
    ),
    Mutant(
        "the simulator samples at T = 1",
        bandit.Bandit.enumerate,
        "prompts], temperature)",
        "prompts], torch.ones_like(temperature))",
        check_simulator,
    ),
    Mutant("the simulator descends", train.update, "table - _rate", "table + _rate", check_simulator),
    Mutant(
        "the core's entropy is negative",
        categorical.entropy_of,
        "0.0 - finite",
        "0.0 + finite",
        check_core_entropy,
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_noticed(mutant, monkeypatch):
    assert_noticed(mutant, monkeypatch)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_an_unchanged_line_changes_nothing(mutant, monkeypatch):
    assert_harmless(mutant, monkeypatch)
