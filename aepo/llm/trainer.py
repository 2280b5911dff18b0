"""What a run works with, and the parts of a step that need all of it: pushes, rollouts, verdicts, scores."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from aepo.authority import measurable
from aepo.batch import Rollouts
from aepo.controller import Control
from aepo.llm import seeds
from aepo.llm.checkpoints import checkpoint
from aepo.llm.engines.canary import Canary
from aepo.llm.engines.engine import Engine
from aepo.llm.engines.start import Needs, canary_for, start
from aepo.llm.evaluation.held_out import held_out_passes
from aepo.llm.grading import Verdict
from aepo.llm.grading.overlong import ended, shaped
from aepo.llm.grading.rewards import troubles
from aepo.llm.policy import masters
from aepo.llm.policy.deepspeed_stepper import DeepSpeedStepper
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.warm_start import load_model
from aepo.llm.processes import half_precision, ranks, threads
from aepo.llm.processes.watchdog import Phases
from aepo.llm.questions.erring import erring
from aepo.llm.questions.loading import load_task
from aepo.llm.questions.task import Task, fingerprint, fingerprint_of_columns, stops
from aepo.llm.records.usage import GIB, Memory, usage
from aepo.llm.settings import Settings, SettingsError
from aepo.method import Method

log = logging.getLogger("aepo")


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What is asked of the engine: prompts of every rank at one temperature."""

    branch: str
    """Part of every seed: samples of two branches are independent."""
    prompts: np.ndarray
    """(P,) int64."""
    temperature: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Graded:
    """Responses to one request."""

    rollouts: Rollouts
    """Those of every rank, scored; the same on every rank."""
    verdicts: list[Verdict]
    """On this rank's own rows."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What a run works with, from its first step to its last; what a step samples and measures is its `Step`'s."""

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
    memory: Memory = field(default_factory=Memory)
    """The most that this rank was seen to use."""

    def close(self) -> None:
        """End the engine and the verifier's processes; they are not used any more."""
        with contextlib.closing(self.task):
            self.engine.close()

    def prompts(self, step: int) -> np.ndarray:
        """(P,) int64: the prompts that a step asks; every epoch goes through the data in an order of its own."""
        train, count = np.asarray(self.task.train), self.settings.train.prompts_per_step
        return train[seeds.order(self.settings.seed, step * count, count, size=len(train))]

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

    def rollouts(self, step: int, *requests: Request) -> list[Graded]:
        """Sampled, graded and scored responses to each request.

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
        return [self._graded(*part) for part in parts]

    def _graded(self, prompts: np.ndarray, token: torch.Tensor, mask: torch.Tensor, logp: torch.Tensor) -> Graded:
        n = self.settings.rollout.group_size
        longest = int(mask.sum(-1).max()) if len(mask) else 0
        token, mask, logp = token[:, :longest], mask[:, :longest], logp[:, :longest]
        prompt = np.repeat(prompts, n)
        with self.phases("reward"):
            verdicts = self.grade(prompt, token, mask)
        mine = Rollouts(
            prompt=torch.from_numpy(prompt),
            token=token,
            mask=mask,
            reward=self.shaped_reward(torch.tensor([v.reward for v in verdicts], dtype=torch.float32), token, mask),
            # A response that is cut or overlong is right by the same rules that its reward goes by.
            right_by=self.shaped_reward(torch.tensor([v.decides for v in verdicts], dtype=torch.float32), token, mask)
            if self.task.parts
            else None,
            group_size=n,
            engine_logp=logp,
        )
        with self.phases("score"):
            effects = self.method.needs_mean_effect or measurable(self.method)
            return Graded(rollouts=ranks.gather(self.policy.score(mine, effects=effects)), verdicts=verdicts)

    def evaluate(self, step: int | None) -> dict[str, float]:
        """pass@k on the held-out prompts, of the weights that were pushed last; called by all ranks together.

        Args:
            step: in which; None at the end of the run.
        """
        with self.phases("evaluate"):
            return held_out_passes(
                self.engine,
                self.task,
                self.settings.evaluation,
                seed=self.settings.seed,
                step=step,
                trained=self.settings.sampled,
            )

    def grade(self, prompt: np.ndarray, token: torch.Tensor, mask: torch.Tensor) -> list[Verdict]:
        """Verdicts on this rank's responses: those that are trained on."""
        responses = [t[: int(m)] for t, m in zip(token.tolist(), mask.sum(1), strict=True)]
        verdicts, chosen = self.task.grade(prompt.tolist(), responses), self.settings.reward
        if not chosen.false_positives and not chosen.false_negatives:
            return verdicts
        return erring(
            verdicts,
            prompt.tolist(),
            responses,
            false_positives=chosen.false_positives,
            false_negatives=chosen.false_negatives,
            seed=self.settings.seed,
        )

    def shaped_reward(self, verdict: torch.Tensor, token: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(R,): what a response is trained on, from its verdict (R,), its length and whether it ended."""
        chosen = self.settings.reward
        return shaped(
            verdict,
            mask.sum(-1),
            ended(token, mask, end_ids=self.task.end_ids, completed=stops(self.task)),
            truncated=chosen.truncated,
            limit=self.settings.rollout.max_response_tokens,
            buffer=chosen.overlong_buffer_tokens,
            penalty=chosen.overlong_penalty,
        )

    def usage(self, *rollouts: Rollouts) -> dict[str, float]:
        """perf/* of this step, of which these are all rollouts; called by all ranks together after the update."""
        seconds = self.phases.seconds()
        speeds = usage(
            rollouts,
            self.task.prompts,
            generate_seconds=seconds["time/generate"],
            # An evaluation trains nothing.
            step_seconds=seconds["time/step"] - seconds.get("time/evaluate", 0.0),
        )
        return {**speeds, "perf/memory_gib": ranks.largest(self.memory.look() / GIB)}

    def tempered_request(self, prompts: np.ndarray, control: Control) -> Request:
        """The first prompts again, at the control's temperature."""
        again = prompts[: self.method.tempered.prompt_count(len(prompts), control)]
        return Request(branch="tempered", prompts=again, temperature=float(control.temperature))

    def tempered_score(self, rollouts: Rollouts, temperature: float) -> Rollouts:
        """Global rollouts with logp_t, each rank scoring its part."""
        with self.phases("score"):
            part = self.policy.tempered_score(ranks.own_rows(rollouts), temperature)
            return rollouts.replace(logp_t=ranks.gather(part).logp_t)


def verdicts_of_all_ranks(graded: Mapping[str, Graded], parts: Sequence[str]) -> dict[str, float]:
    """What a step's verdicts were: reward/timeouts, reward/errors, and the mean of each of several reward functions
    over the T = 1 responses. Called by all ranks together.

    Args:
        graded: by branch, "main" for T = 1.
        parts: names of the functions; () where there is one.
    """
    mine = {name: float(n) for name, n in troubles([v for part in graded.values() for v in part.verdicts]).items()}
    main = graded["main"].verdicts
    # A verdict that failed has no parts: nothing was given.
    mine |= {f"reward/{name}": float(sum(v.parts[i] for v in main if v.parts)) for i, name in enumerate(parts)}
    total = ranks.total({name: torch.tensor(value, dtype=torch.float64) for name, value in mine.items()})
    rows = len(graded["main"].rollouts.reward)
    counts = {name: int(total[name]) for name in ("reward/timeouts", "reward/errors")}
    return {**counts, **{f"reward/{name}": total[f"reward/{name}"] / rows for name in parts}}


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
    check_positions(settings, task.prompts, getattr(model.config, "max_position_embeddings", None))
    settings = with_threads(settings, model, resumed)
    half_precision.warn_of_slow(getattr(torch, settings.train.dtype), cure="--train.dtype=float32 avoids that")
    engine = start(settings.rollout.engine, model, task.tokenizer, engine_needs(settings, task))
    stepper = DeepSpeedStepper(ResponseStats(model), settings.train)
    if settings.train.dtype == "bfloat16" and settings.train.dither_masters:
        spread_masters(stepper, model, seed=settings.seed)
    policy = Policy(
        stepper,
        task.prompts,
        pad_id=task.tokenizer.pad_token_id,
        token_budget=settings.train.micro_batch_tokens,
        lr=settings.train.lr,
        warmup_steps=settings.train.warmup_steps,
        decay=settings.train.lr_decay,
        packing=settings.train.packing,
        sharing=settings.train.shared_prompts == "auto",
    )
    if policy.sharing:
        log.info("prompts: computed once for all their responses where that saves a tenth of the tokens")
    elif policy.unshared_because is not None:
        log.info("prompts: computed with each of their responses: %s", policy.unshared_because)
    trainer = Trainer(
        settings=settings,
        task=task,
        data=data,
        engine=engine,
        policy=policy,
        method=settings.method.build(),
        phases=Phases(settings.watchdog.model_dump(), rank=ranks.rank()),
        canary=canary_for(engine, policy, task.tokenizer, limit=settings.rollout.canary_limit),
    )
    return trainer, stepper


def spread_masters(stepper: DeepSpeedStepper, model: torch.nn.Module, *, seed: int) -> None:
    """The optimizer's float32 weights anywhere in the rounding intervals of the weights; called by all ranks together.

    Args:
        stepper: whose they are.
        model: whose files may have float32 values of their own.
        seed: of the run.
    """
    own = masters.own_values(model)
    stepper.start_masters(lambda name, weight: masters.start(weight, seed=seed, name=name, own=own(name)))
    log.info("masters: spread over the rounding intervals of the bfloat16 weights (train.dither_masters)")


def with_threads(settings: Settings, model: torch.nn.Module, resumed: Path | None) -> Settings:
    """The settings with the number of threads that this process has from now on; called by all ranks together.

    Args:
        settings: of the run.
        model: that is trained.
        resumed: the checkpoint that the run goes on from.
    """
    train = settings.train
    chosen = threads.choose(
        sum(p.numel() for p in model.parameters()),
        asked=train.threads,
        before=None if resumed is None else checkpoint.threads_of(resumed),
    )
    return settings.model_copy(update={"train": train.model_copy(update={"threads": chosen})})


def checked_data(settings: Settings, task: Task, resumed: Path | None) -> str:
    """The fingerprint of all that is trained and evaluated on; called by all ranks together.

    Raises:
        SettingsError: ranks have different data, or the checkpoint was trained on other data: the prompts of a step
            are known by their place.
    """
    prompts = [*task.train, *task.held_out]
    beside = [len(task.train), *task.end_ids, *fingerprint_of_columns(task, prompts)]
    found = fingerprint(task, prompts, beside=beside)
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


def engine_needs(settings: Settings, task: Task) -> Needs:
    """What a run asks of its engine."""
    return Needs(
        end_ids=task.end_ids,
        stop=task.stop,
        longest_prompt=max(len(prompt) for prompt in task.prompts),
        max_tokens=settings.rollout.max_response_tokens,
        rows_at_once=settings.rollout.rows_at_once,
        kv_cache_gib=settings.rollout.kv_cache_gib,
        gpu_memory_utilization=settings.rollout.gpu_memory_utilization,
        tensor_parallel=settings.rollout.tensor_parallel,
        shared_out=settings.train.zero_stage == 3,
    )
