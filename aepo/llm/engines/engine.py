"""The protocol of rollout engines: weights and prompts in, sampled responses out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aepo.errors import AepoError
from aepo.llm.seeds import UInt64

Temperatures = float | Sequence[float] | NDArray[np.float64]
"""One temperature for all prompts, or one per prompt."""


def temperature_of_each(temperature: Temperatures, count: int) -> NDArray[np.float64]:
    """(count,) float64.

    Raises:
        ValueError: not one per prompt, or one that is not > 0.

    >>> temperature_of_each(1.2, 2).tolist(), temperature_of_each([1.0, 0.8], 2).tolist()
    ([1.2, 1.2], [1.0, 0.8])
    """
    each = np.broadcast_to(np.asarray(temperature, dtype=np.float64), (count,))
    if not (each > 0).all():
        raise ValueError(f"temperature must be > 0, got {each.min()}")
    return each


@dataclass(frozen=True, kw_only=True, eq=False)
class Sampled:
    """Responses as tokens, on the CPU; letters as in `aepo.batch`."""

    token: Tensor
    """(R, T) int64, padding after the end token."""
    mask: Tensor
    """(R, T) float32, 1 up to and including the end token."""
    logp: Tensor
    """(R, T) float32: log-prob at the sampling temperature (within the nucleus), as the engine computed it."""


class Engine(Protocol):
    """Tokens in, tokens out."""

    @property
    def has_own_weights(self) -> bool:
        """Whether it samples from weights of its own, which `load` fills and a canary has to prove."""
        ...

    def load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take the trainer's weights as they are now, by name; called by all ranks together before they sample."""
        ...

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int,
        temperature: Temperatures,
        row_seeds: UInt64,
        max_tokens: int | None = None,
        top_p: float = 1.0,
    ) -> Sampled:
        """n responses per prompt, from the weights that were loaded last; called by all ranks together.

        Args:
            prompts: P prompts as tokens, none empty.
            n: responses per prompt; rows come out prompt after prompt.
            temperature: > 0, one for all or one per prompt.
            row_seeds: (P x n,) one seed per response.
            max_tokens: longest response; None for the engine's own limit.
            top_p: in (0, 1]: each token is drawn from the nucleus of this mass, and its log-prob is the one there.
        """
        ...

    def rest(self) -> None:
        """Nothing is sampled until the next `load`: memory may be given back."""
        ...

    def close(self) -> None:
        """No more use is made of the engine."""
        ...


def check_top_p(top_p: float) -> None:
    """ValueError unless in (0, 1]."""
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")


class EngineError(AepoError):
    """vLLM is missing or cannot do what the trainer needs."""

    of_one_rank = True
