"""A causal LM as log-probs and entropies of given responses, without logits; shared prompts, packed rows, checkpointed
layers.

Letters as in `aepo.batch`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from aepo.categorical import mean_effect_of_squares
from aepo.llm.fused import linear_token_stats
from aepo.llm.policy.microbatch import left_padded, pack
from aepo.llm.policy.prompt_cache import PromptCache

IGNORED = -100
"""Label of the padding after a response."""


class ResponseStats(nn.Module):
    """A causal LM that answers with the log-prob and entropy of given response tokens and never makes logits.

    The head runs inside this forward, which is what lets a sharded head be gathered by whoever shards it.

    Raises:
        ValueError: a model that makes its logits in another way than hidden states times the head's weight.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._checkpointed: list[nn.Module] = []
        self._check_head()

    def checkpoint_layers(self) -> None:
        """From now on a pass with gradient keeps only each layer's input; the backward pass computes the rest again.

        Raises:
            ValueError: a model whose layers transformers cannot checkpoint.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        if not layers:
            raise ValueError(
                f"model {type(self.model).__name__} has no layers that can be checkpointed; "
                "set train.gradient_checkpointing=false"
            )
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for layer in layers:
            layer._gradient_checkpointing_func = _without_dropout(layer, layer._gradient_checkpointing_func)
        self._checkpointed = layers

    @contextlib.contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """transformers checkpoints a layer only where it is in training mode, in which nothing else here may be."""
        layers = self._checkpointed if torch.is_grad_enabled() else []
        before = [layer.training for layer in layers]
        for layer in layers:
            layer.training = True
        try:
            yield
        finally:
            for layer, training in zip(layers, before, strict=True):
                layer.training = training

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        response: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
        before: Tensor | None = None,
        effects: bool = False,
        answers: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """logp, entropy and None, each (R, T), float32 or wider; at another temperature than 1 the entropy is None.

        Args:
            input_ids: (R, prompt + T), left-padded prompts and right-padded responses.
            attention_mask: (R, prompt + T), or None if no prompt is padded.
            position_ids: (R, prompt + T).
            response: (R, T), the last T columns of input_ids.
            mask: (R, T), 0 on padding, where both are 0.
            temperature: > 0.
            before: as `microbatch.pack` returns it, for rows packed into one; input_ids and position_ids are then
                (1, N) and attention_mask is None.
            effects: whether the third is to be `aepo.categorical.mean_effect`, at temperature 1; it takes one more
                product with the head.
            answers: (R,), for prompts that are computed once: the prompt of each response; input_ids, attention_mask
                and position_ids are then those of the prompts alone, (prompts, longest).
        """
        if before is not None:
            return self._packed(input_ids, position_ids, response, mask, temperature, before, effects)
        if answers is not None:
            hidden = self._after_shared_prompts(input_ids, attention_mask, position_ids, response, answers)
        else:
            with self._checkpointing():
                out = self.model.base_model(
                    input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids
                )
            # The token at column j is predicted at column j - 1.
            hidden = out.last_hidden_state[:, -response.shape[1] - 1 : -1]
        label = torch.where(mask != 0, response, IGNORED).flatten()
        stats = self._head(hidden.flatten(0, 1), label, temperature, effects)
        logp, entropy, effect = (None if x is None else x.view(response.shape) for x in stats)
        return logp, entropy, effect

    def _after_shared_prompts(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor,
        response: Tensor,
        answers: Tensor,
    ) -> Tensor:
        """(R, T, hidden): what predicts each token of the responses, with every prompt computed once.

        A second pass computes the responses against the prompts' keys and values, which carry their gradient.
        """
        cache, length = PromptCache(), response.shape[1]
        out = self.model.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = out.last_hidden_state[:, -1:].index_select(0, answers)
        # Where weights are parted over ranks (ZeRO 3), one that left this pass out would keep the others waiting.
        if length > 1 or self._parted:
            fed = response[:, : max(1, length - 1)]
            if attention_mask is not None:
                attention_mask = torch.cat([attention_mask.index_select(0, answers), torch.ones_like(fed)], 1)
            place = torch.arange(1, fed.shape[1] + 1, device=fed.device)
            out = self.model.base_model(
                input_ids=fed,
                attention_mask=attention_mask,
                position_ids=position_ids[:, -1:].index_select(0, answers) + place,
                past_key_values=cache.of(answers),
                use_cache=True,
            )
            hidden = torch.cat([hidden, out.last_hidden_state], 1)[:, :length]
        return hidden

    @property
    def _parted(self) -> bool:
        """Whether ZeRO 3 has parted the weights."""
        return hasattr(next(self.model.parameters()), "ds_id")

    @functools.cached_property
    def unshared_because(self) -> str | None:
        """Why prompts cannot be computed once for all their responses; None where they can.

        A model that does not read a prompt's keys and values from a cache would give wrong log-probs without a sign of
        it, so this computes some both ways. Every rank must ask together where a forward pass needs all of them.
        """
        if self._checkpointed:
            return "train.gradient_checkpointing=true keeps no keys and values that responses could share"
        device = next(self.model.parameters()).device
        # Two ids, which every vocabulary has; one prompt is padded, and one has two responses.
        prompts, response = [[0, 1, 1], [1]], torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0]], device=device)
        answers, mask = torch.tensor([0, 1, 0], device=device), torch.ones(response.shape, device=device)
        ids, attention, position = left_padded(prompts, 0, device)

        def plain(chosen: Tensor) -> Tensor:
            steps = torch.arange(1, response.shape[1] + 1, device=device)
            whole = torch.cat([attention[chosen], torch.ones_like(response)], 1)
            places = torch.cat([position[chosen], position[chosen, -1:] + steps], 1)
            return self(torch.cat([ids[chosen], response], 1), whole, places, response, mask)[0]

        name = type(self.model).__name__
        with torch.no_grad():
            alone, other = plain(answers), plain(1 - answers)
            try:
                shared = self(ids, attention, position, response, mask, 1.0, None, False, answers)[0]
            # Caches of other kinds than keys and values fail in ways of their own.
            except Exception as error:
                return f"model {name} takes no prompt from a cache ({type(error).__name__}: {error})"
        # What another prompt would do: rounding is measured against this.
        eps = max(torch.finfo(dtype).eps for dtype in {torch.float32, *(p.dtype for p in self.model.parameters())})
        if not (shared - alone).abs().max() <= 2 * eps**0.5 * (other - alone).abs().max():
            return f"model {name} has other log-probs where a prompt comes from a cache"
        return None

    def _packed(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        response: Tensor,
        mask: Tensor,
        temperature: float,
        before: Tensor,
        effects: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        # transformers keeps the rows of a pack apart where their positions start again at 0, but only without a mask
        # and without a cache, and configs ask for a cache.
        with self._checkpointing():
            out = self.model.base_model(
                input_ids=input_ids, attention_mask=None, position_ids=position_ids, use_cache=False
            )
        place = (mask != 0).nonzero(as_tuple=True)
        stats = self._head(out.last_hidden_state[0, before], response[place], temperature, effects)
        logp, entropy, effect = (None if x is None else x.new_zeros(mask.shape).index_put(place, x) for x in stats)
        return logp, entropy, effect

    @torch.no_grad()
    def check_packing(self) -> None:
        """A model that does not keep packed rows apart would give wrong log-probs without a sign of it.

        Every rank must call it together where a forward pass needs all of them.

        Raises:
            ValueError: the second of two rows has other log-probs in a pack than alone, or than after another row.
        """
        device = next(self.model.parameters()).device
        # Two ids, which every vocabulary has.
        first, second = [0, 1, 1, 0, 1], [1, 0, 0, 1, 0]

        def logp(rows: list[list[int]], response: list[int]) -> Tensor:
            token = torch.tensor([[0] * len(response)] * (len(rows) - 1) + [response])
            mask = torch.tensor([[0.0]] * (len(rows) - 1) + [[1.0]]).expand(token.shape)
            ids, position, before = (x.to(device) for x in pack(rows, token, mask))
            return self(ids, None, position, token.to(device), mask.to(device), 1.0, before)[0][-1]

        alone = logp([second[:1]], second[1:])
        in_pack = logp([first, second[:1]], second[1:])
        after_another = logp([second, second[:1]], second[1:])
        # What the second row's log-probs would be if it saw the first: rounding is measured against this.
        effect = (logp([first + second[:1]], second[1:]) - alone).abs().max()
        # Models take norms and softmax in float32 even where their weights are wider.
        eps = max(torch.finfo(dtype).eps for dtype in {torch.float32, *(p.dtype for p in self.model.parameters())})
        rounding = 2 * eps**0.5
        # Two packs of the same shapes round alike, so here a coarse dtype is no excuse.
        seen = (in_pack - after_another).abs().max()
        if not ((in_pack - alone).abs().max() <= rounding * effect and seen <= min(rounding, 1e-3) * effect):
            raise ValueError(
                f"model {type(self.model).__name__} does not keep packed sequences apart; set train.packing=false"
            )

    def _head(
        self, hidden: Tensor, label: Tensor, temperature: float, effects: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        head = self.model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        softcap = getattr(self.model.config, "final_logit_softcapping", None)

        def stats(hidden: Tensor, bias: Tensor | None, softcap: float | None, *, need: tuple[str, ...]):
            return linear_token_stats(
                hidden,
                head.weight,
                label,
                temperature,
                need=need,
                bias=bias,
                softcap=softcap,
                ignore_index=IGNORED,
            )

        if temperature != 1:
            return stats(hidden, bias, softcap, need=("logp_t",)).logp_t, None, None
        found = stats(hidden, bias, softcap, need=("logp", "entropy"))
        if not effects:
            return found.logp, found.entropy, None
        # The operation has the entropy of the logits that it is given: those at temperature 1/2 are twice as large.
        twice = (None if x is None else 2 * x for x in (hidden, bias, softcap))
        squared = stats(*twice, need=("logp", "entropy"))
        return (
            found.logp,
            found.entropy,
            mean_effect_of_squares(found.logp, found.entropy, squared.logp, squared.entropy),
        )

    @torch.no_grad()
    def _check_head(self) -> None:
        """Some models scale their logits; a log-prob that leaves that out would be wrong without a sign of it."""
        device = next(self.model.parameters()).device
        ids = torch.arange(2, device=device).unsqueeze(0)
        model_logp = self.model(input_ids=ids).logits.double().log_softmax(-1)[0]
        label = model_logp.argmax(-1)
        hidden = self.model.base_model(input_ids=ids).last_hidden_state
        mine, _, _ = self._head(hidden[0], label, 1.0)
        # The model rounds its logits to its own precision; a scale of 1.1 is far beyond that.
        rounding = 8 * torch.finfo(hidden.dtype).eps * model_logp.abs().max()
        its_own = model_logp.gather(-1, label.unsqueeze(-1)).squeeze(-1)
        if not (mine - its_own).abs().max() <= rounding + 1e-5:
            raise ValueError(
                f"model {type(self.model).__name__} does not make its logits as hidden states times the head's weight; "
                "its log-probs cannot be had without logits"
            )


def _without_dropout(layer: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`checkpoint` for a layer whose own forward is to find it in evaluation mode, where dropout is off."""

    def run(forward: Callable[..., Any], *args: Any) -> Any:
        def evaluated(*inputs: Any) -> Any:
            training, layer.training = layer.training, False
            try:
                return forward(*inputs)
            finally:
                layer.training = training

        return checkpoint(evaluated, *args)

    return run
