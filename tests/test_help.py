"""The pages that --help prints, of every command that the package has."""

import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest

from aepo.llm.evaluation.options import parse

ROOT = Path(__file__).parents[1]
# They take no options: any argument is ignored. The stages of gpu_check are started by it alone.
BARE = {
    "aepo.theory.cases",
    "aepo.llm.records.metrics",
    "aepo.llm.gpu_check.correctness",
    "aepo.llm.gpu_check.one_stage",
}
# runpy says of a module that another test has imported that it is run a second time.
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
MAIN = '\nif __name__ == "__main__":'


def commands() -> list[tuple[str, ...]]:
    """A module that is run, and what stands before --help."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "aepo").rglob("*.py")
        if MAIN in path.read_text(encoding="utf-8")
    }
    assert modules >= BARE and "aepo.llm.train" in modules
    return [*((module,) for module in sorted(modules - BARE)), ("aepo.llm.evaluation", "report")]


def options(page: str) -> list[str]:
    """Every option that the page lists, once per time: what a line begins with, up to two spaces or an equals sign."""
    heads = re.findall(r"^[│ ]*(-.*?)(?:  |=|$)", page, re.MULTILINE)
    return [option.replace("_", "-") for head in heads for option in re.findall(r"(?<!\S)--?[\w.-]+", head)]


def page_of(command: tuple[str, ...], monkeypatch, capsys) -> str:
    """What the command prints with --help."""
    monkeypatch.setattr(sys, "argv", [*command, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command[0], run_name="__main__", alter_sys=False)
    assert not ended.value.code
    # Typer colours its page wherever it believes that a person looks.
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_a_help_page_names_each_option_once(command, monkeypatch, capsys):
    page = page_of(command, monkeypatch, capsys)
    found = Counter(options(page))
    assert found["--help"] == 1 and len(found) >= 3
    assert [option for option, times in found.items() if times > 1] == []
    assert not re.search(r"[A-Z\]}], -", page), "a value is named behind the last spelling alone"


@pytest.mark.parametrize(
    "module, told",
    [
        ("aepo.tabular.sweep", "seeds 0, 1, ... Default: 16, 32 in the arena."),
        ("aepo.llm.experiment", "Processes at the same time. Default: cores, 1 with a GPU."),
    ],
)
def test_a_default_that_depends_is_on_the_page(module, told, monkeypatch, capsys):
    # Rich takes what stands in square brackets for markup, and a default told so is not printed.
    page = page_of((module,), monkeypatch, capsys)
    assert told in " ".join(page.replace("│", " ").split())


def test_a_page_that_names_an_option_twice_is_seen():
    twice = options("  --max-tokens VALUE, --max_tokens VALUE\n      Longest.\n  -h, --help  show")
    assert twice == ["--max-tokens", "--max-tokens", "-h", "--help"]
    assert options("  --model, --model VALUE\n") == ["--model", "--model"]
    assert options("  --train.steps=400\n  --train.lr=1e-06  --seed\n") == ["--train.steps", "--train.lr"]


def test_an_option_of_the_evaluation_is_understood_in_the_settings_spelling_too():
    assert parse(["--model=m", "--max_tokens=7"]) == parse(["--model=m", "--max-tokens", "7"])
