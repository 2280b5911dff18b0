"""Packed rows are the rows themselves: the same numbers and gradients as apart, and no token of padding computed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import DTYPES, LENGTHS, MODELS, PROMPTS, ROLLOUTS, ROWS, SIZES, VOCABULARY, Kept, batch, model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from aepo import zoo
from aepo.batch import Batch
from aepo.llm.policy.microbatch import micro_batches, trimmed
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import update
from aepo.loss import policy_loss

# The plain policy gradient and an exact entropy bonus: both statistics carry a gradient.
METHOD = zoo.build("entropy_reg", coef=0.4)


def policy(made, *, packing: bool, token_budget: int = 10**6) -> Policy:
    wrapped = ResponseStats(made)
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=float("inf"))
    return Policy(stepper, PROMPTS, pad_id=0, token_budget=token_budget, lr=1.0, packing=packing)


def stats(policy: Policy, index: list[int], temperature: float) -> list[torch.Tensor]:
    """logp and entropy of the given rows in one pass, with gradient."""
    found = policy._forward(
        policy.stepper, ROLLOUTS.prompt[index], ROLLOUTS.token[index], ROLLOUTS.mask[index], temperature
    )
    return [x for x in found if x is not None]


def gradients(policy: Policy, values: list[torch.Tensor]) -> list[torch.Tensor]:
    scalar = sum((x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape)).sum() for x in values)
    return list(torch.autograd.grad(scalar, list(policy.model.parameters())))


def assert_all_close(got, want, *, rtol: float, atol: float) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", MODELS)
def test_packed_stats_and_gradients_are_those_of_padded_rows_and_of_each_row_alone(name, temperature):
    packed, padded = policy(model(name), packing=True), policy(model(name), packing=False)
    everyone = list(range(ROWS))
    mine, theirs = stats(packed, everyone, temperature), stats(padded, everyone, temperature)
    single = [stats(padded, [row], temperature) for row in everyone]
    alone = [torch.cat(rows) for rows in zip(*single, strict=True)]
    assert len(mine) == (2 if temperature == 1 else 1)
    assert all((x[ROLLOUTS.mask == 0] == 0).all() and (x[ROLLOUTS.mask != 0] != 0).all() for x in mine)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-9}[DTYPES[name]]
    near = {"rtol": tolerance, "atol": tolerance}
    assert_all_close(mine, theirs, **near)
    assert_all_close(mine, alone, **near)
    got = gradients(packed, mine)
    assert_all_close(got, gradients(padded, theirs), **near)
    assert_all_close(got, gradients(padded, alone), **near)


@pytest.mark.parametrize("name", MODELS)
def test_the_tokens_of_one_row_do_not_touch_the_others(name):
    packed = policy(model(name), packing=True)
    changed = 3
    token = ROLLOUTS.token.clone()
    token[changed] = token[changed] % (VOCABULARY - 1) + 1
    before, after = packed.score(ROLLOUTS), packed.score(ROLLOUTS.replace(token=token))
    others = torch.arange(ROWS) != changed
    for field in ("old_logp", "entropy"):
        a, b = getattr(before, field), getattr(after, field)
        torch.testing.assert_close(a[others], b[others], rtol=0, atol=1e-12)
        assert (a[changed] - b[changed]).abs().max() > 0.1


@pytest.mark.parametrize("token_budget", [1, 40, 10**6])
def test_scores_do_not_depend_on_the_packing_or_the_budget(token_budget):
    want = policy(model("qwen3"), packing=False).score(ROLLOUTS)
    packed = policy(model("qwen3"), packing=True, token_budget=token_budget)
    got = packed.score(ROLLOUTS)
    assert_all_close([got.old_logp, got.entropy], [want.old_logp, want.entropy], rtol=1e-9, atol=1e-9)
    tempered = policy(model("qwen3"), packing=False).tempered_score(ROLLOUTS, 0.7).logp_t
    torch.testing.assert_close(packed.tempered_score(ROLLOUTS, 0.7).logp_t, tempered, rtol=1e-9, atol=1e-9)
    effect = policy(model("qwen3"), packing=False).score(ROLLOUTS, effects=True).mean_effect
    torch.testing.assert_close(packed.score(ROLLOUTS, effects=True).mean_effect, effect, rtol=1e-9, atol=1e-9)
    assert (effect[want.mask == 0] == 0).all() and (effect[want.mask != 0] > 0).all()


def accumulated(policy: Policy, batch: Batch, *, world: int) -> tuple[list[torch.Tensor], list[int]]:
    """The gradient over the micro-batches of every rank, and the number of rows of each."""
    micros = [rows for rank in policy.plan(batch.prompt, batch.mask, world=world).micros for rows in rank]
    for rows in micros:
        micro = trimmed(batch, rows)
        logp, entropy = policy(micro)
        loss, _ = policy_loss(logp, METHOD.bonus(logp, entropy), micro, METHOD.surrogate, token_entropy=entropy)
        policy.backward(loss, last=False)
    policy.step()
    return policy.stepper.optimizer.gradient, [len(rows) for rows in micros]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_does_not_depend_on_the_size_or_the_packing_of_micro_batches(dtype):
    # Sums of the same terms in another order, relative to the largest entry of the whole gradient.
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
    made, data = model("qwen3", dtype), batch(dtype)
    want, sizes = accumulated(policy(made, packing=False), data, world=1)
    assert sizes == [ROWS]
    largest = max(float(g.abs().max()) for g in want)
    assert min(float(g.abs().max()) for g in want) > 1e-3 * largest, "every weight takes part"
    seen = []
    # One row a pass; a few; nearly all, which leaves a rank of two without rows in its last pass; all.
    for token_budget in (1, 28, 40, 90, 10**6):
        for packing in (False, True):
            for world in (1, 2):
                one = policy(made, packing=packing, token_budget=token_budget)
                got, sizes = accumulated(one, data, world=world)
                assert sum(sizes) == ROWS
                seen.append(sizes)
                assert_all_close(got, want, rtol=0, atol=tolerance * largest)
            update(one, data, METHOD, parts=1)
            assert_all_close(one.stepper.optimizer.gradient, want, rtol=0, atol=tolerance * largest)
    # The premise: all sorts of plans were among them.
    assert any(0 in sizes for sizes in seen) and [1] * ROWS in seen and [ROWS] in seen
    assert any(1 < len(sizes) < ROWS for sizes in seen)


def test_no_padding_is_computed_when_packed_and_passes_are_as_full_as_the_budget_lets_them_be():
    made = model("qwen3")
    entered: dict[bool, list[int]] = {True: [], False: []}
    for packing, passes in entered.items():
        one = policy(made, packing=packing, token_budget=40)

        def count(module, arguments, keywords, passes=passes):
            passes.append(keywords["input_ids"].numel())

        hook = made.base_model.register_forward_pre_hook(count, with_kwargs=True)
        one.score(ROLLOUTS)
        hook.remove()
    assert sum(entered[True]) == sum(LENGTHS) and max(entered[True]) <= 40
    assert len(entered[True]) == 3, "108 tokens by 40"
    assert sum(entered[False]) > 1.2 * sum(LENGTHS) and len(entered[False]) > 3, "these rows would have padding"


class DeafToPositions(Qwen3ForCausalLM):
    """Positions run on from one row to the next, and attention with them."""

    def __init__(self, config) -> None:
        super().__init__(config)
        inner = self.model.forward
        self.model.forward = lambda **given: inner(**{**given, "position_ids": None})


class LeavesTheCacheOn(Qwen3ForCausalLM):
    """Positions start again, but attention goes across rows: transformers looks for packs only without a cache."""

    def __init__(self, config) -> None:
        super().__init__(config)
        inner = self.model.forward
        self.model.forward = lambda **given: inner(**{**given, "use_cache": True})


MIXES_ROWS = {
    "DeafToPositions": lambda: DeafToPositions(Qwen3Config(**SIZES, head_dim=8)),
    "LeavesTheCacheOn": lambda: LeavesTheCacheOn(Qwen3Config(**SIZES, head_dim=8)),
    # Models of transformers whose masks do not look at positions; OPT's positions do start again.
    "OPTForCausalLM": lambda: OPTForCausalLM(OPTConfig(**SIZES, ffn_dim=24, word_embed_proj_dim=16)),
    "BloomForCausalLM": lambda: BloomForCausalLM(BloomConfig(**SIZES)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MIXES_ROWS)
def test_a_model_that_mixes_packed_rows_is_refused_by_name(name, dtype):
    torch.manual_seed(0)
    mixing = MIXES_ROWS[name]().eval()
    for where, parameter in mixing.named_parameters():
        # Strong positions make the sight of another row small beside a shift of position, and bfloat16 coarse for it.
        torch.nn.init.normal_(parameter, std=2.0 if "embed_positions" in where else 0.3)
    mixing = mixing.to(dtype)
    policy(mixing, packing=False)
    with pytest.raises(ValueError, match=rf"model {name} does not keep packed sequences apart.*train\.packing=false"):
        policy(mixing, packing=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_rounding_is_no_reason_to_refuse_a_model(name, dtype):
    assert policy(model(name, dtype), packing=True).packing


def test_an_empty_prompt_is_refused():
    wrapped = ResponseStats(model("qwen3"))
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=1.0)
    with pytest.raises(ValueError, match="prompts must not be empty, got no token in prompt 1"):
        Policy(stepper, [[1], []], pad_id=0, token_budget=8, lr=1.0)


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40),
    world=st.integers(1, 5),
    token_budget=st.integers(1, 120),
)
def test_a_packed_plan_has_every_row_once_within_the_budget_in_equally_many_passes(lengths, world, token_budget):
    ranks = micro_batches(lengths, world=world, token_budget=token_budget, packed=True)
    assert len(ranks) == world
    assert sorted(row for micros in ranks for rows in micros for row in rows) == list(range(len(lengths)))
    assert len({len(micros) for micros in ranks}) == 1
    assert any(rank[-1] for rank in ranks), "no pass is empty on all ranks"
    for rows in (rows for micros in ranks for rows in micros):
        assert len(rows) <= 1 or sum(lengths[row] for row in rows) <= token_budget
    padded = micro_batches(lengths, world=world, token_budget=token_budget)
    share = [sorted(row for rows in micros for row in rows) for micros in ranks]
    assert share == [sorted(row for rows in micros for row in rows) for micros in padded], "the ranks' loads are equal"
    assert len(ranks[0]) <= len(padded[0])
    for micros in ranks:
        # Else two of them would have been one.
        loads = sorted(sum(lengths[row] for row in rows) for rows in micros if rows)
        assert len(loads) < 2 or loads[0] + loads[1] > token_budget
