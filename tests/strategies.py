"""Every hypothesis generator of the tests, corners first, and the exact and float64 helpers that they share.

Letters as in `aepo.batch`: ... runs, R rows, T tokens, G rows of a group, P prompts, V actions. Everything is
float64. Structure (shapes, lengths, rewards, options) is drawn by hypothesis, so that it shrinks; bulk
numbers come from a generator seeded by it.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

import hypothesis.extra.numpy as hnp
import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from aepo import zoo
from aepo.batch import Batch, Rollouts
from aepo.controller import Control
from aepo.method import NORMALIZERS, Method
from aepo.schedule import CHANGES

EPS = float(np.finfo(np.float64).eps)

seeds = st.integers(0, 2**32 - 1)
run_shapes = st.sampled_from([(), (1,), (3,), (2, 2)])


def double(values) -> Tensor:
    """A float64 tensor of nested lists or an array."""
    return torch.as_tensor(values, dtype=torch.float64)


def assert_close(got: Tensor, want, *, rtol: float = 0.0, atol: float = 0.0) -> None:
    """`got` equals `want` within the tolerances, in value, in shape and in being float64."""
    torch.testing.assert_close(got, double(want), rtol=rtol, atol=atol)


# -- exact arithmetic --


def exact_log_softmax(z: Iterable[float], temperature: float | Decimal = 1.0) -> list[Decimal]:
    """z_a / T - ln sum_b exp(z_b / T) in 50-digit arithmetic, as written: no shift by the maximum."""
    with localcontext() as context:
        context.prec = 50
        scaled = [Decimal(float(value)) / Decimal(temperature) for value in z]
        total = sum(value.exp() for value in scaled).ln()
        return [value - total for value in scaled]


def exact_entropy(z: Iterable[float], temperature: float | Decimal = 1.0) -> Decimal:
    """-sum_a p_a ln p_a in 50-digit arithmetic."""
    with localcontext() as context:
        context.prec = 50
        return -sum(value.exp() * value for value in exact_log_softmax(z, temperature))


# -- policies --


@st.composite
def logits(draw, *, min_actions: int = 2, max_actions: int = 8, largest: float = 30.0) -> Tensor:
    """(V,) logits in [-largest, largest]: grids, ties, one action dominating, gaps over 50, constants.

    Gaps over 50, where probabilities fall below the rounding of 1, appear when `largest` allows them.
    """
    actions = draw(st.integers(min_actions, max_actions))
    kind = draw(st.sampled_from(["grid", "ties", "floats", "dominating", "extremes", "constant"]))
    if kind == "grid":
        scale = draw(st.sampled_from([0.005, 0.05, 0.1, 0.2]))
        bound = int(min(20, largest / scale))
        values = draw(hnp.arrays(np.int64, actions, elements=st.integers(-bound, bound))) * scale
    elif kind == "ties":
        values = draw(hnp.arrays(np.int64, actions, elements=st.integers(-1, 1))) * 0.5
    elif kind == "floats":
        values = draw(hnp.arrays(np.float64, actions, elements=st.floats(-largest, largest, width=32)))
    elif kind == "dominating":
        values = draw(hnp.arrays(np.int64, actions, elements=st.integers(-2, 2))) * 0.5 - largest / 2
        values[draw(st.integers(0, actions - 1))] = largest
    elif kind == "extremes":
        values = draw(hnp.arrays(np.int64, actions, elements=st.integers(-1, 1))) * largest
    else:
        values = np.full(actions, draw(st.floats(-largest, largest, width=32)))
    return double(np.asarray(values, dtype=np.float64))


# A quarter to four: beyond that the tempered policy is the argmax, or uniform, to the last digit.
temperatures = st.one_of(st.sampled_from([0.8, 1.0, 1.2]), st.floats(0.25, 4.0))


@st.composite
def correct_sets(draw, actions: int) -> Tensor:
    """(V,) bool, never empty: one, several or all actions."""
    chosen = draw(st.sets(st.integers(0, actions - 1), min_size=1, max_size=actions))
    return torch.tensor([a in chosen for a in range(actions)])


# -- theory: many one-state instances at a time --

CORNERS = ("normal", "grid", "ties", "near ties", "dominating", "far apart")
"""What the logits of a `States` are like."""


@dataclass(frozen=True, kw_only=True, eq=False)
class States:
    """n independent instances of one K, n first, as every function of `aepo.theory` takes them."""

    corner: np.ndarray
    """(n,): which of CORNERS each is, for the count of what was met."""
    logits: np.ndarray
    """(n, K)."""
    correct: np.ndarray
    """(n, K) bool, A*."""
    temperature: np.ndarray
    """(n,)."""
    lr: np.ndarray
    """(n,)."""

    def __len__(self) -> int:
        return len(self.logits)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        # What hypothesis prints of a failing example; `assert_every` shows the numbers of the instance.
        printer.text(f"<{len(self)} instances, K = {self.logits.shape[-1]}>")

    def where(self, rows: np.ndarray) -> "States":
        """The chosen instances, by a mask or by indices."""
        return dataclasses.replace(self, **{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)})


def bulk_logits(generator: np.random.Generator, corner: str, rows: int, actions: int) -> np.ndarray:
    """(rows, actions) logits of one of the CORNERS."""
    shape, column = (rows, actions), (rows, 1)
    normal = generator.normal(size=shape)
    if corner == "grid":
        return generator.integers(-20, 21, shape) * generator.choice([0.005, 0.05, 0.1, 0.2], column)
    if corner == "ties":
        return generator.integers(-1, 2, shape) * generator.choice([0.5, 2.0], column)
    if corner == "near ties":  # of all actions, or of every other action with the one before it
        near = normal * generator.choice([1e-5, 1e-3, 1e-2], column)
        pairs = np.repeat(normal[:, : (actions + 1) // 2], 2, axis=1)[:, :actions]
        return near + pairs * generator.integers(0, 2, column)
    if corner == "dominating":
        leader = generator.integers(0, actions, column) == np.arange(actions)
        return 0.5 * normal + leader * generator.uniform(4.0, 14.0, column)
    if corner == "far apart":  # the likeliest action stays; each other one may fall by more than 50
        fallen = (generator.random(shape) < 0.5) & (normal < normal.max(-1, keepdims=True))
        return normal - fallen * generator.uniform(53.0, 60.0, column)
    return normal * generator.choice([0.3, 1.0, 3.0], column)


@st.composite
def states(
    draw,
    *,
    corners: tuple[str, ...] = CORNERS,
    min_actions: int = 2,
    max_actions: int = 8,
    temperature: tuple[float, float] = (0.25, 4.0),
    lr: tuple[float, float] = (1e-3, 10.0),
) -> States:
    """Hundreds of instances of one K, every corner in equal parts; A* is one action, several or all of them.

    Temperatures and step sizes are spread evenly over the logarithms of their ranges.
    """
    actions = draw(st.integers(min_actions, max_actions))
    rows = draw(st.sampled_from([256, 512, 1024]))
    generator = np.random.default_rng(draw(seeds))
    # Each example has all corners and all sizes of A*: which ones a law meets is not left to luck.
    corner = np.asarray(corners)[np.arange(rows) % len(corners)]
    z = np.empty((rows, actions))
    for name in corners:
        z[corner == name] = bulk_logits(generator, name, int((corner == name).sum()), actions)
    one = generator.integers(0, actions, (rows, 1)) == np.arange(actions)
    others = generator.choice([0.0, 0.5, 1.0], (rows, 1))  # one, some or all
    correct = one | (generator.random(z.shape) < others)
    t, step = (np.exp(generator.uniform(*np.log(bounds), rows)) for bounds in (temperature, lr))
    return States(corner=corner, logits=z, correct=correct, temperature=t, lr=step)


# An example is hundreds of instances, so that 60 of them are some 30,000 instances, in either profile.
BULK = settings(max_examples=60)
# The two headline claims: at least 20,000 instances that meet the premise, whatever is drawn.
HEADLINE = 120

PREMISE = -1e-8
"""Delta H(1) of a collapsing state is below this: far enough from 0 for float64 to know its sign."""


def collapsing(batch: States) -> States:
    """The same states with Delta H(1) < PREMISE: correct actions that raise entropy are dropped, the worst first.

    The action that lowers entropy most is made correct where the premise needs it. States whose Delta H(1) is tiny for
    every A*, all but constant logits, are left out.
    """
    z = batch.logits
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    d = p * (z - (p * z).sum(-1, keepdims=True))
    lowers = p * (d - (p * d).sum(-1, keepdims=True))  # what each action subtracts from the entropy
    best = lowers == lowers.max(-1, keepdims=True)
    alone = (lowers * batch.correct).max(-1, keepdims=True) < -2 * PREMISE
    correct = batch.correct | (best & alone)
    order = np.argsort(np.where(correct, -lowers, np.inf), axis=-1, kind="stable")
    total = np.take_along_axis(lowers * correct, order, -1).cumsum(-1)
    # The longest run of the order that keeps the premise; what is not correct adds 0 at its end.
    length = np.where(total > -PREMISE, np.arange(1, z.shape[-1] + 1), 0).max(-1, keepdims=True)
    keep = np.empty_like(correct)
    np.put_along_axis(keep, order, np.arange(z.shape[-1]) < length, -1)
    chosen = dataclasses.replace(batch, correct=correct & keep)
    return chosen.where(length[:, 0] > 0)


def assert_every(holds: np.ndarray, batch, **numbers: np.ndarray) -> None:
    """The claim holds in every instance of a batch; else the first where it fails is shown, with the numbers given."""
    holds = np.asarray(holds)
    assert holds.shape == (len(batch),), holds.shape
    if not holds.all():
        i = int(np.argmin(holds))
        shown = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)} | numbers
        values = ", ".join(f"{name}={np.asarray(value)[i].tolist()}" for name, value in shown.items())
        raise AssertionError(f"{(~holds).sum()} of {len(batch)} instances, the first: {values}")


def count(batch, met: Counter) -> None:
    """One example of a law with a premise: what it was made of."""
    met["examples"] += 1
    met["instances"] += len(batch)
    met["several correct"] += int((batch.correct.sum(-1) > 1).sum())
    for corner in CORNERS:
        met[corner] += int((batch.corner == corner).sum())
    met["two actions"] += len(batch) * (batch.logits.shape[-1] == 2)
    met["all but one correct"] += int((batch.correct.sum(-1) == batch.logits.shape[-1] - 1).sum())
    met["logits over 50 apart"] += int((np.ptp(batch.logits, axis=-1) > 50).sum())


def assert_not_vacuous(met: Counter) -> None:
    """The issue's number of instances that meet the premise, and every corner among them."""
    assert met["instances"] >= 20_000
    assert met["examples"] >= 20
    assert met["several correct"] > 0.25 * met["instances"]
    for corner in (*CORNERS, "two actions", "all but one correct", "logits over 50 apart"):
        assert met[corner] > 500, corner


def nonnegative_rewards(batch: States, seed: int) -> np.ndarray:
    """(n, K) rewards: 0 outside A*, any of a wide range of positive numbers on it."""
    generator = np.random.default_rng(seed)
    return batch.correct * np.exp(generator.uniform(-3.0, 3.0, batch.correct.shape))


# -- theory: a controller and its target --

UNIT = 2.0**-10
"""Of the numbers of a `Loops`: sums of a few thousand such multiples are exact in float64."""
TARGETS = ("still", "straight", "random", "wave", "stairs", "fleeing", "meeting")
"""How the target of a `Loops` moves; the last two look at the error: away from H, or towards it."""
STEPS = ("least", "most", "any")
"""Where between eps and B the steps of a `Loops` are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Loops:
    """n independent controllers after each of some steps, n first; all numbers are multiples of UNIT."""

    target: np.ndarray
    """(n,): which of TARGETS each is."""
    length: np.ndarray
    """(n,): which of STEPS each is."""
    authority: np.ndarray
    """(n,): eps."""
    step: np.ndarray
    """(n,): B >= eps."""
    speed: np.ndarray
    """(n,): delta < eps."""
    error: np.ndarray
    """(n, steps + 1): H_k - H*_k."""
    moved: np.ndarray
    """(n, steps): H*_{k+1} - H*_k."""

    def __len__(self) -> int:
        return len(self.error)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text(f"<{len(self)} loops of {self.moved.shape[-1]} steps>")


@st.composite
def loops(draw, *, steps: int = 60) -> Loops:
    """Hundreds of loops of which each step moves H towards the target, by eps to B, and the target by at most delta."""
    rows = draw(st.sampled_from([256, 512, 1024]))
    generator = np.random.default_rng(draw(seeds))
    target = np.asarray(TARGETS)[np.arange(rows) % len(TARGETS)]
    length = generator.choice(STEPS, rows)
    most = generator.integers(1, 200, rows)
    least = np.maximum(1, (most * generator.choice([0.1, 0.5, 1.0], rows)).astype(int))
    speed = np.minimum(least - 1, (least * generator.choice([0.0, 0.3, 0.9, 1.0], rows)).astype(int))
    error = np.empty((rows, steps + 1))
    moved = np.empty((rows, steps))
    error[:, 0] = generator.integers(-3000, 3001, rows) * generator.choice([0.01, 0.1, 1.0], rows) // 1
    phase = generator.uniform(0.0, 2 * np.pi, rows)
    for k in range(steps):
        e = error[:, k]
        away = np.where(e < 0, 1, -1)
        shape = {
            "still": 0 * speed,
            "straight": speed,
            "random": generator.integers(-speed, speed + 1),
            "wave": np.trunc(speed * np.cos(phase + 0.1 * k)),
            "stairs": speed * (k % 8 == 0),
            "fleeing": speed * away,
            "meeting": -speed * away,
        }
        moved[:, k] = np.select([target == name for name in TARGETS], [shape[name] for name in TARGETS])
        size = np.select([length == "least", length == "most"], [least, most], generator.integers(least, most + 1))
        error[:, k + 1] = e + size * away - moved[:, k]
    numbers = {"authority": least, "step": most, "speed": speed, "error": error, "moved": moved}
    return Loops(target=target, length=length, **{name: value * UNIT for name, value in numbers.items()})


# -- rollouts --


@st.composite
def rewards(draw, shape: tuple[int, ...], group_size: int) -> Tensor:
    """(..., R) rewards in whole groups: binary (all right and all wrong among them), or graded in quarters.

    A grid keeps different rewards apart, so that division by the group's spread amplifies rounding by a known
    factor.
    """
    elements = draw(st.sampled_from([st.integers(0, 1), st.integers(0, 8)]))
    values = draw(hnp.arrays(np.int64, shape, elements=elements)).astype(np.float64)
    values = values / (1 if values.max(initial=0) <= 1 else 4)
    flat = values.reshape(-1, group_size)
    for group, verdict in draw(st.dictionaries(st.integers(0, len(flat) - 1), st.integers(0, 1), max_size=2)).items():
        flat[group] = verdict
    return double(flat.reshape(shape))


@st.composite
def rollouts(
    draw,
    *,
    runs: tuple[int, ...] | None = None,
    prompts: int | None = None,
    group_size: int | None = None,
    min_length: int = 0,
    reward: st.SearchStrategy[Tensor] | None = None,
) -> Rollouts:
    """Scored rollouts: ragged masks, dead rows (length 0) unless `min_length` is 1, any leading runs.

    Rows that are all of full length are declared so in half of the examples.
    """
    runs = draw(run_shapes) if runs is None else runs
    prompts = draw(st.integers(1, 4)) if prompts is None else prompts
    group_size = draw(st.integers(1, 4)) if group_size is None else group_size
    length = draw(st.integers(1, 4))
    rows = (*runs, prompts * group_size)
    lengths = draw(hnp.arrays(np.int64, rows, elements=st.integers(min_length, length)))
    generator = torch.Generator().manual_seed(draw(seeds))

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(*rows, length, generator=generator, dtype=torch.float64)

    old_logp = uniform(-4.0, 0.0)
    return Rollouts(
        prompt=torch.arange(prompts).repeat_interleave(group_size).expand(rows),
        token=torch.randint(ACTIONS, (*rows, length), generator=generator),
        mask=double(np.arange(length) < lengths[..., None]),
        reward=draw(rewards(rows, group_size)) if reward is None else draw(reward),
        group_size=group_size,
        full=draw(st.booleans()) and bool((lengths == length).all()),
        old_logp=old_logp,
        entropy=uniform(0.0, float(np.log(ACTIONS))),
        # A factor of e^1.5 between the two temperatures keeps ratios, and their rounding, of order 1.
        logp_t=(old_logp + uniform(-1.5, 1.5)).clamp(max=0.0),
        mean_effect=uniform(0.0, 0.3),
    )


ACTIONS = 5
"""V: size of the vocabulary of `rollouts`."""


def policy_logits(rows: Rollouts | Batch, seed: int) -> Tensor:
    """(..., R, T, V) logits of some policy at every token of the rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*rows.token.shape, ACTIONS, generator=generator, dtype=torch.float64)


def log_ratios(shape: tuple[int, ...], seed: int) -> Tensor:
    """Log-ratios on all sides of both clip bounds, and a fifth of them exactly 0 as in a first update."""
    generator = torch.Generator().manual_seed(seed)
    value = torch.rand(shape, generator=generator, dtype=torch.float64) * 3 - 1.5
    return value * (torch.rand(shape, generator=generator) > 0.2)


# -- controls and methods --


@st.composite
def controls(draw, runs: tuple[int, ...] = (), *, asks: bool = False) -> Control:
    """Any temperature, push, error (nan: unknown) and side of the caps, one per run, at some step; a share of the
    prompts where the method's controller `asks` for one."""

    def per_run(dtype, *elements) -> np.ndarray:
        return draw(hnp.arrays(dtype, runs, elements=st.sampled_from(elements)))

    pushed = draw(st.booleans())
    return Control(
        temperature=double(per_run(np.float64, 0.5, 0.8, 1.0, 1.2, 2.0)),
        raise_entropy=torch.as_tensor(per_run(np.bool_, False, True)),
        push=double(per_run(np.float64, 0.0, 0.5, -0.3, 1.0, -1.5)) if pushed else None,
        error=double(per_run(np.float64, 0.0, 0.04, -0.7, 2.0, np.nan)),
        step=draw(st.integers(0, 5)),
        prompt_fraction=double(per_run(np.float64, 0.25, 0.4, 1.0)) if asks else None,
    )


OPTIONS: dict[str, tuple] = {
    "alpha": (1.0, 0.25, 4.0),
    "average": ("sequence", "token"),
    "band": (0.01, 0.0, 0.3),
    "beta": (0.4, 0.05, 3.0),
    "beta_high": (1.0, 0.0, 2.0),
    "beta_low": (0.75, 0.0, 2.0),
    "cap_down": (None, 1, 2),
    "cap_up": (None, 1, 3),
    "clip_high": (0.2, 0.0, 0.28),
    "clip_low": (0.2, 0.0, 1.0),
    "coef": (0.015, 0.5, 3.0),
    "coef_end": (0.0, 0.3, -0.2),
    "coef_schedule": CHANGES,
    "coef_steps": (1000, 1, 4),
    "down": (0.8, 0.5),
    "dual_clip": (None, 3.0, 1.5),
    "grow": (1.2, 2.0),
    "memory": (0.1, 1.0),
    "speed": (0.01, 0.2),
    "gain": (1.0, 8.0),
    "high": (0.5, 5.0),
    "k": (0.4, 0.0, 0.75, 1.0),
    "kappa": (2.0, 1.25),
    "limit": (1.0, 0.1, 3.0),
    "low": (0.0, 0.2),
    "lowest": (0.8, 0.3, 1.0),
    "max_tokens": (None, 1, 7),
    "mu": (2.5, 0.0, 0.4),
    "normalizer": tuple(NORMALIZERS),
    "prompt_fraction": (0.25, 0.5, 1.0),
    "rate": (0.05, 1.0),
    "ratio": (2e-3, 0.4, 1.0),
    "scale": (0.02, 2.0),
    "scope": ("group", "position", "batch", "sequence"),
    "select": ("reward", "advantage"),
    "share": (0.2, 0.5, 1.0),
    "start": (0.01, 0.3),
    "std": ("sample", "population", "none"),
    "step": (1e-4, 0.5),
    "strength": (2.0, 0.0, 0.5),
    "t_high": (1.2, 1.5),
    "t_highest": (2.5, 2.0, 4.0),
    "t_low": (0.8, 0.5),
    "t_lowest": (0.4, 0.2),
    "temperature": (1.2, 0.8, 1.0),
    "up": (1.03, 1.5),
    "variant": ("O1", "C2"),
    "vocabulary": (151936, 2, 16),
    "widest_fraction": (1.0, 0.5),
    "width": (0.05, 0.0, 0.5),
    "within": (0.1, 0.5, float("inf")),
}
"""Values of the zoo's options besides each method's own default."""

OPTIONS_OF: dict[tuple[str, str], tuple] = {
    ("adaptive_bonus", "low"): (0.0, 1e-3),
    ("aepo_adaptive", "normalizer"): ("all", "positives"),
    ("aepo_reach", "normalizer"): ("all", "positives"),
    ("aepo_reach", "strength"): (16.0, 1.0, 2.5),
    ("clip_cov", "low"): (1.0, -0.1, -10.0),
    ("clip_cov", "high"): (5.0, 1.5),
    ("dual_bonus", "low"): (1e-4, 0.01),
    ("entropy_ratio_clip", "low"): (0.8, 0.0),
    ("entropy_ratio_clip", "high"): (1.2, 2.0),
    ("entropy_reg", "coef"): (0.5, -0.1),
    ("entropy_reg_nll", "coef"): (0.5, -0.1),
    ("kl_cov", "coef"): (0.5, 0.0),
    ("repo_r", "limit"): (1.0, 0.05),
    ("repo_r", "lowest"): (1e-4, 0.01),
    ("repo_r", "start"): (1e-3, 0.0, -0.02),
    ("stare", "high"): (0.5, 1.0),
    ("stare", "strength"): (0.1, 0.4),
}
"""The same where a method's range is another."""


def option_values(name: str, option: str) -> tuple:
    """What the tests give to a method's option, its default first so that examples shrink to it."""
    default = zoo.options(name)[option]
    others = OPTIONS_OF.get((name, option), OPTIONS.get(option, ()))
    return (default, *(value for value in others if value != default))


@st.composite
def recipes(draw, names: tuple[str, ...] | None = None, **fixed: object) -> tuple[str, dict[str, object]]:
    """A method's name and all its options; `fixed` ones are kept as given where the method has them."""
    name = draw(st.sampled_from(sorted(zoo.METHODS) if names is None else names))
    options = {
        key: fixed[key] if key in fixed else draw(st.sampled_from(option_values(name, key)))
        for key in zoo.options(name)
    }
    if options.get("normalizer") == "replace":
        options["alpha"] = 1.0
    if "widest_fraction" in options:
        options["widest_fraction"] = max(options["widest_fraction"], options["prompt_fraction"])
    return name, options


def methods(names: tuple[str, ...] | None = None, **fixed: object) -> st.SearchStrategy[Method]:
    """Any method of the zoo with any options."""
    return recipes(names, **fixed).map(lambda recipe: zoo.build(recipe[0], **recipe[1]))


TEMPERED = tuple(name for name in sorted(zoo.METHODS) if zoo.build(name).tempered is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """All that `assemble` takes, with the recipe that the method was built from."""

    name: str
    method: Method
    control: Control
    main: Rollouts
    second: Rollouts | None
    options: dict[str, object] = field(default_factory=dict)


@st.composite
def scenes(
    draw,
    names: tuple[str, ...] | None = None,
    *,
    runs: tuple[int, ...] | None = (),
    min_length: int = 0,
    **fixed: object,
) -> Scene:
    """A method with rollouts for it; the tempered ones may be longer or shorter than the T = 1 ones."""
    name, options = draw(recipes(names, **fixed))
    method = zoo.build(name, **options)
    runs = draw(run_shapes) if runs is None else runs
    prompts, group_size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = {"runs": runs, "group_size": group_size, "min_length": min_length}
    main = draw(rollouts(prompts=prompts, **shape))
    second = None
    if method.tempered is not None:
        second = draw(rollouts(prompts=method.tempered.most_prompts(prompts), **shape))
    control = draw(controls(runs, asks=second is not None and method.tempered.widest_fraction is not None))
    return Scene(name=name, options=options, method=method, control=control, main=main, second=second)


@st.composite
def batches(draw, *, runs: tuple[int, ...] | None = None, min_rows: int = 1) -> Batch:
    """Any batch: advantages of all signs and 0, rows of weight 0, an entropy bonus or none."""
    runs = draw(run_shapes) if runs is None else runs
    group_size, length = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rows = group_size * draw(st.integers(-(-min_rows // group_size), 4))
    lengths = draw(hnp.arrays(np.int64, (*runs, rows), elements=st.integers(0, length)))
    row_weight = draw(hnp.arrays(np.int64, (*runs, rows), elements=st.integers(0, 3)))
    bonus = draw(st.sampled_from([0.0, 0.3, -0.1]))
    generator = torch.Generator().manual_seed(draw(seeds))

    def normal() -> Tensor:
        return torch.randn(*runs, rows, length, generator=generator, dtype=torch.float64)

    mask = double(np.arange(length) < lengths[..., None])
    weight = mask * double(row_weight).unsqueeze(-1) / (rows * length)
    return Batch(
        full=draw(st.booleans()) and bool((lengths == length).all()),
        prompt=(torch.arange(rows) // group_size).expand(*runs, rows),
        token=torch.randint(ACTIONS, (*runs, rows, length), generator=generator),
        mask=mask,
        old_logp=-normal().abs(),
        advantage=normal() * (normal() > -0.7),
        weight=weight,
        entropy_weight=bonus * weight,
        group_size=group_size,
        mark=draw(st.sampled_from([None, normal() > 0])),
        old_entropy=draw(st.sampled_from([None, normal().abs()])),
    )


def padded(rows, tokens: int):
    """The same Rollouts or Batch with `tokens` more columns of padding on the right."""
    changes: dict = {"full": False} | {
        f.name: torch.nn.functional.pad(getattr(rows, f.name), (0, tokens))
        for f in dataclasses.fields(rows)
        if isinstance(getattr(rows, f.name), Tensor) and getattr(rows, f.name).shape == rows.token.shape
    }
    return dataclasses.replace(rows, **changes)
