"""`--dry-run`: shrunk architectures still are what they were, and two steps of the real command go through."""

import copy
import json
from pathlib import Path

import pytest
import torch
from running import FIXTURE, launch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from aepo.llm.doctor.dry_run import share_of_model, small_config
from aepo.llm.policy.deepspeed_stepper import SCALED, _config
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.settings import SettingsError, TrainSettings, load

LARGE = {
    "qwen2": Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        vocab_size=152064, max_position_embeddings=4096,
    ),
    "qwen3": Qwen3Config(
        hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, vocab_size=151936, tie_word_embeddings=True,
    ),
    "llama": LlamaConfig(num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=32, vocab_size=128256),
    "qwen3_moe": Qwen3MoeConfig(num_experts=128, num_experts_per_tok=8, num_hidden_layers=48, vocab_size=151936),
}  # fmt: skip


@pytest.mark.parametrize("shared_by", [1, 2])
@pytest.mark.parametrize("name", LARGE)
def test_a_shrunk_architecture_is_small_runs_and_keeps_what_the_data_meets(name, shared_by):
    before = LARGE[name].to_dict()
    small = small_config(copy.deepcopy(LARGE[name]), kv_heads=shared_by)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(small)
    # Beside the embedding and the head, which the tokenizer's vocabulary sets.
    assert (
        sum(p.numel() for n, p in model.named_parameters() if "embed" not in n and "lm_head" not in n) < shared_by * 2e6
    )
    assert small.model_type == before["model_type"] and small.vocab_size == before["vocab_size"]
    assert small.max_position_embeddings == before["max_position_embeddings"]
    assert small.tie_word_embeddings == before["tie_word_embeddings"]
    grouped = before["num_attention_heads"] // before["num_key_value_heads"]
    assert small.num_attention_heads // small.num_key_value_heads == grouped
    # Every rank of those that share an engine needs heads of its own.
    assert small.num_key_value_heads == shared_by and small.num_attention_heads % shared_by == 0
    assert small.num_hidden_layers == 2 and small.hidden_size == small.num_attention_heads * 32


def test_deepspeeds_thresholds_are_scaled_as_the_model_is(tmp_path):
    LARGE["qwen2"].save_pretrained(tmp_path)
    share = share_of_model(load("demo_cpu", [f"model.path={tmp_path}"]))
    # Embedding and head of 152,064 x 224, and two layers, for 7.6e9 numbers.
    assert share == pytest.approx(2 * 152_064 * 224 / 7.6e9, rel=0.05)
    assert share_of_model(load("demo_cpu", [])) == 1
    zero = _config(TrainSettings(zero_stage=3), share)["zero_optimization"]
    assert zero["reduce_bucket_size"] == zero["allgather_bucket_size"] == pytest.approx(5e8 * share, abs=1)
    assert zero["sub_group_size"] == zero["stage3_max_live_parameters"] == pytest.approx(1e9 * share, abs=1)
    assert zero["stage3_max_reuse_distance"] == pytest.approx(1e9 * share, abs=1)
    assert zero["stage3_prefetch_bucket_size"] == pytest.approx(5e7 * share, abs=1)
    # A norm of 224 stays gathered, the smallest matrix of 224 x 32 does not, and the head is more than the bucket.
    assert zero["stage3_param_persistence_threshold"] == pytest.approx(1e5 * share, abs=1)
    assert 224 < zero["stage3_param_persistence_threshold"] < 224 * 32
    assert zero["reduce_bucket_size"] < 152_064 * 224
    assert not set(SCALED) & set(_config(TrainSettings(zero_stage=3))["zero_optimization"])
    assert set(_config(TrainSettings(zero_stage=2), share)["zero_optimization"]) & set(SCALED) == {
        "reduce_bucket_size", "allgather_bucket_size",
    }  # fmt: skip


def test_a_model_of_several_parts_is_refused_by_name():
    with pytest.raises(SettingsError, match="Gemma3Config is not one stack of text layers"):
        small_config(Gemma3Config())


def a_large_llama(folder: Path) -> Path:
    """A folder with the config of one that reads bytes, and with its tokenizer."""
    LlamaConfig(
        num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=32, vocab_size=len(byte_tokenizer()),
        pad_token_id=0, bos_token_id=None, eos_token_id=1,
    ).save_pretrained(folder)  # fmt: skip
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_the_command_goes_through_two_whole_steps_and_leaves_the_run_alone(tmp_path):
    source = a_large_llama(tmp_path / "large")
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in FIXTURE))
    done = launch(
        tmp_path / "run", "--dry-run", f"--model.path={source}", f"--data.train={data}",
        "--rollout.max_response_tokens=8192", "--train.prompts_per_step=512", "--train.zero_stage=3", ranks=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run/dry_run/metrics.jsonl").read_text().splitlines()]
    assert all(row["grad_norm"] > 0 and row["reward"] == 0.5 for row in rows), "a random model is never right"
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["dry_run"]
    out = tmp_path / "run" / "dry_run"
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"step_000001", "step_000002"}
    assert AutoConfig.from_pretrained(out / "final").model_type == "llama"
    assert "random LlamaForCausalLM" in done.stderr and "stands in for" in done.stderr
    assert "DeepSpeed's thresholds are" in done.stderr and "times its own, as the model is" in done.stderr


@pytest.mark.slow
def test_the_command_meets_what_weights_that_are_parted_do(tmp_path):
    # A trainer that does not settle goes through where every weight stays gathered, and not at a large model's size.
    source = a_large_llama(tmp_path / "large")
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in FIXTURE))
    done = launch(
        tmp_path / "run", "--dry-run", f"--model.path={source}", f"--data.train={data}", "--method.name=grpo",
        "--train.zero_stage=3", ranks=2, script=Path(__file__).with_name("unsettled_train.py"),
    )  # fmt: skip
    assert done.returncode != 0 and "in flight" in done.stdout + done.stderr, done.stderr[-3000:]
