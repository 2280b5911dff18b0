"""Benchmarks as exams: questions by the model's template and tokenizer, and what judges the answers."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from aepo.llm.evaluation.evaluated_model import Subject
from aepo.llm.evaluation.options import Options
from aepo.llm.evaluation.prompting import Manner
from aepo.llm.evaluation.sampling import Exam
from aepo.llm.evaluation.suite import Question
from aepo.llm.grading import benchmark_check as checking
from aepo.llm.grading.pool import GradingPool
from aepo.llm.questions.begin_tokens import PromptTokens, encoded
from aepo.llm.questions.built_in import BUILT_IN, is_of
from aepo.llm.questions.conversations import Asked
from aepo.llm.questions.end_tokens import end_ids, published_ends
from aepo.llm.questions.files import DataError
from aepo.llm.questions.stop_texts import StopTexts
from aepo.llm.questions.task import MathTask, math_task
from aepo.llm.questions.templates import prompter, prompts
from aepo.llm.settings import DataSettings, RewardSettings, SettingsError


def examined(
    options: Options,
    subject: Subject,
    manner: Manner,
    questions: Mapping[str, Sequence[Question]],
    stack: contextlib.ExitStack,
) -> dict[str, Exam]:
    """Every set with its prompts as tokens, and what judges the answers, which ends with the stack.

    Args:
        options: which sets, and how they are judged.
        subject: whose tokenizer makes the prompts.
        manner: in which questions are asked, and answers end.
        questions: of every set but the built-in tasks, which have their own.
        stack: of what is to be closed.

    Raises:
        SettingsError, DataError: prompts that cannot be made with this tokenizer or template.
    """
    exams, first = {}, 0
    pool, ends = None, ()
    if questions:
        prompt_of = prompter(
            subject.tokenizer,
            manner.template,
            system_prompt=manner.system_prompt,
            instruction=manner.instruction,
        )
        published = published_ends(subject.place)
        ends = end_ids(subject.tokenizer, manner.template, ends=manner.end_tokens, published=published)
        pool = GradingPool(checking.check, workers=options.workers, deadline_seconds=options.deadline_seconds)
        stack.enter_context(pool)
    if options.own_file is not None:
        task = own_task(options, subject, manner, options.own_file)
        stack.enter_context(contextlib.closing(task))
        (name,) = options.benchmarks
        asked = task.held_out[: options.rows]
        return {name: Exam(benchmark=name, task=task, problems=asked, prompts=asked, first=0)}
    for name in options.benchmarks:
        if name in BUILT_IN:
            task = BUILT_IN[name]()
            if not is_of(subject.tokenizer, task):
                raise SettingsError(
                    f"--suite={name}: the tokenizer of --model={subject.source} is not the {name} task's; name a model "
                    "that was trained on it, or another suite"
                )
            asked = sorted(task.held_out)[: options.rows]
            problems = asked
        else:
            task = MathTask(
                tokenizer=subject.tokenizer,
                end_ids=ends,
                prompts=_prompts(subject, manner, name, questions[name], prompt_of),
                answers=[q.reference for q in questions[name]],
                train=(),
                held_out=range(len(questions[name])),
                pool=pool,
                stop=StopTexts(tokenizer=subject.tokenizer, texts=manner.stop) if manner.stop else None,
            )
            asked, problems = task.held_out, [q.index for q in questions[name]]
        exams[name] = Exam(benchmark=name, task=task, problems=problems, prompts=asked, first=first)
        first += len(asked)
    return exams


def own_task(options: Options, subject: Subject, manner: Manner, path: str) -> MathTask:
    """The questions of a file of one's own, all held out, judged by the run's reward function or the one named.

    Args:
        options: how they are judged.
        subject: whose tokenizer makes the prompts.
        manner: in which questions are asked, and answers end.
        path: of the file.

    Raises:
        SettingsError, DataError: a file, a column or a reward function that cannot be used.
    """
    run = manner.trained
    reward = RewardSettings() if run is None else run.reward
    if options.reward is not None:
        reward = RewardSettings(function=options.reward)
    data = DataSettings() if run is None else run.data
    data = DataSettings(
        train=path,
        template=manner.template,
        system_prompt=manner.system_prompt,
        instruction=manner.instruction,
        end_tokens=manner.end_tokens,
        question_column=options.question_column or data.question_column,
        answer_column=options.answer_column or data.answer_column,
        # Checked with the model's own positions, and none left out.
        max_prompt_tokens=2**31,
        held_out_problems=0,
    )
    task, _ = math_task(
        data,
        reward.model_copy(update={"workers": options.workers, "deadline_seconds": options.deadline_seconds}),
        subject.tokenizer,
        seed=0,
        published_ends=published_ends(subject.place),
        stop=manner.stop,
    )
    return dataclasses.replace(task, train=(), held_out=range(len(task.prompts)))


def _prompts(
    subject: Subject, manner: Manner, name: str, questions: Sequence[Question], prompt_of: Callable[[Asked | str], str]
) -> list[PromptTokens]:
    places = [f"{name}, row {question.index}" for question in questions]
    try:
        texts = prompts(questions, places, prompt_of, template=manner.template)
        return encoded(subject.tokenizer, texts, places=places)
    except DataError as problem:
        raise SettingsError(
            f"--model={subject.source}: {problem}; or name another --suite, --model or --template"
        ) from problem


def check_positions(options: Options, subject: Subject, exams: Mapping[str, Exam]) -> None:
    """That prompts and responses fit the model; with rotary positions nothing else would say that they do not.

    Raises:
        SettingsError: they do not.
    """
    if subject.positions is None:
        return
    for p in options.measurements:
        longest = max(len(prompt) for prompt in exams[p.benchmark].tokens)
        if longest + p.max_tokens > subject.positions:
            raise SettingsError(
                f"--max-tokens={p.max_tokens}: with the longest prompt of {p.benchmark}, {longest} tokens, that is "
                f"more than the {subject.positions} positions (max_position_embeddings) of --model={subject.source}; "
                f"lower it to {max(1, subject.positions - longest)}, or raise them in its config.json"
            )
