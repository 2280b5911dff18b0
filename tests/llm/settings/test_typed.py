"""What is typed is what a run has: texts to the letter, one spelling of nothing, numbers that are numbers."""

import contextlib
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import launch
from tiny_models import chatting

from aepo.llm import train
from aepo.llm.doctor import __main__ as doctor
from aepo.llm.evaluation.options import parse as parse_evaluation
from aepo.llm.processes import launch as aepo_train
from aepo.llm.questions.templates import prompter
from aepo.llm.settings import Settings, SettingsError, load, parse

INSTRUCTION = "\n\nWrite the final answer after ####."
HOSTILE = (
    "a #b", "#", "Answer: x", " a ", "\n", "{a: b}", "[1]", '"a"', "yes", "no", "1.0", "1e3", "010", "1:30", "~",
    "${seed}", "$HOME", "a=b", "--x", "\t", "数学", "\u2028", "'", "|", "*a", "null and None", "x: {y: 1}  # z",
)  # fmt: skip
# What may not be in an argument or in UTF-8, or is read as nothing, is told by tests of its own.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])).filter(
    lambda text: text.lower() not in ("none", "null")
)


def chat(field: str, text: str) -> list[str]:
    return ["--data.template=chat", f"--data.{field}={text}"]


@pytest.mark.parametrize("text", [*HOSTILE, INSTRUCTION, ""])
@pytest.mark.parametrize("field", ["instruction", "system_prompt"])
def test_words_of_a_prompt_are_those_typed_in_training_and_evaluation(field, text):
    trained = parse(chat(field, text)).settings
    assert getattr(trained.data, field) == text
    option = f"--{field.replace('_', '-')}"
    for typed in ([f"{option}={text}"], *([[option, text]] if not text.startswith("--") else [])):
        assert getattr(parse_evaluation(["--model=m", "--template=chat", *typed]), field) == text


def test_the_instruction_reaches_the_prompt_with_its_leading_lines():
    data = parse(chat("instruction", INSTRUCTION)).settings.data
    words = {"system_prompt": data.system_prompt, "instruction": data.instruction}
    assert f"1+1?{INSTRUCTION}<|im_end|>" in prompter(chatting(None), data.template, **words)("1+1?")


@given(TEXTS)
def test_a_text_is_read_back_from_the_settings_beside_the_run(text):
    chosen = load(None, ["data.template=chat", f"data.instruction={text}"])
    assert chosen.data.instruction == text
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "is_file", lambda self: True)
        patched.setattr(Path, "read_bytes", lambda self: chosen.dump().encode("ascii"))
        assert load("settings.yaml") == chosen


@pytest.mark.parametrize("text", HOSTILE)
def test_a_folder_is_named_by_what_was_typed(tmp_path, text):
    if not text.strip():
        pytest.skip("names nothing")
    chosen = parse(["--out", text] if not text.startswith("--") else [f"--out={text}"]).settings
    assert chosen.out == text
    (tmp_path / "settings.yaml").write_text(chosen.dump())
    assert load(tmp_path / "settings.yaml") == chosen


def test_a_file_keeps_the_rules_of_yaml(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        "out: a #b\ndata: {template: chat, system_prompt: 'a: #b', instruction: \"\\n\\n${seed}\"}\n"
        "log: {wandb_project: 'no'}\nmodel: {path: None}\nreward: {function: null}\nseed: 010\n"
    )
    found = load(file)
    assert (found.out, found.data.system_prompt, found.data.instruction) == ("a", "a: #b", "\n\n${seed}")
    assert (found.log.wandb_project, found.model.path, found.reward.function) == ("no", None, None)
    assert found.seed == 10, "YAML 1.1 would have read eight"


@pytest.mark.parametrize("text", ["seed: 1\nseed: 2\n", "train: {lr: 1e-3, steps: 4, lr: 1e-4}\n"])
def test_a_key_that_stands_twice_is_refused_and_not_the_last_one_taken(tmp_path, text):
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(SettingsError, match=r"the key '(seed|lr)' stands there twice"):
        load(tmp_path / "own.yaml")


OPTIONAL = ("log.wandb_project", "model.path", "reward.function", "data.question_column", "data.answer_column")


@pytest.mark.parametrize("field", OPTIONAL)
@pytest.mark.parametrize("text", ["null", "None", ""])
def test_null_and_none_and_the_empty_text_unset_an_optional_name(field, text):
    section, name = field.split(".")
    assert getattr(getattr(load(None, [f"{field}={text}"]), section), name) is None


@pytest.mark.parametrize("text", ["null", "None"])
def test_null_unsets_everywhere_alike(tmp_path, text):
    typed = parse([*chat("instruction", text), f"--data.system_prompt={text}", f"--rollout.canary_limit={text}"])
    assert typed.settings.data.instruction is typed.settings.data.system_prompt is None
    assert typed.settings.rollout.canary_limit is None
    assert load(None, [f"method.cap_up={text}", f"watchdog.push={text}"]).watchdog.push is None
    options = [f"--{name}={text}" for name in ("label", "samples", "temperature", "system-prompt", "instruction")]
    found = parse_evaluation(["--model=m", *options])
    assert {found.label, found.samples, found.temperature, found.system_prompt, found.instruction} == {None}
    (tmp_path / "own.yaml").write_text(f"model: {{path: {text}}}\nrollout: {{canary_limit: {text}}}\n")
    assert load(tmp_path / "own.yaml").model.path is None
    for required in ("out", "train.steps", "data.template", "rollout.engine"):
        with pytest.raises(SettingsError, match=rf"{required}: .*got None"):
            load(None, [f"{required}={text}"])


@pytest.mark.parametrize("field", [*OPTIONAL, "data.instruction", "rollout.canary_limit", "method.cap_up"])
@pytest.mark.parametrize("text", ["none", "NONE", "NULL", "Null"])
def test_another_spelling_of_nothing_is_refused_with_the_right_one(field, text):
    with pytest.raises(SettingsError, match=rf"{field}: is no value; write null.*got '{text}'"):
        load(None, [f"{field}={text}"])


def test_none_is_a_word_where_it_is_one_of_a_fields():
    assert load(None, ["rollout.correction=none", "method.std=none"]).rollout.correction == "none"
    assert load(None, ["out=none"]).out == "none"


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("train.steps=1.5", "valid integer.*got 1.5"),
        ("train.steps=ten", "valid integer.*got 'ten'"),
        ("train.steps=true", "must be a number.*got True"),
        ("train.steps=1:30", "valid integer.*got '1:30'"),
        ("train.steps=5 #6", "valid integer.*got '5 #6'"),
        ("train.steps=", "valid integer.*got ''"),
        ("train.zero_stage=true", "must be a number"),
        ("train.packing=2", "valid boolean.*got 2"),
        ("seed=99999999999999999999", "64 bits"),
        ("train.lr=nan", "finite number"),
        ("train.lr=.inf", "finite number"),
        ("train.lr=1e999", "finite number"),
        ("train.betas=[2, 3]", r"each must be in \[0, 1\)"),
        ("train.betas=[0.9, true]", "must be a number"),
        ("train.betas=[0.9", "not readable.*got '\\[0.9'"),
        ("watchdog.push=inf", "finite number"),
        ("evaluation.ks=[1, .nan]", "integer|finite"),
        ("target.value=nan", "finite number"),
        ("target.value=.inf", "finite number"),
        ("target.value=ten", "valid number.*got 'ten'"),
        ("method.alpha=.nan", "finite number"),
        ("method.alpha=inf", "finite number"),
        ("method.alpha=ten", "valid number.*got 'ten'"),
        ("method.alpha=true", "must be a number"),
        ("method.cap_up=1.5", "valid integer"),
        ("method.normalizer=5", "'all', 'positives' or 'replace'.*got '5'"),
        ("method.coef_schedule=sinusoid", "'constant', 'linear', 'cosine' or 'step'.*got 'sinusoid'"),
        ("method.coef_end=nan", "finite number"),
        ("method.coef_steps=1.5", "valid integer"),
        ("train=5", "is a section; write --train.FIELD=VALUE, got '?5"),
        ("out= ", "names nothing"),
        ("out=" + "x" * 300, "longer than"),
        ("out=\udc80", "not UTF-8"),
        ("trian.lr=1", "unknown field; did you mean 'train'"),
        ("steps=1", "unknown field; did you mean 'warm_start.steps' or 'train.steps'"),
    ],
)
def test_what_is_not_of_its_kind_is_refused_by_name_and_value_in_a_line(typed, told, capsys):
    field = typed.partition("=")[0].removesuffix(".lr" if typed.startswith("trian") else "=")
    assert train.main(["--config=demo_cpu", f"--{typed}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {field}") and said.count("\n") == 1
    with pytest.raises(SettingsError, match=told):
        load(None, [typed])


@pytest.mark.parametrize("name", ["temperature", "top-p", "deadline-seconds", "samples", "seed"])
@pytest.mark.parametrize("text", ["nan", "inf", "1e999", "ten", "true", ".nan"])
def test_the_evaluation_refuses_the_same(name, text):
    with pytest.raises(SettingsError, match=rf"--{name}: .*got '{text}'"):
        parse_evaluation(["--model=m", f"--{name}={text}"])


def test_a_coefficient_takes_a_schedule():
    typed = ["method.name=entropy_reg", "method.coef=0.1", "method.coef_schedule=linear", "method.coef_steps=50"]
    assert load(None, typed).method.build().label == "coef=0.1, linear to 0 in 50"


def test_numbers_are_those_typed():
    found = load(None, ["train.steps=0x10", "train.lr=1e-3", "seed=-1", "train.prompts_per_step=1e3", "method.alpha=2"])
    assert (found.train.steps, found.train.lr, found.seed, found.train.prompts_per_step) == (16, 1e-3, -1, 1000)
    assert load(None, ["method.name=aepo_pi", "method.within=.inf"]).method.build()


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(
    "resume, expected", [(["--resume"], "must"), (["--resume", "auto"], "auto"), (["--resume=must"], "must")]
)
def test_resume_never_takes_the_next_argument(place, resume, expected):
    rest = ["--config=demo_cpu", "--out=runs/a b"]
    found = parse([*rest[:place], *resume, *rest[place:]])
    assert (found.resume, found.settings.out, found.settings.train.steps) == (expected, "runs/a b", 450)
    assert parse(["--resume", "--overwrite", "--out", "a b"]).overwrite
    with pytest.raises(SettingsError, match="--resume: takes must, auto or no value, got 'later'"):
        parse(["--resume", "later"])


def test_no_other_option_takes_the_next_argument():
    found = parse_evaluation(["--trust-checkpoint", "--out=a b", "--model=m"])
    assert (found.trust_checkpoint, found.out) == (True, "a b")
    with pytest.raises(SettingsError, match=r"unknown argument '--oout=a b'; did you mean --out\?"):
        parse_evaluation(["--model=m", "--trust-checkpoint", "--oout=a b"])
    with pytest.raises(SettingsError, match=r"--data\.instruction: expected one argument"):
        parse(["--data.instruction", "--overwrite", "x"])
    assert aepo_train._own(["--resume", "--out=a b", "--ranks", "2", "--seed", "3"]) == (
        2, ["--resume", "--out=a b", "--seed", "3"],
    )  # fmt: skip
    own, rest = doctor._own(["--resume", "--out=a b", "--gpus", "8", "--seed", "-1"])
    assert (own.gpus, rest) == (8, ["--resume", "--out=a b", "--seed=-1"])


def test_of_options_that_are_given_twice_the_last_counts():
    assert parse(["--seed=1", "--seed=2", "--resume=auto", "--resume"]).settings.seed == 2
    assert parse_evaluation(["--model=a", "--model=b"]).model == "b"


@pytest.mark.parametrize(
    "text", ["--", "-x", "x", "", "--=3", "--.=3", "--train", "--train.lr", "--resme", "--overwrite=yes"]
)
def test_an_argument_of_another_form_is_one_line(text, capsys):
    assert train.main(["--config=demo_cpu", text]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: argument ") and said.count("\n") == 1


def test_a_missing_model_is_one_line_without_a_hub(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for path in ("models/typo", "./typo", "runs/a/final", "~/no such model", str(tmp_path / "typo")):
        assert train.main(["--config=demo_cpu", f"--model.path={path}", "--data.train=F.jsonl"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: model.path={path}: no such folder; name one with") and said.count("\n") == 1


def test_settings_that_python_code_makes_are_checked_alike():
    for wrong in (
        {"train": {"steps": True}},
        {"out": ""},
        {"model": {"path": "None"}},
        {"train": {"lr": float("nan")}},
    ):
        with pytest.raises(ValueError):
            Settings.model_validate(wrong)
    assert Settings.model_validate({"reward": {"function": ""}}).reward.function is None


@contextlib.contextmanager
def taken_port():
    with socket.socket(socket.AF_INET6) as held:
        held.bind(("::", 0))
        held.listen()
        yield held.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_port_in_use_is_named_with_the_cure_and_is_no_lost_rank(tmp_path, ranks):
    with taken_port() as port:
        done = launch(tmp_path / "run", ranks=ranks, port=port)
    assert done.returncode == 2, done.stderr[-3000:]
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and f"port {port}" in said[0] and "--master_port" in said[0] and "MASTER_PORT" in said[0]
    assert "Traceback" not in done.stderr and "resume" not in said[0]


@pytest.mark.parametrize("text", ["\n", " END", "END ", "a: b", "1.50", "- x", "true", "\t", "#", "{x}"])
def test_one_text_for_a_list_of_texts_is_taken_to_the_letter(text):
    for typed in ([f"--stop={text}"], ["--stop", text]):
        assert parse_evaluation(["--model=m", "--suite=walk", *typed]).stop == (text,)
    assert load("demo_cpu", ["data.train=mine.jsonl", f"rollout.stop={text}"]).rollout.stop == (text,)
