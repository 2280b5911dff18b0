"""One rank's part of a vocabulary that is split over processes: what the processes of two tests run."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from fused_cases import case, pulled, upstream
from strategies import assert_close

from aepo.llm.fused import linear_token_stats


def split_over(
    rank: int, world: int, path: str, options: dict[str, Any], bounds: list[int], dtype: torch.dtype, backend: str,
    close: dict[str, float], close_gradients: dict[str, float],
) -> None:  # fmt: skip
    """Each rank's part of the vocabulary against the whole; leaves a file when everything agrees."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}/join", rank=rank, world_size=world)
    one = case(**options)
    rounded = [x.detach().to(dtype) for x in one.leaves]
    exact = [x.double().requires_grad_() for x in rounded]
    whole = dataclasses.replace(one, hidden=exact[0], weight=exact[1], bias=exact[2])
    mine = slice(bounds[rank], bounds[rank + 1])
    hidden, weight, bias = (x.clone().requires_grad_() for x in (rounded[0], rounded[1][mine], rounded[2][mine]))
    stats = linear_token_stats(
        hidden, weight, one.labels, one.temperature, bias=bias, softcap=one.softcap, vocab_start=mine.start,
        group=torch.distributed.group.WORLD, backend=backend,
    )  # fmt: skip
    for a, b in zip(stats, whole.oracle(), strict=True):
        assert_close(a.double(), b, **close)
    ups = upstream(one)
    got = torch.autograd.grad(pulled(stats, [up.to(stats.logp.dtype) for up in ups]), [hidden, weight, bias])
    want = torch.autograd.grad(pulled(whole.oracle(), ups), exact)
    for a, b in zip(got, (want[0], want[1][mine], want[2][mine]), strict=True):
        assert_close(a.double(), b, **close_gradients)
    torch.distributed.destroy_process_group()
    Path(path, f"agrees_{rank}").touch()
