"""Stage sizes: scoring and one gradient of a micro-batch of real size, padded and packed, by a random Qwen2.5-1.5B.

Without a CUDA device the same with a tiny model: that it runs, not what it costs. A third way packs rows and lets
torch's own varlen attention keep them apart, where torch and the device have it: then no mask of N x N is made.
"""

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aepo.batch import Batch, Rollouts
from aepo.llm.gpu_check.findings import Facts, Findings, LeftOut, Wrong
from aepo.llm.gpu_check.timing import Cost, timed
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper

GIB = 2**30
REPEATS = 3
"""Of which the fastest counts: the first builds kernels."""
VARLEN = "aepo_varlen"
"""Name of the attention in transformers."""
AGREE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Most that mean log-probs of two ways may differ, in nats: the size of their rounding."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of the model and of the micro-batch."""

    layers: int
    width: int
    vocabulary: int
    tokens: int
    """Of a micro-batch."""
    longest: int
    """Tokens of a response, at most."""
    dtype: torch.dtype


REAL = Size(layers=28, width=1536, vocabulary=151_936, tokens=16_384, longest=2000, dtype=torch.bfloat16)
TINY = Size(layers=2, width=96, vocabulary=300, tokens=1024, longest=200, dtype=torch.float32)


def run(findings: Findings) -> None:
    """Padded rows first: the other ways' log-probs are compared with theirs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = REAL if device == "cuda" else TINY
    work = Work.drawn(size)
    first: list[Tensor] = []
    for name, packing, attention in (("padded", False, "sdpa"), ("packed", True, "sdpa"), ("varlen", True, VARLEN)):
        findings.check(
            f"{name} rows, {'a random Qwen2.5-1.5B' if size is REAL else 'a tiny model'}, {size.tokens} tokens",
            lambda packing=packing, attention=attention: measured(work, size, device, packing, attention, first),
        )
        if device == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """Prompts and responses of several lengths."""

    prompts: list[tuple[int, ...]]
    rollouts: Rollouts

    @classmethod
    def drawn(cls, size: Size) -> "Work":
        """As many rows as the micro-batch would hold if all were of the longest."""
        generator = torch.Generator().manual_seed(0)
        rows = max(1, size.tokens // size.longest)
        lengths = torch.randint(size.longest // 2, size.longest * 19 // 20, (rows,), generator=generator)
        prompts = [
            tuple(torch.randint(0, 300, (size.longest // 20 + 3 * i,), generator=generator).tolist())
            for i in range(rows)
        ]
        mask = (torch.arange(int(lengths.max())) < lengths[:, None]).float()
        token = torch.randint(0, 300, mask.shape, generator=generator) * mask.long()
        rollouts = Rollouts(prompt=torch.arange(rows), token=token, mask=mask, reward=torch.zeros(rows), group_size=1)
        return cls(prompts=prompts, rollouts=rollouts)

    @property
    def batch(self) -> Batch:
        """For a gradient of every token."""
        one = self.rollouts
        zero = torch.zeros_like(one.mask)
        return Batch(
            prompt=one.prompt,
            token=one.token,
            mask=one.mask,
            old_logp=zero,
            advantage=one.mask,
            weight=one.mask,
            entropy_weight=zero,
            group_size=1,
        )


def measured(work: Work, size: Size, device: str, packing: bool, attention: str, first: list[Tensor]) -> Facts:
    """Seconds and memory of one way; its log-probs are those of the first way, which it leaves in `first`."""
    if attention == VARLEN:
        register_varlen(device)
    net = random_model(size, device)
    stats = ResponseStats(net.eval())
    stats.checkpoint_layers()
    stepper = TorchStepper(stats, torch.optim.SGD(stats.parameters(), lr=0.0), max_grad_norm=1.0)
    net.set_attn_implementation(attention)
    with bounds_of_rows(net.base_model) if attention == VARLEN else contextlib.nullcontext():
        policy = Policy(stepper, work.prompts, pad_id=0, token_budget=size.tokens, lr=0.0, packing=packing)
        score, scored = fastest(lambda: policy.score(work.rollouts), device)
        gradient, _ = fastest(lambda: one_gradient(policy, work.batch), device)
    logp, mask = scored.old_logp, work.rollouts.mask
    if not first:
        first.append(logp)
    off = float(((logp - first[0]).abs() * mask).sum() / mask.sum())
    facts = {"score s": score.seconds, "gradient s": gradient.seconds}
    if device == "cuda":
        facts |= {"score peak GiB": score.peak_bytes / GIB, "gradient peak GiB": gradient.peak_bytes / GIB}
    facts["nats from the first way"] = off
    if not off <= AGREE[size.dtype]:
        raise Wrong(f"log-probs differ from those of the first way by {off:.2g} nats in the mean", **facts)
    return facts


def random_model(size: Size, device: str) -> Any:
    """A Qwen2 of this size with random weights, the same for every way."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=size.width * 35 // 6,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    with torch.device(device):
        return Qwen2ForCausalLM(config).to(size.dtype)


def one_gradient(policy: Policy, batch: Batch) -> None:
    """Of the sum of all log-probs, micro-batch by micro-batch."""
    (micros,) = policy.plan(batch.prompt, batch.mask, world=1).micros
    for i, rows in enumerate(micros):
        part = batch.rows(torch.tensor(rows))
        logp, _ = policy(part)
        policy.backward((logp * part.mask.to(logp.device)).sum(), last=i == len(micros) - 1)
    policy.stepper.module.zero_grad(set_to_none=True)


def fastest(work: Any, device: str) -> tuple[Cost, Any]:
    """The cost of the fastest call, and what it returned."""
    found = [timed(work, device) for _ in range(REPEATS)]
    return min(found, key=lambda one: one[0].seconds)


# -- torch's varlen attention --

_bounds: list[tuple[Tensor, int]] = []
"""Where the rows of the pack begin and end, and the longest: of the pass that runs, whose layers all ask for it."""


def register_varlen(device: str) -> None:
    """Make it known to transformers.

    Raises:
        LeftOut: torch or the device does not have it.
    """
    if device != "cuda":
        raise LeftOut("torch's varlen attention needs a CUDA device")
    from torch.nn.attention.varlen import varlen_attn
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        options["enable_gqa"] = True

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: None, scaling: float | None = None, **_: Any
    ) -> tuple[Tensor, None]:
        ends, longest = _bounds[-1]
        heads_last = (x[0].transpose(0, 1) for x in (query, key, value))
        found = varlen_attn(*heads_last, ends, ends, longest, longest, scale=scaling, **options)
        return found.unsqueeze(0), None

    AttentionInterface.register(VARLEN, attention)
    AttentionMaskInterface.register(VARLEN, lambda *_, **__: None)


@contextlib.contextmanager
def bounds_of_rows(model: nn.Module) -> Iterator[None]:
    """Within, every pass of the model says where its packed rows end; their positions begin at 0."""

    def before(_: nn.Module, arguments: Any, named: dict[str, Any]) -> None:
        position = named["position_ids"][0]
        begin = (position == 0).nonzero().squeeze(-1)
        ends = torch.cat([begin, begin.new_tensor([len(position)])]).int()
        _bounds[:] = [(ends, int(ends.diff().max()))]

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
