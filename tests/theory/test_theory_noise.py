"""A noisy loop's mean error: exact expectations over finite trees and chains against the bound, and when it fails."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import BULK, EPS, assert_every, seeds

from aepo.theory import moving_target_bound, noise_error_bound

OUTCOMES = 3
SHAPES = ("spread", "rare", "two", "sure")
"""What the outcomes of a step are like: anything, one of them rare and large, two of them, no noise at all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """n independent trees of random steps that meet the premise in every node, with exact expectations, n first."""

    shape: np.ndarray
    """(n,): which of SHAPES the steps are."""
    authority: np.ndarray
    step: np.ndarray
    speed: np.ndarray
    """(n,) each: eps, B, delta."""
    mean_error: np.ndarray
    """(n, depth + 1): E|e_k|."""
    mean_square: np.ndarray
    """(n, depth + 1): E e_k^2."""

    def __len__(self) -> int:
        return len(self.mean_error)


def standardised(generator, shape: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, nodes, OUTCOMES) values of mean 0 and second moment 1 (0 if sure), and their chances."""
    size = (len(shape), nodes, OUTCOMES)
    chance = generator.dirichlet(np.ones(OUTCOMES), size[:2])
    rare = np.array([1e-3, 0.5, 0.499])
    kind = shape[:, None, None]
    chance = np.select([kind == "rare", kind == "two"], [rare, np.array([0.5, 0.5, 0.0])], chance)
    value = generator.normal(size=size) + (kind == "rare") * np.array([30.0, 0.0, 0.0])
    value -= (chance * value).sum(-1, keepdims=True)
    value /= np.sqrt((chance * value**2).sum(-1, keepdims=True))
    return np.where(kind == "sure", 0.0, value), chance


def trees(seed: int, *, depth: int = 5, rows: int = 512, exact: bool = False, moving: bool = True) -> Trees:
    """Each node has a mean step and noise of its own; `exact`: mean eps, mean square B^2.

    A tree's target moves by one number per step, whatever the history: it is a schedule.
    """
    generator = np.random.default_rng(seed)
    shape = np.asarray(SHAPES)[np.arange(rows) % len(SHAPES)]
    b = np.exp(generator.uniform(-4.0, 0.0, rows))
    eps = b * generator.choice([0.05, 0.3, 0.7, 1.0], rows) * (1 - 1e-12)
    delta = eps * generator.choice([0.0, 0.3, 0.9], rows) * moving
    error = (b * generator.normal(size=rows) * generator.choice([0.0, 1.0, 5.0], rows))[:, None]
    chance = np.ones((rows, 1))
    mean_error, mean_square = np.empty((rows, depth + 1)), np.empty((rows, depth + 1))
    for k in range(depth + 1):
        mean_error[:, k] = (chance * np.abs(error)).sum(-1)
        mean_square[:, k] = (chance * error**2).sum(-1)
        if k == depth:
            break
        nodes = error.shape[-1]
        value, weight = standardised(generator, shape, nodes)
        share = np.ones((rows, nodes)) if exact else generator.choice([0.0, 0.5, 1.0], (rows, nodes))
        mean = eps[:, None] if exact else eps[:, None] + (b - eps)[:, None] * generator.random((rows, nodes)) * 0.9
        spread = share * np.sqrt(np.maximum(0.0, b[:, None] ** 2 - mean**2))
        move = delta * generator.choice([-1.0, 0.0, 1.0], rows)
        step = np.where(error > 0, -mean, mean)[..., None] + spread[..., None] * value
        error = (error[..., None] + step - move[:, None, None]).reshape(rows, -1)
        chance = (chance[..., None] * weight).reshape(rows, -1)
    return Trees(shape=shape, authority=eps, step=b, speed=delta, mean_error=mean_error, mean_square=mean_square)


def numbers_of(batch: Trees) -> dict[str, np.ndarray]:
    return {"authority": batch.authority, "step": batch.step, "speed": batch.speed}


# -- (b) --


def test_the_mean_error_of_a_noisy_loop_is_below_the_bound_after_any_number_of_steps():
    met = Counter()

    @BULK
    @given(seeds)
    def law(seed):
        batch = trees(seed)
        start = batch.mean_error[:, 0]
        for n in range(1, batch.mean_error.shape[-1] + 1):
            bound = noise_error_bound(start, n, **numbers_of(batch))
            mean = batch.mean_error[:, :n].mean(-1)
            assert_every(mean <= bound * (1 + 64 * EPS), batch, bound=bound)
            met["more than half the bound"] += int((mean > 0.5 * bound).sum())
        met["instances"] += len(batch)
        met["moving"] += int((batch.speed > 0).sum())
        met["error grew"] += int((batch.mean_error[:, -1] > start).sum())
        # A single path may leave the band of a loop without noise: the bound is of expectations.
        band = moving_target_bound(0.0, 1, **numbers_of(batch))
        met["outside the band on average"] += int((batch.mean_error[:, -1] > band).sum())
        for name in SHAPES:
            met[name] += int((batch.shape == name).sum())

    law()
    print(dict(met))
    assert met["instances"] >= 20_000
    assert met["moving"] > 0.5 * met["instances"]
    for name in ("more than half the bound", "error grew", "outside the band on average", *SHAPES):
        assert met[name] > 2_000, name


def test_with_drift_eps_and_second_moment_b_squared_what_is_left_of_the_bound_is_the_last_squared_error():
    # Nothing is lost in the proof then but E e_n^2 >= 0: the bound less E e_n^2 / (2 eps n) is the mean error itself.
    met = Counter()

    @BULK
    @given(seeds)
    def law(seed):
        batch = trees(seed, exact=True, moving=False)
        chosen = batch.shape != "sure"
        n = batch.mean_error.shape[-1] - 1
        start = batch.mean_error[:, 0]
        bound = noise_error_bound(start, n, authority=batch.authority, step=batch.step)
        left = batch.mean_square[:, -1] / (2 * batch.authority * n)
        mean = batch.mean_error[:, :-1].mean(-1)
        assert_every(~chosen | (np.abs(bound - left - mean) <= 1e-9 * bound), batch, bound=bound, left=left)
        met["instances"] += int(chosen.sum())

    law()
    assert met["instances"] >= 20_000


def chain(start: int, *, up: float, down: float, steps: int) -> np.ndarray:
    """(steps,): E|e_k| of a walk on the whole numbers: one step towards 0 has the chance `down`, away `up`."""
    reach = abs(start) + steps + 1
    place = np.arange(-reach, reach + 1)
    chance = (place == start).astype(np.float64)
    result = []
    for _ in range(steps):
        result.append((chance * np.abs(place)).sum())
        right = np.select([place < 0, place == 0], [down, 0.5], up)
        after = np.zeros_like(chance)
        after[1:] += (chance * right)[:-1]
        after[:-1] += (chance * (1 - right))[1:]
        chance = after
    return np.array(result)


@pytest.mark.parametrize("eps", [0.5, 0.25, 0.125])
def test_a_long_walk_comes_as_near_to_the_bound_as_one_likes(eps):
    # Steps of length 1, drift eps: B^2 / (2 eps) is what the mean error tends to.
    errors = chain(3, up=(1 - eps) / 2, down=(1 + eps) / 2, steps=3_000)
    bound = noise_error_bound(3.0, 3_000, authority=eps, step=1.0)
    assert 0.98 * bound < errors.mean() <= bound
    # After an even number of steps the walk is on an odd place and after an odd one on an even place.
    assert errors[-2:].mean() == pytest.approx(1 / (2 * eps), rel=1e-6)


# -- without a premise --


def test_without_a_drift_no_amount_of_averaging_helps():
    # A fair coin: the second moment is 1 as before, and the mean error grows as the root of the number of steps.
    errors = chain(0, up=0.5, down=0.5, steps=2_000)
    assert errors.mean() > 20 > noise_error_bound(0.0, 2_000, authority=0.125, step=1.0)


def test_without_a_bound_on_the_second_moment_a_loop_with_all_the_drift_one_likes_may_overshoot_for_ever():
    errors = 5.0 * np.resize([1.0, -1.0], 1_000)
    assert (np.abs(np.diff(errors)) == 10.0).all() and (np.sign(np.diff(errors)) == -np.sign(errors[:-1])).all()
    assert np.abs(errors).mean() == 5.0 > noise_error_bound(5.0, 1_000, authority=1.0, step=1.0)


def test_a_drift_that_is_right_on_average_but_not_given_the_past_is_not_enough():
    # Half the runs stand still 3 above the target; the others go to and fro between 0.5 and -0.5 by steps of length 1.
    # The mean step towards the target is 1/2, its mean square 1/2; both are averages over the runs.
    mean_error = (3.0 + 0.5) / 2
    assert mean_error > noise_error_bound(np.sqrt((3.0**2 + 0.5**2) / 2), 1_000, authority=0.5, step=np.sqrt(0.5))


def test_a_target_as_fast_as_the_drift_is_not_bounded():
    # H and H* rise together by 1/4 a step.
    assert np.isnan(noise_error_bound(3.0, 1_000, authority=0.25, step=0.25, speed=0.25))
    # At half that speed a loop without noise is, and the bound for a target at rest would be too small for it.
    errors = np.array([e := -0.25] + [e := min(e + 0.25, 0.0) - 0.125 if e < 0 else -0.375 for _ in range(999)])
    assert np.abs(errors).mean() <= noise_error_bound(0.25, 1_000, authority=0.25, step=0.25, speed=0.125)


@pytest.mark.parametrize("speed", [0.0, 0.3])
def test_the_bound_by_hand(speed):
    # (1.2^2 / 10 + (0.5 + delta)^2) / (2 (0.4 - delta))
    want = (0.144 + (0.5 + speed) ** 2) / (2 * (0.4 - speed))
    assert noise_error_bound(-1.2, 10, authority=0.4, step=0.5, speed=speed) == pytest.approx(want, rel=1e-14)


@BULK
@given(seeds, st.integers(1, 50))
def test_leading_axes_are_instances(seed, n):
    generator = np.random.default_rng(seed)
    e, eps = generator.normal(size=(2, 1)), generator.uniform(0.1, 1.0, 3)
    whole = noise_error_bound(e, n, authority=eps, step=1.0, speed=0.05)
    assert whole.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            assert whole[i, j] == noise_error_bound(e[i, 0], n, authority=eps[j], step=1.0, speed=0.05)
