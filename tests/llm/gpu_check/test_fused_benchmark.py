"""The benchmark of the fused operation, without a GPU: what it counts on, and what is left when a shape fails."""

import json

import fused_gpu
import pytest
import torch
from live_bytes import LiveBytes


def test_whole_logits_take_as_many_tensors_of_their_size_as_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**40, 2**40))
    x = fused_gpu.Inputs(64, 8, 4096, "cpu")
    _, forward, backward = fused_gpu.naive(x)
    with LiveBytes() as live:
        backward(forward())
    assert live.peak / (64 * 4096 * 4) == pytest.approx(fused_gpu.WHOLE_LOGITS, rel=0.01)


def test_a_shape_that_fails_takes_nothing_of_those_before_it(tmp_path, monkeypatch, capsys):
    figures = {"forward_ms": 1.0, "forward_extra_bytes": 0, "backward_ms": 1.0, "backward_extra_bytes": 0}

    def measured(shape, rounds):
        if shape != (1, 2, 3):
            raise torch.OutOfMemoryError("this shape does not fit")
        return {"one GEMM": figures, "three GEMMs": figures}

    monkeypatch.setattr(fused_gpu, "RESULT", tmp_path / "fused_gpu.json")
    monkeypatch.setattr(fused_gpu, "measured", measured)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "none")
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(fused_gpu.backends, "chosen", lambda *_: fused_gpu.backends)
    monkeypatch.setattr("sys.argv", ["fused_gpu.py", *"--shape 1 2 3 --shape 4 5 6".split()])
    with pytest.raises(torch.OutOfMemoryError):
        fused_gpu.main()
    (kept,) = json.loads((tmp_path / "fused_gpu.json").read_text())["results"]
    assert kept["shape"] == {"tokens": 1, "width": 2, "vocabulary": 3}
