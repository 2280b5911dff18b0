"""The optimizer steps of one batch: mini-batches, micro-batches, what is left out, what was measured."""

import logging
import math
from dataclasses import dataclass

import torch

from aepo.batch import Batch, minibatches
from aepo.llm.policy.microbatch import trimmed
from aepo.llm.policy.policy import Policy
from aepo.llm.processes import ranks
from aepo.loss import policy_loss
from aepo.method import Method

log = logging.getLogger("aepo")

# Gradients that are not finite, one after the other, which are no accident of one batch any more.
FATAL_SKIPS = 3


@dataclass(frozen=True, kw_only=True)
class Update:
    """What the optimizer steps of one batch measured."""

    sums: dict[str, float]
    """The loss and the sums of `policy_loss`, over ranks and the mini-batches that were stepped on."""
    norms: list[float]
    """Of each gradient that was stepped on, before clipping."""
    skipped: int
    """Mini-batches left out for a gradient that was not finite."""
    lr: float
    """Learning rate of the last step."""
    changed: float
    """Share of the weights that compute which all steps together changed, over ranks."""


def update(policy: Policy, batch: Batch, method: Method, *, parts: int, step: int = 0) -> Update:
    """One optimizer step per mini-batch of the global batch; this rank runs its own rows.

    Rows that cannot move the policy are left out, exactly: their gradient is 0. A mini-batch whose gradient is not
    finite changes nothing and is counted.

    Args:
        policy: is updated.
        batch: the global batch, the same on every rank.
        method: whose objective.
        parts: number of mini-batches.
        step: for messages.

    Raises:
        FloatingPointError: three mini-batches in a row were left out, here or in the steps before.
    """
    rank, world = ranks.rank(), ranks.world_size()
    sums = {name: torch.zeros(()) for name in ("loss", "tokens", "clipped", "kl")}
    norms, skipped, lr = [], 0, policy.learning_rate
    before = policy.looked_at()
    for number, part in enumerate(minibatches(batch, parts)):
        part = part.rows(part.live.nonzero().squeeze(-1))
        if not len(part.prompt):
            continue
        mine: dict[str, torch.Tensor] = {}
        plan = policy.plan(part.prompt, part.mask, world=world)
        micros = plan.micros[rank]
        for i, rows in enumerate(micros):
            micro = trimmed(part, rows)
            logp, entropy = policy(micro, shared=plan.shared)
            micro = micro.to(logp.device)
            loss, added = policy_loss(logp, method.bonus(logp, entropy), micro, method.surrogate, token_entropy=entropy)
            policy.backward(loss, last=i + 1 == len(micros))
            for name, value in {"loss": loss.detach(), **added}.items():
                mine[name] = mine.get(name, 0.0) + value / parts
        lr = policy.learning_rate
        norm = policy.step()
        if math.isfinite(norm):
            norms.append(norm)
            sums |= {name: value.cpu() + sums.get(name, 0.0) for name, value in mine.items()}
        else:
            skipped += 1
            _left_out(policy, norm, mine["loss"], place=f"step {step}, mini-batch {number + 1} of {parts}")
    changes = {"changed": (policy.looked_at() != before).sum(), "looked_at": torch.tensor(len(before))}
    found = ranks.total(sums | changes)
    changed = found.pop("changed") / found.pop("looked_at")
    return Update(sums=found, norms=norms, skipped=skipped, lr=lr, changed=changed)


def _left_out(policy: Policy, norm: float, loss: torch.Tensor, *, place: str) -> None:
    """Tell of a gradient that was not finite, and on which ranks the loss was not; called by all ranks together."""
    broken = not bool(loss.isfinite())
    mine = {str(r): torch.tensor(float(broken and r == ranks.rank())) for r in range(ranks.world_size())}
    bad = [r for r, count in ranks.total(mine).items() if count]
    whose = f"the loss is not finite on rank {', '.join(bad)}" if bad else "the loss is finite on every rank"
    problem = f"{place}: the gradient's norm is {norm}, {whose}"
    if policy.skipped_in_a_row >= FATAL_SKIPS:
        raise FloatingPointError(
            f"{problem}; neither were those of the {policy.skipped_in_a_row - 1} mini-batches before. None of them is "
            "in the weights; find what their samples have in common or lower train.lr, then go on with --resume"
        )
    log.warning("%s; left out, %d in a row, %d are fatal", problem, policy.skipped_in_a_row, FATAL_SKIPS)
