"""Seeded hostile input through all that the command calls before step 0: accepted as typed, or one readable line.

Command lines out of the known fields, and damaged folders of models and checkpoints. Never a traceback, and never a run
on other values than those that were typed.
"""

import json
import logging
import math
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from pydantic import BaseModel
from running import ROOT, launch

from aepo.controller import Loop
from aepo.errors import EXIT_CODES, UNUSABLE, AepoError
from aepo.llm.checkpoints import as_model, checkpoint
from aepo.llm.evaluation import evaluated_model
from aepo.llm.evaluation.options import Options
from aepo.llm.evaluation.options import parse as parse_evaluation
from aepo.llm.policy.model import from_scratch
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import Settings, load, plain_yaml
from aepo.llm.settings.fields import OPTION_KINDS
from aepo.llm.settings.model_source import of_run
from aepo.llm.train import prepared

EXHAUSTIVE = pytest.mark.exhaustive
LINES, FOLDERS = 200, 25
"""Command lines, and damaged folders of either kind; ten times as many where the test is exhaustive."""
LONGEST_LINE = 2000


@pytest.fixture(autouse=True)
def _without_the_hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# -- command lines --

TEXTS = (
    "#", " #", "a #b", "a: b", "Answer: x", "\n\nWrite", "x\n", " ", "  a  ", "{a: b}", "[1]", "[1, 2]", '"a"', "'a'",
    "it's", "yes", "no", "on", "off", "true", "false", "True", "null", "None", "none", "NULL", "Null", "~", "", "1.0",
    "1e3", "0x10", "0o17", "010", "1_000", "1:30", "2024-01-01", "ten", "1.5", "-1", "0", "1", "2", "0.5", "nan",
    "inf", ".nan", ".inf", "-.inf", "1e999", "1e-400", "9" * 30, "9" * 5000, "${seed}", "${x", "$HOME", "a=b", "=",
    "--x", "-x", "--seed=5", "\t", "a\tb", "é", "数学", "😀", "\u2028", "\x85", "\ufeff", "\x1b[31m", "\x7f",
    "\udc80", "*a", "&a", "!x", "|", ">", "- a", "%", "@", "`", "?", ",", "{", "}", "[", "]", "\\n", "x" * 300,
    "x/" * 3000, "[[" * 500, "a" * 20000, "5 #6", "/", ".", "..", "~/x", "./no/such", "models/none", "/dev/null",
    "file:a", "aepo.llm.grading:math_reward", "gsm8k", "walk", "chat", "plain", "vllm", "bfloat16", "cosine",
    "[0.9, 0.99]", "[true, 0.5]", "[1, 4]", "{steps: 5}",
)  # fmt: skip


def leaves(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    found = []
    for name, info in section.model_fields.items():
        nested = info.annotation
        inner = isinstance(nested, type) and issubclass(nested, BaseModel)
        found += leaves(nested, f"{prefix}{name}.") if inner else [prefix + name]
    return found


FIELDS = [*leaves(), *(f"{section}.{name}" for section, kinds in OPTION_KINDS.items() for name in kinds)]
FREE = tuple("out data.train data.split data.system_prompt data.instruction data.answer_column reward.function".split())
"""Fields that take any text."""
WORDS = {"data.system_prompt", "data.instruction", "system_prompt", "instruction"}
BOOLEANS = {True: ("true", "yes", "on", "1", "t", "y", "1.0"), False: ("false", "no", "off", "0", "f", "n", "0.0")}
OTHERS = (
    ["--resume"], ["--resume", "auto"], ["--resume=must"], ["--resume="], ["--resume", "later"], ["--overwrite"],
    ["--overwrite=yes"], ["--dry-run"], ["--trust-checkpoint"], ["--variant=none"], ["--local_rank=0"], ["--lrr", "3"],
    ["--train"], ["--train.steps"], ["--"], ["-x"], ["x y"], ["--=3"], ["--train.=3"], ["--.x=3"], ["--trian.lr=3"],
    ["--config=no/such.yaml"], ["--train.steps.x=3"], ["--model=null"], ["--train={}"], ["--method=grpo"],
)  # fmt: skip


def numbers(text: str) -> list[float]:
    """What Python reads in a text."""
    found = []
    for read in (int, float, lambda one: int(one, 0)):
        try:
            found.append(read(text))
        except ValueError:
            continue
    return found


def as_typed(value, text: str, name: str) -> bool:
    """Whether a field's value is what was typed for it, by Python's own reading."""
    if value is None:
        return text in ("null", "None", "~") or (text.strip() == "" and name not in WORDS)
    if isinstance(value, str):
        return value == text
    if isinstance(value, bool):
        return text.lower() in BOOLEANS[value]
    if isinstance(value, int | float):
        return (math.isfinite(value) and value in numbers(text)) or (value == math.inf and name == "method.within")
    if name.endswith("stop"):
        # What opens with a bracket is a list; anything else is one stop text, to the letter.
        return list(value) == (plain_yaml.loaded(text) if text.strip()[:1] == "[" else [text])
    if name == "k":
        return list(value) == [int(one) for one in text.strip("[]").split(",") if one.strip()]
    return list(value) == json.loads(text)


def value_of(settings, name: str):
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def assert_readable(error: AepoError, *, lines: int) -> None:
    """One line for each thing that was wrong, with a documented code."""
    assert error.exit_code == UNUSABLE and error.exit_code in EXIT_CODES
    said = str(error).split("\n")
    assert len(said) <= lines, said
    for line in said:
        assert 10 < len(line) < LONGEST_LINE and "Traceback" not in line, line


def trainer_line(rng: random.Random) -> tuple[list[str], dict[str, str]]:
    """Arguments, and by field what was typed last."""
    parts, typed = [["--config", "demo_cpu"]], {}
    for name in rng.sample(FREE if rng.random() < 0.6 else FIELDS, rng.choice((1, 1, 2, 3))):
        text = rng.choice(TEXTS)
        apart = rng.random() < 0.2 and not text.startswith("--")
        parts.append([f"--{name}", text] if apart else [f"--{name}={text}"])
        typed[name] = text
    if WORDS & typed.keys() and "data.template" not in typed:
        typed["data.template"] = "chat"
        parts.append(["--data.template=chat"])
    if rng.random() < 0.3:
        parts.append(list(rng.choice(OTHERS)))
    rng.shuffle(parts)
    return [argument for part in parts for argument in part], typed


def check_trainer(rng: random.Random, out: Path) -> str:
    arguments, typed = trainer_line(rng)
    try:
        found = prepared(arguments)
    except AepoError as error:
        assert_readable(error, lines=len(typed) + 1)
        return "refused"
    for name, text in typed.items():
        assert as_typed(value_of(found.settings, name), text, name), (name, text, value_of(found.settings, name))
    # What is not typed stays the preset's, and a resumed run reads the same.
    (out / "settings.yaml").write_text(found.settings.dump())
    assert load(out / "settings.yaml") == found.settings
    plain = load("demo_cpu").model_dump()
    for name in set(leaves()) - typed.keys() - {"model", "method.name"}:
        section, _, field = name.rpartition(".")
        assert value_of(found.settings, name) == (plain[section] if section else plain)[field], name
    assert ("--resume" in arguments or "--resume=must" in arguments) == (found.resume != "no")
    return "accepted"


def check_evaluation(rng: random.Random) -> str:
    arguments, typed = ["--model=models/m"], {}
    for name in rng.sample(list(Options.model_fields), rng.choice((1, 1, 2))):
        typed[name] = rng.choice(TEXTS)
        arguments.append(f"--{rng.choice((name, name.replace('_', '-')))}={typed[name]}")
    if rng.random() < 0.2:
        arguments.insert(rng.randrange(len(arguments)), "--trust-checkpoint")
        typed.pop("trust_checkpoint", None)
    try:
        found = parse_evaluation(arguments)
    except AepoError as error:
        assert_readable(error, lines=1)
        return "refused"
    for name, text in typed.items():
        assert as_typed(getattr(found, name), text, name), (name, text, getattr(found, name))
    return "accepted"


@pytest.mark.parametrize("first, count", [(0, LINES), pytest.param(LINES, 10 * LINES, marks=[EXHAUSTIVE])])
def test_a_command_line_is_taken_as_typed_or_refused_in_a_line(tmp_path, first, count):
    met = Counter()
    for seed in range(first, first + count):
        rng = random.Random(seed)
        try:
            met[check_evaluation(rng) if seed % 4 == 0 else check_trainer(rng, tmp_path)] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
    assert met["accepted"] > count / 10 and met["refused"] > count / 10, met


# -- damaged folders --

JSONS = ("", "{", "[]", "{}", "null", "5", '"x"', "[" * 2000, '{"a": NaN}', '{"a": 1', "\x00\x01", "é\udcff")
VALUES = (None, "x", -1, 0, 10**9, 1.5, [], {}, True, [None], "../x")


def damaged(rng: random.Random, folder: Path) -> str:
    """Break one thing in a folder; what was done, for the message."""
    path = rng.choice(sorted(p for p in folder.rglob("*") if p.is_file()))
    held = path.read_bytes()
    kind = rng.choice(("gone", "cut", "empty", "folder", "garbage", "json", "json value", "json value", "index"))
    if kind == "gone":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(held[: rng.randrange(len(held))])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "garbage":
        path.write_bytes(rng.randbytes(rng.choice((1, 8, 100, len(held)))))
    elif kind == "index":
        names = rng.choice(({"a": "model-1.safetensors"}, {"a": "model.safetensors"}, {}, [], {"a": 5}, {"a": ".."}))
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    else:
        path = rng.choice(sorted(folder.rglob("*.json")))
        if kind == "json":
            path.write_text(rng.choice(JSONS), errors="surrogateescape")
        else:
            content = json.loads(path.read_text())
            name = rng.choice(sorted(content))
            content[name] = rng.choice(VALUES)
            path.write_text(json.dumps(content))
            kind = f"{name}={content[name]!r}"
    return f"{kind} in {path.name}"


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    tokenizer = byte_tokenizer()
    made = load(None, ["data.train=questions.jsonl"])
    from_scratch(made, SimpleNamespace(tokenizer=tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("first, count", [(0, FOLDERS), pytest.param(FOLDERS, 10 * FOLDERS, marks=[EXHAUSTIVE])])
def test_a_damaged_model_is_taken_whole_or_refused_in_a_line(tmp_path, whole_model, first, count):
    met, folder = Counter(), tmp_path / "model"
    expected = of_run(str(whole_model)).loaded(dtype="auto").state_dict()
    for seed in range(first, first + count):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole_model, folder)
        done = damaged(random.Random(seed), folder)
        ends = set()
        for use in (
            lambda: prepared(["--config=demo_cpu", f"--model.path={folder}", f"--out={tmp_path / 'run'}"]),
            lambda: evaluated_model.inspected(str(folder)),
        ):
            try:
                use()
                found = of_run(str(folder)).loaded(dtype="auto").state_dict()
                assert all(torch.equal(found[name], value) for name, value in expected.items()), done
                ends.add("taken")
            except AepoError as error:
                assert_readable(error, lines=1)
                assert str(folder) in str(error), error
                ends.add("refused")
            except Exception as error:
                raise AssertionError(f"seed {seed}, {done}: {error!r}") from error
        met[" and ".join(sorted(ends))] += 1
    # Only what the trainer alone reads, generation_config.json, may end differently.
    assert met["refused"] > count / 3 and met["taken"] > 0 and met["refused and taken"] < count / 5, met


class Stepper:
    """Writes weights as DeepSpeed does."""

    zero_stage = 0

    def __init__(self, settings: Settings) -> None:
        self.weights = from_scratch(settings, walk_task()).state_dict()

    def save(self, folder: Path) -> None:
        (folder / "state").mkdir()
        named = {as_model.PREFIX + name: value for name, value in self.weights.items()}
        torch.save({"module": named}, folder / "state" / "mp_rank_00_model_states.pt")


@pytest.mark.parametrize("first, count", [(0, FOLDERS), pytest.param(FOLDERS, 10 * FOLDERS, marks=[EXHAUSTIVE])])
def test_a_damaged_checkpoint_is_passed_over_or_refused_in_a_line(tmp_path, caplog, first, count):
    met, kept, out = Counter(), tmp_path / "kept", tmp_path / "run"
    settings = load(None, [f"out={out}"])
    policy = SimpleNamespace(updates=3, skipped_in_a_row=0, parameter_count=6)
    loop = Loop(state={}, previous_entropy=torch.tensor(0.5), initial_entropy=torch.tensor(1.0))
    for step in (2, 4):
        checkpoint.save(settings, policy, Stepper(settings), checkpoint.Progress(step=step, loop=loop))
    out.rename(kept)
    for seed in range(first, first + count):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(kept, out)
        newest = out / "checkpoints" / "step_000004"
        done = damaged(random.Random(seed), newest)
        caplog.clear()
        try:
            with caplog.at_level(logging.ERROR):
                found = checkpoint.newest(settings)
            assert found is not None
            checkpoint.data_of(found)
            if found != newest:
                assert "is damaged and passed over" in caplog.text and "\n" not in caplog.messages[0], done
            met[found.name] += 1
        except AepoError as error:
            assert_readable(error, lines=4)
            met["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}, {done}: {error!r}") from error
        try:
            if as_model.is_checkpoint(newest):
                as_model.step_of(newest)
                as_model.write_model(newest, tmp_path / "made")
                met["evaluated"] += 1
        except AepoError as error:
            assert_readable(error, lines=4)
        except Exception as error:
            raise AssertionError(f"seed {seed}, evaluated, {done}: {error!r}") from error
    assert met["step_000002"] > count / 2 and met["evaluated"] > 0, met


# -- through the commands themselves --


def assert_one_line(done: subprocess.CompletedProcess) -> None:
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == UNUSABLE and len(said) == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr + done.stdout


REFUSED = (
    ["--train.steps=nan"], ["--train.lr=inf"], ["--out="], ["--resume", "--train.steps=1.5", "--out=a b"],
    ["--reward.function=none"], ["--train.betas=[2, 3]"], ["--data.instruction=\n\nx"], ["--train.steps=true"],
    ["--target.value=.nan"], ["--model.path=./no/such #1"],
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("arguments", REFUSED, ids=str)
def test_the_command_refuses_a_hostile_line_with_code_2(tmp_path, arguments):
    assert_one_line(launch(tmp_path / "run", *arguments))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_command_refuses_a_damaged_model_with_code_2(tmp_path, whole_model, seed):
    folder = tmp_path / "a model"
    shutil.copytree(whole_model, folder)
    rng = random.Random(seed)
    path = folder / rng.choice(("config.json", "model.safetensors", "tokenizer.json"))
    path.write_bytes(path.read_bytes()[: rng.randrange(1000)])
    done = launch(tmp_path / "run", f"--model.path={folder}")
    assert_one_line(done)
    assert f"model.path={folder}" in done.stderr


TELL = "import json, sys; json.dump(sys.argv[1:], open(sys.argv[2], 'w'))"


@pytest.mark.slow
def test_the_launchers_hand_on_what_was_typed(tmp_path):
    script, told = tmp_path / "tell.py", tmp_path / "a told"
    script.write_text(TELL)
    hostile = [f"--data.instruction={text}" for text in TEXTS if len(text) < 1000 and text != "\udc80"]
    deepspeed = [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "1", str(script)]
    subprocess.run([*deepspeed, str(told), "--resume", *hostile], check=True, capture_output=True, cwd=ROOT)
    assert json.loads(told.read_text())[1:] == [str(told), "--resume", *hostile]
