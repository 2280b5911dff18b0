"""The CUDA row kernel's source as plain C++, for the tests of whatever calls it."""

import pytest

from aepo.llm.fused import cuda_backend


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("row_kernel") / "host.so"
    cuda_backend.build(path, "g++", "-O2", "-std=c++17", "-shared", "-fPIC", "-x", "c++")
    return cuda_backend.loaded(path)


@pytest.fixture
def on_cpu(library, monkeypatch):
    """The backend `cuda` runs its kernel on the CPU."""
    monkeypatch.setattr(cuda_backend, "_library_of", lambda device: library)
    monkeypatch.setattr(cuda_backend, "_stream", lambda device: None)
    monkeypatch.setattr(cuda_backend, "obstacle", lambda device, dtype: None)
