"""A checkpoint runs no code of whoever wrote it, unless the person who loads it says that it may."""

import contextlib
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from running import SMALL, launch, trained

from aepo.llm.checkpoints import as_model, unpickling
from aepo.llm.checkpoints.checkpoint import MANIFEST, _fingerprint
from aepo.llm.settings import Settings, SettingsError

REFUSED = r"{option}: .*{file} asks for os\.makedirs, which is no part .* can run any code .* --trust-checkpoint"


class Makes:
    """Whoever unpickles it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        # Loaded twice, it makes it once.
        return os.makedirs, (str(self.path), 0o777, True)


def written(form: str, value: object, path: Path) -> None:
    """In torch's form, in its form before 1.6, or as a bare pickle, which its loading of that form takes too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=2))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_a_file_that_would_run_code_is_named_with_what_it_asks_for_and_runs_none(tmp_path, form):
    made, file = tmp_path / "made", tmp_path / "checkpoint" / "state" / "weights.pt"
    written(form, {"more": Makes(made), "module": {"w": torch.ones(3)}}, file)
    with pytest.raises(SettingsError, match=REFUSED.format(option="--resume", file="weights.pt")):
        unpickling.check(tmp_path / "checkpoint", option="--resume")
    with (
        pytest.raises(SettingsError, match=r"--resume: .*checkpoint asks for os\.makedirs: .* --trust-checkpoint"),
        unpickling.only_tensors(tmp_path / "checkpoint", option="--resume"),
    ):
        # As DeepSpeed loads.
        torch.load(file, weights_only=False)
    assert not made.exists()
    # A bare pickle is no file of torch's, which shows when it has been loaded.
    with unpickling.only_tensors(tmp_path, option="--resume", trusted=True), contextlib.suppress(RuntimeError):
        torch.load(file, weights_only=False)
    assert made.exists(), "the file would have run code"


@pytest.mark.parametrize("name", ["posix.system", "builtins.eval", "subprocess.Popen"])
def test_functions_of_blocked_modules_are_named_too(tmp_path, name):
    module, _, function = name.rpartition(".")
    (tmp_path / "x.pt").write_bytes(f"c{module}\n{function}\n(S'true'\ntR.".encode())
    with pytest.raises(SettingsError, match=rf"x\.pt asks for (builtins\.)?{function if 'eval' in name else name}, "):
        unpickling.check(tmp_path, option="--resume")


def test_a_stage_is_written_as_its_class_and_value_on_every_python():
    """Python 3.11.0 to 3.11.3 write a call of getattr, which is refused when it is read."""
    from deepspeed.runtime.zero.config import ZeroStageEnum

    unpickling.write_enums_by_value()
    for stage in ZeroStageEnum:
        written = pickle.dumps(stage)
        assert b"getattr" not in written and pickle.loads(written) is stage


def test_tensors_plain_values_and_deepspeeds_own_state_pass(tmp_path):
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    state = {
        "w": torch.arange(5.0, dtype=torch.bfloat16),
        "shapes": [torch.Size([2, 3])],
        "scaler": LossScaler(2.0),
        "stage": ZeroStageEnum.weights,
        "at": fragment_address(numel=3, start=1),
        "none": (None, True, 1, 0.5, "text"),
    }
    unpickling.write_enums_by_value()
    torch.save(state, tmp_path / "state.pt")
    unpickling.check(tmp_path, option="--resume")
    with unpickling.only_tensors(tmp_path, option="--resume"):
        found = torch.load(tmp_path / "state.pt", weights_only=False)
    assert torch.equal(found["w"], state["w"]) and found["scaler"].cur_scale == 2.0
    assert found["stage"] is ZeroStageEnum.weights and found["at"] == state["at"] and found["none"] == state["none"]


def test_what_was_in_force_before_is_in_force_afterwards(tmp_path, monkeypatch):
    monkeypatch.delenv(unpickling.ONLY_WEIGHTS, raising=False)
    classes = set(torch.serialization.get_safe_globals())
    with unpickling.only_tensors(tmp_path, option="--resume"):
        assert os.environ[unpickling.ONLY_WEIGHTS] == "1"
    assert unpickling.ONLY_WEIGHTS not in os.environ
    assert set(torch.serialization.get_safe_globals()) == classes
    monkeypatch.setenv(unpickling.ONLY_WEIGHTS, "0")
    with pytest.raises(ZeroDivisionError), unpickling.only_tensors(tmp_path, option="--resume"):
        _ = 1 / 0
    assert os.environ[unpickling.ONLY_WEIGHTS] == "0"


def test_a_damaged_file_is_left_to_whoever_loads_it(tmp_path):
    torch.save({"w": torch.ones(1000)}, tmp_path / "cut.pt")
    whole = (tmp_path / "cut.pt").read_bytes()
    for content in (b"", b"no tensors" * 100, whole[: len(whole) // 2], whole[:-100] + bytes(100)):
        (tmp_path / "cut.pt").write_bytes(content)
        unpickling.check(tmp_path, option="--resume")


def poison(checkpoint: Path, made: Path) -> None:
    """As somebody would who hands the checkpoint on: its manifest fits."""
    file = checkpoint / "state" / "mp_rank_00_model_states.pt"
    torch.save({**torch.load(file, weights_only=False), "more": Makes(made)}, file)
    manifest = checkpoint / MANIFEST
    if manifest.exists():
        files = json.loads(manifest.read_text()) | {"state/mp_rank_00_model_states.pt": _fingerprint(file)}
        manifest.write_text(json.dumps(files))


def test_an_evaluation_refuses_a_checkpoint_that_would_run_code_and_takes_it_when_told_to(
    tmp_path, monkeypatch, capsys
):
    from aepo.llm.evaluation import runner
    from aepo.llm.evaluation.__main__ import main
    from aepo.llm.policy.model import from_scratch
    from aepo.llm.questions.loading import load_task

    settings = Settings(data={"train": "walk"})
    checkpoint, made = tmp_path / "checkpoints" / "step_000002", tmp_path / "made"
    (checkpoint / "state").mkdir(parents=True)
    (checkpoint / "settings.yaml").write_text(settings.dump())
    (checkpoint / "progress.json").write_text(json.dumps({"step": 2}))
    weights = {f"model.{name}": w for name, w in from_scratch(settings, load_task(settings)).state_dict().items()}
    torch.save({"module": weights}, checkpoint / "state" / "mp_rank_00_model_states.pt")
    as_model.write_model(checkpoint, tmp_path / "as_model")
    poison(checkpoint, made)

    class Loaded(Exception):
        """Far enough."""

    def inspected(source, *, made):
        assert (made / "model.safetensors").is_file()
        raise Loaded

    monkeypatch.setattr(runner, "inspected", inspected)
    asked = [f"--model={checkpoint}", "--suite=walk", f"--out={tmp_path / 'out'}"]
    assert main(asked) == 2
    printed = capsys.readouterr().err
    assert "model_states.pt asks for os.makedirs" in printed and "--trust-checkpoint" in printed
    assert not made.exists() and not (tmp_path / "out" / "model").exists()
    with pytest.raises(Loaded):
        main([*asked, "--trust-checkpoint"])
    assert made.exists()


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", [0, 1])
def test_a_run_refuses_to_go_on_from_one_and_does_when_told_to(tmp_path, stage):
    out, made = tmp_path / "run", tmp_path / "made"
    chosen = (f"--train.zero_stage={stage}", "--evaluation.samples=0")
    trained(out, *chosen, "--train.steps=2")
    poison(out / "checkpoints" / "step_000002", made)
    for resume in ("--resume", "--resume=auto"):
        refused = launch(out, *SMALL, *chosen, "--train.steps=3", resume)
        assert refused.returncode == 2, refused.stderr[-3000:]
        assert "model_states.pt asks for os.makedirs" in refused.stderr and "--trust-checkpoint" in refused.stderr
        assert "Traceback" not in refused.stderr and not made.exists()
    steps = trained(out, *chosen, "--train.steps=3", "--resume", "--trust-checkpoint")
    assert [row["step"] for row in steps] == [0, 1, 2] and made.exists()
