"""The warm start that runs share, made before them in a process of its own."""

from pathlib import Path
from types import SimpleNamespace

from aepo.llm.experiment import side_by_side
from aepo.llm.policy import warm_start
from aepo.llm.questions.loading import load_task
from aepo.llm.settings import load

ROOT = Path(__file__).parents[3]


def small(folder: Path) -> Path:
    """A preset whose warm start takes a second."""
    config = folder / "small.yaml"
    config.write_text(
        f"extends: {ROOT / 'configs/demo_cpu.yaml'}\nwarm_start: {{steps: 50, rows: 4, cache: {folder / 'warm'}}}\n"
    )
    return config


def test_the_warm_start_is_made_once_and_is_where_a_run_looks_for_it(tmp_path, capfd):
    config = small(tmp_path)
    folder = side_by_side.warm_start(config)
    assert folder.parent == tmp_path / "warm" and (folder / "config.json").is_file()
    made = (folder / "model.safetensors").stat().st_mtime_ns
    settings = load(config)
    assert warm_start.warm_start(settings, load_task(settings)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    said = capfd.readouterr().out
    assert "teaching the model the walk" in said and f"warm start: {folder}\n" in said


def test_several_warm_starts_are_made_beside_each_other_and_each_is_where_its_runs_look(tmp_path, capfd):
    config = small(tmp_path)
    chosen = [["warm_start.seed=5"], ["warm_start.seed=6", "data.train=ladder_easy"]]
    settings = load(config, chosen[0])
    before = warm_start.warm_start(settings, load_task(settings))
    made = (before / "model.safetensors").stat().st_mtime_ns
    folders = side_by_side.warm_starts(config, chosen, parallel=2)
    assert folders[0] == before and (before / "model.safetensors").stat().st_mtime_ns == made
    settings = load(config, chosen[1])
    assert warm_start.warm_start(settings, load_task(settings)) == folders[1] != before
    said = capfd.readouterr().out
    assert "teaching 2 models the walk and ladder_easy, from which every run starts" in said
    assert [f"warm start: {folder}" for folder in folders] == [line for line in said.splitlines() if "start: " in line]


def test_what_follows_a_run_is_called_for_those_that_ended_well_now_and_before(tmp_path, monkeypatch):
    # The training itself is not looked at here.
    ends = {"a": 0, "b": 3, "c": 0}
    monkeypatch.setattr(side_by_side, "_trained", lambda job, *_, **__: ("said", ends[job.title]))
    jobs = [side_by_side.Job(title=name, folder=tmp_path / name, arguments=()) for name in "abc"]
    config = small(tmp_path)
    side_by_side._write(jobs[2], side_by_side._settings(jobs[2], config), finished=True, cpu_seconds=1.5)
    followed = []
    failed = side_by_side.train(jobs, config=config, parallel=2, keep=True, then=lambda job: followed.append(job.title))
    assert [job.title for job in failed] == ["b"] and sorted(followed) == ["a", "c"]
    assert jobs[2].cpu_seconds == 1.5 and jobs[0].cpu_seconds is None
    # With every run there is nothing is trained.
    followed.clear()
    assert (
        side_by_side.train(jobs[2:], config=config, parallel=2, keep=True, then=lambda job: followed.append(job)) == []
    )
    assert followed == jobs[2:]


def test_a_run_that_was_saved_at_a_signal_has_not_ended(tmp_path, monkeypatch):
    # A module that does nothing, as a run does nothing more that SIGTERM has reached: its exit code is 0, too.
    monkeypatch.setattr(side_by_side, "launch", SimpleNamespace(__name__="aepo.suggest"))
    job = side_by_side.Job(title="a", folder=tmp_path / "a", arguments=())
    job.folder.mkdir()
    (job.folder / "summary.json").write_text("of another run")
    assert side_by_side.train([job], config=small(tmp_path), parallel=1, keep=True) == [job]
    assert not side_by_side._known(job)["finished"]


def test_teaching_tells_its_steps(tmp_path):
    settings = load(small(tmp_path))
    told = []
    warm_start.warm_start(settings, load_task(settings), told=lambda made, of: told.append((made, of)))
    assert told == [(1, 50), (21, 50), (41, 50)]
