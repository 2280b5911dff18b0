"""Problems are read as publishers ship them; what cannot be read is named: file, row, column, cure."""

import json
import os
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import ROOT

from aepo.llm.questions.problems import PUBLISHED, DataError, Problem, distinct, load_problems

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = ROOT.parent / "shared" / "data" / "math"


def load(name: str, **options) -> list[tuple[str, str, int]]:
    return [(p.question, p.answer, p.row) for p in load_problems(str(FIXTURES / name), **options)]


def published(name: str) -> tuple[Problem, ...]:
    if not (SHARED / name).exists():
        pytest.skip(f"shared/data/math/{name} is not beside this checkout")
    return load_problems(str(SHARED / name))


def test_gsm8k_answers_are_what_follows_the_last_hashes_and_rows_are_lines():
    assert load("gsm8k_form.jsonl") == [
        ("Ann has 2 apples and buys 1,078 more. How many has she?", "1,080", 1),
        ("Spaced \u2028 out, {braces} kept?", "-3", 3),
    ]


def test_float_answers_lose_a_zero_fraction_and_columns_that_agree_are_one():
    assert load("amc_form.jsonl") == [("Half of 54?", "27", 1), ("Half of 3?", "1.5", 2)]


def test_integer_answers_become_text():
    assert load("aime_form.jsonl") == [("A fifth of 350?", "70", 1)]


def test_a_solution_gives_its_last_box():
    assert load("minerva_form.jsonl") == [("A half as a fraction?", r"\frac{1}{2}", 1)]


def test_a_list_of_one_answer_is_that_answer():
    assert load("olympiad_form.jsonl") == [("Which n?", "$2n$", 1)]


def test_an_answer_column_wins_over_a_solution():
    assert load("math_form.jsonl") == [("Sum?", "p - q", 1)]


def test_a_json_list_and_a_byte_order_mark_are_read():
    assert load("list_form.json") == [("1+1?", "2", 1), ("2+2?", "4", 2)]
    assert load("byte_order_mark.jsonl") == [("1+1?", "2", 1)]


def test_named_columns_are_read_whatever_their_name(tmp_path):
    path = tmp_path / "renamed.parquet"
    pd.DataFrame({"ask": ["1+1?"], "reply": ["2"], "my_solution": [r"\boxed{two}"]}).to_parquet(path)
    assert load_problems(str(path), question_column="ask", answer_column="reply")[0].answer == "2"
    assert load_problems(str(path), question_column="ask", answer_column="my_solution")[0].answer == "two"


MALFORMED = [
    ("bad_empty_answer.jsonl", ["row 2", "'answer'", "empty answer", "fill it in"]),
    ("bad_null_answer.jsonl", ["row 3", "'answer'", "empty answer"]),
    ("bad_hashes_only.jsonl", ["row 1", "'answer'", "empty answer", "####"]),
    ("bad_empty_list_answer.jsonl", ["row 1", "'final_answer'", "empty answer"]),
    ("bad_two_answers.jsonl", ["row 1", "'final_answer'", "list of 2 answers", "join"]),
    ("bad_object_answer.jsonl", ["row 1", "'answer'", "an object", "text or number"]),
    ("bad_boolean_answer.jsonl", ["row 1", "'answer'", "a truth value (True)"]),
    ("bad_infinite_answer.jsonl", ["row 1", "'answer'", "inf", "finite"]),
    ("bad_empty_question.jsonl", ["row 2", "'question'", "empty question"]),
    ("bad_question_type.jsonl", ["row 1", "'question'", "a list", "text"]),
    ("bad_unboxed_solution.jsonl", ["row 2", "'solution'", r"\boxed{...}", "answer_column"]),
    ("bad_empty_box.jsonl", ["row 1", "'solution'", "empty answer"]),
    ("bad_json_line.jsonl", ["row 3", "not valid JSON", "one JSON object a line"]),
    ("bad_two_objects_a_line.jsonl", ["row 1", "not valid JSON", "Extra data"]),
    ("bad_row_type.jsonl", ["row 2", "a list", "expected an object"]),
    ("bad_missing_key.jsonl", ["row 2", "no column 'answer'", "question, anwser"]),
    (
        "bad_no_question_column.jsonl",
        ["found Problems, answer", "question_column", "did you mean 'Problems'"],
    ),
    ("bad_no_answer_column.jsonl", ["found question, reply", "answer_column"]),
    ("bad_differing_columns.jsonl", ["row 2", "'question' and 'problem' differ", "question_column"]),
    ("bad_differing_answers.jsonl", ["row 1", "'answer' and 'final_answer' differ", "answer_column"]),
    ("bad_empty.jsonl", ["no rows"]),
    ("bad_blank.json", ["no rows"]),
    ("bad_empty_list.json", ["no rows"]),
    ("bad_object.json", ["an object", "expected a list"]),
    ("bad_json.json", ["not valid JSON"]),
    ("bad_latin1.jsonl", ["row 2", "0xe9", "offset 53", "not UTF-8"]),
    ("bad_utf16.jsonl", ["row 1", "0xff", "not UTF-8"]),
    ("bad_table.parquet", ["not a readable parquet file"]),
    ("bad_suffix.csv", ["unsupported suffix '.csv'", ".jsonl, .json, .parquet"]),
    ("gsm8k_from.jsonl", ["no such file", "gsm8k_form.jsonl"]),
    ("", ["a folder", "name one file"]),
]


@pytest.mark.parametrize(("name", "named"), MALFORMED)
def test_a_malformed_source_is_named_with_its_cure(name, named):
    with pytest.raises(DataError) as error:
        load(name)
    assert all(part in str(error.value) for part in [*named, str(FIXTURES / name)]), str(error.value)


def test_every_malformed_fixture_is_tried():
    assert {path.name for path in FIXTURES.glob("bad_*")} == {name for name, _ in MALFORMED if "bad" in name}


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(DataError, match=r"no column 'Anwser' \(answer_column\).*did you mean 'answer'"):
        load("gsm8k_form.jsonl", answer_column="Anwser")
    with pytest.raises(DataError, match=r"no column 'text' \(question_column\), found question, answer$"):
        load("gsm8k_form.jsonl", question_column="text")


def test_json_nested_past_the_parsers_depth_is_malformed(tmp_path):
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(DataError, match="row 1: not valid JSON"):
        load_problems(str(tmp_path / "deep.jsonl"))


def test_a_truncated_parquet_file_is_named(tmp_path):
    whole = tmp_path / "whole.parquet"
    pd.DataFrame({"question": ["1+1?"] * 100, "answer": ["2"] * 100}).to_parquet(whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut\.parquet: not a readable parquet file"):
        load_problems(str(cut))


def test_a_parquet_row_without_an_answer_is_named(tmp_path):
    path = tmp_path / "gap.parquet"
    pd.DataFrame({"problem": ["1+1?", "2+2?"], "answer": ["2", None]}).to_parquet(path)
    with pytest.raises(DataError, match="row 2, column 'answer': empty answer"):
        load_problems(str(path))


@pytest.mark.parametrize("source", ["./missing", "/missing/set", "a/b/c", "missing.json", "missing.csv", "~/none"])
def test_what_looks_like_a_path_never_goes_to_the_hub(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # importing it would raise another error
    with pytest.raises(DataError, match="no such file"):
        load_problems(source)


def test_an_empty_source_is_named():
    with pytest.raises(DataError, match="an empty source"):
        load_problems(" ")


def test_a_hub_id_without_network_is_named_with_the_cure():
    script = "from aepo.llm.questions.problems import load_problems; load_problems('nobody/nothing:main', split='test')"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode and last.startswith(f"{DataError.__module__}.DataError: 'nobody/nothing:main'")
    assert "split 'test'" in last and "network" in last and ".jsonl, .json, .parquet" in last


def test_a_hub_dataset_goes_the_same_way_as_a_file(monkeypatch):
    import datasets

    asked = []
    rows = [{"question": "1+1?", "answer": "One more.\n#### 2"}, {"question": "2+2?", "answer": "#### 4"}]

    def load_dataset(*arguments, **options):  # the network's part; what it returns is a real dataset
        asked.append((arguments, options))
        return datasets.Dataset.from_list(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [(p.answer, p.row) for p in load_problems("openai/gsm8k:main", split="test")] == [
        ("2", 1),
        ("4", 2),
    ]
    assert [p.answer for p in load_problems("owner/name")] == ["2", "4"]
    assert asked == [
        (("openai/gsm8k", "main"), {"split": "test"}),
        (("owner/name", None), {"split": "train"}),
    ]


def test_a_missing_datasets_package_is_named_with_the_cure(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"'nobody/nothing'.*package datasets.*aepo-rl\[llm\]"):
        load_problems("nobody/nothing")


def test_nested_columns_are_found_and_can_be_named(tmp_path):
    # The form of BytedTsinghua-SIA/DAPO-Math-17k.
    row = {
        "data_source": "math_dapo",
        "prompt": [{"content": "1+1?", "role": "user"}],
        "reward_model": {"ground_truth": "2", "style": "rule"},
    }
    path = tmp_path / "nested.parquet"
    pd.DataFrame([row, row]).to_parquet(path)
    assert [(p.question, p.answer) for p in load_problems(str(path))] == [("1+1?", "2")] * 2
    named = load_problems(str(path), question_column="prompt[0].role", answer_column="reward_model.style")
    assert (named[0].question, named[0].answer) == ("user", "rule")


@pytest.mark.parametrize(
    "column", ["prompt[1].content", "prompt.content", "reward_model[0]", "reward_model.truth", "", "source[0]", "[0]"]
)
def test_a_nested_column_that_is_not_there_is_named(tmp_path, column):
    row = {"prompt": [{"content": "1+1?"}], "reward_model": {"ground_truth": "2"}, "source": "x"}
    (tmp_path / "nested.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match=r"no column .*\(answer_column\), found prompt, reward_model, source"):
        load_problems(str(tmp_path / "nested.json"), answer_column=column)


def test_a_plain_column_whose_name_has_a_dot_wins(tmp_path):
    (tmp_path / "dotted.json").write_text('[{"question": "1+1?", "a.b": "2", "a": {"b": "3"}}]')
    assert load_problems(str(tmp_path / "dotted.json"), answer_column="a.b")[0].answer == "2"


def test_a_row_without_the_nested_answer_is_named(tmp_path):
    rows = [{"prompt": "1+1?", "reward_model": {"ground_truth": "2"}}, {"prompt": "2+2?", "reward_model": {}}]
    (tmp_path / "gap.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"row 2: no column 'reward_model.ground_truth', found prompt, reward_model"):
        load_problems(str(tmp_path / "gap.json"))


# What each publisher's rows look like; the hub's own reader reads them from a folder of that name.
HUB_ROWS = {
    "dapo_math_17k": (
        {"prompt": "1+1?", "solution": "2", "source_prompt": [{"content": "Solve: 1+1?", "role": "user"}],
         "reward_model": {"ground_truth": "2", "style": "rule"}},
        "2",
    ),
    "gsm8k": ({"question": "1+1?", "answer": "One more.\n#### 2"}, "2"),
    "math": ({"problem": "1+1?", "level": "Level 1", "solution": r"It is $\boxed{2}$.", "type": "Algebra"}, "2"),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_is_read_by_its_name(name, tmp_path, monkeypatch):
    import datasets

    row, answer = HUB_ROWS[name]
    folder, _, config = PUBLISHED[name].source.partition(":")
    (tmp_path / folder).mkdir(parents=True)
    pd.DataFrame([row] * 2).to_parquet(tmp_path / folder / "rows.parquet")
    (tmp_path / folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: {config}\n  data_files:\n  - split: train\n    path: rows.parquet\n"
        "- config_name: other\n  data_files: missing.parquet\n---\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    assert [(p.question, p.answer, p.row) for p in load_problems(name)] == [("1+1?", answer, 1), ("1+1?", answer, 2)]
    # A file as the publisher ships it needs no name.
    assert load_problems(f"{folder}/rows.parquet")[0].answer == answer


def test_a_published_set_without_network_is_named_with_its_id(monkeypatch):
    import datasets

    def offline(*arguments, **options):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(DataError, match=r"openai/gsm8k:main.*split 'train'.*no route to the hub.*network"):
        load_problems("gsm8k")


def problem(question: str, answer: str, row: int = 1) -> Problem:
    return Problem(question=question, answer=answer, row=row)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12"))))
def test_of_each_question_the_first_stays_and_the_rest_is_counted(pairs):
    problems = [problem(q, a, row) for row, (q, a) in enumerate(pairs, 1)]
    found = distinct(problems)
    assert len(found.problems) + found.repeated + found.contradicted == len(problems)
    assert [p.question for p in found.problems] == list(dict.fromkeys(q for q, _ in pairs))
    first = dict(reversed(pairs))
    assert all(p.answer == first[p.question] and p is problems[p.row - 1] for p in found.problems)
    assert found.contradicted == sum(a != first[q] for q, a in pairs)
    assert distinct(found.problems).problems == found.problems


def test_the_authors_file_repeats_650_problems_and_contradicts_itself_in_12():
    found = distinct(published("dapo_math_17k.parquet"))
    assert (len(found.problems), found.repeated, found.contradicted) == (17255, 650, 12)


@pytest.mark.parametrize(
    ("name", "rows", "first", "last"),
    [
        ("gsm8k_train.jsonl", 7473, "72", "50"),
        ("gsm8k.jsonl", 1319, "18", "14"),
        ("dapo_math_17k.parquet", 17917, "34", "9"),
        ("aime24.jsonl", 30, "204", "902"),
        ("aime25.jsonl", 30, "70", "240"),
        ("amc23.jsonl", 40, "27", "8"),
        ("math500.jsonl", 500, r"\left( 3, \frac{\pi}{2} \right)", r"106^\circ"),
        ("minerva_math.jsonl", 272, "1.6", "10.1"),
        ("olympiadbench.jsonl", 675, "2", "11"),
    ],
)
def test_published_sets_load_whole_and_without_an_empty_text(name, rows, first, last):
    problems = published(name)
    assert [p.row for p in problems] == list(range(1, rows + 1))
    assert all(p.question.strip() and p.answer.strip() for p in problems)
    assert (problems[0].answer, problems[-1].answer) == (first, last)
    assert not any("####" in p.answer or r"\boxed" in p.answer for p in problems)


# Numbers of a table, and what JSON can spell.


def column_of(values: list, arrow_type: pa.DataType, path: Path) -> list[str]:
    """The answers of a parquet file whose column of answers has this type."""
    table = pa.table({"question": [f"{i}?" for i in range(len(values))], "answer": pa.array(values, arrow_type)})
    pq.write_table(table, path)
    return [p.answer for p in load_problems(str(path))]


@pytest.mark.parametrize(
    ("arrow_type", "values", "answers"),
    [
        (pa.float32(), [0.1, 5.0, -2.5, 16777216.0, 1e-7], ["0.1", "5", "-2.5", "16777216", "0.0000001"]),
        (pa.float16(), np.array([0.1, 5.0, 2048.0], dtype=np.float16), ["0.1", "5", "2048"]),
        (pa.float64(), [0.1, 5.0, 1e23, -0.0], ["0.1", "5", "1" + "0" * 23, "0"]),
        (pa.decimal128(10, 2), [Decimal("2.50"), Decimal("5.00"), Decimal("-0.01")], ["2.5", "5", "-0.01"]),
        (pa.decimal256(60, 1), [Decimal("1" * 50 + ".5")], ["1" * 50 + ".5"]),
        (pa.int8(), [5, -5], ["5", "-5"]),
        (pa.uint64(), [2**64 - 1], [str(2**64 - 1)]),
        (pa.list_(pa.float32()), [[0.1], [5.0]], ["0.1", "5"]),
        (pa.list_(pa.float32(), 1), [[0.1], [5.0]], ["0.1", "5"]),
        (pa.dictionary(pa.int8(), pa.string()), ["7", "8"], ["7", "8"]),
    ],
)
def test_numbers_of_a_table_are_the_ones_that_were_written(tmp_path, arrow_type, values, answers):
    assert column_of(values, arrow_type, tmp_path / "q.parquet") == answers


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float32_in_a_table_is_its_shortest_decimal_wherever_it_stands(tmp_path_factory, number):
    path = tmp_path_factory.mktemp("q") / "q.parquet"
    inside = pa.struct([("ground_truth", pa.list_(pa.float32())), ("style", pa.string())])
    row = {"ground_truth": [number], "style": "rule"}
    pq.write_table(pa.table({"question": ["1?"], "reward_model": pa.array([row], inside)}), path)
    (problem,) = load_problems(str(path))
    assert np.float32(problem.answer) == np.float32(number) and "e" not in problem.answer
    # No other text of as few digits is that number.
    digits = str(np.float32(number)).split("e")[0].replace(".", "").strip("-0")
    assert problem.answer.replace(".", "").strip("-0") == digits.strip("0")


@pytest.mark.parametrize(
    ("arrow_type", "value", "said"),
    [
        (pa.bool_(), True, "a truth value"),
        (pa.float32(), float("nan"), "the answer is nan"),
        (pa.float32(), float("inf"), "the answer is inf"),
        (pa.float16(), None, "empty answer"),
        (pa.binary(), b"5", "a value of type bytes"),
        (pa.date32(), date(2024, 5, 1), "a value of type date"),
    ],
)
def test_what_is_no_number_is_named_with_its_row(tmp_path, arrow_type, value, said):
    with pytest.raises(DataError, match=rf"q\.parquet, row 1, column 'answer': .*{said}"):
        column_of([value], arrow_type, tmp_path / "q.parquet")


def test_a_hub_datasets_short_floats_are_as_in_a_file(monkeypatch):
    import datasets

    features = datasets.Features({"question": datasets.Value("string"), "answer": datasets.Value("float32")})
    rows = datasets.Dataset.from_list([{"question": "1/10?", "answer": 0.1}], features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows)
    assert load_problems("owner/name")[0].answer == "0.1"


def test_a_key_or_column_that_stands_twice_is_named(tmp_path):
    (tmp_path / "q.jsonl").write_text(
        '{"question": "1?", "answer": "1"}\n{"question": "a", "answer": "1", "question": "b"}\n'
    )
    with pytest.raises(DataError, match=r"q\.jsonl, row 2: the key 'question' stands twice"):
        load_problems(str(tmp_path / "q.jsonl"))
    pq.write_table(pa.Table.from_arrays([pa.array(["1?"])] * 2, names=["question", "question"]), tmp_path / "q.parquet")
    with pytest.raises(DataError, match=r"q\.parquet: two columns 'question'"):
        load_problems(str(tmp_path / "q.parquet"))


def test_the_folder_of_a_table_is_no_column_of_it(tmp_path):
    folder = tmp_path / "answer=5"
    folder.mkdir()
    pq.write_table(pa.table({"question": ["1+1?"], "answer": ["2"]}), folder / "q.parquet")
    assert load_problems(str(folder / "q.parquet"))[0].answer == "2"


@pytest.mark.parametrize("column", ["question", "answer"])
def test_half_of_a_surrogate_pair_is_named_with_row_and_column(tmp_path, column):
    row = {"question": "1?", "answer": "1"}
    (tmp_path / "q.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, column: "\ud83d x"}) + "\n")
    with pytest.raises(DataError, match=rf"q\.jsonl, row 2, column '{column}': the character '.ud83d' at 0 is half"):
        load_problems(str(tmp_path / "q.jsonl"))
    (tmp_path / "q.jsonl").write_text(json.dumps({**row, column: "\ud83d\ude00"}) + "\n")
    assert getattr(load_problems(str(tmp_path / "q.jsonl"))[0], column) == "😀"


def test_a_message_of_data_stays_on_its_line_and_commands_no_terminal(tmp_path):
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": "1?", "answer": {"a\n\x1b[2J": 1}}) + "\n")
    with pytest.raises(DataError) as error:
        load_problems(str(tmp_path / "q.jsonl"))
    assert str(error.value).isprintable()


def test_columns_are_kept_where_they_are_asked_for(tmp_path):
    rows = [{"question": "1?", "answer": "1", "level": 3, "tags": ["a"]}, {"question": "2?", "answer": "2", "tags": []}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = str(tmp_path / "q.jsonl")
    assert [p.columns for p in load_problems(source)] == [{}, {}]
    assert [p.columns for p in load_problems(source, with_columns=True)] == rows
