"""Evaluation as the paper does it: seven benchmarks, avg@k, pass@k, and its tables for any set of runs."""
