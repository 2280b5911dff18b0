"""What the paper claims, and what these runs say of it: each verdict is computed, with the numbers that it rests on.

A claim `holds` or `does not hold` where the numbers decide; where a 95 % interval over seeds contains zero it is
`not shown`, which says nothing about the claim and much about the number of seeds.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aepo.llm.evaluation.reporting.tables import EvaluatedMethod
from aepo.llm.experiment import arms
from aepo.llm.experiment.arms import Arm
from aepo.llm.experiment.runs import BASE, Plan
from aepo.over_seeds import Array, estimate

COLLAPSED = 0.25
"""Share of the first entropy below which the last is a collapse."""
HELD = 0.1
"""|H - H*| over the last half, as a share of H*, up to which a target is held."""
LAST_STEPS = 20
ABLATIONS = ("aepo_eq2", "aepo_eq3")
"""Of the paper: what AEPO should hold and win against."""
HOLDS, FAILS, OPEN = "holds", "does not hold", "not shown"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper, in small."""

    text: str
    verdict: str
    figures: str


def read(plan: Plan, methods: Mapping[str, EvaluatedMethod], targets: Sequence[float]) -> list[Claim]:
    """Every claim with its verdict.

    Args:
        plan: whose runs are done.
        methods: label -> the last model of each arm, and BASE.
        targets: of AEPO.
    """
    return list(_claims(plan, methods, targets))


def _claims(plan: Plan, methods: Mapping[str, EvaluatedMethod], targets: Sequence[float]) -> Iterator[Claim]:
    held = arms.aepo(targets)
    share = _last(plan, arms.GRPO) / plan.of_training(arms.GRPO, "entropy_first")
    yield Claim(
        text=f"GRPO's entropy collapses (ends below {COLLAPSED:.0%} of its start, every seed)",
        verdict=HOLDS if (share < COLLAPSED).all() else FAILS,
        figures=f"ends at {_each(_last(plan, arms.GRPO))} nats, {', '.join(f'{s:.0%}' for s in share)} of the start",
    )
    for arm in held:
        yield _holds_target(plan, arm)
    levels = {arm.label: methods[arm.label].mean("walk", "pass@k", "entropy") for arm in held}
    ordered = all(low < high for low, high in itertools.pairwise(levels.values()))
    yield Claim(
        text="A higher target is a higher entropy on held-out prompts (T = 1)",
        verdict=HOLDS if ordered else FAILS,
        figures=", ".join(f"{label}: {level:.3f}" for label, level in levels.items()),
    )
    hot, cold = (_last(plan, arm) - plan.of_training(arm, "entropy_first") for arm in reversed(arms.reinforce()))
    yield Claim(
        text="REINFORCE on samples of high temperature raises entropy, on those of low temperature lowers it (Fig. 2)",
        verdict=HOLDS if (hot > 0).all() and (cold < 0).all() else FAILS,
        figures=f"last minus first entropy {_each(hot)} above T = 1, {_each(cold)} below",
    )
    yield _bonus(plan, held[0])
    for arm in arms.ablations(targets[0]):
        claim = _holds_target(plan, arm)
        if arm.method in ABLATIONS:
            fails = {HOLDS: FAILS, FAILS: HOLDS}[claim.verdict]
            claim = Claim(
                text=f"The ablation {arm.label} does not hold its target", verdict=fails, figures=claim.figures
            )
        yield claim
    yield from _accuracy(methods, held)
    for arm in arms.ablations(targets[0]):
        if arm.method in ABLATIONS:
            text = f"{held[0].label} has a higher pass@1 than its ablation {arm.label} (Table 3)"
            yield _more(text, methods[arm.label], methods[held[0].label], None)


def _last(plan: Plan, arm: Arm) -> Array:
    return plan.curve(arm)[:, -LAST_STEPS:].mean(1)


def _each(values: Array) -> str:
    return " / ".join(f"{value:.3f}" for value in values)


def _holds_target(plan: Plan, arm: Arm) -> Claim:
    error = plan.of_training(arm, "tracking_error")
    target = arm.target or np.nan
    return Claim(
        text=f"{arm.label} holds its target (mean |H - H*| over the last half up to {HELD:.0%} of H*, every seed)",
        verdict=HOLDS if (error <= HELD * target).all() else FAILS,
        figures=f"{_each(error)} nats; allowed {HELD * target:.3f}; mean H "
        + _each(plan.of_training(arm, "entropy_last_half")),
    )


def _bonus(plan: Plan, aepo: Arm) -> Claim:
    """Fig. 3: no coefficient does what AEPO does."""
    tried = (arms.ENTROPY_REG, *arms.bonuses())
    target = aepo.target or np.nan
    ends = {arm: _last(plan, arm) for arm in tried}
    near = [arm for arm, end in ends.items() if (np.abs(end - target) <= HELD * target).all()]
    return Claim(
        text=f"No coefficient tried of entropy regularization ends within {HELD:.0%} of {target:g} nats (Fig. 3)",
        verdict=FAILS if near else HOLDS,
        figures="; ".join(f"{dict(arm.options)['coef']:g}: {_each(end)}" for arm, end in ends.items()),
    )


def _accuracy(methods: Mapping[str, EvaluatedMethod], held: Sequence[Arm]) -> Iterator[Claim]:
    grpo, base = methods[arms.GRPO.label], methods[BASE]
    largest = max(grpo.ks("walk", "pass@k"))
    best = max((methods[arm.label] for arm in held), key=lambda m: m.accuracy("walk", "pass@1").mean())
    yield _more(f"{best.label}, the best of its targets, has a higher pass@1 than GRPO", grpo, best, None)
    yield _more(f"GRPO has a higher pass@1 than {BASE} (T = 0.1)", base, grpo, None)
    yield _more(f"GRPO has a higher pass@1 than {BASE} at T = 1", base, grpo, 1)
    for arm in held:
        yield _more(f"{arm.label} has a higher pass@{largest} than GRPO (Table 2)", grpo, methods[arm.label], largest)
    yield _more(f"GRPO loses pass@{largest} against {BASE}", grpo, base, largest)
    if len(held) > 2:
        ranked = sorted((methods[arm.label] for arm in held), key=lambda m: -m.accuracy("walk", "pass@1").mean())
        ends = {held[0].label, held[-1].label}
        inner, outer = (next(m for m in ranked if (m.label in ends) == is_end) for is_end in (False, True))
        yield _more(
            f"Accuracy rises and then falls with the entropy: an inner target ({inner.label}) is above both ends, of "
            f"which {outer.label} is the better (Table 3)",
            outer, inner, None,
        )  # fmt: skip


def _more(text: str, first: EvaluatedMethod, second: EvaluatedMethod, k: int | None) -> Claim:
    """That the second has more right than the first: paired by seed, over the same problems."""
    mode = "pass@1" if k is None else "pass@k"
    a, b = (100 * method.by_seed("walk", mode, k).mean().to_numpy() for method in (first, second))
    found = estimate(b - a)
    if not abs(found.mean) > found.half_width:
        verdict = OPEN
    else:
        verdict = HOLDS if found.mean > 0 else FAILS
    return Claim(text=text, verdict=verdict, figures=f"{b.mean():.1f} against {a.mean():.1f}: {found:+.1f} points")
