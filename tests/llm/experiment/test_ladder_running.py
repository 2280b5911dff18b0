"""Real runs by a protocol: their files, and that one which is killed is neither lost nor repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from running import ROOT
from small_protocols import small

from aepo.llm.experiment.__main__ import Task, main
from aepo.llm.experiment.ladder import finishing, outcome, running
from aepo.llm.experiment.ladder.command import results_folder
from aepo.llm.settings import SettingsError


def command(folder: Path, *typed: str) -> list[str]:
    return [
        sys.executable, "-m", "aepo.llm.experiment", "--task=ladder", f"--protocol={folder / 'protocol.yaml'}",
        f"--out={folder / 'out'}", f"--results={folder / 'results'}", *typed,
    ]  # fmt: skip


def done(folder: Path, *typed: str) -> str:
    ended = subprocess.run(command(folder, *typed), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_every_run_leaves_one_file_and_nothing_else_and_is_not_repeated(tmp_path):
    protocol, results = small(tmp_path), tmp_path / "results"
    done(tmp_path, "--stage=A", "--seeds=1", "--jobs=2")
    assert sorted(path.name for path in results.iterdir()) == [
        f"{arm}_seed100.json" for arm in ("aepo_0.5", "base", "grpo")
    ]
    assert list((tmp_path / "out").iterdir()) == []
    base, grpo, aepo = (outcome.known(protocol, results, arm, 100) for arm in ("base", "grpo", "aepo_0.5"))
    assert set(base.counts) == set(grpo.counts) == {"whole", "narrow", "more", "whole_nucleus", "narrow_nucleus"}
    assert set(aepo.counts) == {"whole", "narrow"}
    assert list(grpo.checkpoints) == [2, 4] and not base.checkpoints and not aepo.checkpoints
    assert grpo.counts["more"].samples == 16 and len(grpo.counts["whole"].right) == 24
    assert base.curve == {} and grpo.curve["step"] == [0, 5] and aepo.curve["target"] == [0.5, 0.5]
    assert aepo.summary["tracking_error"] > 0 and grpo.summary["tracking_error"] is None
    assert aepo.about["command"] == "aepo experiment --task ladder --stage A --arms aepo_0.5 --seeds 1"
    assert (
        aepo.about["training_cpu_seconds"] > 0 and str(tmp_path) not in (results / "aepo_0.5_seed100.json").read_text()
    )
    # The first step's entropy is that of the model before RL, which every arm of a seed shares.
    assert grpo.summary["entropy_first"] == aepo.summary["entropy_first"]
    before = {path: path.stat().st_mtime_ns for path in results.iterdir()}
    assert "3 of 3 runs have their file" in done(tmp_path, "--stage=A", "--seeds=1")
    assert before == {path: path.stat().st_mtime_ns for path in results.iterdir()}
    # On a seed that chooses, nothing more is sampled.
    done(tmp_path, "--stage=L", "--seeds=1", "--jobs=1")
    chose = outcome.known(protocol, results, "grpo", 0)
    assert "more" not in chose.counts and chose.about["command"].endswith("--stage L --arms grpo --seeds 1")


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_from_its_checkpoint_and_ends_as_if_it_had_not_been(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        small(folder, steps=40)
    done(whole, "--arms=grpo", "--seeds=1", "--jobs=1")
    process = subprocess.Popen(
        command(killed, "--arms=grpo", "--seeds=1", "--jobs=1"), cwd=ROOT, env=ENVIRONMENT, start_new_session=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoints = killed / "out" / "grpo_seed100" / "checkpoints"
    while not list(checkpoints.glob("step_00000[2468]")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "results").exists()
    said = done(killed, "--arms=grpo", "--seeds=1", "--jobs=1")
    assert "0 of 1 runs" in said
    first, second = (json.loads((folder / "results" / "grpo_seed100.json").read_text()) for folder in (whole, killed))
    assert second["about"]["training_cpu_seconds"] is None, "of a part that was cut off nobody knows"
    for name in ("curve", "summary", "counts", "checkpoints", "surprise", "digest"):
        assert first[name] == second[name], name


def test_a_run_that_has_its_file_is_not_started_and_one_of_other_settings_ends_all(tmp_path, monkeypatch):
    protocol, results = small(tmp_path), tmp_path / "results"
    started = []
    monkeypatch.setattr(running, "warm_starts", lambda config, chosen, parallel: started.extend(chosen))
    monkeypatch.setattr(running, "train", lambda jobs, **_: started.extend(jobs) or [])
    kept = outcome.Outcome(
        arm="grpo", seed=100, digest=protocol.digests["grpo"], about={}, summary={}, curve={}, counts={},
        checkpoints={}, surprise={},
    )  # fmt: skip
    outcome.write(results, kept)
    asked = {"out": tmp_path / "out", "results": results, "parallel": 1}
    # As a process leaves it that ended between its file and its folder.
    leftover = tmp_path / "out" / "grpo_seed100"
    leftover.mkdir(parents=True)
    assert running.run(protocol, [("grpo", 100)], **asked) == [] and started == [] and not leftover.exists()
    running.run(protocol, [("grpo", 100), ("aepo_0.5", 100), ("grpo", 101)], **asked)
    # A model before RL for each seed that lacks a run, then the runs.
    seeds = [[one for one in chosen if "warm_start.seed" in one] for chosen in started[:2]]
    assert seeds == [["warm_start.seed=100"], ["warm_start.seed=101"]]
    assert [job.title for job in started[2:]] == ["AEPO 0.5, seed 100", "GRPO, seed 101"]
    outcome.path_of(results, "grpo", 100).write_text(
        outcome.path_of(results, "grpo", 100).read_text().replace(kept.digest, "f" * 16)
    )
    started.clear()
    with pytest.raises(SettingsError, match="was made with other settings"):
        running.run(protocol, [("aepo_0.5", 100), ("grpo", 100)], **asked)
    assert started == []


def test_what_says_that_a_run_has_ended_is_the_first_to_go(tmp_path, monkeypatch):
    protocol = small(tmp_path)
    job = protocol.job("grpo", 100, tmp_path)
    job.folder.mkdir()
    job.record.write_text("{}")
    monkeypatch.setattr(finishing.shutil, "rmtree", lambda *_, **__: pytest.fail("stopped here"))
    with pytest.raises(pytest.fail.Exception):
        finishing.remove(protocol, "grpo", 100, tmp_path)
    assert job.folder.exists() and not job.record.exists()


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ({"task": Task.ladder}, "name what to run: --stage (L, A, B, C, D) or --arms, or --report"),
        ({"task": Task.ladder, "steps": 5}, "--steps: is no option of --task=ladder"),
        ({"task": Task.ladder, "named_arms": "grpo,aepo_eq4"}, "--arms: unknown arm 'aepo_eq4'"),
        ({"task": Task.ladder, "stage": "A", "protocol": Path("none.yaml")}, "protocol none.yaml: not readable"),
        ({"stage": "A"}, "--stage: is no option of --task=walk"),
        ({"report": True}, "--report: is no option of --task=walk"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(tmp_path, capsys, typed, told):
    with pytest.raises(typer.Exit) as ended:
        main(out=tmp_path / "out", **typed)
    assert ended.value.exit_code == 2 and told in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_files_of_runs_are_committed_where_the_sources_are():
    assert results_folder(Path("out")) == ROOT / "benchmarks" / "results" / "ladder"
