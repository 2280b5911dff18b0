"""The ladder task: four instructions to follow from a place, of which many are misread by whoever demonstrates them.

The prompt is five tokens, `s i1 i2 i3 i4`: a place 0 .. 19 and four of 32 instructions. The response is four places
and the end token; right if every hop, each from the place that the one before has led to, is one that its instruction
allows. An instruction allows two hops up and two down, of 1 .. 8 places. Its common misreading is two other hops up
and two other hops down. So either can be followed from every place, and a misread hop is never right. Most prompts have
about a hundred right answers.

Demonstrators follow the easy instructions mostly rightly, and the hard ones the more rarely the harder they are: a
model that they taught has something to find. A prompt's level is its number of hard instructions, 0 to 3.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from aepo.llm import seeds
from aepo.llm.questions.begin_tokens import PromptTokens
from aepo.llm.questions.number_task import MOVES, NumberTask
from aepo.llm.questions.small_tokenizers import word_tokenizer

PLACES, REACH = 20, 8
EASY_SHARES = (0.95, 0.95, 0.95, 0.9, 0.9, 0.85, 0.45, 0.4)
"""How often demonstrators follow each easy instruction rightly; below a half the likelier reading is the wrong one."""
# The hardest are followed rightly once in ten thousand times: what a model still tries there is mostly its own error.
HARD_SHARES = tuple(np.geomspace(0.05, 0.0001, 24).tolist())
EASY, HARD = len(EASY_SHARES), len(HARD_SHARES)
SHARES = np.array([*EASY_SHARES, *HARD_SHARES])
"""(32,): of every instruction, the easy ones first."""
LEVELS = ("0 hard", "1 hard", "2 hard", "3 hard")
LEVEL_SHARES = (0.25, 0.3, 0.25, 0.2)
"""Of the prompts, by level."""
# A thousand steps of 64 prompts repeat none.
TRAINED, HELD_OUT = 65_536, 512
# With one hop per instruction two prompts in five have a right answer.
DRAWN_PER_PROMPT = 4
# Every run of the project has the same instructions and the same held-out prompts.
TABLE_SEED, SPLIT_SEED = 0, 0


@dataclass(frozen=True, kw_only=True, eq=False)
class LadderTask(NumberTask):
    """See the module's first lines; build it with `ladder_task`."""

    starts: NDArray[np.int64]
    """(P,): each prompt's first place."""
    instructions: NDArray[np.int64]
    """(P, 4): each prompt's instructions."""
    right_hops: NDArray[np.int64]
    """(32, 4 or 1): the hops that each instruction allows."""
    misread_hops: NDArray[np.int64]
    """(32, 4): those that it is mistaken for."""

    @property
    def right_answers(self) -> NDArray[np.int64]:
        """(P,): how many right answers each prompt has."""
        return right_answers(self.starts, self.instructions, self.right_hops)

    @cached_property
    def _allowed(self) -> list[list[int]]:
        return np.sort(self.right_hops).tolist()

    def judged(self, prompt: int, numbers: Sequence[int]) -> tuple[str, bool]:
        """The hops between four places, and whether each is one that its instruction allows."""
        hops = [after - before for before, after in itertools.pairwise([int(self.starts[prompt]), *numbers])]
        followed = zip(hops, self.instructions[prompt].tolist(), strict=True)
        return _signed(hops), all(hop in self._allowed[instruction] for hop, instruction in followed)

    def answer(self, prompt: int) -> str | None:
        """The hops that each instruction allows, of which `Verdict.extracted` has one each."""
        return ", ".join(_signed(self._allowed[instruction]) for instruction in self.instructions[prompt].tolist())

    def demonstrations(self, count: int, *, right_share: float, seed: int) -> list[tuple[int, PromptTokens]]:
        """Each instruction followed rightly with its own share, else misread, and uniform over the hops of that reading
        that stay on the line.

        Args:
            count: how many.
            right_share: is not used; every instruction has a share of its own.
            seed: of the draws.
        """
        rng = np.random.default_rng(seeds.number(seed, "demonstrations"))
        right, misread = next_places(self.right_hops), next_places(self.misread_hops)
        chosen = rng.choice(np.asarray(self.train), size=count)
        place, places = self.starts[chosen], []
        for instruction in self.instructions[chosen].T:
            rightly = rng.random(count) < SHARES[instruction]
            # A single hop may lead off the line from where a misread one has led to. A misreading never does.
            rightly &= right[instruction, place].any(-1)
            options = np.where(rightly[:, None], right[instruction, place], misread[instruction, place])
            place = np.where(options, rng.random(options.shape), -1.0).argmax(-1)
            places.append(place)
        token_of = {number: token for token, number in self.number_of.items()}
        tokens = np.array([token_of[place] for place in range(PLACES)])[np.stack(places, 1)]
        end = self.tokenizer.eos_token_id
        return [(prompt, (*said, end)) for prompt, said in zip(chosen.tolist(), tokens.tolist(), strict=True)]


def ladder_task(*, level_shares: Sequence[float] = LEVEL_SHARES, single: bool = False) -> LadderTask:
    """65,536 training prompts and 512 that are held out, no two the same, each with a right answer.

    Args:
        level_shares: of the prompts of each level, from none hard on; they sum to 1.
        single: whether an instruction allows one hop only, so that a prompt has one right answer.
    """
    right_hops, misread_hops = _table()
    if single:
        # The first up and the first down, in turn.
        right_hops = np.take_along_axis(right_hops, np.array([[0], [2]] * (len(right_hops) // 2)), 1)
    trained, held_out = ([round(share * count) for share in level_shares] for count in (TRAINED, HELD_OUT))
    drawn = [_drawn(level, sum(counts), right_hops) for level, counts in enumerate(zip(held_out, trained, strict=True))]
    # In any order: whoever takes the first so many takes of every level.
    rng = np.random.default_rng(seeds.number(SPLIT_SEED, "ladder", "order"))
    aside = rng.permutation(np.concatenate([rows[:count] for rows, count in zip(drawn, held_out, strict=True)]))
    rest = rng.permutation(np.concatenate([rows[count:] for rows, count in zip(drawn, held_out, strict=True)]))
    rows = np.concatenate([aside, rest])
    starts, instructions = rows[:, 0], rows[:, 1:]
    words = [str(place) for place in range(PLACES)]
    words += [f"e{number + 1}" for number in range(EASY)] + [f"h{number + 1}" for number in range(HARD)]
    tokenizer = word_tokenizer(words)
    ids = np.array(tokenizer.convert_tokens_to_ids(words))
    tokens = np.column_stack([ids[starts], ids[PLACES + instructions]])
    return LadderTask(
        tokenizer=tokenizer,
        prompts=list(map(tuple, tokens.tolist())),
        train=range(len(aside), len(rows)),
        held_out=range(len(aside)),
        number_of={int(ids[place]): place for place in range(PLACES)},
        levels=[LEVELS[hard] for hard in (instructions >= EASY).sum(1)],
        starts=starts,
        instructions=instructions,
        right_hops=right_hops,
        misread_hops=misread_hops,
    )


def next_places(hops: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(I, PLACES, PLACES): whether a hop of each instruction leads from a place to another, given its hops (I, H)."""
    place = np.arange(PLACES)
    return (hops[:, :, None, None] == place - place[:, None]).any(1)


def right_answers(
    starts: NDArray[np.int64], instructions: NDArray[np.int64], hops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many ways there are to follow four instructions on the line: their matrices multiplied, two and two.

    Args:
        starts: (P,).
        instructions: (P, 4).
        hops: (I, H), those that each instruction allows.

    Returns:
        (P,).
    """
    ways = next_places(hops).astype(np.int64)
    # (I, I, PLACES, PLACES): of two instructions after each other.
    pair = ways[:, None] @ ways[None]
    first, second, third, fourth = instructions.T
    return (pair[first, second, starts] * pair[third, fourth].sum(-1)).sum(-1)


def _table() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(32, 4) twice: the hops that each instruction allows, and those that it is mistaken for, two up and two down."""
    rng = np.random.default_rng(seeds.number(TABLE_SEED, "ladder", "instructions"))
    lengths = np.tile(np.arange(1, REACH + 1), (EASY + HARD, 1))
    up, down = rng.permuted(lengths, axis=1), -rng.permuted(lengths, axis=1)
    right, misread = (np.concatenate([up[:, part], down[:, part]], 1) for part in (slice(0, 2), slice(2, 4)))
    return right, misread


def _drawn(level: int, count: int, hops: NDArray[np.int64]) -> NDArray[np.int64]:
    """(count, 5): distinct prompts of a level that have a right answer, each a place and four instructions."""
    rng = np.random.default_rng(seeds.number(SPLIT_SEED, "ladder", level))
    # Every prompt of the level has a number: of its place, of where its hard instructions stand, of each instruction.
    stands = list(itertools.combinations(range(MOVES), level))
    sizes = (PLACES, len(stands), *[HARD] * level, *[EASY] * (MOVES - level))
    number = rng.choice(math.prod(sizes), min(math.prod(sizes), DRAWN_PER_PROMPT * count), replace=False)
    start, stand, *which = np.unravel_index(number, sizes)
    order = np.array([[*hard, *(at for at in range(MOVES) if at not in hard)] for hard in stands])
    instructions = np.empty((len(number), MOVES), np.int64)
    first_of_kind = np.array([EASY] * level + [0] * (MOVES - level))
    np.put_along_axis(instructions, order[stand], np.stack(which, 1) + first_of_kind, 1)
    answered = np.flatnonzero(right_answers(start, instructions, hops))[:count]
    return np.column_stack([start, instructions])[answered]


def _signed(hops: Sequence[int]) -> str:
    return " ".join(f"{hop:+d}" for hop in hops)
