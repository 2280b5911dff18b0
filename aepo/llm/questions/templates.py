r"""How a question becomes a prompt: templates by name, or the tokenizer's own chat template.

The named ones are texts, so that a run says what it asks without a tokenizer; each equals what the chat template in the
model's published tokenizer_config.json makes of the messages that its comment names.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from aepo.home_path import at_home
from aepo.llm.questions.conversations import Asked, Message
from aepo.llm.questions.files import DataError, listed, shown
from aepo.llm.settings.fields import TEMPLATE_NAMES, TEMPLATE_SUFFIXES
from aepo.suggest import did_you_mean

log = logging.getLogger("aepo")

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
"""The request of the model cards of Qwen2.5-Math (as the system prompt) and of Qwen3 (in the user's message)."""

TEMPLATES = {
    "raw": "{question}",
    "plain": "Question: {question}\nPut your final answer within \\boxed{}.\nAnswer:",
    # Qwen2.5-Math: the question as the user's message; the published template supplies this system prompt.
    "qwen_math": (
        f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n"
        "<|im_start|>user\n{question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    # Qwen2.5, base models: question and instruction as the user's message; the published template supplies the system
    # prompt. That of the instruct models begins with "You are Qwen, created by Alibaba Cloud.": use `chat` for them.
    "qwen": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{{question}}\n\n{INSTRUCTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    # Qwen3, thinking: question and instruction as the user's message, no system prompt.
    "qwen3": f"<|im_start|>user\n{{question}}\n\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n",
}
"""Prompt templates by name; {question} stands where the question goes, any other brace for itself."""

UNBOXED = {
    **TEMPLATES,
    "plain": "Question: {question}\nAnswer:",
    "qwen_math": "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
    **{name: TEMPLATES[name].replace(f"\n\n{INSTRUCTION}", "") for name in ("qwen", "qwen3")},
}
"""The same without the request for a boxed answer, for those who judge by something else."""

CHAT = "chat"
"""The template that is the tokenizer's own."""
NAMES = TEMPLATE_NAMES


def prompt_text(question: str, template: str, *, boxed: bool = True) -> str:
    r"""The prompt for a question by a named template.

    Args:
        question: as `Problem.question` holds it; its braces stay as they are.
        template: a name in TEMPLATES.
        boxed: whether a boxed answer is asked for.

    Raises:
        DataError: an unknown template.

    >>> print(prompt_text("What is $1 + 1$?", "plain"))
    Question: What is $1 + 1$?
    Put your final answer within \boxed{}.
    Answer:
    """
    if template not in TEMPLATES:
        hint = did_you_mean(template, NAMES)
        raise DataError(f"template must be one of {', '.join(NAMES)}, got {template!r}{hint}")
    before, after = (TEMPLATES if boxed else UNBOXED)[template].split("{question}")
    return before + question + after


def prompter(
    tokenizer: Any,
    template: str,
    *,
    system_prompt: str | None = None,
    instruction: str | None = None,
    boxed: bool = True,
) -> Callable[[Asked | str], str]:
    """From what is asked to its prompt, special tokens written out.

    `chat` renders a whole conversation. A named template has its own system message and room for one question: a
    conversation's system message gives way to it, and one with earlier turns is refused. A Jinja file is given the
    columns of the row, where it was read with them, and `question`; what it leaves out is its writer's choice.

    Args:
        tokenizer: a transformers one; only `chat` looks at it.
        template: a name in NAMES, or the path of a Jinja file.
        system_prompt: for `chat`, of a question that brings none; None leaves it to the tokenizer's template.
        instruction: for `chat`, what is put right behind the question, separator included; None is INSTRUCTION in a
            paragraph of its own, or nothing.
        boxed: whether a boxed answer is asked for where `instruction` says nothing.

    Returns:
        A function that raises DataError, without the row, for a conversation that the template cannot show whole.

    Raises:
        DataError: an unknown template, a file that is no Jinja template, or `chat` with a tokenizer that has none.
    """
    if is_file(template):
        return jinja_prompter(template)
    if template != CHAT:
        # An unknown name shows here, not at the first question.
        prompt_text("", template)
        return lambda asked: _one_question(_as_asked(asked), template, boxed=boxed)
    if not tokenizer.chat_template:
        raise DataError(
            "data.template=chat: the tokenizer of model.path has no chat template; give model.path one that has "
            f"(chat_template in its tokenizer_config.json), or choose data.template from {', '.join(TEMPLATES)}"
        )
    if instruction is None:
        instruction = f"\n\n{INSTRUCTION}" if boxed else ""

    def chat(asked: Asked | str) -> str:
        asked = _as_asked(asked)
        if asked.has_system and system_prompt is not None:
            raise DataError(
                "the conversation has a system message, and system_prompt is set too; leave one of them out"
            )
        before = asked.before
        if system_prompt is not None:
            before = (Message(role="system", content=system_prompt), *before)
        messages = [*before, Message(role="user", content=asked.question + instruction)]
        return _rendered(tokenizer, messages)

    return chat


def _as_asked(asked: Asked | str) -> Asked:
    return Asked(question=asked) if isinstance(asked, str) else asked


def is_file(template: str) -> bool:
    """Whether a template is the path of a file, and no name."""
    return template not in NAMES and template.endswith(TEMPLATE_SUFFIXES)


def jinja_prompter(path: str) -> Callable[[Asked | str], str]:
    """From what is asked to what a Jinja file makes of the row; as `prompter`.

    Raises:
        DataError: no such file, or one that is no template.
    """
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        text = at_home(path).read_text(encoding="utf-8")
        # A name that the row has not is an error, and no empty text; one line's end at the file's end is left out.
        template = ImmutableSandboxedEnvironment(undefined=StrictUndefined).from_string(text)
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"data.template={path}: no readable file ({problem})") from problem
    except TemplateError as problem:
        raise DataError(f"data.template={path}: no Jinja template ({shown(str(problem))})") from problem

    def rendered(asked: Asked | str) -> str:
        asked = _as_asked(asked)
        variables = {"question": asked.question, **getattr(asked, "columns", {})}
        try:
            return template.render(variables)
        # Besides jinja's own errors a template may raise what its expressions raise.
        except Exception as problem:
            raise DataError(
                f"the template {path} fails ({type(problem).__name__}: {shown(str(problem))}); it has the variables "
                f"{listed(variables)}"
            ) from problem

    return rendered


def _one_question(asked: Asked, template: str, *, boxed: bool) -> str:
    if asked.has_turns:
        raise DataError(
            f"the question stands behind {len(asked.before)} other messages, and the template {template!r} has room "
            "for one question; choose the template chat, or remove the row"
        )
    return prompt_text(asked.question, template, boxed=boxed)


def _rendered(tokenizer: Any, messages: Sequence[Message]) -> str:
    """What the chat template makes of a conversation, every word of which must be in it."""
    plain = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
    # The template is a program of the model's publisher: besides jinja's errors it may raise any of Python's.
    except Exception as problem:
        roles = ", ".join(message.role for message in messages)
        raise DataError(
            f"the tokenizer's chat template refuses a conversation of {roles} ({type(problem).__name__}: "
            f"{shown(str(problem))}); remove what it does not know, or choose a template from {', '.join(TEMPLATES)}"
        ) from problem
    for message in messages:
        # Of earlier answers some templates leave the thoughts out, as they are meant to.
        if message.role != "assistant" and message.content.strip() not in text:
            raise DataError(
                f"the tokenizer's chat template leaves out or changes the {message.role} message "
                f"{shown(message.content)!r}; remove it, or choose a template from {', '.join(TEMPLATES)}"
            )
    return text


def prompts(
    asked: Sequence[Asked], places: Sequence[str], prompt_of: Callable[[Asked | str], str], *, template: str
) -> list[str]:
    """The prompt of each question; says how many system messages of the file a named template stands in for.

    Args:
        asked: the questions.
        places: file and row of each, for messages.
        prompt_of: of `prompter`, for this template.
        template: its name.

    Raises:
        DataError: a conversation that the template cannot show whole: file, row and the cure.
    """
    texts = []
    for one, place in zip(asked, places, strict=True):
        try:
            texts.append(prompt_of(one))
        except DataError as problem:
            raise DataError(f"{place}: {problem}") from problem
    replaced = sum(one.has_system for one in asked)
    if replaced and template in TEMPLATES:
        log.warning(
            "%d of %d questions bring a system message, in the place of which the template %s has its own words; "
            "the template chat shows them",
            replaced,
            len(asked),
            template,
        )
    return texts
