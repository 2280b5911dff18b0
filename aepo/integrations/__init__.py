"""The algorithm inside other trainers: each integration imports the root of the package and its host, nothing else."""
