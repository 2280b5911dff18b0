"""Models that are small enough to compute whole, a batch for them, and a tokenizer with a chat template."""

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from aepo.batch import Batch, Rollouts
from aepo.llm.questions.small_tokenizers import byte_tokenizer

VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MODELS = {
    "qwen3": lambda **more: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, **more)),
    "qwen3, eager": lambda: MODELS["qwen3"](attn_implementation="eager"),
    # Every layer sees the last 4 tokens only, through a mask of another kind.
    "qwen3, sliding": lambda: MODELS["qwen3"](
        use_sliding_window=True, sliding_window=4, layer_types=["sliding_attention"] * 2
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
}
# Eager attention takes its softmax in float32 from a float64 mask, and a row of padding alone becomes nan.
DTYPES = dict.fromkeys(MODELS, torch.float64) | {"qwen3, eager": torch.float32}
# Prompts of 1 to 11 tokens and responses of 1 to 17, 108 in all.
PROMPT_LENGTHS = (1, 4, 11, 2)
RESPONSE_LENGTHS = (17, 1, 3, 9, 1, 2, 16, 5, 1, 12)
ROWS, LONGEST = len(RESPONSE_LENGTHS), max(RESPONSE_LENGTHS)
GENERATOR = torch.Generator().manual_seed(1)
PROMPTS = [torch.randint(1, VOCABULARY, (n,), generator=GENERATOR).tolist() for n in PROMPT_LENGTHS]
ROLLOUTS = Rollouts(
    prompt=torch.arange(ROWS) % len(PROMPTS),
    token=torch.randint(1, VOCABULARY, (ROWS, LONGEST), generator=GENERATOR),
    mask=(torch.arange(LONGEST) < torch.tensor(RESPONSE_LENGTHS).unsqueeze(-1)).double(),
    reward=torch.zeros(ROWS),
    group_size=1,
)
LENGTHS = [PROMPT_LENGTHS[p] + n for p, n in zip(ROLLOUTS.prompt.tolist(), RESPONSE_LENGTHS, strict=True)]


class Kept(torch.optim.Optimizer):
    """Leaves the weights alone and keeps the gradient that it was to step with."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 1.0})

    @torch.no_grad()
    def step(self) -> None:
        self.gradient = [p.grad.clone() for p in self.param_groups[0]["params"]]


def model(name: str, dtype: torch.dtype | None = None):
    torch.manual_seed(0)
    made = MODELS[name]().to(dtype or DTYPES[name])
    for parameter in made.parameters():
        # Initial weights are so small that no token minds what came before it.
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return made


def batch(dtype: torch.dtype = torch.float64) -> Batch:
    """Advantages and weights of both signs on every token; the old policy is another one."""
    generator = torch.Generator().manual_seed(2)
    shape = ROLLOUTS.token.shape
    mask = ROLLOUTS.mask.to(dtype)

    def noise() -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    return Batch(
        prompt=ROLLOUTS.prompt,
        token=ROLLOUTS.token,
        mask=mask,
        old_logp=-4.0 + noise(),
        advantage=noise(),
        weight=mask / mask.sum(),
        entropy_weight=0.4 * mask / mask.sum(),
        group_size=1,
    )


def tiny():
    """A model over 12 tokens whose distributions are far from uniform."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=16,
        intermediate_size=16, initializer_range=0.5, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def chatting(default_system: str | None):
    """A tokenizer with the path that one user message takes through the chat templates of the Qwen models.

    Their tokenizer_config.json (Qwen2.5-Math-7B, Qwen2.5-7B, Qwen3-4B) also has tools, tool answers and earlier turns,
    none of which a single question meets. Without a system message the first two write one of their own, Qwen3's none.
    """
    otherwise = "" if default_system is None else "<|im_start|>system\n" + default_system + "<|im_end|>\n"
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}{{ " + repr(otherwise) + " }}{% endif %}"
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    return tokenizer
