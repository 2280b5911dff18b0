r"""How a question becomes a prompt: templates by name, or the tokenizer's own chat template.

The named ones are texts, so that a run says what it asks without a tokenizer; each equals what the chat template in the
model's published tokenizer_config.json makes of the messages that its comment names.
"""

from collections.abc import Callable
from typing import Any

from aepo.llm.questions.files import DataError
from aepo.suggest import did_you_mean

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
"""The request of the model cards of Qwen2.5-Math (as the system prompt) and of Qwen3 (in the user's message)."""

TEMPLATES = {
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

CHAT = "chat"
"""The template that is the tokenizer's own."""
NAMES = (*TEMPLATES, CHAT)


def prompt_text(question: str, template: str) -> str:
    r"""The prompt for a question by a named template.

    Args:
        question: as `Problem.question` holds it; its braces stay as they are.
        template: a name in TEMPLATES.

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
    before, after = TEMPLATES[template].split("{question}")
    return before + question + after


def prompter(
    tokenizer: Any, template: str, *, system_prompt: str | None = None, instruction: str | None = None
) -> Callable[[str], str]:
    """From a question to its prompt, special tokens written out.

    Args:
        tokenizer: a transformers one; only `chat` looks at it.
        template: a name in NAMES.
        system_prompt: for `chat`; None leaves the system message to the tokenizer's template.
        instruction: for `chat`, what is put right behind the question, separator included; None is INSTRUCTION in a
            paragraph of its own.

    Raises:
        DataError: an unknown template, or `chat` with a tokenizer that has none.
    """
    if template != CHAT:
        # An unknown name shows here, not at the first question.
        prompt_text("", template)
        return lambda question: prompt_text(question, template)
    if not tokenizer.chat_template:
        raise DataError(
            "data.template=chat: the tokenizer of model.path has no chat template; give model.path one that has "
            f"(chat_template in its tokenizer_config.json), or choose data.template from {', '.join(TEMPLATES)}"
        )
    instruction = f"\n\n{INSTRUCTION}" if instruction is None else instruction
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]

    def chat(question: str) -> str:
        messages = [*system, {"role": "user", "content": question + instruction}]
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    return chat
