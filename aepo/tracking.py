"""How well an entropy follows its target: the numbers that every report of ours prints.

Arguments are NumPy arrays over steps (last axis); leading axes are runs.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# A duty cycle above this is the signature of a controller at its limit.
SATURATED_DUTY = 0.95
DUTY_STEPS = 50
"""Steps that the duty cycle is taken over while a run goes on, and the least between two warnings."""


def last_half(values: Array) -> Array:
    """The last half of a run, the part that every |H - H*| of ours is averaged over: (..., S) -> (..., ceil(S / 2))."""
    return values[..., values.shape[-1] // 2 :]


def tracking_error(entropy: Array, target: Array | float) -> Array:
    """Mean |H - H*| over the last half of each run, in nats: (..., S) -> (...).

    >>> float(tracking_error(np.array([9.0, 9.0, 0.4, 0.6]), 0.5).round(3))
    0.1
    """
    return last_half(np.abs(np.asarray(entropy) - target)).mean(-1)


def duty_cycle(raise_entropy: Array) -> tuple[Array, Array]:
    """Share of the last half's steps in which the controller pushed up, and down: (..., S) bool -> (...), (...).

    Near 100 % on one side means too little authority: the controller pushes all the time and does not arrive.

    >>> up, down = duty_cycle(np.array([0, 0, 1, 1]))
    >>> float(up), float(down)
    (1.0, 0.0)
    """
    up = last_half(np.asarray(raise_entropy, dtype=float)).mean(-1)
    return up, 1 - up


def overshoot(entropy: Array, target: Array | float) -> Array:
    """How far a run goes past its target after first reaching it, in nats; 0 if it never reaches it: (..., S) -> (...).

    A run that starts above its target overshoots below it, and the other way round.

    >>> float(overshoot(np.array([2.0, 1.0, 0.4, 0.5, 0.6]), 0.5).round(3))
    0.1
    """
    error = np.asarray(entropy) - target
    side = np.sign(error[..., :1])
    past = -side * error
    return np.maximum(past.max(-1), 0.0)


def settling_step(entropy: Array, target: Array | float, *, band: float) -> Array:
    """The first step from which |H - H*| <= band in nine of ten of the steps that follow; nan if there is none.

    (..., S) -> (...). Nine of ten, because sampled runs leave any narrow band now and then.

    >>> float(settling_step(np.array([2.0, 1.0, 0.5, 0.5]), 0.5, band=0.05))
    2.0
    """
    inside = np.abs(np.asarray(entropy) - target) <= band
    steps = inside.shape[-1]
    following = np.cumsum(inside[..., ::-1], -1)[..., ::-1] / np.arange(steps, 0, -1)
    settled = inside & (following >= 0.9)
    # A stretch at the very end says nothing about settling.
    settled[..., steps - max(1, steps // 20) + 1 :] = False
    return np.where(settled.any(-1), settled.argmax(-1), np.nan)


def time_in_band(entropy: Array, target: Array | float, *, band: float) -> Array:
    """Share of the last half's steps with |H - H*| <= band: (..., S) -> (...).

    >>> float(time_in_band(np.array([9.0, 9.0, 0.5, 0.7]), 0.5, band=0.05))
    0.5
    """
    return (last_half(np.abs(np.asarray(entropy) - target)) <= band).mean(-1)


def worst_error(entropy: Array, target: Array | float) -> Array:
    """Largest |H - H*| over the last half of each run, in nats: (..., S) -> (...).

    >>> float(worst_error(np.array([9.0, 9.0, 0.4, 0.7]), 0.5).round(3))
    0.2
    """
    return last_half(np.abs(np.asarray(entropy) - target)).max(-1)


def initial_slope(entropy: Array, *, steps: int) -> Array:
    """Least-squares slope of the entropy over the first `steps` steps, in nats per step: (..., S) -> (...).

    >>> float(initial_slope(np.array([1.0, 0.9, 0.8, 5.0]), steps=3).round(3))
    -0.1
    """
    window = np.asarray(entropy)[..., :steps]
    time = np.arange(window.shape[-1]) - (window.shape[-1] - 1) / 2
    return (window * time).sum(-1) / (time * time).sum()
