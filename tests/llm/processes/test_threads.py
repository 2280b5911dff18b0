"""How many threads a rank computes in: who decides it, in which order, and that it is said."""

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aepo.llm.processes import threads
from aepo.llm.settings import SettingsError, load

LARGE = threads.SMALL


@pytest.fixture
def machine(monkeypatch):
    """Eight cores, two ranks, no GPU; what is set is kept and not done."""
    done = [3]
    monkeypatch.setattr(torch, "set_num_threads", done.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: done[-1])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(threads, "_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_SIZE", "2")
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return done


@given(parameters=st.integers(1, 10**12), cores=st.integers(1, 512), ranks=st.integers(1, 64))
def test_small_models_take_one_thread_and_ranks_never_more_than_the_cores(parameters, cores, ranks):
    found = threads.threads(parameters, cores=cores, ranks=ranks)
    assert found == 1 if parameters < 50_000_000 else found * ranks <= cores < (found + 1) * ranks or found == 1


def test_what_is_asked_for_comes_first_then_the_run_before_then_the_environment_then_the_rule(
    machine, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, logger="aepo")
    assert threads.choose(LARGE, asked=None, before=None) == 4
    assert "threads: 4 a rank (50 million parameters, 8 cores, 2 ranks here" in caplog.text
    assert "train.threads=1 is faster" in caplog.text
    assert threads.choose(LARGE - 1, asked=None, before=None) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    machine.append(3)
    assert threads.choose(LARGE, asked=None, before=None) == 3
    assert threads.choose(LARGE, asked=None, before=2) == 2
    assert "threads: 2 a rank (as before --resume)" in caplog.text
    assert threads.choose(LARGE, asked=5, before=2) == 5
    assert machine == [3, 4, 1, 3, 3, 2, 5]


def test_a_gpu_leaves_torch_alone_unless_asked(machine, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert threads.choose(LARGE, asked=None, before=2) is None
    threads.one_until_known()
    assert machine == [3]
    assert threads.choose(LARGE, asked=2, before=None) == 2


def test_until_the_model_is_known_there_is_one_unless_the_environment_says_more(machine, monkeypatch):
    threads.one_until_known()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    threads.one_until_known()
    assert machine == [3, 1]


def test_there_is_at_least_one():
    assert load("demo_cpu", ["train.threads=2"]).train.threads == 2 and load("demo_cpu", []).train.threads is None
    with pytest.raises(SettingsError, match=r"train\.threads"):
        load("demo_cpu", ["train.threads=0"])
