"""The tests of attention can fail: each named mistake in a layout or a kernel is planted, and a check notices it."""

import pytest
import torch
import varlen_stand_in
from mutation import Mutant, assert_harmless, assert_noticed
from tiny_models import PROMPTS, RESPONSE_LENGTHS, ROLLOUTS, Kept, apart, model

from aepo.llm.policy import attention, layout
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper

ROWS_OF_ALL_KINDS = [0, 2, 3, 4, 6, 7]
LONGEST = max(RESPONSE_LENGTHS[row] for row in ROWS_OF_ALL_KINDS)


def logp(name: str, **given) -> torch.Tensor:
    wrapped = ResponseStats(model(name))
    stepper = TorchStepper(wrapped, Kept(wrapped.parameters()), max_grad_norm=float("inf"))
    chosen = Policy(stepper, PROMPTS, pad_id=0, token_budget=10**6, lr=1.0, **given)
    # A mistake may be judged at once, and the plain way taken.
    assert chosen.sharing == given.get("sharing", False)
    rows = ROWS_OF_ALL_KINDS
    with torch.no_grad():
        found = chosen._forward(
            stepper, ROLLOUTS.prompt[rows], ROLLOUTS.token[rows, :LONGEST], ROLLOUTS.mask[rows, :LONGEST],
            shared=chosen.sharing,
        )  # fmt: skip
    return found[0]


def agrees(name: str, **given) -> None:
    try:
        mine = logp(name, attention="sdpa", **given)
    except (ValueError, RuntimeError, IndexError) as error:
        raise AssertionError("it does not run, or is refused") from error
    assert apart([mine], [logp(name, attention="transformers")]) < 1e-9


def side_by_side() -> None:
    agrees("qwen3")


def packed() -> None:
    agrees("qwen3", packing=True)


def shared() -> None:
    agrees("qwen3", sharing=True)


def windowed() -> None:
    spans, (query, key) = layout.Spans.of([6, 2], [6, 5]), torch.randn(2, 11, 1, 4, dtype=torch.float64)
    given = {"scale": 0.5, "window": 3, "softcap": None}
    got = attention.sdpa(query[:8], key, key, spans, **given)
    want = varlen_stand_in.varlen_attn(
        query[:8], key, key, spans.query_ends, spans.key_ends, 6, 6, scale=0.5, window_size=(2, 0)
    )
    assert apart([got], [want]) < 1e-12


def ends() -> None:
    spans = layout.Spans.of([2, 3], [4, 3])
    assert (spans.query_ends.tolist(), spans.key_ends.tolist(), spans.longest) == ([0, 2, 5], [0, 4, 7], (3, 4))


MUTANTS = [
    Mutant("ends are shifted by one", layout._ends, "[0, *itertools", "[1, *itertools", ends),
    Mutant(
        "the longest keys are those of the queries",
        layout.Spans.longest.fget,
        "max(self.keys)",
        "max(self.queries)",
        ends,
    ),
    Mutant(
        "rows of a pack end one token early",
        layout.one_behind_the_other,
        "len(prompt) + n for",
        "len(prompt) + n - 1 for",
        packed,
    ),
    Mutant(
        "a pack is one sequence",
        layout.one_behind_the_other,
        "Spans.of(lengths, lengths)",
        "Spans.of([sum(lengths)], [sum(lengths)])",
        packed,
    ),
    Mutant(
        "a token predicts itself", layout.side_by_side, "before=place[before]", "before=place[before] + 1", side_by_side
    ),
    Mutant(
        "rows are filled up to one less",
        layout.side_by_side,
        "(torch.arange(longest) < lengths.unsqueeze(-1))",
        "(torch.arange(longest) < lengths.unsqueeze(-1) - 1)",
        side_by_side,
    ),
    Mutant(
        "a response sees the first prompt",
        layout.prompts_first,
        "torch.arange(length) + starts[answer]",
        "torch.arange(length)",
        shared,
    ),
    Mutant(
        "a response's positions begin at 0",
        layout.prompts_first,
        "torch.arange(len(fed)) + length)",
        "torch.arange(len(fed)))",
        shared,
    ),
    Mutant(
        "a response sees the one before it",
        layout.prompts_first,
        "seen += [its_prompt, own]",
        "seen += [its_prompt, own - 1]",
        shared,
    ),
    Mutant(
        "queries begin with their keys and do not end with them",
        attention._causal_from_the_end,
        "unsqueeze(-1) + seen - asked",
        "unsqueeze(-1)",
        windowed,
    ),
    Mutant(
        "a window is one too wide",
        attention._causal_from_the_end,
        "(place > own - window)",
        "(place >= own - window)",
        windowed,
    ),
    Mutant(
        "what comes after is seen", attention._causal_from_the_end, "(place <= own) &", "(place <= own + 1) &", windowed
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_mistake_is_noticed(mutant, monkeypatch):
    assert_noticed(mutant, monkeypatch)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_planting_itself_is_not_what_is_noticed(mutant, monkeypatch):
    assert_harmless(mutant, monkeypatch)
