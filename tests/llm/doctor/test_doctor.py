"""The memory budget against sums by hand, against what a run on the CPU allocates, and as a command that refuses."""

import dataclasses
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from published_models import LLAMA_1B, QWEN3_4B, QWEN_7B
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config, T5Config

from aepo.llm.doctor import __main__ as doctor
from aepo.llm.doctor import memory
from aepo.llm.doctor.cures import cures, problems
from aepo.llm.doctor.memory import GIB, Architecture, MemoryPlan, budget, training_state
from aepo.llm.policy.model import from_scratch
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.processes.ports import free_port
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import Settings, SettingsError


@pytest.fixture(scope="module")
def qwen_7b() -> Architecture:
    return Architecture.from_config(QWEN_7B)


# Attention (q; k and v; output), feed-forward (gate, up, down), two norms; then embedding(s) and the last norm.
BY_HAND = {
    "Qwen2.5-7B": (
        QWEN_7B,
        # q, k and v have a bias.
        28 * ((3584 + 1) * 3584 + 2 * (3584 + 1) * 4 * 128 + 3584 * 3584 + 3 * 3584 * 18944 + 2 * 3584)
        + 2 * 152064 * 3584
        + 3584,
        7_615_616_512,
        # 2 (k, v) x 28 layers x 4 heads x 128 x 2 bytes = 57,344
        56 * 1024,
    ),
    "Qwen3-4B": (
        QWEN3_4B,
        # 32 x 128 = 4096 is not the hidden size; norms of q and k, 128 each; one embedding.
        36 * (2560 * 4096 + 2 * 2560 * 1024 + 4096 * 2560 + 2 * 128 + 3 * 2560 * 9728 + 2 * 2560)
        + 151936 * 2560
        + 2560,
        4_022_468_096,
        # 2 x 36 x 8 x 128 x 2 = 147,456
        144 * 1024,
    ),
    "Llama-3.2-1B": (
        LLAMA_1B,
        16 * (2048 * 2048 + 2 * 2048 * 512 + 2048 * 2048 + 3 * 2048 * 8192 + 2 * 2048) + 128256 * 2048 + 2048,
        1_235_814_400,
        # 2 x 16 x 8 x 64 x 2 = 32,768
        32 * 1024,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_parameters_and_cache_are_those_counted_by_hand(name):
    config, by_hand, published, cache = BY_HAND[name]
    model = Architecture.from_config(config)
    assert model.parameters == by_hand == published
    assert model.kv_bytes_per_token(2) == cache
    assert model.tied == config.tie_word_embeddings
    assert model.qk_norm == (name == "Qwen3-4B")


def test_a_7b_model_on_eight_40_gb_cards_is_the_sum_by_hand(qwen_7b):
    state = training_state(qwen_7b.parameters, world=8, zero_stage=3, weight_bytes=2)
    whole = training_state(qwen_7b.parameters, world=8, zero_stage=0, weight_bytes=2)
    # 7.6156e9 x 2 = 15.231e9 bytes = 14.185 GiB
    assert whole.weights / GIB == pytest.approx(14.19, abs=0.01)
    # 7.6156e9 x (4 + 4 + 4) = 91.387e9 bytes = 85.11 GiB, by 8: 10.64
    assert whole.optimizer / GIB == pytest.approx(85.1, abs=0.05)
    assert state.optimizer / GIB == pytest.approx(10.64, abs=0.005)
    # 14.185 / 8, and twice that, as gradients are added up in float32
    assert state.weights / GIB == pytest.approx(1.77, abs=0.005)
    assert state.gradients / GIB == pytest.approx(3.55, abs=0.005)
    # 152064 x 3584 x 2 = 1.090e9 bytes
    assert qwen_7b.head_parameters * 2 / GIB == pytest.approx(1.02, abs=0.005)


PLAN = MemoryPlan(
    memory_gib=39.4, world=8, weight_bytes=2, engine="vllm", gradient_checkpointing=True, micro_batch_tokens=9200,
    sequence_tokens=9200, release_buffers=True,
)  # fmt: skip
# Held by the trainer while vLLM samples, vLLM's weights, left for the cache, its thousand tokens; held in training,
# left. Weights 14.19 (by 8: 1.77), optimizer 10.64, gradients 3.55; vLLM awake 0.8 + 2.2, training 0.8 + 2.5 + 1.5
# and at ZeRO 3 2.0.
TABLE = {
    # 1.77 + 10.64 = 12.4; 39.4 - 12.4 - 14.2 - 3.0 = 9.8; 1.77 + 10.64 + 3.55 + 6.8 = 22.8
    "ZeRO 3": ({"zero_stage": 3}, (12.4, 14.2, 9.8, 183, 22.8, 16.6)),
    # 1.77 + 3.55 + 6.8 = 12.1
    "ZeRO 3, offload": ({"zero_stage": 3, "offload_optimizer": True}, (1.8, 14.2, 20.4, 382, 12.1, 27.3)),
    # 39.4 - 14.2 - 14.2 - 3.0 = 8.0; 14.19 + 3.55 + 4.8 = 22.5
    "ZeRO 2, offload": ({"zero_stage": 2, "offload_optimizer": True}, (14.2, 14.2, 8.0, 150, 22.5, 16.9)),
    # 14.19 + 10.64 = 24.8; 39.4 - 24.8 - 14.2 - 3.0 = -2.6; 24.8 + 3.55 + 4.8 = 33.2
    "ZeRO 2": ({"zero_stage": 2}, (24.8, 14.2, -2.6, 0, 33.2, 6.2)),
    # vLLM's weights are halved, and so is what a device holds of a token.
    "ZeRO 2, two share an engine": ({"zero_stage": 2, "tensor_parallel": 2}, (24.8, 7.1, 4.5, 84, 33.2, 6.2)),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_table_for_7b_on_eight_40_gb_cards(name, qwen_7b):
    changes, (trainer, engine, cache, thousand_tokens, static, left) = TABLE[name]
    found = budget(qwen_7b, dataclasses.replace(PLAN, **changes))
    held = found.generate.resident
    # Half of the last printed digit, and a hundredth since the table adds rounded figures.
    near = {"abs": 0.06}
    assert held["trainer's weights"] + held["optimizer"] == pytest.approx(trainer, **near)
    assert held["engine's weights"] == pytest.approx(engine, **near)
    assert found.kv_gib == pytest.approx(cache, **near)
    assert found.kv_tokens / 1000 == pytest.approx(thousand_tokens, abs=1)
    assert found.train.static == pytest.approx(static, **near)
    assert found.train.available == pytest.approx(left, **near)
    assert (found.generate.spare < 0) == (cache < 0)
    if changes.get("offload_optimizer"):
        # 7.616e9 x 12 = 91 GB of optimizer and 7.616e9 x 4 = 30 GB of float32 gradients, in all.
        assert found.host_gib * GIB / 1e9 == pytest.approx(91 + 30, abs=1)


def test_buffers_that_zero_3_keeps_are_taken_from_the_cache(qwen_7b):
    released = budget(qwen_7b, dataclasses.replace(PLAN, zero_stage=3))
    kept = dataclasses.replace(PLAN, zero_stage=3, release_buffers=False)
    # Gradients 3.55, and 5e8 x 2 bytes = 0.93 GiB.
    assert released.kv_gib - budget(qwen_7b, kept).kv_gib == pytest.approx(3.55 + 0.93, abs=0.01)
    # (39.4 - 12.41 - 0.8 - 4.48) / 39.4 = 0.551
    (_, cure) = problems(qwen_7b, dataclasses.replace(kept, utilization=0.6))
    assert "rollout.gpu_memory_utilization=0.55" in cure and "train.release_buffers=true" in cure


def test_activations_and_logits_of_9200_tokens_by_hand(qwen_7b):
    found = budget(qwen_7b, dataclasses.replace(PLAN, zero_stage=3))
    saved = 28 * 9200 * 3584 * 2
    # Of one layer: norms 2 x 3584 x (4 + 2 x 2) = 57,344, and 2 x 4 for their scales; q, k, v and the output of the
    # attention 2 x (2 x 3584 + 2 x 512) = 16,384, its log-sum-exp 4 x 28 = 112, cosines and sines 2 x 2 x 128 = 512;
    # four of width 18,944: 151,552. With three gradients of that width, 113,664: 339,576.
    layer = 9200 * 339_576
    assert saved / GIB == pytest.approx(1.72, abs=0.005)
    assert found.train.working["activations"] * GIB == pytest.approx(saved + layer)
    # One tile, whatever the tokens; unfused: 9200 x 152064 x (2 + 4 + 4) = 13.99e9 bytes = 13.0 GiB.
    assert found.train.working["logits"] == 128 / 1024
    assert found.unfused_logits_gib == pytest.approx(13.03, abs=0.01)
    # Without checkpointing every layer keeps its 225,912 = 339,576 - 113,664 bytes a token, and the head then takes
    # more than a layer's gradients: last norm and float32 gradient 9200 x 3584 x (4 + 2 x 2 + 4), its own 1.09e9.
    whole = budget(qwen_7b, dataclasses.replace(PLAN, zero_stage=3, gradient_checkpointing=False))
    assert whole.train.working["activations"] * GIB == pytest.approx(
        9200 * 28 * 225_912 + 9200 * 3584 * 12 + 152064 * 3584 * 2
    )


def test_the_tile_of_logits_is_that_of_the_kernels():
    pytest.importorskip("triton", reason="triton has no wheel for this platform")
    from aepo.llm.fused.triton_backend import CHUNK_BYTES

    assert memory.LOGITS_TILE_BYTES == CHUNK_BYTES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [Qwen2Config, Qwen3Config, LlamaConfig])
def test_a_layer_saves_what_the_formula_says(kind, dtype):
    tokens = 64
    config = kind(
        vocab_size=8, hidden_size=96, num_hidden_layers=1, num_attention_heads=6, num_key_value_heads=2, head_dim=16,
        intermediate_size=224, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    x = torch.randn(1, tokens, 96, dtype=dtype, requires_grad=True)
    position = torch.arange(tokens)[None]
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            # The storage itself is kept, or another tensor could take its address.
            saved[storage.data_ptr()] = storage
        return tensor

    rotary = model.model.rotary_emb(x, position)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _ = model.model.layers[0](x, position_embeddings=rotary, attention_mask=None, position_ids=position)
    measured = sum(storage.nbytes() for storage in saved.values())
    predicted = tokens * Architecture.from_config(config).layer_bytes_per_token(dtype.itemsize)
    assert measured == pytest.approx(predicted, rel=0.01)


DEMO = Settings(model={"hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 160})


def size(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t.dim())


def test_a_step_of_adamw_in_float32_allocates_what_is_predicted():
    model = from_scratch(DEMO, walk_task())
    predicted = training_state(Architecture.from_config(model.config).parameters, world=1, zero_stage=0, weight_bytes=4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.arange(14).view(2, 7)).logits.logsumexp(-1).sum().backward()
    assert predicted.weights == pytest.approx(size(model.parameters()), rel=0.05)
    assert predicted.gradients == pytest.approx(size(p.grad for p in model.parameters()), rel=0.05)
    optimizer.step()
    moments = (value for state in optimizer.state.values() for value in state.values())
    assert predicted.optimizer == pytest.approx(size(moments), rel=0.05)
    assert predicted.host == 0


def deepspeed_step() -> None:
    """Prints the bytes of weights, gradients and optimizer of a step at ZeRO 0 to 2, and what ZeRO 3 keeps."""
    from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper

    def stepper_of(dtype: str, stage: int) -> DeepSpeedStepper:
        chosen = DEMO.train.model_copy(update={"zero_stage": stage, "dtype": dtype})
        return DeepSpeedStepper(ResponseStats(from_scratch(DEMO, walk_task())), chosen)

    found = {}
    for dtype, stage in [("float32", 0), ("float32", 2), ("bfloat16", 0), ("bfloat16", 1), ("bfloat16", 2)]:
        stepper = stepper_of(dtype, stage)
        ids, position = torch.arange(14).view(2, 7), torch.arange(7).expand(2, -1)
        logp, *_ = stepper(ids, None, position, ids[:, 2:], torch.ones(2, 5))
        stepper.backward(logp.sum(), last=True)
        weights = list(stepper.module.parameters())
        optimizer = stepper.engine.optimizer
        gradients = [p.grad for p in weights if p.grad is not None]
        if stage == 1:
            gradients += optimizer.fp32_groups_gradients_flat
        if stage == 2:
            gradients += [g for group in optimizer.averaged_gradients.values() for g in group]
        stepper.step(1e-3)
        inner = getattr(optimizer, "optimizer", optimizer)
        own = {p.untyped_storage().data_ptr() for p in weights}
        masters = [p for group in inner.param_groups for p in group["params"]]
        masters = [p for p in masters if p.untyped_storage().data_ptr() not in own]
        moments = [v for state in inner.state.values() for v in state.values() if torch.is_tensor(v)]
        found[f"{dtype} {stage}"] = [size(weights), size(gradients), size(masters + moments)]
    for dtype in ("float32", "bfloat16"):
        optimizer = stepper_of(dtype, 3).engine.optimizer
        buckets = [bucket.buffer for bucket in optimizer.ipg_buckets.values()]
        found[f"{dtype} 3"] = [size([optimizer.grad_partitions_flat_buffer]), size(buckets)]
    print(json.dumps(found))


def test_a_step_of_deepspeed_allocates_what_is_predicted():
    port = str(free_port())
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | alone | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    measured = json.loads(done.stdout.strip().splitlines()[-1])
    parameters = Architecture.from_config(from_scratch(DEMO, walk_task()).config).parameters
    for case, bytes_found in measured.items():
        dtype, stage = case.split()
        width = getattr(torch, dtype).itemsize
        if stage == "3":
            # Both are there before the first step, and so while responses are sampled.
            assert bytes_found == pytest.approx([parameters * 4, memory.KEPT_BUCKET_NUMBERS * width], rel=0.05)
            continue
        predicted = training_state(parameters, world=1, zero_stage=int(stage), weight_bytes=width)
        expected = [predicted.weights, predicted.gradients, predicted.optimizer]
        assert bytes_found == pytest.approx(expected, rel=0.05), case


@pytest.mark.parametrize("stage, shared", [(0, 0), (1, 1), (2, 2), (3, 3)])
def test_each_stage_shares_one_part_more(stage, shared):
    alone = training_state(1200, world=1, zero_stage=stage, weight_bytes=2)
    one_of_four = training_state(1200, world=4, zero_stage=stage, weight_bytes=2)
    parts = ("optimizer", "gradients", "weights")
    for at, name in enumerate(parts):
        assert getattr(alone, name) == getattr(one_of_four, name) * (4 if at < shared else 1)


def test_the_embedded_engine_caches_all_rows_and_copies_the_weights_only_under_zero_3(qwen_7b):
    plan = dataclasses.replace(PLAN, engine="embedded", rows_at_once=16, sequence_tokens=1024, zero_stage=2)
    found = budget(qwen_7b, plan)
    # 16 x 1024 x 56 KiB
    assert found.generate.working["KV cache"] == pytest.approx(16 * 1024 * 56 / 1024**2)
    # Logits 2, log-probs 4, probabilities 8 and their sums 8 bytes.
    assert found.generate.working["logits"] == pytest.approx(16 * 152064 * 22 / GIB)
    assert found.generate.resident["engine's weights"] == 0
    copied = budget(qwen_7b, dataclasses.replace(plan, zero_stage=3))
    for phase in (copied.generate, copied.train):
        assert phase.resident["engine's weights"] == pytest.approx(14.19, abs=0.01)


def test_the_cures_cure(qwen_7b):
    plan = dataclasses.replace(PLAN, zero_stage=2)
    (*_, last) = problems(qwen_7b, plan)
    assert "train.zero_stage=3" in last
    assert not problems(qwen_7b, dataclasses.replace(plan, zero_stage=3))
    rows = dataclasses.replace(PLAN, engine="embedded", zero_stage=2, rows_at_once=1024)
    (cure,) = [c for c in cures(qwen_7b, rows) if c.startswith("rollout.rows_at_once=")]
    fewer = int(cure.partition("=")[2])
    assert not problems(qwen_7b, dataclasses.replace(rows, rows_at_once=fewer))
    assert problems(qwen_7b, dataclasses.replace(rows, rows_at_once=2 * fewer))


def test_several_changes_or_more_devices_are_named_where_one_change_is_not_enough(qwen_7b):
    plan = dataclasses.replace(PLAN, zero_stage=0, weight_bytes=4, gradient_checkpointing=False)
    (together,) = cures(qwen_7b, plan)
    assert " and " in together and "train.zero_stage=3" in together and "GPUs" not in together
    (devices,) = cures(qwen_7b, dataclasses.replace(plan, world=1, memory_gib=30.0))
    assert "GPUs" in devices and "train.zero_stage=3" in devices
    assert "smaller model" in cures(qwen_7b, dataclasses.replace(plan, memory_gib=2.0))[0]


@pytest.mark.parametrize("share, trouble", [(0.4, "leaves"), (0.6, ""), (0.66, ""), (0.67, "does not fit: it needs")])
def test_vllms_share_of_the_memory_must_hold_its_weights_and_leave_the_trainers(share, trouble, qwen_7b):
    # Weights, workspace and one row: (14.19 + 2.2 + 0.48) / 39.4 = 0.43; beside the trainer (39.4 - 12.41 - 0.8) / 39.4
    # = 0.665.
    plan = dataclasses.replace(PLAN, zero_stage=3, utilization=share)
    found = problems(qwen_7b, plan)
    assert bool(found) == bool(trouble)
    if trouble:
        assert trouble in found[0] and "rollout.gpu_memory_utilization=0.66" in found[-1]


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="tensor_parallel=3 must divide"):
        MemoryPlan(memory_gib=1.0, world=8, tensor_parallel=3)
    with pytest.raises(ValueError, match="memory_gib"):
        MemoryPlan(memory_gib=0.0)
    with pytest.raises(SettingsError, match="T5Config is not the config of a causal LM"):
        Architecture.from_config(T5Config(d_model=8, num_layers=1, num_heads=1))


def test_any_causal_lm_is_counted():
    small = GPT2Config(vocab_size=10, n_positions=6, n_embd=8, n_layer=1, n_head=2)
    model = Architecture.from_config(small)
    # Embeddings 10 x 8 and 6 x 8; one layer 12 x 8^2 + 13 x 8; last norm 2 x 8.
    assert model.parameters == 80 + 48 + 768 + 104 + 16
    assert (model.kv_heads, model.head_dim, model.intermediate, model.tied) == (2, 4, 32, True)


@pytest.fixture
def command(tmp_path, capsys):
    def run(*arguments: str) -> SimpleNamespace:
        returned = doctor.main(list(arguments))
        said = capsys.readouterr()
        return SimpleNamespace(code=returned, out=said.out, err=said.err)

    return run


def test_the_command_prints_the_budget_and_refuses_with_the_cure(command, tmp_path):
    QWEN_7B.save_pretrained(tmp_path)
    (tmp_path / "preset.yaml").write_text(
        "rollout: {engine: vllm, max_response_tokens: 8192}\ntrain: {zero_stage: 3, micro_batch_tokens: 9216}\n"
    )
    typed = [
        f"--config={tmp_path / 'preset.yaml'}", "--gpus=8", "--gpu-memory-gib=39.4", "--train.dtype=bfloat16",
        "--train.gradient_checkpointing=true",
    ]  # fmt: skip
    # A folder and a file are the same.
    for path in (tmp_path, tmp_path / "config.json"):
        fits = command(*typed, f"--model-config={path}", "--train.release_buffers=true")
        assert fits.code == 0 and not fits.err
        assert "7,615,616,512 parameters" in fits.out and "9.80 GiB = 183," in fits.out and "python 3." in fits.out
    refused = command(*typed, f"--model-config={tmp_path}", "--train.zero_stage=2")
    assert refused.code == 2
    assert refused.err.startswith("error: generate does not fit")
    cure = "train.offload_optimizer=true"
    assert refused.err.splitlines()[-1] == f"error: cure: {cure}"
    assert command(*typed, f"--model-config={tmp_path}", "--train.zero_stage=2", f"--{cure}").code == 0


def test_the_settings_own_model_is_planned_on_this_machine(command):
    demo = command("--model.layers=3")
    assert (
        demo.code == 0 and "3 layers, hidden 64" in demo.out and f"vocabulary {len(walk_task().tokenizer)}" in demo.out
    )


@pytest.mark.parametrize(
    "typed, message",
    [
        (["--train.zero_stag=2"], "train.zero_stag: unknown field; did you mean 'zero_stage'"),
        (["--model-config=/no/such/folder"], "model config /no/such/folder: not readable"),
        (["--model-config=/no/such/folder"], "; download the model and name its folder as model.path"),
        (
            ["--gpus=8", "--gpu-memory-gib=40", "--rollout.engine=vllm", "--rollout.tensor_parallel=3"],
            "tensor_parallel=3 must divide",
        ),
    ],
)
def test_the_command_refuses_what_it_cannot_use(command, typed, message):
    refused = command(*typed)
    assert refused.code == 2 and refused.err.startswith("error: ") and message in refused.err
    assert refused.err.count("\n") == 1, "one line"


if __name__ == "__main__":
    deepspeed_step()
