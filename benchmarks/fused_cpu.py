"""Time and extra memory of log-prob, tempered log-prob, entropy and their gradients from hidden states, on the CPU.

Beside the naive way: whole logits in float32, two log-softmaxes, autograd. Each way runs in its own process, the ways
in turn, several times; the table shows medians. Extra memory is the highest resident memory of the process less that
before the call and less the gradients themselves, which every way returns.

    python benchmarks/fused_cpu.py   # prints a table, writes benchmarks/results/fused_cpu.json
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "fused_cpu.json"
TEMPERATURE = 0.6


def once(way: str, tokens: int, width: int, vocabulary: int) -> dict[str, float]:
    """Seconds and extra bytes of one call forward and backward, and its worst log-prob error."""
    import torch

    from aepo.llm.fused import linear_policy_loss, linear_token_stats

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, width, generator=generator).requires_grad_()
    weight = (torch.randn(vocabulary, width, generator=generator) * 6 / width**0.5).requires_grad_()
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    ups = torch.randn(3, tokens, generator=generator)

    def naive():
        z = hidden @ weight.T
        log_probs = z.log_softmax(-1)
        log_probs_t = (z / TEMPERATURE).log_softmax(-1)
        place = labels.unsqueeze(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return log_probs.gather(1, place).squeeze(-1), log_probs_t.gather(1, place).squeeze(-1), entropy

    def token_loss(stats, rows):
        return sum(up[rows] * value for up, value in zip(ups, stats, strict=True))

    def run():
        if way == "linear_policy_loss":
            loss, stats = linear_policy_loss(hidden, weight, labels, token_loss, TEMPERATURE)
        else:
            stats = naive() if way == "naive" else linear_token_stats(hidden, weight, labels, TEMPERATURE)
            loss = token_loss(stats, slice(None)).sum()
        loss.backward()
        return stats[0].detach()

    # The first products allocate the library's own buffers.
    warm = torch.randn(8, width) @ weight[:64].detach().T
    del warm
    # Gradients are there from the start, so that they are no extra.
    for leaf in (hidden, weight):
        leaf.grad = torch.zeros_like(leaf)
        leaf.grad.fill_(0.0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    logp = run()
    seconds = time.perf_counter() - began
    # A second gradient of the weight's size exists while it is added to the first, in every way.
    extra = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - weight.numel() * 4
    some = slice(0, min(tokens, 16))
    exact = (hidden[some].detach().double() @ weight.detach().double().T).log_softmax(-1)
    error = (logp[some] - exact.gather(1, labels[some].unsqueeze(-1)).squeeze(-1)).abs().max().item()
    return {"seconds": seconds, "extra_bytes": extra, "logp_error": error}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--way", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    shape = (chosen.tokens, chosen.width, chosen.vocabulary)
    if chosen.way:
        import torch

        torch.set_num_threads(chosen.threads)
        print(json.dumps(once(chosen.way, *shape)))
        return
    import torch

    ways = ("naive", "linear_token_stats", "linear_policy_loss")
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(chosen.rounds):
        for way in ways:
            done = subprocess.run(
                [sys.executable, __file__, "--way", way, *sys.argv[1:]], check=True, capture_output=True, text=True
            )
            found[way].append(json.loads(done.stdout))
    median = {way: {key: statistics.median(x[key] for x in runs) for key in runs[0]} for way, runs in found.items()}
    print(f"N = {shape[0]}, d = {shape[1]}, V = {shape[2]:,}, float32, {chosen.threads} threads, forward and backward")
    print(f"{'':22}{'s':>8}{'x naive':>9}{'MB extra':>10}{'x naive':>9}{'log-prob error':>16}")
    for way, m in median.items():
        n = median["naive"]
        print(
            f"{way:22}{m['seconds']:8.3f}{m['seconds'] / n['seconds']:9.2f}{m['extra_bytes'] / 1e6:10.0f}"
            f"{m['extra_bytes'] / n['extra_bytes']:9.2f}{m['logp_error']:16.1e}"
        )
    RESULT.write_text(
        json.dumps(
            {
                "command": " ".join(["python", "benchmarks/fused_cpu.py", *sys.argv[1:]]),
                "device": f"CPU, {platform.machine()}, {chosen.threads} threads",
                "python": platform.python_version(),
                "torch": torch.__version__,
                "shape": dict(zip(("tokens", "width", "vocabulary"), shape, strict=True)),
                "median": median,
                "runs": found,
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
