"""What the model is asked: tasks, data files, templates, end tokens and the tokenizers of small models."""
