"""The softmax policy from its logits: log-probability, tempering and exact entropy. The eager truth.

Letters: V actions (tokens of the vocabulary), ... any leading shape. Entropy is in nats. Half-precision logits are
raised to float32 before anything is summed.
"""

import torch
from torch import Tensor


def log_softmax(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Log-probabilities of pi^T = softmax(z / T) (Section 3).

    Args:
        logits: (..., V), any finite values; -inf marks an impossible action.
        temperature: T > 0, a number or a tensor that broadcasts against (...).

    Returns:
        (..., V), float32 or the wider dtype of `logits`.

    >>> log_softmax(torch.tensor([0.0, 0.0])).exp()
    tensor([0.5000, 0.5000])
    >>> log_softmax(torch.tensor([0.0, 2.0]), temperature=1e9).exp()  # a high temperature forgets the logits
    tensor([0.5000, 0.5000])
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if isinstance(temperature, Tensor):
        temperature = temperature.to(logits.dtype).unsqueeze(-1)
    elif temperature == 1:
        # Dividing by 1 would copy the largest tensor there is.
        return torch.log_softmax(logits, dim=-1)
    return torch.log_softmax(logits / temperature, dim=-1)


def log_probs_and_probs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """`log_softmax` and its exponential, both (..., V), for logits (..., V) in full precision.

    One exponential serves both: on a few actions per row half the time of the two calls.

    >>> log_probs_and_probs(torch.zeros(2))
    (tensor([-0.6931, -0.6931]), tensor([0.5000, 0.5000]))
    """
    shifted = logits - logits.amax(-1, keepdim=True)
    probs = shifted.exp()
    total = probs.sum(-1, keepdim=True)
    return shifted - total.log(), probs / total


def log_prob(logits: Tensor, token: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Log-probability of the given tokens under pi^T (Section 3).

    Args:
        logits: (..., V).
        token: (...) int64, in [0, V).
        temperature: as in `log_softmax`.

    Returns:
        (...), in nats.

    >>> log_prob(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([-0.6931])
    """
    return log_softmax(logits, temperature).gather(-1, token.unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """Exact entropy H(pi^T) of each row, in nats (Def. B.3), differentiable.

    An action whose probability underflows contributes exactly 0, to the value and to the gradient, instead of
    0 x inf = nan.

    Args:
        logits: (..., V).
        temperature: as in `log_softmax`.

    Returns:
        (...), in [0, ln V].

    >>> entropy(torch.zeros(4))  # ln 4
    tensor(1.3863)
    >>> entropy(torch.tensor([0.0, -float("inf")]))
    tensor(0.)
    """
    return entropy_of(log_softmax(logits, temperature))


def entropy_of(log_probs: Tensor, probs: Tensor | None = None) -> Tensor:
    """Entropy from log-probabilities (..., V) that are already normalised (Def. B.3); see `entropy`.

    `probs`, their exponentials, spares computing them again.
    """
    probs = log_probs.exp() if probs is None else probs
    # From 0, so that a sure policy's entropy is not -0.0.
    return 0.0 - finite(log_probs).mul_(probs).sum(-1)


def finite(log_probs: Tensor) -> Tensor:
    """Log-probabilities (..., V) whose product with a probability of 0 is 0 and not nan: no -inf among them."""
    return log_probs.clamp(min=torch.finfo(log_probs.dtype).min)


def token_stats(logits: Tensor, token: Tensor, temperature: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probability of `token` and the entropy of its distribution under pi^T, from one log-softmax.

    Args:
        logits: (..., V).
        token: (...) int64, in [0, V).
        temperature: as in `log_softmax`.

    Returns:
        logp and entropy, each (...), in nats.

    >>> token_stats(torch.zeros(1, 4), torch.tensor([2]))
    (tensor([-1.3863]), tensor([1.3863]))
    """
    log_probs = log_softmax(logits, temperature)
    return log_probs.gather(-1, token.unsqueeze(-1)).squeeze(-1), entropy_of(log_probs)
