"""Train a language model with verifiable rewards at a chosen entropy: main, and the step.

deepspeed aepo/llm/train.py --config configs/demo_cpu.yaml --method.name=aepo --target.value=0.5
"""

import copy
import logging
import math
import os
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from aepo.batch import Batch, Rollouts, minibatches
from aepo.controller import Control, Loop
from aepo.llm import checkpoint, ranks, seeds
from aepo.llm.engine import EmbeddedEngine
from aepo.llm.microbatch import plan, trimmed
from aepo.llm.phases import Phases
from aepo.llm.policy import DeepSpeedStepper, Policy, ResponseStats, init_distributed
from aepo.llm.record import Recorder, metrics_path, plot_entropy, saturation_warning, summarize
from aepo.llm.settings import Settings, SettingsError, parse
from aepo.llm.task import DataError, Task
from aepo.llm.termination import Termination
from aepo.llm.warm_start import load_model, load_task
from aepo.loss import policy_loss
from aepo.method import Method, assemble
from aepo.passk import pass_at_k

log = logging.getLogger("aepo")

# Without a GPU the command with no arguments shows what it does.
DEMO_CONFIG = Path(__file__).parents[2] / "configs" / "demo_cpu.yaml"


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """What does not change during a run."""

    settings: Settings
    task: Task
    engine: EmbeddedEngine
    policy: Policy
    method: Method
    phases: Phases

    def rollouts(self, branch: str, step: int, prompts: np.ndarray, temperature: float) -> Rollouts:
        """Sampled, graded and scored responses of every rank to `prompts`, the same on every rank."""
        n = self.settings.rollout.group_size
        slots = ranks.share(np.arange(len(prompts)), rank=ranks.rank(), world=ranks.world_size())
        mine = prompts[slots]
        with self.phases("generate"):
            sampled = self.engine.sample(
                [self.task.prompts[p] for p in mine],
                n=n,
                temperature=temperature,
                row_seeds=seeds.row_seeds(self.settings.seed, step, branch, slots, n),
            )
        prompt = np.repeat(mine, n)
        responses = (t[: int(m)] for t, m in zip(sampled.token.tolist(), sampled.mask.sum(1), strict=True))
        with self.phases("reward"):
            reward = [self.task.grade(p, r) for p, r in zip(prompt.tolist(), responses, strict=True)]
        graded = Rollouts(
            prompt=torch.from_numpy(prompt),
            token=sampled.token,
            mask=sampled.mask,
            reward=torch.tensor(reward, dtype=torch.float32),
            group_size=n,
            engine_logp=sampled.logp,
        )
        with self.phases("score"):
            return ranks.gather(self.policy.score(graded))

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
    with trainer.phases("push"):
        trainer.engine.load(policy.stepper.weights())
    count = settings.train.prompts_per_step
    prompts = np.asarray(trainer.task.train)[
        seeds.order(settings.seed, step * count, count, size=len(trainer.task.train))
    ]
    main = trainer.rollouts("main", step, prompts, 1.0)
    entropy = main.mean_entropy()
    target = settings.target.build()(step)
    loop, control = loop.decide(
        method.controller,
        entropy=entropy,
        target=target,
        sees=settings.controller.sees,
        step=step,
        relative=settings.target.relative,
    )
    # What the loop followed: nats, also where the setting is a share of the first entropy.
    goal = float("nan") if control.target is None else float(control.target)
    second = None
    if method.tempered is not None:
        again = prompts[: method.tempered.prompt_count(count)]
        second = trainer.rollouts("tempered", step, again, float(control.temperature))
    if method.needs_logp_t:
        main = trainer.tempered_score(main, float(control.temperature))
    batch = assemble(method, control, main, second)
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
        "engine_mismatch": _mismatch(main),
        **trainer.phases.seconds(),
    }
    for name in ("loss", "grad_norm", "entropy"):
        if not math.isfinite(metrics[name]):
            raise FloatingPointError(f"step {step}, rank {ranks.rank()}: {name} is {metrics[name]}")
    return loop, Step(main=main, second=second, control=control, batch=batch, metrics=metrics)


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
        lengths = policy.lengths(part.prompt, part.mask)
        if not lengths:
            continue
        micros = plan(lengths, world=world, token_budget=policy.token_budget)[rank]
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


def _mismatch(rollouts: Rollouts) -> float:
    """Mean |engine - trainer| log-prob of the T = 1 samples: the engine's numerics, in nats."""
    return float(((rollouts.engine_logp - rollouts.old_logp).abs() * rollouts.mask).sum() / rollouts.mask.sum())


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
    for row, (tokens, length) in enumerate(zip(sampled.token.tolist(), sampled.mask.sum(1), strict=True)):
        slot = slots[row // chosen.samples]
        right[slot] += int(trainer.task.grade(int(held_out[slot]), tokens[: int(length)]) > 0)
    counts = ranks.total({str(slot): count for slot, count in enumerate(right)})
    right = torch.tensor([int(counts[str(slot)]) for slot in range(len(held_out))])
    return {f"pass@{k}": float(pass_at_k(right, samples=chosen.samples, k=k).mean()) for k in chosen.ks}


def build(settings: Settings) -> tuple[Trainer, DeepSpeedStepper]:
    """Everything that a run needs, from its settings; data errors come before any model is built."""
    task = load_task(settings)
    # One process makes the warm start, the others find it made.
    if ranks.rank() == 0:
        model = load_model(settings, task)
    ranks.barrier()
    if ranks.rank() != 0:
        model = load_model(settings, task)
    # Under ZeRO 3 a forward pass needs all ranks, and ranks do not sample equally many tokens.
    replica = copy.deepcopy(model) if settings.train.zero_stage == 3 else None
    stepper = DeepSpeedStepper(ResponseStats(model), settings.train)
    policy = Policy(
        stepper,
        task.prompts,
        pad_id=task.tokenizer.pad_token_id,
        token_budget=settings.train.micro_batch_tokens,
        lr=settings.train.lr,
        warmup_steps=settings.train.warmup_steps,
    )
    engine = EmbeddedEngine(
        model=policy.model if replica is None else replica.to(policy.device),
        is_copy=replica is not None,
        eos_id=task.tokenizer.eos_token_id,
        pad_id=task.tokenizer.pad_token_id,
        max_tokens=settings.rollout.max_response_tokens,
        rows_at_once=settings.rollout.rows_at_once,
    )
    trainer = Trainer(
        settings=settings,
        task=task,
        engine=engine,
        policy=policy,
        method=settings.method.build(),
        phases=Phases(settings.watchdog.model_dump(), rank=ranks.rank()),
    )
    return trainer, stepper


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
    main_rank = ranks.rank() == 0
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
    with trainer.phases("evaluate"):
        trainer.engine.load(stepper.weights())
        evaluation = evaluate(trainer)
    summary = None
    if recorder is not None:
        recorder.close()
        final = Path(settings.out) / "final"
        trainer.engine.model.save_pretrained(final)
        trainer.task.tokenizer.save_pretrained(final)
        plot_entropy(settings, trainer.method)
        summary = summarize(settings, trainer.method, evaluation)
        log.info(
            "done: %s", ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in summary.items())
        )
    ranks.barrier()
    return summary


def main(argv: list[str] | None = None) -> int:
    """The command: 0 when the run ended, 2 when the settings or the data cannot be used."""
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
    except checkpoint.CheckpointError as error:
        print(f"error: rank {ranks.rank()}: {error}", file=sys.stderr, flush=True)
        return 3
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main())
