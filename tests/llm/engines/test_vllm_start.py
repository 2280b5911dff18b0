"""What this process is like after vLLM's start, and what vLLM is given: with a stand-in for vLLM itself."""

import dataclasses
import importlib.machinery
import json
import logging
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from byte_models import TOKENIZER, tiny

from aepo.llm.engines import vllm_engine
from aepo.llm.engines.engine import EngineError
from aepo.llm.engines.vllm_engine import CAPABILITIES, VLLMEngine, _kept_environment
from aepo.llm.engines.vllm_folder import model_folder
from aepo.llm.settings import SettingsError, load


class LLM:
    """Takes note of what it is given, and of the model's folder as it is then."""

    def __init__(self, **given) -> None:
        self.given = given
        files = os.listdir(given["model"])
        self.config = json.loads(open(os.path.join(given["model"], "config.json")).read())
        assert {"config.json", "tokenizer.json"} <= set(files) and not [one for one in files if "safetensors" in one]
        runner = type("GPUModelRunner", (), {"__module__": "vllm.v1.worker.gpu.model_runner"})()
        worker = SimpleNamespace(model_runner=runner)
        self.llm_engine = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=worker))


@pytest.fixture
def vllm(monkeypatch, tmp_path):
    """vLLM's modules as far as its start asks them."""
    backend = SimpleNamespace(get_supported_head_sizes=lambda: [32])
    modules = {
        "vllm": {"LLM": LLM, "SamplingParams": dict, "__version__": "0.32.0"},
        "vllm.engine.arg_utils": {
            "EngineArgs": dataclasses.make_dataclass("EngineArgs", [(name, str) for name in CAPABILITIES])
        },
        "vllm.v1.attention.backends.cpu_attn": {"CPUAttentionBackend": backend},
        "vllm._custom_ops": {"_supports_onednn": True},
        "vllm.model_executor.layers.utils": {"check_cpu_sgl_kernel": None},
        "vllm.platforms": {"current_platform": SimpleNamespace()},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def started(**chosen) -> dict:
    """What vLLM was given."""
    tied = chosen.pop("tied", False)
    engine = VLLMEngine(tiny(tied), TOKENIZER, end_ids=[1], max_length=200, max_tokens=8, **chosen)
    assert engine.llm.config["architectures"] == ["Qwen3ForCausalLM"]
    return engine.llm.given


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


def test_how_much_vllm_steps_at_one_time_goes_by_the_settings_and_not_by_the_cards_name(vllm):
    rollout = load("demo_cpu", []).rollout
    given = started()
    assert (given["max_num_seqs"], given["max_num_batched_tokens"]) == (
        rollout.max_num_seqs, rollout.max_num_batched_tokens,
    )  # fmt: skip
    given = started(max_num_seqs=7, max_num_batched_tokens=900)
    assert (given["max_num_seqs"], given["max_num_batched_tokens"]) == (7, 900)
    # On a CPU prompts are not filled in by parts, and the longest has to fit.
    assert started(max_num_seqs=7, max_num_batched_tokens=9)["max_num_batched_tokens"] == 200
    with pytest.raises(SettingsError, match=r"max_num_batched_tokens=100 must not be below max_num_seqs=256"):
        load("demo_cpu", ["rollout.max_num_batched_tokens=100"])


def test_every_start_gives_the_same_folder_for_the_same_model_and_another_for_another(vllm, monkeypatch):
    first = started()["model"]
    assert started()["model"] == first and os.path.isdir(first)
    assert started(tied=True)["model"] != first
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert started()["model"] != first
    # What somebody broke is made anew.
    monkeypatch.delenv("LOCAL_RANK")
    os.remove(os.path.join(first, "tokenizer.json"))
    assert started()["model"] == first and os.path.exists(os.path.join(first, "tokenizer.json"))
    beside = os.listdir(os.path.dirname(first))
    assert len(beside) == 3 and not [name for name in beside if name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match=r"file/aepo/vllm.*set XDG_CACHE_HOME"):
        model_folder(tiny(False), TOKENIZER, local_rank=0)


def test_the_model_runner_is_named_in_the_log_and_one_that_was_not_tested_is_warned_of(vllm, caplog):
    caplog.set_level(logging.INFO, logger="aepo")
    started()
    assert "vLLM 0.32.0, model runner vllm.v1.worker.gpu.model_runner.GPUModelRunner" in caplog.text
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "has not been tested here" in warning and vllm_engine.TESTED_RUNNERS[0] in warning
