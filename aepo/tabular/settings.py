"""How a run trains and how large its bandit is. Imports no torch, for the command line's sake."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aepo.controller import Sees

ACTIONS, CORRECT = 16, 8
"""K and |A*| of the bandit in every figure: half the actions are right, so entropy has room up to ln 8."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run trains.

    Raises:
        ValueError: a number out of range, or an unknown `sees`.
    """

    steps: int = 2000
    group_size: int = 64
    """G: samples per state and step."""
    lr: float = 1.0
    exact: bool = False
    """Exact expectations over actions in place of samples."""
    sees: Sees = "current"
    """Which entropy the controller is shown."""
    relative_target: bool = False
    """Whether targets are shares of the entropy at the start, instead of nats."""
    minibatches: int = 1
    states_per_step: int | None = None
    """B: prompts a step; None takes all of the world's."""

    def __post_init__(self) -> None:
        for name in ("steps", "group_size", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.states_per_step is not None and self.states_per_step < 1:
            raise ValueError(f"states_per_step must be at least 1 or None, got {self.states_per_step}")
        if not self.lr > 0:
            raise ValueError(f"lr must be > 0, got {self.lr}")
        if self.sees not in ("current", "previous"):
            raise ValueError(f"sees must be 'current' or 'previous', got {self.sees!r}")
