"""A small model in a folder that `model.path` takes: from the hub, from a package, or from a GGUF file."""
