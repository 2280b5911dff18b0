"""Methods as values and `assemble`: who takes part, what each row weighs, and exact expectations."""

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import (
    EPS,
    TEMPERED,
    Scene,
    assert_close,
    correct_sets,
    double,
    logits,
    methods,
    padded,
    scenes,
    seeds,
)
from torch import Tensor

from aepo import zoo
from aepo.batch import Batch, Rollouts
from aepo.categorical import entropy, log_softmax, token_stats
from aepo.controller import Control
from aepo.loss import policy_loss
from aepo.method import NORMALIZERS, Method, Tempered, assemble, by_advantage, by_reward, every_row
from aepo.weights import token_mean

# Fewer than 100 weights of at most 4 are summed.
ROUNDING = 100 * 4 * 4 * EPS
everyone = pytest.mark.parametrize("name", sorted(zoo.METHODS))
# Of each method: together they are as many examples as several ordinary laws.
SOME = settings(max_examples=10)


def assembled(scene: Scene) -> Batch:
    return assemble(scene.method, scene.control, scene.main, scene.second)


def same(got: Batch, want: Batch) -> None:
    for field in dataclasses.fields(Batch):
        a, b = getattr(got, field.name), getattr(want, field.name)
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, field.name


def control(up: bool = True, temperature: float = 1.2) -> Control:
    return Control(temperature=double(temperature), raise_entropy=torch.tensor(up))


def graded(reward: list[float], group_size: int, length: int = 1) -> Rollouts:
    """Scored rollouts of the given rewards, every response `length` tokens long."""
    tokens = torch.zeros(len(reward), length, dtype=torch.int64)
    return Rollouts(
        prompt=torch.arange(len(reward)) // group_size,
        token=tokens,
        mask=torch.ones(len(reward), length, dtype=torch.float64),
        reward=double(reward),
        group_size=group_size,
        old_logp=-torch.ones(len(reward), length, dtype=torch.float64),
        entropy=torch.ones(len(reward), length, dtype=torch.float64),
        mean_effect=torch.zeros(len(reward), length, dtype=torch.float64),
    )


# -- assemble --


@given(scenes(runs=None))
def test_the_batch_is_all_t_1_rows_then_all_tempered_rows(scene):
    batch = assembled(scene)
    rows, start = scene.main.reward.shape[-1], 0
    for block in (scene.main, scene.second):
        if block is None:
            continue
        count, length = block.token.shape[-2:]
        part = (..., slice(start, start + count), slice(0, length))
        for name in ("token", "mask", "old_logp"):
            assert torch.equal(getattr(batch, name)[part], getattr(block, name))
        assert (batch.mask[..., start : start + count, length:] == 0).all()
        assert torch.equal(batch.prompt[..., start : start + count], block.prompt)
        start += count
    assert batch.token.shape[-2] == start
    assert (batch.entropy_weight[..., rows:, :] == 0).all()


@given(scenes(runs=None))
def test_padding_has_no_weight_no_advantage_and_no_bonus(scene):
    batch = assembled(scene)
    for name in ("weight", "advantage", "entropy_weight"):
        assert (getattr(batch, name)[batch.mask == 0] == 0).all(), name


@everyone
@SOME
@given(data=st.data(), columns=st.integers(1, 2))
def test_more_padding_of_the_rollouts_changes_no_weight(name, data, columns):
    # Dr. GRPO's constant, where none is given, is the batch's longest response, padding and all.
    scene = data.draw(scenes((name,), runs=None, max_tokens=7))
    wide = dataclasses.replace(
        scene, main=padded(scene.main, columns), second=scene.second and padded(scene.second, columns)
    )
    got, want = assembled(wide), assembled(scene)
    for field in ("weight", "advantage", "entropy_weight", "mark"):
        value = getattr(got, field)
        if value is not None:
            assert_close(value[..., : want.token.shape[-1]].double(), getattr(want, field).double(), atol=ROUNDING)
            assert (value[..., want.token.shape[-1] :] == 0).all()


@given(scenes(runs=None))
def test_a_mask_that_is_declared_full_only_spares_work(scene):
    def declared(rollouts: Rollouts | None, full: bool) -> Rollouts | None:
        return rollouts and dataclasses.replace(rollouts, mask=torch.ones_like(rollouts.mask), full=full)

    said, unsaid = (
        assembled(dataclasses.replace(scene, main=declared(scene.main, full), second=declared(scene.second, full)))
        for full in (True, False)
    )
    assert not unsaid.full
    same(dataclasses.replace(said, full=False), unsaid)


@everyone
@SOME
@given(data=st.data())
def test_a_run_is_assembled_as_if_it_were_alone(name, data):
    scene = data.draw(scenes((name,), runs=(3,)))

    def alone(value, run: int):
        if value is None:
            return None
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return type(value)(**{k: v[run] if isinstance(v, Tensor) else v for k, v in fields.items()})

    together = assembled(scene)
    for run in range(3):
        parts = (alone(value, run) for value in (scene.control, scene.main, scene.second))
        one = assemble(scene.method, *parts)
        for field in ("weight", "advantage", "entropy_weight"):
            assert_close(getattr(together, field)[run], getattr(one, field), atol=ROUNDING)
        assert (together.mark is None) or torch.equal(together.mark[run], one.mark)


@given(scenes(runs=None, min_length=1))
def test_the_batchs_weights_sum_to_what_the_equation_averages_over(scene):
    batch, rows = assembled(scene), scene.main.reward.shape[-1]
    main, second = batch.weight[..., :rows, :].sum((-2, -1)), batch.weight[..., rows:, :].sum((-2, -1))
    if scene.name == "dr_grpo":  # every token weighs the same, however many there are
        constant = scene.options["max_tokens"] or batch.token.shape[-1]
        assert_close(main, scene.main.mask.sum((-2, -1)) / rows / constant, atol=ROUNDING)
        return
    if scene.second is None or scene.method.advantage is None:
        assert_close(main, torch.ones_like(main), atol=ROUNDING)
        return
    tempered = scene.method.tempered
    # Rows of prompts that this run's control does not ask for have no chance.
    asked = tempered.asked(scene.second, scene.control, prompts=rows // scene.main.group_size)
    kept, chance = tempered.kept(asked, scene.control), asked.row_weight
    normalizer, alpha = tempered.normalizer, tempered.alpha
    if tempered.strength is not None:
        alpha = alpha * tempered.strength(scene.control)
    if normalizer == "replace":
        assert_close(main + second, torch.ones_like(main), atol=ROUNDING)
        return
    assert_close(main, torch.ones_like(main), atol=ROUNDING)
    if normalizer == "positives":
        assert_close(second, alpha * kept.any(-1).double(), atol=ROUNDING)
    elif scene.method.reduction is token_mean:
        tokens = chance.unsqueeze(-1) * asked.mask
        share = (kept.unsqueeze(-1) * tokens).sum((-2, -1)) / tokens.sum((-2, -1))
        assert_close(second, alpha * share, atol=ROUNDING)
    else:
        assert_close(second, alpha * (kept * chance).sum(-1), atol=ROUNDING)


@everyone
@SOME
@given(data=st.data(), poison=st.sampled_from([float("nan"), float("inf"), -float("inf")]))
def test_what_is_not_a_number_in_the_padding_is_harmless(name, data, poison):
    scene = data.draw(scenes((name,), runs=None))
    dirty = scene.main.replace(
        **{
            field: getattr(scene.main, field).masked_fill(scene.main.mask == 0, poison)
            for field in ("old_logp", "entropy", "logp_t")
        }
    )
    got, want = assembled(dataclasses.replace(scene, main=dirty)), assembled(scene)
    for field in ("weight", "advantage", "entropy_weight", "mark"):
        value = getattr(want, field)
        assert value is None or torch.equal(getattr(got, field), value), field


@given(scenes(runs=None))
def test_float32_rollouts_make_a_float32_batch_and_float64_ones_a_float64_batch(scene):
    def cast(rollouts: Rollouts | None) -> Rollouts | None:
        names = ("mask", "reward", "old_logp", "entropy", "logp_t")
        return rollouts and rollouts.replace(**{name: getattr(rollouts, name).float() for name in names})

    numbers = {name: getattr(scene.control, name) for name in ("temperature", "push", "error")}
    decided = dataclasses.replace(scene.control, **{name: v if v is None else v.float() for name, v in numbers.items()})
    single = dataclasses.replace(scene, main=cast(scene.main), second=cast(scene.second), control=decided)
    for batch, dtype in ((assembled(scene), torch.float64), (assembled(single), torch.float32)):
        for name in ("mask", "old_logp", "advantage", "weight", "entropy_weight"):
            assert getattr(batch, name).dtype == dtype, name


# -- positives --


def without_positives(scene: Scene) -> Scene:
    return dataclasses.replace(scene, second=scene.second.replace(reward=torch.zeros_like(scene.second.reward)))


@pytest.mark.parametrize("normalizer", NORMALIZERS)
@given(data=st.data())
def test_without_a_positive_sample_aepo_is_exactly_grpo(normalizer, data):
    scene = data.draw(scenes(("aepo", "aepo_eq2"), runs=None, normalizer=normalizer))
    batch = assembled(without_positives(scene))
    names = zoo.options("grpo")
    grpo = zoo.build("grpo", **{key: value for key, value in scene.options.items() if key in names})
    want = assemble(grpo, scene.control, scene.main)
    rows, length = scene.main.token.shape[-2:]
    got = batch.rows(torch.arange(rows))
    for name in ("weight", "advantage", "entropy_weight"):
        value, tolerance = getattr(got, name)[..., :length], 0.0
        if name == "weight" and scene.method.reduction is token_mean:
            tolerance = ROUNDING  # one sum over more zeros, in rows or in columns, may round differently
        assert_close(value, getattr(want, name), atol=tolerance)
    assert not batch.live[..., rows:].any()
    assert grpo.surrogate == scene.method.surrogate


@given(scenes(("aepo", "aepo_eq2"), runs=(), min_length=1, normalizer="replace", average="sequence"))
def test_replace_swaps_the_first_rows_for_the_kept_ones_one_for_one(scene):
    batch, rows = assembled(scene), scene.main.reward.shape[-1]
    swapped = int(scene.method.tempered.kept(scene.second, scene.control).sum())
    weight = batch.weight.sum(-1)
    assert_close(weight.sum(), 1.0, atol=ROUNDING)
    assert (weight[:swapped] == 0).all()
    assert_close(weight[swapped:rows], torch.full((rows - swapped,), 1 / rows, dtype=torch.float64), atol=ROUNDING)
    assert int((weight[rows:] > 0).sum()) == swapped
    assert_close(weight[rows:][weight[rows:] > 0], [1 / rows] * swapped, atol=ROUNDING)


def test_replace_never_swaps_more_rows_than_there_are():
    method = zoo.build("aepo", normalizer="replace", prompt_fraction=1.0)
    batch = assemble(method, control(), graded([1, 0], 2), graded([1] * 4, 2))
    assert batch.weight.sum(-1).tolist() == [0.0, 0.0, 0.5, 0.5, 0.0, 0.0]


@given(st.data(), st.sampled_from(tuple(NORMALIZERS)), st.booleans())
def test_the_caps_keep_the_first_positives_one_cap_for_each_direction(data, normalizer, up):
    cap_up, cap_down = (data.draw(st.one_of(st.none(), st.integers(1, 5))) for _ in range(2))
    tempered = Tempered(normalizer=normalizer, cap_up=cap_up, cap_down=cap_down)
    verdicts = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=6, max_size=6))
    cap = cap_up if up else cap_down
    positives = [i for i, reward in enumerate(verdicts) if reward > 0][:cap]
    kept = tempered.kept(graded(verdicts, 6), control(up))
    assert kept.nonzero().flatten().tolist() == positives


def test_under_replace_the_authors_caps_of_60_up_and_30_down_apply():
    method = zoo.build("aepo", normalizer="replace")
    second = graded([1.0] * 100, 100)
    assert [int(method.tempered.kept(second, control(up)).sum()) for up in (True, False)] == [60, 30]
    batch = assemble(method, control(True), graded([1.0, 0.0] * 40, 2), second)
    assert (batch.weight.sum(-1) > 0).tolist() == [False] * 60 + [True] * 20 + [True] * 60 + [False] * 40


@pytest.mark.parametrize("normalizer", ["all", "positives"])
def test_without_replace_there_is_no_cap_unless_one_is_asked_for(normalizer):
    second = graded([1.0] * 100, 100)
    free = zoo.build("aepo", normalizer=normalizer)
    assert free.tempered.kept(second, control(False)).all()
    capped = zoo.build("aepo", normalizer=normalizer, cap_up=7)
    assert int(capped.tempered.kept(second, control(True)).sum()) == 7
    assert capped.tempered.kept(second, control(False)).all()


def test_positives_by_hand():
    # Groups: all right, one right of four, all wrong, graded. Group advantages: 0; 3/4 / (1/2) = 1.5 and
    # -0.5; 0; mean 1.25: rewards 2 above it (kept by both), 1 below it (positive by reward alone).
    rows = graded([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 1], 4)
    assert by_reward(rows).int().tolist() == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert by_advantage(rows).int().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert every_row(rows).all()


def test_where_another_reward_says_what_is_right_positives_go_by_it_alone():
    # Two groups of four; what is trained on has 0.2 for the form of some responses.
    decides = [1, 1, 0, 0, 0, 0, 0, 1]
    plain = graded([1.2, 1, 0.2, 0, 0.2, 0, 0.2, 1], 4)
    rows = plain.replace(right_by=double(decides))
    assert by_reward(rows).int().tolist() == decides == by_advantage(rows).int().tolist()
    # Wrong ones in good form have an advantage too.
    formed = graded([0.2, 0, 0.2, 0, 1, 1.2, 0, 0.2], 4).replace(right_by=double([0, 0, 0, 0, 1, 1, 0, 0]))
    assert by_advantage(formed).int().tolist() == [0, 0, 0, 0, 1, 1, 0, 0]
    # Without it, form alone makes positives.
    assert by_reward(plain).int().tolist() == [1, 1, 1, 0, 1, 0, 1, 1]
    # An answer that is right counts whatever else was taken off its reward.
    assert by_reward(rows.replace(reward=rows.reward - 5)).int().tolist() == decides
    assert Tempered(keep=by_reward).kept(rows, control()).int().tolist() == decides


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.floats(-3, 3))
def test_what_is_right_does_not_depend_on_the_other_rewards(right, other):
    alone = graded([float(r) for r in right], 4)
    rows = alone.replace(reward=alone.reward + other, right_by=alone.reward)
    assert by_reward(rows).tolist() == right
    assert by_advantage(rows).tolist() == by_advantage(alone).tolist()
    # Methods that credit right responses go by the same.
    for name in ("dcpo", "reweighting"):
        method = zoo.build(name)
        one = rows.replace(logp_t=rows.old_logp * 1.1)
        other_rewards = dataclasses.replace(one, right_by=None, reward=alone.reward)
        steer = dataclasses.replace(control(), error=double(0.3), push=double(0.2))
        weight = torch.ones_like(rows.mask)
        shaped = [method.shape(torch.zeros_like(weight), r, steer, weight) for r in (one, other_rewards)]
        assert torch.equal(*shaped)


def test_a_deciding_reward_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="right_by must have shape"):
        graded([1, 0], 2).replace(right_by=torch.zeros(3))


def test_a_positive_by_advantage_lies_above_a_twentieth_of_a_deviation():
    # Rewards -x and x have advantages +-1/sqrt(2) but for the epsilon: x / (sqrt(2) x + 1e-6) = 0.05 at x =
    # 5.4e-8.
    for x, positive in ((5.0e-8, False), (6.0e-8, True)):
        assert by_advantage(graded([1 + x, 1 - x], 2)).tolist() == [positive, False]


def test_the_three_normalizers_by_hand():
    # T = 1: rewards (1, 0), G = 2: weights 1/2 each. Tempered: (1, 0, 1, 0): two positives of four; lengths
    # all 1.
    main, second = graded([1, 0], 2), graded([1, 0, 1, 0], 2)
    want = {
        "all": [1 / 2, 1 / 2, 3 / 4, 0, 3 / 4, 0],  # alpha / 4 for each positive, alpha = 3
        "positives": [1 / 2, 1 / 2, 3 / 2, 0, 3 / 2, 0],  # alpha / 2
        "replace": [0, 0, 1 / 2, 0, 1 / 2, 0],  # both rows give way
    }
    for normalizer, weights in want.items():
        alpha = 1.0 if normalizer == "replace" else 3.0
        batch = assemble(zoo.build("aepo", normalizer=normalizer, alpha=alpha), control(), main, second)
        assert batch.weight.squeeze(-1).tolist() == weights, normalizer
        assert batch.advantage[2:, 0].tolist() == [1, 0, 1, 0], "REINFORCE credits the reward itself"


def test_equation_3_keeps_its_negative_samples():
    batch = assemble(zoo.build("aepo_eq3"), control(), graded([0, 0], 2), graded([1, 0], 2))
    half = 0.5 / (0.5**0.5 + 1e-6)
    assert_close(batch.advantage[2:, 0], [half, -half], atol=4 * EPS)
    assert batch.weight[2:, 0].tolist() == [0.5, 0.5]


def test_the_tempered_rows_carry_a_temperature_1_log_prob_and_the_engines_is_never_used():
    second = graded([1, 0], 2)
    batch = assemble(zoo.build("aepo"), control(), graded([1, 0], 2), second.replace(engine_logp=second.old_logp - 5.0))
    assert torch.equal(batch.old_logp[2:], second.old_logp)


# -- exact expectations --


def every_action(z: Tensor, correct: Tensor, temperature: float = 1.0) -> Rollouts:
    """All actions of one state with their probabilities under pi^T, scored at T = 1."""
    actions = torch.arange(len(z)).unsqueeze(-1)
    logp, h = token_stats(z.expand(len(z), 1, len(z)), actions)
    return Rollouts(
        prompt=torch.zeros(len(z), dtype=torch.int64),
        token=actions,
        mask=torch.ones(len(z), 1, dtype=torch.float64),
        reward=correct.double(),
        group_size=len(z),
        share=log_softmax(z, temperature).exp(),
        old_logp=logp,
        entropy=h,
    )


def gradient(method: Method, leaf: Tensor, main: Rollouts, second: Rollouts | None = None) -> Tensor:
    """The loss's gradient by one state's logits."""
    batch = assemble(method, control(), main, second)
    logp, h = token_stats(leaf.expand(*batch.token.shape, leaf.shape[-1]), batch.token)
    loss, _ = policy_loss(logp, method.bonus(logp, h), batch, method.surrogate)
    return torch.autograd.grad(loss, leaf)[0]


states = logits(largest=5.0).flatmap(lambda z: st.tuples(st.just(z), correct_sets(len(z))))


def score(z: Tensor) -> Tensor:
    """(a, b): d ln pi_a / d z_b = [a = b] - pi_b."""
    return torch.eye(len(z), dtype=torch.float64) - z.exp() / z.exp().sum()


@given(states)
def test_the_exact_gradient_of_reinforce_is_the_probability_weighted_sum(case):
    z, correct = case
    got = gradient(zoo.build("reinforce"), z.clone().requires_grad_(), every_action(z, correct))
    pi = z.exp() / z.exp().sum()
    want = -sum(float(pi[a]) * float(correct[a]) * score(z)[a] for a in range(len(z)))
    assert_close(got, want, atol=ROUNDING)


@given(states)
def test_the_exact_gradient_of_grpo_is_reinforces_over_the_standard_deviation(case):
    z, correct = case
    pi = z.exp() / z.exp().sum()
    p = float((pi * correct).sum())
    assume(1e-3 < p < 1 - 1e-3)  # otherwise the epsilon beside the deviation is not small
    got = gradient(zoo.build("grpo"), z.clone().requires_grad_(), every_action(z, correct))
    # E[(r - p) / s grad ln pi]; the baseline p drops out because the score has mean 0.
    want = -(pi * correct) @ score(z) / ((p * (1 - p)) ** 0.5 + 1e-6)
    assert_close(got, want, atol=1e3**0.5 * ROUNDING)


@given(states, st.sampled_from([0.5, 0.8, 1.2, 2.0]), st.sampled_from([0.25, 4.0]))
def test_the_exact_second_term_of_equation_1_weighs_positives_by_their_tempered_probability(case, t, alpha):
    z, correct = case
    main, second = every_action(z, correct), every_action(z, correct, t)
    both = gradient(zoo.build("aepo", alpha=alpha), z.clone().requires_grad_(), main, second)
    first = gradient(zoo.build("grpo"), z.clone().requires_grad_(), main)
    pushed = (z / t).exp() / (z / t).exp().sum() * correct
    # GRPO's part is up to sqrt(p (1 - p)) / s <= 1 per action and cancels; the epsilon keeps rare verdicts
    # below 1e3.
    assert_close(both - first, -alpha * pushed @ score(z), atol=1e3 * ROUNDING)


def test_the_sampled_gradient_of_reinforce_converges_to_the_exact_one():
    z, correct = double([0.5, -0.3, 1.1, 0.0]), torch.tensor([True, False, False, True])
    exact = gradient(zoo.build("reinforce"), z.clone().requires_grad_(), every_action(z, correct))
    pi = z.exp() / z.exp().sum()
    seeds_count, group = 200, 500
    total = torch.zeros_like(z)
    for seed in range(seeds_count):
        action = torch.multinomial(pi, group, replacement=True, generator=torch.Generator().manual_seed(seed))
        rows = graded(correct[action].double().tolist(), group).replace(token=action.unsqueeze(-1))
        total += gradient(zoo.build("reinforce"), z.clone().requires_grad_(), rows)
    samples = pi * correct
    variance = samples @ score(z).square() - (samples @ score(z)).square()
    # Five standard errors of a mean over 100,000 samples, about 0.008: a wrong sampler or weight misses by
    # 0.1.
    deviation = (total / seeds_count - exact).abs()
    assert (deviation < 5 * (variance / (seeds_count * group)).sqrt()).all()
    assert exact.abs().max() > 0.1


@given(states, st.sampled_from([0.015, 1.0]))
def test_on_policy_the_exact_entropy_bonus_adds_lambda_times_the_gradient_of_h(case, coef):
    z, correct = case
    leaf = z.clone().requires_grad_()
    (uphill,) = torch.autograd.grad(entropy(leaf), leaf)
    main = every_action(z, correct)
    with_bonus = gradient(zoo.build("entropy_reg", coef=coef), leaf, main)
    assert_close(with_bonus - gradient(zoo.build("grpo"), leaf, main), -coef * uphill, atol=1e3 * ROUNDING)


@given(states, st.sampled_from([0.015, 1.0]))
def test_on_policy_the_sampled_nll_bonus_has_expected_gradient_zero(case, coef):
    z, correct = case
    leaf, main = z.clone().requires_grad_(), every_action(z, correct)
    with_bonus = gradient(zoo.build("entropy_reg_nll", coef=coef), leaf, main)
    assert_close(with_bonus, gradient(zoo.build("grpo"), leaf, main), atol=1e3 * ROUNDING)


# -- what is refused --


@given(scenes(TEMPERED))
def test_a_missing_second_branch_is_refused_by_the_methods_name(scene):
    with pytest.raises(ValueError, match=f"{scene.name}' needs tempered rollouts, got none"):
        assemble(scene.method, scene.control, scene.main)


def test_a_second_branch_that_was_not_asked_for_is_refused():
    rows = graded([1, 0], 2)
    with pytest.raises(ValueError, match="'grpo' has no tempered rollouts, got some"):
        assemble(zoo.build("grpo"), control(), rows, rows)


@given(scenes())
def test_unscored_rollouts_are_refused(scene):
    bare = dataclasses.replace(scene.main, old_logp=None)
    with pytest.raises(ValueError, match=r"Rollouts\.old_logp is missing"):
        assemble(scene.method, scene.control, bare, scene.second)


def test_replace_is_refused_on_exact_expectations():
    rows = every_action(double([0.0, 1.0]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match=r"normalizer='replace' .* use 'all'"):
        assemble(zoo.build("aepo", normalizer="replace"), control(), rows, rows)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"normalizer": "mean"}, "normalizer must be one of all, positives, replace, got 'mean'"),
        ({"alpha": 0.0}, r"alpha must be > 0, got 0\.0"),
        ({"alpha": 2.0, "normalizer": "replace"}, r"alpha must be 1 with normalizer='replace', got 2\.0"),
        ({"strength": by_reward, "normalizer": "replace"}, "strength must be None with normalizer='replace'"),
        ({"cap_up": 0}, "cap_up must be at least 1 or None, got 0"),
        ({"cap_down": -1}, "cap_down must be at least 1 or None, got -1"),
        ({"prompt_fraction": 0.0}, r"prompt_fraction must be in \(0, 1\], got 0\.0"),
        ({"prompt_fraction": 1.5}, r"prompt_fraction must be in \(0, 1\], got 1\.5"),
    ],
)
def test_a_tempered_branch_that_makes_no_sense_is_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        Tempered(**options)


def test_a_method_without_a_term_or_with_an_unknown_bonus_is_refused():
    with pytest.raises(ValueError, match="'empty' has neither an advantage nor a tempered term"):
        Method(name="empty", advantage=None)
    with pytest.raises(ValueError, match="entropy_bonus must be 'exact' or 'sampled_nll', got 'nll'"):
        Method(name="x", advantage=by_reward, entropy_bonus="nll")


@given(st.integers(1, 2000), st.floats(0.001, 1.0))
def test_the_second_branch_samples_at_least_one_prompt_and_at_most_all(prompts, fraction):
    count = Tempered(prompt_fraction=fraction).prompt_count(prompts)
    assert 1 <= count <= prompts
    assert count == 1 or abs(count - fraction * prompts) <= 0.5


def test_a_quarter_of_512_prompts_is_sampled_again():
    assert Tempered().prompt_count(512) == 128


@everyone
@SOME
@given(data=st.data())
def test_a_method_is_controlled_if_another_entropy_makes_it_do_something_else(name, data):
    method = data.draw(methods((name,)))
    decided = [
        method.controller.update(method.controller.initial(double(0.0)), double(entropy), double(1.0))[1].strength
        for entropy in (0.0, 3.0)
    ]
    assert method.controlled == (decided[0] != decided[1])
    acts = method.tempered is not None or method.has_bonus or method.shape is not None
    acts = acts or method.main_temperature is not None
    assert acts or not method.controlled, "a controller without anything to act through"


@everyone
def test_a_controlled_method_credits_or_weighs_tokens_otherwise_under_another_control(name):
    # What aepo_reach follows is far from the first entropy at once only if it may go there at once.
    method = zoo.build(name, **({"speed": 9.0} if name == "aepo_reach" else {}))
    generator = torch.Generator().manual_seed(0)
    main = graded([1, 0, 1, 1, 0, 0, 0, 1], 4, length=2)
    main = main.replace(logp_t=main.old_logp - torch.rand(8, 2, generator=generator, dtype=torch.float64))
    batches = []
    for h in (0.0, 3.0):
        start = method.controller.initial(double(0.0))
        _, decided = method.controller.update(start, double(h), double(1.0))
        decided = dataclasses.replace(decided, error=double(1.0 - h))
        batches.append(assemble(method, decided, main, None if method.tempered is None else main))
    first, second = (
        torch.cat([batch.weight * batch.advantage, batch.entropy_weight], -1).flatten() for batch in batches
    )
    # A second branch is sampled at the control's temperature; dcpo and reweighting are scored at it: that is outside.
    # Far from the target the adaptive strength is 1 on either side. e3's next main rollouts are sampled at it.
    outside = method.tempered is not None or method.needs_logp_t or method.main_temperature is not None
    assert torch.equal(first, second) == (outside or not method.controlled)


@given(scenes(runs=None), seeds)
def test_assembling_leaves_its_arguments_untouched_and_draws_no_random_number(scene, seed):
    before = [
        value.clone()
        for rows in (scene.main, scene.second)
        if rows is not None
        for value in vars(rows).values()
        if isinstance(value, Tensor)
    ]
    torch.manual_seed(seed)
    state = torch.get_rng_state()
    same(assembled(scene), assembled(scene))
    assert torch.equal(torch.get_rng_state(), state)
    after = [
        value
        for rows in (scene.main, scene.second)
        if rows is not None
        for value in vars(rows).values()
        if isinstance(value, Tensor)
    ]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("aepo", {}, 2),
        ("aepo", {"normalizer": "replace"}, 2),
        ("aepo_eq2", {}, 1),
        # The authors' caps: the same temperature, but another number of rows.
        ("aepo_eq2", {"normalizer": "replace"}, 2),
        ("aepo_adaptive", {}, 5),
        ("aepo_reach", {}, 5),
        ("aepo_pi", {"alpha": 1.0, "normalizer": "replace"}, 10),
        ("adaptive_bonus", {}, 5),  # low is 0, as is what it does above the target
        ("dcpo", {}, 10),
        ("entrocraft", {}, 3),
        ("repo_r", {}, 10),
        ("stare", {}, 2),
        ("grpo", {}, 1),
    ],
)
def test_controls_that_the_step_cannot_tell_apart_are_one(name, options, count):
    found = zoo.build(name, **options).controls(5)
    assert len(found.temperature) == len(found.raise_entropy) == len(found.strength) == count
