"""A sweep that was stopped goes on where it was; what is damaged is said and computed again."""

import dataclasses
import logging

import numpy as np
import pytest

from aepo.tabular import runner
from aepo.tabular.cache import Cache, sources
from aepo.tabular.options import Options
from aepo.tabular.plan import configuration
from aepo.tabular.runner import batches, run_all

SMALL = Options(steps=20, targets=(0.3, 0.6))
SEEDS = range(2)


@pytest.fixture
def todo():
    return batches([configuration(SMALL, "aepo"), configuration(SMALL, "grpo")])


def counted(monkeypatch) -> list:
    """The batches that are really run from here on."""
    ran, run = [], runner.run

    def counting(batch, *rest):
        ran.append(batch)
        return run(batch, *rest)

    monkeypatch.setattr(runner, "run", counting)
    return ran


def same(one, other) -> None:
    assert one.keys() == other.keys()
    for configuration_ in one:
        for field in dataclasses.fields(one[configuration_]):
            a, b = (getattr(results[configuration_], field.name) for results in (one, other))
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(a, b)


def test_finished_runs_are_not_run_again_and_their_numbers_are_the_same(tmp_path, monkeypatch, todo):
    first = run_all(todo, SEEDS, cache=Cache(tmp_path))
    ran = counted(monkeypatch)
    same(run_all(todo, SEEDS, cache=Cache(tmp_path)), first)
    assert ran == []


def test_a_sweep_that_was_killed_runs_only_what_is_left(tmp_path, monkeypatch, todo):
    class Killed(Exception):
        pass

    run = runner.run

    def dies_at_the_second(batch, *rest):
        if batch == todo[1]:
            raise Killed
        return run(batch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run", dies_at_the_second)
        with pytest.raises(Killed):
            run_all(todo, SEEDS, cache=Cache(tmp_path))
    ran = counted(monkeypatch)
    found = run_all(todo, SEEDS, cache=Cache(tmp_path))
    assert ran == [todo[1]]
    same(found, run_all(todo, SEEDS))


@pytest.mark.parametrize(
    "damage", [lambda blob: blob[:-7], lambda blob: blob[:50] + b"x" + blob[51:], lambda blob: b""]
)
def test_a_damaged_file_is_named_and_computed_again(tmp_path, monkeypatch, caplog, todo, damage):
    first = run_all(todo, SEEDS, cache=Cache(tmp_path))
    path = Cache(tmp_path).path(todo[0], SEEDS)
    path.write_bytes(damage(path.read_bytes()))
    ran = counted(monkeypatch)
    with caplog.at_level(logging.WARNING, "aepo"):
        same(run_all(todo, SEEDS, cache=Cache(tmp_path)), first)
    assert ran == [todo[0]]
    assert path.name in caplog.text and "damaged" in caplog.text


def test_anything_that_shapes_the_numbers_changes_the_name(tmp_path, todo):
    cache = Cache(tmp_path)
    other = [dataclasses.replace(todo[0][0], targets=(0.3, 0.7))]
    faster = dataclasses.replace(todo[0][0].settings, lr=2.0)
    slower = [dataclasses.replace(todo[0][0], settings=faster)]
    paths = {cache.path(*case) for case in ((todo[0], SEEDS), (other, SEEDS), (slower, SEEDS), (todo[0], range(3)))}
    assert len(paths) == 4


def test_a_change_to_a_world_or_to_the_core_makes_every_run_anew_and_one_to_a_drawing_none():
    names = {path.name for path in sources()}
    assert names >= {"world.py", "bandit.py", "sequences.py", "train.py", "runner.py", "loss.py", "aepo.py", "floor.py"}
    assert names & {"figures.py", "report.py", "sweep.py", "suggest.py", "atomic.py", "errors.py"} == set()
