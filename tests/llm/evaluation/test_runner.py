"""Sampling, resuming and refusing, with real models, files and processes; small ones."""

import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ROOT

from aepo.llm import seeds
from aepo.llm.evaluation.__main__ import main
from aepo.llm.evaluation.evaluated_model import Subject
from aepo.llm.evaluation.ledger import SCHEMA, Ledger, Table
from aepo.llm.evaluation.options import Measurement, Options, parse
from aepo.llm.evaluation.prompting import Manner, manner_of
from aepo.llm.evaluation.sampling import Exam, batch_seeds, chunks, sampling_batches
from aepo.llm.evaluation.suite import BENCHMARKS
from aepo.llm.processes.ports import free_port
from aepo.llm.processes.run_lock import alone
from aepo.llm.questions.built_in import BUILT_IN
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import Settings, SettingsError

WALK = walk_task()
DATA = ROOT / ".." / "shared" / "data" / "math"
POSITIONS = 4096


def tiny_model(folder: Path, tokenizer, *, positions: int = POSITIONS) -> Path:
    """A random Qwen3 in a folder, whose responses say all sorts of things and end now and then."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=32, intermediate_size=96, max_position_embeddings=positions, initializer_range=0.2,
        tie_word_embeddings=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", byte_tokenizer())


@pytest.fixture(scope="session")
def walker(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "walker", walk_task().tokenizer, positions=16)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Two of the sets in the form of their publishers, with as many rows; easy to ask."""
    folder = tmp_path_factory.mktemp("data")
    aime = [{"problem": f"Find ${i}^2$.", "solution": rf"\boxed{{{i * i}}}", "answer": str(i * i)} for i in range(30)]
    amc = [{"problem": f"What is {i} + {i + 1}?", "answer": float(2 * i + 1)} for i in range(40)]
    for name, rows in (("aime24", aime), ("amc23", amc)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def arguments(out: Path, model: Path, data: Path, *more: str) -> list[str]:
    return [f"--model={model}", f"--data={data}", f"--out={out}", *more]


# Batches of 4 samples: n = 6 is cut within a problem, n = 2 holds two problems.
SMALL = (
    "--suite=aime24,amc23",
    "--rows=4",
    "--mode=pass@1",
    "--samples=6",
    "--max-tokens=12",
    "--rows-at-once=4",
    "--workers=1",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, model, data) -> Path:
    """An evaluation that nothing ended."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(arguments(out, model, data, *SMALL)) == 0
    return out


def samples(out: Path) -> list[dict]:
    return pq.read_table(out / "samples.parquet").to_pylist()


def lines(out: Path) -> int:
    return sum(written(out))


def written(out: Path) -> list[int]:
    """Samples on the disk, of each rank that has begun."""
    return [path.read_bytes().count(b"\n") for path in (out / "samples").glob("*.jsonl")]


def keys(rows: list[dict]) -> list[tuple]:
    return [(row["benchmark"], row["mode"], row["problem"], row["sample"]) for row in rows]


def test_every_sample_is_there_once_sorted_with_its_counted_seed_and_an_entropy_between_0_and_log_v(whole):
    rows = samples(whole)
    expected = [(name, "pass@1", p, s) for name in ("aime24", "amc23") for p in range(4) for s in range(6)]
    assert keys(rows) == expected
    assert pq.read_schema(whole / "samples.parquet").equals(SCHEMA)
    for row in rows:
        branch = f"evaluation/{row['benchmark']}/pass@1"
        (seed,) = seeds.row_seeds(0, 0, branch, np.array([row["problem"]]), row["sample"] + 1)[row["sample"] :]
        assert row["seed"] == int(seed)
        assert 0 < row["mean_entropy"] < np.log(258) and 1 <= row["response_tokens"] <= 12
        assert row["temperature"] == 0.1 and (row["ended"] or row["response_tokens"] == 12)
    assert len({row["response"] for row in rows}) > 10


def test_results_say_what_was_measured_and_how(whole, model):
    results = json.loads((whole / "results.json").read_text())
    rows = [row for row in samples(whole) if row["benchmark"] == "amc23"]
    found = results["benchmarks"]["amc23"]["pass@1"]
    assert (found["problems"], found["samples"]) == (4, 6)
    assert found["avg"] == pytest.approx(np.mean([row["reward"] for row in rows]))
    assert found["response_tokens"] == pytest.approx(np.mean([row["response_tokens"] for row in rows]))
    assert results["protocol"]["amc23"] == {
        "pass@1": {"n": 6, "temperature": 0.1, "top_p": 0.95, "max_tokens": 12, "template": "plain"}
    }
    assert (results["model"], results["label"], results["step"], results["seed"]) == (str(model), "tiny", None, 0)


def test_the_entropy_is_that_of_the_models_own_distributions_at_temperature_1(tmp_path, walker):
    from transformers import AutoModelForCausalLM

    out = tmp_path / "run"
    assert main([f"--model={walker}", f"--out={out}", "--suite=walk", "--mode=pass@k", "--samples=4", "--rows=20"]) == 0
    causal, task = AutoModelForCausalLM.from_pretrained(walker), walk_task()
    ids = task.tokenizer.get_vocab()
    lengths = set()
    for row in samples(out):
        before, after = list(task.prompts[row["problem"]]), [ids[word] for word in row["response"].split()]
        with torch.no_grad():
            logits = causal(torch.tensor([before + after])).logits[0, len(before) - 1 : -1].double()
        logp = logits.log_softmax(-1)
        assert row["mean_entropy"] == pytest.approx(float(-(logp.exp() * logp).sum(-1).mean()), abs=1e-5)
        assert (len(after), after[-1] == task.tokenizer.eos_token_id) == (row["response_tokens"], row["ended"])
        lengths.add(len(after))
    assert len(lengths) > 1


@pytest.mark.parametrize("share, per_call", [(0.15, 4), (0.5, 100), (0.93, 9)])
def test_what_a_kill_left_is_mended_and_gone_on_with_bit_for_bit(tmp_path, whole, model, data, share, per_call):
    out = tmp_path / "run"
    (out / "samples").mkdir(parents=True)
    (out / "settings.json").write_bytes((whole / "settings.json").read_bytes())
    written = (whole / "samples" / "rank_0000.jsonl").read_bytes()
    # Two ranks had begun; the second was in the middle of a line.
    middle = written.index(b"\n", len(written) // 3) + 1
    (out / "samples" / "rank_0001.jsonl").write_bytes(written[middle : middle + int(share * (len(written) - middle))])
    (out / "samples" / "rank_0000.jsonl").write_bytes(written[: written.index(b"\n") + 1])
    assert main(arguments(out, model, data, *SMALL, f"--samples-per-call={per_call}")) == 0
    assert (out / "samples.parquet").read_bytes() == (whole / "samples.parquet").read_bytes()
    assert lines(out) == len(samples(whole))


def test_n_may_grow_and_what_was_sampled_stays(tmp_path, whole, model, data):
    out = tmp_path / "run"
    few = [a for a in SMALL if not a.startswith("--samples=")]
    assert main(arguments(out, model, data, *few, "--samples=2")) == 0
    before = samples(out)
    assert main(arguments(out, model, data, *few, "--samples=6")) == 0
    after = {key: row for key, row in zip(keys(samples(out)), samples(out), strict=True)}
    assert all(after[key] == row for key, row in zip(keys(before), before, strict=True))
    assert list(after) == keys(samples(whole))
    # Other batches round differently, in the last digits of a float32; the draws are the same.
    for row in samples(whole):
        twin = after[(row["benchmark"], row["mode"], row["problem"], row["sample"])]
        assert twin["response"] == row["response"] and twin["seed"] == row["seed"]
        assert twin["mean_entropy"] == pytest.approx(row["mean_entropy"], abs=1e-5)


@pytest.mark.parametrize("name", ["walk", "ladder", "ladder_single"])
def test_a_built_in_tasks_held_out_prompts_are_evaluated_by_the_same_command(tmp_path, name):
    out, task = tmp_path / "run", BUILT_IN[name]()
    model = tiny_model(tmp_path / "model", task.tokenizer, positions=16)
    assert main([f"--model={model}", f"--out={out}", f"--suite={name}", "--samples=3", "--rows=7", "--step=40"]) == 0
    rows = samples(out)
    held_out = sorted(task.held_out)[:7]
    assert keys(rows) == [(name, mode, p, s) for mode in ("pass@1", "pass@k") for p in held_out for s in range(3)]
    ids = task.tokenizer.get_vocab()
    for row in rows:
        tokens = [ids[word] for word in row["response"].split()]
        (verdict,) = task.grade([row["problem"]], [tokens])
        assert (verdict.reward, verdict.extracted) == (row["reward"], row["extracted"])
    results = json.loads((out / "results.json").read_text())
    assert results["step"] == 40 and set(results["benchmarks"][name]) == {"pass@1", "pass@k"}


@given(
    problems=st.integers(1, 9),
    stages=st.lists(st.integers(1, 20), min_size=1, max_size=3, unique=True).map(sorted),
    rows_at_once=st.integers(1, 16),
    most=st.integers(1, 40),
)
def test_batches_hold_every_sample_once_within_the_bound_and_keep_those_of_earlier_stages(
    problems, stages, rows_at_once, most
):
    measurement = a_measurement(n=stages[-1])
    batches = list(sampling_batches(measurement, problems=problems, stages=stages, rows_at_once=rows_at_once))
    drawn = Counter((row, sample) for batch in batches for row in batch.rows for sample in batch.samples)
    assert drawn == Counter((row, sample) for row in range(problems) for sample in range(stages[-1]))
    assert all(1 <= batch.size <= rows_at_once for batch in batches)
    earlier = list(sampling_batches(measurement, problems=problems, stages=stages[:-1], rows_at_once=rows_at_once))
    assert batches[: len(earlier)] == earlier
    put_together = chunks(batches, most=most)
    assert [batch for chunk in put_together for batch in chunk] == batches
    assert all(sum(b.size for b in chunk) <= max(most, chunk[0].size) for chunk in put_together)


def a_measurement(**changes) -> Measurement:
    chosen = dict(benchmark="gsm8k", mode="pass@1", n=4, temperature=1.0, top_p=1.0, max_tokens=4)
    return Measurement(**{**chosen, **changes})


@given(cut=st.integers(1, 7), rows_at_once=st.integers(1, 30), other=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_seeds_depend_on_the_sample_alone_and_differ_between_samples(cut, rows_at_once, other, seed):
    exam = Exam(benchmark="gsm8k", task=WALK, problems=[3, 5, 11], prompts=[0, 1, 2], first=0)

    def drawn(measurement: Measurement, stages: list[int], at_once: int) -> dict:
        return {
            (exam.problems[row], sample): int(one)
            for batch in sampling_batches(measurement, problems=3, stages=stages, rows_at_once=at_once)
            for (row, sample), one in zip(
                [(r, s) for r in batch.rows for s in batch.samples], batch_seeds(seed, exam, batch), strict=True
            )
        }

    one, two = drawn(a_measurement(n=8), [8], rows_at_once), drawn(a_measurement(n=8), [cut, 8], other)
    assert one == two and len(set(one.values())) == 24
    assert not set(one.values()) & set(drawn(a_measurement(n=8, mode="pass@k"), [8], other).values())


TABLES = (
    Table(benchmark="a", mode="pass@1", problems=(2, 5), n=3),
    Table(benchmark="a", mode="pass@k", problems=(2, 5), n=2),
    Table(benchmark="b", mode="pass@1", problems=(0,), n=4),
)


def a_row(benchmark: str, mode: str, problem: int, sample: int) -> dict:
    return {
        "benchmark": benchmark, "problem": problem, "mode": mode, "sample": sample, "seed": 2**64 - 1 - sample,
        "reward": 1.0, "extracted": None, "reason": "exact", "response": "é\n\u2028" * (sample + 1),
        "response_tokens": 3, "ended": True, "mean_entropy": 0.1 + sample, "temperature": 1.0,
    }  # fmt: skip


@settings(max_examples=30)
@given(order=st.permutations(range(14)), cut=st.integers(0, 60), ranks=st.integers(1, 3))
def test_a_ledger_gives_the_same_file_whoever_wrote_in_whatever_order_and_wherever_it_was_cut(
    tmp_path_factory, order, cut, ranks
):
    everything = [a_row(t.benchmark, t.mode, p, s) for t in TABLES for p in t.problems for s in range(t.n)]
    folder = tmp_path_factory.mktemp("ledger")
    ledger = Ledger(folder / "samples", TABLES)
    for i, place in enumerate(order):
        ledger.append([everything[place]], rank=i % ranks)
    torn = folder / "samples" / "rank_0000.jsonl"
    torn.write_bytes(torn.read_bytes()[: -cut or None])
    again = Ledger(folder / "samples", TABLES)
    again.mend()
    missing = again.find().missing
    again.append([everything[place] for place in missing], rank=7)
    again.write_parquet(folder / "samples.parquet")
    assert pq.read_table(folder / "samples.parquet").to_pylist() == everything


# Refusals: one line, exit code 2, and nothing generated.


def test_a_closed_turn_ends_a_response_of_a_base_model_unless_only_its_own_ends_are_asked_for(tmp_path, data, capsys):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.split_special_tokens = False
    base = tiny_model(tmp_path / "base", tokenizer)
    asked = ("--suite=aime24", "--mode=pass@k", "--rows=8", "--samples=8", "--max-tokens=64", "--template=qwen_math")
    for ends in ("turn", "model"):
        assert main(arguments(tmp_path / ends, base, data, *asked, f"--end-tokens={ends}", "--workers=1")) == 0
    turn, alone = samples(tmp_path / "turn"), samples(tmp_path / "model")
    shorter = 0
    for one, two in zip(turn, alone, strict=True):
        assert one["seed"] == two["seed"] and one["response_tokens"] <= two["response_tokens"]
        assert one["ended"] or one["response_tokens"] == 64
        if one["response_tokens"] < two["response_tokens"]:
            assert one["ended"] and two["response"].startswith(one["response"])
            shorter += 1
        else:
            assert one["response"] == two["response"]
    assert shorter >= 5
    said = [json.loads((tmp_path / ends / "results.json").read_text())["end_tokens"] for ends in ("turn", "model")]
    assert said == [{"<eos>": 1, "<|im_end|>": 258}, {"<eos>": 1}]
    line = refused(capsys, *arguments(tmp_path / "model", base, data, *asked, "--end-tokens=turn", "--workers=1"))
    assert "--end-tokens: the ids that end a response beside the tokenizer's own were none, now 258" in line


def refused(capsys, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err.strip().splitlines()
    told = [line for line in said if line.startswith("error: ")]
    assert len(told) == 1, said
    return told[0]


def copied(source: Path, folder: Path, *, without: str = "") -> Path:
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if not without or without not in path.name:
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    "typed, told",
    [
        ((), "--model is missing; name a folder or a hub id"),
        (("--model=x", "--suite=aime42"), "there is no benchmark 'aime42'; known: aime24, .*; did you mean 'aime25'"),
        (("--model=x", "--suite=gsm8k,paper"), "names a benchmark twice"),
        (("--model=x", "--max-token=8"), "unknown argument '--max-token=8'; did you mean --max-tokens?"),
        (
            ("--model=x", "--samples=4", "--k=1,8"),
            "--k: pass@8 needs 1 <= k <= n, and --samples=4; raise --samples or lower --k",
        ),
        (("--model=x", "--mode=pass@k", "--k=256"), "pass@256 needs 1 <= k <= n, and amc23 pass@k has n=128"),
        (("--model=x", "--top-p=1.5"), "--top-p: Input should be less than or equal to 1, got '1.5'"),
        (("--model=x", "--temperature=0"), "--temperature: Input should be greater than 0, got '0'"),
        (("--model=x", "--dtype=int8"), "--dtype: Input should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        (("--model=x", "--samples"), "argument --samples: expected one argument"),
    ],
)
def test_options_are_refused_by_name_before_anything_is_read(capsys, typed, told):
    line = refused(capsys, *typed)
    assert re.search(told.replace("?", r"\?").replace("|", r"\|"), line), line


def test_no_option_is_the_start_of_one_of_the_launchers():
    """argparse takes `deepspeed --module aepo.llm.evaluation --n=4` for an ambiguous option of the launcher."""
    launchers = subprocess.run(
        [str(Path(sys.executable).with_name("deepspeed")), "--help"], capture_output=True, text=True, check=True
    )
    known = set(re.findall(r"--\w+", launchers.stdout))
    assert {"--num_gpus", "--module"} <= known
    ours = {f"--{name.replace('_', '-')}" for name in Options.model_fields}
    assert not [(o, k) for o in ours for k in known if k.startswith(o)]


@pytest.mark.parametrize(
    "broken, told",
    [
        ("nowhere", "no such folder; name one with config.json, weights and tokenizer"),
        ("file", "a file; name the folder that holds it"),
        ("empty", "no config.json there; name a folder that transformers wrote"),
        ("run", "a run's folder; its trained model is --model="),
        ("no weights", "no weights there"),
        ("no tokenizer", "no tokenizer there (tokenizer.json); copy the one"),
        ("shard missing", "names model-2.safetensors, which is not there (1 of 1 missing)"),
        ("bad config", "config.json is unreadable"),
        ("no end token", "its tokenizer has no end token"),
        ("other tokenizer", "its tokenizer has the token 257, and the model embeds 200"),
        ("truncated", "its weights cannot be loaded"),
        ("lacks a weight", "1 weights are not in its files, such as model.norm.weight"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_the_cure(tmp_path, capsys, model, data, broken, told):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "broken"
    if broken == "file":
        folder.write_text("weights")
    elif broken == "empty":
        folder.mkdir()
    elif broken == "run":
        copied(model, folder / "final")
    elif broken == "no weights":
        copied(model, folder, without="safetensors")
    elif broken == "no tokenizer":
        copied(model, folder, without="tokenizer")
    elif broken != "nowhere":
        copied(model, folder)
    config = folder / "config.json"
    if broken == "shard missing":
        index = {"weight_map": {"a": "model-2.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif broken == "bad config":
        config.write_text("{")
    elif broken == "no end token":
        tokenizer = byte_tokenizer()
        tokenizer.eos_token = None
        tokenizer.save_pretrained(folder)
    elif broken == "other tokenizer":
        config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 200}))
    elif broken == "truncated":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif broken == "lacks a weight":
        tensors = load_file(folder / "model.safetensors")
        del tensors["model.norm.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    out = tmp_path / "run"
    line = refused(capsys, *arguments(out, folder, data, *SMALL))
    assert f"--model={folder}" in line and told in line, line
    assert lines(out) == 0


@pytest.mark.parametrize(
    "typed, told",
    [
        (("--template=qwen4",), "template must be one of plain, .*, got 'qwen4'; did you mean 'qwen'"),
        (("--template=chat",), "no chat template"),
        (("--max-tokens=4090",), r"--max-tokens=4090: with the longest prompt of aime24, \d+ tokens, .* lower it to 4"),
        (("--suite=walk",), "the tokenizer of --model=.* is not the walk task's"),
        (("--suite=ladder_easy",), "--suite=ladder_easy: the tokenizer of --model=.* is not the ladder_easy task's"),
        (("--data=elsewhere",), "elsewhere"),
        (("--engine=vllm",), "vLLM is not installed"),
    ],
)
def test_what_model_and_options_cannot_do_together_is_refused(tmp_path, capsys, model, data, typed, told):
    if typed == ("--engine=vllm",) and importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is installed")
    line = refused(capsys, *arguments(tmp_path / "run", model, data, *SMALL), *typed)
    assert re.search(told, line), line
    assert lines(tmp_path / "run") == 0


@pytest.mark.parametrize(
    "typed, told",
    [
        (("--seed=1",), "--seed was 0, now 1; undo this, or choose another --out"),
        (("--temperature=0.5",), "--temperature was 0.1, now 0.5"),
        (("--max-tokens=13", "--top-p=1"), "--max-tokens was 12, now 13; --top-p was 0.95, now 1.0"),
        (("--suite=amc23",), "--suite and --mode were aime24 pass@1, amc23 pass@1, now amc23 pass@1"),
        (("--rows=2",), "--data has other questions in aime24, amc23; --rows was 4, now 2"),
        (("--rows-at-once=5",), "--rows-at-once was 4, now 5"),
        (
            ("--samples=5",),
            "--samples=5: --out=.* holds 6 samples per problem of aime24 pass@1, and they may only grow",
        ),
        (("--template=qwen3",), "--data has other questions in aime24, amc23; --template was plain, now qwen3"),
    ],
)
def test_another_evaluation_is_refused_in_a_folder_by_the_names_of_what_differs(
    capsys, whole, model, data, typed, told
):
    before = lines(whole)
    line = refused(capsys, *arguments(whole, model, data, *SMALL), *typed)
    assert re.search(told, line), line
    assert lines(whole) == before


def test_settings_that_no_sample_was_drawn_by_bind_nobody(tmp_path, capsys, model, data, whole):
    out, broken = tmp_path / "run", copied(model, tmp_path / "broken")
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-100])
    assert "cannot be loaded" in refused(capsys, *arguments(out, broken, data, *SMALL))
    (broken / "model.safetensors").write_bytes(weights)
    assert main(arguments(out, broken, data, *SMALL)) == 0
    assert (out / "samples.parquet").read_bytes() == (whole / "samples.parquet").read_bytes()


def test_other_weights_or_data_in_the_same_place_are_refused(tmp_path, capsys, whole, model, data):
    changed = copied(data, tmp_path / "data")
    text = (changed / "amc23.jsonl").read_text()
    (changed / "amc23.jsonl").write_text(text.replace("3.0", "4.0"))
    assert "--data has other questions in amc23" in refused(capsys, *arguments(whole, model, changed, *SMALL))
    from safetensors.torch import load_file, save_file

    other = copied(model, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file({k: v * 1.01 for k, v in tensors.items()}, other / "model.safetensors", metadata={"format": "pt"})
    assert "--model has other weights" in refused(capsys, *arguments(whole, other, data, *SMALL))


@pytest.mark.parametrize(
    "file, text, told",
    [
        ("settings.json", "{", "settings.json is unreadable"),
        ("settings.json", '{"evaluation": {}}', "settings.json is unreadable (KeyError: 'n')"),
        ("settings.json", None, "holds samples and no settings.json"),
        ("samples/rank_0000.jsonl", '{"benchmark": 1}\n', "rank_0000.jsonl, line 1: unreadable (not the columns"),
        ("samples/rank_0003.jsonl", "twice", "is also in"),
    ],
)
def test_an_older_run_that_cannot_be_read_is_refused(tmp_path, capsys, whole, model, data, file, text, told):
    out = tmp_path / "run"
    copied(whole / "samples", out / "samples")
    (out / "settings.json").write_bytes((whole / "settings.json").read_bytes())
    if text is None:
        (out / file).unlink()
    elif text == "twice":
        (out / file).write_bytes((out / "samples" / "rank_0000.jsonl").read_bytes().splitlines(keepends=True)[4])
    else:
        (out / file).write_text(text)
    line = refused(capsys, *arguments(out, model, data, *SMALL))
    assert told in line and str(out) in line, line


def test_a_folder_that_cannot_be_written_or_is_in_use_is_refused(tmp_path, capsys, whole, model, data):
    (tmp_path / "file").write_text("")
    line = refused(capsys, *arguments(tmp_path / "file" / "run", model, data, *SMALL))
    assert "cannot be written (Not a directory); choose a folder" in line
    with alone(whole, option="--out"):
        assert f"another run works there (process {os.getpid()} on " in refused(
            capsys, *arguments(whole, model, data, *SMALL)
        )


def asked(source: Path | str, *typed: str) -> Manner:
    subject = Subject(source=str(source), place=str(source), config=None, tokenizer=None, fingerprint="")
    return manner_of(parse([f"--model={source}", *typed]), subject)


def test_the_template_goes_with_the_models_name_or_with_the_run_that_trained_it(tmp_path):
    assert asked("Qwen/Qwen2.5-Math-7B").template == "qwen_math" and asked("Qwen/Qwen2.5-7B").template == "qwen"
    assert asked("Qwen/Qwen3-4B").template == "qwen3" and asked("meta-llama/Llama-3.1-8B").template == "plain"
    folder = tmp_path / "final"
    folder.mkdir()
    (folder / "config.json").write_text('{"_name_or_path": "Qwen/Qwen2.5-Math-1.5B"}')
    assert asked(folder).template == "qwen_math"
    trained_with(tmp_path, template="qwen")
    assert asked(folder).template == "qwen"
    assert asked(folder, "--template=qwen3").template == "qwen3"


def trained_with(run: Path, **data: str) -> None:
    (run / "settings.yaml").write_text(Settings.model_validate({"data": data}).dump())


def test_a_model_is_asked_in_the_words_it_was_trained_in_and_its_responses_end_alike(tmp_path):
    folder = tmp_path / "final"
    folder.mkdir()
    trained_with(tmp_path, template="chat", system_prompt="Be brief.", instruction=" Box it.", end_tokens="model")
    told = asked(folder)
    assert (told.template, told.system_prompt, told.instruction) == ("chat", "Be brief.", " Box it.")
    assert told.end_tokens == "model"
    # What is typed counts, and the run's words belong to the run's template.
    typed = asked(folder, "--instruction=!", "--end-tokens=turn")
    assert (typed.system_prompt, typed.instruction, typed.end_tokens) == ("Be brief.", "!", "turn")
    other = asked(folder, "--template=chat", "--system-prompt=Think.")
    assert (other.system_prompt, other.instruction, other.end_tokens) == ("Think.", None, "model")
    assert asked(folder, "--template=plain").system_prompt is None
    assert asked("Qwen/Qwen3-4B").end_tokens == "turn"
    with pytest.raises(SettingsError, match=r"--system-prompt: the template 'qwen3' .* has its own; leave it out"):
        asked("Qwen/Qwen3-4B", "--system-prompt=Be brief.")


def test_the_words_of_a_training_run_reach_the_prompts_and_a_resumed_evaluation_has_the_same(
    tmp_path, data, caplog, capsys
):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    final = tiny_model(tmp_path / "final", tokenizer)
    trained_with(tmp_path, template="chat", system_prompt="Be brief.", instruction=" Box it.")
    wanted = ("--suite=aime24", "--rows=2", "--samples=2", "--max-tokens=4", "--workers=1")
    with caplog.at_level(logging.INFO, logger="aepo"):
        assert main(arguments(tmp_path / "out", final, data, *wanted)) == 0
    (first,) = (m for m in caplog.messages if "the first prompt of aime24" in m)
    assert "\n[system] Be brief.\n[user] " in first and first.endswith(" Box it.\n")
    line = refused(capsys, *arguments(tmp_path / "out", final, data, *wanted, "--system-prompt=Think."))
    assert "--system-prompt was Be brief., now Think." in line


def test_the_papers_protocol_is_the_default():
    protocol = {p.name: p for p in parse(["--model=m"]).measurements}
    averaged = {name for name, p in protocol.items() if p.mode == "pass@1" and p.n == 32}
    assert averaged == {"aime24 pass@1", "aime25 pass@1", "amc23 pass@1"}
    assert {p.benchmark for p in protocol.values()} == set(BENCHMARKS)
    explored = {p.benchmark: p.n for p in protocol.values() if p.mode == "pass@k"}
    assert explored == {"aime24": 1024, "aime25": 1024, "minerva": 128, "olympiadbench": 128}
    assert {(p.mode, p.temperature) for p in protocol.values()} == {("pass@1", 0.1), ("pass@k", 1.0)}
    assert {(p.top_p, p.max_tokens) for p in protocol.values()} == {(0.95, 8192)}


# Whole processes, killed for real.


def start(*arguments: str, python: str = sys.executable, ranks: int = 0) -> subprocess.Popen:
    command = [python, "-m", "aepo.llm.evaluation"]
    if ranks:
        launcher = str(Path(python).with_name("deepspeed"))
        command = [
            launcher,
            "--num_gpus",
            str(ranks),
            "--master_port",
            str(free_port()),
            "--module",
            "aepo.llm.evaluation",
        ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env=environment, text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def killed(out: Path, *arguments: str, at: int, ranks: int = 0) -> None:
    """Run until so many samples are on the disk, some of each rank, then SIGKILL to all its processes."""
    running = start(*arguments, ranks=ranks)
    while lines(out) < at or len(written(out)) < ranks or not all(written(out)):
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


def ended_well(*arguments: str, ranks: int = 0) -> str:
    running = start(*arguments, ranks=ranks)
    _, said = running.communicate(timeout=600)
    assert running.returncode == 0, said
    return said


ALL_SETS = ("--suite=paper", "--mode=pass@1", "--rows=20", "--samples=4", "--max-tokens=64", "--rows-at-once=32")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmarks' files in ../shared/data/math")


@pytest.fixture(scope="session")
def all_sets(tmp_path_factory, model) -> Path:
    """An uninterrupted run of all seven sets."""
    out = tmp_path_factory.mktemp("all") / "run"
    ended_well(*arguments(out, model, DATA, *ALL_SETS))
    return out


@pytest.mark.slow
@needs_data
def test_all_seven_sets_killed_and_resumed_twice_give_the_file_of_an_uninterrupted_run(tmp_path, model, all_sets):
    whole, parts = all_sets, tmp_path / "parts"
    rows = samples(whole)
    assert Counter(row["benchmark"] for row in rows) == Counter({name: 80 for name in BENCHMARKS})
    some = arguments(parts, model, DATA, *ALL_SETS, "--samples-per-call=32")
    killed(parts, *some, at=60)
    first = lines(parts)
    # A kill seldom hits the middle of a write, so here is one.
    for path in (parts / "samples").glob("*.jsonl"):
        path.write_bytes(path.read_bytes()[:-30])
    killed(parts, *some, at=first + 150)
    second = lines(parts)
    assert first < second < len(rows)
    assert "560 samples, " in ended_well(*some)
    assert (parts / "samples.parquet").read_bytes() == (whole / "samples.parquet").read_bytes()
    assert (parts / "results.json").read_text().replace(str(parts), str(whole)) == (whole / "results.json").read_text()


@pytest.mark.slow
def test_two_ranks_that_were_killed_are_gone_on_with_by_one_and_give_the_same_file(tmp_path, model, data, whole):
    out = tmp_path / "run"
    some = arguments(out, model, data, *SMALL, "--samples-per-call=4")
    killed(out, *some, at=8, ranks=2)
    assert len(list((out / "samples").glob("*.jsonl"))) == 2 and lines(out) < len(samples(whole))
    ended_well(*some)
    assert (out / "samples.parquet").read_bytes() == (whole / "samples.parquet").read_bytes()


@pytest.mark.slow
def test_two_ranks_to_the_end_give_the_file_of_one(tmp_path, model, data, whole):
    out = tmp_path / "run"
    ended_well(*arguments(out, model, data, *SMALL), ranks=2)
    assert len(list((out / "samples").glob("*.jsonl"))) == 2
    assert (out / "samples.parquet").read_bytes() == (whole / "samples.parquet").read_bytes()


@pytest.mark.slow
@needs_data
def test_vllm_killed_and_resumed_twice_draws_every_sample_of_all_seven_sets_once_from_its_seed(
    tmp_path, model, all_sets
):
    pytest.importorskip("vllm", reason="vLLM is not installed: make test-vllm installs and tests it")
    some = arguments(tmp_path, model, DATA, *ALL_SETS, "--engine=vllm", "--samples-per-call=32")
    killed(tmp_path, *some, at=32)
    first = lines(tmp_path)
    killed(tmp_path, *some, at=first + 64)
    assert first < lines(tmp_path) < 560
    ended_well(*some)
    drawn, expected = samples(tmp_path), samples(all_sets)
    assert keys(drawn) == keys(expected) and lines(tmp_path) == len(expected) == 560
    assert [row["seed"] for row in drawn] == [row["seed"] for row in expected]
    assert all(0 < row["mean_entropy"] < np.log(258) for row in drawn)


@pytest.mark.slow
@pytest.mark.parametrize("stage, ranks", [(0, 1), (2, 2), pytest.param(3, 2, marks=pytest.mark.exhaustive)])
def test_a_runs_checkpoints_are_evaluated_with_their_steps_and_the_last_is_its_final_model(tmp_path, stage, ranks):
    from safetensors.torch import load_file

    run = tmp_path / "run"
    command = [
        str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", str(ranks), "--master_port", str(free_port()),
        str(ROOT / "aepo/llm/train.py"), "--config", str(ROOT / "configs/demo_cpu.yaml"), f"--out={run}",
        "--warm_start.steps=400", f"--warm_start.cache={tmp_path}", "--train.prompts_per_step=64", "--train.steps=2",
        "--rollout.group_size=4", "--checkpoint.every=1", "--evaluation.samples=0", f"--train.zero_stage={stage}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(step["grad_norm"] > 0 for step in steps), "a step without rewards leaves the weights as they were"
    asked = ("--suite=walk", "--mode=pass@k", "--samples=4")
    for step in (1, 2):
        checkpoint = run / "checkpoints" / f"step_{step:06d}"
        assert main([f"--model={checkpoint}", f"--out={tmp_path / str(step)}", *asked]) == 0
        results = json.loads((tmp_path / str(step) / "results.json").read_text())
        assert (results["step"], results["label"]) == (step, "run")
    first, made, final = (
        load_file(f / "model.safetensors") for f in (tmp_path / "1" / "model", tmp_path / "2" / "model", run / "final")
    )
    assert made.keys() == final.keys() and all(torch.equal(made[name], final[name]) for name in made)
    assert not any(torch.equal(first[name], made[name]) for name in made)
    assert main([f"--model={run / 'final'}", f"--out={tmp_path / 'final'}", *asked]) == 0
    assert samples(tmp_path / "final") == samples(tmp_path / "2") != samples(tmp_path / "1")


# Not getrusage's peak, in which a child begins with its parent's.
PEAK = """
import sys
from aepo.llm.evaluation.__main__ import main
code = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.exhaustive
def test_1024_samples_per_problem_need_no_more_memory_than_8(tmp_path, model, data):
    peak = {}
    for n in (8, 1024):
        some = arguments(
            tmp_path / str(n), model, data, "--suite=aime24", "--mode=pass@k", f"--samples={n}", "--max-tokens=24",
            "--rows-at-once=24", "--samples-per-call=24", "--workers=1", "--rows=3",
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *some], capture_output=True, text=True, cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peak[n] = int(done.stdout.split()[-1]) * 1024
        assert len(samples(tmp_path / str(n))) == 3 * n
    # 128 times the samples: what is kept of each, a place in a file, is 12 bytes; the rest is the allocator's.
    assert peak[1024] < peak[8] * 1.05, peak
