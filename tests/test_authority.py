"""aepo.authority against the theory's closed form, finite differences and plain counting."""

import dataclasses
import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aepo import authority, theory, zoo
from aepo.batch import Rollouts
from aepo.categorical import entropy, log_softmax
from aepo.controller import Control
from aepo.method import assemble
from aepo.tabular import train as tabular

# The small worlds below have one state, of which every response is enumerated or some are drawn.
ACTIONS = 5


def control(temperature: float, *, up: bool = True, push: float | None = None) -> Control:
    one = torch.ones(1, dtype=torch.float64)
    return Control(
        temperature=temperature * one, raise_entropy=torch.tensor([up]), push=None if push is None else push * one
    )


def enumerated(logits: torch.Tensor, right: torch.Tensor, temperature: float) -> Rollouts:
    """Every action of the one state with its probability at a temperature, scored at T = 1."""
    table = logits.view(1, 1, -1)
    share = log_softmax(logits / temperature).exp().view(1, -1)
    token = torch.arange(len(logits)).view(1, -1, 1)
    rows = Rollouts(
        prompt=torch.zeros_like(token[..., 0]),
        token=token,
        mask=torch.ones_like(token, dtype=torch.float64),
        reward=right.double().view(1, -1),
        group_size=len(logits),
        full=True,
        share=share,
    )
    return tabular.effect_score(table, tabular.score(table, rows))


numbers = st.lists(st.sampled_from([x / 4 for x in range(-10, 11)]), min_size=ACTIONS, max_size=ACTIONS)
rights = st.lists(st.booleans(), min_size=ACTIONS, max_size=ACTIONS).filter(any)


@given(
    logits=numbers,
    right=rights,
    temperature=st.sampled_from([0.5, 0.8, 1.0, 1.3, 2.0]),
    alpha=st.sampled_from([0.5, 4.0]),
)
def test_the_second_drift_is_the_theorys_change_of_entropy(logits, right, temperature, alpha):
    z, correct = torch.tensor(logits, dtype=torch.float64), torch.tensor(right)
    main, second = enumerated(z, correct, 1.0), enumerated(z, correct, temperature)
    method = zoo.build("aepo", alpha=alpha)
    found = authority.drift(method, assemble(method, control(temperature), main, second), main, second)
    want = theory.delta_entropy(np.array(logits), np.array(right), temperature=temperature, lr=alpha)
    torch.testing.assert_close(found.second[0], torch.tensor(float(want), dtype=torch.float64), rtol=1e-9, atol=1e-12)


@given(logits=numbers, right=rights)
@pytest.mark.parametrize("name", ["aepo", "reweighting", "dcpo", "entropic", "aepo_reach"])
def test_both_drifts_together_are_the_slope_of_the_entropy_along_the_update(name, logits, right):
    z, correct = torch.tensor(logits, dtype=torch.float64), torch.tensor(right)
    method = zoo.build(name)
    chosen = dataclasses.replace(control(1.4, push=0.7), error=torch.tensor([0.2], dtype=torch.float64))
    main = enumerated(z, correct, 1.0)
    table = z.view(1, 1, -1)
    if method.needs_logp_t:
        main = tabular.tempered_score(table, main, chosen.temperature)
    second = None if method.tempered is None else enumerated(z, correct, 1.4)
    batch = assemble(method, chosen, main, second)
    found = authority.drift(method, batch, main, second)
    small = 1e-6
    moved = tabular.update(table, batch, method, lr=small)
    slope = (entropy(moved) - entropy(table)).sum() / small
    torch.testing.assert_close((found.main + found.second)[0], slope, rtol=1e-4, atol=2e-5)
    # The main part is that of the method without its controller.
    plain = zoo.build("grpo")
    alone = assemble(plain, chosen, main)
    slope = (entropy(tabular.update(table, alone, plain, lr=small)) - entropy(table)).sum() / small
    torch.testing.assert_close(found.main[0], slope, rtol=1e-4, atol=2e-5)


def test_the_main_part_of_two_prompts_counts_each_for_half():
    z = torch.tensor([[0.3, -1.0, 0.4], [2.0, 0.0, -0.5]], dtype=torch.float64)
    right = torch.tensor([[True, True, False], [False, True, False]])
    method = zoo.build("reweighting")

    def rows(chosen: list[int]) -> Rollouts:
        prompt = torch.tensor(chosen).repeat_interleave(3).view(1, -1)
        token = torch.arange(3).repeat(len(chosen)).view(1, -1, 1)
        plain = Rollouts(
            prompt=prompt,
            token=token,
            mask=torch.ones_like(token, dtype=torch.float64),
            reward=right[prompt[0], token[0, :, 0]].double().view(1, -1),
            group_size=3,
            full=True,
            share=z.softmax(-1)[prompt[0], token[0, :, 0]].view(1, -1),
        )
        table = z.unsqueeze(0)
        scored = tabular.effect_score(table, tabular.score(table, plain))
        return tabular.tempered_score(table, scored, torch.tensor([1.5], dtype=torch.float64))

    def main_of(chosen: list[int]) -> float:
        main = rows(chosen)
        return float(authority.drift(method, assemble(method, control(1.5), main), main).main)

    # Two prompts: each has half of the weight of the update and is half of H.
    assert main_of([0, 1]) == pytest.approx((main_of([0]) + main_of([1])) / 4, rel=1e-12)


def test_padding_and_dead_rows_move_nothing_whatever_they_hold():
    token = torch.zeros(4, 3, dtype=torch.int64)
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    scores = {name: torch.full((4, 3), 0.3) for name in ("old_logp", "entropy", "mean_effect", "logp_t")}
    scores["old_logp"] = -scores["old_logp"]
    scores["logp_t"] = torch.tensor([[-0.2, -0.6, 0.0], [-0.9, 0.0, 0.0], [-0.4, -0.5, -0.6], [-0.3, -0.1, 0.0]])
    clean = Rollouts(
        prompt=torch.tensor([0, 0, 1, 1]), token=token, mask=mask, reward=torch.tensor([1.0, 0, 1, 1]), group_size=2,
        **scores,
    )  # fmt: skip
    dirty = clean.replace(**{name: value.masked_fill(mask == 0, torch.nan) for name, value in scores.items()})
    method = zoo.build("reweighting")
    one = Control(temperature=torch.tensor(1.5), raise_entropy=torch.tensor(True))
    values = [authority.drift(method, assemble(method, one, rows), rows) for rows in (clean, dirty)]
    assert float(values[0].main) == float(values[1].main) != 0
    assert float(values[0].second) == float(values[1].second) != 0


def test_authority_is_a_ratio_only_where_the_main_part_goes_the_wrong_way():
    found = authority.Drift(
        main=torch.tensor([-0.2, 0.2, 0.2, -0.2, 0.0]),
        second=torch.tensor([0.1, 0.1, -0.4, -0.1, 0.1]),
        noise=torch.zeros(5),
    )
    chosen = Control(temperature=torch.ones(5), raise_entropy=torch.tensor([True, True, False, False, True]))
    values = authority.authority(found, chosen).tolist()
    assert values[0] == pytest.approx(0.5) and values[2] == pytest.approx(2.0)
    assert all(math.isnan(values[i]) for i in (1, 3, 4))


@pytest.mark.parametrize("std", ["sample", "population", "none"])
@pytest.mark.parametrize(("success", "size"), [*itertools.product((0.1, 0.5, 0.93), (2, 5, 8))])
def test_the_expected_credit_is_the_mean_over_every_group(std, success, size):
    right = wrong = 0.0
    for others in itertools.product((0, 1), repeat=size - 1):
        chance = math.prod(success if x else 1 - success for x in others)
        for mine in (0, 1):
            group = [mine, *others]
            scale = {"sample": statistics.stdev, "population": statistics.pstdev, "none": lambda _: 1.0}[std](group)
            credit = (
                0.0 if min(group) == max(group) else (mine - statistics.fmean(group)) / (scale + (std != "none") * 1e-6)
            )
            right, wrong = right + chance * credit * mine, wrong + chance * credit * (1 - mine)
    method = zoo.build("grpo", std=std)
    found = authority.expected_credit(method, torch.tensor(success, dtype=torch.float64), size)
    assert [float(x) for x in found] == pytest.approx([right, wrong], rel=1e-9)


def test_a_bonus_and_a_method_without_a_controller_are_not_measured_so():
    measured = {name for name in zoo.METHODS if authority.measurable(zoo.build(name))}
    assert {"aepo", "aepo_reach", "aepo_adaptive", "reweighting", "dcpo"} <= measured
    assert not {"grpo", "pi_bonus", "entropy_reg", "kl_cov", "aepo_eq2"} & measured
    rows = enumerated(torch.zeros(ACTIONS, dtype=torch.float64), torch.arange(ACTIONS) < 2, 1.0)
    with pytest.raises(ValueError, match="method 'grpo' cannot be told apart"):
        authority.drift(zoo.build("grpo"), assemble(zoo.build("grpo"), control(1.0), rows), rows)


@pytest.mark.parametrize("normalizer", ["all", "positives"])
@pytest.mark.parametrize(("success", "alpha", "t_high"), [(0.5, 1.0, 1.2), (0.9, 4.0, 1.2), (0.9, 0.5, 1.05)])
def test_the_predicted_authority_is_that_of_nearly_uniform_right_answers(success, alpha, t_high, normalizer):
    # Six right answers that differ a little, and wrong ones: the slope of H's distance from its maximum, both parts.
    size, small = 6, 1e-3
    method = zoo.build("aepo", alpha=alpha, t_high=t_high, normalizer=normalizer)
    tilt = small * torch.linspace(-1, 1, size, dtype=torch.float64)
    right = (math.log(success / size) + tilt).exp()
    right = right * success / right.sum()
    pi = torch.cat([right, torch.tensor([1 - success], dtype=torch.float64)])
    q = right / success
    of_right, _ = authority.expected_credit(method, torch.tensor(success, dtype=torch.float64), 8)
    hot = (q.log() / t_high).softmax(-1)
    # How the log-ratios of right answers move under each part, along themselves; S is p here.
    among = tilt - tilt.mean()
    main = float((among * (pi[:size] * of_right)).sum())
    mass = 1.0 if normalizer == "positives" else success
    second = float((among * alpha * mass * (hot - q)).sum())
    found = authority.predicted_authority(method, success, group_size=8, prompts=64)
    assert found == pytest.approx(-second / main, rel=2e-3)


def test_the_predicted_authority_grows_with_what_gives_it():
    def found(name: str = "aepo", success: float = 0.8, **options: object) -> float:
        return authority.predicted_authority(zoo.build(name, **options), success, group_size=8, prompts=64)

    assert found(alpha=2.0) == pytest.approx(2 * found(alpha=1.0))
    assert found(t_high=2.0) == pytest.approx(3 * found(t_high=1.2))
    assert found(success=0.95) > found(success=0.8) > 0
    assert found("aepo_adaptive") == pytest.approx(found(alpha=4.0, t_low=0.5, t_high=2.0))
    # Every means of the controller that widens its reach: strength 16 at T = 2.5.
    assert found("aepo_reach") == pytest.approx(found(alpha=16.0, t_low=0.4, t_high=2.5))
    capped = found(normalizer="replace", cap_up=50, cap_down=50)
    assert capped < found(normalizer="replace", cap_up=100, cap_down=50) < found(normalizer="replace", cap_up=1000)
    down = authority.predicted_authority(zoo.build("aepo"), 0.8, group_size=8, prompts=64, up=False)
    assert down < 0
    with pytest.raises(ValueError, match="method 'grpo' has no second branch"):
        found("grpo")
    with pytest.raises(ValueError, match=r"success must be in \(0, 1\), got 1"):
        found(success=1.0)


@pytest.mark.parametrize(("temperature", "found"), [(1.2, 0.4), (1.2, 2.0), (0.8, 0.5), (0.5, 3.0)])
def test_what_suffices_has_an_authority_of_one(temperature, found):
    hot = authority.sufficient_temperature(temperature, found)
    assert found * (1 - 1 / hot) / (1 - 1 / temperature) == pytest.approx(1)
    assert authority.sufficient_alpha(3.0, found) * found == pytest.approx(3.0)
