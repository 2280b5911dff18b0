"""What is asked and how an answer is judged, behind one small protocol: a built-in task, or questions from a file."""

import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from transformers import PreTrainedTokenizerFast

from aepo.llm import seeds
from aepo.llm.grading import Verdict
from aepo.llm.grading.pool import GradingPool
from aepo.llm.grading.rewards import (
    Reward,
    RewardFunction,
    RewardSum,
    chosen_reward,
    functions_of,
    names_of_parts,
)
from aepo.llm.questions.begin_tokens import PromptTokens, encoded
from aepo.llm.questions.conversations import Asked
from aepo.llm.questions.end_tokens import described, end_ids
from aepo.llm.questions.files import listed, shown
from aepo.llm.questions.problems import DataError, Problem, distinct, load_problems
from aepo.llm.questions.stop_texts import StopTexts
from aepo.llm.questions.templates import CHAT, is_file, prompter, prompts
from aepo.llm.settings import DataSettings, RewardSettings, SettingsError

__all__ = ["DataError", "MathTask", "PromptTokens", "Task", "fingerprint", "math_task"]

log = logging.getLogger("aepo")

# As many as show how a prompt begins.
FIRST_TOKENS = 8


class Task(Protocol):
    """Prompts as tokens, and a verifier."""

    tokenizer: PreTrainedTokenizerFast

    @property
    def end_ids(self) -> Sequence[int]:
        """Tokens that end a response."""
        ...

    prompts: Sequence[PromptTokens]
    """Every prompt; Rollouts.prompt indexes it."""
    train: Sequence[int]
    """Indices that are trained on."""
    held_out: Sequence[int]
    """Indices that are only evaluated on."""

    @property
    def stop(self) -> StopTexts | None:
        """Texts that end a response beside the tokens; None where there are none."""
        ...

    @property
    def entropy_ceiling(self) -> float | None:
        """H in nats of a policy that is always right and prefers no right answer; None where it is not known."""
        ...

    @property
    def parts(self) -> Sequence[str]:
        """Names of several reward functions, in the order of `Verdict.parts`; () where there is one."""
        ...

    @property
    def columns(self) -> Sequence[Mapping[str, Any]]:
        """Of each prompt's row, what the reward functions take; () if none takes any."""
        ...

    @property
    def levels(self) -> Sequence[str]:
        """How difficult each prompt is, by names that sort from the easiest on; () where it is not known."""
        ...

    def grade(self, prompts: Sequence[int], responses: Sequence[Sequence[int]]) -> list[Verdict]:
        """Verdicts on responses (tokens, the end token included where it came), each to the prompt beside it."""
        ...

    def text(self, tokens: Sequence[int]) -> str:
        """A prompt or a response as a person reads it."""
        ...

    def answer(self, prompt: int) -> str | None:
        """What a right response to the prompt says in the end; None if nothing was given."""
        ...

    def close(self) -> None:
        """No more is graded."""
        ...

    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        """(training prompt, response with its end token) pairs for a supervised start; ValueError if there are none."""
        ...


def stops(task: Task) -> Callable[[Sequence[int]], bool] | None:
    """What tells that tokens end with a stop text, for `aepo.llm.grading.overlong.ended`; None without such texts."""
    return None if task.stop is None else task.stop.completed


def fingerprint(task: Task, prompts: Sequence[int], *, beside: Sequence[int] = ()) -> str:
    """Of questions and references: that of others, or of another order, differs.

    Args:
        task: whose.
        prompts: which.
        beside: numbers that count too.
    """
    crc = zlib.crc32(json.dumps([list(beside), []]).encode()[:-2])
    # One after the other: whole data sets are a large text.
    for i, prompt in enumerate(prompts):
        asked = json.dumps([list(task.prompts[prompt]), task.answer(prompt)])
        crc = zlib.crc32(f"{', ' if i else ''}{asked}".encode(), crc)
    return f"{zlib.crc32(b']]', crc):08x}"


def fingerprint_of_columns(task: Task, prompts: Sequence[int]) -> list[int]:
    """One number for what the reward functions are given of these prompts' rows; none where they take nothing."""
    if not task.columns:
        return []
    # What is no number and no JSON counts by its kind: a picture, say, has no text that stays the same.
    given = json.dumps(
        [task.columns[prompt] for prompt in prompts],
        default=lambda value: str(value) if isinstance(value, Decimal) else type(value).__name__,
    )
    return [zlib.crc32(given.encode())]


@dataclass(frozen=True, kw_only=True)
class MathTask:
    """Questions with a reference answer, judged on the response's text in processes that can be killed."""

    tokenizer: PreTrainedTokenizerFast
    end_ids: Sequence[int]
    """Tokens that end a response."""
    prompts: Sequence[PromptTokens]
    answers: Sequence[str]
    train: Sequence[int]
    held_out: Sequence[int]
    pool: GradingPool
    entropy_ceiling: float | None = None
    parts: Sequence[str] = ()
    columns: Sequence[Mapping[str, Any]] = ()
    """Of each prompt's row, what the reward functions take; () if none takes any."""
    levels: Sequence[str] = ()
    stop: StopTexts | None = None

    def grade(self, prompts: Sequence[int], responses: Sequence[Sequence[int]]) -> list[Verdict]:
        asked = zip(prompts, responses, strict=True)
        if not self.columns:
            return self.pool.grade([(self._judged(r), self.answers[p]) for p, r in asked])
        return self.pool.grade([(self._judged(r), self.answers[p], self.columns[p]) for p, r in asked])

    def _judged(self, response: Sequence[int]) -> str:
        said = self.text(response)
        return said if self.stop is None else self.stop.before(said)

    def text(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def answer(self, prompt: int) -> str | None:
        return self.answers[prompt]

    def close(self) -> None:
        self.pool.close()

    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        raise ValueError("warm_start.steps must be 0 with a data file: only built-in tasks make demonstrations")


def math_task(
    data: DataSettings,
    reward: RewardSettings,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    published_ends: Sequence[int] = (),
    stop: Sequence[str] = (),
) -> tuple[MathTask, int]:
    """Load, template, tokenise and split the problems of `data.train`, and start what judges the answers.

    Every rank and every resumed run gets the same: the order is the source's, and the split is drawn from the seed.

    Args:
        data, reward: as a preset has them.
        tokenizer: with an end token.
        seed: of the split.
        published_ends: end tokens that the model has beside its tokenizer's, as
            `aepo.llm.questions.end_tokens.published_ends` finds them.
        stop: texts that end a response, too.

    Returns:
        The task, and how many problems were left out because their prompt is over `max_prompt_tokens`.

    Raises:
        DataError: a file or row that cannot be used, or no problem is left to train on.
        SettingsError: a reward function that cannot be had.
    """
    prompt_of = prompter(
        tokenizer,
        data.template,
        system_prompt=data.system_prompt,
        instruction=data.instruction,
        boxed=reward.asks_boxed,
    )
    judge = _judge(reward)
    functions = functions_of(judge)
    found = distinct(
        load_problems(
            data.train,
            question_column=data.question_column,
            answer_column=data.answer_column,
            split=data.split,
            with_columns=is_file(data.template) or any(function.takes_columns for function in functions),
        ),
        # A named template does not show them.
        heed_systems=data.template == CHAT,
        prompt_of=_placed(prompt_of, data.train) if is_file(data.template) else None,
    )
    problems = found.problems
    columns = _columns(functions, problems, data.train)
    if found.repeated or found.contradicted:
        log.info(
            "data: left out %d repeated problems and %d questions that were there before with another answer",
            found.repeated,
            found.contradicted,
        )
    places = [f"{data.train}, row {problem.row}" for problem in problems]
    texts = prompts(problems, places, prompt_of, template=data.template)
    log.info("data: %d problems; template %s makes of the first:\n%s", len(problems), data.template, texts[0])
    ends = end_ids(tokenizer, data.template, ends=data.end_tokens, published=published_ends)
    texts_too = "".join(f", or the text {shown(repr(text))}" for text in stop)
    log.info("data: responses end with %s%s", described(tokenizer, ends), texts_too)
    every = encoded(tokenizer, texts, places=places)
    log.info("data: the first prompt begins with %s", described(tokenizer, every[0][:FIRST_TOKENS]))
    kept = [i for i, tokens in enumerate(every) if len(tokens) <= data.max_prompt_tokens]
    if len(kept) <= data.held_out_problems:
        raise DataError(
            f"data.train={data.train}: {len(kept)} of {len(problems)} problems fit "
            f"data.max_prompt_tokens={data.max_prompt_tokens}, and data.held_out_problems={data.held_out_problems} "
            "of these are set aside, so none is left to train on; raise the first or lower the second"
        )
    shuffled = seeds.order(seed, 0, len(kept), size=len(kept))
    task = MathTask(
        tokenizer=tokenizer,
        end_ids=ends,
        prompts=[every[i] for i in kept],
        answers=[problems[i].answer for i in kept],
        train=sorted(shuffled[data.held_out_problems :].tolist()),
        held_out=sorted(shuffled[: data.held_out_problems].tolist()),
        pool=_pool(judge, reward),
        parts=names_of_parts(judge),
        columns=[columns[i] for i in kept] if columns else (),
        stop=StopTexts(tokenizer=tokenizer, texts=tuple(stop)) if stop else None,
    )
    return task, len(problems) - len(kept)


def _placed(prompt_of: Callable[[Asked | str], str], source: str) -> Callable[[Problem], str]:
    """The same, with file and row where it fails."""

    def prompt(problem: Problem) -> str:
        try:
            return prompt_of(problem)
        except DataError as error:
            raise DataError(f"{source}, row {problem.row}: {error}") from error

    return prompt


def _columns(functions: Sequence[RewardFunction], problems: Sequence[Problem], source: str) -> list[dict[str, Any]]:
    """Of each problem's row, what the functions take; [] if no row has any of it.

    Raises:
        SettingsError: a row lacks a column that a function needs.
    """
    found = []
    for problem in problems:
        row, taken = problem.columns, {}
        for function in functions:
            lacking = [name for name in function.needed if name not in row]
            if lacking:
                raise SettingsError(
                    f"reward.function: {function.name} takes {lacking[0]!r}, and {source}, row {problem.row} has no "
                    f"such column, found {listed(row)}; name a column that there is, or give the parameter a default"
                )
            taken |= function.columns(row)
        found.append(taken)
    return found if any(found) else []


def grading_pool(chosen: RewardSettings) -> GradingPool:
    """This process's verifiers.

    Raises:
        SettingsError: a reward function that cannot be had.
    """
    return _pool(_judge(chosen), chosen)


def _judge(chosen: RewardSettings) -> Reward | RewardFunction | RewardSum:
    try:
        return chosen_reward(chosen.function, chosen.right)
    except ValueError as error:
        raise SettingsError(
            f"reward.{'function' if chosen.right is None else 'function or reward.right'}: {error}"
        ) from error


def _pool(judge: Reward | RewardFunction | RewardSum, chosen: RewardSettings) -> GradingPool:
    try:
        return GradingPool(judge, workers=chosen.workers, deadline_seconds=chosen.deadline_seconds)
    except ValueError as error:
        raise SettingsError(f"reward.function: {error}") from error
