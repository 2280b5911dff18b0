"""The paper's experiment in small: every method trained, evaluated and reported by one command."""
