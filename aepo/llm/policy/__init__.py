"""The model that is trained, its optimizer, and the log-probs and entropies of responses under it."""
