"""The canary against a copy of a model that is kept in step, or is not."""

import copy

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from aepo.llm.engines import canary
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper

VOCABULARY = 50


class Forgetful(EmbeddedEngine):
    """Takes no weights, as engines have been seen to do."""

    def load(self, weights):
        list(weights)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
        head_dim=8, intermediate_size=16, max_position_embeddings=256, initializer_range=0.3,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    stepper = TorchStepper(ResponseStats(model), torch.optim.SGD(model.parameters(), lr=1.0), max_grad_norm=1.0)
    prompts = canary.canary_prompts(VOCABULARY)
    policy = Policy(stepper, prompts, pad_id=0, token_budget=10_000, lr=0.1)
    return policy, canary.Canary(policy, prompts, limit=1e-3)


def engine(kind, policy: Policy) -> EmbeddedEngine:
    return kind(model=copy.deepcopy(policy.model), has_own_weights=True, end_ids=[1], pad_id=0, max_tokens=8)


def move(policy: Policy, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def test_prompts_fill_blocks_of_a_prefix_cache_and_are_always_the_same():
    prompts = canary.canary_prompts(VOCABULARY)
    assert prompts == canary.canary_prompts(VOCABULARY) and sum(len(p) > 128 for p in prompts) >= 2
    assert max(max(p) for p in prompts) < VOCABULARY


def test_a_push_that_arrives_passes_with_its_figures(pair):
    policy, bird = pair
    pushed = engine(EmbeddedEngine, policy)
    for version in range(3):
        pushed.load(policy.stepper.weights())
        found = bird.check(pushed, version=version)
        assert 0 <= found["sync/canary"] < 1e-5 and found["sync/weight_version"] == version
        move(policy, 0.05)


@pytest.mark.parametrize(("scale", "said"), [(0.05, r"differ from the trainer's by 0\.\d+"), (1e-6, "to the last bit")])
def test_a_push_that_does_not_arrive_stops_the_run_however_small_the_update(pair, scale, said):
    policy, bird = pair
    frozen = engine(Forgetful, policy)
    bird.check(frozen, version=0)
    bird.check(frozen, version=0)
    move(policy, scale)
    frozen.load(policy.stepper.weights())
    with pytest.raises(canary.StaleWeightsError, match="weight version 7 .*" + said):
        bird.check(frozen, version=7)


def test_an_engine_that_says_nan_is_stopped(pair):
    policy, bird = pair
    broken = engine(EmbeddedEngine, policy)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[0, 0] = float("nan")
    with pytest.raises(canary.StaleWeightsError, match="differ from the trainer's by nan"):
        bird.check(broken, version=1)
