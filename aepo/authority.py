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

FEW_PROMPTS = 4
"""Prompts of a second branch below which their luck moves the entropy more than a controller does."""


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


def expected_credit(method: Method, success: Tensor, group_size: int, *, power: int = 1) -> tuple[Tensor, Tensor]:
    """A right and a wrong response's mean advantage, over the luck of the other responses of its group.

    Args:
        method: one whose advantage depends on the group's rewards alone.
        success: (...), the probability p of a right response.
        group_size: G >= 2.
        power: of the advantage that the mean is of; 2 for its mean square.

    Returns:
        Two tensors (...): p x first + (1 - p) x second = 0 for an advantage that sums to 0 over the group.

    >>> from aepo.zoo import build
    >>> half = torch.tensor(0.5, dtype=torch.float64)
    >>> [round(x.item(), 4) for x in expected_credit(build("grpo", std="none"), half, 8)]  # +- (1 - p)(G - 1) / G
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
    right, wrong = advantage[1:, 0] ** power, advantage[:-1, -1] ** power
    return (chance * right).sum(-1), (chance * wrong).sum(-1)


def sufficient_alpha(alpha: float, found: float) -> float:
    """The weight of the second part that balances the main one, where `alpha` has the authority `found`.

    The second part is proportional to alpha.

    >>> sufficient_alpha(1.0, 0.5)
    2.0
    """
    return alpha / found


def sufficient_temperature(temperature: float, found: float) -> float | None:
    """The temperature that balances the main part, where `temperature` has the authority `found`; None if none does.

    To first order the second part is proportional to 1 - 1/T (`aepo.theory.steering_coefficient`), which no T brings
    above 1.

    >>> [round(sufficient_temperature(t, 0.5), 3) for t in (1.25, 0.8)], sufficient_temperature(1.25, 0.1)
    ([1.667, 0.667], None)
    """
    wanted = (1 - 1 / temperature) / found
    return None if wanted >= 1 else 1 / (1 - wanted)


def at_the_limit(method: Method, *, up: bool, turns: int = 600) -> Control:
    """What the method's controller does in the end about a target that it never reaches: its limit.

    Args:
        method: any.
        up: whether the target lies above the entropy.
        turns: of the loop, enough for a control that grows by a few per cent a step.
    """
    zero = torch.zeros((), dtype=torch.float64)
    state = method.controller.initial(zero)
    target = zero + (1e3 if up else -1e3)
    control = None
    for _ in range(turns):
        state, control = method.controller.update(state, zero, target)
    assert control is not None
    return control


def predicted_authority(method: Method, success: float, *, group_size: int, prompts: int, up: bool = True) -> float:
    """The authority that a method with a second branch will have at its limit, before anything is sampled.

    One state whose right answers are equally likely and have the mass p: there the main part pulls mass towards one of
    them at the rate p A, A a right response's expected advantage, and the second part spreads it at alpha S (1 - 1/T),
    S the mass of right answers at temperature T, for which p stands. Above 1 every entropy below that of uniform right
    answers can be held; below 1 the entropy falls from there. The learning rate does not enter: it multiplies both.

    Args:
        method: with a second branch.
        success: p, in (0, 1).
        group_size: G.
        prompts: of a batch.
        up: the limit that raises the entropy, or the one that lowers it.

    Returns:
        Minus the second part over the main one; negative where both lower the entropy.

    Raises:
        ValueError: a method without a second branch, or a p outside (0, 1).
    """
    tempered = method.tempered
    if tempered is None:
        raise ValueError(f"method {method.name!r} has no second branch")
    if not 0 < success < 1:
        raise ValueError(f"success must be in (0, 1), got {success}")
    control = at_the_limit(method, up=up)
    of_right, _ = expected_credit(method, torch.tensor(success, dtype=torch.float64), group_size)
    pull, weight = success * float(of_right), tempered.alpha * success
    if tempered.strength is not None:
        weight *= float(tempered.strength(control))
    if tempered.normalizer == "positives":
        weight /= success
    if tempered.normalizer == "replace":
        cap = tempered.cap_up if up else tempered.cap_down
        right = success * tempered.prompt_count(prompts, control) * group_size
        weight = min(right if cap is None else min(cap, right), prompts * group_size) / (prompts * group_size)
        pull *= 1 - weight
    spread = weight * (1 - 1 / float(control.temperature))
    return spread / pull if pull else math.inf
