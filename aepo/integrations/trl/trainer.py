"""The trainer: TRL's GRPO trainer with a method of the zoo in the place of its objective.

What samples, judges, steps, logs and saves is TRL's. Few of its methods are overridden, each as a whole:
`_calculate_rewards` keeps what functions gave, `_prepare_inputs` makes the global batch of both branches,
`_compute_loss` is the method's, and the controller's memory is saved and loaded beside TRL's own state. Evaluation is
TRL's throughout.
"""

import contextlib
import dataclasses
import json
import textwrap
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from aepo.atomic import write_text
from aepo.authority import authority, drift, measurable
from aepo.batch import Batch, Rollouts, means_of_rows
from aepo.categorical import mean_effect_of_squares
from aepo.controller import Control, Loop
from aepo.correction import corrected, measured
from aepo.integrations.trl import host, rows
from aepo.integrations.trl.config import AEPOConfig, refusal
from aepo.loss import policy_loss
from aepo.method import Method, assemble
from aepo.schedule import Schedule
from aepo.tracking import DUTY_STEPS

STATE = "aepo_loop.json"
"""The controller's memory, a file of a checkpoint."""
TEMPERED = "tempered/"
"""Before the names of what TRL measures of the second branch."""


class AEPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` under any method of the zoo that does not move the main responses' temperature.

    Args:
        model, reward_funcs, args, more, others: as for `GRPOTrainer`; `args` is an `AEPOConfig`.
        method: in the place of the zoo's method that `args` names: one of your own, or with another controller.
        target: in the place of the target that `args` has: any function of the step.

    Raises:
        ValueError: settings that would falsify the method; the message names each, its value and the cure.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "aepo"]
    _name = "AEPO"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Arbitrary Entropy Policy Optimization Breaks The Exploration Bottleneck of Reinforcement Learning",
        "id": "2510.08141",
        "citation": textwrap.dedent("""\
            @article{wang2025arbitrary,
                title  = {{Arbitrary Entropy Policy Optimization}},
                author = {Chen Wang and Zhaochun Li and Jionghao Bai and Yuzhi Zhang and others},
                year   = 2025,
                eprint = {arXiv:2510.08141},
            }"""),
    }

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: AEPOConfig | None = None,
        *more: Any,
        method: Method | None = None,
        target: Schedule | None = None,
        **others: Any,
    ) -> None:
        if not isinstance(args, AEPOConfig):
            raise ValueError(
                f"args must be an AEPOConfig, got {type(args).__name__}: it holds the method and its target"
            )
        self.method = args.named_method() if method is None else method
        self.target = args.named_target() if target is None else target
        why = refusal(self.method, self.target, samples_itself=others.get("rollout_func") is not None)
        if why is not None:
            raise ValueError(why)
        super().__init__(model, reward_funcs, args, *more, **others)
        host.check_trainer(self)
        if args.corrects:
            host.check_server(self)
        self._right = self._index_of_right()
        # One optimizer step a generation: the policy of the update is the one that sampled.
        once = args.minibatches == 1 and self.num_iterations == 1
        self._scores_in_update = once and not args.corrects and rows.only_reads_rewards(self.method)
        self._loop = Loop.start(self.method.controller, torch.zeros(()))
        self._ups: deque[bool] = deque(maxlen=DUTY_STEPS)
        self._rewards: Tensor | None = None
        self._sums: dict[str, Tensor] = {}
        self._rows = 0

    def _index_of_right(self) -> int | None:
        """Which reward function says what is right: the named one, else the first; None where there is one alone."""
        names, right = self.reward_func_names, self.args.right_by
        if right is not None and right not in names:
            raise ValueError(f"right_by must be one of {', '.join(names)}, got {right!r}")
        if len(names) == 1:
            return None
        return 0 if right is None else names.index(right)

    # Sampling.

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        self._rewards = super()._calculate_rewards(*args, **kwargs)
        return self._rewards

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not self.model.training:
            return super()._prepare_inputs(generation_batch)
        each = self.args.steps_per_generation
        # None after a checkpoint was loaded.
        if self._step % (each * self.num_iterations) == 0 or self._buffered_inputs is None:
            self._buffered_inputs = self._generation(generation_batch)
        return self._buffered_inputs[self._step % each]

    def _generation(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One turn of the loop (`aepo.llm.train.train_step` in TRL): sample, decide, sample again, assemble.

        1. Sample this generation's prompts at T = 1, by TRL; score them: H and the log-probs before the update. Where
           nothing asks for these before the update, only rows that it leaves out are scored (`_scored_in_update`).
        2. Control: the entropy decides the temperature and the strength of the second branch (Eq. 1).
        3. Sample the first prompts of the global batch again at that temperature, by TRL.
        4. Assemble the global batch, the same on every rank, and correct its weights for the sampler's numerics.
        5. Deal this rank's rows of it to micro-batches.

        Args:
            inputs: this rank's rows of the data, each prompt as often as it has responses.

        Returns:
            `steps_per_generation` micro-batches.
        """
        method, step, size = self.method, self.state.global_step, self.num_generations
        prompts = len(inputs) // size * self.accelerator.num_processes

        # 1. Sample and score.
        blocks = [self._sampled(inputs)]
        if self._scores_in_update:
            return self._scored_in_update(blocks[0], groups=prompts)
        main = self._rollouts(blocks[0], groups=prompts)

        # 2. Control.
        self._loop, control = self._loop.decide(
            method.controller,
            entropy=main.mean_entropy(),
            target=float("nan") if self.target is None else self.target(step),
            sees=self.args.sees,
            step=step,
            relative=self.args.target_relative,
        )
        temperature = float(control.temperature)
        if method.needs_logp_t:
            main = main.replace(logp_t=self._logp_at(temperature, blocks[0], len(main.reward)))

        # 3. Sample again at the control's temperature.
        second = None
        if method.tempered is not None:
            count = method.tempered.prompt_count(prompts, control)
            again = rows.first_prompts(self.accelerator, inputs, group_size=size, count=count)
            with self._apart(), host.sampling_at(self, temperature):
                blocks.append(self._sampled(again))
            second = self._rollouts(blocks[1], groups=count)
            if second.engine_logp is not None and self.args.corrects:
                second = second.replace(logp_t=self._logp_at(temperature, blocks[1], len(second.reward)))

        # 4. Assemble, and correct.
        batch = assemble(method, control, main, second)
        self._measure(control, batch, main, second)
        if main.engine_logp is not None and self.args.corrects:
            batch = corrected(
                batch,
                _heard(main, "old_logp"),
                None if second is None else _heard(second, "logp_t"),
                cap=self.args.correction_cap,
                sequence_bound=self.args.correction_sequence_bound,
            )

        # 5. Deal.
        return self._dealt(batch, blocks)

    def _scored_in_update(self, block: rows.Sampled, *, groups: int) -> list[dict[str, Any]]:
        """The same turn where one pass over each row is enough: H comes from the update's pass over the live rows, and
        from one without gradient over the others."""
        method, unknown = self.method, torch.tensor(float("nan"))
        self._loop, control = self._loop.decide(
            method.controller, entropy=unknown, target=unknown, sees="current", step=self.state.global_step
        )
        main = self._collected(block, {}, groups=groups)
        # Until the update's own, which are those before it.
        batch = assemble(method, control, main.replace(old_logp=torch.zeros_like(main.mask)))
        self._measure(control, batch, main, None)
        self._rows, self._sums = len(main.reward), {"entropy": self._entropy_of_dead_rows(block, batch.live)}
        return self._dealt(batch, [block])

    def _entropy_of_dead_rows(self, block: rows.Sampled, live: Tensor) -> Tensor:
        """(): the mean entropies of this rank's rows that the update leaves out, added up."""
        dead = (~live).view(self.accelerator.num_processes, -1)
        # Ranks wait for each other: all take equally many passes.
        passes = -(-int(dead.sum(-1).max()) // self.args.per_device_train_batch_size)
        mine, total = dead[self.accelerator.process_index].nonzero().squeeze(-1), torch.zeros(())
        for chosen in mine.tensor_split(passes) if passes else ():
            part = rows.part_of(block, chosen if len(chosen) else torch.zeros(1, dtype=torch.int64))
            _, entropy = self._stats(part)
            if len(chosen):
                total += means_of_rows(entropy.cpu(), rows.response_mask(part.inputs).cpu()).sum()
        return total.to(self.accelerator.device)

    def _dealt(self, batch: Batch, blocks: list[rows.Sampled]) -> list[dict[str, Any]]:
        return rows.micro_batches(
            self.accelerator,
            batch,
            blocks,
            parts=self.args.minibatches,
            each=self.args.gradient_accumulation_steps,
            pad_id=self._tokenizer.pad_token_id,
        )

    def _sampled(self, inputs: list[dict[str, Any]]) -> rows.Sampled:
        """This rank's responses, sampled and judged by TRL, at the temperature that is set."""
        found = super()._generate_and_score_completions(inputs)
        return rows.Sampled(inputs=found, rewards=self._rewards)

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """What TRL measures meanwhile stands under names of its own, and its table of responses shows none of it."""
        measured, tables = self._metrics["train"], self._logs
        self._metrics["train"] = defaultdict(list)
        self._logs = {
            name: deque(maxlen=table.maxlen) if isinstance(table, deque) else defaultdict(table.default_factory)
            for name, table in tables.items()
        }
        try:
            yield
        finally:
            beside, self._metrics["train"], self._logs = self._metrics["train"], measured, tables
        for name, values in beside.items():
            # TRL's count of all tokens so far has both branches in it.
            if name == "num_tokens":
                measured[name] = values
            else:
                measured[TEMPERED + name] += values

    # Scoring.

    @torch.no_grad()
    def _stats(self, block: rows.Sampled, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """This rank's log-probs and entropies before the update, each (R, T)."""
        with disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            return host.stats(
                self,
                self.model,
                block.inputs,
                temperature=temperature,
                batch_size=self.args.per_device_train_batch_size,
            )

    def _rollouts(self, block: rows.Sampled, *, groups: int) -> Rollouts:
        """The first groups of every rank's responses, scored at T = 1; the same on every rank."""
        logp, entropy = self._stats(block)
        scores = {"old_logp": logp, "entropy": entropy}
        if self.method.needs_mean_effect or (self.args.report_authority and measurable(self.method)):
            squared = self._stats(block, temperature=0.5)
            scores["mean_effect"] = mean_effect_of_squares(logp, entropy, *squared) * rows.response_mask(block.inputs)
        if "sampling_per_token_logps" in block.inputs:
            scores["engine_logp"] = block.inputs["sampling_per_token_logps"]
        return self._collected(block, scores, groups=groups)

    def _collected(self, block: rows.Sampled, scores: dict[str, Tensor], *, groups: int) -> Rollouts:
        return rows.rollouts(
            self.accelerator,
            block,
            scores,
            weights=self.reward_weights,
            right=self._right,
            group_size=self.num_generations,
            groups=groups,
        )

    def _logp_at(self, temperature: float, block: rows.Sampled, count: int) -> Tensor:
        """(first `count` rows of every rank, T): log-probs at the temperature."""
        logp, _ = self._stats(block, temperature=temperature)
        return rows.gathered(self.accelerator, logp)[:count]

    # The update.

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if not self.model.training:
            return super()._compute_loss(model, inputs)
        batch, method = inputs["batch"], self.method
        logp, entropy = host.stats(self, model, inputs, entropy_gradient=method.has_bonus)
        if self._scores_in_update:
            batch = dataclasses.replace(batch, old_logp=logp.detach())
        loss, sums = policy_loss(logp, method.bonus(logp, entropy), batch, method.surrogate, token_entropy=entropy)
        if self._scores_in_update:
            # A rank without rows runs its passes over one that counts nowhere.
            sums["entropy"] = means_of_rows(entropy.detach(), batch.mask)[batch.live].sum()
        self._add(sums)
        return loss

    def _add(self, sums: dict[str, Tensor]) -> None:
        """Add up what `policy_loss` reports; at an optimizer step, hand it on for all ranks."""
        self._sums = {name: value + self._sums.get(name, 0.0) for name, value in sums.items()}
        if not self.accelerator.sync_gradients:
            return
        total = self.accelerator.reduce(torch.stack(list(self._sums.values())), "sum").tolist()
        found = dict(zip(self._sums, total, strict=True))
        self._sums = {}
        for name, key in (("clip_fraction", "clipped"), ("policy_kl", "kl")):
            self._metrics["train"][name].append(found[key] / max(found["tokens"], 1e-30))
        if "entropy" in found:
            self._metrics["train"]["entropy"].append(found["entropy"] / self._rows)

    # What a person sees.

    def _measure(self, control: Control, batch: Batch, main: Rollouts, second: Rollouts | None) -> None:
        """The numbers of a generation, by TRL's conventions: TRL's own of the T = 1 responses have its names."""
        method = self.method
        found = {"live_rows": float(batch.live.sum())}
        if main.entropy is not None:
            found["entropy"] = float(main.mean_entropy())
            if main.engine_logp is not None:
                found |= measured(_heard(main, "old_logp"))
        if method.controlled:
            self._ups.append(bool(control.raise_entropy))
            found |= {
                "entropy_target": float(control.target),
                "entropy_error": abs(found["entropy"] - float(control.target)),
                "push": float(control.strength),
                "duty_up": sum(self._ups) / len(self._ups),
            }
        if second is not None:
            found |= {
                "temperature": float(control.temperature),
                "positives": float(method.tempered.kept(second, control).sum()),
                f"{TEMPERED}entropy": float(second.mean_entropy()),
            }
        if self.args.report_authority and measurable(method):
            parts = drift(method, batch, main, second)
            found |= {
                "control/drift_main": float(parts.main),
                "control/drift_second": float(parts.second),
                "control/authority": float(authority(parts, control)),
            }
        for name, value in found.items():
            self._metrics["train"][name].append(value)

    # Checkpoints.

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            state = {
                "method": self.method.name,
                "state": {name: value.item() for name, value in self._loop.state.items()},
                "previous_entropy": self._loop.previous_entropy.item(),
                "initial_entropy": self._loop.initial_entropy.item(),
                "ups": list(self._ups),
            }
            write_text(folder / STATE, json.dumps(state))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint, STATE)
        cure = f"go on with the trainer and method that saved it, or start a new run from its weights, {checkpoint}"
        if not path.exists():
            raise ValueError(
                f"{path} is missing, the controller's memory: this checkpoint was saved without AEPO; {cure}"
            )
        found, like = json.loads(path.read_text(encoding="utf-8")), self._loop.state
        if found["state"].keys() != like.keys():
            raise ValueError(
                f"{path} is the memory of method {found['method']!r}, which has {sorted(found['state'])}; method "
                f"{self.method.name!r} has {sorted(like)}; {cure}"
            )
        self._loop = Loop(
            state={name: torch.tensor(value).to(like[name]) for name, value in found["state"].items()},
            previous_entropy=torch.tensor(found["previous_entropy"]),
            initial_entropy=torch.tensor(found["initial_entropy"]),
        )
        self._ups.extend(found["ups"])


def _heard(rollouts: Rollouts, name: str) -> Rollouts:
    """The rollouts with the trainer's own log-prob where the sampler gave none, which then counts as 1."""
    return rollouts.replace(
        engine_logp=torch.where(rollouts.engine_logp.isnan(), rollouts.scored(name), rollouts.engine_logp)
    )
