"""What is said while runs are made: how much is done by the files that they write, and until when the rest takes."""

import os
import re
import shutil
import time
from io import StringIO

import pytest
from rich.console import Console

from aepo.llm.experiment import waiting
from aepo.llm.experiment.waiting import Pace, Progress, shown, until


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets, read as the monotonic clock."""
    now = [1000.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    return now


def steps_made(folder, count):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("{}\n" * count)


def test_the_time_left_is_the_rest_of_all_runs_at_the_pace_since_the_first_step(tmp_path, clock):
    a, b = tmp_path / "a", tmp_path / "b"
    progress = Progress({a: 100, b: 100})
    assert progress.line() == "training 2 runs: starting"
    clock[0] += 20
    steps_made(a, 10)
    assert progress.line() == "training 2 runs: 10 of 200 steps"
    # 40 steps in 60 seconds, that the runs started for 20 before does not count: 150 are left, 225 s.
    clock[0] += 60
    steps_made(a, 30)
    steps_made(b, 20)
    assert re.fullmatch(r"training 2 runs: 50 of 200 steps, about 4 min left, until \d\d:\d\d", progress.line())


def test_a_run_that_failed_is_not_waited_for(tmp_path, clock):
    a, b = tmp_path / "a", tmp_path / "b"
    steps = Progress({a: 100, b: 100})
    steps_made(a, 10)
    steps.line()
    steps.end(b)
    clock[0] += 45
    steps_made(a, 55)
    assert "55 of 200 steps, about 40 s left" in steps.line()
    steps_made(a, 100)
    assert steps.line() == "training 2 runs: every step is made; the last runs evaluate and save"


def test_the_steps_of_a_run_whose_folder_is_removed_at_its_end_stay_counted(tmp_path, clock):
    a, b = tmp_path / "a", tmp_path / "b"
    steps = Progress({a: 100, b: 100})
    steps_made(a, 10)
    steps.line()
    clock[0] += 45
    steps_made(a, 100)
    steps.end(a)
    shutil.rmtree(a)
    # 90 steps in 45 seconds: 100 are left.
    assert "100 of 200 steps, about 50 s left" in steps.line()


def test_rows_of_a_run_that_is_replaced_are_not_counted_and_those_of_one_that_goes_on_are_not_its_pace(tmp_path, clock):
    old, resumed = tmp_path / "old", tmp_path / "resumed"
    for folder in (old, resumed):
        steps_made(folder, 60)
        os.utime(folder / "metrics.jsonl", (time.time() - 60,) * 2)
    progress = Progress({old: 100, resumed: 100}, resumed=frozenset({resumed}))
    assert progress.line() == "training 2 runs: starting"
    steps_made(resumed, 70)
    assert progress.line() == "training 2 runs: 70 of 200 steps"
    clock[0] += 10
    steps_made(resumed, 80)
    assert "80 of 200 steps, about 2 min left" in progress.line()


def test_the_time_of_day_is_that_of_the_end(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    # 14:30:00 on some day.
    monkeypatch.setattr(waiting.time, "time", lambda: 86_400.0 * 20_000 + 14.5 * 3600)
    assert until(120) == "about 2 min left, until 14:32"
    assert until(42) == "about 40 s left, until 14:30"
    assert until(1) == "about 10 s left, until 14:30"


def test_a_pace_promises_nothing_before_a_second_step_is_seen(clock):
    pace = Pace()
    assert pace.told(0, 0) == "starting"
    clock[0] += 20
    assert pace.told(21, 1000) == "21 of 1000 steps"
    clock[0] += 10
    # 200 steps in 10 s: 779 are left.
    assert pace.told(221, 1000).startswith("221 of 1000 steps, about 40 s left, until ")


def test_a_log_gets_a_line_at_once_and_then_again(capsys):
    asked = iter(range(1000))
    with shown(lambda: f"line {next(asked)}", console=Console(file=(log := StringIO())), every=0.01):
        while log.getvalue().count("\n") < 3:
            time.sleep(0.01)
    said = log.getvalue().splitlines()
    assert said[:3] == ["line 0", "line 1", "line 2"]
    time.sleep(0.05)
    assert log.getvalue().splitlines() == said, "nothing after the end"


def test_a_terminal_has_one_line_in_place_and_what_is_printed_stays_above(monkeypatch):
    monkeypatch.setattr(waiting, "IN_PLACE", 0.01)
    console = Console(file=(screen := StringIO()), force_terminal=True, width=80)
    asked = iter(range(1000))
    with shown(lambda: f"[{next(asked)}] of all", console=console):
        # The screen is drawn anew less often than the line changes.
        while len(set(re.findall(r"\[(\d+)\] of all", screen.getvalue()))) < 3:
            time.sleep(0.01)
        print("[1/3] grpo: done")
    assert "[1/3] grpo: done\n" in screen.getvalue()
    last = screen.getvalue().rpartition("of all")[2]
    assert "\x1b[2K" in last, "the line is taken away at the end"
