"""The walk task and the demo's warm model in TRL's trainer: what a benchmark and a slow test share."""

import tempfile
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer

from aepo.integrations.trl import AEPOConfig, AEPOTrainer
from aepo.llm.policy.warm_start import warm_start
from aepo.llm.questions.walk import WalkTask, walk_task
from aepo.llm.settings import Settings

ROWS_OF_A_PROMPT = 8
"""The demo's group size."""


def prompts(task: WalkTask) -> Dataset:
    """The training prompts as text."""
    return Dataset.from_list([{"prompt": task.text(task.prompts[i]), "place": i} for i in task.train])


def trainer(settings: Settings, method: str | None, *, steps: int, prompts_per_step: int, **more: Any) -> GRPOTrainer:
    """TRL's trainer on the walk task, from the demo's warm start; one step a generation unless told otherwise.

    Args:
        settings: of the demo, for the warm start, the learning rate and the seed.
        method: of the zoo; None for TRL's own GRPO with the loss of ours.
        steps: optimizer steps.
        prompts_per_step: of a generation.
        more: further settings of TRL's.
    """
    task = walk_task()
    kind, config = (GRPOTrainer, GRPOConfig) if method is None else (AEPOTrainer, AEPOConfig)
    rows = prompts_per_step * ROWS_OF_A_PROMPT
    each = more.get("steps_per_generation", 1)
    chosen = {
        "output_dir": tempfile.mkdtemp(prefix="aepo_trl_walk_"),
        "per_device_train_batch_size": rows // each,
        "steps_per_generation": each,
        "num_generations": ROWS_OF_A_PROMPT,
        "max_completion_length": settings.rollout.max_response_tokens,
        "max_steps": steps,
        "learning_rate": settings.train.lr,
        "weight_decay": settings.train.weight_decay,
        "lr_scheduler_type": "constant",
        "seed": settings.seed,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "loss_type": "grpo",
    } | more
    if method is not None:
        chosen["method"] = method

    def reward(completion_ids, place, **_):
        return [verdict.reward for verdict in task.grade(place, completion_ids)]

    return kind(
        AutoModelForCausalLM.from_pretrained(warm_start(settings, task)),
        reward,
        config(**chosen),
        train_dataset=prompts(task),
        processing_class=task.tokenizer,
    )
