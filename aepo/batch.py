"""What sampling and grading yield (Rollouts) and what the loss needs (Batch): frozen values, checked at birth.

Letters: ... independent runs (the simulator's seeds and configurations; none in the LLM trainer), R rows (responses),
T tokens of the longest response, G rows of a group (responses to one prompt, contiguous), P = R / G prompts.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def _check_token(owner: str, token: Tensor) -> None:
    if token.dim() < 2:
        raise ValueError(f"{owner}.token must have shape (..., R, T), got {tuple(token.shape)}")


def _check(owner: str, name: str, value: Tensor | None, shape: tuple[int, ...], what: str) -> None:
    if value is not None and tuple(value.shape) != shape:
        raise ValueError(f"{owner}.{name} must have shape {what} = {shape}, got {tuple(value.shape)}")


def means_of_rows(value: Tensor, mask: Tensor) -> Tensor:
    """(..., R): the mean of each row's tokens, both (..., R, T); 0 for a row without any."""
    length = mask.sum(-1).clamp(min=1)
    # Padding may hold anything, and a nan here would read as "unknown: raise entropy" in the controller.
    return torch.where(mask != 0, value, 0.0).sum(-1) / length


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollouts:
    """Graded responses, group after group.

    Raises:
        ValueError: a shape that disagrees with `token` and `group_size`.
    """

    prompt: Tensor
    """(..., R) int64: index of the prompt (LLM) or state (tabular) that the row answers."""
    token: Tensor
    """(..., R, T) int64: the response's tokens; anything where `mask` is 0."""
    mask: Tensor
    """(..., R, T) float: 1 on the response's tokens, the end token included, 0 on padding."""
    reward: Tensor
    """(..., R) float: the verifier's verdict, 0 or 1 (any non-negative number works)."""
    group_size: int
    """G: rows per prompt."""
    right_by: Tensor | None = None
    """(..., R) float: where `reward` adds up several functions, the reward of the one that says which rows are right,
    by being above 0; None: `reward` says it."""
    full: bool = False
    """Whether `mask` is all ones by construction, which spares every sum the look at the padding."""
    share: Tensor | None = None
    """(..., R) float: the row's probability within its group, for an exact expectation over all responses. None for
    ordinary samples, which count 1/G each."""
    old_logp: Tensor | None = None
    """(..., R, T): log-prob at T = 1 under the policy before the update, from the trainer's own scoring pass."""
    entropy: Tensor | None = None
    """(..., R, T): exact entropy, in nats, of the token's distribution at T = 1, from the same pass."""
    logp_t: Tensor | None = None
    """(..., R, T): log-prob at the control's temperature, under the same policy as old_logp, for methods that ask."""
    mean_effect: Tensor | None = None
    """(..., R, T): the mean of pi (ln pi + H) over the token's distribution (`aepo.categorical.mean_effect`), under the
    same policy as old_logp, for methods that ask."""
    engine_logp: Tensor | None = None
    """(..., R, T): the rollout engine's log-prob at the *sampling* temperature; never used in a policy ratio."""

    def __post_init__(self) -> None:
        _check_token("Rollouts", self.token)
        rows, tokens = tuple(self.token.shape[:-1]), tuple(self.token.shape)
        _check("Rollouts", "prompt", self.prompt, rows, "(..., R)")
        _check("Rollouts", "mask", self.mask, tokens, "(..., R, T)")
        _check("Rollouts", "reward", self.reward, rows, "(..., R)")
        _check("Rollouts", "right_by", self.right_by, rows, "(..., R)")
        _check("Rollouts", "share", self.share, rows, "(..., R)")
        for name in ("old_logp", "entropy", "logp_t", "mean_effect", "engine_logp"):
            _check("Rollouts", name, getattr(self, name), tokens, "(..., R, T)")
        if self.group_size < 1 or rows[-1] % self.group_size:
            raise ValueError(
                f"Rollouts.group_size must divide the {rows[-1]} rows, got {self.group_size}: "
                "every prompt needs the same number of responses"
            )

    def scored(self, name: Literal["old_logp", "entropy", "logp_t", "mean_effect"]) -> Tensor:
        """(..., R, T): what a scoring pass of the policy left.

        Raises:
            ValueError: there was none.
        """
        value = getattr(self, name)
        if value is None:
            how = "at the control's temperature" if name == "logp_t" else "with the policy"
            raise ValueError(f"Rollouts.{name} is missing: score the rollouts {how} first")
        return value

    @property
    def row_weight(self) -> Tensor:
        """(..., R): what each row counts in the mean over prompts of the group expectation; sums to 1 (Eq. 1)."""
        rows = max(self.reward.shape[-1], 1)
        if self.share is None:
            return self.reward.new_full((), 1.0 / rows).expand_as(self.reward)
        return self.share * (self.group_size / rows)

    def mean_entropy(self) -> Tensor:
        """(...): H, the length-normalised token entropy of Def. B.1, in nats.

        Raises:
            ValueError: the rollouts were not scored yet.
        """
        entropy = self.scored("entropy")
        if self.full:
            # One token needs no mean, which would copy.
            return self._over_rows(entropy.squeeze(-1) if entropy.shape[-1] == 1 else entropy.mean(-1))
        return self._over_rows(means_of_rows(entropy, self.mask))

    def mean_reward(self) -> Tensor:
        """(...): the mean reward over prompts of the group expectation."""
        return self._over_rows(self.reward)

    def _over_rows(self, value: Tensor) -> Tensor:
        if self.share is None:
            return value.sum(-1) / max(value.shape[-1], 1)
        return (self.row_weight * value).sum(-1)

    def replace(self, **changes: Tensor) -> "Rollouts":
        """A copy with some fields changed, checked again."""
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Rows with their advantages and weights: all that the loss sees. A part of a batch is a batch, and sums add.

    Raises:
        ValueError: a shape that disagrees with `token`.
    """

    prompt: Tensor
    """(..., R) int64, as in Rollouts."""
    token: Tensor
    """(..., R, T) int64."""
    mask: Tensor
    """(..., R, T) float."""
    old_logp: Tensor
    """(..., R, T): log-prob at T = 1 before the update, whatever temperature the row was sampled at."""
    advantage: Tensor
    """(..., R, T)."""
    weight: Tensor
    """(..., R, T): every normaliser in one number (1/G, 1/|o|, alpha, mask, exact share), over the whole batch."""
    entropy_weight: Tensor
    """(..., R, T): the weight of the entropy bonus on this token; 0 for methods without one."""
    group_size: int
    """G."""
    mark: Tensor | None = None
    """(..., R, T) bool: tokens that the method's surrogate treats apart; None for a surrogate that marks none."""
    old_entropy: Tensor | None = None
    """(..., R, T): the exact entropy before the update, in nats; None for a surrogate that does not compare."""
    full: bool = False
    """Whether `mask` is all ones, as in Rollouts."""

    def __post_init__(self) -> None:
        _check_token("Batch", self.token)
        tokens = tuple(self.token.shape)
        _check("Batch", "prompt", self.prompt, tokens[:-1], "(..., R)")
        for name in ("mask", "old_logp", "advantage", "weight", "entropy_weight", "mark", "old_entropy"):
            _check("Batch", name, getattr(self, name), tokens, "(..., R, T)")

    def on(self, value: Tensor, otherwise: Tensor | float) -> Tensor:
        """`value` on tokens, `otherwise` on padding, which may hold anything: 0 x inf must not reach a sum."""
        return value if self.full else torch.where(self.mask != 0, value, otherwise)

    @property
    def live(self) -> Tensor:
        """(..., R) bool: rows whose gradient can differ from 0; a marked token may have one without an advantage."""
        counts = (self.weight * self.advantage != 0) | (self.entropy_weight != 0)
        if self.mark is not None:
            counts = counts | (self.mark & (self.weight != 0))
        return counts.any(-1)

    def sampled_nll(self) -> Tensor:
        """(...): the authors' entropy estimate in nats, the mean of -old_logp over the tokens that take part.

        A token takes part if its weight is not 0: rows that gave way and samples that were not kept do not, tempered
        ones that were kept do, so this is not the entropy of any one policy. The authors' code averages over the update
        itself, later mini-batches under a policy that has moved by some steps; here it is the policy before them. Its
        controller sees the number one step late and starts from 0, so the first step raises entropy, which is what the
        unknown entropy of a first step does here.

        >>> z = torch.zeros(2, 2)
        >>> b = Batch(prompt=torch.tensor([0, 0]), token=z.long(), mask=torch.tensor([[1.0, 1], [1, 0]]),
        ...           old_logp=torch.tensor([[-1.0, -2], [-6, -99]]), advantage=z, entropy_weight=z, group_size=2,
        ...           weight=torch.tensor([[0.25, 0.25], [0.5, 0]]))
        >>> b.sampled_nll()
        tensor(3.)
        """
        part = (self.mask != 0) & (self.weight != 0)
        total = torch.where(part, -self.old_logp, 0.0).sum((-2, -1))
        return total / part.sum((-2, -1)).clamp(min=1)

    def rows(self, index: Tensor) -> "Batch":
        """The given rows (1-D int64 indices), for every run alike."""
        dim = self.prompt.dim() - 1
        return self._changed(lambda value: value.index_select(dim, index), "prompt")

    def scaled(self, factor: float) -> "Batch":
        """The same rows with both weights multiplied by `factor`."""
        return dataclasses.replace(self, weight=self.weight * factor, entropy_weight=self.entropy_weight * factor)

    def to(self, device: torch.device) -> "Batch":
        """The same rows on another device."""
        return self._changed(lambda value: value.to(device), "prompt")

    def truncated(self, length: int) -> "Batch":
        """The same rows cut to their first `length` tokens, for rows whose further tokens are padding."""
        return self._changed(lambda value: value[..., :length])

    def _changed(self, change: Callable[[Tensor], Tensor], *also: str) -> "Batch":
        """Every per-token tensor changed, and the fields named."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed = {
            name: change(value)
            for name, value in values.items()
            if isinstance(value, Tensor) and (name != "prompt" or name in also)
        }
        return dataclasses.replace(self, **changed)


def minibatches(batch: Batch, count: int) -> Iterator[Batch]:
    """Split a global batch into `count` parts, one optimizer step each, weights multiplied by `count`.

    Whole groups are dealt in turn, so each part sees every `count`-th prompt and the parts differ by one group at most;
    where there are fewer groups than parts (a bandit), rows are dealt. No random number is drawn: prompts arrive
    shuffled. With the factor, each part's gradient estimates the whole batch's.

    Args:
        batch: the global batch.
        count: number of parts, from 1 to the number of rows.

    Raises:
        ValueError: a count out of range; a part without rows would be an update without a gradient.

    >>> z = torch.zeros(4, 1)
    >>> b = Batch(prompt=torch.tensor([0, 0, 1, 1]), token=z.long(), mask=z, old_logp=z, advantage=z, weight=z + 1,
    ...           entropy_weight=z, group_size=2)
    >>> [part.prompt.tolist() for part in minibatches(b, 2)], next(minibatches(b, 2)).weight[0].item()
    ([[0, 0], [1, 1]], 2.0)
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if count == 1:
        yield batch
        return
    total = batch.prompt.shape[-1]
    if count > total:
        raise ValueError(f"count must be at most the {total} rows of the batch, got {count}")
    unit = batch.group_size if total >= count * batch.group_size else 1
    part = torch.arange(total, device=batch.prompt.device) // unit % count
    for i in range(count):
        yield batch.rows((part == i).nonzero().squeeze(-1)).scaled(count)
