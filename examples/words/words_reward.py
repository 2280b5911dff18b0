"""1 for one word of the lexicon that begins with the letter asked for; PYTHONPATH names this folder."""

from pathlib import Path

WORDS = frozenset(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split())


def reward(response: str, answer: str) -> float:
    """Whether the response, up to the end of its line, is such a word."""
    said = response.strip()
    return float(said in WORDS and said.startswith(answer))
