"""Losses whose gradient is formed in the forward pass: the same gradient and sums for every method, and for which."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from tiny_models import PROMPTS, ROLLOUTS, ROWS, Kept, batch, model
from torch import Tensor

from aepo import zoo
from aepo.batch import Batch
from aepo.llm.fused import torch_backend
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import micro_loss
from aepo.loss import ClippedSurrogate, Surrogate
from aepo.method import Method


@dataclass(frozen=True)
class SequenceRatio:
    """One ratio a response, the exponential of its mean log-ratio (GSPO, arXiv 2507.18071): tokens need each other."""

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        length = batch.mask.sum(-1, keepdim=True)
        mean = (torch.where(batch.mask != 0, logp - batch.old_logp, 0.0)).sum(-1, keepdim=True) / length
        return mean.exp() * batch.advantage


@dataclass(frozen=True)
class Unsaid:
    """A surrogate that does not say whether it is token-local, so that it is taken not to be."""

    surrogate: Surrogate

    def __call__(self, logp: Tensor, batch: Batch, entropy: Tensor | None = None) -> Tensor:
        return self.surrogate(logp, batch, entropy)


def policy(net: torch.nn.Module, **options: bool) -> Policy:
    wrapped = ResponseStats(net)
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=float("inf"))
    return Policy(stepper, PROMPTS, pad_id=0, token_budget=10**6, lr=1.0, **options)


def everything(dtype: torch.dtype = torch.float64) -> Batch:
    """A batch with what any surrogate looks at: marks, entropies before, entropy weights. Some tokens weigh nothing."""
    one = batch(dtype)
    generator = torch.Generator().manual_seed(5)
    shape = one.token.shape
    return dataclasses.replace(
        one,
        mark=torch.rand(shape, generator=generator) > 0.5,
        old_entropy=3 + torch.rand(shape, generator=generator, dtype=dtype),
        entropy_weight=torch.randn(shape, generator=generator, dtype=dtype) * one.mask,
        weight=one.weight * (torch.rand(shape, generator=generator) > 0.2),
    )


def losses_and_gradients(chosen: Policy, micro: Batch, method: Method, *, shared: bool) -> list[Tensor]:
    """The loss, its sums and its gradient by every weight."""
    loss, sums = micro_loss(chosen, micro, method, shared=shared)
    gradients = torch.autograd.grad(loss, list(chosen.model.parameters()))
    return [loss.detach(), *(sums[name] for name in sorted(sums)), *gradients]


@pytest.mark.parametrize("name", zoo.METHODS)
def test_every_method_has_the_gradient_and_the_sums_of_the_whole_loss(name, monkeypatch):
    # Blocks of nine tokens.
    monkeypatch.setattr(torch_backend, "BLOCK_BYTES", 9 * 61 * 8)
    method = zoo.build(name)
    assert method.token_local
    whole = dataclasses.replace(method, surrogate=Unsaid(method.surrogate))
    assert not whole.token_local
    chosen, micro = policy(model("qwen3")), everything()
    mine, theirs = (losses_and_gradients(chosen, micro, one, shared=False) for one in (method, whole))
    assert max(float(g.abs().max()) for g in theirs[4:]) > 1e-3
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("packing", "shared"), [(True, False), (False, True)])
def test_packed_rows_and_shared_prompts_have_it_too(packing, shared):
    method = zoo.build("entropy_reg", coef=0.4)
    whole = dataclasses.replace(method, surrogate=Unsaid(method.surrogate))
    chosen, micro = policy(model("qwen3"), packing=packing, sharing=shared), everything()
    mine, theirs = (losses_and_gradients(chosen, micro, one, shared=shared) for one in (method, whole))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", zoo.METHODS)
def test_a_method_that_says_so_is_token_local(name):
    surrogate, one = zoo.build(name).surrogate, everything()
    generator = torch.Generator().manual_seed(3)
    logp = one.old_logp + 0.2 * torch.randn(one.token.shape, generator=generator, dtype=torch.float64)
    entropy = 3 + torch.rand(one.token.shape, generator=generator, dtype=torch.float64)
    changed = logp.clone()
    # Every other token has another log-prob and entropy, and the rest the same objective.
    other = torch.arange(logp.numel()).view(logp.shape) % 2 == 0
    changed[other] += 0.7
    before, after = (
        surrogate(values, one, h)
        for values, h in ((logp, entropy), (changed, torch.where(other, entropy + 1, entropy)))
    )
    assert torch.equal(before[~other], after[~other])


def test_a_surrogate_whose_tokens_need_each_other_takes_the_whole_loss():
    method = dataclasses.replace(zoo.build("grpo"), surrogate=SequenceRatio())
    assert not method.token_local
    chosen, micro = policy(model("qwen3")), everything()
    mine = losses_and_gradients(chosen, micro, method, shared=False)
    logp, _ = chosen(micro)
    log_ratio = torch.where(micro.mask != 0, logp - micro.old_logp, 0.0).sum(-1) / micro.mask.sum(-1)
    loss = -(micro.weight * log_ratio.exp().unsqueeze(-1) * micro.advantage).sum()
    torch.testing.assert_close(mine[0], loss.detach(), rtol=1e-9, atol=1e-9)
    want = torch.autograd.grad(loss, list(chosen.model.parameters()))
    for a, b in zip(mine[4:], want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_tokens_of_a_batch_are_its_rows_of_one_token():
    one = everything()
    index = (one.mask != 0).flatten().nonzero().squeeze(-1)[[0, 5, 60]]
    some = one.tokens(index)
    assert some.full and some.token.shape == (3, 1)
    for field in ("token", "mask", "old_logp", "advantage", "weight", "entropy_weight", "mark", "old_entropy"):
        assert torch.equal(getattr(some, field)[:, 0], getattr(one, field).flatten()[index])
    assert some.prompt.tolist() == one.prompt[index // one.token.shape[1]].tolist()


def test_the_loss_is_shown_every_token_of_the_responses_once_and_no_padding():
    chosen, micro = policy(model("qwen3")), everything()
    seen = []

    def token_loss(stats, index):
        seen.append(index)
        return stats.logp + stats.entropy

    chosen.loss(micro, token_loss)
    assert torch.equal(torch.cat(seen), (micro.mask != 0).flatten().nonzero().squeeze(-1))
    assert len(ROLLOUTS.prompt) == ROWS and ClippedSurrogate.token_local
