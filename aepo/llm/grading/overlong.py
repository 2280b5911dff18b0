"""Rewards of responses that were cut or are nearly too long. Letters: R responses, T tokens of the longest."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Truncated = Literal["zero", "graded"]


def ended(
    token: Tensor,
    mask: Tensor,
    *,
    end_ids: Sequence[int],
    completed: Callable[[Sequence[int]], bool] | None = None,
) -> Tensor:
    """(R,) bool: whether the last token of a response is an end token; padding may hold one too.

    Args:
        token: (R, T) int64.
        mask: (R, T), 1 on the response's tokens, a prefix of each row.
        end_ids: the end tokens.
        completed: whether a response's tokens end with a stop text; None where there is none.

    >>> token = torch.tensor([[5, 9, 9], [5, 6, 7]])
    >>> ended(token, torch.tensor([[1.0, 1, 0], [1, 1, 1]]), end_ids=[9])
    tensor([ True, False])
    """
    length = mask.sum(-1).long()
    if not token.shape[-1]:
        return torch.zeros_like(length, dtype=torch.bool)
    last = token.gather(-1, (length - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
    found = torch.isin(last, last.new_tensor(end_ids)) & (length > 0)
    if completed is None:
        return found
    rows = zip(found.tolist(), token.tolist(), length.tolist(), strict=True)
    return found.new_tensor([by_token or completed(tokens[: int(n)]) for by_token, tokens, n in rows])


def overlong_penalty(length: Tensor, *, limit: int, buffer: int, penalty: float = 1.0) -> Tensor:
    """DAPO's soft overlong punishment (Eq. 13 of arXiv 2503.14476): what is added to the reward.

    0 up to limit - buffer tokens, then falling linearly to -penalty at the limit, and -penalty beyond; the paper has
    penalty 1. A right answer of reward 1 keeps 1 - penalty x (its share of the buffer), so with the paper's penalty it
    stops being a positive (reward > 0, `aepo.method.by_reward`) at the limit only, and counts for less before; a wrong
    one goes below 0 and is one in the group's advantage, never a positive.

    Args:
        length: (R,), tokens of each response, the end token included.
        limit: most tokens that are sampled, L_max.
        buffer: L_cache, in [0, limit]; 0 punishes nothing.
        penalty: > 0.

    Returns:
        (R,) float, in [-penalty, 0].

    >>> overlong_penalty(torch.tensor([79, 80, 90, 100]), limit=100, buffer=20)
    tensor([ 0.0000,  0.0000, -0.5000, -1.0000])
    >>> overlong_penalty(torch.tensor([100]), limit=100, buffer=0)
    tensor([0.])
    """
    if not 0 <= buffer <= limit:
        raise ValueError(f"buffer must be in [0, limit={limit}], got {buffer}")
    if not penalty > 0:
        raise ValueError(f"penalty must be > 0, got {penalty}")
    length = length.to(torch.float32) if not length.is_floating_point() else length
    if buffer == 0:
        return torch.zeros_like(length)
    # Not -penalty x 0, which is a zero that prints as -0.
    return 0.0 - penalty * ((length - (limit - buffer)) / buffer).clamp(0.0, 1.0)


def shaped(
    reward: Tensor, length: Tensor, ended: Tensor, *, truncated: Truncated, limit: int, buffer: int, penalty: float
) -> Tensor:
    """(R,): the verdicts, 0 for responses that were cut if so wished, then less the penalty.

    Args:
        reward: (R,), the verdicts.
        length, ended: (R,), as for `overlong_penalty` and from `ended`.
        truncated: "zero", or "graded" to take the verdict of a cut response as it is.
        limit, buffer, penalty: as for `overlong_penalty`.

    >>> one = torch.ones(2)
    >>> shaped(one, torch.tensor([5, 9]), torch.tensor([True, False]), truncated="zero", limit=9, buffer=0, penalty=1.0)
    tensor([1., 0.])
    """
    verdict = reward.masked_fill(~ended, 0.0) if truncated == "zero" else reward
    return verdict + overlong_penalty(length, limit=limit, buffer=buffer, penalty=penalty).to(reward.dtype)
