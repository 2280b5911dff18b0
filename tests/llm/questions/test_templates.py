"""Prompts: the named templates are what the published chat templates produce, and `chat` is the tokenizer's own."""

import json

import pytest
from tiny_models import chatting

from aepo.llm.questions.conversations import Asked
from aepo.llm.questions.files import DataError
from aepo.llm.questions.problems import Problem
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.task import math_task
from aepo.llm.questions.templates import INSTRUCTION, NAMES, TEMPLATES, prompt_text, prompter
from aepo.llm.settings import DataSettings, RewardSettings, SettingsError, load

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
        assert (r"\boxed{}" in before + after) == (template != "raw") and (before + after).count("{question}") == 0
        plain = prompt_text(QUESTION, template, boxed=False)
        assert QUESTION in plain and r"\boxed" not in plain and "step by step" not in plain
        # Nothing else goes, but the system message that is nothing else.
        assert template == "qwen_math" or len(plain) >= len(prompt_text(QUESTION, template)) - len(INSTRUCTION) - 2


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


def test_a_raw_question_is_the_prompt():
    assert prompt_text("with k: kitchen\nwith s:", "raw") == "with k: kitchen\nwith s:"


@pytest.mark.parametrize("boxed", [True, False])
def test_a_chat_asks_for_a_box_only_where_one_is_judged_unless_the_instruction_says_so(boxed):
    plain = prompter(chatting("unused"), "chat", system_prompt="", boxed=boxed)
    assert (r"\boxed{}" in plain("1+1?")) == boxed and "1+1?" in plain("1+1?")
    asked = prompter(chatting("unused"), "chat", instruction=" Box it.", boxed=boxed)
    assert "1+1? Box it.<|im_end|>" in asked("1+1?")


@pytest.mark.parametrize(
    ("function", "asks"),
    [
        (None, True),
        ("aepo.llm.grading:math_reward", True),
        ("m:f, 0.2*aepo.llm.grading:math_reward", True),
        ("m:f", False),
        ("my.math_reward:score", False),
    ],
)
def test_a_box_is_asked_for_where_aepos_own_verifier_judges(function, asks):
    assert RewardSettings(function=function).asks_boxed == asks


def problem(question: str, **columns) -> Problem:
    return Problem(question=question, answer="x", row=1, columns={"question": question, **columns})


def test_a_jinja_file_has_the_rows_columns_and_the_question(tmp_path):
    path = tmp_path / "few.jinja"
    path.write_text("{% for s in shots %}with {{ s[0] }}: {{ s }}\n{% endfor %}with {{ letter }}:\n")
    prompt_of = prompter(None, str(path))
    assert prompt_of(problem("?", shots=["bread", "sun"], letter="k")) == "with b: bread\nwith s: sun\nwith k:"
    # A name that the row lacks is an error with the names that there are, and no empty text.
    with pytest.raises(DataError, match=r"few\.jinja fails \(UndefinedError: 'letter' .*question, shots"):
        prompt_of(problem("?", shots=[]))
    path.write_text("Q: {{ question }}")
    assert prompter(None, str(path))(Asked(question="1+1?")) == "Q: 1+1?"


@pytest.mark.parametrize(
    ("text", "told"),
    [(None, "no readable file"), ("{% if %}", "no Jinja template"), ("{{ ''.__class__.mro() }}", "fails")],
)
def test_a_jinja_file_that_cannot_be_used_is_named(tmp_path, text, told):
    path = tmp_path / "t.jinja"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=rf"{path}.*{told}|{told}.*{path}|{path} {told}"):
        prompter(None, str(path))(problem("?"))


def test_of_two_rows_with_one_question_both_are_asked_where_a_jinja_file_makes_two_prompts(tmp_path):
    rows = [{"question": "Say it.", "letter": letter, "answer": letter} for letter in "aba"]
    rows += [{"question": f"Say {i}.", "letter": "c", "answer": "c"} for i in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "t.j2").write_text("{{ question }} {{ letter }}:")
    data = DataSettings(train=str(tmp_path / "q.jsonl"), template=str(tmp_path / "t.j2"), held_out_problems=0)
    task, _ = math_task(data, RewardSettings(workers=1), byte_tokenizer(), seed=0)
    task.close()
    assert [task.text(one) for one in task.prompts[:3]] == ["Say it. a:", "Say it. b:", "Say 0. c:"]


def test_a_template_that_is_no_name_and_no_file_is_refused_with_the_names_whatever_else_is_set():
    with pytest.raises(
        SettingsError, match=r"data\.template: must be one of plain, raw, .*Jinja file.*got 'rawr'"
    ) as told:
        load(None, ["data.template=rawr", "data.instruction=Box it."])
    assert "did you mean 'raw'" in str(told.value) and "instruction" not in str(told.value)
    with pytest.raises(SettingsError, match="instruction needs template=chat, got template=raw"):
        load(None, ["data.template=raw", "data.instruction=Box it."])
