"""A small world for TRL's trainer: a tiny model, prompts of ragged lengths, and responses that are stored beforehand.

Whoever samples, at whatever batch and on whatever rank, gets the same responses to the same prompt at the same
temperature, so that trainers can be compared to the last digits. What is stored stands in the place of
`model.generate`, the one call that all versions of TRL have in common.
"""

import gc
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

# Before trl is imported: no run of a test may ask the network for anything.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

import torch
from datasets import Dataset
from tiny_models import tiny
from transformers.trainer_utils import set_seed
from trl import GRPOConfig, GRPOTrainer

from aepo.integrations.trl import AEPOConfig, AEPOTrainer
from aepo.llm.questions.small_tokenizers import word_tokenizer

# Every run ends with a collection of garbage, and what was imported is none.
gc.freeze()

WORDS, EOS, PAD = 10, 1, 0
PROMPTS, GROUP, LONGEST = 8, 4, 6
"""Prompts of one generation, responses of each, and tokens of the longest response."""
LR = 0.05
FIRST_ENTROPY = "entropy of the first step"
"""Among the weights that ranks leave."""


def prompt(number: int) -> list[int]:
    """One to three tokens, no two prompts alike."""
    return [2 + number % 10, 2 + (number // 10) % 10, 2 + 7 * number % 10][: 3 if number >= 10 else 1 + number % 3]


def tokenizer():
    return word_tokenizer([f"w{i}" for i in range(WORDS)])


def dataset(count: int, order: Sequence[int] | None = None) -> Dataset:
    words = [" ".join(f"w{token - 2}" for token in prompt(i)) for i in (range(count) if order is None else order)]
    return Dataset.from_dict({"prompt": words})


def response(of: Sequence[int], temperature: float, number: int) -> list[int]:
    """The `number`-th stored response: one to six tokens, most with an end token."""
    seed = number + 100 * round(100 * temperature) + 10**6 * sum(token * 13**i for i, token in enumerate(of))
    generator = torch.Generator().manual_seed(seed % 2**31)
    length = int(torch.randint(1, LONGEST + 1, (), generator=generator))
    tokens = torch.randint(2, 2 + WORDS, (length,), generator=generator).tolist()
    return tokens if length == LONGEST else [*tokens, EOS]


def right(tokens: Sequence[int]) -> float:
    """The reward: whether a response that ended has a sum that 3 divides."""
    return float(tokens[-1] == EOS and sum(tokens) % 3 == 0)


def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    return [right(tokens) for tokens in completion_ids]


def replay(model: Any) -> list[tuple[float, int]]:
    """Have the model answer with what is stored; the temperatures and sizes of the calls are added to the list."""
    calls: list[tuple[float, int]] = []

    def generate(input_ids, attention_mask, generation_config, **_):
        asked: Counter = Counter()
        rows = []
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            of = tuple(ids[mask.bool()].tolist())
            rows.append(torch.tensor(response(of, generation_config.temperature, asked[of])))
            asked[of] += 1
        calls.append((generation_config.temperature, len(rows)))
        answers = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        return torch.cat([input_ids, answers], 1)

    model.generate = generate
    return calls


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def run(
    method: str | None,
    *,
    accumulation: int = 1,
    minibatches: int = 1,
    steps: int = 1,
    world: int = 1,
    lr: float = LR,
    order: Sequence[int] | None = None,
    stored: bool = True,
    prepare: Callable[[Any], None] = lambda trainer: None,
    reward_funcs: Any = reward,
    peft_config: Any = None,
    eval_dataset: Any = None,
    resume: str | None = None,
    out: str | None = None,
    **more: Any,
) -> SimpleNamespace:
    """Train, and what is left: the trainer, the weights before and after, and what was sampled.

    Args:
        method: of the zoo; None for TRL's own GRPO.
        accumulation, minibatches: micro-batches of an optimizer step, optimizer steps of a generation.
        steps: optimizer steps.
        world: ranks.
        order: of the prompts.
        stored: whether responses are those that are stored.
        prepare: is shown the trainer before it starts.
        more: settings.
    """
    model = tiny()
    calls = replay(model) if stored else []
    each = accumulation * minibatches
    settings = {
        "output_dir": out or tempfile.mkdtemp(prefix="aepo_trl_"),
        "per_device_train_batch_size": PROMPTS * GROUP // (each * world),
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": each,
        "num_generations": GROUP,
        "max_completion_length": LONGEST,
        "max_steps": steps,
        "learning_rate": lr,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "shuffle_dataset": False,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "loss_type": "grpo",
    } | more
    kind, config = (GRPOTrainer, GRPOConfig) if method is None else (AEPOTrainer, AEPOConfig)
    if method is not None:
        settings["method"] = method
    set_seed(0)
    trainer = kind(
        model,
        reward_funcs,
        config(**settings),
        train_dataset=dataset(len(order) if order is not None else 5 * PROMPTS, order),
        eval_dataset=eval_dataset,
        processing_class=tokenizer(),
        peft_config=peft_config,
    )
    before = weights(trainer.accelerator.unwrap_model(trainer.model))
    prepare(trainer)
    trainer.train(resume_from_checkpoint=resume)
    after = weights(trainer.accelerator.unwrap_model(trainer.model))
    return SimpleNamespace(trainer=trainer, before=before, after=after, calls=calls, history=trainer.state.log_history)


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
