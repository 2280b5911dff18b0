"""The trained model: scoring, gradients and optimizer steps. The only file that knows DeepSpeed.

Letters as in `aepo.batch`; V the vocabulary.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aepo.batch import Batch, Rollouts
from aepo.llm import ranks
from aepo.llm.engine import left_padded
from aepo.llm.fused import linear_token_stats
from aepo.llm.microbatch import plan
from aepo.llm.settings import TrainSettings

IGNORED = -100
"""Label of the padding after a response."""


class ResponseStats(nn.Module):
    """A causal LM that answers with the log-prob and entropy of given response tokens and never makes logits.

    The head runs inside this forward, which is what lets a sharded head be gathered by whoever shards it.

    Raises:
        ValueError: a model that makes its logits in another way than hidden states times the head's weight.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._check_head()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        response: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor | None]:
        """logp and entropy (R, T), float32 or wider; at another temperature than 1 the log-prob there and None.

        Args:
            input_ids: (R, prompt + T), left-padded prompts and right-padded responses.
            attention_mask: (R, prompt + T), or None if no prompt is padded.
            position_ids: (R, prompt + T).
            response: (R, T), the last T columns of input_ids.
            mask: (R, T), 0 on padding, where both are 0.
            temperature: > 0.
        """
        out = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
        # The token at column j is predicted at column j - 1.
        hidden = out.last_hidden_state[:, -response.shape[1] - 1 : -1]
        stats = self._head(hidden, torch.where(mask != 0, response, IGNORED), temperature)
        logp, entropy = (None if x is None else x.view(response.shape) for x in stats)
        return logp, entropy

    def _head(self, hidden: Tensor, label: Tensor, temperature: float) -> tuple[Tensor, Tensor | None]:
        head = self.model.get_output_embeddings()
        found = linear_token_stats(
            hidden.flatten(0, 1),
            head.weight,
            label.flatten(),
            temperature,
            need=("logp", "entropy") if temperature == 1 else ("logp_t",),
            bias=getattr(head, "bias", None),
            softcap=getattr(self.model.config, "final_logit_softcapping", None),
            ignore_index=IGNORED,
        )
        return (found.logp, found.entropy) if temperature == 1 else (found.logp_t, None)

    @torch.no_grad()
    def _check_head(self) -> None:
        """Some models scale their logits; a log-prob that leaves that out would be wrong without a sign of it."""
        device = next(self.model.parameters()).device
        ids = torch.arange(2, device=device).unsqueeze(0)
        said = self.model(input_ids=ids).logits.float().log_softmax(-1)[0]
        label = said.argmax(-1)
        hidden = self.model.base_model(input_ids=ids).last_hidden_state
        mine, _ = self._head(hidden, label.unsqueeze(0), 1.0)
        # The model rounds its logits to its own precision; a scale of 1.1 is far beyond that.
        rounding = 8 * torch.finfo(hidden.dtype).eps * said.abs().max()
        if not (mine - said.gather(-1, label.unsqueeze(-1)).squeeze(-1)).abs().max() <= rounding + 1e-5:
            raise ValueError(
                f"model {type(self.model).__name__} does not make its logits as hidden states times the head's weight; "
                "its log-probs cannot be had without logits"
            )


class Stepper(Protocol):
    """Gradients to weights: plain torch or DeepSpeed."""

    module: nn.Module
    """The ResponseStats that is trained."""
    collective: bool
    """Whether every forward pass of `module` needs all ranks, which then must run equally many."""

    def __call__(self, *args: Any) -> tuple[Tensor, Tensor]: ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Name and whole value of every weight of the model, valid until the next; all ranks go through it together."""
        ...

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate this rank's gradient of the global loss; `last` ends the accumulation."""
        ...

    def step(self, lr: float) -> float:
        """Clip, step, clear the gradients; the norm of the global gradient before clipping."""
        ...


class TorchStepper:
    """One process, any dtype, any torch optimizer."""

    collective = False

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, *, max_grad_norm: float) -> None:
        self.module = module
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm

    def __call__(self, *args: Any) -> tuple[Tensor, Tensor]:
        return self.module(*args)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, p.detach()) for name, p in self.module.model.named_parameters())

    def backward(self, loss: Tensor, *, last: bool) -> None:
        loss.backward()

    def step(self, lr: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(norm)


class DeepSpeedStepper:
    """ZeRO 0 to 3 over the ranks of the `deepspeed` launcher."""

    # Weights gathered at once when they are handed on, in numbers: a layer of a 7B model.
    GATHERED = 250_000_000

    def __init__(self, module: nn.Module, train: TrainSettings) -> None:
        import deepspeed

        init_distributed()
        self.world = torch.distributed.get_world_size()
        self.zero_stage = train.zero_stage
        optimizer = torch.optim.AdamW(
            module.parameters(), lr=train.lr, betas=train.betas, weight_decay=train.weight_decay
        )
        self.engine, *_ = deepspeed.initialize(
            model=module,
            optimizer=optimizer,
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": train.max_grad_norm,
                "zero_optimization": {"stage": train.zero_stage},
                "zero_allow_untested_optimizer": True,
                "steps_per_print": 10**9,
            },
        )
        self.module = self.engine.module
        self.collective = train.zero_stage == 3
        if self.collective:
            # The head's own forward never runs, so ResponseStats must ask for its weight.
            head = self.module.model.get_output_embeddings()
            for parameter in head.parameters(recurse=False):
                deepspeed.zero.register_external_parameter(self.module, parameter)

    def __call__(self, *args: Any) -> tuple[Tensor, Tensor]:
        return self.engine(*args)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        block: list[tuple[str, nn.Parameter]] = []
        named = list(self.module.model.named_parameters())
        for i, (name, parameter) in enumerate(named):
            block.append((name, parameter))
            full = sum(_size(p) for _, p in block) >= self.GATHERED
            if not (full or i + 1 == len(named)):
                continue
            with deepspeed.zero.GatheredParameters([p for _, p in block], enabled=self.collective):
                yield from ((name, p.detach()) for name, p in block)
            block = []

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages gradients over ranks; our weights already divide by the global batch, so ranks must add.
        self.engine.backward(loss * self.world)

    def step(self, lr: float) -> float:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        # Under ZeRO 0 DeepSpeed clips and forgets the norm; the gradients are whole and reduced by then.
        norm = None
        if self.zero_stage == 0:
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
        self.engine.step()
        return float(self.engine.get_global_grad_norm() if norm is None else norm)

    def save(self, folder: Path) -> None:
        """Weights and optimizer of every rank under `folder`; called by all ranks together."""
        self.engine.save_checkpoint(str(folder), tag="state")

    def load(self, folder: Path) -> None:
        """What `save` wrote; called by all ranks together.

        Raises:
            FileNotFoundError: there is nothing to load.
        """
        loaded, _ = self.engine.load_checkpoint(str(folder), tag="state")
        if loaded is None:
            raise FileNotFoundError(f"{folder}: no DeepSpeed state to resume from")


def init_distributed() -> None:
    """Join the launcher's process group (alone, a group of one); safe to call again."""
    import deepspeed

    if torch.distributed.is_initialized():
        return
    _quiet_shared_memory_op(deepspeed)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    deepspeed.init_distributed(
        dist_backend="nccl" if torch.cuda.is_available() else "gloo", auto_mpi_discovery=False, verbose=False
    )


def _quiet_shared_memory_op(deepspeed: Any) -> None:
    # On CPU DeepSpeed compiles a shared-memory collective for over a minute at the first start, hangs on a lock that a
    # killed build left, and leaks /dev/shm; gloo serves as well. The switch is private, hence the guard.
    compatible = getattr(deepspeed.ops, "__compatible_ops__", None)
    if isinstance(compatible, dict) and not torch.cuda.is_available():
        compatible["deepspeed_shm_comm"] = False


class Policy:
    """Prompts, micro-batches and a stepper: everything that the training step asks of the model."""

    def __init__(
        self,
        stepper: Stepper,
        prompts: Sequence[Sequence[int]],
        *,
        pad_id: int,
        token_budget: int,
        lr: float,
        warmup_steps: int = 0,
    ) -> None:
        self.stepper = stepper
        self.prompts = prompts
        self.pad_id = pad_id
        self.token_budget = token_budget
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.updates = 0
        """Optimizer steps taken; part of checkpoints."""
        self.device = next(stepper.module.parameters()).device

    @property
    def model(self) -> nn.Module:
        """The causal LM itself."""
        return self.stepper.module.model

    @property
    def parameter_count(self) -> int:
        """Numbers in all weights of the model."""
        return sum(_size(p) for p in self.model.parameters())

    def score(self, rollouts: Rollouts) -> Rollouts:
        """The rollouts with old_logp and entropy of the current weights, on the CPU."""
        old_logp, entropy = self._stats(rollouts, 1.0)
        return rollouts.replace(old_logp=old_logp, entropy=entropy)

    def tempered_score(self, rollouts: Rollouts, temperature: float) -> Rollouts:
        """The rollouts with logp_t, their log-probs at the temperature, on the CPU."""
        return rollouts.replace(logp_t=self._stats(rollouts, temperature)[0])

    def _stats(self, rollouts: Rollouts, temperature: float) -> list[Tensor]:
        """Log-prob at the temperature and, at 1, entropy: each (R, T), 0 on padding."""
        tokens = rollouts.token.shape
        found = [torch.zeros(tokens) for _ in range(2 if temperature == 1 else 1)]
        micros: list[list[int]] = []
        if rollouts.token.numel():
            lengths = self.lengths(rollouts.prompt, rollouts.mask)
            (micros,) = plan(lengths, world=1, token_budget=self.token_budget)
        with torch.no_grad():
            for rows in micros:
                index = torch.tensor(rows)
                cut = max(1, int(rollouts.mask[index].sum(-1).max()))
                stats = self._forward(
                    self.stepper.module,
                    rollouts.prompt[index],
                    rollouts.token[index, :cut],
                    rollouts.mask[index, :cut],
                    temperature,
                )
                place = (index.unsqueeze(-1), torch.arange(cut))
                found = [
                    kept.to(new.dtype).index_put(place, new.cpu())
                    for kept, new in zip(found, stats, strict=False)
                    if new is not None
                ]
            if self.stepper.collective:
                # Ranks have sampled different lengths and so have different numbers of passes.
                for _ in range(ranks.largest(len(micros)) - len(micros)):
                    one = torch.zeros(1, 1)
                    self._forward(self.stepper.module, one[0].long(), one.long(), one, temperature)
        return found

    def __call__(self, micro: Batch) -> tuple[Tensor, Tensor]:
        """logp and entropy (R, T) of a micro-batch's tokens, on the model's device, with gradient."""
        return self._forward(self.stepper, micro.prompt, micro.token, micro.mask)

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate the gradient of one micro-batch; `last` marks the last one before `step`."""
        self.stepper.backward(loss, last=last)

    def step(self) -> float:
        """One optimizer step at the scheduled learning rate; returns the global gradient's norm before clipping."""
        warm = min(1.0, (self.updates + 1) / (self.warmup_steps + 1))
        self.updates += 1
        return self.stepper.step(self.lr * warm)

    def lengths(self, prompt: Tensor, mask: Tensor) -> list[int]:
        """Tokens of each row, prompt and response."""
        response = mask.sum(-1).long().tolist()
        return [len(self.prompts[p]) + n for p, n in zip(prompt.tolist(), response, strict=True)]

    def _forward(
        self, module: Any, prompt: Tensor, token: Tensor, mask: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        input_ids, attention, position = left_padded([self.prompts[p] for p in prompt.tolist()], self.pad_id)
        ragged = bool((attention == 0).any())
        length = token.shape[1]
        # Padding after a response needs no mask: causal attention keeps it from every token that counts.
        steps = torch.arange(1, length + 1)
        input_ids = torch.cat([input_ids, token], 1).to(self.device)
        position = torch.cat([position, position[:, -1:] + steps], 1).to(self.device)
        attention = torch.cat([attention, torch.ones_like(token)], 1).to(self.device)
        return module(
            input_ids,
            attention if ragged else None,
            position,
            token.to(self.device),
            mask.to(self.device),
            temperature,
        )


def _size(parameter: Tensor) -> int:
    """Numbers of a weight, also where ZeRO 3 has parted it."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def local_rank() -> int:
    """This process's index on its node, from the launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))
