"""Who samples the responses, and the proof that it samples from the weights it was given."""
