"""The floor of the noise: no target, control or mixture of controls is nearer, some control is as near."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from strategies import BULK, EPS, assert_every, seeds

from aepo.theory import estimated_floor, median, noise_floor

KINDS = ("spread", "ties", "equal chances", "sure", "impossible outcomes")


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """n independent states: what H' may be under each control, n first."""

    kind: np.ndarray
    """(n,): which of KINDS each is."""
    values: np.ndarray
    """(n, U, A)."""
    chance: np.ndarray
    """(n, U, A)."""

    def __len__(self) -> int:
        return len(self.values)


def outcomes(seed: int, *, rows: int = 512) -> Outcomes:
    generator = np.random.default_rng(seed)
    size = (rows, int(generator.integers(1, 6)), int(generator.integers(1, 8)))
    kind = np.asarray(KINDS)[np.arange(rows) % len(KINDS)]
    row = kind[:, None, None]
    # Each control has a width of its own, so that the least one is not a matter of chance alone.
    values = generator.normal(size=size) * np.exp(generator.normal(size=(*size[:2], 1))) + generator.normal(size=size)
    values = np.select([row == "ties", row == "sure"], [np.rint(values), values[..., :1]], values)
    chance = generator.dirichlet(np.ones(size[-1]), size[:2])
    kept = (generator.random(size) < 0.5) | (np.arange(size[-1]) == 0)
    kept = kept * chance / (kept * chance).sum(-1, keepdims=True)
    even = np.full(size, 1.0 / size[-1])
    chance = np.select([row == "equal chances", row == "impossible outcomes"], [even, kept], chance)
    return Outcomes(kind=kind, values=values, chance=chance)


def distance(batch: Outcomes, c: np.ndarray) -> np.ndarray:
    """(n, U): E|H' - c| for c (n,) or (n, U)."""
    at = np.broadcast_to(np.reshape(c, (len(batch), -1)), batch.values.shape[:2])
    return (batch.chance * np.abs(batch.values - at[..., None])).sum(-1)


def last_place(batch: Outcomes) -> np.ndarray:
    return 64 * EPS * (1 + np.abs(batch.values).max((-1, -2)))


# -- (c) --


def test_the_floor_is_the_least_expected_distance_over_every_control_and_every_target():
    met = Counter()

    @BULK
    @given(seeds)
    def law(seed):
        batch = outcomes(seed)
        floor, noise = noise_floor(batch.values, batch.chance), last_place(batch)
        # E|H' - c| is convex and piecewise straight in c, with its corners at the values: its least is at one of them.
        corners = (batch.chance[..., None, :] * np.abs(batch.values[..., None, :] - batch.values[..., None])).sum(-1)
        assert_every(np.abs(floor - corners.min((-1, -2))) <= noise, batch, floor=floor)
        met["instances"] += len(batch)
        met["above 0"] += int((floor > noise).sum())
        met["several controls"] += len(batch) * (batch.values.shape[1] > 1)
        for name in KINDS:
            met[name] += int((batch.kind == name).sum())

    law()
    print(dict(met))
    assert met["instances"] >= 20_000 and met["above 0"] > 0.5 * met["instances"]
    assert met["several controls"] > 0.5 * met["instances"]
    for name in KINDS:
        assert met[name] > 2_000, name


@BULK
@given(seeds)
def test_half_of_the_chance_is_on_either_side_of_the_median_and_no_number_is_nearer(seed):
    batch = outcomes(seed)
    m, noise = median(batch.values, batch.chance), last_place(batch)
    low = (batch.chance * (batch.values <= m[..., None])).sum(-1)
    high = (batch.chance * (batch.values >= m[..., None])).sum(-1)
    assert_every((np.minimum(low, high) >= 0.5 - 1e-11).all(-1), batch, median=m)
    c = np.random.default_rng(seed).normal(size=m.shape) * 2
    assert_every((distance(batch, m) <= distance(batch, c) + noise[:, None]).all(-1), batch, median=m, c=c)


@BULK
@given(seeds)
def test_a_controller_that_draws_its_control_is_no_nearer_to_any_target_than_the_floor(seed):
    batch = outcomes(seed)
    generator = np.random.default_rng(seed)
    weight = generator.dirichlet(np.ones(batch.values.shape[1]), len(batch))
    target = generator.normal(size=len(batch))
    error = (weight * distance(batch, target)).sum(-1)
    floor = noise_floor(batch.values, batch.chance)
    assert_every(error >= floor - last_place(batch), batch, error=error, floor=floor)


def test_no_rule_beats_the_mean_of_the_floors_along_a_run_and_the_best_one_attains_it():
    # Every rule of a two-step tree, the control of each node by the history: H' = H + drift_u + noise_u, and a target
    # that the median of the best control meets (`fair`) or any other.
    met = Counter()

    @BULK
    @given(seeds)
    def law(seed):
        generator = np.random.default_rng(seed)
        rows = 256
        step = generator.normal(size=(rows, 3, 2))  # three controls, two outcomes
        chance = generator.dirichlet(np.ones(2), (rows, 3))
        fair = np.arange(rows) % 2 == 0
        start = np.zeros((rows, 1))
        weight = np.ones((rows, 1))
        floors, errors = [], []
        rule = generator.integers(0, 4, (rows, 1))  # 3: the control whose floor is the least, else always that one
        for _ in range(2):
            values = start[..., None, None] + step[:, None]  # (rows, nodes, U, A)
            p = np.broadcast_to(chance[:, None], values.shape)
            own = noise_floor(values[..., None, :], p[..., None, :])  # (rows, nodes, U): each control's own
            best = own.argmin(-1)
            chosen = np.where(rule == 3, best, rule)[..., None, None]
            after = np.take_along_axis(values, chosen, -2)[..., 0, :]
            q = np.take_along_axis(p, chosen, -2)[..., 0, :]
            target = np.where(fair[:, None], median(after, q), 0.3 * generator.normal(size=start.shape))
            floors.append((weight * noise_floor(values, p)).sum(-1))
            errors.append((weight * (q * np.abs(after - target[..., None])).sum(-1)).sum(-1))
            start = after.reshape(rows, -1)
            weight = (weight[..., None] * q).reshape(rows, -1)
        floor, error = np.mean(floors, axis=0), np.mean(errors, axis=0)
        assert (error >= floor - 1e-12).all()
        attains = fair & (rule[:, 0] == 3)
        assert (np.abs(error - floor)[attains] <= 1e-12).all()
        met["instances"] += rows
        met["attained"] += int(attains.sum())
        met["above"] += int((error > 1.05 * floor + 1e-9).sum())

    law()
    print(dict(met))
    assert met["attained"] > 1_000 and met["above"] > 5_000


def test_by_default_the_outcomes_are_equally_likely():
    values = np.random.default_rng(3).normal(size=(40, 3, 7))
    even = np.full(values.shape, 1 / 7)
    np.testing.assert_array_equal(median(values), median(values, even))
    np.testing.assert_array_equal(
        median(values), np.median(values, axis=-1)
    )  # an odd number of them: one in the middle
    np.testing.assert_allclose(noise_floor(values), noise_floor(values, even), rtol=1e-15)


@pytest.mark.parametrize(
    ("chance", "want"), [(None, 0.25), ([[0.5, 0.5], [0.1, 0.9]], 0.05), ([[1, 0], [0.5, 0.5]], 0)]
)
def test_the_floor_by_hand(chance, want):
    # Two apart under the first control, a half under the second; with chances of 1/10 and 9/10 a tenth of a half.
    assert noise_floor([[1.0, 3.0], [0.5, 1.0]], chance) == pytest.approx(want, rel=1e-14)


# -- from samples --


def test_the_floor_lies_between_the_means_of_its_two_estimates():
    # The means of both over every sample of three, exactly: two controls of two outcomes have 2^6 of them.
    generator = np.random.default_rng(5)
    below = above = 0
    for _ in range(60):
        values = generator.normal(size=(2, 2)) * np.exp(generator.normal(size=(2, 1)))
        chance = generator.dirichlet(np.ones(2), 2)
        index = np.array(list(itertools.product(range(2), repeat=6))).reshape(-1, 2, 3)
        control = np.arange(2)[:, None]
        weight = chance[control, index].prod((-1, -2))
        low, high = ((weight * one).sum() for one in estimated_floor(values[control, index]))
        floor = noise_floor(values, chance)
        assert low <= floor + 1e-14 and high >= floor - 1e-14
        below += low < 0.9 * floor
        above += high > 1.1 * floor
    assert below > 30 and above > 30, "with three samples neither estimate is the floor"


def test_both_estimates_go_to_the_floor():
    generator = np.random.default_rng(1)
    samples = generator.normal(size=(300, 3, 200)) * np.array([[3.0], [1.0], [1.1]])
    low, high = estimated_floor(samples)
    # E|X| of a normal number is sqrt(2 / pi); 300 means of 200.
    assert low.mean() == pytest.approx(np.sqrt(2 / np.pi), rel=0.03)
    assert high.mean() == pytest.approx(np.sqrt(2 / np.pi), rel=0.03)
    assert low.mean() < high.mean()


def test_the_estimates_by_hand():
    # Of 0, 1, 5 the median is 1: (1 + 0 + 4) / 3. Without 0: the lower of 1 and 5 is 1, 1 away; without 1: 0, 1 away;
    # without 5: 0, 5 away. A second control of more noise is never chosen, one without noise always.
    low, high = estimated_floor([[0.0, 1.0, 5.0], [0.0, 10.0, -10.0]])
    assert (low, high) == (pytest.approx(5 / 3), pytest.approx(7 / 3))
    assert estimated_floor([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]]) == (0.0, 0.0)


def test_one_sample_says_nothing_of_noise():
    with pytest.raises(ValueError, match="samples must be at least 2 of each control, got 1"):
        estimated_floor([[1.0]])


# -- without a premise --


def test_a_target_that_follows_the_outcome_is_met_below_the_floor():
    # A coin's two sides: the floor is 1, the distance to the outcome itself 0.
    coin = np.array([1.0, -1.0])
    assert noise_floor(coin[None]) == 1.0 > np.abs(coin - coin).mean()


def test_a_control_that_was_not_allowed_may_be_below_the_floor():
    assert noise_floor([[1.0, -1.0]]) > noise_floor([[1.0, -1.0], [0.1, -0.1]])


def test_the_distance_to_the_mean_is_no_floor():
    # 0 nine times in ten, 1 else: 0.18 from the mean 0.1, and 0.1 from the median.
    values, chance = np.array([[0.0, 1.0]]), np.array([[0.9, 0.1]])
    to_the_mean = (chance * np.abs(values - (chance * values).sum())).sum()
    assert to_the_mean == pytest.approx(0.18) and noise_floor(values, chance) == pytest.approx(0.1)


def test_leading_axes_are_instances():
    generator = np.random.default_rng(0)
    values, chance = generator.normal(size=(2, 3, 4, 5)), generator.dirichlet(np.ones(5), (2, 3, 4))
    floor, middle = noise_floor(values, chance), median(values, chance)
    assert floor.shape == (2, 3) and middle.shape == (2, 3, 4)
    for i in range(2):
        for j in range(3):
            assert floor[i, j] == noise_floor(values[i, j], chance[i, j])
            np.testing.assert_array_equal(middle[i, j], [median(values[i, j, u], chance[i, j, u]) for u in range(4)])
