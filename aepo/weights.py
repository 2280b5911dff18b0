"""From what each row counts to what each token counts: every normaliser becomes data here, once per global batch.

Letters as in `aepo.batch`. A reduction takes the mask (..., R, T) and a row weight (..., R) and returns token weights
(..., R, T); the loss sums weight x objective and divides by nothing.
"""

from collections.abc import Callable

from torch import Tensor

from aepo.batch import Rollouts

Reduction = Callable[[Tensor, Tensor], Tensor]
"""(mask (..., R, T), row weight (..., R)) -> token weights (..., R, T)."""


def sequence_mean(mask: Tensor, row_weight: Tensor) -> Tensor:
    """The mean over each response's tokens, then the weighted mean over rows: the 1/|o| of Eq. 1.

    Args:
        mask: (..., R, T), 1 on tokens.
        row_weight: (..., R), sums to 1 over the rows that count.

    Returns:
        (..., R, T), which sums to the sum of `row_weight`; an empty response weighs 0.

    >>> import torch
    >>> sequence_mean(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([0.5, 0.5]))
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    return row_weight.unsqueeze(-1) * mask / mask.sum(-1, keepdim=True).clamp(min=1)


def token_mean(mask: Tensor, row_weight: Tensor) -> Tensor:
    """One mean over all tokens of all rows that count, so long responses weigh more: the authors' code.

    Theirs is a mean within each micro-batch; this one is over the global batch and does not depend on the split.

    Args:
        mask: (..., R, T).
        row_weight: (..., R); only ratios matter, and rows at 0 are left out of the denominator.

    Returns:
        (..., R, T), which sums to 1, or to 0 if no row counts.

    >>> import torch
    >>> token_mean(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([0.5, 0.5]))
    tensor([[0.3333, 0.3333],
            [0.3333, 0.0000]])
    """
    weighted = row_weight.unsqueeze(-1) * mask
    total = weighted.sum((-2, -1), keepdim=True)
    return weighted / total.masked_fill(total == 0, 1.0)


def fixed_length(tokens: int | None = None) -> Reduction:
    """The sum over each response's tokens divided by a constant: no bias by length (Dr. GRPO, arXiv 2503.20783).

    Args:
        tokens: the constant, normally the largest response length; None takes that of the batch.

    Returns:
        A reduction like those above.

    >>> import torch
    >>> fixed_length(4)(torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([0.5, 0.5]))
    tensor([[0.1250, 0.1250],
            [0.1250, 0.0000]])
    """
    if tokens is not None and tokens < 1:
        raise ValueError(f"tokens must be at least 1, got {tokens}")

    def reduction(mask: Tensor, row_weight: Tensor) -> Tensor:
        return row_weight.unsqueeze(-1) * mask / (mask.shape[-1] if tokens is None else tokens)

    return reduction


def mean_weights(rollouts: Rollouts, reduction: Reduction) -> Tensor:
    """What each token counts in the mean over every row: 1/R x 1/|o_i| by `sequence_mean` (Eq. 1).

    Args:
        rollouts: whose mask and row weights.
        reduction: row weights to token weights.

    Returns:
        (..., R, T), 0 on padding.

    >>> import torch
    >>> token = torch.zeros(2, 2, dtype=torch.int64)
    >>> rollouts = Rollouts(prompt=token[:, 0], token=token, mask=torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
    ...                     reward=torch.zeros(2), group_size=2)
    >>> mean_weights(rollouts, sequence_mean)
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    mask, row_weight = rollouts.mask, rollouts.row_weight
    runs = mask.dim() - 2
    if not (runs and rollouts.full and rollouts.share is None):
        return reduction(mask, row_weight)
    # Every run has the same masks and row weights by construction: those of one serve all.
    first = (0,) * runs
    return reduction(mask[first], row_weight[first]).expand_as(mask)


# Makes a whole number of a share, rounded up, but not one more for rounding: the value of STARE's code.
UPWARDS = 0.999999


def top_share(
    value: Tensor, weight: Tensor, share: float, *, of: Tensor | None = None, upwards: bool = False
) -> Tensor:
    """The `share` of the tokens with the largest values, at least one of them; ties with the last are all in.

    Args:
        value: (..., R, T).
        weight: (..., R, T); tokens of weight 0 (padding) take no part.
        share: in (0, 1].
        of: (..., R, T); of its tokens, those of a weight that is not 0, it is the share; None: of those that take part.
        upwards: whether a part of a token is rounded up to one; else down.

    Returns:
        (..., R, T) bool.

    >>> import torch
    >>> top_share(torch.tensor([[3.0, 9.0, 1.0]]), torch.tensor([[1.0, 0.0, 1.0]]), 0.2)
    tensor([[ True, False, False]])
    >>> top_share(torch.tensor([[3.0, 9.0, 1.0]]), torch.tensor([[1.0, 0.0, 1.0]]), 0.6, upwards=True)
    tensor([[ True, False,  True]])
    """
    on = weight != 0
    flat = value.masked_fill(~on, float("-inf")).flatten(-2)
    count = (on if of is None else of != 0).flatten(-2).sum(-1, keepdim=True)
    k = (count.double() * share + UPWARDS if upwards else count * share).floor().long().clamp(min=1)
    floor = flat.sort(-1, descending=True).values.gather(-1, (k - 1).clamp(max=flat.shape[-1] - 1))
    return (value >= floor.unsqueeze(-1)) & on
