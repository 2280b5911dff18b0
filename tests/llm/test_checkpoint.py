"""Checkpoints without a model: what is kept, what is damaged, what a full disk leaves."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from aepo.controller import Loop
from aepo.llm import checkpoint
from aepo.llm.settings import Settings, SettingsError


class Stepper:
    """Writes one file."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails

    def save(self, folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "state" / "weights.pt").write_bytes(b"0123456789" * 1000)
        if self.fails is not None:
            raise self.fails


POLICY = SimpleNamespace(updates=3, parameter_count=6)


def settings(out: Path, keep_last: int = 2, **changes) -> Settings:
    return Settings(out=str(out), checkpoint={"keep_last": keep_last}, **changes)


def save(chosen: Settings, step: int, stepper: Stepper | None = None) -> None:
    loop = Loop(state={}, previous_entropy=torch.tensor(0.5), initial_entropy=torch.tensor(1.0))
    checkpoint.save(chosen, POLICY, stepper or Stepper(), checkpoint.Progress(step=step, loop=loop))


def steps(out: Path) -> list[str]:
    return sorted(p.name for p in (out / "checkpoints").iterdir())


def test_the_newest_are_kept_and_each_names_its_files(tmp_path):
    chosen = settings(tmp_path)
    for step in (2, 4, 6):
        save(chosen, step)
    assert steps(tmp_path) == ["step_000004", "step_000006"]
    folder = checkpoint.newest(chosen)
    assert folder is not None and folder.name == "step_000006"
    files = json.loads((folder / "manifest.json").read_text())
    assert set(files) == {"settings.yaml", "progress.json", "controller.pt", "state/weights.pt"}
    assert files["state/weights.pt"][0] == 10_000


@pytest.mark.parametrize("damage", ["byte", "cut", "missing", "manifest", "progress"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, caplog, damage):
    chosen = settings(tmp_path)
    save(chosen, 2)
    save(chosen, 4)
    newest = tmp_path / "checkpoints" / "step_000004"
    file = newest / "state" / "weights.pt"
    if damage == "byte":
        data = bytearray(file.read_bytes())
        data[5000] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "missing":
        file.unlink()
    elif damage == "manifest":
        (newest / "manifest.json").write_text("{")
    else:
        (newest / "progress.json").write_text('{"step": 5, "updates": 3}')
    found = checkpoint.newest(chosen)
    assert found is not None and found.name == "step_000002"
    assert "step_000004 is damaged and passed over" in caplog.text


def test_what_was_saved_after_a_damaged_one_is_kept_and_the_damaged_one_goes(tmp_path):
    chosen = settings(tmp_path, keep_last=1)
    save(chosen, 2)
    damaged = settings(tmp_path, keep_last=2)
    save(damaged, 9)
    (tmp_path / "checkpoints" / "step_000009" / "state" / "weights.pt").write_bytes(b"")
    assert checkpoint.newest(chosen).name == "step_000002"
    save(chosen, 3)
    assert steps(tmp_path) == ["step_000003"]


def test_without_a_whole_one_must_refuses_and_auto_starts_anew(tmp_path, caplog):
    chosen = settings(tmp_path)
    for make in (lambda: None, lambda: save(chosen, 2)):
        make()
        for manifest in tmp_path.rglob("manifest.json"):
            manifest.unlink()
        with pytest.raises(SettingsError, match="no whole checkpoint under"):
            checkpoint.newest(chosen)
        assert checkpoint.newest(chosen, required=False) is None
        assert "starting anew" in caplog.text


def test_other_settings_are_refused_and_listed_but_deadlines_may_change(tmp_path):
    save(settings(tmp_path), 2)
    with pytest.raises(SettingsError, match=r"step_000002 was made with other settings[^$]*seed: checkpoint 0, now 1"):
        checkpoint.newest(settings(tmp_path, seed=1), required=False)
    assert checkpoint.newest(settings(tmp_path, watchdog={"generate": 5})) is not None


@pytest.mark.parametrize(
    "fails", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")], ids=repr
)
def test_a_write_that_fails_is_told_and_leaves_the_one_before(tmp_path, fails):
    chosen = settings(tmp_path)
    save(chosen, 2)
    with pytest.raises(checkpoint.CheckpointError, match=r"writing .*step_000004 failed .* GB free\): "):
        save(chosen, 4, Stepper(fails))
    assert steps(tmp_path) == ["step_000002"]
    assert checkpoint.newest(chosen).name == "step_000002"


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    chosen = settings(tmp_path)
    save(chosen, 2)
    # As large as the last one: 10 kB of weights and the small files.
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(
        checkpoint.CheckpointError, match=r"no room for a checkpoint under .* lower checkpoint.keep_last"
    ):
        save(chosen, 4)
    assert steps(tmp_path) == ["step_000002"]
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
    save(chosen, 4)
