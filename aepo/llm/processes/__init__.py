"""Several processes that are one run: ranks, the lock on a folder, termination, deadlines of phases."""
