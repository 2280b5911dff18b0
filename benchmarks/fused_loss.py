"""How much of the time of `linear_token_stats` and its backward pass does `linear_policy_loss` take, on a CPU?

Both in one process and in turn, so that whatever else the machine does meets both alike; the ratio is the median of the
rounds' own, of seconds and, for a machine that others use too, of the process's own seconds of CPU. The floor of each
way, its FLOPs and bytes, stands beside its time, and the products alone are timed as the ceiling of this machine. The
bound is 0.9: three products with the head where there were four.

    OMP_NUM_THREADS=1 python benchmarks/fused_loss.py   # prints a table, writes benchmarks/results/fused_loss.json
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from fused_floors import floor
from torch import Tensor

from aepo.llm.fused import TokenStats, linear_policy_loss, linear_token_stats

RESULT = Path(__file__).parent / "results" / "fused_loss.json"
BOUND = 0.9
"""3 / 4 of the products, with room for what is not a product."""
NEED = ("logp", "entropy")
"""What the trainer asks."""


class Operands:
    """float32 operands, and a loss of each token that is curved in both statistics."""

    def __init__(self, tokens: int, width: int, vocabulary: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
        self.weight = (torch.randn(vocabulary, width, generator=generator) * 6 / width**0.5).requires_grad_()
        self.labels = torch.randint(vocabulary, (tokens,), generator=generator)
        self.advantage = torch.randn(tokens, generator=generator)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.hidden, self.weight]

    def token_loss(self, stats: TokenStats, rows: Tensor | slice) -> Tensor:
        return -self.advantage[rows] * (stats.logp - stats.logp.detach()).exp() - 0.01 * stats.entropy


def products(x: Operands) -> list[Tensor]:
    """The three products alone, a chunk of the vocabulary at a time, and their sums."""
    hidden, weight = x.hidden.detach(), x.weight.detach()
    by_hidden, by_weight = torch.zeros_like(hidden), torch.empty_like(weight)
    for start in range(0, len(weight), 2048):
        part = weight[start : start + 2048]
        z = hidden @ part.T
        by_hidden.addmm_(z, part)
        torch.mm(z.T, hidden, out=by_weight[start : start + 2048])
    return [by_hidden, by_weight]


def stats_and_backward(x: Operands) -> list[Tensor]:
    stats = linear_token_stats(x.hidden, x.weight, x.labels, need=NEED)
    return list(torch.autograd.grad(x.token_loss(stats, slice(None)).sum(), x.leaves))


def loss_and_backward(x: Operands) -> list[Tensor]:
    loss, _ = linear_policy_loss(x.hidden, x.weight, x.labels, x.token_loss, need=NEED)
    return list(torch.autograd.grad(loss, x.leaves))


WAYS: dict[str, tuple[Callable[[Operands], list[Tensor]], str, str]] = {
    "three products": (products, "products", "loss"),
    "linear_token_stats": (stats_and_backward, "torch", "both"),
    "linear_policy_loss": (loss_and_backward, "torch", "loss"),
}
"""Name -> what runs, and the backend and call whose floor it has."""


def ratios_of(seconds: dict[str, list[float]]) -> list[float]:
    """Of each round, the loss's seconds by those of the statistics."""
    return [a / b for a, b in zip(seconds["linear_policy_loss"], seconds["linear_token_stats"], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    shape = (chosen.tokens, chosen.width, chosen.vocabulary)
    x = Operands(*shape)
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    of_cpu: dict[str, list[float]] = {name: [] for name in WAYS}
    results: dict[str, list[Tensor]] = {}
    for round_number in range(chosen.rounds + 1):
        for name, (run, _, _) in WAYS.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            results[name] = run(x)
            # The first round allocates and starts the library.
            if round_number:
                found[name].append(time.perf_counter() - began)
                of_cpu[name].append(time.process_time() - began_cpu)
    gradients = zip(results["linear_policy_loss"], results["linear_token_stats"], strict=True)
    apart = max(float((a - b).norm() / b.norm()) for a, b in gradients)
    ratios = ratios_of(found)
    print(f"N = {shape[0]}, d = {shape[1]}, V = {shape[2]:,}, float32, {torch.get_num_threads()} threads, both passes")
    print(f"{'':20}{'s':>8}{'spread':>9}{'CPU s':>8}{'GFLOP':>9}{'GB':>7}{'GFLOP/s':>9}")
    for name, (_, backend, call) in WAYS.items():
        seconds, work = statistics.median(found[name]), floor(backend, call, shape, itemsize=4)
        print(
            f"{name:20}{seconds:8.3f}{max(found[name]) - min(found[name]):9.3f}"
            f"{statistics.median(of_cpu[name]):8.3f}{work.flop / 1e9:9.0f}"
            f"{work.bytes / 1e9:7.2f}{work.flop / seconds / 1e9:9.0f}"
        )
    ratio = statistics.median(ratios)
    print(
        f"linear_policy_loss takes {ratio:.3f} of linear_token_stats ({min(ratios):.3f} to {max(ratios):.3f}), bound "
        f"{BOUND}: {'held' if ratio <= BOUND else 'MISSED'}; gradients {apart:.1e} apart"
    )
    print(f"of CPU seconds: {statistics.median(ratios_of(of_cpu)):.3f}")
    answer = {
        "command": " ".join(["python", "benchmarks/fused_loss.py", *sys.argv[1:]]),
        "device": f"CPU, {platform.machine()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "shape": dict(zip(("tokens", "width", "vocabulary"), shape, strict=True)),
        "ratio": ratio,
        "ratios": ratios,
        "ratio_of_cpu_seconds": statistics.median(ratios_of(of_cpu)),
        "bound": BOUND,
        "gradients_apart": apart,
        "seconds": found,
        "cpu_seconds": of_cpu,
    }
    RESULT.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
