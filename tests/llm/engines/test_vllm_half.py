"""vLLM in half precision. A file of its own: an engine that is closed takes vLLM's groups from any other."""

import pytest
import torch

from aepo.llm.engines import canary
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper

pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm installs and tests it")

from byte_models import PAD, TOKENIZER, VOCABULARY, join_a_group_of_one, moved, tiny


def test_bfloat16_weights_arrive_and_are_within_their_limit():
    from aepo.llm.engines.vllm_engine import VLLMEngine

    join_a_group_of_one()
    model = tiny(tied=True).bfloat16()
    prompts = canary.canary_prompts(VOCABULARY)
    engine = VLLMEngine(model, TOKENIZER, end_ids=[TOKENIZER.eos_token_id], max_length=canary.LONGEST + 8, max_tokens=8)
    stepper = TorchStepper(ResponseStats(model), torch.optim.SGD(model.parameters(), lr=1.0), max_grad_norm=1.0)
    policy = Policy(stepper, prompts, pad_id=PAD, token_budget=10_000, lr=0.1)
    bird = canary.Canary(policy, prompts, limit=canary.LIMITS[torch.bfloat16])
    for version in range(2):
        engine.load(stepper.weights())
        found = bird.check(engine, version=version)
        assert 0 < found["sync/canary"] < 0.05
        moved(policy)
    with pytest.raises(canary.StaleWeightsError):
        bird.check(engine, version=2)
    engine.close()
