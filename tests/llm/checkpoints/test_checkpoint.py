"""Checkpoints without a model: what is kept, what is damaged, what a full disk leaves."""

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aepo.controller import Loop
from aepo.llm.checkpoints import checkpoint
from aepo.llm.settings import Settings, SettingsError


class Stepper:
    """Writes one file."""

    zero_stage = 0

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails

    def save(self, folder: Path) -> None:
        (folder / "state").mkdir()
        (folder / "state" / "weights.pt").write_bytes(b"0123456789" * 1000)
        if self.fails is not None:
            raise self.fails


POLICY = SimpleNamespace(updates=3, skipped_in_a_row=1, parameter_count=6)


def settings(out: Path, keep_last: int = 2, keep_best: int = 0, **changes) -> Settings:
    return Settings(out=str(out), checkpoint={"keep_last": keep_last, "keep_best": keep_best}, **changes)


def save(
    chosen: Settings,
    step: int,
    stepper: Stepper | None = None,
    reward: float = math.nan,
    held_out: Mapping[int, float] | None = None,
) -> None:
    loop = Loop(state={}, previous_entropy=torch.tensor(0.5), initial_entropy=torch.tensor(1.0))
    progress = checkpoint.Progress(step=step, loop=loop, reward=reward, held_out=held_out or {})
    checkpoint.save(chosen, POLICY, stepper or Stepper(), progress)


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


def test_the_number_of_steps_may_change_unless_the_learning_rate_falls_towards_the_last(tmp_path):
    save(settings(tmp_path), 2)
    assert checkpoint.newest(settings(tmp_path, train={"steps": 500, "gradient_checkpointing": True})) is not None
    falls = {"lr_schedule": "linear", "steps": 100}
    save(settings(tmp_path, train=falls), 4)
    assert checkpoint.newest(settings(tmp_path, train=falls)).name == "step_000004"
    with pytest.raises(SettingsError, match=r"train.steps: checkpoint 100, now 200"):
        checkpoint.newest(settings(tmp_path, train={**falls, "steps": 200}))


def test_the_count_of_steps_left_out_comes_back(tmp_path):
    save(settings(tmp_path), 2)
    policy, stepper = SimpleNamespace(), SimpleNamespace(load=lambda folder: None, zero_stage=0)
    checkpoint.restore(tmp_path / "checkpoints" / "step_000002", policy, stepper)
    assert (policy.updates, policy.skipped_in_a_row) == (3, 1)


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


def test_older_ones_are_deleted_only_when_all_of_the_new_one_is_on_the_disk(tmp_path, monkeypatch):
    chosen = settings(tmp_path, keep_last=1)
    save(chosen, 2)
    synced, delete, sync = set(), checkpoint.shutil.rmtree, os.fsync

    def noted(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        sync(handle)

    def deleted(path: Path, **options) -> None:
        if path.name == "step_000002":
            new = path.with_name("step_000004")
            assert {p.stat().st_ino for p in (new.parent, new, *new.rglob("*"))} <= synced
            synced.add("checked")
        delete(path, **options)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", deleted)
    save(chosen, 4)
    assert "checked" in synced and steps(tmp_path) == ["step_000004"]


def test_what_was_left_unfinished_goes_before_the_next_is_written(tmp_path):
    unfinished = tmp_path / "checkpoints" / ".step_000003.part"
    (unfinished / "state").mkdir(parents=True)
    save(settings(tmp_path), 4)
    assert steps(tmp_path) == ["step_000004"]


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


# Few values, so that ties are common.
REWARDS = st.lists(st.sampled_from([0.0, 0.25, 0.5, math.nan]), min_size=1, max_size=12)


@given(rewards=REWARDS, newest=st.integers(1, 4), best=st.integers(0, 4))
def test_what_is_kept_after_every_save_is_the_newest_and_the_best_of_all_that_ever_were(rewards, newest, best):
    folders: dict[str, float] = {}
    for step, reward in enumerate(rewards):
        folders[f"step_{step:06d}"] = reward
        keep = checkpoint.kept(folders, newest=newest, best=best)
        folders = {name: folders[name] for name in folders if name in keep}

    def better(i: int, j: int) -> bool:
        a, b = (-1.0 if math.isnan(rewards[k]) else rewards[k] for k in (i, j))
        return a > b or (a == b and i > j)

    old = range(max(0, len(rewards) - newest))
    expected = {i for i in range(len(rewards)) if i not in old or sum(better(j, i) for j in old) < best}
    assert set(folders) == {f"step_{i:06d}" for i in expected}
    assert len(folders) == min(len(rewards), newest + best)


def test_the_best_are_kept_beside_the_newest_and_each_says_its_reward(tmp_path):
    chosen = settings(tmp_path, keep_last=1, keep_best=2)
    for step, reward in [(2, 0.5), (4, 0.9), (6, 0.5), (8, 0.1), (10, 0.2)]:
        save(chosen, step, reward=reward)
    assert steps(tmp_path) == ["step_000004", "step_000006", "step_000010"]
    counts = json.loads((tmp_path / "checkpoints" / "step_000004" / "progress.json").read_text())
    assert counts["reward"] == 0.9 and counts["world_size"] == 1 and counts["zero_stage"] == 0
    assert checkpoint.newest(chosen).name == "step_000010"


def by_held_out(out: Path, keep_best: int) -> Settings:
    chosen = {"keep_last": 1, "keep_best": keep_best, "best_by": "held_out", "every": 2}
    return Settings(out=str(out), checkpoint=chosen, evaluation={"every": 2})


def test_the_best_by_held_out_pass_at_1_are_kept_whatever_the_training_reward_was(tmp_path):
    # Step N's policy is evaluated at the start of step N: after its checkpoint was saved, and before the next one is.
    known: dict[int, float] = {}
    for step, reward, passed in [(2, 0.1, 0.9), (4, 0.9, 0.2), (6, 0.8, 0.7), (8, 0.7, 0.3), (10, 0.6, 1.0)]:
        save(by_held_out(tmp_path, 2), step, reward=reward, held_out=known)
        known[step] = passed
    assert steps(tmp_path) == ["step_000002", "step_000006", "step_000010"]
    # What is known goes on with the run.
    policy, stepper = SimpleNamespace(), SimpleNamespace(load=lambda folder: None, zero_stage=0)
    found = checkpoint.restore(checkpoint.newest(by_held_out(tmp_path, 2)), policy, stepper)
    assert found.held_out == {2: 0.9, 4: 0.2, 6: 0.7, 8: 0.3}
    save(by_held_out(tmp_path, 1), 12, held_out={**found.held_out, 10: 1.0})
    assert steps(tmp_path) == ["step_000010", "step_000012"]


def test_a_checkpoint_that_was_not_evaluated_or_cannot_be_read_is_worse_than_any_that_was(tmp_path):
    save(by_held_out(tmp_path, 9), 2)
    save(by_held_out(tmp_path, 9), 3)
    save(by_held_out(tmp_path, 9), 4)
    (tmp_path / "checkpoints" / "step_000003" / "progress.json").write_text("{")
    save(by_held_out(tmp_path, 1), 6, held_out={2: 0.0})
    assert steps(tmp_path) == ["step_000002", "step_000006"]


def test_one_that_was_saved_before_there_were_evaluations_is_resumed(tmp_path):
    save(settings(tmp_path), 2)
    folder = tmp_path / "checkpoints" / "step_000002"
    progress = json.loads((folder / "progress.json").read_text())
    del progress["held_out"]
    (folder / "progress.json").write_text(json.dumps(progress))
    policy, stepper = SimpleNamespace(), SimpleNamespace(load=lambda folder: None, zero_stage=0)
    assert checkpoint.restore(folder, policy, stepper).held_out == {}


def test_one_without_a_reward_is_worse_than_any_and_an_unreadable_one_too(tmp_path):
    chosen = settings(tmp_path, keep_last=1, keep_best=1)
    save(settings(tmp_path, keep_last=9), 2)
    progress = tmp_path / "checkpoints" / "step_000002" / "progress.json"
    progress.write_text('{"step": 2, "updates": 3}')
    save(chosen, 4, reward=0.0)
    save(chosen, 6, reward=0.0)
    assert steps(tmp_path) == ["step_000004", "step_000006"]
    (tmp_path / "checkpoints" / "step_000004" / "progress.json").write_text("{")
    save(settings(tmp_path, keep_last=1, keep_best=2), 8, reward=0.0)
    save(chosen, 10, reward=0.0)
    assert steps(tmp_path) == ["step_000008", "step_000010"]


def test_the_best_of_a_branch_that_was_left_goes_with_it(tmp_path):
    chosen = settings(tmp_path, keep_last=1, keep_best=2)
    for step, reward in [(2, 0.3), (4, 0.9), (6, 0.8)]:
        save(chosen, step, reward=reward)
    for step in (4, 6):
        (tmp_path / "checkpoints" / f"step_{step:06d}" / "state" / "weights.pt").write_bytes(b"")
    assert checkpoint.newest(chosen).name == "step_000002"
    save(chosen, 3, reward=0.1)
    assert steps(tmp_path) == ["step_000002", "step_000003"]


def test_a_write_that_fails_deletes_none_of_the_best(tmp_path):
    chosen = settings(tmp_path, keep_last=1, keep_best=1)
    save(chosen, 2, reward=0.9)
    save(chosen, 4, reward=0.1)
    with pytest.raises(checkpoint.CheckpointError, match=r"writing .*step_000006 failed"):
        save(chosen, 6, Stepper(OSError(errno.ENOSPC, "No space left on device")), reward=1.0)
    assert steps(tmp_path) == ["step_000002", "step_000004"]
    save(chosen, 6, reward=0.5)
    assert steps(tmp_path) == ["step_000002", "step_000006"]


def of_two_ranks(folder: Path, *, told: bool) -> None:
    """As if two ranks had saved it under ZeRO 2, whose optimizer states nobody can read."""
    for rank in range(2):
        (folder / "state" / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(b"no tensors" * 1000)
    counts = json.loads((folder / "progress.json").read_text()) | {"world_size": 2, "zero_stage": 2}
    if not told:
        del counts["world_size"], counts["zero_stage"]
    (folder / "progress.json").write_text(json.dumps(counts))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("told", [True, False])
def test_without_room_another_number_of_ranks_is_refused_before_anything_is_written(tmp_path, monkeypatch, told):
    chosen = settings(tmp_path)
    save(chosen, 2)
    folder = tmp_path / "checkpoints" / "step_000002"
    of_two_ranks(folder, told=told)
    left = folder.with_name(".step_000002.universal.77")
    left.mkdir()
    before = everything(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=59_999))
    with pytest.raises(
        checkpoint.CheckpointError,
        match=r"step_000002 was saved by 2 ranks and could not be converted for 1: it takes 0.0 GB .*--resume",
    ):
        checkpoint.restore(folder, POLICY, Stepper())
    assert everything(tmp_path) == before and steps(tmp_path) == ["step_000002"], "and what was left is gone"


@pytest.mark.slow
def test_a_conversion_that_fails_says_why_and_leaves_the_checkpoint_as_it_was(tmp_path):
    chosen = settings(tmp_path)
    save(chosen, 2)
    folder = tmp_path / "checkpoints" / "step_000002"
    of_two_ranks(folder, told=True)
    before = everything(tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match=r"for 1: deepspeed.*ds_to_universal ended with code 1: \S"):
        checkpoint.restore(folder, POLICY, Stepper())
    assert everything(tmp_path) == before and steps(tmp_path) == ["step_000002"]


def test_zero_1_and_2_may_be_exchanged_and_no_others(tmp_path):
    for old in range(4):
        save(settings(tmp_path / str(old), train={"zero_stage": old}), 2)
        for new in range(4):
            chosen = settings(tmp_path / str(old), train={"zero_stage": new})
            if old == new or {old, new} == {1, 2}:
                assert checkpoint.newest(chosen).name == "step_000002"
            else:
                with pytest.raises(SettingsError, match=rf"train.zero_stage: checkpoint {old}, now {new}"):
                    checkpoint.newest(chosen)


@pytest.mark.parametrize(
    "file, text",
    [
        ("manifest.json", "{}"), ("manifest.json", "[]"), ("manifest.json", "null"), ("manifest.json", "[" * 5000),
        ("progress.json", "[]"), ("progress.json", '{"step": "4", "updates": 3}'), ("progress.json", '{"updates": 3}'),
    ],
)  # fmt: skip
def test_a_checkpoint_whose_files_say_something_else_is_named_and_the_one_before_is_taken(tmp_path, caplog, file, text):
    chosen = settings(tmp_path)
    save(chosen, 2)
    save(chosen, 4)
    newest = tmp_path / "checkpoints" / "step_000004"
    (newest / file).write_text(text)
    manifest = json.loads((newest / "manifest.json").read_text()) if file != "manifest.json" else None
    if manifest is not None:
        # Even where the manifest agrees.
        manifest[file] = checkpoint._fingerprint(newest / file)
        (newest / "manifest.json").write_text(json.dumps(manifest))
    found = checkpoint.newest(chosen)
    assert found is not None and found.name == "step_000002"
    assert "step_000004 is damaged and passed over" in caplog.text
    (newest / "progress.json").unlink()
    assert checkpoint.newest(chosen) == found
