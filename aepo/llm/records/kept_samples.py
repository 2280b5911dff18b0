"""A run's responses out of its samples.jsonl, and which of their tokens fork: nothing is taken on trust from the file.

A row that is damaged is left out and told; one of a run from before tokens were kept has none.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aepo.errors import AepoError
from aepo.llm.records.samples import BY_TOKEN, SAMPLES_FILE
from aepo.weights import top_share

LEVELS = 3
"""Into how many colours forking tokens are parted, each of as many nats."""


class NothingToShowError(AepoError):
    """No samples, or none of those that are asked for."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of a response."""

    piece: str
    """Its part of the text."""
    entropy: float
    """Of the distribution that it comes from, at T = 1, in nats; nan where it was not finite."""
    logp: float
    """Its log-prob there, in nats; nan where it was not finite."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """A row of samples.jsonl; None is what the row does not say."""

    step: int
    branch: str
    temperature: float | None
    prompt: str
    text: str
    answer: str | None
    extracted: str | None
    reason: str | None
    reward: float | None
    length: int | None
    """In tokens."""
    ended: bool | None
    tokens: tuple[Token, ...]
    """() where a row does not have them."""

    @property
    def mean_entropy(self) -> float | None:
        """H of Def. B.1 of this response by itself, in nats; None where no entropy was kept."""
        known = [token.entropy for token in self.tokens if not math.isnan(token.entropy)]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a file holds."""

    path: Path
    responses: Sequence[Response]
    damaged: Sequence[int]
    """The lines, counted from 1, that are no rows."""


def kept(run: Path) -> Kept:
    """All responses of a run.

    Args:
        run: its folder, or the file itself.

    Raises:
        NothingToShowError: there is no such file, or it cannot be read.
    """
    path = run / SAMPLES_FILE if run.is_dir() else run
    try:
        # Texts hold line ends of Unicode, which are none of JSONL's.
        *whole, last = path.read_bytes().decode(errors="replace").split("\n")
    except OSError as error:
        raise NothingToShowError(
            f"{path}: {error.strerror}; name the folder of a run (its --out), which has a {SAMPLES_FILE} unless "
            "log.samples=0"
        ) from error
    rows = [(number, _response(line)) for number, line in enumerate(whole, 1) if line.strip()]
    # A run may be writing the last line just now.
    if (ending := _response(last)) is not None:
        rows.append((len(whole) + 1, ending))
    return Kept(
        path=path,
        responses=[response for _, response in rows if response is not None],
        damaged=[number for number, response in rows if response is None],
    )


def _response(line: str) -> Response | None:
    """What a line says, or None if it is no row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    step, branch, text = (_of(row, name, kind) for name, kind in (("step", int), ("branch", str), ("response", str)))
    if step is None or branch is None or text is None:
        return None
    return Response(
        step=step,
        branch=branch,
        temperature=_of(row, "temperature", float),
        prompt=_of(row, "prompt", str) or "",
        text=text,
        answer=_of(row, "answer", str),
        extracted=_of(row, "extracted", str),
        reason=_of(row, "reason", str),
        reward=_of(row, "reward", float),
        length=_of(row, "length", int),
        ended=_of(row, "ended", bool),
        tokens=_tokens(row),
    )


def _of(row: dict[str, Any], name: str, kind: type) -> Any:
    """A row's value, or None where it has none of that kind."""
    value = row.get(name)
    # True is an int to Python, and a whole number is one of JSON's ways to write a float.
    if kind is float and type(value) is int:
        return float(value)
    return value if type(value) is kind else None


def _tokens(row: dict[str, Any]) -> tuple[Token, ...]:
    lists = [row.get(name) for name in BY_TOKEN]
    if not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists}) != 1:
        return ()
    pieces, *numbers = lists
    known = all(type(value) in (int, float, type(None)) for one in numbers for value in one)
    if not known or not all(isinstance(piece, str) for piece in pieces):
        return ()
    entropy, logp = ([math.nan if value is None else float(value) for value in one] for one in numbers)
    return tuple(Token(piece=piece, entropy=e, logp=p) for piece, e, p in zip(pieces, entropy, logp, strict=True))


def chosen(
    found: Kept, *, step: int | None = None, last: int = 1, branch: str | None = None, count: int | None = None
) -> list[Response]:
    """Some of the responses, in their order in the file.

    Args:
        found: all of them.
        step: those of this step; None: of the last steps that have some.
        last: how many last steps.
        branch: "main" or "tempered"; None: both.
        count: at most so many of a step and branch; None: all.

    Raises:
        NothingToShowError: there are none such; the message says what there is.
    """
    rows = found.responses
    if not rows:
        raise NothingToShowError(f"{found.path}: holds no response yet")
    if branch is not None:
        rows = [row for row in rows if row.branch == branch]
        if not rows:
            there = ", ".join(dict.fromkeys(row.branch for row in found.responses))
            raise NothingToShowError(f"--branch={branch}: {found.path} has responses of {there}")
    there = sorted({row.step for row in rows})
    if step is not None and step not in there:
        raise NothingToShowError(f"--step={step}: {found.path} has responses of the steps {_listed(there)}")
    wanted = {step} if step is not None else set(there[-last:])
    shown: list[Response] = []
    counts: dict[tuple[int, str], int] = {}
    for row in rows:
        counts[row.step, row.branch] = counts.get((row.step, row.branch), 0) + 1
        if row.step in wanted and (count is None or counts[row.step, row.branch] <= count):
            shown.append(row)
    return shown


def _listed(steps: Sequence[int]) -> str:
    """Such as 0, 50, 100, ..., 950, 1000."""
    if len(steps) > 8:
        return f"{', '.join(map(str, steps[:4]))}, ..., {', '.join(map(str, steps[-2:]))}"
    return ", ".join(map(str, steps))


@dataclass(frozen=True, kw_only=True)
class Forking:
    """Which tokens fork: where the policy was least sure how to go on (arXiv 2506.01939)."""

    bounds: tuple[float, ...]
    """The lowest entropy of each level, ascending, in nats; () where no token has an entropy above 0."""
    highest: float
    """The highest entropy of all, in nats."""
    tokens: int
    """How many tokens the share is of."""

    def level(self, token: Token) -> int:
        """0 for a token that does not fork, else 1 to len(bounds)."""
        return sum(token.entropy >= bound for bound in self.bounds)

    def ranges(self) -> list[tuple[float, float]]:
        """From which entropy to which each level reaches, in nats."""
        return list(zip(self.bounds, (*self.bounds, self.highest)[1:], strict=True))


def forking(responses: Sequence[Response], share: float) -> Forking | None:
    """The tokens of highest entropy among all of some responses; None where no entropy was kept.

    It is the selection of the method top_entropy (`aepo.weights.top_share`): at least one token, ties with the last are
    in. A token that was certain is none, however many of them there are.

    Args:
        responses: whose tokens are compared with each other.
        share: of the tokens, in (0, 1].

    >>> tokens = tuple(Token(piece="a", entropy=h, logp=-1.0) for h in (0.0, 0.5, 2.0, 1.0, 0.0))
    >>> one = Response(step=0, branch="main", temperature=1.0, prompt="", text="aaaaa", answer=None, extracted=None,
    ...                reason=None, reward=None, length=5, ended=True, tokens=tokens)
    >>> [forking([one], 0.4).level(token) for token in tokens], one.mean_entropy
    ([0, 0, 3, 1, 0], 0.7)
    """
    known = [token.entropy for row in responses for token in row.tokens if not math.isnan(token.entropy)]
    if not known:
        return None
    entropy = torch.tensor([known], dtype=torch.float64)
    forks = entropy[top_share(entropy, entropy > 0, share, of=torch.ones_like(entropy))].tolist()
    highest, lowest = max(known), min(forks, default=0.0)
    # Where all forking tokens are equally uncertain, there is one level.
    bounds = {lowest + (highest - lowest) * level / LEVELS for level in range(LEVELS)} if forks else set()
    return Forking(bounds=tuple(sorted(bounds)), highest=highest, tokens=len(known))
