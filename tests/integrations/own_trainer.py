"""One step of the project's own trainer on the prompts and stored responses of `trl_world`."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tiny_models import tiny
from trl_world import EOS, GROUP, LONGEST, LR, PAD, PROMPTS, prompt, response, right, tokenizer, weights

from aepo.controller import Loop
from aepo.llm.engines.engine import Sampled
from aepo.llm.grading import Verdict
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.processes.watchdog import Phases
from aepo.llm.settings import Settings
from aepo.llm.train import train_step
from aepo.llm.trainer import Trainer


class Judge:
    """The task: stored prompts, the world's reward."""

    tokenizer = tokenizer()
    end_ids = (EOS,)
    entropy_ceiling = None
    stop = None
    parts: tuple[str, ...] = ()
    columns: tuple[Any, ...] = ()
    prompts = tuple(tuple(prompt(i)) for i in range(PROMPTS))
    train = tuple(range(PROMPTS))
    held_out: tuple[int, ...] = ()

    def grade(self, prompts, responses):
        return [Verdict(reward=right(one), extracted=None, reason="exact") for one in responses]

    def close(self):
        pass


class Replayed:
    """The engine that answers with what is stored."""

    has_own_weights = False

    def __init__(self) -> None:
        self.calls: list[tuple[float, int]] = []

    def load(self, weights):
        pass

    def rest(self):
        pass

    def close(self):
        pass

    def sample(self, prompts, *, n, temperature, row_seeds, max_tokens=None, top_p=1.0):
        rows = [response(of, float(t), i) for of, t in zip(prompts, temperature, strict=True) for i in range(n)]
        self.calls += [(float(t), sum(n for u in temperature if u == t)) for t in dict.fromkeys(temperature.tolist())]
        token = torch.full((len(rows), LONGEST), PAD)
        mask = torch.zeros(len(rows), LONGEST)
        for place, row in enumerate(rows):
            token[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1.0
        return Sampled(token=token, mask=mask, logp=torch.zeros_like(mask))


def order(seed: int = 0) -> list[int]:
    """The prompts of the first step in the order in which the trainer asks them."""
    from aepo.llm import seeds

    return np.asarray(Judge.train)[seeds.order(seed, 0, PROMPTS, size=PROMPTS)].tolist()


def step(method: str, *, minibatches: int = 1, target: float, options: dict[str, Any]) -> SimpleNamespace:
    """Train one step; the weights before and after, the calls of the engine, and the metrics."""
    settings = Settings.model_validate(
        {
            "rollout": {"engine": "embedded", "group_size": GROUP, "max_response_tokens": LONGEST},
            "reward": {"truncated": "graded"},
            "method": {"name": method, **options},
            "target": {"value": target},
            "train": {"prompts_per_step": PROMPTS, "minibatches": minibatches, "lr": LR, "micro_batch_tokens": 40},
        }
    )
    wrapped, task, engine = ResponseStats(tiny()), Judge(), Replayed()
    stepper = TorchStepper(wrapped, torch.optim.SGD(wrapped.parameters(), lr=LR), max_grad_norm=float("inf"))
    trainer = Trainer(
        settings=settings,
        task=task,
        data="",
        engine=engine,
        policy=Policy(stepper, task.prompts, pad_id=PAD, token_budget=40, lr=LR),
        method=settings.method.build(),
        phases=Phases(settings.watchdog.model_dump()),
        canary=None,
    )
    before = weights(wrapped.model)
    _, record = train_step(trainer, Loop.start(trainer.method.controller, torch.zeros(())), step=0)
    return SimpleNamespace(before=before, after=weights(wrapped.model), calls=engine.calls, metrics=record.metrics)
