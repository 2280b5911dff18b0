"""README and docs: the first page's limits, links that lead somewhere, commands that exist, names where they are."""

import ast
import functools
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from aepo import zoo
from aepo.command import COMMANDS
from aepo.llm.model.gguf import NEEDED
from aepo.llm.model.known import KNOWN
from aepo.llm.settings import Settings
from aepo.llm.settings.presets import FOLDER as PRESETS
from aepo.schedule import SCHEDULES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
WHERE = ROOT / "docs" / "where.md"
HAND_WRITTEN = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "proofs" / "README.md"]
LINKED = [
    *HAND_WRITTEN,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "proofs").glob("*.md")),
    *sorted((ROOT / "docs" / "experiment").glob("*.md")),
]
TRAINER = "aepo/llm/train.py"
# What `aepo model` names itself where it is missing.
OF_MODELS = (*NEEDED, *(known.distribution for known in KNOWN.values()))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ident(path: Path) -> str:
    return str(path.relative_to(ROOT))


# The pages' text.


def fences(text: str) -> list[tuple[str, str]]:
    """(language, body) of every fenced code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """What stands outside of fenced code blocks."""
    return re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(text: str) -> list[str]:
    """Inline code, as in `make test`."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def links(text: str) -> list[str]:
    """Targets of links and pictures; what looks like one inside of code is none."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "code", prose(text)))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_the_reader_of_pages_sees_what_is_there():
    page = "# The paper's *A & B*\n`make test` [a](x.md#y) ![b](c.png) `no[link](here)`\n```sh\nmake demo [c](d)\n```\n"
    assert fences(page) == [("sh", "make demo [c](d)\n")]
    assert code_spans(page) == ["make test", "no[link](here)"]
    assert links(page) == ["x.md#y", "c.png"]
    assert anchors(page) == {"the-papers-a--b"}


# The first page.


def test_the_readme_is_a_page_with_a_picture_and_a_map():
    text = README.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 140] == []
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert len(pictures) == 1 and (ROOT / pictures[0]).stat().st_size > 10_000
    beginning = "\n".join(lines[:12])
    assert "Agentic Entropy-Balanced Policy Optimization" in beginning and "aepo-rl" in beginning
    assert PROJECT["name"] == "aepo-rl"


def test_the_pages_know_how_many_methods_there_are_and_name_each():
    assert f"The same {len(zoo.METHODS)} methods run in simulator and trainer" in README.read_text(encoding="utf-8")
    named = code_spans((ROOT / "docs" / "training.md").read_text(encoding="utf-8"))
    assert sorted(set(zoo.METHODS) - set(named)) == []


def test_the_map_shows_every_folder_and_no_other():
    (tree,) = (body for _, body in fences(README.read_text(encoding="utf-8")) if body.startswith("aepo/ "))
    shown, above = set(), []
    for line in filter(None, tree.splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        above = [*above[:depth], name.rstrip("/")]
        shown.add("/".join(above))
    assert {folder for folder in shown if not (ROOT / folder).is_dir()} == set()
    packages = (*(ROOT / "aepo").glob("*/__init__.py"), *(ROOT / "aepo" / "llm").glob("*/__init__.py"))
    assert {str(package.parent.relative_to(ROOT)) for package in packages} - shown == set()


@pytest.mark.parametrize("page", LINKED, ids=ident)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for link in links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    assert broken == []


def test_the_index_of_the_pages_names_each():
    index = links((ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"} <= set(index)
    linked = links(README.read_text(encoding="utf-8"))
    assert {"LICENSE", "CITATION.cff", "CHANGELOG.md", "CONTRIBUTING.md", "docs/README.md", "docs/where.md"} <= set(
        linked
    )


# The commands.


@dataclass(frozen=True)
class Typed:
    """A command line of a page, taken apart."""

    page: Path
    line: str
    program: str
    """A key of `help_of`, or the program's name where it has no help that is asked for."""
    arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{ident(self.page)}: {self.line}"


PROGRAMS = ("make", "python", "aepo", "deepspeed", "pip", "pytest")
# Tools of the system: what they do is theirs.
FOREIGN = ("pkill", "apt-get", "git", "cd", "source")
TRAINER_MODULE = "aepo.llm.train"


def typed_lines(text: str) -> Iterator[str]:
    """Every command line of a page: those of its code blocks without a language, and those that stand in its text."""
    for language, body in fences(text):
        if language in ("", "sh", "bash", "console"):
            # The README's map is a block too.
            if body.startswith("aepo/ "):
                continue
            yield from body.replace("\\\n", " ").splitlines()
    for span in code_spans(text):
        if span.split()[0] in (*PROGRAMS, "pkill") and len(span.split()) > 1:
            yield span


def taken_apart(page: Path) -> Iterator[Typed]:
    """The commands of a page.

    Raises:
        ValueError: a line of a code block that starts with no program that is known here.
    """
    for line in typed_lines(page.read_text(encoding="utf-8")):
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"\w+=\S*", words[0]):
            del words[0]
        if not words or words[0] in FOREIGN:
            continue
        name, rest = Path(words[0]).name, words[1:]
        if name == "python" and rest[0] == "-m":
            name, rest = rest[1], rest[2:]
        elif name == "python":
            name, rest = rest[0], rest[1:]
        elif name == "deepspeed":
            script = rest.index(TRAINER) if TRAINER in rest else len(rest)
            yield Typed(page, line, "deepspeed", tuple(rest[:script]))
            name, rest = TRAINER_MODULE, rest[script + 1 :]
        elif name not in PROGRAMS:
            raise ValueError(f"{ident(page)}: {line!r} starts with no program that this test can check")
        if name == "aepo" and rest and not rest[0].startswith("-"):
            name, rest = f"aepo {rest[0]}", rest[1:]
        elif name == "aepo.llm.evaluation" and rest[:1] == ["report"]:
            name, rest = "aepo report", rest[1:]
        yield Typed(page, line, name, tuple(rest))


@functools.cache
def every_command() -> tuple[Typed, ...]:
    return tuple(itertools.chain.from_iterable(map(taken_apart, HAND_WRITTEN)))


def of(*programs: str) -> list[Typed]:
    found = [typed for typed in every_command() if typed.program in programs]
    assert found, f"no page has a command of {programs}"
    return found


def module_of(program: str) -> str | None:
    """The module that a program is, or None."""
    if (name := program.removeprefix("aepo ")) in COMMANDS:
        return COMMANDS[name].module
    return program if re.fullmatch(r"aepo(\.\w+)+", program) else None


def source_of(module: str) -> str:
    """The text of the file that `python -m` runs."""
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, f"there is no module {module}"
    path = Path(spec.origin)
    return (path.with_name("__main__.py") if path.name == "__init__.py" else path).read_text(encoding="utf-8")


# All in one process: what they import takes longer than what they print.
HELP = """
import contextlib, io, json, runpy, sys
found = {}
for module, before in json.load(sys.stdin):
    out, sys.argv = io.StringIO(), [module, *before, "--help"]
    with contextlib.redirect_stdout(out):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
            code = 0
        except SystemExit as left:
            code = left.code or 0
    found[" ".join([module, *before])] = [code, out.getvalue()]
json.dump(found, sys.__stdout__)
"""


def with_arguments() -> list[tuple[str, tuple[str, ...]]]:
    """(module, what stands before its arguments) of every program of the pages that has arguments."""
    own = {(module, ()) for typed in every_command() if (module := module_of(typed.program))}
    named = {(command.module, command.before) for command in COMMANDS.values()}
    # A module without a parser would begin its work.
    return sorted((m, b) for m, b in own | named if re.search(r"\b(argparse|typer|parse)\b", source_of(m)))


@functools.cache
def help_texts() -> dict[str, tuple[int, str]]:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HELP],
        input=json.dumps(with_arguments()),
        capture_output=True,
        text=True,
        cwd=ROOT,
        # Wide, or an option would be cut to fit a terminal.
        env={**os.environ, "COLUMNS": "300", "TERM": "dumb", "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    return {name: (code, text) for name, (code, text) in json.loads(run.stdout).items()}


def help_of(typed: Typed) -> str:
    """What `--help` prints; nothing for a program that has none."""
    command = COMMANDS.get(typed.program.removeprefix("aepo "))
    before = () if command is None else command.before
    return help_texts().get(" ".join([str(module_of(typed.program)), *before]), (0, ""))[1]


def options(arguments: tuple[str, ...]) -> list[str]:
    return [word.partition("=")[0] for word in arguments if word.startswith("--") and word != "--"]


def has_option(text: str, option: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text) is not None


def has_setting(name: str) -> bool:
    """Whether `section.field` is a setting; those of a method and a schedule are their own options."""
    section, _, field = name.partition(".")
    info = Settings.model_fields.get(section)
    if info is None:
        return False
    if not field:
        return not hasattr(info.annotation, "model_fields")
    if field in info.annotation.model_fields:
        return True
    if section == "method":
        return any(field in zoo.options(method) for method in zoo.METHODS)
    return section == "target" and any(field in one.__dataclass_fields__ for one in SCHEDULES.values())


def test_the_reader_of_commands_takes_them_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "`make test` and `--out`\n```\nA=1 .venv/bin/deepspeed --num_gpus 2 aepo/llm/train.py --config X  # why\n"
        "python -m aepo.llm.evaluation report runs/* --out O\naepo sweep --seeds 3\npython a/b.py\n```\n"
    )
    assert [(typed.program, typed.arguments) for typed in taken_apart(page)] == [
        ("deepspeed", ("--num_gpus", "2")),
        (TRAINER_MODULE, ("--config", "X")),
        ("aepo report", ("runs/*", "--out", "O")),
        ("aepo sweep", ("--seeds", "3")),
        ("a/b.py", ()),
        ("make", ("test",)),
    ]
    page.write_text("```\nfrobnicate --now\n```\n")
    with pytest.raises(ValueError, match="frobnicate"):
        list(taken_apart(page))
    assert has_option("  --out, --target-x VALUE", "--out") and not has_option("  --target-x", "--target")
    assert has_setting("train.lr") and has_setting("method.cap_up") and not has_setting("train.lrr")


def test_make_has_every_target():
    makefile = (ROOT / "Makefile").read_text()
    for typed in of("make"):
        words = [word for word in typed.arguments if not word.startswith("-")]
        for name in (word.partition("=")[0] for word in words if "=" in word):
            assert re.search(rf"^{name}\b *[?:]?=|\$\({name}\)", makefile, flags=re.MULTILINE), f"{typed}: {name}"
        targets = [word for word in words if "=" not in word]
        dry = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, f"{typed}: {dry.stderr}"


def test_every_command_of_aepo_is_in_its_table():
    named = {typed.program.removeprefix("aepo ") for typed in every_command() if typed.program.startswith("aepo ")}
    assert named - set(COMMANDS) == set()
    # And each is on a page.
    assert set(COMMANDS) - named == set()


def test_every_program_that_takes_arguments_answers_help():
    assert len(help_texts()) >= len(COMMANDS)
    assert [name for name, (code, text) in help_texts().items() if code != 0 or "--help" not in text] == []


def test_every_file_that_is_run_is_there():
    for typed in every_command():
        if typed.program.endswith(".py"):
            assert (ROOT / typed.program).is_file(), str(typed)
        elif typed.program == "pytest":
            assert all((ROOT / path).exists() for path in typed.arguments if not path.startswith("-")), str(typed)
        elif module := module_of(typed.program):
            assert "__main__" in source_of(module), str(typed)


def test_every_option_of_a_command_is_in_its_help():
    launcher = source_of("deepspeed.launcher.runner")
    for typed in every_command():
        for option in options(typed.arguments):
            if typed.program.endswith(".py"):
                known = f'"{option}"' in (ROOT / typed.program).read_text(encoding="utf-8")
            elif typed.program == "deepspeed":
                known = f'"{option}"' in launcher
            elif typed.program in ("make", "pip", "pytest") or option == "--help":
                known = True
            elif typed.program == "aepo":
                known = option == "--version"
            else:
                known = has_option(help_of(typed), option) or (
                    typed.program in ("aepo train", "aepo probe", "aepo doctor", TRAINER_MODULE, "aepo.llm.doctor")
                    and has_setting(option.removeprefix("--"))
                )
            assert known, f"{typed}: {option}"


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=ident)
def test_every_option_in_the_text_is_one_of_some_command(page):
    every = "\n".join(text for _, text in help_texts().values())
    unknown = []
    for span in code_spans(page.read_text(encoding="utf-8")):
        if not span.startswith("--"):
            continue
        option = options((span.split()[0],))[0]
        name = option.removeprefix("--")
        # A name in capitals is to be filled in, as in --watchdog.PHASE; the first word of it is a section.
        section, _, field = name.partition(".")
        known = section in Settings.model_fields if field.isupper() or name == "section.field" else has_setting(name)
        if name != "section.field" and not (known or has_option(every, option)):
            unknown.append(span)
    # DeepSpeed's own.
    assert set(unknown) <= {"--hostfile"}


def test_every_preset_and_file_of_a_command_is_there():
    for typed in every_command():
        for option, value in itertools.pairwise(typed.arguments):
            if option != "--config" or value.isupper():
                continue
            found = ROOT / value if "/" in value else PRESETS / f"{value}.yaml"
            assert found.is_file(), str(typed)


def test_what_is_installed_is_this_distribution_and_has_the_extras():
    for typed in of("pip"):
        for word in typed.arguments[1:]:
            if word.startswith("-") or word in ("constraints.txt", "NAME"):
                continue
            name, _, extras = word.rstrip("]").partition("[")
            assert name in (PROJECT["name"], ".", *OF_MODELS), str(typed)
            assert set(filter(None, extras.split(","))) <= set(PROJECT["optional-dependencies"]), str(typed)


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(body, id=f"{ident(page)}-{i}")
        for page in HAND_WRITTEN
        if page.exists()
        for i, (language, body) in enumerate(fences(page.read_text(encoding="utf-8")))
        if language == "python"
    ],
)
def test_the_pieces_of_python_run(code):
    # A run of 500 steps shows no more than one of 5.
    names: dict[str, object] = {}
    exec(compile(code.replace("steps=500", "steps=5"), "a page", "exec"), names)
    assert set(names) - {"__builtins__"}, "the piece names nothing"


# Where is what.


def answers() -> list[tuple[str, str, str]]:
    """(question, path, name) of docs/where.md."""
    rows = [
        line.strip("|").split("|")
        for line in WHERE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith(("|---", "| question"))
    ]
    found = []
    for row in rows:
        question, path, name = (cell.strip() for cell in row)
        shown, target = re.fullmatch(r"\[([^\]]+)\]\(([^)]+)\)", path).groups()
        assert target == f"../{shown}", question
        found.append((question, shown, re.fullmatch(r"`([^`]+)`", name).group(1)))
    return found


def names_in(body: list[ast.stmt]) -> dict[str, ast.AST]:
    """What a module or a class defines: functions, classes, and names that are assigned or annotated."""
    found: dict[str, ast.AST] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
    return found


def defines(path: Path, name: str) -> bool:
    """Whether a file defines a name: `Class.method` or `Class.field` too, `key:` in YAML, a target, a theorem."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        inside = ast.parse(text).body
        for part in name.split("."):
            node = names_in(inside).get(part)
            if node is None:
                return False
            inside = node.body if isinstance(node, ast.ClassDef) else []
        return True
    if path.suffix == ".yaml":
        here = yaml.safe_load(text)
        for key in name.removesuffix(":").split("."):
            if not isinstance(here, dict) or key not in here:
                return False
            here = here[key]
        return True
    if path.suffix == ".v":
        return re.search(rf"^(Theorem|Lemma|Definition) {re.escape(name)}\b", text, flags=re.MULTILINE) is not None
    return path.name == "Makefile" and re.search(rf"^{re.escape(name)}:", text, flags=re.MULTILINE) is not None


def test_the_finder_of_names_knows_what_is_defined_and_what_only_used(tmp_path):
    source = tmp_path / "a.py"
    source.write_text(
        "import os\nX: int = 1\nclass A:\n    f: int = 0\n    def g(self):\n        inner = 1\nprint(X)\n"
    )
    assert all(defines(source, name) for name in ("X", "A", "A.f", "A.g"))
    assert not any(defines(source, name) for name in ("os", "print", "A.h", "f", "A.g.inner"))
    preset = tmp_path / "a.yaml"
    preset.write_text("a: {b: 1}\n")
    assert defines(preset, "a:") and defines(preset, "a.b:") and not defines(preset, "b:")
    assert defines(ROOT / "Makefile", "demo") and not defines(ROOT / "Makefile", "nothing")
    assert defines(ROOT / "proofs/coq/Theorem_4_3.v", "theorem_4_3")
    assert not defines(ROOT / "proofs/coq/Theorem_4_3.v", "Derive")


def test_forty_questions_have_one_answer_each():
    questions = [question for question, _, _ in answers()]
    assert len(questions) == len(set(questions)) == 40
    places = [(path, name) for _, path, name in answers()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(("question", "path", "name"), answers(), ids=lambda text: text.replace(" ", "_")[:60])
def test_every_answer_is_where_it_says(question, path, name):
    assert (ROOT / path).is_file(), f"{question} {path}"
    assert defines(ROOT / path, name), f"{question} {path} does not define {name}"
