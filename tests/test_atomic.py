"""A file is the old one or the new one, whatever happens to whoever writes it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aepo import atomic


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(old=st.none() | st.binary(), new=st.binary(), shared=st.booleans(), durable=st.booleans())
def test_what_was_written_is_what_is_read_and_nothing_else_is_left(tmp_path, old, new, shared, durable):
    path = tmp_path / "file.bin"
    path.unlink(missing_ok=True)
    if old is not None:
        path.write_bytes(old)
    atomic.write_bytes(path, new, shared=shared, durable=durable)
    assert path.read_bytes() == new and os.listdir(tmp_path) == ["file.bin"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_a_text_keeps_its_line_ends_and_its_letters(tmp_path, text):
    atomic.write_text(tmp_path / "text", text)
    assert (tmp_path / "text").read_bytes() == text.encode("utf-8")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_on_the_way_leaves_what_was_there(tmp_path, shared, error):
    path = tmp_path / "plot.png"
    path.write_text("old")
    with pytest.raises(type(error)), atomic.written(path, shared=shared) as beside:
        beside.write_text("half")
        assert path.read_text() == "old"
        raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["plot.png"]


def test_a_writer_that_wrote_nothing_is_an_error_and_takes_nothing_away(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileNotFoundError), atomic.written(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "old"


KILLED = """
import os, signal, sys
from pathlib import Path
from aepo import atomic
with atomic.written(Path(sys.argv[1]), shared=sys.argv[2] == "True") as beside:
    beside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_killed_process_leaves_is_hidden_and_in_nobodys_way(tmp_path, shared):
    path = tmp_path / "run.json"
    root = Path(atomic.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(shared)], env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".run.json.") and left.suffix == ".part"
    atomic.write_text(path, "whole", shared=shared)
    assert path.read_text() == "whole"


def test_two_writers_of_one_file_do_not_write_into_each_others(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    with atomic.written(path, shared=True) as one:
        one.write_text("first")
        monkeypatch.setattr(atomic.os, "getpid", lambda: 1)
        with atomic.written(path, shared=True) as other:
            assert one != other
            other.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_what_is_to_last_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    path, events = tmp_path / "samples", []
    sync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(Path(f"/proc/self/fd/{handle}").resolve().name))
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append("renamed"), replace(self, to))[1])
    atomic.write_text(path, "x", durable=True)
    assert events == [".samples.part", "renamed"] and sync is not os.fsync
    events.clear()
    atomic.write_text(path, "y")
    assert events == ["renamed"]
