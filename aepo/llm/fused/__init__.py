"""Log-prob at two temperatures and entropy of tokens, from hidden states, without a tensor of logits.

Imports nothing of aepo: the folder can be lifted into another project.
"""

from aepo.llm.fused.linear import TokenStats, linear_policy_loss, linear_token_stats, token_stats_from_logits

__all__ = ["TokenStats", "linear_policy_loss", "linear_token_stats", "token_stats_from_logits"]
