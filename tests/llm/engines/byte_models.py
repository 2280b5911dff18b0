"""A tiny model over bytes with its tokenizer, for an engine that takes whole models: what the tests of vLLM share."""

import torch

from aepo.llm.policy.policy import Policy
from aepo.llm.processes.ports import free_port
from aepo.llm.questions.small_tokenizers import byte_tokenizer

TOKENIZER = byte_tokenizer()
VOCABULARY = len(TOKENIZER)
END, PAD = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id


def tiny(tied: bool):
    """A model whose output head is its embedding if `tied`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, intermediate_size=96, max_position_embeddings=256, initializer_range=0.2,
        tie_word_embeddings=tied, eos_token_id=END, pad_token_id=PAD, bos_token_id=None,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def join_a_group_of_one():
    if not torch.distributed.is_initialized():
        port = free_port()
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)


def moved(policy: Policy, scale: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
