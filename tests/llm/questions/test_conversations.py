"""A conversation asks its last user message, whatever stands before it; what cannot be understood is named by place."""

import json
import logging

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import chatting

from aepo.llm.evaluation import suite
from aepo.llm.questions.conversations import Message, asked
from aepo.llm.questions.files import DataError
from aepo.llm.questions.problems import MANY_ROWS, check_variety, load_problems
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.task import math_task
from aepo.llm.questions.templates import prompter
from aepo.llm.settings import DataSettings, RewardSettings

SYSTEM = {"role": "system", "content": "You solve math."}
USER = {"role": "user", "content": " 0+1? "}
ANSWER = {"role": "assistant", "content": "One."}
EARLIER = {"role": "user", "content": "Hello"}

texts = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and text.isprintable())
turns = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), texts), max_size=4)


def write(path, rows):
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def row(conversation, i=1):
    return {"prompt": conversation, "reward_model": {"ground_truth": str(i)}}


@given(st.none() | texts, turns, texts)
def test_the_last_user_message_is_the_question_whatever_is_before_it(system, before, question):
    messages = [("system", system)] if system is not None else []
    messages += before
    said = [{"role": role, "content": content} for role, content in [*messages, ("user", question)]]
    expected = tuple(Message(role=role, content=content) for role, content in messages)
    # As a list, and as what a column of texts holds of it.
    for value in (said, json.dumps(said), json.dumps([dict(reversed(one.items())) for one in said], indent=1)):
        found = asked(value, place="f, row 1", field="prompt")
        assert (found.question, found.before) == (question.strip(), expected)
        assert (found.has_system, found.has_turns) == (system is not None, bool(before))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_file_with_system_messages_has_the_users_questions(tmp_path, suffix, as_text):
    conversations = [[SYSTEM, {"role": "user", "content": f"{i}+1?"}] for i in range(8)]
    rows = [row(json.dumps(c) if as_text else c, i + 1) for i, c in enumerate(conversations)]
    source = write(tmp_path / f"q{suffix}", rows)
    assert [(p.question, p.answer) for p in load_problems(source)] == [(f"{i}+1?", str(i + 1)) for i in range(8)]


REFUSED = [
    ([SYSTEM, USER, ANSWER], "prompt[2].role", "ends with 'assistant'"),
    ([SYSTEM], "prompt[0].role", "ends with 'system'"),
    ([{**USER, "role": "human"}], "prompt[0].role", "'human'"),
    ([{**USER, "role": "User"}], "prompt[0].role", "did you mean 'user'"),
    ([{**USER, "role": None}], "prompt[0].role", "null"),
    ([{**USER, "role": ["user"]}], "prompt[0].role", "a list"),
    ([{"role": "tool", "content": "3"}, USER], "prompt[0].role", "'tool'"),
    ([SYSTEM, {"role": "user"}], "prompt[1].content", "missing"),
    ([{"content": "1+1?"}], "prompt[0].role", "missing"),
    ([SYSTEM, {**USER, "content": None}], "prompt[1].content", "null"),
    ([SYSTEM, {**USER, "content": " \n"}], "prompt[1].content", "empty"),
    ([SYSTEM, {**USER, "content": 7}], "prompt[1].content", "type int"),
    ([{**USER, "content": [{"type": "text", "text": "1+1?"}]}], "prompt[0].content", "a list"),
    ([{**USER, "content": [{"type": "image"}, {"type": "text", "text": "?"}]}], "prompt[0].content", "images"),
    ([{**USER, "images": ["a.png"]}], "prompt[0].images", "a list"),
    ([{**ANSWER, "tool_calls": [{"name": "f"}]}, USER], "prompt[0].tool_calls", "a list"),
    ([USER, SYSTEM, USER], "prompt[1].role", "a system message behind another"),
    ([{"from": "human", "value": "1+1?"}], "prompt[0]", "ShareGPT"),
    ([USER, "1+1?"], "prompt[1]", "a text ('1+1?')"),
    ([SYSTEM, {**USER, "content": "1+1\ud800?"}], "prompt[1].content", "surrogate"),
    ([], "prompt", "a list ([])"),
    (["1+1?"], "prompt", "a list"),
    (USER, "prompt", "an object"),
    ({"messages": [USER]}, "prompt", "an object"),
    ("[{'role': 'user', 'content': '1+1?'}]", "prompt", "not valid JSON"),
    ('[{"role": "user", "content": "1+', "prompt", "not valid JSON"),
    ('[{"from": "human", "value": "1+1?"}]', "prompt[0]", "ShareGPT"),
    ("half \udc00", "prompt", "surrogate"),
]


@pytest.mark.parametrize(("conversation", "field", "said"), REFUSED)
def test_what_is_no_conversation_is_refused_with_row_and_field(tmp_path, conversation, field, said):
    source = write(tmp_path / "q.jsonl", [row([USER]), row(conversation)])
    with pytest.raises(DataError) as error:
        load_problems(source)
    message = str(error.value)
    assert f"{source}, row 2" in message and said in message and "\n" not in message
    assert f", {field}: " in message or f"column {field!r}: " in message


def test_keys_that_hold_nothing_are_those_of_a_tables_other_rows(tmp_path):
    rows = [row([SYSTEM, {**USER, "tool_calls": None, "name": "Ann"}]), row([{**USER, "images": []}])]
    assert [p.question for p in load_problems(write(tmp_path / "q.parquet", rows))] == ["0+1?"] * 2


@pytest.mark.parametrize("question", ['{"from": 1, "to": 2} is an edge?', "[1, 2] + [3]?", '{"a": 1}["a"]?'])
def test_a_question_that_begins_like_json_is_a_question(question):
    assert asked(question, place="f, row 1", field="question").question == question


def test_columns_that_say_the_same_in_two_forms_are_one_and_others_are_named(tmp_path):
    both = {"question": "0+1?", "prompt": [USER], "answer": "1"}
    assert load_problems(write(tmp_path / "same.jsonl", [both] * 2))[0].question == "0+1?"
    with pytest.raises(DataError, match="row 2: columns 'question' and 'prompt' differ"):
        load_problems(write(tmp_path / "other.jsonl", [both, {**both, "prompt": [SYSTEM, USER]}]))


# What a template shows of a conversation.


def test_chat_shows_the_whole_conversation_and_the_settings_fill_in_where_it_says_nothing():
    def of(*messages):
        return asked(list(messages), place="f, row 1", field="prompt")

    chat = prompter(chatting("Default."), "chat", instruction=" Box it.")
    end = "<|im_start|>user\n0+1? Box it.<|im_end|>\n<|im_start|>assistant\n"
    assert chat(of(SYSTEM, USER)) == "<|im_start|>system\nYou solve math.<|im_end|>\n" + end
    earlier = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nOne.<|im_end|>\n"
    assert chat(of(EARLIER, ANSWER, USER)) == "<|im_start|>system\nDefault.<|im_end|>\n" + earlier + end
    asked_so = prompter(chatting("Default."), "chat", instruction=" Box it.", system_prompt="Be brief.")
    assert asked_so(of(EARLIER, ANSWER, USER)) == "<|im_start|>system\nBe brief.<|im_end|>\n" + earlier + end
    with pytest.raises(DataError, match="has a system message, and system_prompt is set too"):
        asked_so(of(SYSTEM, USER))


def task_of(tmp_path, conversations, tokenizer, **data):
    source = write(tmp_path / "q.jsonl", [row(c, i + 1) for i, c in enumerate(conversations)])
    settings = DataSettings(train=source, held_out_problems=0, **data)
    task, _ = math_task(settings, RewardSettings(workers=1), tokenizer, seed=0)
    task.close()
    return task


def test_a_named_template_asks_the_question_and_says_that_system_messages_give_way(tmp_path, caplog):
    conversations = [[SYSTEM, {"role": "user", "content": f"{i}+1?"}] for i in range(8)]
    with caplog.at_level(logging.INFO, logger="aepo"):
        # The last is another conversation, but under this template the same prompt.
        task = task_of(tmp_path, [*conversations, [USER]], byte_tokenizer())
    assert [task.text(p).splitlines()[0] for p in task.prompts] == [f"Question: {i}+1?" for i in range(8)]
    assert "1 questions that were there before with another answer" in caplog.text
    assert "8 of 8 questions bring a system message, in the place of which the template plain" in caplog.text
    both = task_of(tmp_path, [*conversations, [USER]], chatting("Default."), template="chat")
    assert len(both.prompts) == 9


def test_a_named_template_has_no_room_for_earlier_turns(tmp_path):
    with pytest.raises(DataError, match=r"q\.jsonl, row 2: the question stands behind 2 other messages.*'plain'.*chat"):
        task_of(tmp_path, [[USER], [EARLIER, ANSWER, USER]], byte_tokenizer())


REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
SILENT = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
PARTS = "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (REFUSES, "refuses a conversation of system, user .*System role not supported"),
        (SILENT, "leaves out or changes the system message 'You solve math.'"),
        (PARTS, "leaves out or changes the system message"),
    ],
)
def test_a_chat_template_that_cannot_show_the_conversation_is_named_with_the_row(tmp_path, template, said):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=rf"q\.jsonl, row 1: the tokenizer's chat template {said}"):
        task_of(tmp_path, [[SYSTEM, USER]], tokenizer, template="chat")


def test_a_text_outside_a_closed_vocabulary_is_named_with_its_row(tmp_path):
    from aepo.llm.questions.small_tokenizers import word_tokenizer

    words = word_tokenizer("Question: 0+1? Put your final answer within \\boxed{}. Answer:".split())
    assert len(task_of(tmp_path, ["0+1?"], words).prompts) == 1
    with pytest.raises(DataError, match=r"q\.jsonl, row 2: the tokenizer of the model cannot encode the question"):
        task_of(tmp_path, ["0+1?", "1+1?"], words)


def test_evaluation_reads_conversations_alike(tmp_path):
    rows = [{"problem": [SYSTEM, {"role": "user", "content": f"{i}+1?"}], "answer": i + 1} for i in range(30)]
    write(tmp_path / "aime24.jsonl", rows)
    found = suite.load("aime24", tmp_path)
    assert [q.question for q in found] == [f"{i}+1?" for i in range(30)]
    assert {q.before for q in found} == {(Message(**SYSTEM),)}
    write(tmp_path / "aime24.jsonl", [*rows[:-1], {**rows[0], "problem": [USER, ANSWER]}])
    with pytest.raises(DataError, match=r"aime24\.jsonl, row 30, problem\[1\]\.role: the conversation ends with"):
        suite.load("aime24", tmp_path)


# A file of one question.


@given(st.lists(st.sampled_from("ab"), min_size=1, max_size=12))
def test_one_question_in_most_of_the_rows_is_an_error_and_an_even_repetition_is_none(questions):
    problems = [asked(q, place="f", field="question") for q in questions]
    most = max(questions.count("a"), questions.count("b"))
    if most >= MANY_ROWS and most > len(questions) / 2:
        with pytest.raises(DataError, match=rf"f: {most} of {len(questions)} rows ask the same question, '[ab]'; cure"):
            check_variety(problems, "f", cure="cure")
    else:
        check_variety(problems, "f", cure="cure")


def test_a_column_that_says_the_same_in_every_row_is_shown(tmp_path):
    rows = [{"prompt": "Solve the problem below.", "puzzle": f"{i}+1?", "answer": str(i + 1)} for i in range(8)]
    source = write(tmp_path / "q.jsonl", rows)
    with pytest.raises(
        DataError, match=r"8 of 8 rows ask the same question, 'Solve the problem below\.'.*not 'prompt'"
    ):
        load_problems(source)
    assert len(load_problems(source, question_column="puzzle")) == 8
    # Each question a hundred times, as DAPO's authors ship them.
    even = [{"question": f"{i % 17}+1?", "answer": str(i % 17 + 1)} for i in range(1700)]
    assert len(load_problems(write(tmp_path / "even.jsonl", even))) == 1700
