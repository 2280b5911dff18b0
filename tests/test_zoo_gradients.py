"""Every method of the zoo against its equation, written again as loops over tokens in plain floats.

The oracle below shares no line with `aepo`: it takes rewards, lengths and log-ratios, walks the sums of Eq.
1, 2 and 3 as the paper writes them, and those of the field's methods as their sources do, and yields the
derivative of the loss by the logits of every visited token.
"""

import hashlib
import math
import statistics
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import assume, given, settings
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
# Two runs an example, so that a method's 40 examples are 80 instances.
SOME = settings(max_examples=40)


@dataclass
class Row:
    """One response, as plain numbers."""

    reward: float
    advantage: float
    group: int
    tokens: list[int]
    old_logp: list[float]
    logp_t: list[float]
    ratio: list[float]
    entropy: list[float]
    """Before the update; that of `probs` is the entropy now."""
    mean_effect: list[float]
    probs: list[list[float]]
    sample_advantage: float = 0.0
    gradient: list[list[float]] = field(default_factory=list)


@dataclass
class Seen:
    """This step's control of one run, as plain numbers, and the sizes of its batch."""

    up: bool
    push: float
    step: int
    group_size: int
    columns: int
    prompt_fraction: float | None


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
                group=i // g,
                tokens=rollouts.token[i, :length].tolist(),
                old_logp=rollouts.old_logp[i, :length].tolist(),
                logp_t=rollouts.logp_t[i, :length].tolist(),
                ratio=[math.exp(x) for x in log_ratio[i, :length].tolist()],
                entropy=rollouts.entropy[i, :length].tolist(),
                mean_effect=rollouts.mean_effect[i, :length].tolist(),
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


def grpo(main, second, options, seen):
    on_policy_term(main, options, clipped(options), lambda row, t: row.advantage)


def reinforce(main, second, options, seen):
    on_policy_term(main, options, reinforce_slope, lambda row, t: row.reward)


def entropy_adv(main, second, options, seen):
    def credit(row, t):
        return row.advantage + min(options["beta"] * row.entropy[t], abs(row.advantage) / options["kappa"])

    on_policy_term(main, options, clipped(options), credit)


def entropy_now(row: Row, t: int) -> float:
    return -math.fsum(p * math.log(p) for p in row.probs[t])


def bonus(main: list[Row], options: dict, coef: float, counts=None) -> None:
    """Plus coef times the mean entropy of all tokens, or of those that count."""
    counted = [
        (row, t, weight)
        for row, weights in average(main, options["average"])
        for t, weight in enumerate(weights)
        if counts is None or counts(row, t)
    ]
    # The mean over all is over all responses: one without a token counts as entropy 0.
    total = 1.0 if counts is None else math.fsum(weight for _, _, weight in counted)
    for row, t, weight in counted:
        h = entropy_now(row, t)
        for v, p in enumerate(row.probs[t]):  # dH/dz = -p (ln p + H)
            row.gradient[t][v] -= coef * weight / total * -p * (math.log(p) + h)


def coefficient_now(options: dict, step: int) -> float:
    start, end, steps = options["coef"], options["coef_end"], options["coef_steps"]
    done = min(step / steps, 1.0)
    return {
        "constant": start,
        "linear": start * (1 - done) + end * done,
        "cosine": (start + end) / 2 + (start - end) / 2 * math.cos(math.pi * done),
        "step": start if step < steps else end,
    }[options["coef_schedule"]]


def entropy_reg(main, second, options, seen):
    grpo(main, second, options, seen)
    bonus(main, options, coefficient_now(options, seen.step))


def controlled_bonus(main, second, options, seen):
    grpo(main, second, options, seen)
    bonus(main, options, seen.push)


def entropy_reg_nll(main, second, options, seen):
    grpo(main, second, options, seen)
    for row, weights in average(main, options["average"]):
        for t, weight in enumerate(weights):
            for v, p in enumerate(row.probs[t]):  # -ln pi(token)
                row.gradient[t][v] -= coefficient_now(options, seen.step) * weight * -((v == row.tokens[t]) - p)


def with_second_term(main, second, options, seen, *, taken, credit):
    """The T = 1 term and the tempered term, for the three normalizers."""
    slope = clipped(options)
    cap = options["cap_up"] if seen.up else options["cap_down"]
    if options["normalizer"] == "replace" and cap is None:
        cap = 60 if seen.up else 30
    kept = [row for row in second if taken(row)][:cap]
    if options["normalizer"] == "replace":
        kept = kept[: len(main)]
        mixed = main[len(kept) :] + kept
        for row, weights in average(mixed, options["average"]):
            own = credit(row) if any(row is one for one in kept) else row.advantage
            push(row, weights, [own] * len(weights), slope)
        return
    grpo(main, second, options, seen)
    # `all` averages over every tempered sample, those that are not kept counting as zero.
    for row, weights in average(second if options["normalizer"] == "all" else kept, options["average"]):
        if any(row is one for one in kept):
            push(row, [options["alpha"] * weight for weight in weights], [credit(row)] * len(weights), slope)


def positive(options):
    if options["select"] == "reward":
        return lambda row: row.reward > 0
    # The threshold is on the sample-std advantage whatever GRPO divides by.
    return lambda row: row.sample_advantage > 0.05


def aepo(main, second, options, seen):
    with_second_term(main, second, options, seen, taken=positive(options), credit=lambda row: row.reward)


def aepo_adaptive(main, second, options, seen):
    # Its alpha is the largest weight: the push's size says how much of it this step gets.
    alpha = options["alpha"] * abs(seen.push)
    with_second_term(
        main, second, options | {"alpha": alpha}, seen, taken=lambda row: row.reward > 0, credit=lambda row: row.reward
    )


def aepo_reach(main, second, options, seen):
    # A run's rows of more prompts than it asks for are not there.
    prompts = len(main) // seen.group_size
    asked = max(1, round(seen.prompt_fraction * prompts)) * seen.group_size
    aepo_adaptive(main, second[:asked], options, seen)


def aepo_eq3(main, second, options, seen):
    with_second_term(main, second, options, seen, taken=lambda row: True, credit=lambda row: row.advantage)


def reinforce_tempered(main, second, options, seen):
    for row, weights in average(second, options["average"]):
        push(row, weights, [row.reward] * len(weights), reinforce_slope)


def dr_grpo(main, second, options, seen):
    slope = clipped(options | {"dual_clip": None})
    for row in main:
        weight = 1 / len(main) / (options["max_tokens"] or seen.columns)
        push(row, [weight] * len(row.tokens), [row.advantage] * len(row.tokens), slope)


# -- the field's methods, as their sources write them --


def tokens_of(rows: list[Row]) -> list[tuple[int, int]]:
    """Every visited token of the batch as (row, position)."""
    return [(i, t) for i, row in enumerate(rows) for t in range(len(row.tokens))]


def top(values: dict[tuple[int, int], float], count: int) -> set[tuple[int, int]]:
    """The tokens of the `count` largest values, all of those that tie with the last.

    Near ties that only rounding tells apart are no instance of anything.
    """
    ordered = sorted(values.values(), reverse=True)
    last = ordered[count - 1]
    assume(all(value == last or abs(value - last) > 1e-9 for value in ordered))
    return {token for token, value in values.items() if value >= last}


def covariances(rows: list[Row]) -> dict[tuple[int, int], float]:
    """(A - mean A)(ln pi - mean ln pi) of every token, plain means over the batch's tokens."""
    tokens = tokens_of(rows)
    mean_a = math.fsum(rows[i].advantage for i, t in tokens) / len(tokens)
    mean_l = math.fsum(rows[i].old_logp[t] for i, t in tokens) / len(tokens)
    return {(i, t): (rows[i].advantage - mean_a) * (rows[i].old_logp[t] - mean_l) for i, t in tokens}


def clip_cov(main, second, options, seen):
    dropped: set[tuple[int, int]] = set()
    if tokens := tokens_of(main):
        cov = covariances(main)
        edges = [abs(value - options[edge]) for value in cov.values() for edge in ("low", "high")]
        assume(min(edges) > 1e-9)
        # The draw: one number per (position, row), from the step alone; the largest ones inside the band go.
        digest = hashlib.sha256(f"clip_cov/{seen.step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        noise = torch.rand(seen.columns, len(main), generator=generator, dtype=torch.float64).tolist()
        inside = [token for token in tokens if options["low"] < cov[token] < options["high"]]
        inside.sort(key=lambda token: -noise[token[1]][token[0]])
        dropped = set(inside[: max(int(options["ratio"] * len(tokens)), 1)])
    index = {id(row): i for i, row in enumerate(main)}
    on_policy_term(
        main,
        options,
        clipped(options),
        lambda row, t: 0.0 if (index[id(row)], t) in dropped else row.advantage,
    )


def kl_cov(main, second, options, seen):
    marked: set[tuple[int, int]] = set()
    if tokens := tokens_of(main):
        marked = top(covariances(main), max(int(options["ratio"] * len(tokens)), 1))
    index = {id(row): i for i, row in enumerate(main)}
    for row, weights in average(main, options["average"]):
        for t, weight in enumerate(weights):
            # A r - coef |ln r|: the penalty's derivative by ln pi is the sign of ln r, and 0 at 0.
            penalised = (index[id(row)], t) in marked and abs(row.ratio[t] - 1) > 1e-12
            sign = math.copysign(1.0, row.ratio[t] - 1) if penalised else 0.0
            pull = row.ratio[t] * row.advantage - options["coef"] * sign
            for v, p in enumerate(row.probs[t]):
                row.gradient[t][v] -= weight * pull * ((v == row.tokens[t]) - p)


def entropy_ratio_clip(main, second, options, seen):
    def credit(row, t):
        # A credit of 0 sends no gradient.
        return row.advantage if options["low"] < entropy_now(row, t) / row.entropy[t] < options["high"] else 0.0

    on_policy_term(main, options, clipped(options), credit)


def ce_gppo(main, second, options, seen):
    low, high, dual = 1 - options["clip_low"], 1 + options["clip_high"], options["dual_clip"]

    def slope(ratio, advantage):
        pulled = ratio * advantage
        if advantage < 0 and ratio < low:
            pulled = options["beta_low"] * low * advantage
        if advantage > 0 and ratio > high:
            pulled = options["beta_high"] * high * advantage
        return 0.0 if dual is not None and advantage < 0 and pulled < dual * advantage else pulled

    on_policy_term(main, options, slope, lambda row, t: row.advantage)


def top_entropy(main, second, options, seen):
    tokens = tokens_of(main)
    values = {(i, t): main[i].entropy[t] for i, t in tokens}
    chosen = top(values, max(int(options["share"] * len(tokens)), 1)) if tokens else set()
    index = {id(row): i for i, row in enumerate(main)}
    on_policy_term(
        main, options, clipped(options), lambda row, t: row.advantage if (index[id(row)], t) in chosen else 0.0
    )


def steer(main, second, options, seen):
    def omega(row, t):
        # A / pi x pi (1 - pi)(ln pi + H)
        return abs(row.advantage * (1 - math.exp(row.old_logp[t])) * (row.old_logp[t] + row.entropy[t]))

    largest = max((omega(main[i], t) for i, t in tokens_of(main)), default=0.0)
    k = -math.log(options["lowest"]) / max(largest, options["scale"])
    on_policy_term(main, options, clipped(options), lambda row, t: row.advantage * math.exp(-k * omega(row, t)))


def effects(rows: list[Row]) -> dict[tuple[int, int], float]:
    """pi (ln pi + H) of every token, before the update."""
    return {
        (i, t): math.exp(rows[i].old_logp[t]) * (rows[i].old_logp[t] + rows[i].entropy[t]) for i, t in tokens_of(rows)
    }


def without(main: list[Row], options: dict, dropped: set[tuple[int, int]]) -> None:
    """GRPO less the gradient of some tokens."""
    index = {id(row): i for i, row in enumerate(main)}
    on_policy_term(
        main, options, clipped(options), lambda row, t: 0.0 if (index[id(row)], t) in dropped else row.advantage
    )


def clip_b(main, second, options, seen):
    effect = effects(main)
    dropped = set()
    if effect:
        mean, std = statistics.fmean(effect.values()), statistics.pstdev(effect.values())
        assume(std == 0 or std > 1e-9)
        edge = {token: value - mean + options["mu"] * std for token, value in effect.items()}
        assume(all(value == 0 or abs(value) > 1e-9 for value in edge.values()))
        dropped = {(i, t) for (i, t), value in edge.items() if value < 0 and main[i].advantage < 0}
    without(main, options, dropped)


def clip_v(main, second, options, seen):
    change = {(i, t): main[i].mean_effect[t] - value for (i, t), value in effects(main).items()}
    dropped = set()
    if change:
        bound = options["mu"] * statistics.pstdev(change.values())
        assume(all(abs(value - bound) > 1e-9 for value in change.values()))
        wrong = {token: value for token, value in change.items() if value > bound and main[token[0]].advantage < 0}
        if len(change) > 1 and wrong:  # of one token the deviation is 0, and nothing stands out
            dropped = top(wrong, min(max(int(options["share"] * len(change)), 1), len(wrong)))
    without(main, options, dropped)


def repo_r(main, second, options, seen):
    def credit(row, t):
        sign = 1 if row.advantage > 0 else -1
        return row.advantage * max(1 - sign * seen.push * max(row.old_logp[t], -20.0), 0.0)

    on_policy_term(main, options, clipped(options), credit)


def stare(main, second, options, seen):
    def chosen(sign: int) -> set[tuple[int, int]]:
        values = {(i, t): -main[i].old_logp[t] for i, t in tokens_of(main) if sign * main[i].advantage > 0}
        return top(values, max(int(len(values) * options["share"] + 0.999999), 1)) if values else set()

    factor = dict.fromkeys(chosen(1), 1 + seen.push)
    if options["variant"] == "C2":
        factor |= dict.fromkeys(chosen(-1), 1 - seen.push)
    index = {id(row): i for i, row in enumerate(main)}
    on_policy_term(main, options, clipped(options), lambda row, t: row.advantage * factor.get((index[id(row)], t), 1.0))


def entropic(main, second, options, seen):
    def credit(row, t):
        return row.advantage * (1 - seen.push if row.advantage > 0 else 1 + seen.push)

    on_policy_term(main, options, clipped(options), credit)


def entrocraft(main, second, options, seen):
    def credit(row, t):
        left_out = (seen.push > 0 and row.advantage > 0) or (seen.push < 0 and row.advantage < 0)
        return 0.0 if left_out else row.advantage

    on_policy_term(main, options, clipped(options), credit)


def quantile(main, second, options, seen):
    credits = {}
    for row in main:
        group = sorted(one.reward for one in main if one.group == row.group)
        baseline = group[max(math.ceil(options["k"] * len(group) - 1e-9), 1) - 1]
        spread = statistics.stdev(group) if len(group) > 1 else 0.0
        credits[id(row)] = 0.0 if group[0] == group[-1] else (row.reward - baseline) / (spread + 1e-6)
    on_policy_term(main, options, clipped(options), lambda row, t: credits[id(row)])


def dcpo(main, second, options, seen):
    right = sum(row.reward > 0 for row in main) / len(main)
    # The controller has bounded it.
    error = abs(seen.push)
    w = 0.0 if right == 0 else (error / right) / (1 + error / right)

    def credit(row, t):
        extra = math.exp(row.logp_t[t] - row.old_logp[t]) if row.reward > 0 else 0.0
        return (1 - w) * row.advantage + w * extra

    on_policy_term(main, options, clipped(options), credit)


def extra_of(main: list[Row], options: dict, w) -> dict[tuple[int, int], float]:
    """alpha (w / mean(w) - 1) of every token of a positive, the mean under what the loss gives to each token."""
    weight = {
        (i, t): value
        for i, row in enumerate(main)
        for one, weights in average(main, options["average"])
        if one is row
        for t, value in enumerate(weights)
    }

    def place(i: int, t: int) -> tuple:
        where = {"batch": (), "position": (main[i].group, t)}
        return where.get(options["scope"], (main[i].group,))

    extra = {}
    positives = [(i, t) for i, t in tokens_of(main) if main[i].reward > 0]
    for here in {place(i, t) for i, t in positives}:
        members = [(i, t) for i, t in positives if place(i, t) == here]
        if len({i for i, t in members}) < 2:
            continue
        total = math.fsum(weight[token] for token in members)
        mean = math.fsum(weight[token] * w(*token) for token in members) / total
        for token in members:
            extra[token] = options["alpha"] * (w(*token) / mean - 1)
    return extra


def preferring(main: list[Row], options: dict, w) -> None:
    extra = extra_of(main, options, w)
    index = {id(row): i for i, row in enumerate(main)}
    on_policy_term(main, options, clipped(options), lambda row, t: row.advantage + extra.get((index[id(row)], t), 0.0))


def reweighting(main, second, options, seen):
    def w(i: int, t: int) -> float:
        row = main[i]
        if options["scope"] == "sequence":
            return math.exp((math.fsum(row.logp_t) - math.fsum(row.old_logp)) / len(row.tokens))
        return math.exp(row.logp_t[t] - row.old_logp[t])

    preferring(main, options, w)


def shorter(main, second, options, seen):
    def w(i: int, t: int) -> float:
        lengths = [len(row.tokens) for row in main if row.group == main[i].group]
        return math.exp(-options["strength"] * len(main[i].tokens) / max(statistics.fmean(lengths), 1.0))

    preferring(main, options | {"scope": "group"}, w)


def siren(main, second, options, seen):
    grpo(main, second, options, seen)
    tokens = tokens_of(main)
    values = {(i, t): main[i].entropy[t] for i, t in tokens}
    chosen = top(values, max(int(options["share"] * len(tokens)), 1)) if tokens else set()
    index = {id(row): i for i, row in enumerate(main)}
    bonus(main, options, seen.push, lambda row, t: (index[id(row)], t) in chosen)


ORACLES = {
    "adaptive_bonus": controlled_bonus,
    "aepo": aepo,
    "aepo_adaptive": aepo_adaptive,
    "aepo_eq2": aepo,  # the same loss; the temperature of the samples is what differs
    "aepo_eq3": aepo_eq3,
    "aepo_pi": lambda main, second, options, seen: aepo(main, second, options | {"select": "reward"}, seen),
    "aepo_reach": aepo_reach,
    "ce_gppo": ce_gppo,
    "clip_b": clip_b,
    "clip_cov": clip_cov,
    "clip_higher": grpo,
    "clip_v": clip_v,
    "dcpo": dcpo,
    "dr_grpo": dr_grpo,
    "dual_bonus": controlled_bonus,
    "e3": grpo,  # the same loss; the temperature of the samples is what differs
    "entrocraft": entrocraft,
    "entropic": entropic,
    "entropy_adv": entropy_adv,
    "entropy_ratio_clip": entropy_ratio_clip,
    "entropy_reg": entropy_reg,
    "entropy_reg_nll": entropy_reg_nll,
    "grpo": grpo,
    "kl_cov": kl_cov,
    "pi_bonus": controlled_bonus,
    "quantile": quantile,
    "reinforce": reinforce,
    "reinforce_tempered": reinforce_tempered,
    "repo_r": repo_r,
    "reweighting": reweighting,
    "shorter": shorter,
    "siren": siren,
    "stare": stare,
    "steer": steer,
    "top_entropy": top_entropy,
}


def on_policy_ratio(rollouts: Rollouts | None, seed: int):
    """The rollouts with old log-probs such that the ratios take all sides of the clip range."""
    if rollouts is None:
        return None, None, None
    z = policy_logits(rollouts, seed)
    log_ratio = log_ratios(tuple(rollouts.token.shape), seed)
    old_logp = token_stats(z, rollouts.token)[0] - log_ratio
    # Whatever stood between the two temperatures' log-probs still stands between them.
    logp_t = rollouts.logp_t - rollouts.old_logp + old_logp
    return rollouts.replace(old_logp=old_logp, logp_t=logp_t), z, log_ratio


def run_of(rollouts: Rollouts, run: int) -> Rollouts:
    """One run's rows alone."""
    fields = {name: value[run] for name, value in vars(rollouts).items() if isinstance(value, Tensor)}
    return replace(rollouts, **fields)


def check(scene: Scene, seed: int) -> None:
    """Autograd through `assemble` and `policy_loss` equals the oracle, run by run, row by row and token by token."""
    main, main_z, main_ratio = on_policy_ratio(scene.main, seed)
    second, second_z, second_ratio = on_policy_ratio(scene.second, seed + 1)
    batch = assemble(scene.method, scene.control, main, second)
    leaves = [z.requires_grad_() for z in (main_z, second_z) if z is not None]
    length = batch.token.shape[-1]
    z = torch.cat([torch.nn.functional.pad(x, (0, 0, 0, length - x.shape[-2])) for x in leaves], -3)
    logp, entropy = token_stats(z, batch.token)
    bonus = scene.method.bonus(logp, entropy)
    loss, _ = policy_loss(logp, bonus, batch, scene.method.surrogate, token_entropy=entropy)
    got = torch.autograd.grad(loss.sum(), leaves, materialize_grads=True)
    std = "none" if scene.name == "dr_grpo" else scene.options.get("std", "sample")
    control = scene.control
    pushes = control.temperature.log() if control.push is None else control.push
    for run in range(len(loss)):
        rows = rows_of(run_of(main, run), main_z[run], main_ratio[run], std)
        second_rows = []
        if second is not None:
            one = (run_of(second, run), second_z[run], second_ratio[run])
            second_rows = rows_of(*one, std)
            for row, sample in zip(second_rows, rows_of(*one, "sample"), strict=True):
                row.sample_advantage = sample.advantage
        seen = Seen(
            up=bool(control.raise_entropy[run]),
            push=float(pushes[run]),
            step=control.step,
            group_size=main.group_size,
            columns=length,
            prompt_fraction=None if control.prompt_fraction is None else float(control.prompt_fraction[run]),
        )
        ORACLES[scene.name](rows, second_rows, scene.options, seen)
        for derivative, plain in zip(got, (rows, second_rows), strict=False):
            assert_close(derivative[run], [row.gradient for row in plain], atol=ROUNDING)


def test_every_method_of_the_zoo_has_an_independent_derivation():
    missing = set(zoo.METHODS) - set(ORACLES)
    assert not missing, f"write the equations of {sorted(missing)} as loops in this file"


positive_seeds = seeds.filter(lambda seed: seed < 2**32 - 1)


@pytest.mark.parametrize("name", sorted(ORACLES))
@SOME
@given(data=st.data(), seed=positive_seeds)
def test_the_gradient_of_the_loss_is_that_of_the_methods_equation(name, data, seed):
    check(data.draw(scenes((name,), runs=(2,))), seed)


@pytest.mark.parametrize("normalizer", ["all", "positives", "replace"])
@pytest.mark.parametrize("name", ["aepo", "aepo_eq2", "aepo_eq3"])
@SOME
@given(data=st.data(), seed=positive_seeds)
def test_each_normalizer_is_the_mean_that_its_equation_writes(name, normalizer, data, seed):
    check(data.draw(scenes((name,), runs=(2,), normalizer=normalizer)), seed)


@pytest.mark.parametrize("scope", ["group", "position", "batch", "sequence"])
@SOME
@given(data=st.data(), seed=positive_seeds)
def test_each_scope_of_the_reweighting_is_the_mean_that_its_equation_writes(scope, data, seed):
    check(data.draw(scenes(("reweighting",), runs=(2,), scope=scope)), seed)
