"""What a run works with, and the parts of a step that need all of it: pushes, rollouts, verdicts, scores."""

import contextlib
import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aepo.batch import Rollouts
from aepo.controller import Control
from aepo.llm import seeds
from aepo.llm.checkpoints import checkpoint
from aepo.llm.engines.canary import LIMITS, LONGEST, RESPONSE_TOKENS, Canary, canary_prompts
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.engines.engine import Engine
from aepo.llm.engines.vllm_engine import VLLMEngine
from aepo.llm.grading import Verdict
from aepo.llm.grading.overlong import ended, overlong_penalty, shaped
from aepo.llm.grading.pool import troubles
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.warm_start import load_model
from aepo.llm.processes import ranks
from aepo.llm.processes.watchdog import Phases
from aepo.llm.questions.loading import load_task
from aepo.llm.questions.task import Task, fingerprint
from aepo.llm.records.samples import samples
from aepo.llm.records.usage import GIB, Memory, usage
from aepo.llm.settings import Settings, SettingsError
from aepo.method import Method


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What is asked of the engine: prompts of every rank at one temperature."""

    branch: str
    """Part of every seed: samples of two branches are independent."""
    prompts: np.ndarray
    """(P,) int64."""
    temperature: float


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What does not change during a run."""

    settings: Settings
    task: Task
    data: str
    """The task's `fingerprint`."""
    engine: Engine
    policy: Policy
    method: Method
    phases: Phases
    canary: Canary | None
    """None where the engine samples from the trainer's own weights, which nothing has to push."""
    tally: Counter[str] = field(default_factory=Counter)
    """Verdicts of this rank and step that timed out or failed."""
    judged: dict[str, list[Verdict]] = field(default_factory=dict)
    """This rank's verdicts of this step by branch, for whoever wants to see samples."""
    memory: Memory = field(default_factory=Memory)

    def begin(self, step: int) -> None:
        """A new step: its clock and its counts start at 0."""
        self.phases.begin(step)
        self.tally.clear()
        self.judged.clear()

    def close(self) -> None:
        """End the engine and the verifier's processes; they are not used any more."""
        with contextlib.closing(self.task):
            self.engine.close()

    def push(self) -> dict[str, float]:
        """The weights to the engine, and the proof that they are there; called by all ranks together.

        Raises:
            StaleWeightsError: they are not.
        """
        with self.phases("push"):
            self.policy.stepper.release()
            self.engine.load(self.policy.stepper.weights())
            if self.canary is None:
                return {"sync/weight_version": self.policy.updates}
            return self.canary.check(self.engine, version=self.policy.updates)

    def rest(self) -> None:
        """Nothing is sampled until the next `push`: the engine and the trainer change places in memory."""
        self.engine.rest()
        self.policy.stepper.reclaim()

    def rollouts(self, step: int, *requests: Request) -> list[Rollouts]:
        """Sampled, graded and scored responses of every rank to each request, the same on every rank.

        All requests go to the engine in one call, whatever their temperatures.
        """
        n, rank, world = self.settings.rollout.group_size, ranks.rank(), ranks.world_size()
        slots = [ranks.share(np.arange(len(request.prompts)), rank=rank, world=world) for request in requests]
        mine = [request.prompts[chosen] for request, chosen in zip(requests, slots, strict=True)]
        with self.phases("generate"):
            sampled = self.engine.sample(
                [self.task.prompts[p] for p in np.concatenate(mine)],
                n=n,
                temperature=np.concatenate(
                    [np.full(len(m), request.temperature) for m, request in zip(mine, requests, strict=True)]
                ),
                row_seeds=np.concatenate(
                    [
                        seeds.row_seeds(self.settings.seed, step, request.branch, chosen, n)
                        for request, chosen in zip(requests, slots, strict=True)
                    ]
                ),
                top_p=self.settings.rollout.top_p,
            )
        # Here the engine holds its KV cache.
        self.memory.look()
        sizes = [len(m) * n for m in mine]
        parts = zip(mine, sampled.token.split(sizes), sampled.mask.split(sizes), sampled.logp.split(sizes), strict=True)
        return [
            self._graded(request.branch, prompts, *part)
            for request, (prompts, *part) in zip(requests, parts, strict=True)
        ]

    def _graded(
        self, branch: str, prompts: np.ndarray, token: torch.Tensor, mask: torch.Tensor, logp: torch.Tensor
    ) -> Rollouts:
        n = self.settings.rollout.group_size
        longest = int(mask.sum(-1).max()) if len(mask) else 0
        token, mask, logp = token[:, :longest], mask[:, :longest], logp[:, :longest]
        prompt = np.repeat(prompts, n)
        with self.phases("reward"):
            verdicts = self.judged[branch] = self.grade(prompt, token, mask)
        graded = Rollouts(
            prompt=torch.from_numpy(prompt),
            token=token,
            mask=mask,
            reward=self.shaped_reward(torch.tensor([v.reward for v in verdicts], dtype=torch.float32), token, mask),
            group_size=n,
            engine_logp=logp,
        )
        with self.phases("score"):
            return ranks.gather(self.policy.score(graded))

    def grade(self, prompt: np.ndarray, token: torch.Tensor, mask: torch.Tensor) -> list[Verdict]:
        """Verdicts on this rank's responses."""
        responses = [t[: int(m)] for t, m in zip(token.tolist(), mask.sum(1), strict=True)]
        verdicts = self.task.grade(prompt.tolist(), responses)
        self.tally.update(troubles(verdicts))
        return verdicts

    def shaped_reward(self, verdict: torch.Tensor, token: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(R,): what a response is trained on, from its verdict (R,), its length and whether it ended."""
        chosen = self.settings.reward
        return shaped(
            verdict,
            mask.sum(-1),
            ended(token, mask, end_ids=self.task.end_ids),
            truncated=chosen.truncated,
            limit=self.settings.rollout.max_response_tokens,
            buffer=chosen.overlong_buffer_tokens,
            penalty=chosen.overlong_penalty,
        )

    def lengths(self, rollouts: Rollouts) -> dict[str, float]:
        """What a step's log says about lengths: the mean, the shares that ended and were cut, the mean penalty."""
        length = rollouts.mask.sum(-1)
        whole = ended(rollouts.token, rollouts.mask, end_ids=self.task.end_ids).float()
        penalty = overlong_penalty(
            length,
            limit=self.settings.rollout.max_response_tokens,
            buffer=self.settings.reward.overlong_buffer_tokens,
            penalty=self.settings.reward.overlong_penalty,
        )
        return {
            "response_length": float(length.mean()),
            "ended": float(whole.mean()),
            "reward/truncated": float((1 - whole).mean()),
            "reward/overlong_penalty": float(penalty.mean()),
        }

    def verifier_troubles(self) -> dict[str, int]:
        """reward/timeouts and reward/errors of this step over all ranks; called by all together."""
        mine = {name: torch.tensor(float(self.tally[name])) for name in troubles([])}
        return {name: int(count) for name, count in ranks.total(mine).items()}

    def samples(
        self, step: int, main: Rollouts, second: Rollouts | None, *, temperature: float
    ) -> list[dict[str, Any]]:
        """What a person is shown of a step, out of this rank's rows (`aepo.llm.samples`); for rank 0."""
        branches = {"main": (main, 1.0), "tempered": (second, temperature)}
        return [
            row
            for branch, (rollouts, t) in branches.items()
            if rollouts is not None
            for row in samples(
                rollouts,
                self.judged[branch],
                self.task,
                step=step,
                branch=branch,
                temperature=t,
                count=self.settings.log.samples,
            )
        ]

    def usage(self, *rollouts: Rollouts) -> dict[str, float]:
        """perf/* of this step, of which these are all rollouts; called by all ranks together after the update."""
        seconds = self.phases.seconds()
        speeds = usage(
            rollouts,
            self.task.prompts,
            generate_seconds=seconds["time/generate"],
            step_seconds=seconds["time/step"],
        )
        return {**speeds, "perf/memory_gib": ranks.largest(self.memory.look() / GIB)}

    def tempered_request(self, prompts: np.ndarray, control: Control) -> Request:
        """The first prompts again, at the control's temperature."""
        again = prompts[: self.method.tempered.prompt_count(len(prompts))]
        return Request(branch="tempered", prompts=again, temperature=float(control.temperature))

    def tempered_score(self, rollouts: Rollouts, temperature: float) -> Rollouts:
        """Global rollouts with logp_t, each rank scoring its part."""
        with self.phases("score"):
            part = self.policy.tempered_score(ranks.own_rows(rollouts), temperature)
            return rollouts.replace(logp_t=ranks.gather(part).logp_t)


def build(settings: Settings, *, resumed: Path | None = None) -> tuple[Trainer, DeepSpeedStepper]:
    """Everything that a run needs, from its settings; data errors come before any model is built.

    Args:
        settings: of the run.
        resumed: the checkpoint that it will go on from.
    """
    shared_by = settings.rollout.tensor_parallel
    if ranks.world_size() % shared_by:
        raise SettingsError(
            f"rollout.tensor_parallel={shared_by} must divide the number of ranks, which is {ranks.world_size()}"
        )
    task = load_task(settings)
    data = checked_data(settings, task, resumed)
    # One process makes the warm start, the others find it made.
    if ranks.rank() == 0:
        model = load_model(settings, task)
    ranks.barrier()
    if ranks.rank() != 0:
        model = load_model(settings, task)
    # Under ZeRO 3 a forward pass needs all ranks, and ranks do not sample equally many tokens.
    embedded = settings.rollout.engine == "embedded"
    replica = copy.deepcopy(model) if embedded and settings.train.zero_stage == 3 else None
    positions = getattr(model.config, "max_position_embeddings", None)
    check_positions(settings, task.prompts, positions)
    # Models need not have positions for the longest of them.
    positions = positions or LONGEST + RESPONSE_TOKENS
    asked = canary_prompts(len(task.tokenizer), longest=min(LONGEST, positions - RESPONSE_TOKENS))
    vllm = None if embedded else vllm_engine(settings, task, model, asked)
    stepper = DeepSpeedStepper(ResponseStats(model), settings.train)

    def policy_over(prompts: Sequence[Sequence[int]]) -> Policy:
        return Policy(
            stepper,
            prompts,
            pad_id=task.tokenizer.pad_token_id,
            token_budget=settings.train.micro_batch_tokens,
            lr=settings.train.lr,
            warmup_steps=settings.train.warmup_steps,
            decay=settings.train.lr_decay,
            packing=settings.train.packing,
        )

    policy = policy_over(task.prompts)
    engine = vllm or EmbeddedEngine(
        model=policy.model if replica is None else replica.to(policy.device),
        is_copy=replica is not None,
        end_ids=task.end_ids,
        pad_id=task.tokenizer.pad_token_id,
        max_tokens=settings.rollout.max_response_tokens,
        rows_at_once=settings.rollout.rows_at_once,
    )
    canary = None
    if vllm is not None or replica is not None:
        limit = settings.rollout.canary_limit or LIMITS[next(model.parameters()).dtype]
        canary = Canary(policy_over(asked), asked, limit=limit)
    trainer = Trainer(
        settings=settings,
        task=task,
        data=data,
        engine=engine,
        policy=policy,
        method=settings.method.build(),
        phases=Phases(settings.watchdog.model_dump(), rank=ranks.rank()),
        canary=canary,
    )
    return trainer, stepper


def checked_data(settings: Settings, task: Task, resumed: Path | None) -> str:
    """The fingerprint of all that is trained and evaluated on; called by all ranks together.

    Raises:
        SettingsError: ranks have different data, or the checkpoint was trained on other data: the prompts of a step
            are known by their place.
    """
    found = fingerprint(task, [*task.train, *task.held_out], beside=[len(task.train), *task.end_ids])
    if ranks.differ(int(found, 16)):
        raise SettingsError(
            f"data.train={settings.data.train}: the ranks do not have the same data (rank {ranks.rank()}: {found}); "
            "give every node the same file, or the same version of the data set, and the same model.path"
        )
    before = None if resumed is None else checkpoint.data_of(resumed)
    if before is not None and before != found:
        raise SettingsError(
            f"--resume: {resumed} was trained on other data than data.train={settings.data.train} holds (fingerprints "
            f"{before} and {found}: other questions, answers or order, or another tokenizer); put back what was there, "
            "or start anew in another --out"
        )
    return found


def check_positions(settings: Settings, prompts: Sequence[Sequence[int]], positions: int | None) -> None:
    """That the longest prompt and response fit a model; with rotary positions nothing else would say that they do not.

    Raises:
        SettingsError: they do not fit `positions` (None: no bound).
    """
    longest = max(len(prompt) for prompt in prompts)
    if positions is not None and longest + settings.rollout.max_response_tokens > positions:
        raise SettingsError(
            f"rollout.max_response_tokens={settings.rollout.max_response_tokens} and the longest prompt's {longest} "
            f"tokens are more than the {positions} positions (max_position_embeddings) of model.path="
            f"{settings.model.path}; lower it or data.max_prompt_tokens, or give a model made for more"
        )


def vllm_engine(settings: Settings, task: Task, model: torch.nn.Module, canary: Sequence[Sequence[int]]) -> VLLMEngine:
    """This rank's engine, with room for the task's prompts and for the canary's."""
    longest = max(len(prompt) for prompt in task.prompts) + settings.rollout.max_response_tokens
    return VLLMEngine(
        model,
        task.tokenizer,
        end_ids=task.end_ids,
        max_length=max(longest, max(len(prompt) for prompt in canary) + RESPONSE_TOKENS),
        max_tokens=settings.rollout.max_response_tokens,
        kv_cache_gib=settings.rollout.kv_cache_gib,
        gpu_memory_utilization=settings.rollout.gpu_memory_utilization,
        tensor_parallel=settings.rollout.tensor_parallel,
    )
