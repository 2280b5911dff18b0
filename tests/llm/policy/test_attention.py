"""Our attention is transformers': the same numbers and gradients for every layout, and no mask of tokens x tokens."""

import copy
import inspect
from types import SimpleNamespace

import pytest
import torch
import varlen_stand_in
from tiny_models import (
    LENGTHS,
    MODELS,
    PROMPT_LENGTHS,
    PROMPTS,
    RESPONSE_LENGTHS,
    ROLLOUTS,
    ROWS,
    SIZES,
    Kept,
    apart,
    batch,
    in_float64,
    model,
)
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache, Gemma2Config, Gemma2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from aepo import zoo
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.policy import attention, attention_choice
from aepo.llm.policy.layout import Spans
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import update
from aepo.llm.settings import SettingsError, load

METHOD = zoo.build("entropy_reg", coef=0.4)
EXACT, EVERYONE = 1e-10, list(range(ROWS))
OURS = [name for name in MODELS if name != "qwen3, eager"]
LAYOUTS = {
    "side by side": {},
    "packed": {"packing": True},
    "prompts first": {"sharing": True},
    "packed, prompts first": {"packing": True, "sharing": True},
}


@pytest.fixture
def stand_ins(monkeypatch):
    """Both varlen kernels on a CPU, in any dtype."""
    monkeypatch.setattr(attention, "torch_varlen", lambda: varlen_stand_in.varlen_attn)
    monkeypatch.setattr(attention, "flash_varlen", lambda: varlen_stand_in.flash_attn_varlen_func)
    monkeypatch.setattr(attention_choice, "missing", lambda *_: None)
    monkeypatch.setattr(attention_choice, "unfit", lambda *_: None)


def policy(net, *, checkpointed: bool = False, token_budget: int = 10**6, **given) -> Policy:
    wrapped = ResponseStats(net)
    if checkpointed:
        wrapped.checkpoint_layers()
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=float("inf"))
    return Policy(stepper, PROMPTS, pad_id=0, token_budget=token_budget, lr=1.0, **given)


def stats(chosen: Policy, rows: list[int], temperature: float = 1.0) -> list[torch.Tensor]:
    """logp, and at temperature 1 the entropy, of the rows in one pass with gradient."""
    cut = max(RESPONSE_LENGTHS[row] for row in rows)
    found = chosen._forward(
        chosen.stepper, ROLLOUTS.prompt[rows], ROLLOUTS.token[rows, :cut], ROLLOUTS.mask[rows, :cut], temperature,
        shared=chosen.sharing,
    )  # fmt: skip
    return [x for x in found if x is not None]


def gradients(chosen: Policy, values: list[torch.Tensor]) -> list[torch.Tensor]:
    scalar = sum((x * torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view(x.shape)).sum() for x in values)
    return list(torch.autograd.grad(scalar, list(chosen.model.parameters())))


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", attention.KERNELS)
@pytest.mark.parametrize("name", OURS)
def test_stats_and_gradients_are_those_of_padded_rows_with_transformers_attention(
    name, kernel, layout, checkpointed, stand_ins
):
    plain = policy(in_float64(model(name)), attention="transformers")
    mine = policy(in_float64(model(name)), attention=kernel, checkpointed=checkpointed, **LAYOUTS[layout])
    assert mine.attention.kernel == kernel and mine.sharing == ("prompts first" in layout)
    for rows in (EVERYONE, [0, 4, 8], [2], [1]):
        got, want = stats(mine, rows), stats(plain, rows)
        assert len(got) == len(want) == 2
        assert apart(got, want) < EXACT
        assert apart(gradients(mine, got), gradients(plain, want)) < EXACT
    assert apart(stats(mine, EVERYONE, 0.7), stats(plain, EVERYONE, 0.7)) < EXACT


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OURS)
def test_in_float32_they_are_within_a_millionth_or_as_near_to_the_truth(name, layout):
    net = model(name, torch.float32)
    plain = policy(copy.deepcopy(net), attention="transformers")
    mine = policy(copy.deepcopy(net), attention="sdpa", **LAYOUTS[layout])
    exact = policy(in_float64(net), attention="transformers")
    (got, its), (want, theirs), (_, truth) = (
        (values, gradients(one, values)) for one in (mine, plain, exact) for values in [stats(one, EVERYONE)]
    )
    assert 0 < apart(got, want) < 1e-6
    # A shared prompt's norms round their gradient once for all responses, and not once for each.
    assert apart(its, theirs) < (5e-6 if mine.sharing else 1e-6)
    assert apart(its, truth) < 2 * apart(theirs, truth) + 1e-6


@pytest.mark.parametrize("token_budget", [1, 40, 10**6])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_updates_gradient_and_scores_are_those_of_the_plain_way(layout, token_budget):
    data, plain = batch(), policy(in_float64(model("qwen3")), attention="transformers")
    mine = policy(
        in_float64(model("qwen3")), attention="sdpa", checkpointed=True, token_budget=token_budget, **LAYOUTS[layout]
    )
    for one in (plain, mine):
        update(one, data, METHOD, parts=1)
    assert apart(mine.stepper.optimizer.gradient, plain.stepper.optimizer.gradient) < EXACT
    want, got = (one.score(ROLLOUTS, effects=True) for one in (plain, mine))
    for name in ("old_logp", "entropy", "mean_effect"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=EXACT, atol=EXACT)


def by_hand(query, key, value, spans: Spans, *, scale: float, window: int | None) -> torch.Tensor:
    """Query by query: each sees the keys of its sequence up to its own, and no more than the window."""
    found, q, k = [], 0, 0
    for asked, seen in zip(spans.queries, spans.keys, strict=True):
        for i in range(asked):
            end = k + seen - asked + i + 1
            begin = k if window is None else max(k, end - window)
            heads = []
            for head in range(query.shape[1]):
                its = head * key.shape[1] // query.shape[1]
                weights = (scale * key[begin:end, its] @ query[q + i, head]).softmax(0)
                heads.append(weights @ value[begin:end, its])
            found.append(torch.stack(heads))
        q, k = q + asked, k + seen
    return torch.stack(found)


@pytest.mark.parametrize("window", [None, 1, 3, 100])
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("kernel", attention.KERNELS)
def test_a_kernel_computes_what_is_worked_out_query_by_query(kernel, heads, window, stand_ins, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 3)
    generator = torch.Generator().manual_seed(0)
    spans = Spans.of([5, 5, 1, 1, 7, 2], [5, 5, 1, 4, 9, 2])

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    leaves = [normal(sum(spans.queries), 4, 6), normal(sum(spans.keys), heads, 6), normal(sum(spans.keys), heads, 6)]
    got = attention.KERNELS[kernel].attend(*leaves, spans, scale=0.3, window=window, softcap=None)
    want = by_hand(*leaves, spans, scale=0.3, window=window)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)
    up = normal(*got.shape).detach()
    for a, b in zip(
        torch.autograd.grad((up * got).sum(), leaves), torch.autograd.grad((up * want).sum(), leaves), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_varlen_of_torch_2_10_is_asked_in_its_own_words(monkeypatch):
    monkeypatch.setattr(attention, "torch_varlen", lambda: varlen_stand_in.varlen_attn_of_torch_2_10)
    spans = Spans.of([2, 3], [4, 3])
    query, key = torch.randn(5, 2, 4, dtype=torch.float64), torch.randn(7, 1, 4, dtype=torch.float64)
    got = attention.varlen(query, key, key, spans, scale=0.5, window=None, softcap=None)
    torch.testing.assert_close(got, by_hand(query, key, key, spans, scale=0.5, window=None), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="has no window, got window=3"):
        attention.varlen(query, key, key, spans, scale=0.5, window=3, softcap=None)


def test_torchs_own_varlen_takes_what_it_is_given_and_gives_a_gradient_of_its_shape():
    pytest.importorskip("torch.nn.attention.varlen")
    real, mine = (inspect.signature(one).parameters for one in (attention.torch_varlen(), varlen_stand_in.varlen_attn))
    if "window_size" not in real:
        pytest.skip("the varlen of torch 2.10")
    assert list(real)[:7] == list(mine)[:7] and set(mine) <= set(real)
    # Without numbers, so that a CPU can run it.
    spans = Spans.of([2, 3], [4, 3]).to("meta")
    query, key = (
        torch.empty(n, h, 64, dtype=torch.bfloat16, device="meta").requires_grad_() for n, h in ((5, 4), (7, 2))
    )
    got = attention.varlen(query, key, key, spans, scale=0.5, window=2, softcap=None)
    assert got.shape == query.shape
    got.sum().backward()
    assert query.grad.shape == query.shape and key.grad.shape == key.shape


class Masks(TorchDispatchMode):
    """Elements of the largest boolean that any operation returned, and of the largest tensor of `tokens` x `tokens`."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.boolean, self.square = tokens, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                if value.dtype == torch.bool:
                    self.boolean = max(self.boolean, value.numel())
                if value.shape[-2:] == (self.tokens, self.tokens):
                    self.square = max(self.square, value.numel())
        return out


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_no_mask_of_tokens_by_tokens_is_made(name, checkpointed):
    entered = {
        "packed": sum(LENGTHS),
        "prompts first": sum(PROMPT_LENGTHS) + sum(RESPONSE_LENGTHS) - ROWS,
        "packed, prompts first": sum(PROMPT_LENGTHS) + sum(RESPONSE_LENGTHS) - ROWS,
        "side by side": max(LENGTHS),
    }
    for layout, tokens in entered.items():
        mine = policy(model(name), attention="sdpa", checkpointed=checkpointed, **LAYOUTS[layout])
        with Masks(tokens) as seen:
            logp, entropy = stats(mine, EVERYONE)
            (logp + entropy).sum().backward()
        # A block of queries with the keys of one row, or what lists rows and columns.
        assert seen.boolean <= max(LENGTHS) * max(LENGTHS)
        if layout != "side by side":
            assert seen.square == 0
    packed = policy(model(name), attention="transformers", packing=True)
    with Masks(sum(LENGTHS)) as seen:
        stats(packed, EVERYONE)
    assert seen.boolean >= seen.square >= sum(LENGTHS) ** 2, "the premise: this is what a mask would be"


def test_the_largest_mask_of_a_long_row_grows_with_its_keys_and_not_with_their_square():
    found = []
    for length in (1024, 2048):
        spans = Spans.of([length], [length + 64])
        query, key = torch.randn(length, 1, 4), torch.randn(length + 64, 1, 4)
        with Masks(length) as seen:
            attention.sdpa(query, key, key, spans, scale=1.0, window=None, softcap=None)
        assert seen.boolean == attention.BLOCK * (length + 64) and seen.square == 0
        found.append(seen.boolean)
    assert found[1] < 2 * found[0]


def test_no_cache_is_filled_where_none_is_read(monkeypatch):
    made, inner = [], DynamicCache.__init__
    monkeypatch.setattr(DynamicCache, "__init__", lambda self, *a, **k: made.append(self) or inner(self, *a, **k))
    for kernel in ("transformers", "sdpa"):
        for layout in ("side by side", "packed"):
            chosen = policy(model("qwen3"), attention=kernel, **LAYOUTS[layout])
            # Making a policy asks the model for its own logits, as anybody would, and then there is one.
            assert made
            made.clear()
            chosen.score(ROLLOUTS)
            assert made == []


def test_on_a_cpu_padded_rows_stay_as_they_are_and_packs_get_ours():
    assert policy(model("qwen3")).attention.kernel is None
    assert "stay as they are to the bit" in str(policy(model("qwen3")).attention)
    assert str(policy(model("qwen3"), packing=True).attention) == "sdpa: torch's scaled dot product, without masks"
    both = policy(model("qwen3"), packing=True, sharing=True)
    assert both.sharing and both.unshared_because is None


@pytest.mark.parametrize("kernel", ["varlen", "flash"])
def test_what_the_machine_cannot_run_is_refused_with_field_value_and_cure(kernel):
    if torch.cuda.is_available():
        pytest.skip("this machine may")
    with pytest.raises(
        SettingsError, match=rf"model.attention={kernel}: .* needs a CUDA device.*set model.attention=auto"
    ):
        attention_choice.check_machine(kernel, torch.device("cpu"))
    attention_choice.check_machine("sdpa", torch.device("cpu"))
    with pytest.raises(SettingsError, match=rf"model.attention={kernel} needs train.dtype=bfloat16, got .*float32"):
        load("demo_cpu", [f"model.attention={kernel}"])
    load("demo_cpu", [f"model.attention={kernel}", "train.dtype=bfloat16"])


def test_an_old_device_is_told_from_a_new_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "T4")
    device = torch.device("cuda", 0)
    for capability, runs in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert (attention.missing("varlen", device) is None) == runs
    monkeypatch.setattr(attention, "find_spec", lambda _: None)
    assert attention.missing("flash", device) == "the package flash-attn is not installed"
    assert attention.missing("varlen", device).endswith("has no torch.nn.attention.varlen, which came with 2.10")
    assert attention.missing("sdpa", device) is None


def test_a_gpu_takes_the_first_kernel_that_runs_and_says_why_not_the_others(monkeypatch, stand_ins):
    module = ResponseStats(model("qwen3"))
    # A module that says of its weights that they are on a GPU.
    weight = SimpleNamespace(device=torch.device("cuda", 0))
    monkeypatch.setattr(module, "parameters", lambda: iter([weight]))
    monkeypatch.setattr(attention_choice, "missing", lambda name, _: "too old" if name == "varlen" else None)
    chosen = attention_choice.choose(module, "auto", packing=False)
    assert str(chosen) == "flash: flash-attn's varlen attention, without masks; not varlen: too old"
    assert module.attention == "flash"


class Deaf(Qwen3ForCausalLM):
    """Its masks have a window that its attention is not told."""

    def __init__(self, config) -> None:
        super().__init__(config)
        for layer in self.model.layers:
            layer.self_attn.sliding_window = None


def initialised(net):
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net.double().eval()


def test_a_window_that_attention_is_not_told_is_noticed_however_long_it_is():
    torch.manual_seed(0)
    window = {"use_sliding_window": True, "sliding_window": 50, "layer_types": ["sliding_attention"] * 2}
    net = initialised(Deaf(Qwen3Config(**SIZES, head_dim=8, **window)))
    with pytest.raises(
        SettingsError, match=r"model.attention=sdpa: model Deaf .*windows that its attention is not told"
    ):
        policy(net, attention="sdpa")
    # And what it had is what it has.
    assert policy(net).attention.kernel is None and net.config._attn_implementation == "sdpa"


def test_soft_caps_and_other_attention_are_refused_by_name():
    capped = Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, attn_logit_softcapping=2.0))
    with pytest.raises(SettingsError, match=r"Gemma2ForCausalLM .*scaled dot product has no softcap, got softcap=2.0"):
        policy(initialised(capped), attention="sdpa")
    with pytest.raises(
        SettingsError, match=r"model.attention=sdpa: model Qwen3ForCausalLM .* way of its own \(eager\)"
    ):
        policy(model("qwen3, eager"), attention="sdpa")
    with pytest.raises(SettingsError, match=r"way of its own \(eager\); set model.attention=auto"):
        attention_choice.check_model("sdpa", model("qwen3, eager"))
    attention_choice.check_model("auto", model("qwen3, eager"))
    assert policy(model("qwen3, eager"), packing=True).attention.kernel is None


@pytest.mark.parametrize("name", OURS)
def test_passes_of_others_are_as_they_were_to_the_bit(name):
    given = {"n": 2, "temperature": 1.0, "row_seeds": torch.arange(2 * len(PROMPTS)).numpy().astype("uint64")}
    nets = [model(name, torch.float32).eval() for _ in range(2)]
    policy(nets[1], attention="sdpa", sharing=True)
    assert nets[1].config._attn_implementation == "aepo_sdpa"
    want, got = (
        EmbeddedEngine(model=net, end_ids=[0], pad_id=0, max_tokens=9).sample(PROMPTS, **given) for net in nets
    )
    assert torch.equal(want.token, got.token) and torch.equal(want.logp, got.logp)
    ids = torch.tensor([[0, 3, 5], [7, 8, 9]])
    with torch.no_grad():
        for mask in (None, torch.tensor([[0, 1, 1], [1, 1, 1]])):
            want, got = (net(input_ids=ids, attention_mask=mask).logits for net in nets)
            assert torch.equal(want, got)


def test_whoever_takes_the_attention_away_is_noticed():
    net = model("qwen3")
    mine = policy(net, attention="sdpa", packing=True)
    net.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="Qwen3ForCausalLM does not compute attention by sdpa"):
        mine.score(ROLLOUTS)


def test_a_saved_config_names_no_attention_of_ours(tmp_path):
    net = model("qwen3")
    policy(net, attention="sdpa")
    net.save_pretrained(tmp_path)
    assert "aepo" not in (tmp_path / "config.json").read_text()


def test_other_prompts_are_scored_by_the_same_attention_without_trying_it_again():
    mine = policy(model("qwen3"), attention="sdpa", sharing=True)
    passes = []
    mine.model.base_model.register_forward_pre_hook(lambda *_: passes.append(1))
    other = mine.over(PROMPTS[:2])
    assert other.attention == mine.attention and other.sharing and passes == []
