"""One command for a machine with a GPU: kernels, speed, the trainer's run, real sizes, sanitizer. See `__main__`."""
