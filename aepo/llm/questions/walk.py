"""The walk task: from s to n in four signed moves. Hundreds of right answers per prompt, so entropy can be held.

The prompt is two tokens, `s n`, the response four moves in +-1 .. +-9 and the end token;
right if s plus the moves is n. One token per number.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from aepo.llm import seeds
from aepo.llm.grading import Verdict
from aepo.llm.questions.small_tokenizers import word_tokenizer
from aepo.llm.questions.task import PromptTokens

# Places run from 0 to 29; a walk of at most 12 leaves every distance hundreds of right answers.
PLACES, REACH, MOVES = 30, 12, 4
STEPS = tuple(m for m in range(-9, 10) if m)
# A tenth of the 564 pairs is held out, by a fixed draw: every run of the project has the same held-out pairs.
HELD_OUT_SHARE, SPLIT_SEED = 0.1, 0


@dataclass(frozen=True, kw_only=True)
class WalkTask:
    """See the module's first lines; build it with `walk_task`."""

    tokenizer: PreTrainedTokenizerFast
    prompts: Sequence[PromptTokens]
    pairs: Sequence[tuple[int, int]]
    train: Sequence[int]
    held_out: Sequence[int]
    move_of: dict[int, int]
    """Token id -> signed move."""
    parts: Sequence[str] = ()
    columns: Sequence[Mapping[str, Any]] = ()
    stop: None = None

    @property
    def entropy_ceiling(self) -> float:
        """H of a policy that is always right and prefers no right answer: ln of their number over their five tokens
        (the chain rule), mean over training prompts."""
        counts = np.unique(np.array(list(itertools.product(STEPS, repeat=MOVES))).sum(1), return_counts=True)
        right = dict(zip(*(values.tolist() for values in counts), strict=True))
        distances = [self.pairs[prompt][1] - self.pairs[prompt][0] for prompt in self.train]
        return float(np.mean([np.log(right[d]) for d in distances]) / (MOVES + 1))

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The tokenizer's end token alone."""
        return (self.tokenizer.eos_token_id,)

    def grade(self, prompts: Sequence[int], responses: Sequence[Sequence[int]]) -> list[Verdict]:
        """1 for exactly four moves and the end token that lead from s to n, else 0."""
        return [self._verdict(*self.pairs[p], response) for p, response in zip(prompts, responses, strict=True)]

    def _verdict(self, start: int, goal: int, response: Sequence[int]) -> Verdict:
        moves, end = response[:-1], response[-1:]
        if len(moves) != MOVES or tuple(end) != self.end_ids or any(m not in self.move_of for m in moves):
            return Verdict(reward=0.0, extracted=None, reason="no answer")
        reached = start + sum(self.move_of[m] for m in moves)
        return Verdict(
            reward=float(reached == goal), extracted=str(reached), reason="exact" if reached == goal else "wrong"
        )

    def text(self, tokens: Sequence[int]) -> str:
        """Numbers with spaces between them."""
        return " ".join(self.tokenizer.convert_ids_to_tokens(list(tokens)))

    def answer(self, prompt: int) -> str | None:
        """The place to reach, which `Verdict.extracted` is compared with."""
        return str(self.pairs[prompt][1])

    def close(self) -> None:
        """Nothing is held."""

    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        """Random walks: right ones uniform over all right answers, the others uniform over all walks."""
        rng = np.random.default_rng(seeds.number(seed, "demonstrations"))
        walks = np.array(list(itertools.product(STEPS, repeat=MOVES)))
        by_sum = {d: np.flatnonzero(walks.sum(1) == d) for d in range(-REACH, REACH + 1)}
        token_of = {move: token for token, move in self.move_of.items()}
        chosen = rng.choice(np.asarray(self.train), size=count)
        right = rng.random(count) < right_share
        pairs = []
        for prompt, is_right in zip(chosen.tolist(), right, strict=True):
            start, goal = self.pairs[prompt]
            walk = walks[rng.choice(by_sum[goal - start]) if is_right else rng.integers(len(walks))]
            pairs.append((prompt, (*(token_of[int(m)] for m in walk), self.tokenizer.eos_token_id)))
        return pairs


def walk_task() -> WalkTask:
    """All 564 pairs of different places at most 12 apart, a tenth of them held out."""
    tokenizer = word_tokenizer([str(place) for place in range(PLACES)] + [f"{m:+d}" for m in STEPS])
    ids = tokenizer.get_vocab()
    pairs = [(s, n) for s in range(PLACES) for n in range(PLACES) if s != n and abs(n - s) <= REACH]
    shuffled = np.random.default_rng(SPLIT_SEED).permutation(len(pairs))
    cut = round(HELD_OUT_SHARE * len(pairs))
    return WalkTask(
        tokenizer=tokenizer,
        prompts=[(ids[str(s)], ids[str(n)]) for s, n in pairs],
        pairs=pairs,
        train=sorted(shuffled[cut:].tolist()),
        held_out=sorted(shuffled[:cut].tolist()),
        move_of={ids[f"{m:+d}"]: m for m in STEPS},
    )
