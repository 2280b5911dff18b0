"""The walk task: from s to n in four signed moves. Hundreds of right answers per prompt, so entropy can be held.

The prompt is two tokens, `s n`, the response four moves in +-1 .. +-9 and the end token;
right if s plus the moves is n. One token per number.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aepo.llm import seeds
from aepo.llm.questions.begin_tokens import PromptTokens
from aepo.llm.questions.number_task import MOVES, NumberTask
from aepo.llm.questions.small_tokenizers import word_tokenizer

# Places run from 0 to 29; a walk of at most 12 leaves every distance hundreds of right answers.
PLACES, REACH = 30, 12
STEPS = tuple(m for m in range(-9, 10) if m)
# A tenth of the 564 pairs is held out, by a fixed draw: every run of the project has the same held-out pairs.
HELD_OUT_SHARE, SPLIT_SEED = 0.1, 0


@dataclass(frozen=True, kw_only=True)
class WalkTask(NumberTask):
    """See the module's first lines; build it with `walk_task`."""

    pairs: Sequence[tuple[int, int]]

    @property
    def right_answers(self) -> NDArray[np.int64]:
        """(P,): how many walks lead from each prompt's s to its n."""
        sums, counts = np.unique(_walks().sum(1), return_counts=True)
        start, goal = np.array(self.pairs).T
        return counts[np.searchsorted(sums, goal - start)]

    def judged(self, prompt: int, numbers: Sequence[int]) -> tuple[str, bool]:
        """The place that four moves lead to, and whether it is n."""
        start, goal = self.pairs[prompt]
        reached = start + sum(numbers)
        return str(reached), reached == goal

    def answer(self, prompt: int) -> str | None:
        """The place to reach, which `Verdict.extracted` is compared with."""
        return str(self.pairs[prompt][1])

    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        """Random walks: right ones uniform over all right answers, the others uniform over all walks."""
        rng = np.random.default_rng(seeds.number(seed, "demonstrations"))
        walks = _walks()
        by_sum = {d: np.flatnonzero(walks.sum(1) == d) for d in range(-REACH, REACH + 1)}
        token_of = {move: token for token, move in self.number_of.items()}
        chosen = rng.choice(np.asarray(self.train), size=count)
        right = rng.random(count) < right_share
        pairs = []
        for prompt, is_right in zip(chosen.tolist(), right, strict=True):
            start, goal = self.pairs[prompt]
            walk = walks[rng.choice(by_sum[goal - start]) if is_right else rng.integers(len(walks))]
            pairs.append((prompt, (*(token_of[int(m)] for m in walk), self.tokenizer.eos_token_id)))
        return pairs


def _walks() -> NDArray[np.int64]:
    """(18^4, 4): every four moves."""
    return np.array(list(itertools.product(STEPS, repeat=MOVES)))


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
        number_of={ids[f"{m:+d}"]: m for m in STEPS},
    )
