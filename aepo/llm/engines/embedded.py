"""The embedded engine: a KV-cached sampler over the trainer's own model, or over a whole copy of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aepo.categorical import log_softmax
from aepo.llm.engines.engine import Sampled, Temperatures, check_top_p, temperature_of_each
from aepo.llm.policy.microbatch import left_padded
from aepo.llm.questions.stop_texts import StopTexts
from aepo.llm.seeds import UInt64, uniforms


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddedEngine:
    """Samples from the model that is being trained, or from a whole copy of it where ranks share the weights out.

    Prompts are filled in once and their cache repeated n times; finished rows leave the batch when half of it is done.
    """

    model: torch.nn.Module
    """A transformers causal LM."""
    end_ids: Sequence[int]
    """Tokens that end a response."""
    pad_id: int
    max_tokens: int
    """Longest response, the end token included."""
    rows_at_once: int = 1024
    stop: StopTexts | None = None
    """Texts that end a response, too."""
    has_own_weights: bool = False
    """Whether the model is a copy, which `load` fills, and not the trainer's own."""

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        if not self.has_own_weights:
            return
        mine = dict(self.model.named_parameters())
        for name, value in weights:
            mine.pop(name).copy_(value)
        if mine:
            raise ValueError(f"the trainer has no weight for the engine's {', '.join(sorted(mine))}")

    def rest(self) -> None:
        """The weights are the trainer's own or a copy that stays: nothing is given back."""

    def close(self) -> None:
        """Nothing is held."""

    @torch.inference_mode()
    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int,
        temperature: Temperatures,
        row_seeds: UInt64,
        max_tokens: int | None = None,
        top_p: float = 1.0,
    ) -> Sampled:
        check_top_p(top_p)
        each = temperature_of_each(temperature, len(prompts))
        longest = self.max_tokens if max_tokens is None else max_tokens
        training = self.model.training
        self.model.eval()
        at_once = max(1, self.rows_at_once // n)
        parts = [
            self._sample(
                prompts[i : i + at_once],
                n,
                each[i : i + at_once],
                row_seeds[i * n : (i + at_once) * n],
                longest,
                top_p,
            )
            for i in range(0, len(prompts), at_once)
        ]
        self.model.train(training)
        length = max((part.token.shape[1] for part in parts), default=0)

        def joined(name: str, fill: float) -> Tensor:
            values = [getattr(part, name) for part in parts]
            if not values:
                return torch.zeros(0, 0, dtype=torch.int64 if name == "token" else torch.float32)
            return torch.cat([torch.nn.functional.pad(v, (0, length - v.shape[1]), value=fill) for v in values])

        return Sampled(token=joined("token", self.pad_id), mask=joined("mask", 0.0), logp=joined("logp", 0.0))

    def _sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        temperature: NDArray[np.float64],
        row_seeds: UInt64,
        longest: int,
        top_p: float,
    ) -> Sampled:
        from transformers import DynamicCache

        device = next(self.model.parameters()).device
        input_ids, attention, position = left_padded(prompts, self.pad_id, device)
        # Prompts of one length need no mask, and the attention without one is faster.
        ragged = bool((attention == 0).any())
        cache = DynamicCache(config=self.model.config)
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention if ragged else None,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.batch_repeat_interleave(n)
        logits = out.logits[:, -1].repeat_interleave(n, 0)
        attention = attention.repeat_interleave(n, 0)
        position = position[:, -1:].repeat_interleave(n, 0)

        rows = len(prompts) * n
        # One number where it is the same for all: dividing by 1 would copy the logits.
        row_temperature = torch.from_numpy(temperature.copy()).repeat_interleave(n).to(device)
        shared = float(temperature[0]) if (temperature == temperature[0]).all() else None
        token = torch.full((rows, longest), self.pad_id, dtype=torch.int64)
        mask = torch.zeros(rows, longest)
        logp = torch.zeros(rows, longest)
        active = torch.arange(rows)  # row of `token` behind each row of the forward pass
        done = torch.zeros(rows, dtype=torch.bool)  # of the rows of the forward pass
        ends = torch.tensor(self.end_ids, device=device)
        for t in range(longest):
            log_probs = log_softmax(logits, row_temperature[active.to(device)] if shared is None else shared)
            if top_p < 1:
                log_probs = nucleus(log_probs, top_p)
            chosen = inverse_transform(log_probs, torch.from_numpy(uniforms(row_seeds, t)[active.numpy()]))
            chosen_logp = log_probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            open_rows = active[~done]
            token[open_rows, t] = chosen.cpu()[~done]
            logp[open_rows, t] = chosen_logp.float().cpu()[~done]
            mask[open_rows, t] = 1.0
            done |= torch.isin(chosen, ends).cpu()
            if self.stop is not None:
                for place, row in enumerate(active.tolist()):
                    done[place] |= not done[place] and self.stop.completed(token[row, : t + 1].tolist())
            if done.all() or t + 1 == longest:
                break
            if done.sum() * 2 >= len(done):
                keep = (~done).nonzero().squeeze(-1)
                on_device = keep.to(device)
                cache.batch_select_indices(on_device)
                chosen, attention, position = chosen[on_device], attention[on_device], position[on_device]
                active, done = active[keep], done[keep]
            attention = torch.cat([attention, attention.new_ones(len(attention), 1)], 1)
            position = position + 1
            logits = self.model(
                input_ids=chosen.unsqueeze(-1),
                attention_mask=attention if ragged else None,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        used = int(mask.sum(1).max()) if rows else 0
        return Sampled(token=token[:, :used], mask=mask[:, :used], logp=logp[:, :used])


def nucleus(log_probs: Tensor, top_p: float) -> Tensor:
    """The distribution of the fewest most probable tokens that hold the mass `top_p` (nucleus sampling, Holtzman 2020).

    The token that crosses `top_p` belongs to it; of equally probable ones the lower id comes first.

    Args:
        log_probs: (R, V), normalised.
        top_p: in (0, 1].

    Returns:
        (R, V), normalised, of the dtype given; -inf outside.

    >>> nucleus(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.6).exp()
    tensor([[0.6250, 0.3750, 0.0000]])
    """
    # float64, since 150,000 float32 probabilities lose the tail of the cumulative sum.
    ordered, index = log_probs.double().sort(dim=-1, descending=True, stable=True)
    probability = ordered.exp()
    before = probability.cumsum(-1) - probability
    kept = ordered.masked_fill(before >= top_p, -torch.inf)
    # The first token stays whatever rounding does.
    kept[..., 0] = ordered[..., 0]
    kept = kept - kept.logsumexp(-1, keepdim=True)
    return torch.empty_like(log_probs).scatter(-1, index, kept.to(log_probs.dtype))


def inverse_transform(log_probs: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability passes `uniform`.

    Args:
        log_probs: (R, V), normalised.
        uniform: (R,) float64 in [0, 1).

    Returns:
        (R,) int64; never a token of probability 0.

    >>> inverse_transform(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0.7], dtype=torch.float64))
    tensor([1])
    """
    # float64, since 150,000 float32 probabilities lose the tail of the cumulative sum.
    cumulative = log_probs.double().exp().cumsum(-1)
    threshold = uniform.to(cumulative.device).unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=log_probs.shape[-1] - 1)
