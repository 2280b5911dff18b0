"""A model that cannot be used is one line with the cure, in training as in evaluation, before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from aepo.llm import train
from aepo.llm.evaluation import evaluated_model
from aepo.llm.policy.model import from_scratch
from aepo.llm.policy.warm_start import load_model
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.settings import SettingsError, load
from aepo.llm.settings.model_source import located


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    tokenizer = byte_tokenizer()
    from_scratch(load(None), SimpleNamespace(tokenizer=tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def cut(name: str, *, to: int = -100) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:to])


def written(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def changed(**values) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return change


def index(weights: dict) -> Callable[[Path], object]:
    return written("model.safetensors.index.json", json.dumps({"weight_map": weights}))


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def without_end_token(folder: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)


def pickled(folder: Path) -> None:
    """Weights in torch's older form, cut off."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    cut("pytorch_model.bin")(folder)


BROKEN = {
    "gone": (shutil.rmtree, "no such folder; name one with config.json, weights and tokenizer"),
    "config alone": (lambda folder: (folder / "model.safetensors").unlink(), "no weights there"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json there"),
    "config cut off": (cut("config.json"), "config.json is unreadable"),
    "config is a list": (written("config.json", "[]"), "config.json must hold an object"),
    "unknown type": (changed(model_type="nope"), "no model can be had"),
    "type of a field": (changed(hidden_size="big"), "no model can be had"),
    "sizes": (changed(num_attention_heads=0), "no causal language model can be built of its config.json"),
    "no language model": (changed(model_type="vit"), "no causal language model can be built of its config.json"),
    "layers": (changed(num_hidden_layers=10**9, layer_types=None), "config.json has num_hidden_layers=1000000000"),
    "weights cut off": (cut("model.safetensors"), "its weights cannot be loaded: model.safetensors"),
    "weights empty": (cut("model.safetensors", to=0), "its weights cannot be loaded: model.safetensors"),
    "pickle cut off": (pickled, "its weights cannot be loaded: pytorch_model.bin"),
    "shard missing": (index({"a": "model-2.safetensors"}), "names model-2.safetensors, which is not there (1 of 1"),
    "shard lacks": (index({"a": "model.safetensors"}), "a is not in model.safetensors, where"),
    "index of nothing": (index({}), "model.safetensors.index.json names no files of weights"),
    "no tokenizer": (without_tokenizer, "no tokenizer there (tokenizer.json); copy the one"),
    "tokenizer cut off": (cut("tokenizer.json"), "its tokenizer cannot be read"),
    "no end token": (without_end_token, "its tokenizer has no end token"),
    "other tokenizer": (changed(vocab_size=200), "its tokenizer has the token 257, and the model embeds 200"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_training_and_evaluation_refuse_alike_before_anything_is_loaded(tmp_path, whole, broken, capsys):
    folder, (breaks, told) = tmp_path / "a model", BROKEN[broken]
    shutil.copytree(whole, folder)
    breaks(folder)
    out = tmp_path / "run"
    assert train.main(["--config=demo_cpu", f"--model.path={folder}", "--data.train=F.jsonl", f"--out={out}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: model.path={folder}: ") and told in said and said.count("\n") == 1, said
    with pytest.raises(SettingsError) as evaluated:
        evaluated_model.inspected(str(folder))
    assert said == f"error: {evaluated.value}\n".replace("--model=", "model.path=")
    assert not out.exists()


def test_a_whole_model_is_taken_also_by_its_place_below_the_home_folder(tmp_path, whole, monkeypatch):
    monkeypatch.setenv("HOME", str(whole.parent))
    for path in (str(whole), f"~/{whole.name}"):
        typed = ["--config=demo_cpu", f"--model.path={path}", "--data.train=F.jsonl", f"--out={tmp_path}"]
        settings = train.prepared(typed).settings
        found = load_model(settings, SimpleNamespace()).state_dict()
        assert found.keys() == load_file(whole / "model.safetensors").keys()


def test_weights_that_are_not_there_are_not_drawn_at_random(tmp_path, whole):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SettingsError, match=r"model\.path=.*: 1 weights are not in its files, such as model\.norm"):
        load_model(load(None, [f"model.path={folder}", "data.train=F.jsonl"]), SimpleNamespace())


def test_a_runs_folder_and_a_checkpoint_are_told_from_a_model(tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run" / "final")
    (tmp_path / "step_000002").mkdir()
    (tmp_path / "step_000002" / "progress.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"its trained model is model\.path=.*run/final"):
        located(str(tmp_path / "run"))
    with pytest.raises(SettingsError, match="a checkpoint for --resume"):
        located(str(tmp_path / "step_000002"))


@pytest.mark.parametrize("option", ["model.path", "--model"])
def test_a_name_on_the_hub_is_asked_for_once_and_refused_in_a_line(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    answer = SimpleNamespace(headers={}, request=None, status_code=404)
    asked = []

    def model_info(self, name, **_):
        asked.append(name)
        raise (RepositoryNotFoundError("404", response=answer) if name == "owner/unknown" else ConnectionError("no"))

    monkeypatch.setattr(HfApi, "model_info", model_info)
    for name, told in (("owner/unknown", "the hub has no model of that name"), ("owner/x", "cannot be reached")):
        with pytest.raises(SettingsError, match=rf"{option}={name}: no such folder, and the hub .*{told.split()[-1]}"):
            located(name, option=option)
    assert asked == ["owner/unknown", "owner/x"]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert located("owner/x").place == "owner/x"


@pytest.mark.parametrize("there", ["file", "nothing", "folder"])
def test_a_gguf_file_is_one_line_with_the_command_that_makes_a_folder_of_it(tmp_path, there, capsys):
    named = tmp_path / "a" / "small.Q4_1.gguf"
    named.parent.mkdir()
    if there != "nothing":
        named.write_bytes(b"GGUF")
    typed = named.parent if there == "folder" else named
    assert train.main(["--config=demo_cpu", f"--model.path={typed}", "--data.train=F.jsonl"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"error: model.path={typed}: " in said and f"aepo model {named} --out DIR" in said


def test_a_gguf_file_that_is_not_there_does_not_wait_for_the_hub(monkeypatch):
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(SettingsError, match="no such file"):
        located("small.gguf")
