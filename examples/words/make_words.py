"""The words task: few-shot prompts that ask for a word by its first letter, and the lexicon that judges.

python examples/words/make_words.py models/smollm2-135m      writes words.jsonl and words.txt beside this file

The lexicon is of the model's own tokenizer: its lower-case words of three letters and more that begin a token.
"""

import json
import random
import sys
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
LETTERS = "abcdefghilmnoprstvw"
SHOTS = (
    "bread summer kitchen river garden apple music doctor window paper horse island forest lemon market number orange "
    "picture road table village winter animal bridge cloud dinner engine flower hammer letter mountain night office "
    "pencil school train uncle valley water"
).split()
A_LETTER = 16
"""Prompts of each letter, by the choice of their examples."""


def lexicon(tokenizer) -> list[str]:
    """Every lower-case word of ASCII letters that the tokenizer has as one token behind a blank."""
    words = (token[1:] for token in tokenizer.get_vocab() if token.startswith("Ġ"))
    return sorted({word for word in words if len(word) > 2 and word.isascii() and word.isalpha() and word.islower()})


def rows() -> list[dict[str, str]]:
    """Prompts and the letter that each asks for; three examples of other letters, no prompt twice."""
    draw, found = random.Random(0), {}
    for letter in LETTERS:
        for _ in range(A_LETTER):
            shots: list[str] = []
            while len(shots) < 3:
                word = draw.choice(SHOTS)
                if word[0] != letter and word[0] not in [shot[0] for shot in shots]:
                    shots.append(word)
            first, *others = (f"with {shot[0]}: {shot}" for shot in shots)
            question = "\n".join([f"Words that begin {first}", *others, f"with {letter}:"])
            found[question] = {"question": question, "answer": letter}
    every = list(found.values())
    draw.shuffle(every)
    return every


def main() -> None:
    """Write both files."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        raise SystemExit("give the folder of a model, as `aepo model smollm2-135m --out models/smollm2-135m` makes it")
    words, asked = lexicon(AutoTokenizer.from_pretrained(sys.argv[1])), rows()
    (HERE / "words.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (HERE / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    print(f"{len(asked)} prompts, {len(words)} words; the first prompt:\n{asked[0]['question']}")


if __name__ == "__main__":
    main()
