"""What do scoring and the gradient of one micro-batch cost by each attention, beside what their products need?

A random Qwen2.5-1.5B in bfloat16 with checkpointed layers, 16,384 tokens. `rows` are answers to prompts of their own:
padded, and packed by transformers' attention with its mask of tokens x tokens, beside ours, which make none. `groups`
are eight answers to each prompt, with every prompt computed once and with each answer. The floor is the time of the
multiplications alone at the speed of a large product on the same device: those of the layers and the head, and those of
attention where a token sees its own row and nothing after itself. A gradient passes forward twice and backward once,
which costs as much as two passes forward. The goal: a packed gradient twice as fast as with the mask.

    python benchmarks/attention_gpu.py           # a table, results/attention_gpu.json, one line of JSON last
    python benchmarks/attention_gpu.py --tiny    # a tiny model in float32, also without a GPU: that it runs
"""

import argparse
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aepo.batch import Rollouts
from aepo.llm.gpu_check import sizes
from aepo.llm.gpu_check.timing import timed
from aepo.llm.policy.attention import KERNELS, missing, unfit
from aepo.llm.policy.layout import one_behind_the_other, prompts_first
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper

RESULT = Path(__file__).parent / "results" / "attention_gpu.json"
TINY = replace(sizes.TINY, tokens=512, longest=60)
GROUP, GOAL = 8, 2.0
MASKED = "packed, transformers"
PASSES = {"score": 1, "gradient": 4}
"""Of forward cost: checkpointed layers are passed twice, and a backward pass has two products for each."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the rows of a case are computed."""

    attention: str
    packing: bool
    sharing: bool = False

    @property
    def name(self) -> str:
        layout = "packed" if self.packing else "padded"
        return f"{layout}{', shared' if self.sharing else ''}, {self.attention}"


WAYS = {
    "rows": [Way(attention=name, packing=packing) for packing in (False, True) for name in ("transformers", *KERNELS)],
    "groups": [Way(attention="transformers", packing=False), Way(attention="transformers", packing=True)]
    + [Way(attention=name, packing=True, sharing=sharing) for name in KERNELS for sharing in (False, True)],
}


def drawn(size: sizes.Size, *, group: int) -> sizes.Work:
    """Rows of a tenth to all of the longest, as many as the micro-batch holds; `group` of them answer each prompt."""
    generator = torch.Generator().manual_seed(0)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    def tokens(count: int) -> list[int]:
        return torch.randint(1, 300, (count,), generator=generator).tolist()

    prompts, responses, left = [], [], size.tokens
    while left > 0:
        # A group's prompt is as long as its answers; prompts of rows are short beside them.
        prompt = tokens(size.longest // (3 if group > 1 else 20))
        answers = [tokens(number(size.longest // 10, size.longest - len(prompt))) for _ in range(group)]
        left -= sum(len(prompt) + len(answer) for answer in answers)
        if left >= 0 or not prompts:
            prompts.append(tuple(prompt))
            responses += answers
    lengths = torch.tensor([len(answer) for answer in responses])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).float()
    token = torch.zeros(mask.shape, dtype=torch.int64)
    token[mask != 0] = torch.tensor([one for answer in responses for one in answer])
    rollouts = Rollouts(
        prompt=torch.arange(len(prompts)).repeat_interleave(group),
        token=token,
        mask=mask,
        reward=torch.zeros(len(responses)),
        group_size=group,
    )
    return sizes.Work(prompts=prompts, rollouts=rollouts)


def floor(work: sizes.Work, net: Any, *, shared: bool) -> dict[str, float]:
    """Floating point operations of a forward pass: of the layers and the head, and of attention."""
    rollouts, config = work.rollouts, net.config
    laid = (
        prompts_first(work.prompts, rollouts.prompt.tolist(), rollouts.token, rollouts.mask)
        if shared
        else one_behind_the_other([work.prompts[p] for p in rollouts.prompt.tolist()], rollouts.token, rollouts.mask)
    )
    layers = sum(p.numel() for p in net.model.layers.parameters() if p.dim() == 2)
    head = net.get_output_embeddings().weight.numel()
    # The last query of a sequence sees all its keys, each before it one fewer.
    lengths = zip(laid.spans.queries, laid.spans.keys, strict=True)
    seen = sum(asked * keys - asked * (asked - 1) // 2 for asked, keys in lengths)
    # Two products, of scores and of values, with as many numbers as a token is wide.
    pair = 4.0 * config.num_hidden_layers * config.hidden_size
    return {
        "products": 2.0 * (layers * laid.input_ids.numel() + head * float(rollouts.mask.sum())),
        "attention": pair * seen,
        "attention of all pairs": pair * laid.input_ids.numel() ** 2,
    }


def speed(device: str, dtype: torch.dtype) -> float:
    """Floating point operations a second of a large square product."""
    n = 8192 if device == "cuda" else 512
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    found = [timed(lambda: a @ b, device)[0].seconds for _ in range(10)]
    return 2.0 * n**3 / min(found)


def prepared(way: Way, work: sizes.Work, size: sizes.Size, device: str) -> dict[str, Callable[[], Any]] | str:
    """The calls that are measured, or why this way cannot run here."""
    if way.attention in KERNELS:
        why = missing(way.attention, torch.device(device)) or unfit(way.attention, {size.dtype})
        if why:
            return why
    stats = ResponseStats(sizes.random_model(size, device).eval())
    stats.checkpoint_layers()
    stepper = TorchStepper(stats, torch.optim.SGD(stats.parameters(), lr=0.0), max_grad_norm=1.0)
    policy = Policy(
        stepper, work.prompts, pad_id=0, token_budget=size.tokens, lr=0.0, packing=way.packing, sharing=way.sharing,
        attention=way.attention,
    )  # fmt: skip
    if way.sharing and not policy.plan(work.rollouts.prompt, work.rollouts.mask, world=1).shared:
        return f"prompts are not shared: {policy.unshared_because}"
    return {"score": lambda: policy.score(work.rollouts), "gradient": lambda: gradient(policy, work)}


def gradient(policy: Policy, work: sizes.Work) -> None:
    """Of the sum of all log-probs."""
    batch = work.batch
    plan = policy.plan(batch.prompt, batch.mask, world=1)
    (micros,) = plan.micros
    for i, rows in enumerate(micros):
        part = batch.rows(torch.tensor(rows))
        logp, _ = policy(part, shared=plan.shared)
        policy.backward((logp * part.mask.to(logp.device)).sum(), last=i == len(micros) - 1)
    policy.stepper.module.zero_grad(set_to_none=True)


def measured(case: str, size: sizes.Size, device: str, rounds: int) -> dict[str, Any]:
    """Name of each way -> medians, or why it did not run; and what the case is."""
    work = drawn(size, group=GROUP if case == "groups" else 1)
    net = sizes.random_model(size, "meta")
    floors = {shared: floor(work, net, shared=shared) for shared in (False, True)}
    rate = speed(device, size.dtype)
    found: dict[str, Any] = {}
    for way in WAYS[case]:
        # One model at a time: 1.5B, its gradient and a mask's pass fill a smaller device.
        calls = prepared(way, work, size, device)
        if isinstance(calls, str):
            found[way.name] = {"left out": calls}
            continue
        one: dict[str, float] = {}
        for name, call in calls.items():
            costs = [timed(call, device)[0] for _ in range(rounds + 1)][1:]
            one[f"{name} s"] = statistics.median(cost.seconds for cost in costs)
            one[f"{name} GiB"] = max(cost.peak_bytes for cost in costs) / 2**30
            needed = floors[way.sharing]["products"] + floors[way.sharing]["attention"]
            one[f"{name} floor s"] = PASSES[name] * needed / rate
        found[way.name] = one
        del calls
        if device == "cuda":
            torch.cuda.empty_cache()
    rows = work.rollouts.mask.sum(-1)
    return {
        "rows": len(rows),
        "prompts": len(work.prompts),
        "tokens": int(rows.sum()) + sum(len(work.prompts[p]) for p in work.rollouts.prompt.tolist()),
        "TFLOP/s of a product": rate / 1e12,
        "TFLOP of a forward pass": {
            "with each prompt for each row": {k: v / 1e12 for k, v in floors[False].items()},
            "with each prompt once": {k: v / 1e12 for k, v in floors[True].items()},
        },
        "ways": found,
    }


def printed(case: str, found: dict[str, Any]) -> None:
    flops = found["TFLOP of a forward pass"]["with each prompt for each row"]
    print(f"\n{case}: {found['rows']} rows, {found['prompts']} prompts, {found['tokens']:,} tokens", end="; ")
    print(", ".join(f"{name} {value:.3g} TFLOP" for name, value in flops.items()), end="; ")
    print(f"{found['TFLOP/s of a product']:.3g} TFLOP/s")
    print(f"{'':30}{'score s':>9}{'x floor':>9}{'GiB':>7}{'gradient s':>12}{'x floor':>9}{'GiB':>7}{'mask / it':>11}")
    masked = found["ways"][MASKED]
    for name, one in found["ways"].items():
        if "left out" in one:
            print(f"{name:30}left out: {one['left out']}")
            continue
        line = f"{name:30}"
        for part, wide in (("score", 9), ("gradient", 12)):
            seconds = one[f"{part} s"]
            line += f"{seconds:{wide}.3f}{seconds / one[f'{part} floor s']:9.2f}{one[f'{part} GiB']:7.1f}"
        print(f"{line}{masked['gradient s'] / one['gradient s']:11.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--case", choices=WAYS, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=5, help="of every way, after one that warms up")
    parser.add_argument("--out", type=Path, help="default: results/attention_gpu.json, and none with --tiny")
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not chosen.tiny:
        print("skipped: no CUDA device; every figure of this benchmark is pending (--tiny tries it on a CPU)")
        return 0
    size = TINY if chosen.tiny else sizes.REAL
    began, cases = time.time(), {}
    for case in chosen.case or WAYS:
        cases[case] = measured(case, size, device, chosen.rounds)
        printed(case, cases[case])
    best = {
        case: max(
            (found["ways"][MASKED]["gradient s"] / one["gradient s"], name)
            for name, one in found["ways"].items()
            if "left out" not in one and name.startswith("packed") and name != MASKED
        )
        for case, found in cases.items()
    }
    report = {
        "command": " ".join(["python", "benchmarks/attention_gpu.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers")},
        "size": {**size.__dict__, "dtype": str(size.dtype)},
        "seconds": round(time.time() - began),
        "goal": GOAL,
        "packed gradient, times as fast as with a mask": best,
        "cases": cases,
    }
    out = chosen.out or (None if chosen.tiny else RESULT)
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    print(
        json.dumps({name: report[name] for name in ("device", "goal", "packed gradient, times as fast as with a mask")})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
