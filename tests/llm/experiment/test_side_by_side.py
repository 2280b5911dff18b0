"""The warm start that runs share, made before them in a process of its own."""

from pathlib import Path

from aepo.llm.experiment import waiting
from aepo.llm.experiment.side_by_side import warm_start

ROOT = Path(__file__).parents[3]


def test_the_warm_start_tells_its_steps_and_is_found_the_next_time(tmp_path, monkeypatch, capsys):
    # A pace that sees every step, so that the last line is known: step 41 is the last told of 50.
    monkeypatch.setattr(waiting, "EVERY", 0.01)
    lines = []
    told = waiting.Pace.told
    monkeypatch.setattr(waiting.Pace, "told", lambda *args, **named: lines.append(args[1:]) or told(*args, **named))
    config = tmp_path / "small.yaml"
    config.write_text(
        f"extends: {ROOT / 'configs/demo_cpu.yaml'}\nwarm_start: {{steps: 50, rows: 4, cache: {tmp_path / 'warm'}}}\n"
    )
    folder = warm_start(config)
    assert folder.parent == tmp_path / "warm" and (folder / "config.json").is_file()
    assert warm_start(config) == folder
    assert capsys.readouterr().out.count(f"warm start: {folder}\n") == 2
