"""Entropy control for policies trained by reinforcement learning with verifiable rewards.

The algorithm is this package: small pure modules of torch functions. Two worlds run them: `aepo.tabular`, a simulator
that answers in seconds, and `aepo.llm`, a trainer for language models. `aepo.theory` is independent of all three.
Importing `aepo` imports nothing else.
"""

__version__ = "0.1.0"
