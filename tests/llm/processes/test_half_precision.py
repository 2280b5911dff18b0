"""Whether a CPU that is slow in bfloat16 is told, and no other."""

import logging

import pytest
import torch

from aepo.llm.processes import half_precision


@pytest.mark.parametrize(
    ("dtype", "gpu", "slower", "said"),
    [
        (torch.bfloat16, False, 84.4, True),
        (torch.bfloat16, False, 2.5, False),
        (torch.bfloat16, True, 84.4, False),
        (torch.float32, False, 84.4, False),
    ],
)
def test_who_computes_in_bfloat16_on_a_slow_cpu_is_told_the_cure(dtype, gpu, slower, said, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="aepo")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(half_precision, "times_slower", lambda: slower)
    half_precision.warn_of_slow(dtype, cure="--dtype=float32")
    assert [record.getMessage() for record in caplog.records] == said * [
        "bfloat16: this CPU multiplies matrices 84 times slower in it than in float32; --dtype=float32"
    ]


def test_it_is_bfloat16_over_float32_without_the_first_product(monkeypatch):
    # Start and end of four products each: 9, 6, 5 and 7 seconds, then 4, 2, 3 and 2.
    clock = iter([0, 9, 0, 6, 0, 5, 0, 7, 0, 4, 0, 2, 0, 3, 0, 2])
    monkeypatch.setattr(half_precision.time, "perf_counter", lambda: next(clock))
    assert half_precision.times_slower() == 2.5


def test_this_cpu_takes_some_time():
    assert 0 < half_precision.times_slower() < 1e4
