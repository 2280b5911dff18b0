"""Controllers: from the measured entropy and its target to what the method does about it. State is explicit.

Entropies and targets are in nats and may carry one value per run, shape (...).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

State = Mapping[str, Tensor]
"""A controller's memory: named tensors (...), saved in checkpoints as they are."""

Sees = Literal["current", "previous"]
"""Which entropy the controller sees. `current`: H of the policy that is sampling now (Eq. 1). `previous`: one step
late, as in the authors' code; step 0 is then unknown, nan, and counts as below the target."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """What the controller decided for this step."""

    temperature: Tensor
    """(...): temperature of the second branch's samples, > 0."""
    raise_entropy: Tensor
    """(...) bool: whether entropy is to go up, which picks between the two caps on positives."""


class Controller(Protocol):
    """A value with explicit state."""

    def initial(self) -> State:
        """State before the first step."""
        ...

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        """Next state and this step's control from the entropy seen (nan: unknown) and the target, both (...)."""
        ...


def _positive_temperatures(low: float, high: float) -> None:
    for name, value in (("t_low", low), ("t_high", high)):
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")
    if low > high:
        raise ValueError(f"t_low must not exceed t_high, got t_low={low}, t_high={high}")


@dataclass(frozen=True, kw_only=True)
class BangBang:
    """T = T_high where H < H*, else T_low (Eq. 1). It keeps no state.

    Raises:
        ValueError: a temperature <= 0, or t_low > t_high.

    >>> _, control = BangBang().update({}, torch.tensor([0.4, 0.6, float("nan")]), torch.tensor(0.5))
    >>> control.temperature
    tensor([1.2000, 0.8000, 1.2000])
    """

    t_low: float = 0.8
    t_high: float = 1.2

    def __post_init__(self) -> None:
        _positive_temperatures(self.t_low, self.t_high)

    def initial(self) -> State:
        return {}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        # Written with >= so that an unknown entropy (nan) counts as below the target.
        up = ~(entropy >= target)
        high = torch.full_like(entropy, self.t_high)
        return state, Control(temperature=high.masked_fill(~up, self.t_low), raise_entropy=up)


@dataclass(frozen=True, kw_only=True)
class FixedTemperature:
    """The same temperature whatever the entropy: Eq. 2 (T = 1) and the two curves of Fig. 2.

    Raises:
        ValueError: temperature <= 0.
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be > 0, got {self.temperature}")

    def initial(self) -> State:
        return {}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        temperature = torch.full_like(entropy, self.temperature)
        return state, Control(temperature=temperature, raise_entropy=~(entropy >= target))


@dataclass(frozen=True, kw_only=True, eq=False)
class Loop:
    """The closed loop's memory between steps: the controller's own state and the last entropy that was measured."""

    state: State
    previous_entropy: Tensor
    """(...): nan before the first step."""

    @classmethod
    def start(cls, controller: Controller, like: Tensor) -> "Loop":
        """The loop before step 0; `like` gives the runs' shape, dtype and device."""
        return cls(state=controller.initial(), previous_entropy=torch.full_like(like, float("nan")))

    def decide(
        self, controller: Controller, *, entropy: Tensor, target: Tensor | float, sees: Sees
    ) -> tuple["Loop", Control]:
        """One turn of the loop: this step's control, and the memory for the next step.

        Args:
            controller: any controller.
            entropy: (...), H measured on this step's T = 1 rollouts.
            target: H*, a number or (...).
            sees: which entropy the controller is shown.
        """
        if sees not in ("current", "previous"):
            raise ValueError(f"sees must be 'current' or 'previous', got {sees!r}")
        seen = entropy if sees == "current" else self.previous_entropy
        target = torch.as_tensor(target, dtype=entropy.dtype, device=entropy.device)
        state, control = controller.update(self.state, seen, target)
        return Loop(state=state, previous_entropy=entropy), control
