"""Keys and values of prompts that are computed once and read by all their responses, with their gradient."""

from typing import Any

from torch import Tensor, cat
from transformers import DynamicCache


class PromptCache(DynamicCache):
    """What a first pass over prompts fills, and a second one over responses reads (`of`).

    transformers' own cache would keep what the second pass adds, of every layer and row, as if more tokens came; this
    one hands it to the layer's attention and forgets it, so that a pass without gradient holds one layer's at a time.
    """

    def __init__(self) -> None:
        # Without the model's config: a sliding window is then the mask's business alone, and no key is dropped.
        super().__init__()
        self._rows: Tensor | None = None

    def of(self, answers: Tensor) -> "PromptCache":
        """The same prompts for rows of which each continues prompt `answers[row]`, an index (R,)."""
        self._rows = answers
        return self

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, (rows, heads, tokens, head): the prompts', or each row's prompt and response."""
        if self._rows is None:
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        held = self.layers[layer_idx]
        keys, values = (
            cat([prompt.index_select(0, self._rows), response], -2)
            for prompt, response in ((held.keys, key_states), (held.values, value_states))
        )
        return keys, values
