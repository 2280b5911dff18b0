"""`aepo show`: which tokens fork, what a terminal and a page show of them, and files that are old, torn or hostile."""

import io
import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from running import ROOT

from aepo.llm.records.kept_samples import LEVELS, NothingToShowError, Response, Token, chosen, forking, kept
from aepo.llm.records.recorder import line, strict
from aepo.llm.records.samples_page import page
from aepo.llm.records.show import CLOSE, OPEN, main, print_responses

OLD = ("tokens", "entropy", "logp")


def row(step: int = 0, branch: str = "main", pieces=("a", "b"), entropy=(0.5, 1.5), **more) -> dict:
    return {
        "step": step, "branch": branch, "temperature": 1.0, "prompt": "1 4", "response": "".join(pieces), "answer": "4",
        "extracted": "5", "reason": "wrong", "reward": 0.25, "length": len(pieces), "ended": True, "mean_logp": -1.0,
        "tokens": list(pieces), "entropy": list(entropy), "logp": [-0.25] * len(pieces), **more,
    }  # fmt: skip


def old(one: dict) -> dict:
    return {name: value for name, value in one.items() if name not in OLD}


def written(folder: Path, *rows: dict) -> Path:
    # In ASCII, which also holds what UTF-8 cannot.
    (folder / "samples.jsonl").write_text("".join(json.dumps(strict(one)) + "\n" for one in rows))
    return folder


def response(tokens: list[tuple[str, float]]) -> Response:
    return Response(
        step=0, branch="main", temperature=1.0, prompt="", text="".join(piece for piece, _ in tokens), answer=None,
        extracted=None, reason=None, reward=None, length=len(tokens), ended=True,
        tokens=tuple(Token(piece=piece, entropy=entropy, logp=-1.0) for piece, entropy in tokens),
    )  # fmt: skip


# Which tokens fork.

ENTROPIES = st.lists(st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0, 2.5, math.nan]), min_size=1, max_size=30)


@given(st.lists(ENTROPIES, min_size=1, max_size=3), st.floats(0.01, 1.0))
def test_the_forking_tokens_are_the_share_of_highest_entropy_of_all_and_none_was_certain(entropies, share):
    responses = [response([("x", entropy) for entropy in one]) for one in entropies]
    forks = forking(responses, share)
    known = sorted((e for one in entropies for e in one if not math.isnan(e)), reverse=True)
    if not known:
        assert forks is None
        return
    levels = {token.entropy: forks.level(token) for one in responses for token in one.tokens}
    # The last of the share by hand: as many as fit, and at least one; its equals are in.
    last = known[max(1, math.floor(len(known) * share)) - 1]
    assert forks.tokens == len(known)
    for entropy, level in levels.items():
        assert (level > 0) == (entropy >= last and entropy > 0), (entropy, last)
    if known[0] > 0:
        assert levels[known[0]] == len(forks.bounds) <= LEVELS
        # A colour is a third of the way from the last forking token to the highest entropy.
        lowest = min(e for e in known if e >= last and e > 0)
        for entropy, level in levels.items():
            if level and known[0] > lowest:
                way = 3 * (entropy - lowest) / (known[0] - lowest)
                assert level == min(3, 1 + math.floor(way + 1e-9)), (entropy, way)


def test_the_mean_entropy_is_over_the_tokens_that_have_one():
    assert response([("a", 1.0), ("b", math.nan), ("c", 0.5)]).mean_entropy == 0.75
    assert response([("a", math.nan)]).mean_entropy is response([]).mean_entropy is None


# What is read.


def test_damaged_lines_are_named_and_the_others_shown(tmp_path, capsys):
    good = [line(row(step, pieces=("good", str(step)))) for step in (0, 50)]
    bad = [
        "{\n", "\xff\x00\n", "[1, 2]\n", "null\n", '"text"\n', line({"step": 50}), line(row(step="50")),
        line(row(response=None)), "[" * 100_000 + "\n", line(row(step=True)),
    ]  # fmt: skip
    torn = line(row(50, pieces=("torn",)))[:-30]
    (tmp_path / "samples.jsonl").write_bytes("".join([good[0], *bad, "\n", good[1], torn]).encode("latin-1"))
    assert kept(tmp_path).damaged == list(range(2, 2 + len(bad)))
    assert main([str(tmp_path), "--last=9"]) == 0
    said = capsys.readouterr().out
    assert f"left out {len(bad)} damaged lines (2, 3, 4, 5, 6, ...)" in said
    assert "step 0," in said and "step 50," in said and "torn" not in said
    # A last line is whole without its end, if it is a row.
    (tmp_path / "samples.jsonl").write_text(good[0] + good[1].rstrip("\n"))
    assert [one.step for one in kept(tmp_path).responses] == [0, 50] and not kept(tmp_path).damaged


@pytest.mark.parametrize(
    "damage",
    [
        {"tokens": ["a"]}, {"entropy": [0.5]}, {"entropy": [0.5, "1"]}, {"entropy": [True, 0.5]}, {"logp": None},
        {"tokens": ["a", 2]}, {"tokens": "ab"}, {"entropy": {"a": 1}},
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_the_tokens_are_not_shown_with_them(tmp_path, damage, capsys):
    assert main([str(written(tmp_path, {**row(), **damage}))]) == 0
    said = capsys.readouterr().out
    assert OPEN not in said and "no entropies were kept" in said and "\nab\n" in said


def test_a_run_from_before_entropies_were_kept_is_shown_and_says_so_in_a_line(tmp_path, capsys):
    assert main([str(written(tmp_path, old(row()), old(row(pieces=("c",)))))]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("these responses have no entropies") and OPEN not in "".join(rest)
    assert "ab" in rest and "c" in rest and sum("no entropies were kept" in one for one in rest) == 2
    # A run that was resumed has both.
    assert main([str(written(tmp_path, old(row()), row()))]) == 0
    said = capsys.readouterr().out
    assert "these responses have no entropies" not in said and f"a{OPEN}b{CLOSE}" in said


def test_a_number_that_is_not_finite_has_no_colour(tmp_path, capsys):
    assert main([str(written(tmp_path, row(pieces=("a", "b", "c"), entropy=(math.nan, 1.0, math.inf))))]) == 0
    said = capsys.readouterr().out
    assert f"a{OPEN}b{CLOSE}c" in said and "mean H 1.000 nats" in said


@pytest.mark.parametrize(
    "missing", ["temperature", "prompt", "answer", "extracted", "reason", "reward", "length", "ended"]
)
def test_a_row_that_lacks_a_fact_is_shown_without_it(tmp_path, capsys, missing):
    one = row(ended=False)
    del one[missing]
    assert main([str(written(tmp_path, one))]) == 0
    said = capsys.readouterr().out
    assert "None" not in said and "nan" not in said
    words = {"temperature": "T 1.00", "reward": "reward 0.25", "length": "2 tokens", "ended": "cut off",
             "answer": "answer 4", "extracted": "found 5", "reason": "(wrong)", "prompt": "1 4"}  # fmt: skip
    assert {name for name, word in words.items() if word not in said} == {missing}


# What is chosen.

FIVE = [row(step, branch, pieces=(f"{branch}{step}.{i}",), entropy=(1.0,))
        for step in (0, 50, 100) for branch in ("main", "tempered") for i in range(3)]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [one for one in FIVE if one["step"] == 100]),
        ({"last": 2}, FIVE[6:]),
        ({"last": 99}, FIVE),
        ({"step": 50}, FIVE[6:12]),
        ({"step": 50, "branch": "tempered"}, FIVE[9:12]),
        ({"last": 2, "count": 1}, [FIVE[6], FIVE[9], FIVE[12], FIVE[15]]),
        ({"branch": "main", "count": 2}, FIVE[12:14]),
    ],
)
def test_steps_branches_and_counts_are_chosen(tmp_path, options, expected):
    found = chosen(kept(written(tmp_path, *FIVE)), **options)
    assert [one.text for one in found] == [one["response"] for one in expected]
    # The file is as good as its folder.
    assert kept(tmp_path / "samples.jsonl").responses == kept(tmp_path).responses


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--step=7"], "error: --step=7: .* has responses of the steps 0, 50, 100$"),
        (["--branch=mian"], "error: --branch=mian: .* has responses of main, tempered$"),
    ],
)
def test_what_is_not_there_is_refused_with_what_there_is(tmp_path, capsys, options, told):
    assert main([str(written(tmp_path, *FIVE)), *options]) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.count("\n") == 1
    with pytest.raises(NothingToShowError, match=told.removeprefix("error: ")):
        raise NothingToShowError(said.err.removeprefix("error: ").rstrip("\n"))


def test_a_folder_without_responses_is_refused_by_name(tmp_path, capsys):
    for run in (tmp_path / "absent", tmp_path):
        assert main([str(run)]) == 2
        said = capsys.readouterr().err
        assert str(run) in said and "No such file" in said and said.count("\n") == 1
    written(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert "holds no response yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["--top=0"], "--top: must be a share in (0, 1], got '0'"),
        (["--top=1.5"], "--top: must be a share in (0, 1], got '1.5'"),
        (["--top=nan"], "--top: must be a share"),
        (["--top=ten"], "--top: must be a share"),
        (["--count=0"], "--count: must be a whole number from 1 on, got '0'"),
        (["--step=-1"], "--step: must be a whole number from 0 on, got '-1'"),
        (["--step=1.5"], "--step: must be a whole number"),
        (["--last=0"], "--last: must be a whole number from 1 on"),
        (["--last=2", "--step=0"], "not allowed with argument"),
        (["--hmtl=x"], "unrecognized arguments: --hmtl=x"),
    ],
)
def test_bad_options_are_refused_by_name_with_code_2(tmp_path, capsys, typed, told):
    with pytest.raises(SystemExit, match=r"^2$"):
        main([str(written(tmp_path, row())), *typed])
    assert told in capsys.readouterr().err


# The terminal.


def printed(*rows: Response, share: float = 0.2, **console) -> str:
    out = io.StringIO()
    print_responses(rows, forking(rows, share), share=share, console=Console(file=out, highlight=False, **console))
    return out.getvalue()


TEN = response([(f"t{i} ", float(i)) for i in range(10)])


def test_without_colour_forking_tokens_stand_in_marks_by_their_level():
    said = printed(TEN, share=0.4)
    two, three = (OPEN * 2, CLOSE * 2), (OPEN * 3, CLOSE * 3)
    assert f"t5 {OPEN}t6 {CLOSE}{'t7 '.join(two)}{'t8 '.join(three)}{'t9 '.join(three)}\n" in said
    assert "forking tokens, the 40% of highest entropy among the 10 shown, in nats:" in said
    assert f"{OPEN} 6.000 to 7.000 {CLOSE} {OPEN * 2} 7.000 to 8.000 {CLOSE * 2}" in said and "8.000 to 9.000" in said
    assert "mean H 4.500 nats" in said and "\x1b" not in said


def test_with_colour_they_stand_in_colours_and_without_marks(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    said = printed(TEN, share=0.4, force_terminal=True, color_system="truecolor", width=300)
    assert OPEN not in said
    colours = {6: "48;2;255;233;168", 7: "48;2;255;180;92", 8: "48;2;215;48;31"}
    for at, colour in colours.items():
        assert f"{colour}m {at}.000 to {at + 1}.000 \x1b[0m" in said, "the legend"
    # The bound of a level belongs to it.
    for token, at in ((6, 6), (7, 7), (8, 8), (9, 8)):
        assert f"{colours[at]}mt{token} \x1b[0m" in said
    assert "mt5 " not in said and "t5 " in said


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour_gets_marks_and_no_colour(monkeypatch, environment):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "48;" in printed(TEN, force_terminal=True)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = printed(TEN, force_terminal=True)
    assert f"{OPEN * 3}t9 {CLOSE * 3}" in said and "48;" not in said and "38;" not in said


HOSTILE = [
    "[bold red]no markup[/bold red]", "[/]", ":smile:", "<script>alert(1)</script>", "&lt;b&gt;", '" onmouseover="x',
    "\x1b[2J", "\x07", "\r", "\u202e", "\ud800", "\x00", "</pre></body>", "-->", "'", "\\", "[link=http://x]y[/link]",
    "\u2028",
]  # fmt: skip


def test_markup_and_commands_in_a_text_are_shown_and_do_nothing(tmp_path, capsys):
    one = row(pieces=HOSTILE, entropy=[float(i) for i in range(len(HOSTILE))], prompt="".join(HOSTILE))
    one |= {"reason": "error: [red]x[/red]", "answer": "[bold]4\x1b[1m", "extracted": "</p><i>"}
    assert main([str(written(tmp_path, one))]) == 0
    said = capsys.readouterr().out
    for text in (
        "[bold red]no markup[/bold red][/]:smile:<script>",
        "[link=http://x]y[/link]",
        "[bold]4\ufffd[1m",
        "[red]x",
    ):
        assert text in said, text
    assert not set(said) & set("\x1b\x07\r\u202e\ud800\x00\u2028")


def test_long_lines_are_left_to_the_terminal_and_blanks_are_kept():
    tokens = [("word ", 0.0)] * 200 + [("\n\n", 0.0), ("   indented\t", 0.0), ("\u00a0\u3000", 0.0), ("end", 0.0)]
    said = printed(response(tokens), width=40)
    assert "word " * 200 + "\n\n   indented" in said and "\u00a0\u3000end" in said
    assert "no token of the 204 shown has an entropy above 0" in said


def test_a_forking_end_of_a_line_can_be_seen():
    said = printed(response([("a", 0.0), ("\n", 2.0), ("b\n", 0.0)]))
    assert f"a{OPEN}\u21b5\n{CLOSE}b\n" in said


def test_a_terminal_that_cannot_show_a_character_is_no_reason_to_end(tmp_path):
    written(tmp_path, row(pieces=("数", "学"), prompt="😀"))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    # Without what only the trainer needs, as where a run is looked at.
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('transformers', 'deepspeed', 'pydantic', 'math_verify')))\n"
        "from aepo.llm.records.show import main\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step 0, main" in done.stdout and "???" in done.stdout


# The page.


class Reader(HTMLParser):
    """Tags with their attributes, and the text inside of each <pre>."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.inside = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "pre":
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag):
        if self.inside and tag == "pre":
            self.inside = False
            # As browsers do.
            self.texts[-1] = self.texts[-1].removeprefix("\n")

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data


def html(tmp_path: Path, *rows: dict, typed=()) -> str:
    out = tmp_path / "page.html"
    assert main([str(written(tmp_path, *rows)), f"--html={out}", *typed]) == 0
    return out.read_bytes().decode()


def test_the_page_has_each_token_with_its_colour_and_numbers(tmp_path, capsys):
    pieces = [f"t{i} " for i in range(10)]
    found = Reader(
        html(tmp_path, row(pieces=pieces, entropy=range(10)), row(pieces=["x"], entropy=[0.0]), typed=["--top=0.4"])
    )
    # Four of eleven fit, of which the lowest has 6 nats.
    spans = [attributes for tag, attributes in found.tags if tag == "span" and "title" in attributes]
    assert [span.get("class") for span in spans] == [None] * 6 + ["f1", "f2", "f3", "f3"] + [None]
    assert spans[7]["title"] == "H 7.000, ln p -0.250 nats"
    assert found.texts == ["1 4", "".join(pieces), "1 4", "x"]
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}: 2 responses\n"
    text = (tmp_path / "page.html").read_text()
    assert "6.000 to 7.000" in text and "mean H 4.500 nats" in text and "reward 0.25" in text and "T 1.00" in text


def test_the_page_is_one_file_without_script_or_network_and_escapes_what_it_shows(tmp_path):
    one = row(pieces=HOSTILE, entropy=range(len(HOSTILE)), prompt="".join(HOSTILE))
    one |= {"reason": "<b>", "answer": "</p><img src=x>", "extracted": "<script>", "branch": "<i>"}
    text = html(tmp_path, one)
    found = Reader(text)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "pre", "span"}
    assert {tag for tag, _ in found.tags} <= allowed
    assert {name for _, attributes in found.tags for name in attributes} <= {
        "lang", "charset", "http-equiv", "content", "class", "title",
    }  # fmt: skip
    assert "url(" not in text and "@import" not in text and "default-src 'none'" in text
    safe = "".join("\ufffd" if not (c.isprintable() or c in "\n\t") else c for c in "".join(HOSTILE))
    assert found.texts == [safe, safe]


@given(st.lists(st.tuples(st.text(max_size=8), st.floats(0, 5)), max_size=12), st.text(max_size=20))
def test_whatever_a_response_says_the_page_shows_it(tokens, prompt):
    one = Response(**{**vars(response(tokens)), "prompt": prompt})
    found = Reader(page([one], forking([one], 0.2), title="run", share=0.2))

    def plain(text: str) -> str:
        # Signs for what cannot be shown stand for it.
        return "".join(c for c in text if (c.isprintable() or c in "\n\t") and c not in "\ufffd\u21b5")

    assert [plain(text) for text in found.texts] == [plain(prompt), plain("".join(piece for piece, _ in tokens))]
    assert not any(tag in ("script", "img", "a", "b") for tag, _ in found.tags)


def test_a_page_of_an_old_run_says_that_it_has_no_entropies(tmp_path, capsys):
    text = html(tmp_path, old(row()))
    assert "these responses have no entropies" in text and Reader(text).texts == ["1 4", "ab"]
    assert "these responses have no entropies" in capsys.readouterr().out


def test_a_page_that_cannot_be_written_is_told_with_code_3_and_leaves_nothing(tmp_path, capsys):
    run = written(tmp_path, row())
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "no" / "page.html", tmp_path / "folder"):
        assert main([str(run), f"--html={place}"]) == 3
        said = capsys.readouterr().err
        assert said.startswith(f"error: --html={place}: cannot be written: ") and said.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "samples.jsonl"]


def test_a_page_takes_the_place_of_the_one_before(tmp_path):
    first = html(tmp_path, row(0))
    assert html(tmp_path, row(0), row(50)) != first
    assert json.loads((tmp_path / "samples.jsonl").read_text().splitlines()[0])["step"] == 0
