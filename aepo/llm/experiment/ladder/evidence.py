"""What the runs say of each test of the protocol: its effects seed by seed, or its count, and both in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch

import numpy as np

from aepo.llm.experiment.ladder import verdicts
from aepo.llm.experiment.ladder.claims import (
    Above,
    Beyond,
    Collapses,
    Differs,
    Holds,
    Inner,
    Misses,
    NoSetPoint,
    Test,
    every_test,
)
from aepo.llm.experiment.ladder.results import Results
from aepo.llm.experiment.ladder.verdicts import HOLDS, NOT_RUN, REFUTED, UNDECIDED, Effect
from aepo.over_seeds import Array, estimate

COUNTED = (Collapses, NoSetPoint)
"""The tests that a count decides, without a p-value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Of one test."""

    says: str
    """The test as a sentence."""
    figures: str
    """What was measured, or what is missing."""
    seeds: int
    """That it rests on; 0: nothing has been run."""
    planned: int
    """Seeds of its stage."""
    effects: Sequence[Effect] = ()
    """None of a count rule, or where nothing has been run."""
    counted: str | None = None
    """The verdict of a count rule."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A test with its verdict."""

    claim: int
    """Its number, from 1."""
    arms: tuple[str, ...]
    """That it needs."""
    says: str
    verdict: str
    figures: str
    counts: bool
    """Whether a count decides it, without a p-value."""
    p: float | None
    """Corrected for all tests; None of a count rule and of what has not been run."""
    seeds: int
    planned: int

    @property
    def so_far(self) -> bool:
        """Whether seeds of its stage are still missing, so that the verdict may change."""
        return 0 < self.seeds < self.planned


def judged(results: Results) -> list[Judged]:
    """Every test of the protocol with its verdict, in its order."""
    protocol = results.protocol
    every = [(claim, test, evidence(test, results)) for claim, test in every_test(protocol.claims)]
    tested = [at for at, (_, test, _) in enumerate(every) if not isinstance(test, COUNTED)]
    p = [verdicts.joint_p(every[at][-1].effects)[0] if every[at][-1].effects else 1.0 for at in tested]
    corrected = dict(zip(tested, verdicts.holm(p), strict=True))
    return [_judged(*one, corrected.get(at), results) for at, one in enumerate(every)]


def _judged(claim: int, test: Test, found: Evidence, corrected: float | None, results: Results) -> Judged:
    decided, figures = found.counted or NOT_RUN, found.figures
    if found.effects and corrected is not None:
        decided = verdicts.verdict(found.effects, corrected, alpha=results.protocol.alpha)
        figures += f"; p {_p(corrected)}"
        if decided == UNDECIDED:
            asked = [verdicts.still_asked(effect, most=results.protocol.most_seeds) for effect in found.effects]
            figures += "".join(f"; {text}" for text in dict.fromkeys(asked) if text)
    return Judged(
        claim=claim,
        arms=tuple(dict.fromkeys(arm for arm, _ in test.needed())),
        says=found.says,
        verdict=decided,
        figures=figures,
        counts=isinstance(test, COUNTED),
        p=corrected if found.effects else None,
        seeds=found.seeds,
        planned=found.planned,
    )


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """A test on the runs that have been made twice."""

    says: str
    first: str
    """What was measured."""
    again: str
    same: bool
    """Whether both have the same signs, or the same count's verdict."""
    seeds: int


def repeated(results: Results, again: Results) -> list[Repeated]:
    """Every test that both have runs for, on the runs that both have.

    Args:
        results: of the first time.
        again: of the same protocol.
    """
    both = results.outcomes.keys() & again.outcomes.keys()
    pair = [
        Results(protocol=one.protocol, outcomes={run: one.outcomes[run] for run in both}) for one in (results, again)
    ]
    found = []
    for _, test in every_test(results.protocol.claims):
        first, second = (evidence(test, one) for one in pair)
        if first.seeds and second.seeds:
            found.append(
                Repeated(
                    says=first.says,
                    first=first.figures,
                    again=second.figures,
                    same=_signs(first) == _signs(second) and first.counted == second.counted,
                    seeds=first.seeds,
                )
            )
    return found


def _signs(found: Evidence) -> list[float]:
    return [float(np.sign(effect.estimate.mean)) for effect in found.effects]


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "below 0.0001"


@singledispatch
def evidence(test: Test, results: Results) -> Evidence:
    """What the runs say of a test with one combination of its lists."""
    raise TypeError(f"no evidence is defined for {type(test).__name__}")


def _label(results: Results, arm: str) -> str:
    return results.protocol.arms[arm].label


def _planned(results: Results, *arms: str) -> int:
    """Seeds on which all of these arms are judged by the protocol."""
    return min(results.protocol.stages[results.protocol.stage_of(arm)].seeds.count for arm in arms)


def _missing(says: str, results: Results, *arms: str) -> Evidence:
    lacking = [_label(results, arm) for arm in arms if not results.seeds(arm)]
    what = f"no run of {', '.join(lacking)}" if lacking else "no seed in common that was evaluated so"
    return Evidence(says=says, figures=what, seeds=0, planned=_planned(results, *arms))


@evidence.register
def _(test: Collapses, results: Results) -> Evidence:
    (arm,) = test.arms
    says = f"{_label(results, arm)}: the last entropy is below {test.below:.0%} of the first, in every seed"
    first, last = (results.figures(arm, name) for name in ("entropy_first", "entropy_last"))
    if not len(first):
        return _missing(says, results, arm)
    planned, collapsed = _planned(results, arm), int((last < test.below * first).sum())
    all_of_them = HOLDS if len(first) >= planned else UNDECIDED
    return Evidence(
        says=says,
        figures=f"{collapsed} of {len(first)} seeds; {first.mean():.2f} to {last.mean():.3f} nats, at most "
        f"{(last / first).max():.0%} of the first",
        seeds=len(first),
        planned=planned,
        counted=all_of_them if collapsed == len(first) else REFUTED,
    )


def _tracked(test: Holds | Misses, results: Results, says: str, sign: int) -> Evidence:
    (arm,) = test.arms
    says = f"{_label(results, arm)} {says} {test.within:.0%} of H*"
    error, target = (results.figures(arm, name) for name in ("tracking_error", "target_last"))
    if not len(error):
        return _missing(says, results, arm)
    share = 100 * error / target
    effect = Effect(values=sign * (100 * test.within - share), smallest=0.0)
    return Evidence(
        says=says,
        figures=f"mean abs(H - H*) over the last half {estimate(share):.1f} % of H*",
        seeds=len(error),
        planned=_planned(results, arm),
        effects=(effect,),
    )


@evidence.register
def _(test: Holds, results: Results) -> Evidence:
    return _tracked(test, results, "holds its target within", 1)


@evidence.register
def _(test: Misses, results: Results) -> Evidence:
    return _tracked(test, results, "misses its target by more than", -1)


def _difference(results: Results, metric: str, values: Array, *, either: bool = False) -> Effect:
    asked = results.protocol.metrics[metric]
    return Effect(values=values, smallest=asked.smallest, wanted=asked.wanted, either=either)


def _compared(test: Above | Differs, results: Results, says: str, than_metric: str | None = None) -> Evidence:
    (arm,), (than,), (metric,) = test.arms, test.than, test.metrics
    seeds, mine, other = results.compared(arm, than, metric, than_metric)
    if not seeds:
        return _missing(says, results, arm, than)
    effect = _difference(results, metric, mine - other, either=isinstance(test, Differs))
    planned = _planned(results, arm, than)
    if than_metric is not None and not results.protocol.usual(than_metric):
        planned = min(planned, results.protocol.evaluation.more.seeds.count)
    return Evidence(
        says=says,
        figures=f"{mine.mean():.1f} against {other.mean():.1f}: {effect.estimate:+.1f} points",
        seeds=len(seeds),
        planned=planned,
        effects=(effect,),
    )


@evidence.register
def _(test: Above, results: Results) -> Evidence:
    (arm,), (than,), (metric,) = test.arms, test.than, test.metrics
    other = f"'s {test.than_metric}" if test.than_metric else ""
    says = f"{_label(results, arm)}: {metric} is above {_label(results, than)}{other}"
    return _compared(test, results, says, test.than_metric)


@evidence.register
def _(test: Differs, results: Results) -> Evidence:
    (arm,), (than,), (metric,) = test.arms, test.than, test.metrics
    return _compared(test, results, f"{_label(results, arm)}: {metric} differs from {_label(results, than)}")


@evidence.register
def _(test: Beyond, results: Results) -> Evidence:
    (arm,), (than,), (metric,) = test.arms, test.than, test.metrics
    more, smallest = results.protocol.evaluation.more, results.protocol.metrics[metric].smallest
    says = (
        f"{_label(results, arm)} solves more than {smallest:g} % of the prompts that {_label(results, than)} solves in "
        f"none of {more.samples} samples"
    )
    seeds = [seed for seed in results.seeds(arm, than) if "more" in results.outcomes[than, seed].counts]
    if not seeds:
        return _missing(says, results, arm, than)
    won = np.array(
        [
            100
            * np.mean(
                (results.outcomes[arm, seed].counts["whole"].right > 0)
                & (results.outcomes[than, seed].counts["more"].right == 0)
            )
            for seed in seeds
        ]
    )
    return Evidence(
        says=says,
        figures=f"{estimate(won):.1f} % of the prompts",
        seeds=len(seeds),
        planned=min(_planned(results, arm, than), more.seeds.count),
        effects=(Effect(values=won - smallest, smallest=0.0),),
    )


@evidence.register
def _(test: Inner, results: Results) -> Evidence:
    (metric,), (low, high) = test.metrics, test.ends
    best = results.best_on_the_choosing_seeds(test.arms, metric)
    says = f"{metric} is higher at an inner target than at {_label(results, low)} and {_label(results, high)}"
    if best is None:
        those = ", ".join(_label(results, arm) for arm in test.arms)
        what = f"the choosing seeds lack runs of {those}"
        return Evidence(says=says, figures=what, seeds=0, planned=_planned(results, *test.arms, *test.ends))
    says = f"{_label(results, best)}, the best on the choosing seeds: {metric} is above {_label(results, low)} and "
    says += _label(results, high)
    compared = [results.compared(best, end, metric) for end in test.ends]
    if not all(seeds for seeds, _, _ in compared):
        return _missing(says, results, best, *test.ends)
    effects = tuple(_difference(results, metric, mine - other) for _, mine, other in compared)
    return Evidence(
        says=says,
        figures=f"{effects[0].estimate:+.1f} and {effects[1].estimate:+.1f} points",
        seeds=min(len(seeds) for seeds, _, _ in compared),
        planned=_planned(results, best, *test.ends),
        effects=effects,
    )


@evidence.register
def _(test: NoSetPoint, results: Results) -> Evidence:
    levels = " or ".join(f"{level:g}" for level in test.levels)
    labels = ", ".join(_label(results, arm) for arm in test.arms)
    says = f"{labels}: none ends within {test.within:.0%} of {levels} nats in every seed"
    ends = {arm: results.figures(arm, "entropy_last") for arm in test.arms}
    planned = _planned(results, *test.arms)
    if not all(map(len, ends.values())):
        return _missing(says, results, *test.arms)
    near = {
        (arm, level): int((np.abs(end - level) <= test.within * level).sum())
        for arm, end in ends.items()
        for level in test.levels
    }
    decided = HOLDS
    if always := [arm for (arm, _), count in near.items() if count == len(ends[arm])]:
        decided = REFUTED if any(len(ends[arm]) >= planned for arm in always) else UNDECIDED
    return Evidence(
        says=says,
        figures="; ".join(
            f"{_label(results, arm)} ends at {estimate(end):.3f} nats, near "
            + ", ".join(f"{level:g} in {near[arm, level]}" for level in test.levels)
            + f" of {len(end)} seeds"
            for arm, end in ends.items()
        ),
        seeds=min(map(len, ends.values())),
        planned=planned,
        counted=decided,
    )
