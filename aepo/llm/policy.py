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
from aepo.llm.microbatch import Plan, pack, plan
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
        before: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """logp and entropy (R, T), float32 or wider; at another temperature than 1 the log-prob there and None.

        Args:
            input_ids: (R, prompt + T), left-padded prompts and right-padded responses.
            attention_mask: (R, prompt + T), or None if no prompt is padded.
            position_ids: (R, prompt + T).
            response: (R, T), the last T columns of input_ids.
            mask: (R, T), 0 on padding, where both are 0.
            temperature: > 0.
            before: as `microbatch.pack` returns it, for rows packed into one; input_ids and position_ids are then
                (1, N) and attention_mask is None.
        """
        if before is not None:
            return self._packed(input_ids, position_ids, response, mask, temperature, before)
        out = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)
        # The token at column j is predicted at column j - 1.
        hidden = out.last_hidden_state[:, -response.shape[1] - 1 : -1]
        stats = self._head(hidden.flatten(0, 1), torch.where(mask != 0, response, IGNORED).flatten(), temperature)
        logp, entropy = (None if x is None else x.view(response.shape) for x in stats)
        return logp, entropy

    def _packed(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        response: Tensor,
        mask: Tensor,
        temperature: float,
        before: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        # transformers keeps the rows of a pack apart where their positions start again at 0, but only without a mask
        # and without a cache, and configs ask for a cache.
        out = self.model.base_model(
            input_ids=input_ids, attention_mask=None, position_ids=position_ids, use_cache=False
        )
        place = (mask != 0).nonzero(as_tuple=True)
        stats = self._head(out.last_hidden_state[0, before], response[place], temperature)
        logp, entropy = (None if x is None else x.new_zeros(mask.shape).index_put(place, x) for x in stats)
        return logp, entropy

    @torch.no_grad()
    def check_packing(self) -> None:
        """A model that does not keep packed rows apart would give wrong log-probs without a sign of it.

        Every rank must call it together where a forward pass needs all of them.

        Raises:
            ValueError: the second of two rows has other log-probs in a pack than alone, or than after another row.
        """
        device = next(self.model.parameters()).device
        # Two ids, which every vocabulary has.
        first, second = [0, 1, 1, 0, 1], [1, 0, 0, 1, 0]

        def logp(rows: list[list[int]], response: list[int]) -> Tensor:
            token = torch.tensor([[0] * len(response)] * (len(rows) - 1) + [response])
            mask = torch.tensor([[0.0]] * (len(rows) - 1) + [[1.0]]).expand(token.shape)
            ids, position, before = (x.to(device) for x in pack(rows, token, mask))
            return self(ids, None, position, token.to(device), mask.to(device), 1.0, before)[0][-1]

        alone = logp([second[:1]], second[1:])
        in_pack = logp([first, second[:1]], second[1:])
        after_another = logp([second, second[:1]], second[1:])
        # What the second row's log-probs would be if it saw the first: rounding is measured against this.
        effect = (logp([first + second[:1]], second[1:]) - alone).abs().max()
        # Models take norms and softmax in float32 even where their weights are wider.
        eps = max(torch.finfo(dtype).eps for dtype in {torch.float32, *(p.dtype for p in self.model.parameters())})
        rounding = 2 * eps**0.5
        # Two packs of the same shapes round alike, so here a coarse dtype is no excuse.
        seen = (in_pack - after_another).abs().max()
        if not ((in_pack - alone).abs().max() <= rounding * effect and seen <= min(rounding, 1e-3) * effect):
            raise ValueError(
                f"model {type(self.model).__name__} does not keep packed sequences apart; set train.packing=false"
            )

    def _head(self, hidden: Tensor, label: Tensor, temperature: float) -> tuple[Tensor, Tensor | None]:
        head = self.model.get_output_embeddings()
        found = linear_token_stats(
            hidden,
            head.weight,
            label,
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
        mine, _ = self._head(hidden[0], label, 1.0)
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

    def export(self, folder: Path) -> None:
        """The model in transformers' format, written by rank 0; called by all ranks together."""
        first = ranks.rank() == 0
        whole: dict[str, Tensor] = {}
        for name, value in self.weights():
            # Under ZeRO 3 a value lasts until the next one.
            if first:
                whole[name] = value.cpu().clone() if self.collective else value
        if first:
            self.module.model.save_pretrained(folder, state_dict=whole)

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
    """Prompts, micro-batches and a stepper: everything that the training step asks of the model.

    Raises:
        ValueError: an empty prompt, which leaves nothing to predict the first token from; or a model that cannot pack.
    """

    def __init__(
        self,
        stepper: Stepper,
        prompts: Sequence[Sequence[int]],
        *,
        pad_id: int,
        token_budget: int,
        lr: float,
        warmup_steps: int = 0,
        packing: bool = False,
    ) -> None:
        empty = [i for i, prompt in enumerate(prompts) if not len(prompt)]
        if empty:
            raise ValueError(f"prompts must not be empty, got no token in prompt {empty[0]}")
        self.stepper = stepper
        self.prompts = prompts
        self.pad_id = pad_id
        self.token_budget = token_budget
        self.lr = lr
        self.warmup_steps = warmup_steps
        self.packing = packing
        """Whether the rows of a micro-batch are computed as one, without padding."""
        self.updates = 0
        """Optimizer steps taken; part of checkpoints."""
        self.device = next(stepper.module.parameters()).device
        if packing:
            stepper.module.check_packing()

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
            (micros,) = self.micro_batches(rollouts.prompt, rollouts.mask, world=1)
        # Asked before the first pass: a rank that asks after its last one meets the others in the middle of theirs.
        missing = int(ranks.largest(len(micros))) - len(micros) if self.stepper.collective else 0
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
            # Ranks have sampled different lengths and so have different numbers of passes.
            for _ in range(missing):
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

    def micro_batches(self, prompt: Tensor, mask: Tensor, *, world: int) -> Plan:
        """The plan for rows with these prompts (R,) and masks (R, T), within this policy's budget of tokens."""
        return plan(self.lengths(prompt, mask), world=world, token_budget=self.token_budget, packed=self.packing)

    def _forward(
        self, module: Any, prompt: Tensor, token: Tensor, mask: Tensor, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor | None]:
        prompts = [self.prompts[p] for p in prompt.tolist()]
        if self.packing:
            input_ids, position, before = (x.to(self.device) for x in pack(prompts, token, mask))
            response = (token.to(self.device), mask.to(self.device))
            return module(input_ids, None, position, *response, temperature, before)
        input_ids, attention, position = left_padded(prompts, self.pad_id)
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
