"""The sizes of published models, as their config.json has them."""

from transformers import LlamaConfig, Qwen2Config, Qwen3Config

QWEN_7B = Qwen2Config(
    vocab_size=152064, hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
    intermediate_size=18944, tie_word_embeddings=False,
)  # fmt: skip
QWEN3_4B = Qwen3Config(
    vocab_size=151936, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128, intermediate_size=9728, tie_word_embeddings=True,
)  # fmt: skip
LLAMA_1B = LlamaConfig(
    vocab_size=128256, hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
    head_dim=64, intermediate_size=8192, tie_word_embeddings=True,
)  # fmt: skip
