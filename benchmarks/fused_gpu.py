"""Time and extra memory of the fused operation on a GPU, against cuBLAS and against peers, in one process.

The unit is a matrix product of the same shape: whoever makes statistics and gradients from hidden states needs one
product forward and, without keeping the logits, three backward. The ways run in turn, and the table shows medians.
Peers are measured where they are installed (`pip install verl liger-kernel cut-cross-entropy`).

    make bench-gpu   # tests first, then this: prints tables, writes benchmarks/results/fused_gpu.json
"""

import argparse
import importlib.metadata
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from aepo.llm.fused import backends, cuda_backend, linear_policy_loss, linear_token_stats, token_stats_from_logits

RESULT = Path(__file__).parent / "results" / "fused_gpu.json"
SHAPES = ((8192, 3584, 152_064), (8192, 2048, 151_936), (32_768, 3584, 152_064), (8192, 4096, 128_256))
"""(tokens, width, vocabulary): Qwen2.5-7B, Qwen2.5-3B, a long micro-batch, Llama-3-8B."""
TEMPERATURE = 0.6
Way = tuple[str, Callable[[], object], Callable[[object], object] | None]
"""Name, forward pass, and backward pass from what it returned."""


class Inputs:
    """Operands of one shape, bfloat16, and an upstream gradient per statistic."""

    def __init__(self, tokens: int, width: int, vocabulary: int, device: str) -> None:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int, scale: float = 1.0, dtype: torch.dtype = torch.bfloat16) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device, dtype=dtype).mul_(scale)

        self.hidden = normal(tokens, width).requires_grad_()
        self.weight = normal(vocabulary, width, scale=3 / width**0.5).requires_grad_()
        self.labels = torch.randint(vocabulary, (tokens,), generator=generator, device=device)
        self.ups = [normal(tokens, dtype=torch.float32) for _ in range(3)]

    @property
    def leaves(self) -> list[Tensor]:
        return [self.hidden, self.weight]

    def pulled(self, *stats: Tensor) -> Tensor:
        return torch.stack([(up * x).sum() for up, x in zip(self.ups, stats, strict=False)]).sum()


def gemm(x: Inputs, count: int) -> Callable[[], None]:
    """Products as the gradients need them, a chunk of the vocabulary at a time so that their result fits."""
    columns = 16_384

    def run() -> None:
        hidden, weight = x.hidden.detach(), x.weight.detach()
        for start in range(0, len(weight), columns):
            part = weight[start : start + columns]
            z = hidden @ part.T
            if count == 3:
                _ = z @ part, z.T @ hidden

    return run


def ours(x: Inputs, need: tuple[str, ...]) -> Way:
    def forward() -> Tensor:
        stats = linear_token_stats(x.hidden, x.weight, x.labels, TEMPERATURE, need=need)
        return x.pulled(*(value for value in stats if value is not None))

    return "linear_token_stats: " + ", ".join(need), forward, lambda loss: torch.autograd.grad(loss, x.leaves)


def policy_loss(x: Inputs) -> Way:
    def both() -> object:
        loss, _ = linear_policy_loss(
            x.hidden, x.weight, x.labels, lambda s, rows: sum(u[rows] * v for u, v in zip(x.ups, s, strict=True)),
            TEMPERATURE,
        )  # fmt: skip
        return torch.autograd.grad(loss, x.leaves)

    return "linear_policy_loss, both passes", both, None


def from_logits(x: Inputs) -> Way | None:
    """The row kernel alone, on logits that fit: its bytes are read once forward, and read and written backward."""
    if cuda_backend.obstacle(x.hidden.device, torch.bfloat16) and x.hidden.is_cuda:
        return None
    rows = min(len(x.hidden), 2048)
    z = (x.hidden[:rows] @ x.weight.T).detach().requires_grad_()

    def forward() -> Tensor:
        stats = token_stats_from_logits(z * 1, x.labels[:rows], TEMPERATURE, reuse_logits=True)
        return torch.stack([(up[:rows] * v).sum() for up, v in zip(x.ups, stats, strict=True)]).sum()

    return f"token_stats_from_logits, {rows} rows", forward, lambda loss: torch.autograd.grad(loss, z)


def naive(x: Inputs) -> Way | None:
    """Whole logits in float32 and autograd, where they fit five times over."""
    if len(x.hidden) * len(x.weight) * 4 * 5 > torch.cuda.mem_get_info()[0]:
        return None

    def forward() -> Tensor:
        z = (x.hidden @ x.weight.T).float()
        log_probs, place = z.log_softmax(-1), x.labels.unsqueeze(-1)
        logp_t = (z / TEMPERATURE).log_softmax(-1).gather(1, place).squeeze(-1)
        return x.pulled(log_probs.gather(1, place).squeeze(-1), logp_t, -(log_probs.exp() * log_probs).sum(-1))

    return "whole logits, autograd", forward, lambda loss: torch.autograd.grad(loss, x.leaves)


def peers(x: Inputs) -> Iterator[Way]:
    """Those that are installed; none gives all three statistics, and each is named with what it gives."""

    def backward(loss: Tensor) -> object:
        return torch.autograd.grad(loss, x.leaves)

    if _installed("verl"):
        from verl.utils.kernel.linear_cross_entropy import linear_cross_entropy

        def verl() -> Tensor:
            logp, entropy = linear_cross_entropy(x.hidden, x.weight, x.labels, 1.0, "none")
            return (x.ups[0] * logp).sum() + (x.ups[2] * entropy).sum()

        yield "verl: logp, entropy", verl, backward
    if _installed("liger-kernel"):
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        mean = LigerFusedLinearCrossEntropyLoss()
        yield "liger: mean logp, both passes", lambda: backward(mean(x.weight, x.hidden, x.labels)), None
    if _installed("cut-cross-entropy"):
        from cut_cross_entropy import linear_cross_entropy as cut

        def cce() -> Tensor:
            return (x.ups[0] * cut(x.hidden, x.weight, x.labels, reduction="none")).sum()

        yield "cut cross entropy (drops small gradients): logp", cce, backward


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def timed(run: Callable[[], object]) -> tuple[float, int, object]:
    """Milliseconds, bytes allocated at the highest beyond what was there, and the result."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    result = run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end), torch.cuda.max_memory_allocated() - before, result


def measured(shape: tuple[int, int, int], rounds: int) -> dict[str, dict[str, float]]:
    """Name -> medians, the ways in turn."""
    x = Inputs(*shape, device="cuda")
    given = [("one GEMM", gemm(x, 1), None), ("three GEMMs", gemm(x, 3), None)]
    given += [ours(x, ("logp", "logp_t", "entropy")), ours(x, ("logp", "entropy")), ours(x, ("logp",)), policy_loss(x)]
    given += [way for way in (from_logits(x), naive(x)) if way is not None]
    given += list(peers(x))
    found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in given}
    for i in range(rounds + 2):
        for name, forward, backward in given:
            ms, extra, result = timed(forward)
            one = {"forward_ms": ms, "forward_extra_bytes": extra}
            if backward is not None:
                ms, extra, _ = timed(lambda backward=backward, result=result: backward(result))
                one |= {"backward_ms": ms, "backward_extra_bytes": extra}
            del result
            if i >= 2:
                found[name].append(one)
    return {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in found.items()}


def printed(shape: tuple[int, int, int], found: dict[str, dict[str, float]]) -> None:
    unit, three = found["one GEMM"]["forward_ms"], found["three GEMMs"]["forward_ms"]
    print(f"\nN = {shape[0]:,}, d = {shape[1]:,}, V = {shape[2]:,}, bfloat16; gradients are part of the extra memory")
    print(f"{'':52}{'forward':>9}{'x GEMM':>8}{'MB':>7}{'backward':>10}{'x 3 GEMMs':>11}{'MB':>7}{'both x 3':>10}")
    for name, m in found.items():
        line = f"{name:52}{m['forward_ms']:9.2f}{m['forward_ms'] / unit:8.2f}{m['forward_extra_bytes'] / 1e6:7.0f}"
        total = m["forward_ms"]
        if "backward_ms" in m:
            line += f"{m['backward_ms']:10.2f}{m['backward_ms'] / three:11.2f}{m['backward_extra_bytes'] / 1e6:7.0f}"
            total += m["backward_ms"]
        else:
            line += " " * 28
        print(f"{line}{total / three:10.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--shape", type=int, nargs=3, action="append", metavar=("N", "D", "V"))
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no CUDA device; every figure of this benchmark is pending")
        return 0
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, {backends.chosen('auto', torch.empty(0, device='cuda')).__name__}")
    results = []
    for shape in [tuple(s) for s in chosen.shape] if chosen.shape else SHAPES:
        found = measured(shape, chosen.rounds)
        printed(shape, found)
        results.append({"shape": dict(zip(("tokens", "width", "vocabulary"), shape, strict=True)), "median": found})
        torch.cuda.empty_cache()
    packages = ("torch", "triton", "verl", "liger-kernel", "cut-cross-entropy")
    about = {
        "command": " ".join(["python", "benchmarks/fused_gpu.py", *sys.argv[1:]]),
        "device": name,
        "versions": {p: importlib.metadata.version(p) for p in packages if _installed(p)},
        "cuda": torch.version.cuda,
    }
    RESULT.write_text(json.dumps(about | {"results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
