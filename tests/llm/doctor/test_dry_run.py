"""`--dry-run`: shrunk architectures still are what they were, and two steps of the real command go through."""

import copy
import json

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

from aepo.llm.doctor.dry_run import small_config
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.settings import SettingsError

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


def test_a_model_of_several_parts_is_refused_by_name():
    with pytest.raises(SettingsError, match="Gemma3Config is not one stack of text layers"):
        small_config(Gemma3Config())


@pytest.mark.slow
def test_the_command_goes_through_two_whole_steps_and_leaves_the_run_alone(tmp_path):
    source = tmp_path / "large"
    LlamaConfig(
        num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=32, vocab_size=258, pad_token_id=0,
        bos_token_id=None, eos_token_id=1,
    ).save_pretrained(source)  # fmt: skip
    byte_tokenizer().save_pretrained(source)
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in FIXTURE))
    done = launch(
        tmp_path / "run", "--dry-run", f"--model.path={source}", f"--data.train={data}",
        "--rollout.max_response_tokens=8192", "--train.prompts_per_step=512", "--train.zero_stage=3", ranks=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["dry_run"]
    out = tmp_path / "run" / "dry_run"
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"step_000001", "step_000002"}
    assert AutoConfig.from_pretrained(out / "final").model_type == "llama"
    assert "random LlamaForCausalLM" in done.stderr and "stands in for" in done.stderr
