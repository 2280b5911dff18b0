"""From TRL's dicts of one rank to the rollouts of all, and back to this rank's micro-batches.

Letters as in `aepo.batch`. TRL's "completion" is our response.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn.functional import pad

from aepo.batch import Batch, Rollouts, minibatches
from aepo.method import Method

PROMPT, RESPONSE = ("prompt_ids", "prompt_mask"), ("completion_ids", "completion_mask")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Responses of one branch as TRL sampled and judged them."""

    inputs: dict[str, Any]
    """TRL's own dict, of this rank."""
    rewards: Tensor
    """(R, F): what each function gave each response of every rank; nan where it does not apply."""


def gathered(accelerator: Accelerator, value: Tensor) -> Tensor:
    """(rows of all ranks, T), on the CPU; shorter ranks padded with 0."""
    if accelerator.num_processes > 1:
        value = accelerator.gather(accelerator.pad_across_processes(value, dim=1))
    return value.cpu()


def response_mask(inputs: dict[str, Any]) -> Tensor:
    """(R, T): 1 on what the policy wrote, 0 on padding and on what tools answered."""
    mask = inputs["completion_mask"]
    return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask


def part_of(sampled: Sampled, chosen: Tensor) -> Sampled:
    """Some rows of this rank, an index (r,), without the padding that all of them share; their rewards are left out."""
    names = [name for name in (*PROMPT, *RESPONSE, "tool_mask") if name in sampled.inputs]
    inputs = _trimmed({name: sampled.inputs[name][chosen.to(sampled.inputs[name].device)] for name in names})
    return Sampled(inputs=inputs, rewards=sampled.rewards[:0])


def only_reads_rewards(method: Method) -> bool:
    """Whether a method's batch is made of rewards alone, so that nothing has to be scored before the update."""
    if method.tempered is not None or method.controlled or method.shape is not None or method.mark is not None:
        return False
    if method.compares_entropy or method.needs_logp_t or method.needs_mean_effect:
        return False
    ones = torch.ones(2, 1)
    unscored = Rollouts(prompt=torch.zeros(2).long(), token=ones.long(), mask=ones, reward=ones[:, 0], group_size=2)
    try:
        for read in filter(None, (method.advantage, method.entropy_tokens)):
            read(unscored)
    # There are no scores: `Rollouts.scored` says so, and who computes with the field itself meets None.
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def total_reward(rewards: Tensor, weights: Tensor) -> Tensor:
    """(R,) float32: the weighted sum; a response that no function judged gets 0, as one whose verdict failed."""
    return (rewards.cpu().float() * weights.cpu().float()).nansum(-1)


def rollouts(
    accelerator: Accelerator,
    sampled: Sampled,
    scores: dict[str, Tensor],
    *,
    weights: Tensor,
    right: int | None,
    group_size: int,
    groups: int,
) -> Rollouts:
    """The first groups of all ranks' responses, scored; the same on every rank.

    Args:
        accelerator: of the trainer.
        sampled: of this rank.
        scores: fields of `Rollouts`, this rank's (R, T) each.
        weights: (F,), of the reward functions.
        right: which of several functions says what is right; None for one alone.
        group_size: G.
        groups: how many are wanted of those that all ranks sampled together.
    """
    rows = groups * group_size
    mask = response_mask(sampled.inputs)
    found = Rollouts(
        prompt=torch.arange(rows) // group_size,
        token=gathered(accelerator, sampled.inputs["completion_ids"])[:rows],
        mask=gathered(accelerator, mask)[:rows].float(),
        reward=total_reward(sampled.rewards, weights)[:rows],
        right_by=None if right is None else sampled.rewards[:rows, right].cpu().float().nan_to_num(nan=0.0),
        group_size=group_size,
    )
    return found.replace(**{name: gathered(accelerator, value)[:rows] for name, value in scores.items()})


def first_prompts(accelerator: Accelerator, inputs: Sequence[dict[str, Any]], *, group_size: int, count: int) -> list:
    """This rank's share of the first prompts of the global batch, each G times, as TRL's trainer takes them.

    Every rank gets equally many, or ranks would wait for each other: some may sample prompts beyond the `count`.

    Args:
        accelerator: of the trainer.
        inputs: this rank's rows of the data, each prompt G times in a row.
        group_size: G.
        count: of prompts, at most those of all ranks.
    """
    prompts, world = list(inputs[::group_size]), accelerator.num_processes
    if world > 1:
        prompts = gather_object(prompts)
    share = -(-count // world)
    first = accelerator.process_index * share
    return [dict(one) for one in prompts[first : first + share] for _ in range(group_size)]


def micro_batches(
    accelerator: Accelerator, batch: Batch, blocks: Sequence[Sampled], *, parts: int, each: int, pad_id: int
) -> list[dict[str, Any]]:
    """This rank's rows of the global batch, as `parts` x `each` dicts in the order in which TRL's trainer takes them.

    The factor. Weights sum to 1 over the global batch. `aepo.batch.minibatches` multiplies them by the number of
    optimizer steps, so that each step's gradient estimates the whole batch's. Of one optimizer step, the trainer adds
    up the gradients of `each` micro-batches as they are (TRL's losses are scaled for accumulation by themselves,
    `loss_is_scaled_for_ga`), and takes the mean over W ranks: so W times the sum over a rank's own rows, and nothing
    else, makes the mean of ranks the sum over the batch.

    Rows that cannot move the policy are left out: their gradient is 0. The others are dealt by length, so that
    micro-batches have little padding.

    Args:
        accelerator: of the trainer.
        batch: the global one, its blocks one after the other.
        blocks: what this rank sampled of each block, in the order of the batch.
        parts: optimizer steps.
        each: micro-batches of one.
        pad_id: the token that fills up prompts.
    """
    own = _own_rows(accelerator, batch, blocks)
    inputs = _joined([block.inputs for block in blocks], length=batch.token.shape[-1], pad_id=pad_id)
    # A part of a batch carries its rows' prompts: here, their places in the whole.
    numbered = dataclasses.replace(batch, prompt=torch.arange(batch.prompt.shape[-1]))
    found = []
    for part in minibatches(numbered, parts):
        part = part.rows((part.live & (own[part.prompt] >= 0)).nonzero().squeeze(-1))
        part = part.rows(part.mask.sum(-1).argsort(descending=True, stable=True)).scaled(accelerator.num_processes)
        for rows in torch.arange(len(part.prompt)).tensor_split(each):
            # A rank without rows still has to run its passes, or the others wait for it.
            micro = part.rows(rows) if len(rows) else numbered.rows(_one_of(own)).scaled(0.0)
            found.append(_micro_batch(micro, inputs, own[micro.prompt], accelerator.device))
    return found


def _one_of(own: Tensor) -> Tensor:
    return (own >= 0).nonzero()[:1, 0]


def _own_rows(accelerator: Accelerator, batch: Batch, blocks: Sequence[Sampled]) -> Tensor:
    """(rows of the global batch,): the place of each in this rank's joined inputs; -1 for other ranks' rows."""
    sizes = [len(block.inputs["completion_ids"]) for block in blocks]
    # The first block is whole; the second may have been cut to the groups that were asked for.
    main = sizes[0] * accelerator.num_processes
    own = torch.full((batch.prompt.shape[-1],), -1)
    start = place = 0
    for size, whole in zip(sizes, [main, batch.prompt.shape[-1] - main], strict=False):
        first = accelerator.process_index * size
        count = max(0, min(size, whole - first))
        own[start + first : start + first + count] = torch.arange(place, place + count)
        start, place = start + whole, place + size
    return own


def _joined(blocks: Sequence[dict[str, Any]], *, length: int, pad_id: int) -> dict[str, Tensor]:
    """Prompts that end together and responses that begin together, of all blocks."""
    longest = max(block["prompt_ids"].shape[1] for block in blocks)

    def joined(name: str, *, left: bool, fill: int) -> Tensor:
        to = longest if left else length
        return torch.cat(
            [
                pad(value, (more, 0) if left else (0, more), value=fill)
                for value in (block[name] for block in blocks)
                for more in [to - value.shape[1]]
            ]
        )

    found = {name: joined(name, left=True, fill=pad_id if name == "prompt_ids" else 0) for name in PROMPT}
    return found | {name: joined(name, left=False, fill=pad_id if name == "completion_ids" else 0) for name in RESPONSE}


def _trimmed(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """TRL's dict without the padding that all rows share: on the prompts' left, on the responses' right."""
    attended = inputs["prompt_mask"].sum(-1).max(), inputs["completion_mask"].sum(-1).max()
    prompt, response = (max(1, int(longest)) for longest in attended)
    return {name: x[:, -prompt:] if name in PROMPT else x[:, :response] for name, x in inputs.items()}


def _micro_batch(micro: Batch, inputs: dict[str, Tensor], rows: Tensor, device: torch.device) -> dict[str, Any]:
    """Rows without the padding that all of them share, as TRL's dict, with the batch that our loss takes."""
    cut = _trimmed({name: value[rows.to(value.device)] for name, value in inputs.items()})
    return cut | {"batch": micro.truncated(cut["completion_ids"].shape[1]).to(device)}
