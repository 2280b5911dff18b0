"""The LLM trainer: the algorithm at the root of `aepo` on a transformers model, through DeepSpeed."""
