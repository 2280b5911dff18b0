"""`python -m aepo.llm.gpu_check`: no stage stops the next, what is missing is named, and every check can fail."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from aepo.llm.gpu_check import correctness, kernels, sanitizer, sizes, speed, table, training
from aepo.llm.gpu_check.__main__ import check, main
from aepo.llm.gpu_check.findings import Findings, LeftOut, Wrong
from aepo.llm.gpu_check.stages import STAGES, Stage
from aepo.llm.gpu_check.timing import Cost

BARE = ("deepspeed", "pydantic", "hypothesis")
"""What a machine with torch, triton, transformers and pytest alone lacks."""
STAGES_FOR_TESTS = {
    "hangs": """
        import subprocess, time
        def run(findings):
            child = subprocess.Popen(['sleep', '600'])
            findings.check('first', lambda: {'child': child.pid})
            findings.check('endless', lambda: time.sleep(600))
        """,
    "raises": "def run(findings):\n    findings.check('first', dict)\n    raise ValueError('broken on purpose')",
    "garbage": """
        import sys
        def run(findings):
            sys.stdout.buffer.write(b'\\xff\\xfe{"status": 1}\\n[')
            with findings.path.open('ab') as file:
                file.write(b'\\xff{"what": \\n17\\n')
        """,
    "vanishes": "import os\ndef run(findings):\n    findings.check('first', dict)\n    os._exit(0)",
    "killed": "import os, signal\ndef run(findings):\n    os.kill(os.getpid(), signal.SIGSEGV)",
    "misses": "def run(findings):\n    import a_package_that_nobody_has",
    "wrong": """
        from aepo.llm.gpu_check.findings import Wrong
        def run(findings):
            def one():
                raise Wrong('off by 0.5 | more', off=float('nan'))
            findings.check('one', one)
            findings.check('two', lambda: {'figure': 1.5})
        """,
    "fine": "def run(findings):\n    findings.check('one', lambda: {'figure': 2})\n    findings.left_out('two', 'no')",
}


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Stages that end in every way there is, as modules that their processes can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, source in STAGES_FOR_TESTS.items():
        (folder / f"stage_{name}.py").write_text(textwrap.dedent(source))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    # Long enough for a process to start on a busy machine.
    return [
        Stage(name=name, module=f"stage_{name}", seconds=8 if name == "hangs" else 60, answers="?")
        for name in STAGES_FOR_TESTS
    ]


def command(out, *arguments, **environment):
    """The real command in a process of its own, without a GPU."""
    own = {"CUDA_VISIBLE_DEVICES": "", "OUT": str(out)} | environment
    return subprocess.run(
        [sys.executable, "-m", "aepo.llm.gpu_check", *arguments], env=os.environ | own, capture_output=True, text=True
    )


def results(out):
    return json.loads((out / "results.json").read_text())


def outcomes(out):
    return {one["stage"]: one for one in results(out)["stages"]}


def alive(pid):
    try:
        return "Z" not in open(f"/proc/{pid}/stat").read().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_stage_that_dies_is_a_row_and_the_rest_still_runs(broken, tmp_path, capsys):
    out = tmp_path / "out"
    began = time.monotonic()
    assert check(broken, out=out, command="the command") == 1
    assert time.monotonic() - began < 120
    found = outcomes(out)
    assert {name: one["status"] for name, one in found.items()} == {
        "raises": "failed", "hangs": "failed", "garbage": "failed", "vanishes": "failed", "killed": "failed",
        "misses": "left out", "wrong": "failed", "fine": "passed",
    }  # fmt: skip
    assert found["raises"]["why"] == "it ended with exit code 1"
    assert "within 8 s" in found["hangs"]["why"] and "endless: the stage ended in the middle" in found["hangs"]["why"]
    assert "its own record" in found["garbage"]["why"]
    assert found["vanishes"]["why"] == "it ended before its end"
    assert found["killed"]["why"] == "it was ended by SIGSEGV"
    assert found["misses"]["why"] == "a_package_that_nobody_has is not installed"
    assert found["wrong"]["why"] == "one: off by 0.5 | more"
    # What was found before the end is kept, and what the stage had started is ended.
    first = found["hangs"]["checks"][0]
    assert first["status"] == "passed" and not alive(first["facts"]["child"])
    assert found["vanishes"]["checks"][0]["status"] == "passed"
    log = (out / "log.txt").read_bytes()
    assert b"broken on purpose" in log and b'\xff\xfe{"status": 1}' in log
    written = (out / "table.md").read_text()
    assert written in capsys.readouterr().out
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") in (4, 7) for line in rows)
    assert [row.split(" | ")[0] for row in rows if "**" in row] == [f"| {name}" for name in STAGES_FOR_TESTS]


def test_results_are_written_after_every_stage(broken, tmp_path):
    fine = next(one for one in broken if one.name == "fine")
    looks = tmp_path / "modules" / "stage_looks.py"
    path = tmp_path / "out" / "results.json"
    looks.write_text(f"def run(findings):\n    findings.check('seen', lambda: {{'text': open({str(path)!r}).read()}})")
    stages = [fine, Stage(name="looks", module="stage_looks", seconds=60, answers="?")]
    assert check(stages, out=tmp_path / "out", command="x") == 0
    seen = json.loads(outcomes(tmp_path / "out")["looks"]["checks"][0]["facts"]["text"])
    assert [one["stage"] for one in seen["stages"]] == ["fine"]


def test_a_stage_may_use_what_the_one_before_left_of_its_time(broken, tmp_path):
    given = {"fine": 30.0, "wrong": 20.0}
    stages = [Stage(name=name, module=f"stage_{name}", seconds=s, answers="?") for name, s in given.items()]
    check(stages, out=tmp_path, command="x")
    fine, wrong = outcomes(tmp_path).values()
    assert fine["limit_seconds"] == 30 and 30 < wrong["limit_seconds"] <= 50
    assert wrong["limit_seconds"] == round(50 - fine["seconds"])


def test_all_stages_together_take_less_than_ten_minutes():
    assert sum(stage.seconds for stage in STAGES) < 595


@pytest.mark.parametrize(
    "absent, stages, why",
    [
        (BARE, "train", {"about": None, "train": "not installed: deepspeed, pydantic"}),
        (("torch",), "kernels,speed,train,sizes,sanitizer", {"about": None, "kernels": "torch", "speed": "torch",
         "train": "not installed: torch", "sizes": "torch", "sanitizer": "torch"}),
    ],
    ids=["bare", "without torch"],
)  # fmt: skip
def test_missing_packages_are_named_with_what_is_left_out_for_them(absent, stages, why, tmp_path):
    # A module that is None there cannot be imported, and is not found.
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({absent!r})\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = command(tmp_path / "out", "--stages", stages, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path / "out")
    assert set(absent) <= set(found["missing"]) and not set(absent) & set(found["versions"])
    for name in absent:
        assert f"- {name} is not here, and therefore not:" in done.stdout
    for one in found["stages"]:
        expected = why[one["stage"]]
        assert one["status"] == ("passed" if expected is None else "left out")
        assert expected is None or one["why"].startswith(expected)


def test_the_command_checks_every_backend_that_a_cpu_can_run(tmp_path):
    done = command(tmp_path, "--stages", "about,kernels")
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    assert found["device"]["kind"] == "cpu" and found["versions"]["torch"] and found["when"]
    assert found["command"] == "python -m aepo.llm.gpu_check --stages about,kernels"
    checks = {one["what"]: one["status"] for one in outcomes(tmp_path)["kernels"]["checks"]}
    assert checks.pop("cuda") == "left out" and checks.pop("test_fused_gpu.py") == "left out"
    assert set(checks.values()) == {"passed"}
    for vocabulary in (1, 50, 128, 129, 300):
        for dtype in ("float32", "bfloat16"):
            assert {f"triton {dtype} V={vocabulary}", f"torch {dtype} V={vocabulary}"} <= set(checks)
    assert (tmp_path / "table.md").read_text() in done.stdout


@pytest.mark.slow
def test_the_whole_command_ends_on_a_cpu_with_a_table_of_what_it_could_run(tmp_path):
    done = command(tmp_path)
    assert done.returncode == 0, done.stdout + (tmp_path / "log.txt").read_text(errors="replace")
    assert {name: one["status"] for name, one in outcomes(tmp_path).items()} == {
        "about": "passed", "kernels": "passed", "speed": "left out", "train": "passed", "sizes": "passed",
        "sanitizer": "left out",
    }  # fmt: skip
    assert len(outcomes(tmp_path)["train"]["checks"]) == 3


def test_importing_the_command_loads_neither_torch_nor_the_trainer():
    code = "import sys, aepo.llm.gpu_check.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {"torch", "numpy", "transformers", "deepspeed", "aepo.llm.train"} & set(loaded) == set()


def test_an_unknown_stage_is_refused_with_the_names_of_all(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--stages", "kernels,spede"])
    said = capsys.readouterr().err
    assert end.value.code == 2 and "no such stage: spede" in said and "about, kernels, speed" in said


# -- the checks can fail --


def drawn(backend="torch", vocabulary=50, dtype=torch.float32):
    return lambda: correctness.Operands.drawn(18, 24, vocabulary, dtype=dtype, device="cpu")


@pytest.mark.parametrize("slip", [{"temperature": 0.701}, {"labels": 1}, {"hidden": 1.001}])
def test_a_slightly_wrong_operation_is_seen(slip, monkeypatch):
    right = correctness.linear_token_stats
    correctness.agrees("torch", drawn(), 0.7, correctness.ALL)

    def off(hidden, weight, labels, temperature, **options):
        labels = labels.clone()
        labels[5] = (labels[5] + slip.get("labels", 0)) % len(weight)
        return right(hidden * slip.get("hidden", 1), weight, labels, slip.get("temperature", temperature), **options)

    monkeypatch.setattr(correctness, "linear_token_stats", off)
    with pytest.raises(Wrong, match="values are off by"):
        correctness.agrees("torch", drawn(), 0.7, correctness.ALL)


def test_a_wrong_gradient_is_seen_where_the_values_are_right(monkeypatch):
    right = correctness.linear_token_stats

    def off(hidden, weight, *arguments, **options):
        return right(hidden + 0.01 * (hidden - hidden.detach()), weight, *arguments, **options)

    monkeypatch.setattr(correctness, "linear_token_stats", off)
    with pytest.raises(Wrong, match="gradients by"):
        correctness.agrees("torch", drawn(), 0.7, correctness.ALL)


def test_a_run_that_differs_in_one_bit_is_seen(monkeypatch):
    right, calls = correctness.linear_token_stats, []

    def off(hidden, *arguments, **options):
        calls.append(1)
        # Later runs add another zero, so to speak.
        return right(hidden * (1 + 2**-23) if len(calls) == 3 else hidden, *arguments, **options)

    assert correctness.repeats("torch", drawn()) == {}
    monkeypatch.setattr(correctness, "linear_token_stats", off)
    with pytest.raises(Wrong, match="run 3 differs"):
        correctness.repeats("torch", drawn())


def test_a_backend_that_cannot_run_is_left_out_with_its_reason():
    few = correctness.Sizes(vocabularies=(50,), rows=18, width=24)
    for name, case in correctness.cases("cuda", few, "cpu"):
        with pytest.raises(LeftOut, match="logits are on cpu"):
            case()
        assert name.startswith("cuda")


@pytest.mark.parametrize(
    "said, code, error, match",
    [
        ("ERROR SUMMARY: 0 errors", 0, None, None),
        ("Error: Device not supported. Please refer to", 1, LeftOut, "Device not supported"),
        ("Invalid __global__ read of size 4", 9, Wrong, "exit code 9: Invalid __global__ read"),
        ("", None, LeftOut, "says nothing of the kernels"),
    ],
)
def test_what_the_sanitizer_says_is_understood(said, code, error, match, tmp_path):
    tool = tmp_path / "compute-sanitizer"
    end = "exec sleep 60" if code is None else f"exit {code}"
    tool.write_text(f'#!/bin/sh\ntest "$1 $2" = "--report-api-errors no" || exit 77\necho "========= {said}"\n{end}\n')
    tool.chmod(0o755)
    if error is None:
        assert sanitizer.watched(str(tool), seconds=60) == {"said": said}
    else:
        with pytest.raises(error, match=match):
            sanitizer.watched(str(tool), seconds=1 if code is None else 60)


def test_gpu_tests_run_by_file_and_the_failed_ones_are_named(tmp_path):
    file = tmp_path / "test_something_gpu.py"
    file.write_text("def test_one(): pass\ndef test_the_sanitizer(): assert 0\n")
    assert "1 passed" in kernels.tested(file, on_gpu=True, seconds=60)["pytest"]
    file.write_text("def test_one(): pass\ndef test_two(): assert 0\n")
    with pytest.raises(Wrong, match=r"exit code 1: test_two .*1 failed, 1 passed"):
        kernels.tested(file, on_gpu=True, seconds=60)


@pytest.mark.parametrize(
    "steps, norm, export, why",
    [
        ((0, 1), 0.5, True, None),
        ((0, 0), 0.5, True, "not of 0 to 1"),
        ((0, 1), 0.0, True, "norms"),
        ((0, 1), float("nan"), True, "norms"),
        ((0, 1), 0.5, False, "no export"),
    ],
)
def test_a_run_is_judged_by_what_it_left(steps, norm, export, why, tmp_path):
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "model.safetensors").write_bytes(b"0" * (1000 if export else 0))
    rows = [json.dumps({"step": step, "grad_norm": norm, "entropy": 1.0}) for step in steps]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows))
    one = training.Run(name="x", folder=tmp_path, steps=2, every=1, changes={})
    if why is None:
        assert training.judged(one) == {"steps": 2, "entropy": 1.0, "grad_norm": 0.5, "exported MB": 0.001}
    else:
        with pytest.raises(Wrong, match=why):
            training.judged(one)


def test_gradients_formed_in_the_forward_pass_are_those_of_whole_logits():
    x = speed.Operands(12, 16, 70, device="cpu")
    mine = speed.blocks_both(x, 5)
    exact = [leaf.detach().double().requires_grad_() for leaf in (x.hidden, x.weight)]
    log_probs = (exact[0] @ exact[1].T).log_softmax(-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    loss = (x.up * (log_probs.gather(1, x.labels[:, None])[:, 0] + entropy)).sum()
    for a, b in zip(mine, torch.autograd.grad(loss, exact), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=4 * torch.finfo(a.dtype).eps * b.abs().max().item())


def test_ways_are_compared_with_the_products_that_they_need(tmp_path):
    def tile():
        raise RuntimeError("out of resource:\nshared memory")

    ways = {
        "1 product": speed.Way(run=dict, products=1),
        "3 products": speed.Way(run=dict, products=3),
        "ours": speed.Way(run=dict, products=3),
        "another tile": speed.Way(run=tile, products=1, shipped=False),
        "broken": speed.Way(run=tile, products=1),
    }
    costs = speed.measured(ways, "cpu")
    assert isinstance(costs["broken"], RuntimeError) and len(costs["ours"]) == speed.ROUNDS
    for name, seconds in (("1 product", 0.010), ("3 products", 0.030), ("ours", 0.045)):
        costs[name] = [Cost(seconds=seconds, peak_bytes=0, extra_bytes=2_000_000)]
    findings = Findings(tmp_path / "found.jsonl", seconds=60)
    speed.written(findings, "here", ways, costs, flops=10**12)
    lines = [json.loads(line) for line in findings.path.read_text().splitlines()]
    found = {one["what"].removeprefix("here "): one for one in lines if one["status"] != "begun"}
    assert found["ours"]["facts"] == {
        "ms": 45.0,
        "x 3 products": 1.5,
        "TFLOP/s": pytest.approx(66.7, 0.01),
        "extra MB": 2,
    }
    assert (
        found["another tile"]["status"] == "left out" and found["another tile"]["why"] == "RuntimeError: shared memory"
    )
    assert found["broken"]["status"] == "failed"


def test_varlen_attention_is_told_where_the_packed_rows_end(monkeypatch):
    from torch.nn.attention import varlen

    def row_by_row(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
        assert (window_size, enable_gqa, max_q) == ((-1, 0), True, int(cu_seq_q.diff().max()))
        parts = []
        for start, end in itertools.pairwise(cu_seq_q.tolist()):
            heads_first = (x[start:end].transpose(0, 1).unsqueeze(0) for x in (query, key, value))
            attend = torch.nn.functional.scaled_dot_product_attention
            parts.append(attend(*heads_first, is_causal=True, scale=scale, enable_gqa=True)[0].transpose(0, 1))
        return torch.cat(parts)

    size = dataclasses.replace(sizes.TINY, tokens=400, longest=60)
    work, first = sizes.Work.drawn(size), []
    with pytest.raises(LeftOut, match="needs a CUDA device"):
        sizes.measured(work, size, "cpu", True, sizes.VARLEN, first)
    sizes.measured(work, size, "cpu", False, "sdpa", first)
    monkeypatch.setattr(varlen, "varlen_attn", row_by_row)
    register = sizes.register_varlen
    monkeypatch.setattr(sizes, "register_varlen", lambda _: register("cuda"))
    assert sizes.measured(work, size, "cpu", True, sizes.VARLEN, first)["nats from the first way"] < 1e-6
    # A difference beyond rounding is wrong, however small the rounding is said to be.
    monkeypatch.setattr(sizes, "AGREE", {torch.float32: 1e-9})
    with pytest.raises(Wrong, match="differ from those of the first way"):
        sizes.measured(work, size, "cpu", True, sizes.VARLEN, first)


def test_a_table_of_nothing_says_that_the_device_is_unknown():
    empty = table.Results(command="c", when="w", versions={}, missing={}, outcomes=[])
    assert empty.as_markdown().startswith("# unknown device") and json.loads(empty.as_json())["device"] is None
