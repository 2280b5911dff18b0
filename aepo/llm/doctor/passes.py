"""Bytes that forward and backward passes take beside weights, gradients and optimizer, by formulas that tests measure.

Letters: N tokens of a pass, b bytes a number, h hidden, m intermediate, q and k heads x head_dim of queries and keys.
"""

from aepo.llm.doctor.memory import FLOAT32, KEPT_BUCKET_NUMBERS, Architecture, MemoryPlan

MASK_AT_ITS_MAKING = 3
"""Masks of N x N bytes that transformers has at one time while it makes that of packed rows."""


def training_activations(model: Architecture, plan: MemoryPlan) -> float:
    """Bytes at the peak of a backward pass: what is saved, and the larger of one layer's and the head's own."""
    b, tokens = plan.weight_bytes, plan.forward_tokens
    inside = model.layer_bytes_per_token(b)
    saved = model.layers * tokens * (model.hidden * b if plan.gradient_checkpointing else inside)
    # The gradients of gate, up and their product live at once; the tracker of torch sees exactly that in bfloat16.
    layer = tokens * (3 * b * model.intermediate + (inside if plan.gradient_checkpointing else 0))
    # The last norm, the float32 gradient by the hidden states, and the head's gradient before it is reduced.
    head = tokens * model.hidden * (2 * FLOAT32 + 2 * b) + model.head_parameters * b
    return saved + max(layer, head)


def training_mask(model: Architecture, plan: MemoryPlan) -> float:
    """Bytes of the mask of packed rows, N x N, and of its copy in the weights' dtype, which every layer saves."""
    if not plan.packing:
        return 0.0
    copies = 1 if plan.gradient_checkpointing else model.layers
    return plan.forward_tokens**2 * max(MASK_AT_ITS_MAKING, 1 + copies * plan.weight_bytes)


def scoring_activations(model: Architecture, plan: MemoryPlan, tokens: int) -> float:
    """Bytes at the peak of a pass without gradient: what the layers hand on, and the larger of a layer's two halves.

    Handed on are the embeddings, a layer's input, what it adds to and what it has normalised (4 h b), and cosines and
    sines. The feed-forward block holds gate, up and their product (3 m b); the attention queries, keys, values, what it
    has rotated, and its output.
    """
    b, q, k = plan.weight_bytes, model.heads * model.head_dim, model.kv_heads * model.head_dim
    handed_on = 4 * model.hidden * b + 2 * model.head_dim * b
    return tokens * (handed_on + max(3 * b * model.intermediate, b * (3 * q + 3 * k)))


def scoring_mask(model: Architecture, plan: MemoryPlan, tokens: int) -> float:
    """Bytes of the mask of packed rows in a pass without gradient, beyond what the feed-forward block holds anyway.

    Beside the mask itself the attention holds its copy in the weights' dtype, and keys and values for every head of
    queries, which a mask needs.
    """
    if not plan.packing:
        return 0.0
    b, q, k = plan.weight_bytes, model.heads * model.head_dim, model.kv_heads * model.head_dim
    attention = tokens * b * (5 * q + 3 * k) + tokens**2 * b
    beyond = max(0.0, attention - tokens * b * max(3 * model.intermediate, 3 * q + 3 * k))
    return tokens**2 + max(beyond, (MASK_AT_ITS_MAKING - 1) * tokens**2 - tokens * 3 * b * model.intermediate)


def engine_batch(model: Architecture, plan: MemoryPlan) -> float:
    """Bytes of the largest batch of vLLM: its tokens in a layer, shared out, and its responses' logits.

    Those are in the weights' dtype, and in float32 themselves and as log-probs.
    """
    layer = scoring_activations(model, plan, plan.max_num_batched_tokens) / plan.tensor_parallel
    return layer + plan.max_num_seqs * model.vocab * (plan.weight_bytes + 2 * FLOAT32)


def reduction(model: Architecture, plan: MemoryPlan) -> float:
    """Bytes beside DeepSpeed's bucket of narrower gradients while ranks add it up in float32: its copy, and under ZeRO
    3 that copy put in the order of the ranks. A weight larger than the bucket is one by itself."""
    if plan.weight_bytes >= FLOAT32 or plan.world == 1 or not plan.zero_stage:
        return 0.0
    numbers = max(min(model.parameters, KEPT_BUCKET_NUMBERS), model.head_parameters)
    return numbers * FLOAT32 * (2 if plan.zero_stage == 3 else 1)
