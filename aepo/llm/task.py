"""What is asked and how an answer is judged, behind one small protocol: the walk task, or questions from a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerFast

from aepo.llm import seeds
from aepo.llm.math_data import DataError, load_problems, prompt_text
from aepo.llm.settings import DataSettings

__all__ = ["DataError", "MathTask", "PromptTokens", "Task", "math_task"]

PromptTokens = tuple[int, ...]


class Task(Protocol):
    """Prompts as tokens, and a verifier."""

    tokenizer: PreTrainedTokenizerFast
    prompts: Sequence[PromptTokens]
    """Every prompt; Rollouts.prompt indexes it."""
    train: Sequence[int]
    """Indices that are trained on."""
    held_out: Sequence[int]
    """Indices that are only evaluated on."""

    def grade(self, prompt: int, response: Sequence[int]) -> float:
        """Reward of a response (its tokens, the end token included if it came) to prompt `prompt`."""
        ...

    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        """(training prompt, response with its end token) pairs for a supervised start; ValueError if there are none."""
        ...


@dataclass(frozen=True, kw_only=True)
class MathTask:
    """Questions with a reference answer, judged by math-verify on the response's text."""

    tokenizer: PreTrainedTokenizerFast
    prompts: Sequence[PromptTokens]
    answers: Sequence[str]
    train: Sequence[int]
    held_out: Sequence[int]

    def grade(self, prompt: int, response: Sequence[int]) -> float:
        from aepo.llm.grading import math_reward

        return math_reward(self.text(response), self.answers[prompt]).reward

    def text(self, response: Sequence[int]) -> str:
        """The response as a person reads it."""
        return self.tokenizer.decode(list(response), skip_special_tokens=True)

    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        raise ValueError("warm_start.steps must be 0 with a data file: only the walk task makes demonstrations")


def math_task(data: DataSettings, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> tuple[MathTask, int]:
    """Load, template, tokenise and split the problems of `data.train`.

    Returns:
        The task, and how many problems were left out because their prompt is over `max_prompt_tokens`.

    Raises:
        DataError: a file or row that cannot be used, or no problem is left to train on.
    """
    problems = load_problems(
        data.train, question_column=data.question_column, answer_column=data.answer_column, split=data.split
    )
    encoded = [
        tuple(tokenizer.encode(prompt_text(p.question, data.template), add_special_tokens=False)) for p in problems
    ]
    kept = [i for i, tokens in enumerate(encoded) if len(tokens) <= data.max_prompt_tokens]
    if len(kept) <= data.held_out_problems:
        raise DataError(
            f"data.train={data.train}: {len(kept)} of {len(problems)} problems fit "
            f"data.max_prompt_tokens={data.max_prompt_tokens}, and data.held_out_problems={data.held_out_problems} "
            "of these are set aside, so none is left to train on; raise the first or lower the second"
        )
    shuffled = seeds.order(seed, 0, len(kept), size=len(kept))
    task = MathTask(
        tokenizer=tokenizer,
        prompts=[encoded[i] for i in kept],
        answers=[problems[i].answer for i in kept],
        train=sorted(shuffled[data.held_out_problems :].tolist()),
        held_out=sorted(shuffled[: data.held_out_problems].tolist()),
    )
    return task, len(problems) - len(kept)
