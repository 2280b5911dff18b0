"""Authority: how far the two parts of a step move the entropy, and which entropies a method can hold with its limits.

A step has a main part, what the method would do without its controller (GRPO), and a second part, what the controller
adds: AEPO's samples at another temperature, or what a reweighting changes about the advantages. Each moves H; a
controller holds H only where its part can outweigh the other. Letters as in `aepo.batch`; entropies are in nats.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aepo.batch import Batch, Rollouts
from aepo.categorical import entropy_effect
from aepo.controller import Control
from aepo.method import Method


def rise(rollouts: Rollouts) -> Tensor:
    """By how much H of a token's state rises, to first order, per unit step along the token's score e_a - pi.

    It is E_{b ~ pi}[S_b] - S_a with S = pi (ln pi + H): `delta_entropy` of the theory, for one action.

    Args:
        rollouts: scored, with `mean_effect`.

    Returns:
        (..., R, T), in nats; 0 on padding.

    Raises:
        ValueError: the rollouts have no `mean_effect`.
    """
    own = entropy_effect(rollouts.scored("old_logp"), rollouts.scored("entropy"))
    return torch.where(rollouts.mask != 0, rollouts.scored("mean_effect") - own, 0.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drift:
    """By how much each part of one update moves H, to first order, in nats per unit of the learning rate."""

    main: Tensor
    """(...): by the method without its controller."""
    second: Tensor
    """(...): by what the controller adds."""
    noise: Tensor
    """(...): standard deviation of the sum of both over the luck of the samples, taken from row to row."""


def measurable(method: Method) -> bool:
    """Whether `drift` knows all that moves H: a controller that acts through credits, under a surrogate whose gradient
    at the sampling policy is credit x score. An entropy bonus, a clip by covariance and the like are not known so."""
    return method.controlled and getattr(method.surrogate, "plain_on_policy", False) and not method.has_bonus


def drift(method: Method, batch: Batch, main: Rollouts, second: Rollouts | None = None) -> Drift:
    """The first-order change of H by a batch's update, its two parts apart (the covariance form on visited tokens).

    H is the mean over prompts and places of the response. Each place of a prompt is taken as a state with logits of its
    own, which the prompt's rows share: exact on a bandit, where it is `aepo.theory.delta_entropy`. In a network states
    share weights, so the sum is a measure whose unit the learning rate does not fix; the ratio of its parts is one.

    Args:
        method: one that is `measurable`.
        batch: what `assemble` made of the rollouts.
        main, second: with `mean_effect`.

    Raises:
        ValueError: a method that is not measurable, or rollouts without `mean_effect`.
    """
    if not measurable(method):
        raise ValueError(f"the parts of method {method.name!r} cannot be told apart by its credits")
    blocks = [main] if second is None else [main, second]
    length = batch.token.shape[-1]
    moves = torch.cat([_padded(rise(block) * _share_of_state(block, main), length) for block in blocks], -2)
    rows = main.token.shape[-2]
    moved = batch.on(batch.weight * batch.advantage * moves, 0.0)
    total_main = moved[..., :rows, :].sum((-2, -1))
    by_second = moved[..., rows:, :].sum((-2, -1))
    by_main = total_main
    if method.shape is not None and method.advantage is not None:
        credit = method.advantage(main)
        credit = _padded(credit if credit.dim() == main.token.dim() else credit.unsqueeze(-1) * main.mask, length)
        unshaped = batch.weight[..., :rows, :] * credit * moves[..., :rows, :]
        by_main = torch.where(batch.mask[..., :rows, :] != 0, unshaped, 0.0).sum((-2, -1))
        by_second = by_second + total_main - by_main
    return Drift(main=by_main, second=by_second, noise=_spread(moved.sum(-1)))


def _share_of_state(rollouts: Rollouts, main: Rollouts) -> Tensor:
    """(..., R, 1): what the state of each of a row's tokens counts in H."""
    prompts = main.token.shape[-2] // main.group_size
    return 1.0 / (prompts * rollouts.mask.sum(-1, keepdim=True).clamp(min=1))


def _padded(value: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(value, (0, length - value.shape[-1]))


def _spread(moved: Tensor) -> Tensor:
    """(...): standard deviation of the sum of rows (..., R) that are drawn independently."""
    rows = moved.shape[-1]
    return moved.std(-1, correction=1 if rows > 1 else 0) * math.sqrt(rows)


def authority(found: Drift, control: Control) -> Tensor:
    """Minus the second part over the main one: above 1 the controller moves H its way, below 1 it is overruled.

    Returns:
        (...); nan where the main part goes towards the target by itself, and where neither moves H.
    """
    against = torch.where(control.raise_entropy, found.main < 0, found.main > 0)
    return torch.where(against, -found.second / found.main, torch.nan)


def expected_credit(method: Method, success: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """A right and a wrong response's mean advantage, over the luck of the other responses of its group.

    Args:
        method: one whose advantage depends on the group's rewards alone.
        success: (...), the probability p of a right response.
        group_size: G >= 2.

    Returns:
        Two tensors (...): p x first + (1 - p) x second = 0 for an advantage that sums to 0 over the group.

    >>> from aepo.zoo import build
    >>> [x.item() for x in expected_credit(build("grpo", std="none"), torch.tensor(0.5), 8)]  # (1 - p)(G - 1) / G
    [0.4375, -0.4375]
    """
    if method.advantage is None:
        return torch.zeros_like(success), torch.zeros_like(success)
    # Every group there can be: k of its G responses are right, the right ones first.
    counts = torch.arange(group_size + 1)
    reward = (torch.arange(group_size) < counts.unsqueeze(-1)).to(success.dtype).flatten()
    token = torch.zeros(len(reward), 1, dtype=torch.int64)
    rollouts = Rollouts(
        prompt=(torch.arange(len(reward)) // group_size),
        token=token,
        mask=torch.ones_like(token, dtype=success.dtype),
        reward=reward,
        group_size=group_size,
        full=True,
        old_logp=torch.zeros_like(token, dtype=success.dtype),
        entropy=torch.zeros_like(token, dtype=success.dtype),
    )
    advantage = method.advantage(rollouts).reshape(group_size + 1, group_size)
    others = torch.arange(group_size, dtype=success.dtype)
    p = success.unsqueeze(-1)
    log_choose = torch.lgamma(torch.tensor(float(group_size), dtype=success.dtype)) - (
        torch.lgamma(others + 1) + torch.lgamma(group_size - others)
    )
    chance = (log_choose + torch.xlogy(others, p) + torch.xlogy(group_size - 1 - others, 1 - p)).exp()
    right, wrong = advantage[1:, 0], advantage[:-1, -1]
    return (chance * right).sum(-1), (chance * wrong).sum(-1)
