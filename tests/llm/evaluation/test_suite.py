"""The seven benchmarks as their publishers ship them: read whole, checked before anything is generated."""

import json
import random
import re

import pytest
from running import ROOT

from aepo.llm.evaluation import suite
from aepo.llm.evaluation.self_check import main as self_check_main
from aepo.llm.evaluation.self_check import self_check
from aepo.llm.evaluation.suite import BENCHMARKS, CORRECTIONS, Question, download, load
from aepo.llm.grading.benchmark_check import check
from aepo.llm.grading.pool import GradingPool
from aepo.llm.grading.reference import Reference
from aepo.llm.questions.files import DataError

SHARED = ROOT.parent / "shared" / "data" / "math"


def published(name: str) -> tuple[Question, ...]:
    if not (SHARED / BENCHMARKS[name].file).exists():
        pytest.skip(f"shared/data/math/{BENCHMARKS[name].file} is not beside this checkout")
    return load(name, SHARED)


def wanted(question: Question) -> Reference:
    return Reference.from_json(question.reference)


# Every row of the small sets, every so-manieth of the others: `self_check` takes all of them in half a minute.
EVERY = {"aime24": 1, "aime25": 1, "amc23": 1, "gsm8k": 1, "math500": 5, "minerva": 4, "olympiadbench": 5}


@pytest.fixture(scope="module")
def pool():
    with GradingPool(check, workers=1, deadline_seconds=10.0) as workers:
        yield workers


@pytest.mark.parametrize("name", BENCHMARKS)
def test_published_answers_given_back_are_right(pool, name):
    questions = published(name)[:: EVERY[name]]
    items = [(rf"\boxed{{{wanted(q).published}}}", q.reference) for q in questions]
    wrong = [
        wanted(q).published for q, verdict in zip(questions, pool.grade(items), strict=True) if verdict.reward != 1.0
    ]
    assert [answer for answer in wrong if answer not in CORRECTIONS] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_published_answer_given_back_is_right_but_for_the_corrected_ones(name):
    expected = {"minerva": {5}, "olympiadbench": {96, 267}}.get(name, set())
    failures = self_check(published(name))
    assert {failure.index for failure in failures} == expected
    assert all("CORRECTIONS" in failure.reason for failure in failures)


def same(one: str, other: str) -> bool:
    """An independent view of what is equal by coincidence: numbers by value, all else by its characters."""
    plain = [re.sub(r"[\s$,]|\\[!,;]|\\(?:left|right)|\^\{?\\circ\}?|^\w=|\.$", "", text) for text in (one, other)]
    plain = [re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)) for text in plain]
    numbers = []
    for text in plain:
        try:
            numbers.append(float(text))
        except ValueError:
            fraction = re.fullmatch(r"(-?)\\frac\{(\d+)\}\{(\d+)\}", text)
            numbers.append(float(fraction[1] + "1") * int(fraction[2]) / int(fraction[3]) if fraction else None)
    return plain[0] == plain[1] or (None not in numbers and abs(numbers[0] - numbers[1]) <= 1e-9 * abs(numbers[1]))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_shuffled_answers_are_right_only_where_they_are_equal_by_coincidence(pool, name):
    questions = published(name)[:: EVERY[name]]
    others = random.Random(0).sample(questions, len(questions))
    items = [(rf"\boxed{{{wanted(other).published}}}", q.reference) for q, other in zip(questions, others, strict=True)]
    for question, other, verdict in zip(questions, others, pool.grade(items), strict=True):
        mine, theirs = wanted(question), wanted(other)
        chance = same(mine.published, theirs.published)
        if mine.relative and not chance:
            # Two numbers within the tolerance are chance too.
            values = [
                float(text) if re.fullmatch(r"[-+0-9.e]+", text) else None
                for text in (mine.published, theirs.published)
            ]
            chance = None not in values and abs(values[0] - values[1]) <= mine.relative * abs(values[0]) * (1 + 1e-9)
        assert verdict.reward == float(chance), (mine.published, theirs.published, verdict)


@pytest.mark.parametrize(
    ("name", "rows", "index", "answers", "options"),
    [
        ("aime24", 30, 7, ("025",), {}),
        ("aime25", 30, 0, ("70",), {}),
        ("amc23", 40, 0, ("27",), {}),
        ("gsm8k", 1319, 2, ("70000",), {}),
        ("math500", 500, 36, ("3", "5", "7"), {}),
        ("math500", 500, 343, ("58,500",), {}),
        ("math500", 500, 422, (r"1 + \sqrt{5}", r"1 - \sqrt{5}", "-2"), {}),
        ("minerva", 272, 0, ("1.6",), {"unit": r"\mathrm{~cm}" + "\n\\]", "relative": 0.01}),
        ("minerva", 272, 231, ("100",), {"unit": r"\%$ complete.", "relative": 0.01}),
        ("minerva", 272, 269, ("E_{1}", "E_{2}"), {"relative": 0.01}),
        ("olympiadbench", 675, 0, ("2",), {}),
        ("olympiadbench", 675, 5, ("(1,8,19)", "(2,7,13)", "(4,5,7)"), {}),
        ("olympiadbench", 675, 137, ("45",), {"unit": "minute"}),
        ("olympiadbench", 675, 194, ("221", "8"), {}),
        ("olympiadbench", 675, 316, ("4.2",), {"unit": "%", "absolute": 0.1}),
        ("olympiadbench", 675, 96, ("(0,4]",), {}),
    ],
)
def test_each_publishers_schema_is_read(name, rows, index, answers, options):
    questions = published(name)
    assert len(questions) == rows and [q.index for q in questions] == list(range(rows))
    reference = wanted(questions[index])
    assert reference.answers == answers
    assert {
        key: getattr(reference, key) for key in ("unit", "absolute", "relative") if getattr(reference, key)
    } == options


def test_the_protocol_is_the_papers():
    protocols = {name: benchmark.protocol for name, benchmark in BENCHMARKS.items()}
    assert {name: (p.samples, p.pass_ks) for name, p in protocols.items()} == {
        "aime24": (32, (512, 1024)),
        "aime25": (32, (512, 1024)),
        "amc23": (32, ()),
        "gsm8k": (1, ()),
        "math500": (1, ()),
        "minerva": (1, (128,)),
        "olympiadbench": (1, (128,)),
    }
    assert {(p.temperature, p.pass_temperature, p.top_p, p.max_new_tokens) for p in protocols.values()} == {
        (0.1, 1.0, 0.95, 8192)
    }


# What a row of each kind looks like; a test breaks one thing in its last row.
AIME = {"problem": "What is 1+1?", "answer": 2}
GSM8K = {"question": "What is 1+1?", "answer": "It is 2.\n#### 2"}
MINERVA = {"problem": "How long?", "solution": r"It is \boxed{2} \mathrm{~cm}.", "idx": 0}
OLYMPIAD = {
    "question": "What is 1+1?",
    "context": None,
    "final_answer": ["$2$"],
    "is_multiple_answer": False,
    "unit": None,
    "error": None,
    "answer_type": "Numerical",
}
COUNTS = {"aime24": (AIME, 30), "gsm8k": (GSM8K, 1319), "minerva": (MINERVA, 272), "olympiadbench": (OLYMPIAD, 675)}


def without(row: dict, column: str) -> dict:
    return {key: value for key, value in row.items() if key != column}


# (benchmark, its last row, what the message names besides the file and the row)
BROKEN_ROWS = {
    "no question column": (
        "aime24",
        {"prompt": "1+1?", "answer": 2},
        ["columns problem, question", "found prompt, answer"],
    ),
    "no answer column": (
        "aime24",
        {"problem": "1+1?", "anser": 2},
        ["columns answer, solution", "did you mean 'anser'"],
    ),
    "an empty question": ("aime24", AIME | {"problem": "  "}, ["column 'problem': empty", "fill it in"]),
    "a question that is a number": ("aime24", AIME | {"problem": 7}, ["column 'problem'", "expected a text"]),
    "an empty answer": ("aime24", AIME | {"answer": ""}, ["column 'answer': empty", "fill it in"]),
    "an answer that is null": ("aime24", AIME | {"answer": None}, ["column 'answer': empty"]),
    "an answer that is a truth value": ("aime24", AIME | {"answer": True}, ["a truth value", "expected a text"]),
    "an answer that is not finite": ("aime24", AIME | {"answer": float("nan")}, ["nan", "finite number"]),
    "no final mark": ("gsm8k", GSM8K | {"answer": "It is 2."}, ["no '#### answer'", "fetch the file again"]),
    "no box in a solution": ("minerva", MINERVA | {"solution": r"It is \boxed{2"}, [r"no \boxed{answer}", "fetch"]),
    "answers that are no list": (
        "olympiadbench",
        OLYMPIAD | {"final_answer": "2"},
        ["'final_answer'", "a list with one text"],
    ),
    "an empty list of answers": (
        "olympiadbench",
        OLYMPIAD | {"final_answer": []},
        ["'final_answer'", "a list with one text"],
    ),
    "a flag that is a text": (
        "olympiadbench",
        OLYMPIAD | {"is_multiple_answer": "no"},
        ["'is_multiple_answer'", "true or false"],
    ),
    "an unknown type of answer": ("olympiadbench", OLYMPIAD | {"answer_type": "Proof"}, ["'answer_type'", "Numerical"]),
    "a tolerance that is no number": (
        "olympiadbench",
        OLYMPIAD | {"error": "small"},
        ["'error'", "a number such as 1e-1"],
    ),
    "a tolerance below 0": ("olympiadbench", OLYMPIAD | {"error": "-1"}, ["absolute must be >= 0"]),
    "a unit that is a number": ("olympiadbench", OLYMPIAD | {"unit": 3}, ["column 'unit'", "a text or null"]),
    "no unit column": ("olympiadbench", without(OLYMPIAD, "unit"), ["columns unit", "found question"]),
    "a context that is a list": (
        "olympiadbench",
        OLYMPIAD | {"context": ["x"]},
        ["column 'context'", "a text or null"],
    ),
}


@pytest.mark.parametrize("case", BROKEN_ROWS)
def test_a_row_that_cannot_be_used_is_named_with_its_cure(tmp_path, case):
    name, last, told = BROKEN_ROWS[case]
    row, count = COUNTS[name]
    path = tmp_path / BENCHMARKS[name].file
    path.write_text("".join(json.dumps(values) + "\n" for values in [row] * (count - 1) + [last]))
    with pytest.raises(DataError) as problem:
        load(name, tmp_path)
    for part in (f"{path}, row {count}", *told):
        assert part in str(problem.value), problem.value
    # The row before it is fine: it is this one that is refused.
    path.write_text("".join(json.dumps(row) + "\n" for _ in range(count)))
    assert len(load(name, tmp_path)) == count


# (what the file holds, what the message names)
BROKEN_FILES = {
    "nothing": (b"", ["no rows, expected 30"]),
    "only blank lines": (b"\n\n", ["no rows, expected 30"]),
    "a row that is cut off": (
        json.dumps(AIME).encode() + b'\n{"problem": "What',
        ["row 2", "not valid JSON", "one JSON object a line"],
    ),
    "fewer rows than published": (
        json.dumps(AIME).encode() * 1 + b"\n",
        ["ends after row 1 with 1 problems", "AIME24 has 30", "cut off"],
    ),
    "another encoding": (
        json.dumps(AIME).encode() + b'\n{"problem": "caf\xe9", "answer": 1}',
        ["row 2", "0xe9", "UTF-8"],
    ),
    "a list": (b"[1, 2]\n", ["row 1", "a list", "expected an object"]),
    "a compressed file": (b"\x1f\x8b\x08\x00\x00", ["row 1", "not UTF-8", "uncompressed"]),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_a_file_that_cannot_be_read_is_named_with_its_cure(tmp_path, case):
    content, told = BROKEN_FILES[case]
    path = tmp_path / "aime24.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as problem:
        load("aime24", tmp_path)
    for part in (str(path), *told):
        assert part in str(problem.value), problem.value


def test_an_unknown_name_a_missing_folder_and_a_missing_file_say_what_there_is(tmp_path):
    with pytest.raises(DataError, match=r"unknown benchmark 'amie24'.*aime24, aime25.*did you mean 'aime24'"):
        load("amie24", tmp_path)
    with pytest.raises(DataError, match=r"nowhere: no such folder.*suite --download .*nowhere gsm8k"):
        load("gsm8k", tmp_path / "nowhere")
    (tmp_path / "gsm8k.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"gsm8k.jsonl: no such file, the folder holds gsm8k.parquet; .*--download"):
        load("gsm8k", tmp_path)


def test_an_incomplete_file_can_be_asked_for(tmp_path):
    (tmp_path / "aime24.jsonl").write_text(json.dumps(AIME) + "\n")
    questions = load("aime24", tmp_path, complete=False)
    assert [(q.benchmark, q.index, q.question, wanted(q).answers) for q in questions] == [
        ("aime24", 0, "What is 1+1?", ("2",))
    ]


def test_a_context_comes_before_its_question(tmp_path):
    (tmp_path / "olympiadbench.jsonl").write_text(json.dumps(OLYMPIAD | {"context": "Let x = 1."}) + "\n")
    assert load("olympiadbench", tmp_path, complete=False)[0].question == "Let x = 1.\n\nWhat is 1+1?"


def test_a_benchmark_is_fetched_from_the_hub_once_and_as_its_file(tmp_path, monkeypatch):
    # A folder is a hub dataset to the datasets library; the real ones are not reached from tests.
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "hub"
    source.mkdir()
    rows = [{"problem": f"What is {i}+1?", "answer": i + 1} for i in range(30)]
    (source / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    local = BENCHMARKS["aime24"].__class__(**{**vars(BENCHMARKS["aime24"]), "hub": str(source)})
    monkeypatch.setitem(suite.BENCHMARKS, "aime24", local)
    assert download(tmp_path / "data", ["aime24"]) == [tmp_path / "data" / "aime24.jsonl"]
    assert [wanted(q).answers for q in load("aime24", tmp_path / "data")] == [(str(i + 1),) for i in range(30)]
    assert download(tmp_path / "data", ["aime24"]) == []


def test_the_command_line_lists_what_fails_and_names_what_is_missing(tmp_path, capsys):
    assert self_check_main(["--data", str(tmp_path), "aime24"]) == 2
    assert "aime24.jsonl: no such file" in capsys.readouterr().err
    (tmp_path / "aime24.jsonl").write_text((json.dumps(AIME) + "\n") * 29 + json.dumps(AIME | {"answer": "2}"}) + "\n")
    assert self_check_main(["--data", str(tmp_path), "--workers", "1", "aime24"]) == 1
    out = capsys.readouterr().out
    assert "aime24: 29 of 30 published answers are right" in out and "row 30: '2}'" in out
