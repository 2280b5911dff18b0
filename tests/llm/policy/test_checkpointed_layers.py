"""Checkpointed layers: the same gradient to the last digits, computed by passing through each layer a second time."""

import copy

import pytest
import torch
from tiny_models import PROMPTS, SIZES, VOCABULARY, Kept, batch, model
from transformers import OPTConfig, OPTForCausalLM, Qwen3Config, Qwen3ForCausalLM

from aepo import zoo
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import update

METHOD = zoo.build("entropy_reg", coef=0.4)
SMALL = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
MODELS = {
    "qwen3": lambda: model("qwen3"),
    "llama": lambda: model("llama"),
    # Dropout in the layer's own forward, which transformers checkpoints in training mode only.
    "opt": lambda: OPTForCausalLM(OPTConfig(**SMALL, hidden_size=16, ffn_dim=24, word_embed_proj_dim=16, dropout=0.5)),
    "dropout in attention": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, attention_dropout=0.5)),
}


def policy(made, *, packing: bool = False, checkpointed: bool) -> Policy:
    wrapped = ResponseStats(made)
    if checkpointed:
        wrapped.checkpoint_layers()
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=float("inf"))
    return Policy(stepper, PROMPTS, pad_id=0, token_budget=40, lr=1.0, packing=packing)


def gradient(chosen: Policy) -> list[torch.Tensor]:
    update(chosen, batch(), METHOD, parts=1)
    return chosen.stepper.optimizer.gradient


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("packing", [False, True])
def test_the_gradient_is_that_of_layers_that_keep_everything(name, packing):
    if packing and name == "opt":
        pytest.skip("OPT makes its positions from the mask, which packs have not")
    torch.manual_seed(0)
    made = MODELS[name]().double().eval()
    want = gradient(policy(copy.deepcopy(made), packing=packing, checkpointed=False))
    got = gradient(policy(made, packing=packing, checkpointed=True))
    largest = max(float(g.abs().max()) for g in want)
    assert largest > 0
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * largest)


def passes(chosen: Policy) -> list[int]:
    """How often each layer's attention ran in an update."""
    counts = [0] * len(chosen.model.model.layers)
    for i, layer in enumerate(chosen.model.model.layers):
        layer.self_attn.register_forward_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
    gradient(chosen)
    return counts


def saved_bytes(chosen: Policy) -> int:
    """What the forward pass of one micro-batch keeps for the backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in chosen.model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        chosen(batch())
    return sum(kept.values())


def test_every_layer_is_computed_twice_and_less_is_kept():
    plain, twice = (passes(policy(model("qwen3"), checkpointed=c)) for c in (False, True))
    assert plain[0] > 0 and twice == [2 * n for n in plain]
    assert (
        saved_bytes(policy(model("qwen3"), checkpointed=True))
        < saved_bytes(policy(model("qwen3"), checkpointed=False)) / 2
    )


def test_sampling_in_between_does_not_switch_it_off():
    # The engine samples from the trainer's own model and sets its mode.
    chosen = policy(model("qwen3").eval(), checkpointed=True)
    engine = EmbeddedEngine(model=chosen.model, end_ids=[1], pad_id=0, max_tokens=3)
    engine.sample(PROMPTS, n=1, temperature=1.0, row_seeds=torch.arange(len(PROMPTS)).numpy().astype("uint64"))
    assert passes(chosen) == [2 * n for n in passes(policy(model("qwen3"), checkpointed=False))]
    assert not any(module.training for module in chosen.model.modules())


def test_scoring_computes_every_layer_once():
    chosen = policy(model("qwen3").eval(), checkpointed=True)
    count = []
    chosen.model.model.layers[0].self_attn.register_forward_hook(lambda *_: count.append(1))
    with torch.no_grad():
        chosen(batch())
    assert len(count) == 1


def test_a_model_without_layers_to_checkpoint_is_refused_by_name():
    bare = Qwen3ForCausalLM(Qwen3Config(**{**SIZES, "num_hidden_layers": 0}, head_dim=8))
    with pytest.raises(ValueError, match=r"Qwen3ForCausalLM has no layers .* set train.gradient_checkpointing=false"):
        ResponseStats(bare).checkpoint_layers()
