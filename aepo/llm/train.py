"""Train a language model with verifiable rewards at a chosen entropy: main, and the step.

deepspeed aepo/llm/train.py --config configs/demo_cpu.yaml --method.name=aepo --target.value=0.5
"""

import contextlib
import copy
import logging
import math
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from aepo.batch import Batch, Rollouts, minibatches
from aepo.controller import Control, Loop
from aepo.llm import checkpoint, ranks, seeds
from aepo.llm.canary import LIMITS, LONGEST, RESPONSE_TOKENS, Canary, StaleWeightsError, canary_prompts
from aepo.llm.engine import EmbeddedEngine, Engine
from aepo.llm.microbatch import trimmed
from aepo.llm.mismatch import corrected, measured
from aepo.llm.phases import Phases
from aepo.llm.policy import DeepSpeedStepper, Policy, ResponseStats, init_distributed
from aepo.llm.record import Recorder, metrics_path, plot_entropy, saturation_warning, summarize
from aepo.llm.settings import Settings, SettingsError, parse
from aepo.llm.task import DataError, MathTask, Task
from aepo.llm.termination import Termination
from aepo.llm.vllm_engine import EngineError, VLLMEngine
from aepo.llm.warm_start import load_model, load_task
from aepo.llm.workers import GradingPool, load_reward, unhurried_math_reward
from aepo.loss import policy_loss
from aepo.method import Method, assemble
from aepo.passk import pass_at_k

log = logging.getLogger("aepo")

# Without a GPU the command with no arguments shows what it does.
DEMO_CONFIG = Path(__file__).parents[2] / "configs" / "demo_cpu.yaml"


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
    engine: Engine
    policy: Policy
    method: Method
    phases: Phases
    canary: Canary | None
    """None where the engine samples from the trainer's own weights, which nothing has to push."""
    pool: GradingPool | None
    """None for a task that judges its answers itself."""
    tally: Counter[str] = field(default_factory=Counter)
    """Verdicts of this rank and step that timed out or failed."""

    def push(self) -> dict[str, float]:
        """The weights to the engine, and the proof that they are there; called by all ranks together.

        Raises:
            StaleWeightsError: they are not.
        """
        with self.phases("push"):
            self.engine.load(self.policy.stepper.weights())
            if self.canary is None:
                return {"sync/weight_version": self.policy.updates}
            return self.canary.check(self.engine, version=self.policy.updates)

    def rollouts(self, step: int, *requests: "Request") -> list[Rollouts]:
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
            )
        sizes = [len(m) * n for m in mine]
        parts = zip(mine, sampled.token.split(sizes), sampled.mask.split(sizes), sampled.logp.split(sizes), strict=True)
        return [self._graded(prompts, *part) for prompts, *part in parts]

    def _graded(self, prompts: np.ndarray, token: torch.Tensor, mask: torch.Tensor, logp: torch.Tensor) -> Rollouts:
        n = self.settings.rollout.group_size
        longest = int(mask.sum(-1).max()) if len(mask) else 0
        token, mask, logp = token[:, :longest], mask[:, :longest], logp[:, :longest]
        prompt = np.repeat(prompts, n)
        with self.phases("reward"):
            reward = self.grade(prompt, token, mask)
        graded = Rollouts(
            prompt=torch.from_numpy(prompt),
            token=token,
            mask=mask,
            reward=torch.tensor(reward, dtype=torch.float32),
            group_size=n,
            engine_logp=logp,
        )
        with self.phases("score"):
            return ranks.gather(self.policy.score(graded))

    def grade(self, prompt: np.ndarray, token: torch.Tensor, mask: torch.Tensor) -> list[float]:
        """Rewards of this rank's responses, in worker processes where the task's verifier may hang."""
        responses = [t[: int(m)] for t, m in zip(token.tolist(), mask.sum(1), strict=True)]
        if self.pool is None:
            return [self.task.grade(p, r) for p, r in zip(prompt.tolist(), responses, strict=True)]
        items = [(self.task.text(r), self.task.answers[p]) for p, r in zip(prompt.tolist(), responses, strict=True)]
        verdicts = self.pool.grade(items)
        self.tally.update(self.pool.counts)
        return [verdict.reward for verdict in verdicts]

    def verifier_troubles(self) -> dict[str, int]:
        """reward/timeouts and reward/errors of this step over all ranks; nothing for a task that judges itself."""
        if self.pool is None:
            return {}
        mine = {name: torch.tensor(float(self.tally[name])) for name in ("reward/timeouts", "reward/errors")}
        return {name: int(count) for name, count in ranks.total(mine).items()}

    def tempered_request(self, prompts: np.ndarray, control: Control) -> Request:
        """The first prompts again, at the control's temperature."""
        again = prompts[: self.method.tempered.prompt_count(len(prompts))]
        return Request(branch="tempered", prompts=again, temperature=float(control.temperature))

    def tempered_score(self, rollouts: Rollouts, temperature: float) -> Rollouts:
        """Global rollouts with logp_t, each rank scoring its part."""
        with self.phases("score"):
            part = self.policy.tempered_score(ranks.own_rows(rollouts), temperature)
            return rollouts.replace(logp_t=ranks.gather(part).logp_t)


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one step sampled and measured."""

    main: Rollouts
    second: Rollouts | None
    control: Control
    batch: Batch
    metrics: dict[str, Any]


def train_step(trainer: Trainer, loop: Loop, *, step: int) -> tuple[Loop, Step]:
    """Sample, grade, score, control, sample again, assemble, update (`aepo.tabular.train.train_step` in the large).

    Args:
        trainer: the run; its policy is updated.
        loop: the controller's memory.
        step: counted from 0.

    Returns:
        The next loop, and the step's record.

    Raises:
        FloatingPointError: a loss or gradient that is not finite; the run ends before such weights are saved.
    """
    settings, method, policy = trainer.settings, trainer.method, trainer.policy
    trainer.phases.begin(step)
    trainer.tally.clear()
    sync = trainer.push()
    count = settings.train.prompts_per_step
    prompts = np.asarray(trainer.task.train)[
        seeds.order(settings.seed, step * count, count, size=len(trainer.task.train))
    ]
    target = settings.target.build()(step)

    def decide(entropy: torch.Tensor) -> tuple[Loop, Control]:
        return loop.decide(
            method.controller,
            entropy=entropy,
            target=target,
            sees=settings.controller.sees,
            step=step,
            relative=settings.target.relative,
        )

    requests = [Request(branch="main", prompts=prompts, temperature=1.0)]
    second = None
    if method.tempered is not None and settings.controller.sees == "previous":
        # This control does not wait for the T = 1 samples, so both temperatures share one call.
        _, early = decide(loop.previous_entropy)
        requests.append(trainer.tempered_request(prompts, early))
    main, *others = trainer.rollouts(step, *requests)
    entropy = main.mean_entropy()
    next_loop, control = decide(entropy)
    # What the loop followed: nats, also where the setting is a share of the first entropy.
    goal = float("nan") if control.target is None else float(control.target)
    if others:
        (second,) = others
    elif method.tempered is not None:
        (second,) = trainer.rollouts(step, trainer.tempered_request(prompts, control))
    trainer.engine.rest()
    if method.needs_logp_t:
        main = trainer.tempered_score(main, float(control.temperature))
    batch = assemble(method, control, main, second)
    if settings.rollout.corrects:
        at_temperature = None if second is None else trainer.tempered_score(second, float(control.temperature))
        batch = corrected(
            batch,
            main,
            at_temperature,
            cap=settings.rollout.correction_cap,
            sequence_bound=settings.rollout.correction_sequence_bound,
        )
    with trainer.phases("update"):
        sums, norms = update(policy, batch, method, parts=settings.train.minibatches)
    metrics = {
        "step": step,
        "reward": float(main.mean_reward()),
        "entropy": float(entropy),
        "target": goal,
        "error": abs(float(entropy) - goal),
        "temperature": float(control.temperature),
        "push": float(control.strength),
        "raise_entropy": bool(control.raise_entropy),
        "positives": int(method.tempered.kept(second, control).sum()) if second is not None else 0,
        "normalizer": method.tempered.normalizer if method.tempered is not None else None,
        "live_rows": int(batch.live.sum()),
        "response_length": float(main.mask.sum(-1).mean()),
        "ended": float((main.token == trainer.task.tokenizer.eos_token_id).any(-1).float().mean()),
        "loss": sums["loss"],
        "clip_fraction": sums["clipped"] / max(sums["tokens"], 1e-30),
        "kl": sums["kl"] / max(sums["tokens"], 1e-30),
        "grad_norm": float(np.mean(norms)),
        **trainer.verifier_troubles(),
        **measured(main),
        **sync,
        **trainer.phases.seconds(),
    }
    for name in ("loss", "grad_norm", "entropy"):
        if not math.isfinite(metrics[name]):
            raise FloatingPointError(f"step {step}, rank {ranks.rank()}: {name} is {metrics[name]}")
    return next_loop, Step(main=main, second=second, control=control, batch=batch, metrics=metrics)


def update(policy: Policy, batch: Batch, method: Method, *, parts: int) -> tuple[dict[str, float], list[float]]:
    """One optimizer step per mini-batch of the global batch; this rank runs its own rows.

    Rows that cannot move the policy are left out, exactly: their gradient is 0.

    Args:
        policy: is updated.
        batch: the global batch, the same on every rank.
        method: whose objective.
        parts: number of mini-batches.

    Returns:
        The loss and the sums of `policy_loss` over ranks and mini-batches, and each step's gradient norm.
    """
    rank, world = ranks.rank(), ranks.world_size()
    sums: dict[str, torch.Tensor] = {}
    norms = []
    for part in minibatches(batch, parts):
        part = part.rows(part.live.nonzero().squeeze(-1))
        if not len(part.prompt):
            continue
        micros = policy.micro_batches(part.prompt, part.mask, world=world)[rank]
        for i, rows in enumerate(micros):
            micro = trimmed(part, rows)
            logp, entropy = policy(micro)
            micro = micro.to(logp.device)
            loss, added = policy_loss(logp, method.bonus(logp, entropy), micro, method.surrogate, token_entropy=entropy)
            policy.backward(loss, last=i + 1 == len(micros))
            for name, value in {"loss": loss.detach(), **added}.items():
                sums[name] = sums.get(name, 0.0) + value / parts
        norms.append(policy.step())
    nothing = {name: torch.zeros(()) for name in ("loss", "tokens", "clipped", "kl")}
    return ranks.total({**nothing, **sums}), norms or [0.0]


def evaluate(trainer: Trainer) -> dict[str, float]:
    """Accuracy and unbiased pass@k on the held-out prompts at T = 1."""
    chosen = trainer.settings.evaluation
    if not chosen.samples or not len(trainer.task.held_out):
        return {}
    held_out = np.asarray(trainer.task.held_out)
    slots = ranks.share(np.arange(len(held_out)), rank=ranks.rank(), world=ranks.world_size())
    right = torch.zeros(len(held_out), dtype=torch.int64)
    sampled = trainer.engine.sample(
        [trainer.task.prompts[p] for p in held_out[slots]],
        n=chosen.samples,
        temperature=1.0,
        row_seeds=seeds.row_seeds(trainer.settings.seed, 0, "evaluation", slots, chosen.samples),
    )
    rewards = trainer.grade(np.repeat(held_out[slots], chosen.samples), sampled.token, sampled.mask)
    for row, reward in enumerate(rewards):
        right[slots[row // chosen.samples]] += int(reward > 0)
    counts = ranks.total({str(slot): count for slot, count in enumerate(right)})
    right = torch.tensor([int(counts[str(slot)]) for slot in range(len(held_out))])
    return {f"pass@{k}": float(pass_at_k(right, samples=chosen.samples, k=k).mean()) for k in chosen.ks}


def build(settings: Settings) -> tuple[Trainer, DeepSpeedStepper]:
    """Everything that a run needs, from its settings; data errors come before any model is built."""
    task = load_task(settings)
    pool = grading_pool(settings) if isinstance(task, MathTask) else None
    # One process makes the warm start, the others find it made.
    if ranks.rank() == 0:
        model = load_model(settings, task)
    ranks.barrier()
    if ranks.rank() != 0:
        model = load_model(settings, task)
    # Under ZeRO 3 a forward pass needs all ranks, and ranks do not sample equally many tokens.
    embedded = settings.rollout.engine == "embedded"
    replica = copy.deepcopy(model) if embedded and settings.train.zero_stage == 3 else None
    # Models need not have positions for the longest of them.
    positions = getattr(model.config, "max_position_embeddings", None) or LONGEST + RESPONSE_TOKENS
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
            packing=settings.train.packing,
        )

    policy = policy_over(task.prompts)
    engine = vllm or EmbeddedEngine(
        model=policy.model if replica is None else replica.to(policy.device),
        is_copy=replica is not None,
        eos_id=task.tokenizer.eos_token_id,
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
        engine=engine,
        policy=policy,
        method=settings.method.build(),
        phases=Phases(settings.watchdog.model_dump(), rank=ranks.rank()),
        canary=canary,
        pool=pool,
    )
    return trainer, stepper


def grading_pool(settings: Settings) -> GradingPool:
    """This rank's verifier processes.

    Raises:
        SettingsError: a reward function that cannot be had.
    """
    chosen = settings.reward
    try:
        reward = unhurried_math_reward if chosen.function is None else load_reward(chosen.function)
        return GradingPool(reward, workers=chosen.workers, deadline_seconds=chosen.deadline_seconds)
    except ValueError as error:
        raise SettingsError(f"reward.function: {error}") from error


def vllm_engine(settings: Settings, task: Task, model: torch.nn.Module, canary: Sequence[Sequence[int]]) -> VLLMEngine:
    """This rank's engine, with room for the task's prompts and for the canary's."""
    longest = max(len(prompt) for prompt in task.prompts) + settings.rollout.max_response_tokens
    return VLLMEngine(
        model,
        task.tokenizer,
        max_length=max(longest, max(len(prompt) for prompt in canary) + RESPONSE_TOKENS),
        max_tokens=settings.rollout.max_response_tokens,
        kv_cache_gib=settings.rollout.kv_cache_gib,
        gpu_memory_utilization=settings.rollout.gpu_memory_utilization,
    )


def run(
    settings: Settings,
    *,
    resume: Literal["no", "must", "auto"] = "no",
    on_step: Callable[[Step], None] = lambda step: None,
) -> dict[str, Any] | None:
    """Train, checkpoint, evaluate, plot; the summary on rank 0, None elsewhere and where SIGTERM ended the run."""
    init_distributed()
    if not torch.cuda.is_available() and "OMP_NUM_THREADS" not in os.environ:
        # Threads that spin for work cost a small model an order of magnitude as soon as the cores are busy.
        torch.set_num_threads(1)
    # Nothing draws from the global generators; seeding them keeps a library that does from breaking reproducibility.
    random.seed(settings.seed)
    np.random.seed(settings.seed % 2**32)
    torch.manual_seed(settings.seed)
    folder = None if resume == "no" else checkpoint.newest(settings, required=resume == "must")
    trainer, stepper = build(settings)
    with contextlib.closing(trainer.engine), trainer.pool or contextlib.nullcontext():
        return _run(trainer, stepper, folder, on_step)


def _run(
    trainer: Trainer, stepper: DeepSpeedStepper, folder: Path | None, on_step: Callable[[Step], None]
) -> dict[str, Any] | None:
    """From the checkpoint in `folder` (None: from the start) to the end."""
    settings, main_rank = trainer.settings, ranks.rank() == 0
    progress = checkpoint.Progress(step=0, loop=Loop.start(trainer.method.controller, torch.zeros(())))
    if folder is not None:
        progress = checkpoint.restore(folder, trainer.policy, stepper)
        log.info("resumed from %s at step %d", folder, progress.step)
    recorder = Recorder(settings, first_step=progress.step) if main_rank else None
    recent: list[bool] = []
    loop, termination = progress.loop, Termination()
    with termination.listening():
        for step in range(progress.step, settings.train.steps):
            loop, record = train_step(trainer, loop, step=step)
            if recorder is not None:
                recorder.write(record.metrics)
                recent = [*recent, record.metrics["raise_entropy"]][-50:]
                warning = saturation_warning(sum(recent) / len(recent), trainer.method)
                if warning and len(recent) == 50 and (step + 1) % 50 == 0:
                    log.warning("%s", warning)
            on_step(record)
            every, last = settings.checkpoint.every, step + 1 == settings.train.steps
            ends = termination.agreed()
            if ends or (every and ((step + 1) % every == 0 or last)):
                with trainer.phases("save"):
                    checkpoint.save(settings, trainer.policy, stepper, checkpoint.Progress(step=step + 1, loop=loop))
            if ends:
                log.warning("SIGTERM: saved after step %d under %s; go on with --resume", step, settings.out)
                if recorder is not None:
                    recorder.close()
                return None
    trainer.phases.begin(settings.train.steps)
    trainer.push()
    with trainer.phases("evaluate"):
        evaluation = evaluate(trainer)
    final = Path(settings.out) / "final"
    stepper.export(final)
    summary = None
    if recorder is not None:
        recorder.close()
        trainer.task.tokenizer.save_pretrained(final)
        plot_entropy(settings, trainer.method)
        summary = summarize(settings, trainer.method, evaluation)
        log.info(
            "done: %s", ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in summary.items())
        )
    ranks.barrier()
    return summary


def main(argv: list[str] | None = None) -> int:
    """The command: 0 when the run ended, 2 when the settings, the data or the engine cannot be used, 3 when a
    checkpoint could not be written, 4 (by the watchdog) when a phase hung, 5 when the engine had stale weights."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO if first else logging.ERROR)
    try:
        default = None if torch.cuda.is_available() else str(DEMO_CONFIG)
        typed = parse(sys.argv[1:] if argv is None else argv, default_config=default)
        if typed.resume == "no" and not typed.overwrite and metrics_path(typed.settings).exists():
            raise SettingsError(
                f"out={typed.settings.out} holds a run already: add --resume (or --resume auto, which starts anew "
                "where no checkpoint is whole) to go on, --overwrite to replace it, "
                "or choose another --out"
            )
        run(typed.settings, resume=typed.resume)
    except (SettingsError, DataError) as error:
        if first:
            print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except EngineError as error:
        print(f"error: rank {ranks.rank()}: {error}", file=sys.stderr, flush=True)
        return 2
    except StaleWeightsError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 5
    except checkpoint.CheckpointError as error:
        print(f"error: rank {ranks.rank()}: {error}", file=sys.stderr, flush=True)
        return 3
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
