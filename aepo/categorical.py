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


def entropy_effect(logp: Tensor, entropy: Tensor) -> Tensor:
    """S = pi (ln pi + H): by how much the entropy falls, to first order, as the token's logit rises by one.

    It is minus dH/dz_a (arXiv 2602.03392, Theorem 3.2); `aepo.theory` has the same derivative.

    Args:
        logp: (...), of the token.
        entropy: (...), of the distribution that it is from, in nats.

    Returns:
        (...): negative for a token rarer than e^-H.

    >>> entropy_effect(torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0])).round(decimals=3)
    tensor([ 0.1530, -0.3470])
    """
    return logp.exp() * (logp + entropy)


def mean_effect(log_probs: Tensor) -> Tensor:
    """E_{a ~ pi}[S_a] = sum_a pi_a^2 (ln pi_a + H), see `entropy_effect` (arXiv 2602.03392, Theorem 3.3).

    Args:
        log_probs: (..., V), normalised.

    Returns:
        (...), >= 0: a likely token's rise lowers the entropy, and likely tokens are sampled more.

    >>> mean_effect(torch.tensor([0.9, 0.1]).log()).round(decimals=4)
    tensor(0.1582)
    """
    safe = finite(log_probs)
    return (log_probs.exp() * entropy_effect(safe, entropy_of(log_probs).unsqueeze(-1))).sum(-1)


def mean_effect_of_squares(logp: Tensor, entropy: Tensor, squared_logp: Tensor, squared_entropy: Tensor) -> Tensor:
    """`mean_effect` from a token's log-probs and the entropies of two distributions: pi, and q ~ pi^2, pi at T = 1/2.

    With C = sum_a pi_a^2, ln q = 2 ln pi - ln C at every token, so E_q[ln pi] = (ln C - H_q) / 2, and the mean is
    C (H + E_q[ln pi]).

    Args:
        logp, entropy: (...), of pi.
        squared_logp, squared_entropy: (...), of q; the log-prob of the same token.

    >>> p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.81, 0.01]) / 0.82
    >>> mean_effect_of_squares(p.log()[1], entropy_of(p.log()), q.log()[1], entropy_of(q.log())).round(decimals=4)
    tensor(0.1582)
    """
    log_c = 2 * logp - squared_logp
    return log_c.exp() * (entropy + (log_c - squared_entropy) / 2)


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
