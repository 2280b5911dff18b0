"""Every method of the zoo against its equation, written again as loops over tokens in plain floats.

The oracle below shares no line with `aepo`: it takes rewards, lengths and log-ratios, walks the sums of Eq.
1, 2 and 3 as the paper writes them, and yields the derivative of the loss by the logits of every visited
token.
"""

import math
import statistics
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import Scene, assert_close, log_ratios, policy_logits, scenes, seeds
from torch import Tensor

from aepo import zoo
from aepo.batch import Rollouts
from aepo.categorical import token_stats
from aepo.loss import policy_loss
from aepo.method import assemble

# Each derivative is one product of a weight (<= 4), an advantage (< 3, itself good to 1e-12, see
# test_advantage), a ratio (< e^1.5) and a score.
ROUNDING = 4 * 3 * math.exp(1.5) * 1e-12


@dataclass
class Row:
    """One response, as plain numbers."""

    reward: float
    advantage: float
    tokens: list[int]
    ratio: list[float]
    entropy: list[float]
    probs: list[list[float]]
    sample_advantage: float = 0.0
    gradient: list[list[float]] = field(default_factory=list)


def rows_of(rollouts: Rollouts, z: Tensor, log_ratio: Tensor, std: str) -> list[Row]:
    rewards, g = rollouts.reward.tolist(), rollouts.group_size
    rows = []
    for i, reward in enumerate(rewards):
        group = rewards[i // g * g : i // g * g + g]
        if min(group) == max(group):
            advantage = 0.0
        else:
            deviation = {"sample": statistics.stdev, "population": statistics.pstdev}
            scale = 1.0 if std == "none" else deviation[std](group) + 1e-6
            advantage = (reward - statistics.fmean(group)) / scale
        length = int(rollouts.mask[i].sum())
        rows.append(
            Row(
                reward=reward,
                advantage=advantage,
                tokens=rollouts.token[i, :length].tolist(),
                ratio=[math.exp(x) for x in log_ratio[i, :length].tolist()],
                entropy=rollouts.entropy[i, :length].tolist(),
                probs=[softmax(x) for x in z[i, :length].tolist()],
                gradient=[[0.0] * z.shape[-1] for _ in range(z.shape[-2])],
            )
        )
    return rows


def softmax(x: list[float]) -> list[float]:
    total = math.fsum(math.exp(value) for value in x)
    return [math.exp(value) / total for value in x]


def clipped(options: dict):
    """Derivative by log pi of min(r A, clip(r) A), with the dual clip where it is asked for."""
    low, high, dual = 1 - options["clip_low"], 1 + options["clip_high"], options["dual_clip"]

    def slope(ratio: float, advantage: float) -> float:
        if advantage > 0 and ratio > high:
            return 0.0
        if advantage < 0 and (ratio < low or (dual is not None and ratio > dual)):
            return 0.0
        return ratio * advantage

    return slope


def reinforce_slope(ratio: float, advantage: float) -> float:
    return advantage


def average(rows: list[Row], how: str) -> list[tuple[Row, list[float]]]:
    """Each row's tokens with what they count in the mean: responses first, or all tokens at once."""
    tokens = sum(len(row.tokens) for row in rows)
    if how == "sequence":
        return [(row, [1 / len(rows) / len(row.tokens)] * len(row.tokens)) for row in rows if row.tokens]
    return [(row, [1 / tokens] * len(row.tokens)) for row in rows if row.tokens]


def push(row: Row, weights: list[float], credits: list[float], slope) -> None:
    """Subtract weight x d objective / dz: ascent of the objective is descent of the loss."""
    for t, (weight, credit) in enumerate(zip(weights, credits, strict=True)):
        pull = weight * slope(row.ratio[t], credit)
        for v, p in enumerate(row.probs[t]):
            row.gradient[t][v] -= pull * ((v == row.tokens[t]) - p)


def on_policy_term(main: list[Row], options: dict, slope, credit) -> None:
    for row, weights in average(main, options["average"]):
        push(row, weights, [credit(row, t) for t in range(len(weights))], slope)


def grpo(main, second, options, up):
    on_policy_term(main, options, clipped(options), lambda row, t: row.advantage)


def reinforce(main, second, options, up):
    on_policy_term(main, options, reinforce_slope, lambda row, t: row.reward)


def entropy_adv(main, second, options, up):
    def credit(row, t):
        return row.advantage + min(options["beta"] * row.entropy[t], abs(row.advantage) / options["kappa"])

    on_policy_term(main, options, clipped(options), credit)


def entropy_reg(main, second, options, up):
    grpo(main, second, options, up)
    for row, weights in average(main, options["average"]):
        for t, weight in enumerate(weights):
            h = -math.fsum(p * math.log(p) for p in row.probs[t])
            for v, p in enumerate(row.probs[t]):  # dH/dz = -p (ln p + H)
                row.gradient[t][v] -= options["coef"] * weight * -p * (math.log(p) + h)


def entropy_reg_nll(main, second, options, up):
    grpo(main, second, options, up)
    for row, weights in average(main, options["average"]):
        for t, weight in enumerate(weights):
            for v, p in enumerate(row.probs[t]):  # -ln pi(token)
                row.gradient[t][v] -= options["coef"] * weight * -((v == row.tokens[t]) - p)


def with_second_term(main, second, options, up, *, taken, credit):
    """The T = 1 term and the tempered term, for the three normalizers."""
    slope = clipped(options)
    cap = options["cap_up"] if up else options["cap_down"]
    if options["normalizer"] == "replace" and cap is None:
        cap = 60 if up else 30
    kept = [row for row in second if taken(row)][:cap]
    if options["normalizer"] == "replace":
        kept = kept[: len(main)]
        mixed = main[len(kept) :] + kept
        for row, weights in average(mixed, options["average"]):
            own = credit(row) if any(row is one for one in kept) else row.advantage
            push(row, weights, [own] * len(weights), slope)
        return
    grpo(main, second, options, up)
    # `all` averages over every tempered sample, those that are not kept counting as zero.
    for row, weights in average(second if options["normalizer"] == "all" else kept, options["average"]):
        if any(row is one for one in kept):
            push(row, [options["alpha"] * weight for weight in weights], [credit(row)] * len(weights), slope)


def positive(options):
    if options["select"] == "reward":
        return lambda row: row.reward > 0
    # The threshold is on the sample-std advantage whatever GRPO divides by.
    return lambda row: row.sample_advantage > 0.05


def aepo(main, second, options, up):
    with_second_term(main, second, options, up, taken=positive(options), credit=lambda row: row.reward)


def aepo_eq3(main, second, options, up):
    with_second_term(main, second, options, up, taken=lambda row: True, credit=lambda row: row.advantage)


def reinforce_tempered(main, second, options, up):
    for row, weights in average(second, options["average"]):
        push(row, weights, [row.reward] * len(weights), reinforce_slope)


ORACLES = {
    "aepo": aepo,
    "aepo_eq2": aepo,  # the same loss; the temperature of the samples is what differs
    "aepo_eq3": aepo_eq3,
    "entropy_adv": entropy_adv,
    "entropy_reg": entropy_reg,
    "entropy_reg_nll": entropy_reg_nll,
    "grpo": grpo,
    "reinforce": reinforce,
    "reinforce_tempered": reinforce_tempered,
}


def on_policy_ratio(rollouts: Rollouts | None, seed: int):
    """The rollouts with old log-probs such that the ratios take all sides of the clip range."""
    if rollouts is None:
        return None, None, None
    z = policy_logits(rollouts, seed)
    log_ratio = log_ratios(tuple(rollouts.token.shape), seed)
    return rollouts.replace(old_logp=token_stats(z, rollouts.token)[0] - log_ratio), z, log_ratio


def check(scene: Scene, seed: int) -> None:
    """Autograd through `assemble` and `policy_loss` equals the oracle, row by row and token by token."""
    main, main_z, main_ratio = on_policy_ratio(scene.main, seed)
    second, second_z, second_ratio = on_policy_ratio(scene.second, seed + 1)
    batch = assemble(scene.method, scene.control, main, second)
    leaves = [z.requires_grad_() for z in (main_z, second_z) if z is not None]
    length = batch.token.shape[-1]
    z = torch.cat([torch.nn.functional.pad(x, (0, 0, 0, length - x.shape[-2])) for x in leaves], -3)
    logp, entropy = token_stats(z, batch.token)
    loss, _ = policy_loss(logp, scene.method.bonus(logp, entropy), batch, scene.method.surrogate)
    got = torch.autograd.grad(loss, leaves, materialize_grads=True)
    std = scene.options.get("std", "sample")
    main_rows = rows_of(main, main_z, main_ratio, std)
    second_rows = []
    if second is not None:
        second_rows = rows_of(second, second_z, second_ratio, std)
        for row, sample in zip(second_rows, rows_of(second, second_z, second_ratio, "sample"), strict=True):
            row.sample_advantage = sample.advantage
    ORACLES[scene.name](main_rows, second_rows, scene.options, bool(scene.control.raise_entropy))
    for derivative, rows in zip(got, (main_rows, second_rows), strict=False):
        assert_close(derivative, [row.gradient for row in rows], atol=ROUNDING)


def test_every_method_of_the_zoo_has_an_independent_derivation():
    missing = set(zoo.METHODS) - set(ORACLES)
    assert not missing, f"write the equations of {sorted(missing)} as loops in this file"


@pytest.mark.parametrize("name", sorted(ORACLES))
@given(data=st.data(), seed=seeds.filter(lambda seed: seed < 2**32 - 1))
def test_the_gradient_of_the_loss_is_that_of_the_methods_equation(name, data, seed):
    check(data.draw(scenes((name,))), seed)


@pytest.mark.parametrize("normalizer", ["all", "positives", "replace"])
@pytest.mark.parametrize("name", ["aepo", "aepo_eq2", "aepo_eq3"])
@given(data=st.data(), seed=seeds.filter(lambda seed: seed < 2**32 - 1))
def test_each_normalizer_is_the_mean_that_its_equation_writes(name, normalizer, data, seed):
    check(data.draw(scenes((name,), normalizer=normalizer)), seed)
