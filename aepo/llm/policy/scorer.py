"""The model with its prompts, without an optimizer: log-probs and entropies of responses.

Letters as in `aepo.batch`; V the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from aepo.batch import Rollouts
from aepo.llm.policy.microbatch import Plan, Sizes, left_padded, pack, planned
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.processes import ranks


class Scorer:
    """Scores responses to its prompts under the model as it is now.

    Args:
        module: the model behind its statistics, on the device where it computes.
        prompts: every prompt as tokens; `Rollouts.prompt` indexes them.
        pad_id: the token that fills up prompts.
        token_budget: most tokens of one forward pass, padding included.
        packing: whether the rows of a micro-batch are computed as one, without padding.
        sharing: whether the rows of a micro-batch that answer the same prompt may compute it once (`planned`), where
            packing and the model let them.
        collective: whether every forward pass needs all ranks, as under ZeRO 3; all then run equally many.
        settle: what ends a run of passes without gradient (`Stepper.settle`); None: nothing does.

    Raises:
        ValueError: an empty prompt, which leaves nothing to predict the first token from; or a model that cannot pack.
    """

    def __init__(
        self,
        module: ResponseStats,
        prompts: Sequence[Sequence[int]],
        *,
        pad_id: int,
        token_budget: int,
        packing: bool = False,
        sharing: bool = False,
        collective: bool = False,
        settle: Callable[[], None] | None = None,
    ) -> None:
        empty = [i for i, prompt in enumerate(prompts) if not len(prompt)]
        if empty:
            raise ValueError(f"prompts must not be empty, got no token in prompt {empty[0]}")
        self.module = module
        self.prompts = prompts
        self.pad_id = pad_id
        self.token_budget = token_budget
        self.packing = packing
        self.unshared_because = None
        """Why prompts are computed with each response although they need not be; None where they are not."""
        if sharing:
            self.unshared_because = (
                "train.packing=true lays each response behind a prompt of its own"
                if packing
                else module.unshared_because
            )
        self.sharing = sharing and self.unshared_because is None
        self.collective = collective
        self.settle = settle
        self.device = next(module.parameters()).device
        if packing:
            module.check_packing()

    def over(self, prompts: Sequence[Sequence[int]]) -> "Scorer":
        """The same model with other prompts."""
        return Scorer(
            self.module,
            prompts,
            pad_id=self.pad_id,
            token_budget=self.token_budget,
            packing=self.packing,
            sharing=self.sharing,
            collective=self.collective,
            settle=self.settle,
        )

    @property
    def model(self) -> nn.Module:
        """The causal LM itself."""
        return self.module.model

    def score(self, rollouts: Rollouts, *, effects: bool = False) -> Rollouts:
        """The rollouts with old_logp, entropy and, with `effects`, mean_effect of the current weights, on the CPU."""
        old_logp, entropy, *more = self._stats(rollouts, 1.0, effects=effects)
        scored = rollouts.replace(old_logp=old_logp, entropy=entropy)
        return scored.replace(mean_effect=more[0] * rollouts.mask) if effects else scored

    def tempered_score(self, rollouts: Rollouts, temperature: float) -> Rollouts:
        """The rollouts with logp_t, their log-probs at the temperature, on the CPU."""
        return rollouts.replace(logp_t=self._stats(rollouts, temperature)[0])

    def _stats(self, rollouts: Rollouts, temperature: float, *, effects: bool = False) -> list[Tensor]:
        """Log-prob at the temperature; at 1 the entropy and, if asked for, mean_effect: each (R, T), 0 on padding."""
        tokens = rollouts.token.shape
        found = [torch.zeros(tokens) for _ in range(1 if temperature != 1 else 3 if effects else 2)]
        plan = self._plan_of_rank(rollouts)
        (micros,) = plan.micros
        # Asked before the first pass: a rank that asks after its last one meets the others in the middle of theirs.
        missing = int(ranks.largest(len(micros))) - len(micros) if self.collective else 0
        with torch.no_grad():
            for rows in micros:
                index = torch.tensor(rows)
                cut = max(1, int(rollouts.mask[index].sum(-1).max()))
                stats = self._forward(
                    self.module,
                    rollouts.prompt[index],
                    rollouts.token[index, :cut],
                    rollouts.mask[index, :cut],
                    temperature,
                    effects,
                    shared=plan.shared,
                )
                place = (index.unsqueeze(-1), torch.arange(cut))
                found = [
                    kept.to(new.dtype).index_put(place, new.cpu())
                    for kept, new in zip(found, stats, strict=False)
                    if new is not None
                ]
            # Ranks have sampled different lengths and so have different numbers of passes.
            for _ in range(missing):
                one = torch.zeros(1, 1)
                self._forward(self.module, one[0].long(), one.long(), one, temperature, effects, shared=plan.shared)
        if self.settle is not None:
            self.settle()
        return found

    def _plan_of_rank(self, rollouts: Rollouts) -> Plan:
        """How this rank scores its own rows; where a pass needs all ranks, all share prompts or none does."""
        if not rollouts.token.numel():
            plan = Plan(micros=[[]], shared=self.sharing)
        else:
            plan = self.plan(rollouts.prompt, rollouts.mask, world=1)
        if self.collective and self.sharing and ranks.anywhere(not plan.shared) and plan.shared:
            micros = (
                self.plan(rollouts.prompt, rollouts.mask, world=1, sharing=False).micros if plan.micros[0] else [[]]
            )
            plan = Plan(micros=micros, shared=False)
        return plan

    def plan(self, prompt: Tensor, mask: Tensor, *, world: int, sharing: bool = True) -> Plan:
        """How rows with these prompts (R,) and masks (R, T) are computed, within the budget of tokens.

        Args:
            prompt, mask: of the rows.
            world: number of ranks that take part.
            sharing: False where prompts are not to be shared, whatever the scorer may.
        """
        which = prompt.tolist()
        sizes = Sizes(
            prompt=which,
            prompt_length=[len(self.prompts[p]) for p in which],
            response_length=mask.sum(-1).long().tolist(),
        )
        return planned(
            sizes,
            world=world,
            token_budget=self.token_budget,
            packed=self.packing,
            sharing=self.sharing and sharing,
        )

    def _forward(
        self,
        module: Any,
        prompt: Tensor,
        token: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
        effects: bool = False,
        *,
        shared: bool = False,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        response = (token.to(self.device), mask.to(self.device))
        if shared:
            different, answers = torch.unique(prompt, return_inverse=True)
            padded = left_padded([self.prompts[p] for p in different.tolist()], self.pad_id)
            ragged = bool((padded[1] == 0).any())
            input_ids, attention, position, answers = (x.to(self.device) for x in (*padded, answers))
            return module(
                input_ids, attention if ragged else None, position, *response, temperature, None, effects, answers
            )
        prompts = [self.prompts[p] for p in prompt.tolist()]
        if self.packing:
            input_ids, position, before = (x.to(self.device) for x in pack(prompts, token, mask))
            return module(input_ids, None, position, *response, temperature, before, effects)
        input_ids, attention, position = left_padded(prompts, self.pad_id)
        ragged = bool((attention == 0).any())
        length = token.shape[1]
        # Padding after a response needs no mask: causal attention keeps it from every token that counts.
        steps = torch.arange(1, length + 1)
        input_ids = torch.cat([input_ids, token], 1).to(self.device)
        position = torch.cat([position, position[:, -1:] + steps], 1).to(self.device)
        attention = torch.cat([attention, torch.ones_like(token)], 1).to(self.device)
        return module(
            input_ids,
            attention if ragged else None,
            position,
            *response,
            temperature,
            None,
            effects,
        )
