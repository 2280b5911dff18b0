"""Whether a model reads plain English: what shows that weights and tokenizer belong together and arrived whole."""

from typing import Any

import torch

SENTENCES = (
    "The capital of France is Paris, and it lies on the river Seine.",
    "She opened the door and walked into the kitchen to make a cup of tea.",
    "Water boils at one hundred degrees Celsius at sea level.",
    "The children played in the garden until it began to rain.",
    "If you add two and three, you get five.",
    "In 1969, two astronauts walked on the surface of the moon.",
)
"""Ordinary ones, with digits and names."""


@torch.inference_mode()
def perplexity(model: Any, tokenizer: Any) -> float:
    """exp of the mean negative log-prob of every token but the first of each of SENTENCES.

    Args:
        model: a transformers causal LM.
        tokenizer: its own.
    """
    nats, count = 0.0, 0
    for sentence in SENTENCES:
        ids = torch.tensor([tokenizer.encode(sentence)])
        logp = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        nats -= float(logp.gather(-1, ids[0, 1:, None]).sum())
        count += ids.shape[1] - 1
    return float(torch.tensor(nats / count).exp())
