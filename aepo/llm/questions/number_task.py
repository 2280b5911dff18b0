"""What the built-in tasks share: numbers asked and numbers answered, a token each, judged without a model or a file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from aepo.llm.grading import Verdict
from aepo.llm.questions.begin_tokens import PromptTokens

MOVES = 4
"""Numbers of a response, behind which stands the end token."""
RESPONSE_TOKENS = MOVES + 1


@dataclass(frozen=True, kw_only=True)
class NumberTask(ABC):
    """Prompts of known words, answered by four numbers and the end token; an `aepo.llm.questions.task.Task`."""

    tokenizer: PreTrainedTokenizerFast
    prompts: Sequence[PromptTokens]
    train: Sequence[int]
    held_out: Sequence[int]
    number_of: Mapping[int, int]
    """Token id -> the number that it says in a response."""
    levels: Sequence[str] = ()
    parts: Sequence[str] = ()
    columns: Sequence[Mapping[str, Any]] = ()
    stop: None = None

    @property
    @abstractmethod
    def right_answers(self) -> NDArray[np.int64]:
        """(P,): how many right answers each prompt has."""

    @abstractmethod
    def answer(self, prompt: int) -> str | None:
        """What `Verdict.extracted` is compared with."""

    @abstractmethod
    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        """(training prompt, response with its end token) pairs for a supervised start."""

    @abstractmethod
    def judged(self, prompt: int, numbers: Sequence[int]) -> tuple[str, bool]:
        """What four numbers say, as a text, and whether they are a right answer to the prompt."""

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokenizer's end token alone."""
        return (self.tokenizer.eos_token_id,)

    @property
    def entropy_ceiling(self) -> float:
        """H of a policy that is always right and prefers no right answer: ln of their number over their five tokens
        (the chain rule), mean over training prompts."""
        return float(np.log(self.right_answers[np.asarray(self.train)]).mean() / RESPONSE_TOKENS)

    def grade(self, prompts: Sequence[int], responses: Sequence[Sequence[int]]) -> list[Verdict]:
        """1 for exactly four numbers and the end token that are a right answer, else 0."""
        return [self._verdict(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]

    def _verdict(self, prompt: int, response: Sequence[int]) -> Verdict:
        said, end = response[:-1], response[-1:]
        if len(said) != MOVES or tuple(end) != self.end_ids or any(token not in self.number_of for token in said):
            return Verdict(reward=0.0, extracted=None, reason="no answer")
        extracted, right = self.judged(prompt, [self.number_of[token] for token in said])
        return Verdict(reward=float(right), extracted=extracted, reason="exact" if right else "wrong")

    def text(self, tokens: Sequence[int]) -> str:
        """Words with spaces between them."""
        return " ".join(self.tokenizer.convert_ids_to_tokens(list(tokens)))

    def close(self) -> None:  # noqa: B027 - a task has nothing to close, unless it says so
        """Nothing is held."""
