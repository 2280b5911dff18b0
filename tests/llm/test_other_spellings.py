"""Relatives of the faults that users of trainers report: other spellings of the same data, numbers and functions."""

import json
import os
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aepo.errors import UNUSABLE, AepoError
from aepo.llm import train
from aepo.llm.grading.pool import GradingPool
from aepo.llm.grading.rewards import judged, load_reward, weighed
from aepo.llm.questions.end_tokens import end_ids, published_ends
from aepo.llm.questions.files import DataError
from aepo.llm.questions.problems import load_problems
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.settings import SettingsError, parse
from aepo.llm.settings.model_source import ModelSource, located
from aepo.number_text import vanishes

USER = {"role": "user", "content": "0+1?"}
SYSTEM = {"role": "system", "content": "You solve math."}


def one_row(folder, question='"x"', answer='"1"'):
    path = folder / "data.jsonl"
    path.write_text(f'{{"prompt": {question}, "answer": {answer}}}\n')
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([{"name": "bob", **SYSTEM}, {"id": 1, **USER}]),
        json.dumps(json.dumps([SYSTEM, USER])),
        "\ufeff" + json.dumps([SYSTEM, USER]),
        json.dumps([SYSTEM, {"weight": 1, "content": "0+1?", "role": "user"}], indent=1),
    ],
)
def test_a_conversation_as_json_is_read_by_role_however_it_is_written(tmp_path, text):
    (problem,) = load_problems(one_row(tmp_path, json.dumps(text)))
    assert problem.question == "0+1?" and problem.before[0].content == "You solve math."


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"messages": [SYSTEM, USER]}),
        json.dumps([[SYSTEM, USER]]),
        json.dumps([{"Role": "user", "Content": "x"}]),
        repr([{"name": "bob", **USER}]),
        "array([{'content': 'x', 'role': 'user'}], dtype=object)",
    ],
)
def test_what_holds_messages_and_is_no_conversation_is_never_asked_as_a_text(tmp_path, text):
    with pytest.raises(DataError, match=r"row 1, .*prompt"):
        load_problems(one_row(tmp_path, json.dumps(text)))


def test_texts_in_brackets_stay_questions(tmp_path):
    for text in ('[asy] draw((0,0)); [/asy] What is "x": 1?', '{"a": 1} has how many keys?', "[1, 2] + [3]?"):
        (problem,) = load_problems(one_row(tmp_path, json.dumps(text)))
        assert problem.question == text


@pytest.mark.parametrize("key", ["image_url", "file", "attachments"])
def test_a_message_that_is_more_than_its_text_is_refused(tmp_path, key):
    with pytest.raises(DataError, match=rf"prompt\[0\].{key}"):
        load_problems(one_row(tmp_path, json.dumps([{**USER, key: "a"}])))


@pytest.mark.parametrize(
    "typed", ["12345678901234567890.5", "9007199254740993.0", "3.14159265358979323846", "0.1000000000000000000001"]
)
def test_numbers_in_json_keep_every_digit(tmp_path, typed):
    (problem,) = load_problems(one_row(tmp_path, answer=typed))
    assert Decimal(problem.answer) == Decimal(typed)


@pytest.mark.parametrize("typed", ["1e-400", "-2E-99999999999999999999"])
def test_a_number_that_would_become_zero_is_refused(tmp_path, typed):
    assert vanishes(typed)
    with pytest.raises(DataError, match=r"row 1: the number .* is too small"):
        load_problems(one_row(tmp_path, answer=typed))
    for option in ("seed", "train.zero_stage", "train.weight_decay"):
        with pytest.raises(SettingsError, match=f"{option}: .*too small"):
            parse([f"--{option}={typed}"])
    with pytest.raises(ValueError, match="weight of 'm:f'"):
        weighed(f"{typed}*m:f")


@pytest.mark.parametrize("typed", ["0", "-0.0", "0e-400", "5e-324"])
def test_zero_and_the_smallest_number_do_not_vanish(typed):
    assert not vanishes(typed)


def test_a_whole_number_with_a_point_is_exactly_that_number():
    assert parse(["--seed=9007199254740993.0"]).settings.seed == 9007199254740993
    assert parse(["--train.lr=1e23"]).settings.train.lr == 1e23


def test_short_floats_in_views_and_maps_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "d.parquet"
    kinds = {"answer": pa.list_view(pa.float32()), "m": pa.map_(pa.string(), pa.float32())}
    table = {"question": pa.array(["x"]), "answer": pa.array([[0.1]], kinds["answer"])}
    pq.write_table(pa.table(table | {"m": pa.array([[("a", 0.1)]], kinds["m"])}), path)
    (problem,) = load_problems(str(path), with_columns=True)
    assert problem.answer == "0.1" and problem.columns["m"] == [("a", 0.1)]


def test_blanks_inside_of_a_question_make_no_other_question_of_it(tmp_path):
    path = tmp_path / "d.jsonl"
    rows = [
        {"question": f"same{blank}question?", "answer": str(i)}
        for i, blank in enumerate([" ", "  ", "\n", "\t", " \t"])
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="5 of 5 rows ask the same question"):
        load_problems(str(path))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path, suffix):
    os.mkfifo(tmp_path / f"pipe.{suffix}")
    with pytest.raises(DataError, match="no regular file"):
        load_problems(str(tmp_path / f"pipe.{suffix}"))


@pytest.mark.parametrize("path", ["~nobody-of-that-name/x.jsonl", "a/" + "x" * 300 + ".jsonl"])
def test_paths_that_no_disk_has_are_no_such_file(path):
    with pytest.raises(DataError, match="no such file"):
        load_problems(path)


@pytest.mark.parametrize("option", ["--config=" + "x" * 300, "--model.path=~nobody-of-that-name/m"])
def test_names_that_cannot_be_are_one_line_of_the_command(option, tmp_path, capsys):
    assert train.main([option, f"--out={tmp_path / 'run'}"]) == UNUSABLE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("field", ["out", "data.train", "method.name", "warm_start.cache"])
def test_null_for_what_must_be_there_says_so(field):
    with pytest.raises(SettingsError, match=f"{field}: must name something, and null names nothing; leave the option"):
        parse([f"--{field}=null"])


MODULES = {
    "import sys; sys.exit(3)": "SystemExit: 3",
    "import argparse; argparse.ArgumentParser().parse_args(['--x'])": "SystemExit: 2",
    'raise ImportError("first\\nsecond")': "ImportError: first second",
    "def __getattr__(name): raise RuntimeError('made\\nlate')": "cannot be had: RuntimeError: made late",
    "async def f(response, answer): return 1.0": "is async or yields",
    "def f(response, answer): yield 1.0": "is async or yields",
    "class C:\n async def __call__(self, response, answer): return 1.0\nf = C()": "is async or yields",
}


@pytest.mark.parametrize("body", MODULES)
def test_reward_modules_that_end_or_cannot_give_a_number_are_one_line(tmp_path, monkeypatch, body):
    name = f"reward_module_{list(MODULES).index(body)}"
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=MODULES[body]) as told:
        load_reward(f"{name}:f")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("ends", ["raise RuntimeError('only in\\nworkers')", "sys.exit(4)", "import os; os._exit(5)"])
def test_a_reward_that_only_this_process_can_import_is_one_line_with_its_code(tmp_path, monkeypatch, ends):
    name = f"only_here_{len(ends)}"
    (tmp_path / f"{name}.py").write_text(
        f"import os, sys\nif os.getpid() != {os.getpid()}:\n    {ends}\ndef f(response, answer): return 1.0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with GradingPool(load_reward(f"{name}:f"), workers=1, deadline_seconds=1.0) as pool:
        with pytest.raises(AepoError) as told:
            pool.grade([("a", "b")])
    assert told.value.exit_code == UNUSABLE and "\n" not in str(told.value)


def test_an_exception_without_a_text_costs_its_item_only():
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError

    def reward(response, answer):
        raise SilentError

    assert judged(reward, "", "").reason == "error: SilentError"


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    return folder


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"eos_token": "</nowhere>"}, "its end token '</nowhere>' is not in the vocabulary"),
        ({"model_max_length": "x"}, "model_max_length in its tokenizer_config.json must be a number, got 'x'"),
    ],
)
def test_a_tokenizer_whose_end_or_length_is_none_is_refused(tokenizer_folder, tmp_path, changes, told):
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_text((tokenizer_folder / name).read_text())
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    source = ModelSource(option="model.path", typed="m", place=str(tmp_path))
    assert source.tokenizer().eos_token == settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(SettingsError) as error:
        source.tokenizer()
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_an_index_that_names_no_possible_file_is_refused(tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(SettingsError, match="which is not there"):
        located(str(tmp_path))


@pytest.mark.parametrize("found", [-1, 10**30, [1, -2]])
def test_end_tokens_that_are_no_ids_are_refused(tmp_path, found):
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": found}))
    with pytest.raises(DataError, match="eos_token_id must be the id of a token"):
        published_ends(str(tmp_path))


@pytest.mark.parametrize("template", ["{{ raise_exception('no answers') }}", "<eos>{{ messages[0].content }}"])
def test_a_chat_template_that_shows_no_answers_closes_no_turn(template):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    assert end_ids(tokenizer, "chat", ends="turn") == (tokenizer.eos_token_id,)
