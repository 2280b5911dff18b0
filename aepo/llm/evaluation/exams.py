"""Benchmarks as exams: questions by the model's template and tokenizer, and what judges the answers."""

import contextlib
from collections.abc import Mapping, Sequence

from aepo.llm.evaluation.evaluated_model import Subject
from aepo.llm.evaluation.options import WALK, Options
from aepo.llm.evaluation.prompting import Manner
from aepo.llm.evaluation.sampling import Exam
from aepo.llm.evaluation.suite import Question
from aepo.llm.grading import benchmark_check as checking
from aepo.llm.grading.pool import GradingPool
from aepo.llm.questions.end_tokens import end_ids, published_ends
from aepo.llm.questions.task import MathTask
from aepo.llm.questions.templates import prompter
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import SettingsError


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
        questions: of every set but the walk task, which has its own.
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
    for name in options.benchmarks:
        if name == WALK:
            task = walk_task()
            if subject.tokenizer.get_vocab() != task.tokenizer.get_vocab():
                raise SettingsError(
                    f"--suite=walk: the tokenizer of --model={subject.source} is not the walk task's; name a model "
                    "that was trained on it, or another suite"
                )
            prompts = sorted(task.held_out)[: options.rows]
            problems = prompts
        else:
            task = MathTask(
                tokenizer=subject.tokenizer,
                end_ids=ends,
                prompts=[_encoded(subject, prompt_of(q.question), f"{name}, row {q.index}") for q in questions[name]],
                answers=[q.reference for q in questions[name]],
                train=(),
                held_out=range(len(questions[name])),
                pool=pool,
            )
            prompts, problems = task.held_out, [q.index for q in questions[name]]
        exams[name] = Exam(benchmark=name, task=task, problems=problems, prompts=prompts, first=first)
        first += len(prompts)
    return exams


def _encoded(subject: Subject, text: str, where: str) -> tuple[int, ...]:
    try:
        return tuple(subject.tokenizer.encode(text, add_special_tokens=False))
    # A closed vocabulary says so by the plain Exception of the tokenizer's Rust part.
    except Exception as error:
        raise SettingsError(
            f"--model={subject.source}: its tokenizer cannot encode the question of {where} ({error}); name a model of "
            "text, or another --suite"
        ) from error


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
