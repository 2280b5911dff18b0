"""`linear_token_stats` and its relatives: what may be asked, checked before any work.

Letters: N tokens, d hidden size, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aepo.llm.fused import backends
from aepo.llm.fused.autograd import LinearPolicyLoss, LinearTokenStats, LogitsTokenStats, TokenLoss
from aepo.llm.fused.rows import STATISTICS, Options, Statistic, Temperature, TokenStats

# Logits that `linear_policy_loss` keeps at a time.
BLOCK_BYTES = 64 << 20


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    temperature: Temperature = 1.0,
    *,
    need: Sequence[Statistic] = STATISTICS,
    entropy_tempered: bool = False,
    bias: Tensor | None = None,
    softcap: float | None = None,
    ignore_index: int = -100,
    vocab_start: int = 0,
    group: Any = None,
    backend: backends.Name = "auto",
) -> TokenStats:
    """Log-prob of each label at two temperatures and the entropy, of logits hidden @ weight.T that are never stored.

    Differentiable by hidden, weight and bias, each statistic with its own upstream gradient per token. Rows without any
    upstream gradient cost nothing in the backward pass. Products are summed in float32 whatever the dtype.

    Args:
        hidden: (N, d), any floating dtype.
        weight: (V, d), any floating dtype; or this process's part of it, see `group`.
        labels: (N,) int64 in [0, V), or `ignore_index`.
        temperature: T > 0 of `logp_t`, a number or (N,).
        need: which statistics; the others are None and cost nothing.
        entropy_tempered: whether the entropy is that of softmax(z / T), not of softmax(z).
        bias: (V,), added to the logits; -inf makes a token impossible.
        softcap: c > 0, z <- c tanh(z / c).
        ignore_index: label of rows that take no part.
        vocab_start: first token of this process's part of the vocabulary.
        group: process group over which the vocabulary is split; every process passes the same hidden and labels and
            gets the same statistics and the whole gradient by hidden.
        backend: `torch`, `triton`, or `auto`: triton where it can run, said once in the log.

    Raises:
        ValueError: shapes that do not fit, labels out of range, a temperature or softcap <= 0, an unknown statistic, a
            backend that cannot run here.
        TypeError: a dtype that does not fit.

    >>> hidden, weight = torch.eye(2), torch.tensor([[0.0, 0.0], [0.0, 2.0], [0.0, 4.0]])
    >>> stats = linear_token_stats(hidden, weight, torch.tensor([1, 2]), 2.0)
    >>> stats.logp.exp(), stats.logp_t.exp()  # uniform; e^4 / (1 + e^2 + e^4), and the same with half the logits
    (tensor([0.3333, 0.8668]), tensor([0.3333, 0.6652]))
    """
    options = Options(
        need=_known(need),
        entropy_tempered=entropy_tempered,
        softcap=softcap,
        ignore_index=ignore_index,
        vocab_start=vocab_start,
        group=group,
    )
    _check_call(hidden, weight, bias, labels, temperature, options)
    options = dataclasses.replace(options, backend=backends.chosen(backend, hidden, weight, bias))
    found = LinearTokenStats.apply(hidden, weight, bias, labels, temperature, options)
    return _answer(found, options.need)


def token_stats_from_logits(
    logits: Tensor,
    labels: Tensor,
    temperature: Temperature = 1.0,
    *,
    need: Sequence[Statistic] = STATISTICS,
    entropy_tempered: bool = False,
    ignore_index: int = -100,
    reuse_logits: bool = False,
    backend: backends.LogitsName = "auto",
) -> TokenStats:
    """The same from logits (N, V) that exist already; their gradient is the only other tensor of that size, or none.

    Args:
        reuse_logits: let the backward pass overwrite the logits with their gradient. Right if nothing else reads them
            afterwards, as after a matrix product.
        backend: `torch`, `cuda` (a kernel that nvcc builds at its first use), or `auto`: cuda where it can run, said
            once in the log.
        The others: as for `linear_token_stats`.

    Raises:
        As for `linear_token_stats`; ValueError: logits to reuse that are a leaf of the graph, or not contiguous by row.

    >>> token_stats_from_logits(torch.zeros(1, 4), torch.tensor([2]), 0.5)
    TokenStats(logp=tensor([-1.3863]), logp_t=tensor([-1.3863]), entropy=tensor([1.3863]))
    """
    options = Options(
        need=_known(need), entropy_tempered=entropy_tempered, ignore_index=ignore_index, reuse_logits=reuse_logits
    )
    _check_floating(logits=logits)
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (N, V) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}")
    _check_numbers(temperature, labels, None)
    _check_labels(labels, options, logits.shape[1])
    if reuse_logits and logits.is_leaf and logits.requires_grad:
        raise ValueError("reuse_logits would overwrite a leaf of the graph: pass what an operation returned, or False")
    if logits.stride(1) != 1:
        if reuse_logits:
            raise ValueError(f"reuse_logits needs rows whose logits lie side by side, got strides {logits.stride()}")
        logits = logits.contiguous()
    options = dataclasses.replace(options, backend=backends.chosen_for_logits(backend, logits))
    found = LogitsTokenStats.apply(logits, labels, temperature, options)
    return _answer(found, options.need)


def linear_policy_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    token_loss: TokenLoss,
    temperature: Temperature = 1.0,
    *,
    need: Sequence[Statistic] = STATISTICS,
    entropy_tempered: bool = False,
    bias: Tensor | None = None,
    softcap: float | None = None,
    ignore_index: int = -100,
    block_bytes: int = BLOCK_BYTES,
    backend: backends.Name = "auto",
) -> tuple[Tensor, TokenStats]:
    """A loss that is a sum over tokens, with its gradients formed in the forward pass.

    The backward pass only multiplies by the upstream gradient, and can run once. `token_loss` must treat rows one by
    one, since it may see them block by block. The torch backend keeps a block's logits from the statistics to the
    gradient: three matrix products, not four. The triton backend stores no logits and makes them twice.

    Args:
        token_loss: the loss of some rows from their statistics; differentiated by autograd. Rows that are ignored are
            not shown to it.
        block_bytes: logits that the torch backend keeps at a time.
        The others: as for `linear_token_stats`.

    Returns:
        The loss, a scalar, and the statistics without gradient.

    Raises:
        As for `linear_token_stats`; ValueError: a loss that is neither (n,) nor a scalar.
    """
    options = Options(
        need=_known(need),
        entropy_tempered=entropy_tempered,
        softcap=softcap,
        ignore_index=ignore_index,
    )
    _check_call(hidden, weight, bias, labels, temperature, options)
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be at least 1, got {block_bytes}")
    options = dataclasses.replace(options, backend=backends.chosen(backend, hidden, weight, bias))
    trains = torch.is_grad_enabled()
    found = LinearPolicyLoss.apply(hidden, weight, bias, labels, temperature, token_loss, options, block_bytes, trains)
    return found[0], _answer(found[1:], options.need)


# -- checks --


def _check_call(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, temperature: Temperature, options: Options
) -> None:
    _check_linear(hidden, weight, labels, bias)
    _check_numbers(temperature, labels, options.softcap)
    _check_labels(labels, options, None if options.group is not None else options.vocab_start + len(weight))


def _known(need: Sequence[Statistic]) -> tuple[Statistic, ...]:
    unknown = [name for name in need if name not in STATISTICS]
    if unknown or not need or isinstance(need, str):
        raise ValueError(f"need must name some of {', '.join(STATISTICS)}, got {need!r}")
    return tuple(name for name in STATISTICS if name in need)


def _check_floating(**tensors: Tensor | None) -> None:
    for name, value in tensors.items():
        if value is not None and not value.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype, got {value.dtype}")


def _check_linear(hidden: Tensor, weight: Tensor, labels: Tensor, bias: Tensor | None) -> None:
    _check_floating(hidden=hidden, weight=weight, bias=bias)
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1] or not len(weight):
        raise ValueError(
            f"hidden must be (N, d) and weight (V, d) with V >= 1, got {tuple(hidden.shape)} and {tuple(weight.shape)}"
        )
    if labels.shape != hidden.shape[:1]:
        raise ValueError(f"labels must be (N,) = {tuple(hidden.shape[:1])}, got {tuple(labels.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be (V,) = {tuple(weight.shape[:1])}, got {tuple(bias.shape)}")
    for name, value in (("weight", weight), ("labels", labels), ("bias", bias)):
        if value is not None and value.device != hidden.device:
            raise ValueError(f"{name} must be on hidden's device {hidden.device}, got {value.device}")


def _check_numbers(temperature: Temperature, labels: Tensor, softcap: float | None) -> None:
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be int64, got {labels.dtype}")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be > 0 or None, got {softcap}")
    if isinstance(temperature, Tensor):
        if temperature.shape != labels.shape:
            raise ValueError(
                f"temperature must be a number or (N,) = {tuple(labels.shape)}, got {tuple(temperature.shape)}"
            )
        wrong = ~(temperature > 0)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise ValueError(f"temperature must be > 0, got {temperature[row].item():g} at row {row}")
    elif not temperature > 0 or math.isinf(temperature):
        raise ValueError(f"temperature must be a finite number > 0, got {temperature}")


def _check_labels(labels: Tensor, options: Options, vocabulary: int | None) -> None:
    wrong = (labels != options.ignore_index) & ((labels < 0) | (False if vocabulary is None else labels >= vocabulary))
    if wrong.any():
        row = int(wrong.nonzero()[0])
        allowed = f"in [0, {'V' if vocabulary is None else vocabulary}) or {options.ignore_index} (ignored)"
        raise ValueError(f"labels must be {allowed}, got {labels[row].item()} at row {row}")


def _answer(found: Sequence[Tensor], need: tuple[Statistic, ...]) -> TokenStats:
    given = dict(zip(need, found, strict=True))
    return TokenStats(*(given.get(name) for name in STATISTICS))
