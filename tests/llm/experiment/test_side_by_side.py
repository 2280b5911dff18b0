"""The warm start that runs share, made before them in a process of its own."""

from pathlib import Path

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


def test_teaching_tells_its_steps(tmp_path):
    settings = load(small(tmp_path))
    told = []
    warm_start.warm_start(settings, load_task(settings), told=lambda made, of: told.append((made, of)))
    assert told == [(1, 50), (21, 50), (41, 50)]
