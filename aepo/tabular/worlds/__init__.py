"""The worlds that a tabular policy acts in: bandit, contextual environments, sequences."""
