"""The trainer with a small model that ZeRO 3 treats as one of 7B: weights are parted, gathered ahead and let go alike.

DeepSpeed's thresholds are numbers of elements, and the models of tests lie under all of them: their weights are
gathered once and stay. Here the thresholds are scaled to MODEL, which has Qwen2.5-7B's proportions with the 258 tokens
of bytes. Every step rewards what begins with an odd token, but for step 2, which learns nothing.

DUMP gets a file of rank 0: the weights before the last push, which of them were in flight after passes, and which were
gathered when the engine was to sample. The last push follows a pass after which nobody has settled.
"""

import os
from pathlib import Path

import torch
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.utils import safe_get_full_fp32_param

from aepo.llm import train, trainer
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.policy import deepspeed_stepper
from aepo.llm.processes import ranks
from aepo.llm.processes.watchdog import Phases

# A layer has 1,752 numbers; embedding and head have 2.36 times as many each, and at 7B 2.34 times. Six layers are
# beyond the 4.3 that may be gathered at a time.
MODEL = {"hidden_size": 16, "layers": 6, "heads": 2, "kv_heads": 1, "intermediate_size": 20}
SCALE = 1752 / 233e6
# More than a norm's 16 numbers and fewer than the 128 of the smallest projection, as DeepSpeed's 100,000 at 7B.
KEPT = 64


def scaled(train_settings) -> dict:
    """DeepSpeed's configuration, with its own defaults scaled."""
    config, default = config_of(train_settings), DeepSpeedZeroConfig()
    config["zero_optimization"] |= {
        "stage3_param_persistence_threshold": KEPT,
        "stage3_prefetch_bucket_size": int(SCALE * default.prefetch_bucket_size),
        "stage3_max_live_parameters": int(SCALE * default.max_live_parameters),
        "stage3_max_reuse_distance": int(SCALE * default.max_reuse_distance),
    }
    return config


def watched(settings, *, resumed=None):
    """The trainer and its stepper, of which DUMP's file will tell."""
    made, deep = build(settings, resumed=resumed)
    named = dict(deep.module.model.named_parameters())
    in_flight, gathered = set(), set()
    sample, begin = EmbeddedEngine.sample, Phases.begin

    def after_a_pass(*_):
        in_flight.update(name for name, p in named.items() if p.ds_status == ZeroParamStatus.INFLIGHT)

    def sampled(self, *args, **kwargs):
        gathered.update(
            name for name, p in named.items() if p.ds_status != ZeroParamStatus.NOT_AVAILABLE and not p.ds_persist
        )
        return sample(self, *args, **kwargs)

    def begun(self, step):
        begin(self, step)
        if step < settings.train.steps:
            return
        weights = {name: safe_get_full_fp32_param(p).clone() for name, p in named.items()}
        ids = torch.zeros(1, 3, dtype=torch.int64)
        with torch.no_grad():
            deep.module(ids, None, torch.arange(3).unsqueeze(0), ids[:, 1:], torch.ones(1, 2))
        if ranks.rank() == 0:
            found = {"weights": weights, "in_flight": in_flight, "gathered": gathered}
            torch.save(found, Path(os.environ["DUMP"]) / "before_the_last_push.pt")

    deep.module.register_forward_hook(after_a_pass)
    EmbeddedEngine.sample, Phases.begin = sampled, begun
    return made, deep


def odd_first_token(self, verdict, token, mask):
    """(R,): the reward."""
    return (token[:, 0] % 2).float() * float(self.phases.step != 2)


if __name__ == "__main__":
    config_of, build = deepspeed_stepper._config, train.build
    deepspeed_stepper._config, train.build, trainer.Trainer.shaped_reward = scaled, watched, odd_first_token
    raise SystemExit(train.main())
