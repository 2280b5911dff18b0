"""The paper's claims on the ladder task: a protocol that was fixed first, runs by it, and a verdict for each claim."""
