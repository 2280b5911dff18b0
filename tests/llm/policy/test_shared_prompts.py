"""Prompts that are computed once are the prompts themselves: the same numbers and gradients, of fewer tokens."""

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import (
    DTYPES,
    MODELS,
    PROMPT_LENGTHS,
    PROMPTS,
    RESPONSE_LENGTHS,
    ROLLOUTS,
    ROWS,
    SIZES,
    VOCABULARY,
    Kept,
    batch,
    model,
)
from transformers import BloomConfig, BloomForCausalLM, Gemma2Config, Gemma2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from aepo import zoo
from aepo.llm.policy.microbatch import WORTH, Sizes, planned, shared_micro_batches
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.prompt_cache import PromptCache
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import update

METHOD = zoo.build("entropy_reg", coef=0.4)
EXACT = 1e-10
EVERYONE = list(range(ROWS))
SOFT_CAPS = {
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, head_dim=8, sliding_window=4, final_logit_softcapping=3.0, attn_logit_softcapping=2.0)
    )
}


def made(name: str, dtype: torch.dtype | None = None):
    if name in MODELS:
        return model(name, dtype)
    torch.manual_seed(0)
    one = SOFT_CAPS[name]().to(dtype or torch.float64).eval()
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return one


def in_float64(net):
    """The same model computing in float64 throughout: transformers takes these norms in float32, whatever they get.

    Their gradient is rounded once for each prompt where prompts are shared, and once for each response where not.
    """
    net = net.double()
    for module in net.modules():
        if type(module).__name__.endswith("RMSNorm"):
            eps = getattr(module, "variance_epsilon", None) or module.eps
            one = float("Gemma" in type(module).__name__)

            def forward(x, module=module, eps=eps, one=one):
                return (one + module.weight) * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)

            module.forward = forward
    return net


def policy(net, *, sharing: bool, token_budget: int = 10**6) -> Policy:
    wrapped = ResponseStats(net)
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=float("inf"))
    return Policy(stepper, PROMPTS, pad_id=0, token_budget=token_budget, lr=1.0, sharing=sharing)


def stats(chosen: Policy, rows: list[int], temperature: float, *, shared: bool, effects: bool = False):
    """logp, and at temperature 1 the entropy and the mean effect, of the rows in one pass with gradient."""
    cut = max(RESPONSE_LENGTHS[row] for row in rows)
    found = chosen._forward(
        chosen.stepper, ROLLOUTS.prompt[rows], ROLLOUTS.token[rows, :cut], ROLLOUTS.mask[rows, :cut], temperature,
        effects, shared=shared,
    )  # fmt: skip
    return [x for x in found if x is not None]


def gradients(chosen: Policy, values: list[torch.Tensor]) -> list[torch.Tensor]:
    # The mean effect is scored and never trained on.
    scalar = sum((x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape)).sum() for x in values[:2])
    return list(torch.autograd.grad(scalar, list(chosen.model.parameters())))


def apart(got, want) -> float:
    """The largest distance of two tensors of a list, by the norm of the largest of all."""
    assert len(got) == len(want) > 0
    largest = max(float(x.detach().double().norm()) for x in want)
    return max(float((a.double() - b.double()).detach().norm()) for a, b in zip(got, want, strict=True)) / largest


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", [*MODELS, *SOFT_CAPS])
def test_stats_and_gradients_are_those_of_prompts_that_are_computed_with_each_response(name, temperature):
    if DTYPES.get(name) == torch.float32:
        pytest.skip("a row of padding alone is nan in this attention's float64")
    chosen = policy(in_float64(made(name)), sharing=True)
    for rows in (EVERYONE, [0, 4, 8], [1, 4, 8], [2], [1]):
        mine, plain = (stats(chosen, rows, temperature, shared=s, effects=temperature == 1) for s in (True, False))
        assert len(mine) == (3 if temperature == 1 else 1)
        assert apart(mine, plain) < EXACT
        assert apart(gradients(chosen, mine), gradients(chosen, plain)) < EXACT


@pytest.mark.parametrize("name", [*MODELS, *SOFT_CAPS])
def test_in_float32_they_round_no_further_from_the_truth(name):
    net = made(name, torch.float32)
    chosen, found = policy(net, sharing=True), []
    for shared in (True, False):
        values = stats(chosen, EVERYONE, 1.0, shared=shared)
        found.append((values, gradients(chosen, values)))
    exact = policy(in_float64(copy.deepcopy(net)), sharing=False)
    # Eager attention's rows of padding are nan in float64: the same weights with another attention.
    if DTYPES.get(name) == torch.float32:
        exact.model.set_attn_implementation("sdpa")
    truth = stats(exact, EVERYONE, 1.0, shared=False)
    for (mine, plain), want in zip(zip(*found, strict=True), (truth, gradients(exact, truth)), strict=True):
        error = apart(plain, want)
        assert 0 < error < 1e-5
        assert apart(mine, want) < 2 * error + 1e-6
        assert apart(mine, plain) < 5e-6


def test_the_gradient_goes_through_the_prompts_keys_and_values():
    chosen = policy(made("qwen3"), sharing=True)
    embedding = chosen.model.get_input_embeddings().weight

    def of_prompt(detached: bool) -> torch.Tensor:
        held = PromptCache.of
        if detached:

            def of(self, answers):
                for layer in self.layers:
                    layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
                return held(self, answers)

            PromptCache.of = of
        try:
            logp = stats(chosen, [2, 6], 1.0, shared=True)[0]
        finally:
            PromptCache.of = held
        # From the second token on, whose own hidden states are not the prompt's.
        return torch.autograd.grad(logp[:, 1:].sum(), embedding)[0]

    # A token that stands in the prompt alone.
    (only,) = itertools.islice((t for t in PROMPTS[2] if t not in ROLLOUTS.token[[2, 6]].flatten().tolist()), 1)
    assert of_prompt(False)[only].abs().max() > 1e-3
    assert of_prompt(True)[only].abs().max() == 0


def test_a_response_does_not_touch_another_one_to_the_same_prompt():
    chosen = policy(made("qwen3"), sharing=True)
    changed = 3
    token = ROLLOUTS.token.clone()
    token[changed] = token[changed] % (VOCABULARY - 1) + 1
    before, after = chosen.score(ROLLOUTS), chosen.score(ROLLOUTS.replace(token=token))
    others = torch.arange(ROWS) != changed
    assert int((ROLLOUTS.prompt[others] == ROLLOUTS.prompt[changed]).sum()) > 0
    torch.testing.assert_close(before.old_logp[others], after.old_logp[others], rtol=0, atol=1e-12)
    assert (before.old_logp[changed] - after.old_logp[changed]).abs().max() > 0.1


@pytest.mark.parametrize("token_budget", [1, 30, 60, 10**6])
def test_scores_do_not_depend_on_the_sharing_or_the_budget(token_budget):
    plain = policy(made("qwen3"), sharing=False)
    shared = policy(made("qwen3"), sharing=True, token_budget=token_budget)
    want, got = (one.score(ROLLOUTS, effects=True) for one in (plain, shared))
    for name in ("old_logp", "entropy", "mean_effect"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=1e-10, atol=1e-10)
    want, got = (one.tempered_score(ROLLOUTS, 0.7).logp_t for one in (plain, shared))
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_the_updates_gradient_does_not_depend_on_the_sharing_or_the_budget():
    data, net = batch(), in_float64(made("qwen3"))
    one = policy(net, sharing=False)
    update(one, data, METHOD, parts=1)
    want = one.stepper.optimizer.gradient
    plans = set()
    for token_budget in (1, 30, 60, 100, 10**6):
        chosen = policy(net, sharing=True, token_budget=token_budget)
        plan = chosen.plan(data.prompt, data.mask, world=1)
        plans.add((plan.shared, len(plan.micros[0])))
        update(chosen, data, METHOD, parts=1)
        assert apart(chosen.stepper.optimizer.gradient, want) < EXACT
    # The premise: prompts were shared in one pass and in several, and not shared.
    assert (True, 1) in plans and any(shared and passes > 1 for shared, passes in plans)
    assert any(not shared for shared, _ in plans)


def entered(net, work) -> list[int]:
    """Tokens of each pass through the layers."""
    passes = []
    hook = net.base_model.register_forward_pre_hook(
        lambda module, arguments, keywords: passes.append(keywords["input_ids"].numel()), with_kwargs=True
    )
    work()
    hook.remove()
    return passes


def test_every_prompt_is_computed_once_and_no_other_token_more_than_before():
    chosen = policy(made("qwen3"), sharing=True)
    # The last token of a response predicts nothing, so it is not computed.
    want = [len(PROMPTS) * max(PROMPT_LENGTHS), ROWS * (max(RESPONSE_LENGTHS) - 1)]
    assert entered(chosen.model, lambda: chosen.score(ROLLOUTS)) == want
    assert entered(chosen.model, lambda: update(chosen, batch(), METHOD, parts=1)) == want
    plain = policy(made("qwen3"), sharing=False)
    assert entered(plain.model, lambda: plain.score(ROLLOUTS)) == [ROWS * (max(PROMPT_LENGTHS) + max(RESPONSE_LENGTHS))]


def test_responses_of_one_token_take_one_pass():
    chosen = policy(made("qwen3"), sharing=True)
    short = ROLLOUTS.replace(mask=(torch.arange(ROLLOUTS.mask.shape[1]) < 1).double().expand(ROLLOUTS.mask.shape))
    assert entered(chosen.model, lambda: chosen.score(short)) == [len(PROMPTS) * max(PROMPT_LENGTHS)]


def test_what_the_second_pass_adds_is_not_kept():
    chosen, kept = policy(made("qwen3"), sharing=True), []
    held = PromptCache.of
    PromptCache.of = lambda self, answers: kept.append(self) or held(self, answers)
    try:
        chosen.score(ROLLOUTS)
    finally:
        PromptCache.of = held
    shape = (len(PROMPTS), SIZES["num_key_value_heads"], max(PROMPT_LENGTHS), 8)
    assert [layer.keys.shape for layer in kept[0].layers] == [shape] * SIZES["num_hidden_layers"]


class DeafToTheCache(Qwen3ForCausalLM):
    """The second pass sees no prompt."""

    def __init__(self, config) -> None:
        super().__init__(config)
        inner = self.model.forward

        def forward(input_ids, attention_mask=None, past_key_values=None, use_cache=None, **given):
            mask = None if attention_mask is None else attention_mask[:, -input_ids.shape[1] :]
            return inner(input_ids=input_ids, attention_mask=mask, use_cache=False, **given)

        self.model.forward = forward


class WithoutACache(Qwen3ForCausalLM):
    """The layers of a state space model, say."""

    def __init__(self, config) -> None:
        super().__init__(config)
        inner = self.model.forward

        def forward(**given):
            if given.get("past_key_values") is not None:
                raise TypeError("got an unexpected cache")
            return inner(**given)

        self.model.forward = forward


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (DeafToTheCache, "has other log-probs where a prompt comes from a cache"),
        (WithoutACache, "takes no prompt from a cache (TypeError: got an unexpected cache)"),
    ],
)
def test_a_model_that_reads_no_prompt_from_a_cache_does_not_share_and_says_why(kind, why, dtype):
    torch.manual_seed(0)
    net = kind(Qwen3Config(**SIZES, head_dim=8)).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    net = net.to(dtype)
    chosen = policy(net, sharing=True)
    assert not chosen.sharing and chosen.unshared_because == f"model {kind.__name__} {why}"
    assert not chosen.plan(ROLLOUTS.prompt, ROLLOUTS.mask, world=1).shared


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*MODELS, *SOFT_CAPS])
def test_rounding_is_no_reason_not_to_share(name, dtype):
    assert policy(made(name, dtype), sharing=True).sharing


def test_a_published_model_whose_positions_are_not_told_does_not_share():
    # Its attention's bias counts from the first token of a pass.
    bloom = BloomForCausalLM(BloomConfig(**SIZES)).double().eval()
    for parameter in bloom.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    assert policy(bloom, sharing=True).unshared_because.startswith("model BloomForCausalLM has other log-probs")


def test_packs_and_checkpointed_layers_do_not_share():
    wrapped = ResponseStats(made("qwen3"))
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=1.0)
    packed = Policy(stepper, PROMPTS, pad_id=0, token_budget=8, lr=1.0, packing=True, sharing=True)
    assert packed.unshared_because.startswith("train.packing=true") and not packed.sharing
    checkpointed = ResponseStats(made("qwen3"))
    checkpointed.checkpoint_layers()
    assert checkpointed.unshared_because.startswith("train.gradient_checkpointing=true")


@st.composite
def sizes(draw) -> Sizes:
    """Some rows of prompts of some lengths, in any order."""
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=6))
    prompt = draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=30))
    response = draw(st.lists(st.integers(0, 40), min_size=len(prompt), max_size=len(prompt)))
    return Sizes(prompt=prompt, prompt_length=[lengths[p] for p in prompt], response_length=response)


@given(sizes=sizes(), world=st.integers(1, 4), token_budget=st.integers(1, 200))
def test_a_shared_plan_has_every_row_once_within_the_budget_in_equally_many_passes(sizes, world, token_budget):
    ranks = shared_micro_batches(sizes, world=world, token_budget=token_budget)
    assert len(ranks) == world
    assert sorted(row for micros in ranks for rows in micros for row in rows) == list(range(len(sizes.prompt)))
    assert len({len(micros) for micros in ranks}) == 1
    assert any(rank[-1] for rank in ranks), "no pass is empty on all ranks"
    for rows in (rows for micros in ranks for rows in micros):
        assert len(rows) <= 1 or sizes.held(rows) <= token_budget


@given(sizes=sizes(), world=st.integers(1, 4), token_budget=st.integers(1, 200))
def test_a_group_that_fits_the_budget_and_a_ranks_share_stays_together(sizes, world, token_budget):
    ranks = shared_micro_batches(sizes, world=world, token_budget=token_budget)
    groups = {p: [row for row, q in enumerate(sizes.prompt) if q == p] for p in sizes.prompt}
    share = sum(map(sizes.held, groups.values())) / world
    for prompt, rows in groups.items():
        places = {
            (r, i) for r, micros in enumerate(ranks) for i, some in enumerate(micros) for row in rows if row in some
        }
        if sizes.held(rows) <= min(token_budget, share):
            assert len(places) == 1, prompt


@given(sizes=sizes(), world=st.integers(1, 4), token_budget=st.integers(1, 200))
def test_prompts_are_shared_where_that_saves_a_tenth_of_the_slowest_ranks_tokens_and_not_elsewhere(
    sizes, world, token_budget
):
    plain = planned(sizes, world=world, token_budget=token_budget)
    chosen = planned(sizes, world=world, token_budget=token_budget, sharing=True)

    def slowest(micros, shared: bool) -> int:
        return max(sum(sizes.computed(rows, shared=shared) for rows in rank) for rank in micros)

    together = shared_micro_batches(sizes, world=world, token_budget=token_budget)
    saves = slowest(together, True) <= WORTH * slowest(plain.micros, False)
    assert not plain.shared and chosen.shared == saves
    assert chosen.micros == (together if saves else plain.micros)


def test_lone_responses_and_ragged_long_ones_are_not_shared():
    one_each = Sizes(prompt=[0, 1, 2], prompt_length=[50] * 3, response_length=[2, 2, 2])
    assert not planned(one_each, world=1, token_budget=10**6, sharing=True).shared
    # 2 x (10 + 900 x 2) tokens with padding against 2 x (910 + 11): a budget that holds rows of one length only.
    ragged = Sizes(prompt=[0, 0, 1, 1], prompt_length=[10] * 4, response_length=[900, 1, 900, 1])
    assert not planned(ragged, world=1, token_budget=1850, sharing=True).shared
