"""How the rows of a pass lie in one tensor of tokens, and which of them each token's attention sees.

A sequence is a run of queries with the keys that they see; its last query sees all of them, and each query before it
one fewer. Letters as in `aepo.batch`; N the tokens of a pass, S its sequences.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from aepo.llm.policy.microbatch import pack


@dataclass(frozen=True, kw_only=True, eq=False)
class Spans:
    """The sequences of a pass: their queries are its N tokens one after the other, their keys are told apart.

    >>> own = Spans.of([3, 2], [3, 2])
    >>> own.query_ends.tolist(), own.longest
    ([0, 3, 5], (3, 3))
    """

    queries: tuple[int, ...]
    """Tokens of each sequence that ask; they add up to N."""
    keys: tuple[int, ...]
    """Tokens of each that are seen, at least as many."""
    query_ends: Tensor
    """(S + 1,) int32: 0, and where the queries of each sequence end."""
    key_ends: Tensor
    """(S + 1,) int32: the same of the keys."""
    key_index: Tensor | None
    """Which of the pass's tokens the keys are, int64, sequence by sequence; None: the tokens themselves."""

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], key_index: Tensor | None = None) -> "Spans":
        """The sequences of these lengths."""
        return cls(
            queries=tuple(queries),
            keys=tuple(keys),
            query_ends=_ends(queries),
            key_ends=_ends(keys),
            key_index=key_index,
        )

    @property
    def longest(self) -> tuple[int, int]:
        """Most queries, and most keys, of a sequence."""
        return max(self.queries), max(self.keys)

    def to(self, device: torch.device | str) -> "Spans":
        """The same with its tensors on the device."""
        index = self.key_index
        return replace(
            self,
            query_ends=self.query_ends.to(device),
            key_ends=self.key_ends.to(device),
            key_index=None if index is None else index.to(device),
        )


def _ends(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Laid:
    """The tokens of a pass as a model takes them, and where its answers stand."""

    input_ids: Tensor
    """(rows of the tensor, columns) int64, N in all."""
    position: Tensor
    """The same shape: the place of each token in its row, from 0."""
    before: Tensor
    """For each token of a response, row by row as the mask lists them, the index among the N of what predicts it."""
    spans: Spans

    def to(self, device: torch.device | str) -> "Laid":
        """The same with its tensors on the device."""
        moved = {name: getattr(self, name).to(device) for name in ("input_ids", "position", "before", "spans")}
        return Laid(**moved)


def side_by_side(prompts: Sequence[Sequence[int]], token: Tensor, mask: Tensor, *, pad_id: int) -> Laid:
    """Each row in a row of its own from column 0, and padding behind it, which no token of a row sees.

    Args:
        prompts: of the R rows; none is empty.
        token: (R, T) int64.
        mask: (R, T), 0 on the padding after each response.
        pad_id: the token that fills up.

    >>> one = side_by_side([[5], [6, 7]], torch.tensor([[8, 9], [4, 0]]), torch.tensor([[1, 1], [1, 0]]), pad_id=0)
    >>> one.input_ids.tolist(), one.before.tolist(), one.spans.keys
    ([[5, 8, 9], [6, 7, 4]], [0, 1, 4], (3, 3))
    """
    ids, _, before = pack(prompts, token, mask)
    lengths = torch.tensor([len(prompt) for prompt in prompts]) + (mask != 0).sum(-1)
    rows, longest = len(lengths), int(lengths.max())
    place = (torch.arange(longest) < lengths.unsqueeze(-1)).flatten().nonzero().squeeze(-1)
    input_ids = ids.new_full((rows * longest,), pad_id)
    input_ids[place] = ids[0]
    return Laid(
        input_ids=input_ids.view(rows, longest),
        position=torch.arange(longest).repeat(rows, 1),
        before=place[before],
        spans=Spans.of([longest] * rows, [longest] * rows),
    )


def one_behind_the_other(prompts: Sequence[Sequence[int]], token: Tensor, mask: Tensor) -> Laid:
    """`pack`, with the sequences that keep its rows apart."""
    ids, position, before = pack(prompts, token, mask)
    lengths = [len(prompt) + n for prompt, n in zip(prompts, (mask != 0).sum(-1).tolist(), strict=True)]
    return Laid(input_ids=ids, position=position, before=before, spans=Spans.of(lengths, lengths))


def prompts_first(prompts: Sequence[Sequence[int]], answers: Sequence[int], token: Tensor, mask: Tensor) -> Laid:
    """Every prompt once and then the responses, each of which sees its prompt and itself; no padding.

    The last token of a response predicts nothing, so it is left out.

    Args:
        prompts: that are answered; none is empty.
        answers: of the R rows, which of the prompts each continues.
        token, mask: as for `side_by_side`.

    >>> token, mask = torch.tensor([[8, 9], [4, 0], [3, 1]]), torch.tensor([[1, 1], [1, 0], [1, 1]])
    >>> one = prompts_first([[5], [6, 7]], [1, 0, 1], token, mask)
    >>> one.input_ids.tolist(), one.position.tolist(), one.before.tolist()
    ([[5, 6, 7, 8, 3]], [[0, 0, 1, 2, 2]], [2, 3, 0, 2, 4])
    >>> one.spans.queries, one.spans.keys, one.spans.key_index.tolist()
    ((1, 2, 1, 1), (1, 2, 3, 3), [0, 1, 2, 1, 2, 3, 1, 2, 4])
    """
    lengths = [len(prompt) for prompt in prompts]
    starts = [0, *itertools.accumulate(lengths)]
    ids, positions = [torch.tensor(list(itertools.chain.from_iterable(prompts)))], [torch.arange(n) for n in lengths]
    queries, keys, end = list(lengths), list(lengths), starts[-1]
    seen, before = [torch.arange(end)], []
    for answer, row, on in zip(answers, token, mask != 0, strict=True):
        fed, length = row[on][:-1], lengths[answer]
        own, its_prompt = torch.arange(len(fed)) + end, torch.arange(length) + starts[answer]
        if on.any():
            before += [its_prompt[-1:], own]
        if len(fed):
            ids.append(fed)
            positions.append(torch.arange(len(fed)) + length)
            seen += [its_prompt, own]
            queries.append(len(fed))
            keys.append(length + len(fed))
            end += len(fed)
    return Laid(
        input_ids=torch.cat(ids).unsqueeze(0),
        position=torch.cat(positions).unsqueeze(0),
        before=torch.cat(before) if before else torch.zeros(0, dtype=torch.int64),
        spans=Spans.of(queries, keys, torch.cat(seen)),
    )
