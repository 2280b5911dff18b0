"""Texts that end a response: it ends with the token that completes one of them, and what stands before it is judged."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8 at most, and tokens too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StopTexts:
    """The texts, as a tokenizer spells them: one may end in the middle of a token, and go over several.

    The token that completes a text belongs to the response and is charged like any other, with whatever it says beyond
    the text. A text counts from the response's first character; the prompt is no part of it.
    """

    tokenizer: PreTrainedTokenizerBase
    texts: tuple[str, ...]
    """None empty."""
    _special: frozenset[int] = field(init=False)
    _window: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_special", frozenset(self.tokenizer.all_special_ids))
        # Every token but a special one says a byte at least; what is before the text may begin within a character, or
        # lose its blank where it is read without the token before it.
        longest = max((len(text.encode()) for text in self.texts), default=0)
        object.__setattr__(self, "_window", longest + LONGEST_CHARACTER + 1)

    def completed(self, tokens: Sequence[int]) -> bool:
        """Whether the last of these tokens has completed a text; no earlier one had, as the response would have ended.

        Args:
            tokens: of a response so far.
        """
        seen: list[int] = []
        for token in reversed(tokens):
            if token not in self._special:
                seen.append(token)
                if len(seen) == self._window:
                    break
        said = self.tokenizer.decode(seen[::-1], skip_special_tokens=True)
        return any(text in said for text in self.texts)

    def length(self, tokens: Sequence[int]) -> int:
        """Tokens of a response up to the one that completes a text, itself included; all where none does."""
        return next((n for n in range(1, len(tokens)) if self.completed(tokens[:n])), len(tokens))

    def before(self, said: str) -> str:
        """What a response says before the first of the texts; all of it where there is none."""
        return said[: min((at for text in self.texts if (at := said.find(text)) >= 0), default=len(said))]
