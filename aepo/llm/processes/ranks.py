"""What ranks tell each other: rollouts are gathered, so that every rank assembles the same global batch."""

import dataclasses
import logging
import os
import re
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from aepo.batch import Rollouts
from aepo.llm.processes.ports import free_port
from aepo.llm.settings import SettingsError

log = logging.getLogger("aepo")

T = TypeVar("T")


def rank() -> int:
    """This process's rank; 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        dist.barrier()


def share(items: Sequence[T], *, rank: int, world: int) -> Sequence[T]:
    """This rank's contiguous part; shares put together in rank order are `items`, and differ by one item at most.

    >>> [list(share(range(5), rank=r, world=2)) for r in range(2)]
    [[0, 1, 2], [3, 4]]
    """
    base, extra = divmod(len(items), world)
    start = rank * base + min(rank, extra)
    return items[start : start + base + (rank < extra)]


def gather(rollouts: Rollouts) -> Rollouts:
    """The global rollouts: every rank's rows in rank order, padded to the longest, on the CPU of every rank."""
    if world_size() == 1:
        return rollouts
    fields = {
        f.name: value for f in dataclasses.fields(rollouts) if isinstance(value := getattr(rollouts, f.name), Tensor)
    }
    return rollouts.replace(**{name: _gather_rows(value) for name, value in fields.items()})


def own_rows(rollouts: Rollouts) -> Rollouts:
    """This rank's contiguous part of global rollouts; `gather` puts the parts together again."""
    index = torch.tensor(list(share(range(len(rollouts.prompt)), rank=rank(), world=world_size())), dtype=torch.int64)
    fields = {
        f.name: value[index]
        for f in dataclasses.fields(rollouts)
        if isinstance(value := getattr(rollouts, f.name), Tensor)
    }
    # A part need not hold whole groups, and nothing that is done with it asks for them.
    return dataclasses.replace(rollouts, **fields, group_size=1)


def _gather_rows(value: Tensor) -> Tensor:
    """Concatenate along rows tensors (R, ...) whose sizes differ from rank to rank."""
    device = _device()
    shape = torch.tensor(value.shape, device=device)
    shapes = [torch.empty_like(shape) for _ in range(world_size())]
    dist.all_gather(shapes, shape)
    largest = torch.stack(shapes).amax(0).tolist()
    padded = torch.zeros(largest, dtype=value.dtype, device=device)
    padded[tuple(slice(n) for n in value.shape)] = value.to(device)
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(s[0])] for part, s in zip(parts, shapes, strict=True)]).cpu()


def _device() -> torch.device:
    # NCCL moves device memory only.
    return torch.device("cuda") if dist.is_initialized() and dist.get_backend() == "nccl" else torch.device("cpu")


def largest(value: float) -> float:
    """The largest of the ranks' numbers; nan if one is nan."""
    if world_size() == 1:
        return value
    # Taken together rather than reduced, since backends do not agree on the largest of nan and a number.
    mine = torch.tensor([value], dtype=torch.float64, device=_device())
    every = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(every, mine)
    return float(torch.cat(every).max())


def anywhere(flag: bool) -> bool:
    """Whether any rank says yes; called by all ranks together."""
    return largest(float(flag)) > 0


def differ(value: float) -> bool:
    """Whether the ranks have different numbers."""
    return largest(value) != -largest(-value)


def total(sums: dict[str, Tensor]) -> dict[str, float]:
    """Scalars added over ranks."""
    names = sorted(sums)
    values = torch.stack([sums[name].detach().double().to(_device()) for name in names])
    if world_size() > 1:
        dist.all_reduce(values)
    return dict(zip(names, values.tolist(), strict=True))


LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher tells each rank by its environment."""
PORT_CURE = (
    "choose another with deepspeed's --master_port, or with MASTER_PORT where no launcher sets it (aepo train finds a "
    "free one by itself)"
)


def be_alone() -> None:
    """Be a run of one rank, as a launcher would have it; what is started later must not take it for theirs."""
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))


def check_meeting_place() -> None:
    """Where ranks meet, as a launcher has said; without a launcher this process is the only rank.

    Raises:
        SettingsError: half of it was said, or what was said is no port.
    """
    if not any(os.environ.get(name) for name in LAUNCHED):
        be_alone()
        if (gpus := torch.cuda.device_count()) > 1:
            log.info("one rank, on the first of %d GPUs, as no launcher started it; aepo train uses all", gpus)
    if absent := [name for name in LAUNCHED if not os.environ.get(name)]:
        raise SettingsError(
            f"{', '.join(absent)} not set, and others of {', '.join(LAUNCHED)} are: set all, as a launcher does, or "
            "none for a run of one rank; aepo train does it by itself"
        )
    port = os.environ["MASTER_PORT"]
    if not (port.isdecimal() and int(port) < 2**16):
        raise SettingsError(f"MASTER_PORT={port}: no port, which is a number below {2**16}; {PORT_CURE}")


def not_opened(error: dist.DistNetworkError) -> str | None:
    """What to say where this rank could not open the port at which ranks meet; None for every other error.

    Args:
        error: of joining a process group. Ranks that wait for others get it too, and these may be lost.
    """
    found = re.search(r"server socket has failed to (?:listen|bind).*?message: (?P<why>[^)\n]*)", str(error), re.DOTALL)
    if found is None:
        return None
    port, why = os.environ.get("MASTER_PORT"), found["why"].strip().rstrip(".")
    return f"port {port}, where the ranks of this run are to meet, cannot be opened ({why}): {PORT_CURE}"


# What gloo and NCCL say of a process that is gone or does not answer; NCCL also reports misuse and CUDA's errors, which
# are none of a peer's.
_LOST = re.compile(
    r"gloo/transport/.*?(?P<gloo>Connection closed by peer|Connection reset by peer|Broken pipe|Socket closed"
    r"|Read error|Write error|Timed out waiting \d+ms for \w+ operation|Application timeout caused pair closure)"
    r"|(?P<nccl>ncclRemoteError|remote process exit\w*|Connection (?:closed|reset) by (?:remote )?peer"
    r"|NCCL communicator was aborted|collective operation timeout)",
    re.DOTALL | re.IGNORECASE,
)


def lost_peer(error: RuntimeError) -> str | None:
    """What a collective says of another rank that is gone or does not answer; None for every other error.

    Args:
        error: what `torch.distributed` or a library over it raised.
    """
    text = str(error)
    if isinstance(error, dist.DistNetworkError | dist.DistStoreError):
        # Only waiting for other ranks raises these.
        return text.splitlines()[0] if text else type(error).__name__
    found = _LOST.search(text)
    if found is None or (found["gloo"] is None and not isinstance(error, dist.DistBackendError)):
        return None
    return found["gloo"] or found["nccl"]


def local_rank() -> int:
    """This process's index on its node, from the launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def own_device() -> torch.device:
    """Where this process computes: its GPU, or the CPU where there is none."""
    return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
