"""What do score and update cost where each prompt is computed once for all its responses, beside once for each?

A Llama of SmolLM2-135M's shape with random weights, which cost what trained ones do, so nothing is downloaded; float32,
one thread, CPU seconds, which a busy machine distorts least. Every way runs in a process of its own, the ways in turn.
The ceiling is the saving in tokens, (P + R) G / (P + G R) with P and R the tokens of prompt and response and G the
responses of a prompt. `plain` is also without fused AdamW: the trainer before both. Beside them stands a step of TRL's
GRPO on as many prompts and responses, all of the mean length; and whole steps of the demo, with and without sharing.

`rounding` is about trained weights (those that `aepo model` made, where they are there): log-probs, entropies and
gradients of both ways on ragged prompts, in float64 against each other, and in float32 against float64's.

    python benchmarks/shared_prompts.py     # 21 + 2.4 tokens, 120 + 300, demo, rounding: results/shared_prompts.json
    python benchmarks/shared_prompts.py --case short --rounds 1
"""

import argparse
import contextlib
import functools
import io
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aepo import zoo
from aepo.batch import Rollouts
from aepo.controller import Control
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import update
from aepo.method import assemble

# Before trl is imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

RESULT = Path(__file__).parent / "results" / "shared_prompts.json"
GROUP, TOKEN_BUDGET, LR = 8, 16384, 1e-6
# Prompts of a step, and the shortest and longest of prompts and responses: means of 21 + 2.4 and of 120 + 300.
CASES = {
    "short": {"prompts": 8, "prompt": (20, 22), "response": (1, 4), "limit": 0.55},
    "long": {"prompts": 1, "prompt": (120, 120), "response": (240, 360), "limit": 1.0},
}
"""`limit`: the most that a shared step may cost of a plain one."""
PARTS = ("generate", "score", "update")
DEMO, ROUNDING, WAYS = "demo", "rounding", ("plain", "shared")
MODEL = Path(__file__).parents[1] / "models" / "smollm2-135m"
DEMO_STEPS = 40
"""Of which the second half is counted: the demo's warm model."""


def smollm2() -> Any:
    """SmolLM2-135M's sizes, random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=1536, max_position_embeddings=8192, rope_theta=100000.0, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def lengths(low: int, high: int, count: int) -> list[int]:
    """Evenly between both ends, in an order of no meaning."""
    return np.random.default_rng(0).permutation(np.linspace(low, high, count).round().astype(int)).tolist()


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returned."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def once(way: str, case: dict[str, Any], steps: int) -> dict[str, Any]:
    """CPU seconds of the parts of `steps` steps after one that warms up, peak memory, and what was computed."""
    shared, draw = way == "shared", np.random.default_rng(1)
    prompts = [tuple(draw.integers(1, 49152, n).tolist()) for n in lengths(*case["prompt"], case["prompts"])]
    rows = GROUP * case["prompts"]
    response = torch.tensor(lengths(*case["response"], rows))
    longest = int(response.max())
    mask = (torch.arange(longest) < response.unsqueeze(-1)).float()
    sampled = Rollouts(
        prompt=torch.arange(case["prompts"]).repeat_interleave(GROUP),
        token=torch.from_numpy(draw.integers(1, 49152, (rows, longest))) * mask.long(),
        mask=mask,
        reward=(torch.arange(rows) % 3 == 0).float(),
        group_size=GROUP,
    )
    wrapped = ResponseStats(smollm2())
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=LR, fused=shared)
    policy = Policy(
        TorchStepper(wrapped, optimizer, max_grad_norm=1.0),
        prompts,
        pad_id=0,
        token_budget=TOKEN_BUDGET,
        lr=LR,
        sharing=shared,
    )
    # The random model ends no response by itself.
    engine = EmbeddedEngine(
        model=wrapped.model, end_ids=[0], pad_id=0, max_tokens=round(float(response.float().mean()))
    )
    method, zero = zoo.build("grpo"), torch.zeros(())
    found: dict[str, Any] = {name: [] for name in PARTS}
    for step in range(steps + 1):
        taken = {"generate": 0.0}
        if case["limit"] < 1:
            seeds = np.arange(rows, dtype=np.uint64) + np.uint64(1000 * step)
            taken["generate"], _ = clocked(
                lambda s=seeds: engine.sample(prompts, n=GROUP, temperature=1.0, row_seeds=s)
            )
        taken["score"], scored = clocked(lambda: policy.score(sampled))
        control = Control(temperature=zero + 1, raise_entropy=zero > 0)
        batch = assemble(method, control, scored, None)
        taken["update"], done = clocked(lambda b=batch: update(policy, b, method, parts=1))
        if step == 0:
            found |= {"gradient norm": done.norms[0], "entropy": float(scored.mean_entropy())}
            continue
        for name, seconds in taken.items():
            found[name].append(seconds)
    found["peak GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def of_trl(case: dict[str, Any], steps: int) -> dict[str, list[float]]:
    """CPU seconds of generation and of the rest of TRL's step, on the same model and batch."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from aepo.llm.questions.small_tokenizers import word_tokenizer

    tokenizer = word_tokenizer([f"w{i}" for i in range(49150)])
    draw, rows = np.random.default_rng(1), GROUP * case["prompts"]
    texts = [
        " ".join(f"w{word}" for word in draw.integers(0, 49150, length))
        for _ in range(steps + 1)
        for length in lengths(*case["prompt"], case["prompts"])
    ]
    mean = round(sum(lengths(*case["response"], rows)) / rows)
    marks: dict[str, list[float]] = {"generate": [], "end": []}

    class Clocked(GRPOTrainer):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            seconds, found = clocked(lambda: super(Clocked, self)._generate(*args, **kwargs))
            marks["generate"].append(seconds)
            return found

    class Ends(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks["end"].append(time.process_time())

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, per_device_train_batch_size=rows, num_generations=GROUP, steps_per_generation=1,
            max_completion_length=mean, max_steps=steps + 1, learning_rate=LR, loss_type="grpo", beta=0.0,
            use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no",
            disable_tqdm=True, shuffle_dataset=False, generation_kwargs={"min_new_tokens": mean},
        )  # fmt: skip

        def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
            return [float(row % 3 == 0) for row in range(len(completion_ids))]

        Clocked(
            smollm2(), reward, config, train_dataset=Dataset.from_dict({"prompt": texts}), processing_class=tokenizer,
            callbacks=[Ends()],
        ).train()  # fmt: skip
    whole = [after - before for before, after in itertools.pairwise(marks["end"])]
    generate = marks["generate"][1:]
    return {"generate": generate, "rest": [a - b for a, b in zip(whole, generate, strict=True)]}


def of_demo(way: str) -> list[float]:
    """CPU seconds of whole steps of the demo, of its second half."""
    from aepo.llm import train
    from aepo.llm.processes.ranks import be_alone
    from aepo.llm.settings import load

    ends: list[float] = []
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        settings = load(
            "demo_cpu",
            [
                f"out={out}/run", "log.plot_every=0", "checkpoint.every=0", "evaluation.samples=1", "evaluation.ks=[1]",
                f"train.steps={DEMO_STEPS}", f"train.shared_prompts={'auto' if way == 'shared' else 'never'}",
            ],
        )  # fmt: skip
        be_alone()
        train.run(settings, on_step=lambda record: ends.append(time.process_time()))
        torch.distributed.destroy_process_group()
    steps = [after - before for before, after in itertools.pairwise(ends)]
    return steps[len(steps) // 2 :]


def of_rounding() -> dict[str, dict[str, float]]:
    """How far the ways are apart, and each in float32 from float64: the largest difference of a log-prob and of an
    entropy, in nats, and that of a parameter's gradient by the norm of the largest."""
    from transformers import AutoModelForCausalLM

    draw, rows = np.random.default_rng(1), 3 * GROUP
    prompts = [tuple(draw.integers(1, 49152, length).tolist()) for length in (9, 21, 26)]
    response = torch.tensor(lengths(1, 6, rows))
    mask = (torch.arange(int(response.max())) < response.unsqueeze(-1)).double()
    token = torch.from_numpy(draw.integers(1, 49152, tuple(mask.shape))) * mask.long()
    of, found = torch.arange(3).repeat_interleave(GROUP), {}
    for dtype in (torch.float32, torch.float64):
        model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).to(dtype).eval()
        for module in model.modules():
            # transformers' own norm computes in float32, whatever the weights are.
            if type(module).__name__.endswith("RMSNorm"):
                module.forward = functools.partial(_rms_norm, module)
        wrapped = ResponseStats(model)
        stepper = TorchStepper(wrapped, torch.optim.SGD(wrapped.parameters(), lr=0.0), max_grad_norm=float("inf"))
        policy = Policy(stepper, prompts, pad_id=0, token_budget=TOKEN_BUDGET, lr=0.0, sharing=True)
        for way in WAYS:
            logp, entropy, _ = policy._forward(stepper, of, token, mask.to(dtype), 1.0, False, shared=way == "shared")
            weight = torch.linspace(-1, 1, rows, dtype=dtype).unsqueeze(-1)
            loss = ((weight * logp + 0.01 * entropy) * mask).sum() / rows
            gradient = torch.autograd.grad(loss, list(model.parameters()))
            found[way, dtype] = (logp.detach(), entropy.detach(), gradient)

    def apart(one: tuple[str, torch.dtype], other: tuple[str, torch.dtype]) -> dict[str, float]:
        (logp, entropy, mine), (its_logp, its_entropy, its) = found[one], found[other]
        largest = max(float(g.double().norm()) for g in its)
        return {
            "logp": float((logp - its_logp).abs().max()),
            "entropy": float((entropy - its_entropy).abs().max()),
            "gradient": max(float((a.double() - b.double()).norm()) for a, b in zip(mine, its, strict=True)) / largest,
        }

    exact = ("plain", torch.float64)
    return {
        "float64, shared against plain": apart(("shared", torch.float64), exact),
        "float32, shared against plain": apart(("shared", torch.float32), ("plain", torch.float32)),
        **{f"{way} in float32 against float64": apart((way, torch.float32), exact) for way in WAYS},
    }


def _rms_norm(module: Any, hidden: torch.Tensor) -> torch.Tensor:
    return module.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + module.variance_epsilon)


def in_its_own_process(case: str, way: str, steps: int) -> Any:
    """What one way measured."""
    command = [sys.executable, __file__, "--case", case, "--way", way, "--steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compared(name: str, *, rounds: int, steps: int) -> tuple[dict[str, Any], bool]:
    """What a case costs by each way, and whether it keeps its limits."""
    case, runs = CASES[name], {"plain": [], "shared": [], "trl": []}
    for _ in range(rounds):
        for way, found in runs.items():
            found.append(in_its_own_process(name, way, steps))
    of_trl_runs = runs.pop("trl")
    trl = {part: statistics.median(s for run in of_trl_runs for s in run[part]) for part in ("generate", "rest")}
    cost = {
        way: {part: statistics.median(s for run in found for s in run[part]) for part in PARTS}
        | {"peak GiB": statistics.median(run["peak GiB"] for run in found)}
        for way, found in runs.items()
    }
    for values in cost.values():
        values["step"] = sum(values[part] for part in PARTS)
    ratio = {key: cost["shared"][key] / max(cost["plain"][key], 1e-9) for key in cost["plain"]}
    first = {way: found[0] for way, found in runs.items()}
    apart = {key: abs(first["shared"][key] / first["plain"][key] - 1) for key in ("gradient norm", "entropy")}
    print(f"{name}: {case['prompts']} prompts of {case['prompt']} tokens x {GROUP} responses of {case['response']}")
    for key in (*PARTS, "step", "peak GiB"):
        print(f"  {key:10}{cost['plain'][key]:9.2f}{cost['shared'][key]:9.2f}{ratio[key]:8.2f}")
    print(f"  TRL's GRPO: generate {trl['generate']:.2f}, the rest {trl['rest']:.2f}")
    print(f"  differ by {apart['gradient norm']:.1e} (gradient norm) and {apart['entropy']:.1e} (entropy)", flush=True)
    # Memory of a process is coarse: pages that the allocator has and nobody uses.
    kept = ratio["step"] <= case["limit"] and ratio["peak GiB"] <= 1.02 and max(apart.values()) <= 1e-5
    return {**case, "group": GROUP, "cost": cost, "trl": trl, "shared_of_plain": ratio, "apart": apart}, kept


def compared_demo(*, rounds: int) -> dict[str, Any]:
    """What a step of the demo costs with and without sharing."""
    runs: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, found in runs.items():
            found += in_its_own_process(DEMO, way, 1)
    cost = {way: statistics.median(found) for way, found in runs.items()}
    print(f"demo: {cost['plain']:.3f} CPU seconds a step, {cost['shared']:.3f} with sharing", flush=True)
    return {"cost": cost, "shared_of_plain": {"step": cost["shared"] / cost["plain"]}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=(*CASES, DEMO, ROUNDING), help="default: all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="of every way in every round, after one that warms up")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--way", choices=(*WAYS, "trl"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.way:
        torch.set_num_threads(1)
        if chosen.case == DEMO:
            found: Any = of_demo(chosen.way)
        elif chosen.way == "trl":
            found = of_trl(CASES[chosen.case], chosen.steps)
        else:
            found = once(chosen.way, CASES[chosen.case], chosen.steps)
        print(json.dumps(found))
        return 0
    report: dict[str, Any] = {
        "command": "python benchmarks/shared_prompts.py",
        "device": f"CPU, {platform.machine()}, 1 thread",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
    }
    failed = False
    # A case by itself joins the others that were measured before.
    if chosen.case and chosen.out.exists():
        report = json.loads(chosen.out.read_text()) | report
    for name in [chosen.case] if chosen.case else (*CASES, DEMO, *([ROUNDING] if MODEL.exists() else [])):
        if name == DEMO:
            report[name] = compared_demo(rounds=chosen.rounds)
        elif name == ROUNDING:
            report[name] = of_rounding()
            print(json.dumps(report[name], indent=1))
        else:
            report[name], kept = compared(name, rounds=chosen.rounds, steps=chosen.steps)
            failed |= not kept
        # Case by case: what is cut off keeps what it has.
        chosen.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({name: report[name]["shared_of_plain"] for name in (*CASES, DEMO) if name in report}))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
