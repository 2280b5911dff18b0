"""What this process is like after vLLM's start, and what vLLM is given: with a stand-in for vLLM itself."""

import os

import torch

from aepo.llm.engines.vllm_engine import _kept_environment


def test_threads_and_the_environment_are_those_of_before_vllms_start(monkeypatch):
    before, set_threads = torch.get_num_threads(), torch.set_num_threads
    torch.set_num_threads(3)
    try:
        with _kept_environment():
            # As a worker of vLLM 0.32 does: one thread, for good.
            torch.set_num_threads(1)
            monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
            os.environ["LOCAL_RANK"] = "77"
        assert torch.get_num_threads() == 3 and torch.set_num_threads is set_threads
        assert os.environ.get("LOCAL_RANK") != "77"
    finally:
        set_threads(before)
