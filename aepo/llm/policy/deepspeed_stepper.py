"""Gradients to weights by DeepSpeed: ZeRO 0 to 3 over the ranks of its launcher. Only this file knows its engine."""

import math
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import parameter_size
from aepo.llm.processes import ranks
from aepo.llm.processes.ranks import local_rank
from aepo.llm.settings import SettingsError, TrainSettings


class DeepSpeedStepper:
    """ZeRO 0 to 3 over the ranks of the `deepspeed` launcher, with torch's AdamW.

    In bfloat16 the weights that compute are rounded from float32 ones that AdamW keeps, and gradients of micro-batches
    are added up in float32.

    Raises:
        SettingsError: layers that cannot be checkpointed, or a torch or DeepSpeed that cannot do what is asked.
    """

    # Weights gathered at once when they are handed on, in numbers: a layer of a 7B model.
    GATHERED = 250_000_000

    def __init__(self, module: ResponseStats, train: TrainSettings) -> None:
        import deepspeed

        init_distributed()
        self.world = torch.distributed.get_world_size()
        self.zero_stage = train.zero_stage
        self.half = train.dtype == "bfloat16"
        self.offloads = train.offload_optimizer
        self.releases = train.release_buffers
        if train.gradient_checkpointing:
            try:
                module.checkpoint_layers()
            except ValueError as error:
                raise SettingsError(str(error)) from error
        # Every step brings its own rate; DeepSpeed's dry first step in bfloat16 is not to decay the weights.
        # `fused` is one pass over the weights instead of several: 0.1 s a step instead of 0.4 for 135 million on a CPU.
        optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=0.0,
            betas=train.betas,
            weight_decay=train.weight_decay,
            fused=has_fused_adamw("cpu" if self.offloads else next(module.parameters()).device),
        )
        self.engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=_config(train))
        self.module = self.engine.module
        if self.half and self.zero_stage == 0:
            self._widen_gradients()
        if self.releases and not (
            hasattr(self.engine.optimizer, "ipg_buckets")
            and hasattr(self.engine.optimizer, "grad_partitions_flat_buffer")
        ):
            raise SettingsError(
                f"train.release_buffers=true does not know where DeepSpeed {deepspeed.__version__} holds its gradients "
                "(tested: 0.19.8); set it to false"
            )
        self.collective = train.zero_stage == 3
        if self.collective:
            # The head's own forward never runs, so ResponseStats must ask for its weight.
            head = self.module.model.get_output_embeddings()
            for parameter in head.parameters(recurse=False):
                deepspeed.zero.register_external_parameter(self.module, parameter)

    def _widen_gradients(self) -> None:
        """Without ZeRO, DeepSpeed would add up gradients in bfloat16, and has counted a step that was none."""
        for parameter in self.module.parameters():
            if not hasattr(parameter, "grad_dtype"):
                raise SettingsError(
                    f"train.dtype=bfloat16 with train.zero_stage=0 needs torch 2.9 or newer, this is "
                    f"{torch.__version__}; set train.zero_stage=1"
                )
            parameter.grad_dtype = torch.float32
        self.engine.optimizer.optimizer.state.clear()

    def __call__(self, *args: Any) -> tuple[Tensor, Tensor]:
        return self.engine(*args)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        import deepspeed

        # A weight that is being gathered for a pass is passed over here, and stands in the way when others are parted.
        self.settle()
        block: list[tuple[str, nn.Parameter]] = []
        named = list(self.module.model.named_parameters())
        for i, (name, parameter) in enumerate(named):
            block.append((name, parameter))
            full = sum(parameter_size(p) for _, p in block) >= self.GATHERED
            if not (full or i + 1 == len(named)):
                continue
            with deepspeed.zero.GatheredParameters([p for _, p in block], enabled=self.collective):
                yield from ((name, p.detach()) for name, p in block)
            block = []

    @torch.no_grad()
    def start_masters(self, start: Callable[[str, Tensor], Tensor]) -> None:
        """Put the float32 weights that AdamW keeps where `start` says, which rounds to the weights that compute.

        All ranks call it together, each sets its own part.

        Args:
            start: name and whole bfloat16 weight -> float32 of its shape.

        Raises:
            RuntimeError: one that would change a weight.
        """
        named = dict(self.module.model.named_parameters())
        for name, whole in self.weights():
            master = start(name, whole)
            if not torch.equal(master.to(whole.dtype), whole):
                raise RuntimeError(f"{name}: the float32 weights do not round to those that compute")
            self._set_master(named[name], master)

    def _set_master(self, parameter: nn.Parameter, master: Tensor) -> None:
        """This rank's part of one weight's master."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        if self.zero_stage == 3:
            # Its own call for a whole value takes none whose numbers the ranks do not divide.
            part = parameter.ds_tensor.numel()
            padded = nn.functional.pad(master.flatten(), (0, part * self.world - master.numel()))
            safe_set_local_fp32_param(parameter, padded[part * ranks.rank() :][:part])
        elif self.zero_stage:
            safe_set_full_fp32_param(parameter, master)
        else:
            held = self.engine.optimizer
            for narrow, wide in zip(held.fp16_groups, held.fp32_groups, strict=True):
                for mine, its_master in zip(narrow, wide, strict=True):
                    if mine is parameter:
                        its_master.copy_(master)

    def masters(self) -> Iterator[tuple[str, Tensor]]:
        """Name and whole value of every float32 weight that AdamW keeps; all ranks go through it together."""
        from deepspeed.utils import safe_get_full_fp32_param

        if self.zero_stage:
            self.settle()
            for name, parameter in self.module.model.named_parameters():
                yield name, safe_get_full_fp32_param(parameter)
            return
        names = {id(p): name for name, p in self.module.model.named_parameters()}
        held = self.engine.optimizer
        for narrow, wide in zip(held.fp16_groups, held.fp32_groups, strict=True):
            yield from ((names[id(p)], master) for p, master in zip(narrow, wide, strict=True))

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)
        # DeepSpeed averages gradients over ranks; our weights already divide by the global batch, so ranks must add.
        self.engine.backward(loss * self.world)

    def step(self, lr: float) -> float:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        norm = None
        if self.zero_stage == 0 and not self.half:
            # Here DeepSpeed clips, forgets the norm and steps whatever it is; the gradients are whole and reduced.
            gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
            norm = float(nn.utils.get_total_norm(gradients))
            if not math.isfinite(norm):
                self.engine.zero_grad()
                return norm
        self.engine.step()
        norm = float(self.engine.get_global_grad_norm()) if norm is None else norm
        if not math.isfinite(norm) and self.offloads and self.zero_stage < 3:
            # DeepSpeed leaves such gradients in these sums, and would find them in every later step.
            sums = self.engine.optimizer.averaged_gradients
            sums.update(dict.fromkeys(sums))
        if self.engine.was_step_applied() != math.isfinite(norm):
            raise RuntimeError(
                f"DeepSpeed {'took' if self.engine.was_step_applied() else 'left out'} a step of {norm=}"
            )
        return norm

    def held(self) -> Iterator[Tensor]:
        return (getattr(p, "ds_tensor", p).detach() for p in self.module.model.parameters())

    def settle(self) -> None:
        """Part the weights that ZeRO 3 has gathered for a backward pass that does not come.

        By itself it would do so at the start of the next pass, while the rollout engine needs the memory before.
        """
        if self.collective:
            # The engine's own method of this name also collects garbage, which took 0.6 s a call on a CPU.
            self.engine.optimizer.empty_partition_cache()

    def release(self) -> None:
        """Give back ZeRO 3's shard of the gradients and its bucket, which it would hold from its start on."""
        if not self.releases:
            return
        for buffer in self._gradient_buffers():
            # Views stay views: DeepSpeed's own `offload_states` copies to the host, and gradients are void by now.
            buffer.untyped_storage().resize_(0)
        if torch.cuda.is_available():
            # What torch has cached, nobody else on the device can use.
            torch.cuda.empty_cache()

    def reclaim(self) -> None:
        if not self.releases:
            return
        for buffer in self._gradient_buffers():
            if buffer.untyped_storage().nbytes() == 0:
                buffer.untyped_storage().resize_(buffer.nbytes)
        if not self.offloads:
            # A weight without a gradient is to find 0.
            self.engine.optimizer.grad_partitions_flat_buffer.zero_()

    def _gradient_buffers(self) -> list[Tensor]:
        # With the optimizer in host memory the shard is there too, pinned, and in nobody's way.
        held = self.engine.optimizer
        shard = [] if self.offloads else [held.grad_partitions_flat_buffer]
        return shard + [bucket.buffer for bucket in held.ipg_buckets.values() if bucket.buffer is not None]

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

    def load(self, folder: Path, *, universal: bool = False) -> None:
        """What `save` wrote; called by all ranks together.

        Args:
            folder: as for `save`.
            universal: whether it holds DeepSpeed's universal form, which any number of ranks can load.

        Raises:
            FileNotFoundError: there is nothing to load.
        """
        # DeepSpeed asks its configuration at this point only, and the form is not known when the engine is built.
        config = self.engine._config
        config.load_universal_checkpoint = universal
        if self.engine.load_universal_checkpoint() != universal:
            raise RuntimeError("this version of DeepSpeed does not let universal checkpoints be chosen when loading")
        loaded, _ = self.engine.load_checkpoint(str(folder), tag="state")
        config.load_universal_checkpoint = False
        if loaded is None:
            raise FileNotFoundError(f"{folder}: no DeepSpeed state to resume from")


def _config(train: TrainSettings) -> dict[str, Any]:
    """DeepSpeed's, for the settings."""
    zero: dict[str, Any] = {"stage": train.zero_stage}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": train.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
    }
    if train.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
        # DeepSpeed's own AdamW for the host is compiled at the first start.
        config["zero_force_ds_cpu_optimizer"] = False
    if train.dtype == "bfloat16":
        config["bf16"] = {"enabled": True}
        if train.zero_stage:
            config["data_types"] = {"grad_accum_dtype": "fp32"}
        if train.zero_stage < 2:
            # One exchange per step, of sums that are float32; from stage 2 on there is one per micro-batch.
            config["communication_data_type"] = "fp32"
    return config


def has_fused_adamw(device: torch.device | str) -> bool:
    """Whether torch's AdamW has its fused form on a device, which it says at a step and in no other public way."""
    one = torch.zeros(1, device=device, requires_grad=True)
    one.grad = torch.zeros_like(one)
    try:
        torch.optim.AdamW([one], fused=True).step()
    except RuntimeError:
        return False
    return True


def init_distributed(patience_seconds: float = 1800.0) -> None:
    """Join the launcher's process group (alone, a group of one); safe to call again.

    Args:
        patience_seconds: how long a rank waits for another in an exchange. One that dies is noticed at once; this is
            for those that are late, such as with long responses.

    Raises:
        SettingsError: no launcher has said where ranks meet, or this rank cannot open the port.
    """
    import deepspeed

    if torch.distributed.is_initialized():
        return
    ranks.check_meeting_place()
    _quiet_shared_memory_op(deepspeed)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank())
    try:
        deepspeed.init_distributed(
            dist_backend="nccl" if torch.cuda.is_available() else "gloo",
            auto_mpi_discovery=False,
            verbose=False,
            timeout=timedelta(seconds=patience_seconds),
        )
    except torch.distributed.DistNetworkError as error:
        if (why := ranks.not_opened(error)) is None:
            raise
        raise SettingsError(why) from error


def _quiet_shared_memory_op(deepspeed: Any) -> None:
    # On CPU DeepSpeed compiles a shared-memory collective for over a minute at the first start, hangs on a lock that a
    # killed build left, and leaks /dev/shm; gloo serves as well. The switch is private, hence the guard.
    compatible = getattr(deepspeed.ops, "__compatible_ops__", None)
    if isinstance(compatible, dict) and not torch.cuda.is_available():
        compatible["deepspeed_shm_comm"] = False
