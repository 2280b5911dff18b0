"""Controllers: from the measured entropy and its target to what the method does about it. State is explicit.

Entropies and targets are in nats and may carry one value per run, shape (...).
"""

import dataclasses
import math
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
    push: Tensor | None = None
    """(...): the controller's signed output, > 0 to raise entropy: ln T, a bonus coefficient, a tilt of the weights,
    whatever the method acts through. None for a controller that only knows temperatures."""
    target: Tensor | None = None
    """(...): H* of this step, in nats."""
    error: Tensor | None = None
    """(...): H* - H as the controller saw it, in nats; nan where H was unknown."""
    prompt_fraction: Tensor | None = None
    """(...): share of the batch's prompts that are sampled again; None: the method's own."""
    step: int = 0
    """The training step, for methods that draw random numbers."""

    @property
    def strength(self) -> Tensor:
        """(...): `push`, or ln T where there is none."""
        return self.temperature.log() if self.push is None else self.push

    def chosen(self, index: Tensor) -> "Control":
        """Some of several controls, (U,), by their places or by a mask; without a target and an error."""
        return Control(
            temperature=self.temperature[index],
            raise_entropy=self.raise_entropy[index],
            push=None if self.push is None else self.push[index],
            prompt_fraction=None if self.prompt_fraction is None else self.prompt_fraction[index],
        )


class Controller(Protocol):
    """A value with explicit state."""

    def initial(self, like: Tensor) -> State:
        """State before the first step, for runs shaped like (...)."""
        ...

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        """Next state and this step's control from the entropy seen (nan: unknown) and the target, both (...)."""
        ...

    def controls(self, count: int) -> Control:
        """The controls that `update` may decide on, in whatever state: (U,), float64.

        Args:
            count: how many of a range of pushes or temperatures, its two ends among them; >= 2. A controller that
                knows only a few has these.
        """
        ...


def _spread(low: float, high: float, count: int) -> Tensor:
    """(count,): evenly spaced, both ends included."""
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}: the ends of a range are two controls")
    return torch.linspace(low, high, count, dtype=torch.float64)


def _log_spread(low: float, high: float, count: int) -> Tensor:
    """(count,): evenly spaced in the logarithm, both ends included."""
    return _spread(math.log(low), math.log(high), count).exp()


def _both_directions(count: int) -> Tensor:
    """(2 U,) bool: whether entropy is to go up, for each of U controls once no and once yes."""
    return torch.tensor([False, True]).repeat_interleave(count)


def _either_way(temperature: Tensor, push: Tensor | None = None) -> Control:
    """(2 U,): each of U controls once where entropy is to go down and once where it is to go up."""
    return Control(
        temperature=temperature.repeat(2),
        raise_entropy=_both_directions(len(temperature)),
        push=None if push is None else push.repeat(2),
    )


def _pushed_either_way(push: Tensor) -> Control:
    return _either_way(push.exp(), push)


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

    def initial(self, like: Tensor) -> State:
        return {}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        # Written with >= so that an unknown entropy (nan) counts as below the target.
        up = ~(entropy >= target)
        high = torch.full_like(entropy, self.t_high)
        return state, Control(temperature=high.masked_fill(~up, self.t_low), raise_entropy=up)

    def controls(self, count: int) -> Control:
        return Control(
            temperature=torch.tensor([self.t_low, self.t_high], dtype=torch.float64),
            raise_entropy=torch.tensor([False, True]),
        )


@dataclass(frozen=True, kw_only=True)
class SignAndSize(BangBang):
    """Bang-bang whose push is the error, its size at most `limit`; an unknown entropy is far below (DCPO).

    Raises:
        ValueError: as for `BangBang`, or limit <= 0.

    >>> _, control = SignAndSize(limit=0.1).update({}, torch.tensor([0.4, 0.52, float("nan")]), torch.tensor(0.5))
    >>> control.temperature, control.push
    (tensor([1.2000, 0.8000, 1.2000]), tensor([ 0.1000, -0.0200,  0.1000]))
    """

    limit: float
    """In nats."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.limit > 0:
            raise ValueError(f"limit must be > 0, got {self.limit}")

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        state, control = super().update(state, entropy, target)
        push = (target - entropy).nan_to_num(nan=self.limit).clamp(-self.limit, self.limit)
        return state, dataclasses.replace(control, push=push)

    def controls(self, count: int) -> Control:
        push = _spread(0.0, self.limit, count)
        low, high = (torch.full_like(push, temperature) for temperature in (self.t_low, self.t_high))
        return Control(
            temperature=torch.cat([low, high]),
            raise_entropy=torch.arange(2 * count) >= count,
            push=torch.cat([-push, push]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """One control whatever the entropy: what a controller could do if it always did that.

    The control may carry one value per run. A method that moves the temperature of the main rollouts finds it in the
    state, as with the controllers that it is made for.
    """

    control: Control

    def initial(self, like: Tensor) -> State:
        return {"temperature": self.control.temperature}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        return state, self.control

    def controls(self, count: int) -> Control:
        return self.control


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

    def initial(self, like: Tensor) -> State:
        return {}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        temperature = torch.full_like(entropy, self.temperature)
        return state, Control(temperature=temperature, raise_entropy=~(entropy >= target))

    def controls(self, count: int) -> Control:
        return _either_way(torch.tensor([self.temperature], dtype=torch.float64))


def _limits(low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"low must be below high, got low={low}, high={high}")


def _pushed(push: Tensor, entropy: Tensor, target: Tensor) -> Control:
    return Control(temperature=push.exp(), raise_entropy=~(entropy >= target), push=push)


def _acting_below(push: Tensor) -> Control:
    """(U + 1,): no push above the target, each of U below it."""
    every = torch.cat([torch.zeros(1, dtype=torch.float64), push])
    return Control(temperature=every.exp(), raise_entropy=torch.arange(len(every)) > 0, push=every)


@dataclass(frozen=True, kw_only=True)
class Hysteresis:
    """Bang-bang that changes its mind only once the error has left a band: fewer switches, a wider limit cycle.

    Raises:
        ValueError: low >= high, or a negative width.
    """

    low: float
    """Output when entropy is to fall."""
    high: float
    """Output when entropy is to rise."""
    width: float = 0.02
    """Half-width of the band around H* inside which the last decision stands, in nats."""

    def __post_init__(self) -> None:
        _limits(self.low, self.high)
        if self.width < 0:
            raise ValueError(f"width must be >= 0, got {self.width}")

    def initial(self, like: Tensor) -> State:
        return {"up": torch.ones_like(like, dtype=torch.bool)}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        error = target - entropy
        # An unknown entropy counts as below the target.
        up = torch.where(error.isnan() | (error > self.width), True, (error >= -self.width) & state["up"])
        push = torch.full_like(entropy, self.high).masked_fill(~up, self.low)
        return {"up": up}, Control(temperature=push.exp(), raise_entropy=up, push=push)

    def controls(self, count: int) -> Control:
        push = torch.tensor([self.low, self.high], dtype=torch.float64)
        return Control(temperature=push.exp(), raise_entropy=torch.tensor([False, True]), push=push)


@dataclass(frozen=True, kw_only=True)
class Proportional:
    """clip(bias + gain (H* - H), low, high): no state; leaves a constant error where a constant push is needed.

    Raises:
        ValueError: low >= high, or gain <= 0.

    >>> _, control = Proportional(gain=2.0, low=-0.5, high=0.5).update({}, torch.tensor([0.4, 0.9]), torch.tensor(0.5))
    >>> control.push
    tensor([ 0.2000, -0.5000])
    """

    gain: float
    low: float
    high: float
    bias: float = 0.0

    def __post_init__(self) -> None:
        _limits(self.low, self.high)
        if not self.gain > 0:
            raise ValueError(f"gain must be > 0, got {self.gain}")

    def initial(self, like: Tensor) -> State:
        return {}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        push = self.bias + self.gain * (target - entropy)
        push = push.nan_to_num(nan=self.high).clamp(self.low, self.high)
        return state, _pushed(push, entropy, target)

    def controls(self, count: int) -> Control:
        return _pushed_either_way(_spread(self.low, self.high, count))


@dataclass(frozen=True, kw_only=True)
class ProportionalIntegral:
    """clip(gain e + I, low, high), e = H* - H, I the sum of rate x e over steps where it may move.

    Anti-windup two ways: I only moves while |e| < `within` (a conditional integral: a large error is the proportional
    part's work), and never further into a limit that the output has reached. I itself stays inside the limits.

    Raises:
        ValueError: low >= high, a negative gain or rate, both 0, or within <= 0.
    """

    gain: float
    rate: float
    low: float
    high: float
    within: float = float("inf")
    """The integral moves only while |e| is below this, in nats."""

    def __post_init__(self) -> None:
        _limits(self.low, self.high)
        if self.gain < 0 or self.rate < 0 or self.gain + self.rate == 0:
            raise ValueError(f"gain and rate must be >= 0 and not both 0, got gain={self.gain}, rate={self.rate}")
        if not self.within > 0:
            raise ValueError(f"within must be > 0, got {self.within}")

    def initial(self, like: Tensor) -> State:
        return {"integral": torch.zeros_like(like)}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        error = target - entropy
        known = error.nan_to_num(nan=0.0)
        integral = state["integral"]
        raw = self.gain * known + integral
        further = ((raw >= self.high) & (known > 0)) | ((raw <= self.low) & (known < 0))
        moves = (known.abs() < self.within) & ~further
        integral = (integral + self.rate * known * moves).clamp(self.low, self.high)
        push = (self.gain * known + integral).clamp(self.low, self.high)
        push = torch.where(error.isnan(), self.high, push)
        return {"integral": integral}, _pushed(push, entropy, target)

    def controls(self, count: int) -> Control:
        return _pushed_either_way(_spread(self.low, self.high, count))


def temperature_law(
    *, gain: float, rate: float, t_low: float, t_high: float, within: float = float("inf")
) -> ProportionalIntegral:
    """PI control of ln T: ln T = clip(gain e + I, ln t_low, ln t_high); rate 0 leaves the proportional part.

    Raises:
        ValueError: not 0 < t_low < t_high, or what `ProportionalIntegral` refuses.
    """
    if not 0 < t_low < t_high:
        raise ValueError(f"t_low must be > 0 and below t_high, got t_low={t_low}, t_high={t_high}")
    return ProportionalIntegral(gain=gain, rate=rate, low=math.log(t_low), high=math.log(t_high), within=within)


@dataclass(frozen=True, kw_only=True)
class AdaptiveGain:
    """Proportional-integral control that finds its own gain: push = clip(g e + I, -1, 1), e = H* - H.

    How far a push moves the entropy depends on the learning rate, the optimizer, the task and the time; a fixed gain
    fits one of them. Here the gain grows by `up` while the error has the sign of the recent errors' mean and shrinks by
    `down` when it has the other one. With down = 1 / up it settles where that happens half of the time, as with white
    noise: more seldom means that errors last and the gain is too small, more often that pushes overshoot. I += `rate`
    g e while |e| < `within` and the output is not at a limit that e pushes into.

    How long the mean remembers decides which swings count as overshoot: those of frequency w with cos w < 1 - `memory`.
    The last error alone (1) is right where a push acts at once. An optimizer with momentum answers late, and a loop
    with too much gain then swings over several steps.

    The gain also shrinks where the error has the other sign than the last one while the push stands at its limit. In a
    cycle of a large error on one side and small ones on the other, the mean has the large one's sign, and by the mean
    alone the gain would stay where it is.

    An error below `band` moves no gain. Without a dead band, a policy that has learnt its task and stands near the
    target with errors of a thousandth of a nat, all of one sign, drives the gain to its limit, and the next
    disturbance is thrown back and forth by it: the bursts of adaptive control where nothing excites it.

    With temperatures, the push's sign picks T (as in bang-bang) and its size is the strength of the second term, so the
    term and its noise vanish where nothing needs to be corrected.

    Raises:
        ValueError: not up >= 1 > down > 0, a negative rate or band, within <= 0, limits of the gain out of order, a
            memory outside (0, 1], or a T range that does not hold 1.
    """

    up: float = 1.05
    down: float = 1 / 1.05
    rate: float = 0.05
    within: float = 0.1
    start: float = 4.0
    """The first gain, per nat."""
    lowest: float = 0.5
    highest: float = 100.0
    memory: float = 1.0
    """Weight of a step's error in the mean whose sign the next error is compared with."""
    band: float = 0.0
    """In nats."""
    t_low: float = 0.5
    t_high: float = 2.0

    def __post_init__(self) -> None:
        if not self.up >= 1 > self.down > 0:
            raise ValueError(f"up >= 1 > down > 0 must hold, got up={self.up}, down={self.down}")
        if self.rate < 0:
            raise ValueError(f"rate must be >= 0, got {self.rate}")
        if not self.within > 0:
            raise ValueError(f"within must be > 0, got {self.within}")
        if not 0 < self.lowest <= self.start <= self.highest:
            raise ValueError(
                f"0 < lowest <= start <= highest must hold, got {self.lowest}, {self.start}, {self.highest}"
            )
        if not 0 < self.memory <= 1:
            raise ValueError(f"memory must be in (0, 1], got {self.memory}")
        if not self.band >= 0:
            raise ValueError(f"band must be >= 0, got {self.band}")
        if not 0 < self.t_low < 1 < self.t_high:
            raise ValueError(f"0 < t_low < 1 < t_high must hold, got t_low={self.t_low}, t_high={self.t_high}")

    def initial(self, like: Tensor) -> State:
        return {
            "gain": torch.full_like(like, self.start),
            "integral": torch.zeros_like(like),
            "error": torch.zeros_like(like),
            "last": torch.zeros_like(like),
        }

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        state, push, _ = self.demanded(state, entropy, target, limit=torch.ones_like(entropy))
        return state, Control(temperature=self._temperature(push), raise_entropy=~(entropy >= target), push=push)

    def demanded(self, state: State, entropy: Tensor, target: Tensor, *, limit: Tensor) -> tuple[State, Tensor, Tensor]:
        """One turn with another limit than 1 on the push.

        Args:
            state, entropy, target: as for `update`.
            limit: (...), > 0.

        Returns:
            The next state; the push in [-limit, limit], which is `limit` where the entropy is unknown; and whether the
            error asks for more than the limit, bool. Each (...).
        """
        unknown = (target - entropy).isnan()
        error = torch.where(unknown, 0.0, target - entropy)
        before = state["gain"] * error + state["integral"]
        at_limit = ((before >= limit) & (error > 0)) | ((before <= -limit) & (error < 0))
        turned = (error * state["error"] < 0) | ((error * state["last"] < 0) & at_limit)
        # Arithmetic in the entropy's dtype: a where over two plain numbers would round them to float32.
        grown = torch.where(turned, self.down * state["gain"], self.up * state["gain"])
        gain = grown.clamp(self.lowest, self.highest)
        gain = torch.where(unknown | (error.abs() < self.band), state["gain"], gain)
        raw = gain * error + state["integral"]
        further = ((raw >= limit) & (error > 0)) | ((raw <= -limit) & (error < 0))
        moves = (error.abs() < self.within) & ~further
        integral = (state["integral"] + self.rate * gain * error * moves).clamp(-limit, limit)
        push = torch.where(unknown, limit, (gain * error + integral).clamp(-limit, limit))
        recent = (1 - self.memory) * state["error"] + self.memory * error
        return {"gain": gain, "integral": integral, "error": recent, "last": error}, push, further

    def controls(self, count: int) -> Control:
        push = _spread(-1.0, 1.0, count)
        return _either_way(self._temperature(push), push)

    def _temperature(self, push: Tensor) -> Tensor:
        hot = torch.full_like(push, self.t_high)
        return torch.where(push > 0, hot, self.t_low)


@dataclass(frozen=True, kw_only=True)
class WideningReach:
    """`AdaptiveGain` whose push may become as large as the target needs: its limit of 1 becomes a reach r >= 1.

    What it follows is a reference that starts at the first entropy and moves towards H* by at most `speed` nats a step:
    a policy that is rushed to a low target has learnt little on its way, and then learns slowly. A target that moves
    no faster is the reference from then on.

    The demand is d = clip(g e + I, -r, r), with e the reference minus H, and g and I as in `AdaptiveGain`. While d
    stands at r, the error asks for more and |e| does not fall below its recent mean, r grows by `grow` a step; else it
    shrinks by as much, never below |d|. The demand is met by rule:

    1. Strength and prompts together: the second term counts |d| times alpha, and |d| times `prompt_fraction` of the
       prompts are sampled again, up to `widest_fraction`. Each unit of strength so keeps its samples: noise, which
       lowers the entropy in proportion to strength over samples, does not grow with the push.
    2. Once no more prompts are left, a wider range: ln T grows with |d| up to that of `t_highest` (`t_lowest`).
    3. Then strength alone, up to `strength` times alpha.

    Raises:
        ValueError: what `AdaptiveGain` refuses, grow <= 1, speed <= 0, strength < 1, a widest range inside the range,
            or not 0 < prompt_fraction <= widest_fraction <= 1.

    >>> law = WideningReach(strength=4.0, t_high=1.5, t_highest=2.25, start=100.0, grow=4.0, speed=9.0)
    >>> state = law.initial(torch.zeros(1))
    >>> for _ in range(3):
    ...     state, control = law.update(state, torch.tensor([0.5]), torch.tensor(1.0))
    ...     print(*(round(float(x), 2) for x in (control.strength, control.temperature, control.prompt_fraction)))
    1.0 1.5 0.25
    4.0 1.5 1.0
    4.0 2.25 1.0
    """

    up: float = 1.05
    down: float = 1 / 1.05
    rate: float = 0.05
    within: float = 0.1
    """The integral moves only while |e| is below this, in nats."""
    start: float = 4.0
    """The first gain, per nat."""
    lowest: float = 0.5
    """Per nat."""
    highest: float = 100.0
    """Per nat."""
    memory: float = 0.1
    """As in `AdaptiveGain`."""
    band: float = 0.01
    grow: float = 1.2
    """Of the reach, per step."""
    smoothing: float = 0.1
    """Weight of a step's |e| in the mean that the next ones are compared with."""
    speed: float = 0.01
    """Nats a step."""
    strength: float = 16.0
    """Largest strength of the second term, times alpha."""
    t_low: float = 0.5
    t_high: float = 2.0
    t_lowest: float = 0.4
    t_highest: float = 2.5
    prompt_fraction: float = 0.25
    """Share of the prompts that are sampled again at a push of at most 1."""
    widest_fraction: float = 1.0
    """The largest share."""

    def __post_init__(self) -> None:
        self._adaptive()
        if not self.grow > 1:
            raise ValueError(f"grow must be > 1, got {self.grow}")
        if not self.speed > 0:
            raise ValueError(f"speed must be > 0, got {self.speed}")
        if not self.strength >= 1:
            raise ValueError(f"strength must be >= 1, got {self.strength}")
        if not (0 < self.t_lowest <= self.t_low and self.t_high <= self.t_highest):
            raise ValueError(
                "0 < t_lowest <= t_low and t_high <= t_highest must hold, got "
                f"{self.t_lowest}, {self.t_low}, {self.t_high}, {self.t_highest}"
            )
        if not 0 < self.prompt_fraction <= self.widest_fraction <= 1:
            raise ValueError(
                "0 < prompt_fraction <= widest_fraction <= 1 must hold, got "
                f"{self.prompt_fraction}, {self.widest_fraction}"
            )

    def _adaptive(self) -> AdaptiveGain:
        return AdaptiveGain(
            up=self.up,
            down=self.down,
            rate=self.rate,
            within=self.within,
            start=self.start,
            lowest=self.lowest,
            highest=self.highest,
            memory=self.memory,
            band=self.band,
            t_low=self.t_low,
            t_high=self.t_high,
        )

    @property
    def covered(self) -> float:
        """The demand at which the widest share of the prompts is sampled again."""
        return min(self.widest_fraction / self.prompt_fraction, self.strength)

    @property
    def largest(self) -> float:
        """The largest demand that any of the three means still answers."""
        return self.strength * max(self._widest(up=True), self._widest(up=False))

    def _widest(self, *, up: bool) -> float:
        """By how much ln T may grow beyond the range."""
        return math.log(self.t_highest if up else self.t_lowest) / math.log(self.t_high if up else self.t_low)

    def initial(self, like: Tensor) -> State:
        zero = torch.zeros_like(like)
        own = {"reach": torch.ones_like(like), "size": zero, "reference": zero, "begun": zero}
        return {**self._adaptive().initial(like), **own}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        reach = state["reach"]
        unknown = entropy.isnan()
        # Before anything is known, every entropy is below what it should be.
        last = torch.where(state["begun"] > 0, state["reference"], torch.where(unknown, target, entropy))
        reference = last + (target - last).clamp(-self.speed, self.speed)
        adaptive, demand, further = self._adaptive().demanded(state, entropy, reference, limit=reach)
        size = demand.abs()
        # A push that brings the entropy nearer is enough, however far away it still is.
        known = (reference - entropy).abs()
        known = torch.where(known.isnan(), state["size"], known)
        lasting = state["size"] + self.smoothing * (known - state["size"])
        further = further & (known >= lasting)
        reach = torch.where(further, self.grow * reach, (reach / self.grow).maximum(size)).clamp(1.0, self.largest)
        up = demand > 0
        # 1. Strength and prompts together, so that the samples a unit of strength has stay as many.
        share = (self.prompt_fraction * size.clamp(min=1.0)).clamp(max=self.widest_fraction)
        # 2. The range, once all prompts are asked again.
        widest = torch.full_like(size, self._widest(up=True)).masked_fill(~up, self._widest(up=False))
        wider = (size / self.covered).clamp(min=1.0).minimum(widest)
        log_t = torch.full_like(size, math.log(self.t_high)).masked_fill(~up, math.log(self.t_low))
        # 3. Strength alone.
        strength = (size / wider).clamp(max=self.strength)
        control = Control(
            temperature=(log_t * wider).exp(),
            raise_entropy=~(entropy >= reference),
            push=demand.sign() * strength,
            prompt_fraction=share,
        )
        begun = state["begun"].maximum((~unknown).to(reach))
        return {**adaptive, "reach": reach, "size": lasting, "reference": reference, "begun": begun}, control

    def controls(self, count: int) -> Control:
        # Nothing, and from the ordinary limit on in equal ratios: the largest demand is tens of times that.
        sizes = _log_spread(1.0, self.largest, max(min(count, 2), count // 2))
        demand = torch.cat([-sizes.flip(0), torch.zeros(1, dtype=torch.float64), sizes])
        # On the target the integral alone demands.
        there = torch.zeros_like(demand)
        reached = {
            "integral": demand,
            "reach": torch.full_like(demand, self.largest),
            "begun": torch.ones_like(demand),
        }
        _, found = self.update({**self.initial(there), **reached}, there, there)
        twice = found.chosen(torch.arange(len(demand)).repeat(2))
        return dataclasses.replace(twice, raise_entropy=_both_directions(len(demand)))


@dataclass(frozen=True, kw_only=True)
class Dual:
    """A coefficient that grows while H < H* and shrinks while H > H*, as SAC's temperature does (Haarnoja et al. 2018).

    ln c <- ln c + rate (H* - H), c in [low, high]. c > 0: it can weaken its push for entropy, never push against it.

    Raises:
        ValueError: not 0 < low < high, rate <= 0, or start outside the limits.
    """

    rate: float
    low: float
    high: float
    start: float

    def __post_init__(self) -> None:
        _limits(self.low, self.high)
        if not self.low > 0:
            raise ValueError(f"low must be > 0, got {self.low}")
        if not self.rate > 0:
            raise ValueError(f"rate must be > 0, got {self.rate}")
        if not self.low <= self.start <= self.high:
            raise ValueError(f"start must be in [low={self.low}, high={self.high}], got {self.start}")

    def initial(self, like: Tensor) -> State:
        return {"log_coef": torch.full_like(like, self.start).log()}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        error = (target - entropy).nan_to_num(nan=0.0)
        lowest, highest = (torch.full_like(error, x).log() for x in (self.low, self.high))
        log_coef = (state["log_coef"] + self.rate * error).clamp(lowest, highest)
        return {"log_coef": log_coef}, _pushed(log_coef.exp(), entropy, target)

    def controls(self, count: int) -> Control:
        return _pushed_either_way(_log_spread(self.low, self.high, count))


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """A coefficient that moves by a fixed step up or down, and acts only while H < H* (Skywork-OR1's adaptive bonus).

    A floor, not a set-point: above H* it does nothing, so it cannot lower entropy.

    Raises:
        ValueError: low >= high, or step <= 0.
    """

    step: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _limits(self.low, self.high)
        if not self.step > 0:
            raise ValueError(f"step must be > 0, got {self.step}")

    def initial(self, like: Tensor) -> State:
        return {"coef": torch.full_like(like, min(max(0.0, self.low), self.high))}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        below = ~(entropy >= target)
        # Arithmetic in the entropy's dtype: a where over two plain numbers would round the step to float32.
        coef = (state["coef"] + self.step * (2 * below.to(entropy.dtype) - 1)).clamp(self.low, self.high)
        return {"coef": coef}, _pushed(coef * below, entropy, target)

    def controls(self, count: int) -> Control:
        return _acting_below(_spread(self.low, self.high, count))


@dataclass(frozen=True, kw_only=True)
class TemperatureScheduler:
    """T <- T (1 + T ln(H* / H) / (ln V + ln ln V)), V the vocabulary (E3, arXiv 2505.18573).

    The state is the temperature that the next responses are sampled at. An unknown entropy moves nothing. The source
    has no limits; without one a large H would make T negative.

    Raises:
        ValueError: a vocabulary below 2, or not 0 < t_low <= 1 <= t_high.

    >>> law = TemperatureScheduler(vocabulary=16, t_low=0.5, t_high=2.0)
    >>> law.update(law.initial(torch.zeros(2)), torch.tensor([0.4, 9.0]), torch.tensor(0.5))[1].temperature
    tensor([1.0588, 0.5000])
    """

    vocabulary: int
    t_low: float
    t_high: float

    def __post_init__(self) -> None:
        if self.vocabulary < 2:
            raise ValueError(f"vocabulary must be at least 2, got {self.vocabulary}")
        if not 0 < self.t_low <= 1 <= self.t_high:
            raise ValueError(f"0 < t_low <= 1 <= t_high must hold, got t_low={self.t_low}, t_high={self.t_high}")

    @property
    def scale(self) -> float:
        """ln V + ln ln V."""
        return math.log(self.vocabulary) + math.log(math.log(self.vocabulary))

    def initial(self, like: Tensor) -> State:
        return {"temperature": torch.ones_like(like)}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        before = state["temperature"]
        moved = before * (1 + before * (target / entropy).log() / self.scale)
        temperature = torch.where(moved.isnan(), before, moved.clamp(self.t_low, self.t_high))
        return {"temperature": temperature}, Control(temperature=temperature, raise_entropy=~(entropy >= target))

    def controls(self, count: int) -> Control:
        return _either_way(_log_spread(self.t_low, self.t_high, count))


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A strength while H < H*, 0 from there on; with a step it climbs below H* and falls above it (STARE).

    Raises:
        ValueError: not 0 < start <= high, or a negative step.

    >>> gate = Gate(start=0.1, step=0.05, high=0.5)
    >>> gate.update(gate.initial(torch.zeros(2)), torch.tensor([0.4, 0.6]), torch.tensor(0.5))[1].push
    tensor([0.1500, 0.0000])
    """

    start: float
    high: float
    step: float = 0.0
    """Per training step."""

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.high:
            raise ValueError(f"strength must be in (0, high={self.high}], got {self.start}")
        if self.step < 0:
            raise ValueError(f"step must be >= 0, got {self.step}")

    def initial(self, like: Tensor) -> State:
        return {"strength": torch.full_like(like, self.start)}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        below = ~(entropy >= target)
        # On the target it stands still.
        towards = below.to(entropy.dtype) - (entropy > target).to(entropy.dtype)
        strength = (state["strength"] + self.step * towards).clamp(0.0, self.high)
        return {"strength": strength}, _pushed(strength * below, entropy, target)

    def controls(self, count: int) -> Control:
        started = torch.tensor([self.start], dtype=torch.float64)
        return _acting_below(_spread(0.0, self.high, count) if self.step else started)


@dataclass(frozen=True, kw_only=True)
class Doubling:
    """A push that doubles while its sign is the wanted one, and halves while it is not, until it turns (REPO-R).

    Below `lowest` a push that halves changes its sign; no push is above `limit`. On the target it stands still.

    Raises:
        ValueError: not 0 < lowest <= limit, or a start outside [-limit, limit].

    >>> loop = Doubling(start=0.01, lowest=0.01, limit=1.0)
    >>> state, control = loop.update(loop.initial(torch.zeros(2)), torch.tensor([0.4, 0.6]), torch.tensor(0.5))
    >>> control.push
    tensor([ 0.0200, -0.0100])
    """

    start: float
    lowest: float
    limit: float

    def __post_init__(self) -> None:
        if not 0 < self.lowest <= self.limit:
            raise ValueError(f"lowest must be in (0, limit={self.limit}], got {self.lowest}")
        if not abs(self.start) <= self.limit:
            raise ValueError(f"start must be in [-limit, limit], limit={self.limit}, got {self.start}")

    def initial(self, like: Tensor) -> State:
        return {"push": torch.full_like(like, self.start)}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        # An unknown entropy counts as below the target.
        wanted = (~(entropy >= target)).to(entropy.dtype) - (entropy > target).to(entropy.dtype)
        along = wanted * state["push"]
        turned = torch.where(-along / 2 < self.lowest, self.lowest, along / 2)
        moved = wanted * torch.where(along > 0, (2 * along).clamp(max=self.limit), turned)
        push = torch.where(wanted == 0, state["push"], moved)
        return {"push": push}, _pushed(push, entropy, target)

    def controls(self, count: int) -> Control:
        sizes = _log_spread(self.lowest, self.limit, count)
        return _pushed_either_way(torch.cat([-sizes, sizes]))


@dataclass(frozen=True, kw_only=True)
class Band:
    """1 below H* - width, -1 above H* + width, 0 between: three modes (Entrocraft).

    Raises:
        ValueError: a negative width.
    """

    width: float = 0.05
    """In nats."""

    def __post_init__(self) -> None:
        if self.width < 0:
            raise ValueError(f"width must be >= 0, got {self.width}")

    def initial(self, like: Tensor) -> State:
        return {}

    def update(self, state: State, entropy: Tensor, target: Tensor) -> tuple[State, Control]:
        error = target - entropy
        below = error.isnan() | (error > self.width)
        push = below.to(entropy.dtype) - (error < -self.width).to(entropy.dtype)
        return state, _pushed(push, entropy, target)

    def controls(self, count: int) -> Control:
        # Inside the band the push is 0 on either side of the target.
        push = torch.tensor([-1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
        return Control(temperature=push.exp(), raise_entropy=torch.tensor([False, False, True, True]), push=push)


@dataclass(frozen=True, kw_only=True, eq=False)
class Loop:
    """The closed loop's memory between steps: the controller's own state and the last entropy that was measured."""

    state: State
    previous_entropy: Tensor
    """(...): nan before the first step. That of the controller's estimator, where it is not the exact one."""
    initial_entropy: Tensor
    """(...): the entropy of the first step, which relative targets are shares of; nan before it."""

    @classmethod
    def start(cls, controller: Controller, like: Tensor) -> "Loop":
        """The loop before step 0; `like` gives the runs' shape, dtype and device."""
        unknown = torch.full_like(like, float("nan"))
        return cls(state=controller.initial(like), previous_entropy=unknown, initial_entropy=unknown)

    def replace(self, **changes: Tensor) -> "Loop":
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def decide(
        self,
        controller: Controller,
        *,
        entropy: Tensor,
        target: Tensor | float,
        sees: Sees,
        step: int = 0,
        relative: bool = False,
    ) -> tuple["Loop", Control]:
        """One turn of the loop: this step's control, and the memory for the next step.

        Args:
            controller: any controller.
            entropy: (...), H measured on this step's T = 1 rollouts.
            target: H*, a number or (...).
            sees: which entropy the controller is shown.
            step: the training step, which the control carries.
            relative: whether `target` is a share of the first step's entropy, not nats.
        """
        if sees not in ("current", "previous"):
            raise ValueError(f"sees must be 'current' or 'previous', got {sees!r}")
        seen = entropy if sees == "current" else self.previous_entropy
        target = torch.as_tensor(target, dtype=entropy.dtype, device=entropy.device)
        initial = torch.where(self.initial_entropy.isnan(), entropy, self.initial_entropy)
        if relative:
            target = target * initial
        state, control = controller.update(self.state, seen, target)
        control = dataclasses.replace(control, target=target.expand_as(entropy), error=target - seen, step=step)
        return Loop(state=state, previous_entropy=entropy, initial_entropy=initial), control
