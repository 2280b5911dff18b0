"""Prompts: the named templates are what the published chat templates produce, and `chat` is the tokenizer's own."""

import pytest
from tiny_models import chatting

from aepo.llm.questions.files import DataError
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.templates import INSTRUCTION, NAMES, TEMPLATES, prompt_text, prompter

QUESTION = r"Find {x} in $\frac{1}{x}$ {question} {0} <b>"


@pytest.mark.parametrize(
    ("template", "default_system", "instruction"),
    [
        ("qwen_math", INSTRUCTION, ""),
        ("qwen", "You are a helpful assistant.", None),
        ("qwen3", None, None),
    ],
)
def test_a_named_template_is_what_the_published_chat_template_makes(template, default_system, instruction):
    chat = prompter(chatting(default_system), "chat", instruction=instruction)
    assert prompt_text(QUESTION, template) == chat(QUESTION)


def test_a_prompt_holds_the_question_as_it_is():
    for template in TEMPLATES:
        before, _, after = prompt_text(QUESTION, template).partition(QUESTION)
        assert r"\boxed{}" in before + after and (before + after).count("{question}") == 0


def test_templates_are_these_texts():
    assert prompt_text("1+1?", "plain") == "Question: 1+1?\nPut your final answer within \\boxed{}.\nAnswer:"
    assert prompt_text("1+1?", "qwen_math") == (
        "<|im_start|>system\n"
        "Please reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt_text("1+1?", "qwen3") == (
        "<|im_start|>user\n1+1?\n\nPlease reason step by step, and put your final answer within \\boxed{}.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_system_prompt_and_an_instruction_go_where_they_belong():
    chat = prompter(chatting("unused"), "chat", system_prompt="Be brief.", instruction=" Box it.")
    assert chat("1+1?") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1? Box it.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_tokenizer_without_a_chat_template_is_named_with_the_cure():
    with pytest.raises(DataError, match=r"data\.template=chat.*model\.path.*tokenizer_config\.json.*plain, qwen_math"):
        prompter(byte_tokenizer(), "chat")


def test_an_unknown_template_is_named_with_the_nearest_before_any_question():
    with pytest.raises(DataError, match=f"{', '.join(NAMES)}, got 'qwenmath'; did you mean 'qwen_math'"):
        prompter(byte_tokenizer(), "qwenmath")
    with pytest.raises(DataError, match="did you mean 'chat'"):
        prompt_text("1+1?", "chad")
