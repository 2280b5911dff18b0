"""A method as a frozen value, and `assemble`, which turns its rollouts into the batch that the loss sees.

Letters as in `aepo.batch`. A method decides what to sample besides the T = 1 groups, what each token is credited with,
and which objective applies per token. No code asks for a method's name.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from aepo.advantage import group_normalized
from aepo.batch import Batch, Rollouts
from aepo.controller import Control, Controller, FixedTemperature, State
from aepo.loss import ClippedSurrogate, Surrogate
from aepo.normalizer import NORMALIZERS, Normalizer
from aepo.weights import Reduction, mean_weights, sequence_mean

Shape = Callable[[Tensor, Rollouts, Control, Tensor], Tensor]
"""(advantage (..., R, T), scored T = 1 rollouts, control, token weight (..., R, T)) -> a tensor (..., R, T)."""

# The authors' threshold on the group advantage that makes a response a "positive".
POSITIVE_ADVANTAGE = 0.05


def by_reward(rollouts: Rollouts) -> Tensor:
    """(..., R) bool: responses with a positive reward, the positives of Eq. 1; where several functions add up to the
    reward, those to which the one that says what is right gives a positive one."""
    return rollouts.reward > 0 if rollouts.right_by is None else rollouts.right_by > 0


def by_advantage(rollouts: Rollouts) -> Tensor:
    """(..., R) bool: the authors' positives, group advantage > 0.05; a group of all-correct responses has none. The
    advantage is of the reward that `by_reward` goes by."""
    return _group_advantage(rollouts) > POSITIVE_ADVANTAGE


def every_row(rollouts: Rollouts) -> Tensor:
    """(..., R) bool: all True; Eq. 3 keeps its negative samples."""
    return torch.ones_like(rollouts.reward, dtype=torch.bool)


def reward_credit(rollouts: Rollouts) -> Tensor:
    """(..., R): R(q, o) itself, REINFORCE's credit (Eq. 1)."""
    return rollouts.reward


def _group_advantage(rollouts: Rollouts) -> Tensor:
    decides = rollouts.reward if rollouts.right_by is None else rollouts.right_by
    return group_normalized(decides, group_size=rollouts.group_size, share=rollouts.share)


@dataclass(frozen=True, kw_only=True)
class Tempered:
    """The second branch: the term on samples drawn at the control's temperature (Eq. 1, Eq. 2, Eq. 3).

    Raises:
        ValueError: an unknown normalizer, alpha <= 0, alpha with `replace`, a cap < 1, prompt_fraction outside (0, 1].
    """

    alpha: float = 1.0
    """Weight of the term."""
    normalizer: Normalizer = "all"
    """How the term is averaged: see `aepo.normalizer`."""
    keep: Callable[[Rollouts], Tensor] = by_reward
    """Which samples take part, (..., R) bool."""
    credit: Callable[[Rollouts], Tensor] = reward_credit
    """Advantage of a sample, (..., R)."""
    strength: Callable[[Control], Tensor] | None = None
    """A factor on alpha from the control, (...) in [0, 1]; None for 1. Not with `replace`, where rows count whole."""
    cap_up: int | None = None
    """Most samples kept when entropy is to rise: the first so many; None for all."""
    cap_down: int | None = None
    """The same when entropy is to fall."""
    prompt_fraction: float = 0.25
    """Share of the batch's prompts, from its first on, that are sampled again (the authors' code: a quarter)."""
    widest_fraction: float | None = None
    """The largest share that the controller may ask for; None: it asks for none, and `prompt_fraction` stays."""

    def __post_init__(self) -> None:
        if self.normalizer not in NORMALIZERS:
            raise ValueError(f"normalizer must be one of {', '.join(NORMALIZERS)}, got {self.normalizer!r}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be > 0, got {self.alpha}")
        if self.normalizer == "replace" and self.alpha != 1:
            raise ValueError(
                f"alpha must be 1 with normalizer='replace', got {self.alpha}: "
                "there a kept sample takes exactly one row's weight; change cap_up and cap_down instead"
            )
        if self.normalizer == "replace" and self.strength is not None:
            raise ValueError(
                "strength must be None with normalizer='replace': a kept sample takes a whole row's weight"
            )
        for name in ("cap_up", "cap_down"):
            cap = getattr(self, name)
            if cap is not None and cap < 1:
                raise ValueError(f"{name} must be at least 1 or None, got {cap}")
        if not 0 < self.prompt_fraction <= 1:
            raise ValueError(f"prompt_fraction must be in (0, 1], got {self.prompt_fraction}")
        if self.widest_fraction is not None and not self.prompt_fraction <= self.widest_fraction <= 1:
            raise ValueError(
                f"widest_fraction must be in [prompt_fraction={self.prompt_fraction}, 1], got {self.widest_fraction}"
            )

    def prompt_count(self, prompts: int, control: Control | None = None) -> int:
        """How many of the batch's prompts are sampled again, at least one.

        Args:
            prompts: of the batch.
            control: whose share of them it is, where that has one; the largest of several runs. None: the method's.
        """
        chosen = None if control is None else control.prompt_fraction
        return max(1, round((self.prompt_fraction if chosen is None else float(chosen.max())) * prompts))

    def most_prompts(self, prompts: int) -> int:
        """How many of the batch's prompts may be sampled again whatever the control."""
        widest = self.prompt_fraction if self.widest_fraction is None else self.widest_fraction
        return max(1, round(widest * prompts))

    def asked(self, second: Rollouts, control: Control, *, prompts: int) -> Rollouts:
        """The tempered rows, those left out by weight 0 that are of more prompts than this run's control asks for.

        Runs side by side have one shape, so a run's rows are as many as the widest of its controls may ask for.

        Args:
            second: the tempered rows.
            control: this step's.
            prompts: of the batch.
        """
        if control.prompt_fraction is None:
            return second
        there = second.reward.shape[-1] // second.group_size
        asked = (control.prompt_fraction * prompts).round().clamp(1, there)
        if bool((asked == there).all()):
            return second
        row = torch.arange(second.reward.shape[-1], device=second.reward.device) // second.group_size
        chance = second.reward.new_full((), 1.0 / second.group_size) if second.share is None else second.share
        counts = (row < asked.unsqueeze(-1)) * (there / asked.unsqueeze(-1)).to(chance.dtype)
        return dataclasses.replace(second, share=chance * counts)

    def kept(self, rollouts: Rollouts, control: Control) -> Tensor:
        """(..., R) bool: the samples that take part after the caps, earlier rows first."""
        keep = self.keep(rollouts)
        rows = keep.shape[-1]
        up, down = (rows if cap is None else cap for cap in (self.cap_up, self.cap_down))
        limit = torch.where(control.raise_entropy, up, down).unsqueeze(-1)
        return keep & (keep.cumsum(-1) <= limit)


@dataclass(frozen=True, kw_only=True)
class Method:
    """What to sample and how to weight it.

    Raises:
        ValueError: an unknown entropy_bonus, or a method without any term.
    """

    name: str
    advantage: Callable[[Rollouts], Tensor] | None
    """Advantage of the T = 1 rows, (..., R) or (..., R, T); None if they only measure the entropy."""
    tempered: Tempered | None = None
    controller: Controller = field(default_factory=FixedTemperature)
    surrogate: Surrogate = field(default_factory=ClippedSurrogate)
    reduction: Reduction = sequence_mean
    """Row weights to token weights."""
    shape: Shape | None = None
    """What the control, the temperature or the entropy makes of the T = 1 rows' advantages."""
    mark: Shape | None = None
    """Which tokens of the T = 1 rows the surrogate treats apart, (..., R, T) bool."""
    main_temperature: Callable[[State], Tensor] | None = None
    """Temperature (...) that a step's main rollouts are sampled at, from the controller's state before it; None: 1.
    Whatever it is, old_logp, the entropy and the ratio are those at T = 1."""
    compares_entropy: bool = False
    """Whether the surrogate compares a token's entropy with that before the update."""
    needs_logp_t: bool = False
    """Whether `shape` looks at the log-prob at the control's temperature."""
    needs_mean_effect: bool = False
    """Whether `shape` looks at `Rollouts.mean_effect`."""
    entropy_coef: float | Callable[[Control], Tensor] = 0.0
    """lambda of the entropy bonus on the T = 1 rows, a number or one per run from the control; may be negative."""
    entropy_tokens: Callable[[Rollouts], Tensor] | None = None
    """Which tokens the bonus is the mean of, (..., R, T) bool; None for all."""
    entropy_bonus: Literal["exact", "sampled_nll"] = "exact"
    """What the bonus rewards: the exact entropy, or minus the sampled token's log-prob (the authors' code)."""
    label: str = ""
    """Settings that a reported number must name, such as the normalizer."""

    def __post_init__(self) -> None:
        if self.entropy_bonus not in ("exact", "sampled_nll"):
            raise ValueError(f"entropy_bonus must be 'exact' or 'sampled_nll', got {self.entropy_bonus!r}")
        if self.advantage is None and self.tempered is None:
            raise ValueError(f"method {self.name!r} has neither an advantage nor a tempered term: nothing to train on")

    @property
    def controlled(self) -> bool:
        """Whether the method does something else under another entropy."""
        return not isinstance(self.controller, FixedTemperature)

    def controls(self, count: int) -> Control:
        """(U,): the controls that the method's controller may decide on, each once.

        Where no cap asks whether the entropy is to go up, controls that differ in nothing else are one.

        Args:
            count: how many of a range, see `Controller.controls`.
        """
        found = self.controller.controls(count)
        asked = self.tempered is not None and self.tempered.cap_up != self.tempered.cap_down
        differ = [found.temperature, found.strength, found.prompt_fraction, found.raise_entropy if asked else None]
        rows = torch.stack([each.double() for each in differ if each is not None], -1).tolist()
        return found.chosen(torch.tensor([rows.index(row) == i for i, row in enumerate(rows)]))

    @property
    def has_bonus(self) -> bool:
        """Whether the loss has an entropy term at all."""
        return not isinstance(self.entropy_coef, float | int) or self.entropy_coef != 0

    def bonus(self, logp: Tensor, entropy: Tensor) -> Tensor | None:
        """What the loss's entropy weight multiplies, (..., R, T); None without an entropy term."""
        if not self.has_bonus:
            return None
        return entropy if self.entropy_bonus == "exact" else -logp


def assemble(method: Method, control: Control, main: Rollouts, second: Rollouts | None = None) -> Batch:
    """Advantages and weights over the global batch: all T = 1 rows, then all tempered rows (Eq. 1, Eq. 2, Eq. 3).

        J = sum over both blocks of weight x surrogate(A)  =  J_GRPO + alpha x (mean over the tempered samples)

    The weights of the two blocks are those of `aepo.normalizer`, the surrogate is the method's, and
    `aepo.loss.policy_loss` takes the sum. A row that takes no part stays, with weight 0, so that runs of different luck
    share one shape. With no sample kept, the tempered term is 0 and the rest is the method without it.

    Args:
        method: what to weight and how.
        control: this step's control.
        main: scored T = 1 rollouts of every rank.
        second: scored tempered rollouts of every rank; required exactly if the method has a tempered branch.

    Returns:
        The global batch, R = main rows + tempered rows, T the longer of the two.

    Raises:
        ValueError: rollouts not scored, a branch missing or not asked for, or `replace` on exact expectations.
    """
    tempered = method.tempered
    if (second is None) != (tempered is None):
        raise ValueError(
            f"method {method.name!r} {'needs' if second is None else 'has no'} tempered rollouts, "
            f"got {'none' if second is None else 'some'}"
        )
    blocks = _of_one_length([main] if second is None else [main, second])
    main = blocks[0]

    # 1. Weights of both blocks.
    if tempered is None:
        weight = mean_weights(main, method.reduction)
    else:
        asked = tempered.asked(blocks[1], control, prompts=main.reward.shape[-1] // main.group_size)
        kept = tempered.kept(asked, control)
        main_weight, second_weight = NORMALIZERS[tempered.normalizer](main, asked, kept, method.reduction)
        second_weight = second_weight * tempered.alpha
        if tempered.strength is not None:
            second_weight = second_weight * tempered.strength(control)[..., None, None]
        weight = torch.cat([main_weight, second_weight], -2)

    # 2. Advantages of both blocks.
    advantage = _per_token(method.advantage, main)
    credit = [] if tempered is None else [_per_token(tempered.credit, blocks[1])]

    # 3. What the method makes of the T = 1 rows' advantages, and which of their tokens it marks.
    on, main_weight = main.mask != 0, weight[..., : main.token.shape[-2], :]
    if method.shape is not None:
        advantage = torch.where(on, method.shape(advantage, main, control, main_weight), 0.0)
    mark = None if method.mark is None else method.mark(advantage, main, control, main_weight) & on

    # 4. Entropy weights: no bonus on a tempered row.
    if method.has_bonus:
        entropy_weight = _and_zeros(_entropy_weight(method, main, control), blocks[1:])
    else:
        entropy_weight = weight.new_zeros(()).expand_as(weight)

    # 5. One batch, the T = 1 rows first.
    return Batch(
        prompt=_joined([block.prompt for block in blocks], -1),
        token=_joined([block.token for block in blocks], -2),
        mask=_joined([block.mask for block in blocks], -2),
        old_logp=_joined([block.scored("old_logp") for block in blocks], -2),
        advantage=_joined([advantage, *credit], -2),
        weight=weight,
        entropy_weight=entropy_weight,
        group_size=main.group_size,
        full=all(block.full for block in blocks),
        mark=None if mark is None else _and_zeros(mark, blocks[1:]),
        old_entropy=_joined([block.scored("entropy") for block in blocks], -2) if method.compares_entropy else None,
    )


def _of_one_length(blocks: list[Rollouts]) -> list[Rollouts]:
    """The blocks, the shorter one padded to the tokens of the longer."""
    length = max(block.token.shape[-1] for block in blocks)
    return [_padded(block, length) if block.token.shape[-1] < length else block for block in blocks]


def _padded(rollouts: Rollouts, length: int) -> Rollouts:
    names = ("token", "mask", "old_logp", "entropy", "logp_t", "mean_effect", "engine_logp")
    values = {name: getattr(rollouts, name) for name in names}
    more = (0, length - rollouts.token.shape[-1])
    padded = {name: torch.nn.functional.pad(value, more) for name, value in values.items() if value is not None}
    return dataclasses.replace(rollouts, full=False, **padded)


def _per_token(credit: Callable[[Rollouts], Tensor] | None, rollouts: Rollouts) -> Tensor:
    """(..., R, T): the credit of each row, or of each token, on every token; 0 without one."""
    if credit is None:
        return torch.zeros_like(rollouts.mask)
    value = credit(rollouts)
    value = value.unsqueeze(-1) if value.dim() < rollouts.mask.dim() else value
    if rollouts.full:
        return value.expand_as(rollouts.mask)
    # A per-token credit may hold anything in the padding; 0 x nan must not make a dead row look live.
    return torch.where(rollouts.mask != 0, value, 0.0)


def _entropy_weight(method: Method, main: Rollouts, control: Control) -> Tensor:
    """(..., R, T): lambda times each token's share of the mean, which is over the tokens that count.

    The mean is over every T = 1 row, those included that give way to a tempered one.
    """
    share = mean_weights(main, method.reduction)
    if method.entropy_tokens is not None:
        share = share * method.entropy_tokens(main)
        total = share.sum((-2, -1), keepdim=True)
        share = share / total.masked_fill(total == 0, 1.0)
    if isinstance(method.entropy_coef, float | int):
        return method.entropy_coef * share
    return method.entropy_coef(control)[..., None, None] * share


def _and_zeros(value: Tensor, others: list[Rollouts]) -> Tensor:
    """(..., rows of all blocks, T): `value` on the T = 1 rows, 0 or False on the tempered ones."""
    return _joined([value, *(torch.zeros_like(block.mask, dtype=value.dtype) for block in others)], -2)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    # Joining one part would copy it.
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
