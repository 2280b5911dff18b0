"""Softmax bandits and tabular policies: the algorithm at the root of `aepo`, simulated in seconds."""
