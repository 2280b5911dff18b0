"""What does an update of the demo's model cost where the loss's gradient is formed in the forward pass?

Beside the same update where it is not, in one process and in turn: the loss, its gradients and an AdamW step of one
mini-batch of the demo, whose vocabulary is so small that the head is a hundredth of the work. The bound is 1: it must
not cost more. The ratio is the median of the rounds' own, of CPU seconds, which a busy machine distorts least.

    OMP_NUM_THREADS=1 python benchmarks/demo_update.py   # prints one line
"""

import argparse
import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from aepo import zoo
from aepo.batch import Batch
from aepo.llm.policy.model import from_scratch
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import update
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import load
from aepo.loss import Surrogate

PRESET = Path(__file__).parents[1] / "configs" / "demo_cpu.yaml"
PROMPT = 6


@dataclass(frozen=True)
class Whole:
    """A surrogate that does not say that it is token-local, so that the whole loss comes first."""

    surrogate: Surrogate

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        return self.surrogate(logp, batch, entropy)


def mini_batch(prompts: int, group: int, longest: int, vocabulary: int) -> Batch:
    """Random tokens, advantages and weights of as many rows as the demo's mini-batch has."""
    generator = torch.Generator().manual_seed(0)
    shape = (prompts * group, longest)
    length = torch.randint(1, longest + 1, shape[:1], generator=generator)
    mask = (torch.arange(longest) < length.unsqueeze(-1)).float()
    return Batch(
        prompt=torch.arange(prompts).repeat_interleave(group),
        token=torch.randint(1, vocabulary, shape, generator=generator),
        mask=mask,
        old_logp=-3.0 + 0.1 * torch.randn(shape, generator=generator),
        advantage=torch.randn(shape, generator=generator),
        weight=mask / mask.sum(),
        entropy_weight=0.01 * mask / mask.sum(),
        group_size=group,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    settings = load(PRESET, [])
    task = walk_task()
    wrapped = ResponseStats(from_scratch(settings, task))
    optimizer = torch.optim.AdamW(wrapped.parameters(), fused=True)
    vocabulary = wrapped.model.config.vocab_size
    prompts = settings.train.prompts_per_step // settings.train.minibatches
    generator = torch.Generator().manual_seed(1)
    policy = Policy(
        TorchStepper(wrapped, optimizer, max_grad_norm=1.0),
        torch.randint(1, vocabulary, (prompts, PROMPT), generator=generator).tolist(),
        pad_id=0, token_budget=settings.train.micro_batch_tokens, lr=1e-6, sharing=True,
    )  # fmt: skip
    formed = zoo.build("entropy_reg", coef=0.01)
    methods = {"formed": formed, "whole": dataclasses.replace(formed, surrogate=Whole(formed.surrogate))}
    batch = mini_batch(prompts, settings.rollout.group_size, settings.rollout.max_response_tokens, vocabulary)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for round_number in range(chosen.rounds + 2):
        for name, method in methods.items():
            began = time.process_time()
            for _ in range(5):
                update(policy, batch, method, parts=1)
            if round_number >= 2:
                seconds[name].append((time.process_time() - began) / 5)
    ratios = [a / b for a, b in zip(seconds["formed"], seconds["whole"], strict=True)]
    print(
        f"{len(batch.prompt)} rows, vocabulary {vocabulary}, {torch.get_num_threads()} threads: "
        f"{1e3 * statistics.median(seconds['formed']):.1f} ms formed in the forward pass, "
        f"{1e3 * statistics.median(seconds['whole']):.1f} ms otherwise, ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
