"""The trained model's log-probs and entropies are those of its own logits, and no tensor of logits is made for them."""

import pytest
import torch
from fused_cases import Largest
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from aepo.llm.policy.response_stats import ResponseStats

VOCABULARY, LENGTH = 211, 6
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MODELS = {
    "plain": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=False)),
    "tied embeddings": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True)),
    "soft cap": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=0.5)),
    "bias": lambda: PhiForCausalLM(PhiConfig(**SIZES)),
}


def model(name: str):
    torch.manual_seed(0)
    made = MODELS[name]().double()
    for parameter in made.parameters():
        # Initial heads are so small that every distribution is uniform.
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY, (3, 4 + LENGTH), generator=generator)
    mask = (torch.arange(LENGTH) < torch.tensor([[6], [1], [3]])).double()
    return ids, torch.arange(4 + LENGTH).expand(3, -1), ids[:, 4:], mask


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_stats_are_those_of_the_models_own_logits_with_their_gradients(name, temperature):
    wrapped = ResponseStats(model(name))
    ids, position, response, mask = rows()
    logp, entropy, effect = wrapped(ids, None, position, response, mask, temperature)
    assert effect is None
    logits = wrapped.model(input_ids=ids, position_ids=position).logits[:, 3:-1]
    log_probs = (logits / temperature).log_softmax(-1)
    want = log_probs.gather(-1, response.unsqueeze(-1)).squeeze(-1) * mask
    torch.testing.assert_close(logp, want, rtol=1e-9, atol=1e-10)
    mine, theirs = logp.square().sum(), want.square().sum()
    if temperature == 1:
        exact = -(log_probs.exp() * log_probs).sum(-1) * mask
        torch.testing.assert_close(entropy, exact, rtol=1e-9, atol=1e-10)
        mine, theirs = mine + entropy.square().sum(), theirs + exact.square().sum()
    else:
        assert entropy is None
    parameters = list(wrapped.parameters())
    for a, b in zip(
        torch.autograd.grad(mine, parameters, allow_unused=True),
        torch.autograd.grad(theirs, parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_the_mean_effect_is_that_of_the_models_own_logits(name):
    wrapped = ResponseStats(model(name))
    ids, position, response, mask = rows()
    with torch.no_grad():
        logp, entropy, effect = wrapped(ids, None, position, response, mask, 1.0, None, True)
        plain_logp, plain_entropy, _ = wrapped(ids, None, position, response, mask)
        logits = wrapped.model(input_ids=ids, position_ids=position).logits[:, 3:-1]
    assert torch.equal(logp, plain_logp) and torch.equal(entropy, plain_entropy)
    probs = logits.softmax(-1)
    exact = -(probs * probs.log()).sum(-1, keepdim=True)
    want = (probs.square() * (probs.log() + exact)).sum(-1) * mask
    torch.testing.assert_close(effect * mask, want, rtol=1e-8, atol=1e-10)


def test_a_model_that_scales_its_logits_is_refused_by_name():
    torch.manual_seed(0)
    scaled = GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=8.0))
    for parameter in scaled.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with pytest.raises(ValueError, match="GraniteForCausalLM does not make its logits as hidden states times"):
        ResponseStats(scaled)


def test_scoring_and_training_make_no_tensor_of_tokens_by_vocabulary(monkeypatch):
    from aepo.llm.fused import torch_backend

    monkeypatch.setattr(torch_backend, "TILE_ROWS", 4)
    monkeypatch.setattr(torch_backend, "TILE_COLUMNS", 32)
    wrapped = ResponseStats(model("plain"))
    ids, position, response, mask = rows()
    # Tokens of the response times the vocabulary; the head itself is 16 wide.
    tokens = int(mask.sum())
    with Largest({p.numel() for p in wrapped.parameters()}) as seen:
        logp, entropy, _ = wrapped(ids, None, position, response, mask)
        (logp + 0.1 * entropy).sum().backward()
    assert seen.elements < tokens * VOCABULARY
    with Largest({p.numel() for p in wrapped.parameters()}) as seen:
        wrapped.model(input_ids=ids, position_ids=position)
    assert seen.elements >= ids.numel() * VOCABULARY
