"""The C library is told to keep freed memory where it can be told. What that brings is for benchmarks to say: how many
pages a process touches anew differs from start to start."""

import ctypes
from types import SimpleNamespace

import pytest

from aepo.tabular.memory import KEPT, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_memory


@pytest.fixture(autouse=True)
def forget():
    keep_freed_memory.cache_clear()
    yield
    keep_freed_memory.cache_clear()


@pytest.mark.parametrize(("answer", "told"), [(1, True), (0, False)])
def test_both_thresholds_are_set_once_and_a_refusal_is_told(monkeypatch, answer, told):
    calls = []

    def mallopt(name: int, value: int) -> int:
        calls.append((name, value))
        return answer

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    assert keep_freed_memory() is keep_freed_memory() is told
    assert sorted(calls) == sorted([(M_TRIM_THRESHOLD, KEPT), (M_MMAP_THRESHOLD, KEPT)])


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_a_c_library_without_it_is_no_error(monkeypatch, error):
    def missing(name):
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert keep_freed_memory() is False


def test_glibc_accepts_both():
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no mallopt")
    assert keep_freed_memory()
