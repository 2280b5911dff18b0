"""Whether a way to compute log-probs gives those of the plain way on a model: some rows are computed both ways.

The plain way has each prompt before each of its responses, filled up on the left, with transformers' own attention.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aepo.llm.policy import attention_interface, layout
from aepo.llm.policy.microbatch import left_padded

if TYPE_CHECKING:
    from aepo.llm.policy.response_stats import ResponseStats

# Two ids, which every vocabulary has; one prompt is padded, and one has two responses.
PROMPTS = ((0, 1, 1), (1,))
RESPONSE = ((1, 0, 0), (0, 1, 1), (1, 1, 0))
ANSWERS = (0, 1, 0)


def rounding(model: nn.Module) -> float:
    """Share of what another prompt would do to a log-prob that two ways of computing it may differ by.

    Models take norms and softmax in float32 even where their weights are wider.
    """
    return 2 * max(torch.finfo(dtype).eps for dtype in {torch.float32, *(p.dtype for p in model.parameters())}) ** 0.5


@torch.no_grad()
def broken_because(
    module: "ResponseStats", way: Callable[["ResponseStats"], Tensor], where: str, fails: str = "cannot be computed"
) -> str | None:
    """Why a way does not give the model's log-probs; None where it does.

    Every rank must ask together where a forward pass needs all of them.

    Args:
        module: the model, with the attention that the way is to use.
        way: the log-probs (R, T) of the rows above.
        where: what the way does, for the answer where its log-probs differ.
        fails: what the model does where the way raises.
    """
    name = type(module.model).__name__
    alone, other = plain(module, list(ANSWERS)), plain(module, [1 - a for a in ANSWERS])
    try:
        found = way(module)
    # Models that do not take what the way gives them fail in ways of their own.
    except Exception as error:
        return f"model {name} {fails} ({type(error).__name__}: {error})"
    # What another prompt would do: rounding is measured against this.
    if not (found - alone).abs().max() <= rounding(module.model) * (other - alone).abs().max():
        return f"model {name} has other log-probs {where}"
    return None


def plain(module: "ResponseStats", answers: list[int]) -> Tensor:
    """(R, T) of the responses behind these prompts."""
    response, mask, device = _response(module)
    ids, attention, position = left_padded([PROMPTS[a] for a in answers], 0, device)
    steps = torch.arange(1, response.shape[1] + 1, device=device)
    whole = torch.cat([attention, torch.ones_like(response)], 1)
    places = torch.cat([position, position[:, -1:] + steps], 1)
    return module(torch.cat([ids, response], 1), whole, places, response, mask)[0]


def prompts_cached(module: "ResponseStats") -> Tensor:
    """Each prompt once, whose keys and values a second pass over the responses reads."""
    response, mask, device = _response(module)
    ids, attention, position = left_padded(PROMPTS, 0, device)
    answers = torch.tensor(ANSWERS, device=device)
    return module(ids, attention, position, response, mask, 1.0, None, False, answers)[0]


def prompts_first(module: "ResponseStats") -> Tensor:
    """Each prompt once, in the same pass as the responses."""
    response, mask, device = _response(module)
    return module.of_laid(
        layout.prompts_first(PROMPTS, ANSWERS, response.cpu(), mask.cpu()).to(device), response, mask
    )[0]


def side_by_side(module: "ResponseStats") -> Tensor:
    """Each row from column 0, without a mask.

    Raises:
        ValueError: the layers ask for masks of which they do not tell attention, as of a window.
    """
    response, mask, device = _response(module)
    rows = layout.side_by_side([PROMPTS[a] for a in ANSWERS], response.cpu(), mask.cpu(), pad_id=0).to(device)
    with attention_interface.without_masks() as asked:
        found = module.of_laid(rows, response, mask)[0]
    # A model may make the mask without a window for layers that it has not.
    if asked.windows - asked.handed - {None}:
        raise ValueError("its masks have windows that its attention is not told")
    return found


def _response(module: "ResponseStats") -> tuple[Tensor, Tensor, torch.device]:
    device = next(module.model.parameters()).device
    response = torch.tensor(RESPONSE, device=device)
    return response, torch.ones(response.shape, device=device), device
