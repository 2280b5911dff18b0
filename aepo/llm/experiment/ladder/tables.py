"""The report's tables: arms against what was measured of them, means over seeds with their 95 % t intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from aepo.authority import predicted_authority
from aepo.llm.evaluation.reporting.tables import markdown
from aepo.llm.experiment.ladder.claims import Metric
from aepo.llm.experiment.ladder.outcome import Outcome
from aepo.llm.experiment.ladder.results import Results
from aepo.llm.experiment.ladder.verdicts import two_sided_p
from aepo.method import reward_credit
from aepo.over_seeds import Array, estimate

MIDDLE_K = "pass@16"
"""Between one sample and all."""
BASE_BELOW, RISES_BY, FRONTIER, COLLAPSED = 20.0, 40.0, (30.0, 70.0), 0.25
"""Rules of the task's design: points at the low temperature before RL, points that GRPO adds at either temperature,
points of pass@k before RL, and the share of GRPO's first entropy that its last one stays below."""


def number(values: Array | Sequence[float], digits: str = ".1f") -> str:
    """Mean and 95 % t interval of what is there; empty where nothing is."""
    there = np.asarray(values, dtype=float)
    there = there[~np.isnan(there)]
    return format(estimate(there), digits) if len(there) else ""


def metrics(results: Results) -> list[str]:
    """Those of the tables, from the narrowest to the widest."""
    chosen = results.protocol.evaluation
    every = [
        f"pass@1 T={chosen.narrow.temperature:g}", f"pass@1 T={chosen.whole.temperature:g}", MIDDLE_K,
        f"pass@{chosen.whole.samples}",
    ]  # fmt: skip
    return [metric for metric in dict.fromkeys(every) if results.protocol.usual(metric)]


def _label(results: Results, arm: str) -> str:
    return results.protocol.arms[arm].label


def arms_table(results: Results, arms: Iterable[str]) -> str:
    """What each arm's entropy did, and how much is right."""
    rows = []
    for arm in arms:
        runs = results.of(arm)
        different = [
            float(run.counts["whole"].different.mean()) for run in runs if run.counts["whole"].different is not None
        ]
        cpu = [run.about["training_cpu_seconds"] for run in runs if run.about["training_cpu_seconds"] is not None]
        rows.append(
            [
                _label(results, arm),
                str(len(runs)),
                number(results.figures(arm, "entropy_last"), ".3f"),
                number(results.figures(arm, "tracking_error"), ".3f"),
                number(results.figures(arm, "duty_up"), ".2f"),
                *(number(results.points(arm, metric, results.seeds(arm))) for metric in metrics(results)),
                number(different),
                f"{np.mean(cpu):.0f}" if cpu else "",
            ]
        )
    header = ["arm", "seeds", "H end", "abs(H - H*)", "up", *metrics(results), "different", "CPU s"]
    return markdown(header, rows)


def differences_table(results: Results, arms: Iterable[str], than: str) -> str:
    """Each arm less another one, paired by seed."""
    rows = []
    for arm in arms:
        cells = []
        for metric in metrics(results):
            seeds, mine, other = results.compared(arm, than, metric)
            cells.append(f"{estimate(mine - other):+.1f}, p {two_sided_p(mine - other):.2g}" if seeds else "")
        if any(cells):
            rows.append([_label(results, arm), str(len(results.seeds(arm, than))), *cells])
    return markdown(["arm", "seeds", *metrics(results)], rows)


def more_table(results: Results) -> str:
    """Of the arms that are evaluated by more: pass@k of the most samples, and all metrics in the nucleus."""
    more = results.protocol.evaluation.more
    wide, rows = f"pass@{more.samples}", []
    for arm in more.arms:
        if runs := results.of(arm):
            cells = [number(results.points(arm, wide, results.seeds(arm)))]
            for name, k in (("narrow_nucleus", 1), ("whole_nucleus", 1), ("whole_nucleus", None)):
                cells.append(number([_passes(run, name, k) for run in runs]))
            rows.append([_label(results, arm), *cells])
    chosen = results.protocol.evaluation
    in_nucleus = [
        f"pass@1 T={chosen.narrow.temperature:g}",
        f"pass@1 T={chosen.whole.temperature:g}",
        f"pass@{chosen.whole.samples}",
    ]
    return markdown(["arm", wide, *(f"{name}, top-p {more.top_p:g}" for name in in_nucleus)], rows)


def _passes(run: Outcome, name: str, k: int | None) -> float:
    """Points of one evaluation; k None: of all its samples."""
    counts = run.counts[name]
    return 100 * float(counts.pass_at(counts.samples if k is None else k).mean())


def levels_table(results: Results, arms: Iterable[str], metric: str) -> str:
    """A metric by the prompts' level."""
    header, rows = None, []
    for arm in arms:
        if not (runs := results.of(arm)):
            continue
        levels = results.levels(arm)
        names = sorted(set(levels))
        header = header or ["arm", *(f"{name} ({int((levels == name).sum())})" for name in names)]
        passes = [run.passes(Metric.named(metric), results.protocol.evaluation) for run in runs]
        rows.append(
            [
                _label(results, arm),
                *(number([100 * p[levels == name].mean() for p in passes if p is not None]) for name in names),
            ]
        )
    return markdown(header or ["arm"], rows)


def by_level(results: Results, arm: str, of_run: Callable[[int], Array | None]) -> dict[str, Array]:
    """(seeds,) by level and of all prompts: the share of prompts, in percent, that something is true of.

    Args:
        results: of the arm.
        arm: whose seeds and levels.
        of_run: seed -> (P,) bool; None leaves the seed out.
    """
    levels = results.levels(arm)
    found = [mask for seed in results.seeds(arm) if (mask := of_run(seed)) is not None]
    shares: dict[str, Array] = {"all": np.array([100 * mask.mean() for mask in found])}
    for name in sorted(set(levels)):
        shares[name] = np.array([100 * mask[levels == name].mean() for mask in found])
    return shares


def solved(run: Outcome, *, ever: bool = False) -> Array:
    """(P,) bool: whether any sample of the last model is right; with `ever`, or any of a checkpoint."""
    found = run.counts["whole"].right > 0
    for counts in run.checkpoints.values() if ever else ():
        found = found | (counts.right > 0)
    return found


def frontier_table(results: Results, arms: Iterable[str], *, than: str, base: str) -> str:
    """What each arm lost of what the model before RL solves, and won beyond it and beyond another arm, by level."""
    runs, rows, names = results.outcomes, [], []

    def before(seed: int, name: str) -> Array | None:
        run = runs.get((base, seed))
        return None if run is None or name not in run.counts else run.counts[name].right > 0

    for arm in arms:
        followed = bool(results.protocol.arms[arm].followed)

        def lost(seed: int, arm: str = arm, followed: bool = followed) -> Array | None:
            had = before(seed, "whole")
            return None if had is None else had & ~solved(runs[arm, seed], ever=followed)

        def won(seed: int, arm: str = arm) -> Array | None:
            had = before(seed, "more")
            return None if had is None else solved(runs[arm, seed]) & ~had

        def beyond(seed: int, arm: str = arm) -> Array | None:
            other = runs.get((than, seed))
            return None if other is None or arm == than else solved(runs[arm, seed]) & ~solved(other)

        for what, measured in (
            (f"lost{'' if followed else ' (last model alone)'}", lost),
            ("won", won),
            (f"beyond {_label(results, than)}", beyond),
        ):
            shares = by_level(results, arm, measured)
            if len(shares["all"]):
                names = list(shares)
                rows.append([_label(results, arm), what, *(number(values) for values in shares.values())])
    return markdown(["arm", "what", *names], rows)


def surprise_table(results: Results, arms: Iterable[str]) -> str:
    """Mean -log p per token of right and of wrong samples at T = 1, over all prompts and by level."""
    rows: list[list[str]] = []
    header = ["arm"]
    for arm in arms:
        if not (runs := results.of(arm)):
            continue
        names = sorted({level for run in runs for level in run.surprise})
        groups = {"all": names, **{name: [name] for name in names}}
        header = ["arm", *(f"{kind}, {group}" for kind in ("right", "wrong") for group in groups)]
        cells = [
            number([_surprise(run, kind, levels) for run in runs], ".3f")
            for kind in ("right", "wrong")
            for levels in groups.values()
        ]
        rows.append([_label(results, arm), *cells])
    return markdown(header, rows)


def _surprise(run: Outcome, kind: str, levels: Sequence[str]) -> float:
    """Nats per token over some levels; nan without a token."""
    found = [run.surprise[level][kind] for level in levels if level in run.surprise]
    tokens = sum(count for _, count in found)
    return sum(nats * count for nats, count in found) / tokens if tokens else np.nan


def authority_table(results: Results, arms: Iterable[str]) -> str:
    """How far each controller could outweigh GRPO's part: predicted at its limit, and measured."""
    rows = []
    for arm in arms:
        settings = results.protocol.settings(arm, seed=0)
        method, measured = settings.method.build(), results.figures(arm, "authority")
        if not method.controlled or not len(measured):
            continue
        predicted = ""
        reward = float(np.mean(results.figures(arm, "reward")))
        # The prediction is of a second branch that learns from right answers alone, which Eq. 3's does not.
        if method.tempered is not None and method.tempered.credit is reward_credit and 0 < reward < 1:
            found = predicted_authority(
                method, reward, group_size=settings.rollout.group_size, prompts=settings.train.prompts_per_step
            )
            predicted = f"{found:.2f}"
        rows.append(
            [
                _label(results, arm), f"{reward:.3f}", predicted, number(measured, ".2f"),
                *(number(results.figures(arm, name), ".2f") for name in ("authority_measured", "duty_up")),
                number(results.figures(arm, "entropy_last"), ".3f"),
            ]
        )  # fmt: skip
    header = ["arm", "training reward", "predicted", "measured", "share of steps", "up", "H end"]
    return markdown(header, rows)


def rules_table(results: Results, *, base: str, trained: str) -> str | None:
    """What the task was made to show, by the model before RL and GRPO alone; None without runs of both."""
    seeds = results.seeds(base, trained)
    if not seeds:
        return None
    narrow, whole, *_, wide = metrics(results)
    before, after = ({m: results.points(arm, m, seeds) for m in metrics(results)} for arm in (base, trained))
    first, last = (results.figures(trained, name, seeds) for name in ("entropy_first", "entropy_last"))
    low, high = FRONTIER
    rows: Mapping[str, tuple[str, bool]] = {
        f"{narrow} before RL is below {BASE_BELOW:g}": (number(before[narrow]), before[narrow].mean() < BASE_BELOW),
        **{
            f"GRPO adds at least {RISES_BY:g} to {metric}": (
                number(after[metric] - before[metric], "+.1f"), (after[metric] - before[metric]).mean() >= RISES_BY,
            )
            for metric in (narrow, whole)
        },
        f"{wide} before RL is in {low:g} .. {high:g}": (number(before[wide]), low <= before[wide].mean() <= high),
        f"GRPO's last entropy is below {COLLAPSED:.0%} of the first": (
            f"{number(100 * last / first)} %", (last / first).mean() < COLLAPSED,
        ),
    }  # fmt: skip
    return markdown(
        ["rule", f"measured, {len(seeds)} seeds", "met"],
        [[rule, measured, "yes" if met else "**no**"] for rule, (measured, met) in rows.items()],
    )


def choosing_table(results: Results) -> str | None:
    """What was chosen on the seeds that choose; None without runs on them."""
    protocol, rows = results.protocol, []
    stages = [stage for stage in protocol.stages.values() if not stage.judges]
    for arm in dict.fromkeys(arm for stage in stages for arm in stage.arms):
        seeds = [seed for seed in protocol.choosing if (arm, seed) in results.outcomes]
        if seeds:
            rows.append(
                [
                    _label(results, arm), f"{protocol.settings(arm, seed=0).train.lr:g}", str(len(seeds)),
                    number(results.figures(arm, "entropy_last", seeds), ".3f"),
                    *(number(results.points(arm, metric, seeds)) for metric in metrics(results)),
                ]
            )  # fmt: skip
    return markdown(["arm", "lr", "seeds", "H end", *metrics(results)], rows) if rows else None
