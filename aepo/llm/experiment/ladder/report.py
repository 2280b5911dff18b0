"""The page of the ladder experiment, from the files of its runs alone: verdicts first, then what they rest on."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from aepo import atomic
from aepo.llm.evaluation.reporting.tables import markdown
from aepo.llm.experiment.ladder import evidence, pictures, tables
from aepo.llm.experiment.ladder.evidence import Judged
from aepo.llm.experiment.ladder.results import Results
from aepo.llm.experiment.ladder.verdicts import HOLDS, NOT_RUN, REFUTED, UNDECIDED
from aepo.llm.policy.model import from_scratch
from aepo.llm.settings import SettingsError

NAME = "ladder.md"
BASE, GRPO = "base", "grpo"
"""The arms that others are compared with."""
BEGINNING = """\
Written by `aepo experiment --task ladder --report` from the files of {runs} runs, {judging} of them on seeds
that judge. Each trains {steps} steps from a model before RL that its seed has to itself, and is evaluated on
{prompts} held-out prompts with {narrow.samples} samples at T = {narrow.temperature:g} and {whole.samples} at T
= {whole.temperature:g}, top-p 1. The [protocol](../../aepo/llm/experiment/ladder/protocol.yaml) was committed
before any of them. Numbers are means over seeds with 95 % t intervals, pass@k in percent, entropies in nats.
One task, one table of instructions, one model of {weights} weights: what they show need not be so on a large
one.
"""
VERDICTS = """\
*Holds*: p < {alpha:g} in the claimed direction, corrected for all {tests} tests with a p-value (Holm).
*Refuted*: the same in the other direction, or the 95 % interval excludes the smallest difference that would
interest. Else *undecided*. *So far*: seeds of the stage are missing.
"""
ARMS = """\
H end: mean of the last {last} steps; abs(H - H*): its mean over the last half; up: share of the last half in
which the controller raised the entropy; different: right answers to a prompt that differ from each other, among
its samples at T = 1; CPU s: of the training.
"""
FRONTIER = """\
Lost: prompts solved before RL within {samples} samples, and by no later checkpoint nor by the last model. Won:
solved by the last model, and before RL in none of {most} samples. Beyond GRPO: solved by the last model and not
by GRPO's. In percent of the prompts.
"""
SURPRISE = """\
Where the entropy lies: mean -log p per token of right and of wrong samples at T = 1.
"""
AUTHORITY = """\
Authority: what the controller adds to a step's push on H, over what GRPO does to H in it; below 1 it is
overruled. Predicted: at the controller's limit and the reward that the arm ended with
(`aepo.authority.predicted_authority`). Measured: median over the steps of the last half in which GRPO's part
goes away from the target, and the share of these.
"""
ERRING = """\
Errs a/b %: of the wrong answers a % are rewarded in training, of the right ones b % are not. Evaluated by true
verdicts.
"""
ROUNDING = """\
The same runs, made once more on a CPU whose instructions round otherwise: from the first step on they sample
other tokens, as another seed would. Every test that has its runs here, on these seeds alone.
"""
CONTROLS = """\
Tasks with nothing to find (easy) and with nothing to choose between (single).
"""


def kinds(results: Results) -> dict[str, list[str]]:
    """The arms that have runs, in their order: `main`, `erring` (the verifier errs), `controls` (of another task)."""
    found: dict[str, list[str]] = {"main": [], "erring": [], "controls": []}
    for arm, chosen in results.protocol.arms.items():
        if results.seeds(arm):
            other = "controls" if "data.train" in chosen.settings else "main"
            kind = "erring" if any(name.startswith("reward.false_") for name in chosen.settings) else other
            found[kind].append(arm)
    return found


def write(results: Results, folder: Path, *, again: Results | None = None) -> Path:
    """The page and its pictures.

    Args:
        results: every run that there is.
        folder: of the page.
        again: some of the runs made once more with other rounding.

    Raises:
        SettingsError: no run of an arm on a judging seed.
    """
    if not any(kinds(results).values()):
        raise SettingsError("--report: no file of a run on a judging seed; run a stage first, or name --results")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    atomic.write_text(path, "\n".join(_parts(results, folder, again)))
    return path


def _parts(results: Results, folder: Path, again: Results | None) -> Iterator[str]:
    protocol, there = results.protocol, kinds(results)
    found = evidence.judged(results)
    trained = [arm for arm in there["main"] if protocol.arms[arm].trained]
    yield "# The paper's claims on the ladder task\n"
    yield from _beginning(results)
    yield "## Verdicts\n"
    yield from _verdicts(results, found)
    if rules := tables.rules_table(results, base=BASE, trained=GRPO):
        yield "## What the task was made to show\n"
        yield "Rules of its design, by the model before RL and GRPO alone.\n"
        yield rules
    if there["main"]:
        yield from _arms(results, there["main"], trained)
        yield from _pictures(results, there["main"], trained, folder)
        yield from _why(results, there["main"], trained)
    yield from _other(results, there)
    yield from _rounding(results, again)
    if chosen := tables.choosing_table(results):
        yield "## What was chosen, on seeds that judge nothing\n"
        yield chosen
        yield from _learning_rate(results)


def _rounding(results: Results, again: Results | None) -> Iterator[str]:
    """What runs that have been made twice say each time."""
    if again is None or not (found := evidence.repeated(results, again)):
        return
    yield "## Other rounding\n"
    yield ROUNDING
    made_on = [
        sorted({one.outcomes[run].about["capability"] for run in again.outcomes if run in one.outcomes})
        for one in (results, again)
    ]
    rows = [[one.says, one.first, one.again, "yes" if one.same else "**no**", str(one.seeds)] for one in found]
    yield markdown(["test", *map(", ".join, made_on), "same sign", "seeds"], rows)


def _learning_rate(results: Results) -> Iterator[str]:
    """Which GRPO itself prefers, of those that were tried."""
    protocol = results.protocol
    every = dict.fromkeys(arm for stage in protocol.stages.values() if not stage.judges for arm in stage.arms)
    settings = {arm: protocol.settings(arm, seed=0) for arm in every}
    tried = [arm for arm in every if settings[arm].method == settings[GRPO].method]
    for metric in tables.metrics(results)[:2]:
        if best := results.best_on_the_choosing_seeds(tried, metric):
            found, used = settings[best].train.lr, settings[GRPO].train.lr
            yield f"GRPO's best learning rate by its {metric} is {found:g}; the other arms have {used:g}.\n"


def _beginning(results: Results) -> Iterator[str]:
    protocol = results.protocol
    judging = sum(1 for _, seed in results.outcomes if seed not in protocol.choosing)
    made_on = Counter(
        f"{run.about['device']} ({run.about['capability']}), torch {run.about['versions']['torch']}"
        for run in results.outcomes.values()
    )
    yield BEGINNING.format(
        runs=len(results.outcomes),
        judging=judging,
        steps=protocol.steps,
        prompts=protocol.evaluation.prompts,
        narrow=protocol.evaluation.narrow,
        whole=protocol.evaluation.whole,
        weights=f"{_weights(results):,}",
    )
    yield "Made on " + "; ".join(f"{device}: {count} runs" for device, count in made_on.most_common()) + ".\n"


def _weights(results: Results) -> int:
    """Of the model that is trained."""
    settings = results.protocol.settings(BASE, seed=0)
    return sum(weight.numel() for weight in from_scratch(settings, results.task(BASE)).parameters())


def _verdicts(results: Results, found: Sequence[Judged]) -> Iterator[str]:
    protocol = results.protocol
    tests = sum(1 for one in found if not one.counts)
    yield VERDICTS.format(alpha=protocol.alpha, tests=tests)
    yield f"Of {len(found)} tests: {', '.join(f'{verdict} {count}' for verdict, count in _counted(found))}.\n"
    by_claim = [
        (number, claim.says, [one for one in found if one.claim == number])
        for number, claim in enumerate(protocol.claims, 1)
    ]
    yield markdown(["", "claim", "verdict"], [[str(number), says, summed_up(mine)] for number, says, mine in by_claim])
    yield from _missing(results, found)
    yield "## Every test\n"
    rows = [
        [str(number), one.says, _verdict(one), one.figures, f"{one.seeds}" if one.seeds else ""]
        for number, _, mine in by_claim
        for one in mine
    ]
    yield markdown(["claim", "test", "verdict", "figures", "seeds"], rows)


def _verdict(one: Judged) -> str:
    return f"{one.verdict}, so far" if one.so_far else one.verdict


def summed_up(found: Sequence[Judged]) -> str:
    """The verdicts of a claim's tests, counted.

    Args:
        found: its tests, one or more.
    """
    counted = _counted(found)
    if len(counted) == 1:
        ((verdict, count),) = counted
        return f"**{verdict}**" + (f" ({count} of {count})" if count > 1 else "")
    return ", ".join(f"**{verdict}** {count}" for verdict, count in counted)


def _counted(found: Sequence[Judged]) -> list[tuple[str, int]]:
    """Each verdict with its number, the best known first."""
    counts = Counter(one.verdict for one in found)
    return [(verdict, counts[verdict]) for verdict in (HOLDS, REFUTED, UNDECIDED, NOT_RUN) if counts[verdict]]


def _missing(results: Results, found: Sequence[Judged]) -> Iterator[str]:
    protocol = results.protocol
    without = [chosen.label for arm, chosen in protocol.arms.items() if not results.seeds(arm)]
    partly = []
    for arm, chosen in protocol.arms.items():
        planned = protocol.stages[protocol.stage_of(arm)].seeds.count
        if 0 < (count := len(results.seeds(arm))) < planned:
            partly.append(f"{chosen.label} ({count} of {planned} seeds)")
    if without:
        yield f"Not run: {', '.join(without)}.\n"
    if partly:
        yield f"Not all seeds: {', '.join(partly)}.\n"
    if count := sum(1 for one in found if one.verdict == NOT_RUN):
        yield f"{count} of {len(found)} tests wait for these.\n"


def _arms(results: Results, arms: Sequence[str], trained: Sequence[str]) -> Iterator[str]:
    yield "## Arms\n"
    yield ARMS.format(last=results.protocol.evaluation.last_steps)
    yield tables.arms_table(results, arms)
    if GRPO in arms:
        yield "Less GRPO, paired by seed; p-values are not corrected:\n"
        yield tables.differences_table(results, [arm for arm in arms if arm != GRPO], GRPO)
    if any(arm in arms for arm in results.protocol.evaluation.more.arms):
        yield "With more samples, and in the paper's nucleus, which cuts rare right answers:\n"
        yield tables.more_table(results)
    for metric in tables.metrics(results):
        if metric != tables.MIDDLE_K:
            yield f"{metric} by level (number of prompts):\n"
            yield tables.levels_table(results, arms, metric)


def _pictures(results: Results, arms: Sequence[str], trained: Sequence[str], folder: Path) -> Iterator[str]:
    protocol = results.protocol
    stages = {
        f"{name}: {stage.what}": [arm for arm in stage.arms if arm in trained]
        for name, stage in protocol.stages.items()
        if stage.judges and any(arm in trained for arm in stage.arms)
    }
    shown = _first(results, arms)
    followed = [arm for arm in trained if protocol.arms[arm].followed and results.seeds(arm, BASE)]
    made: dict[str, Path] = {}
    if stages:
        made["Entropy over training; bands are 95 % t intervals over seeds, targets are dashed."] = pictures.entropies(
            results, stages, _path(folder, "entropy")
        )
    made["pass@k against k, T = 1, top-p 1."] = pictures.pass_curves(results, shown, _path(folder, "pass_at_k"))
    if followed:
        made["pass@k of the checkpoints, T = 1, top-p 1; step 0 is the model before RL."] = pictures.pass_by_step(
            results, followed, _path(folder, "pass_by_step"), base=BASE
        )
    made["By level."] = pictures.by_level(results, shown, _path(folder, "by_level"))
    yield "## Pictures\n"
    yield from (f"{caption}\n\n![{path.stem}]({path.name})\n" for caption, path in made.items())


def _first(results: Results, arms: Sequence[str]) -> list[str]:
    """Those of the first stage that judges; all where none of it has been run."""
    first = next(stage for stage in results.protocol.stages.values() if stage.judges)
    return [arm for arm in arms if arm in first.arms] or list(arms)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{pictures.PREFIX}{name}.png"


def _why(results: Results, arms: Sequence[str], trained: Sequence[str]) -> Iterator[str]:
    evaluation = results.protocol.evaluation
    yield "## Why\n"
    if BASE in arms:
        yield FRONTIER.format(samples=evaluation.whole.samples, most=evaluation.more.samples)
        yield tables.frontier_table(results, _first(results, trained), than=GRPO, base=BASE)
    yield SURPRISE
    yield tables.surprise_table(results, arms)
    yield AUTHORITY
    yield tables.authority_table(results, trained)


def _other(results: Results, there: dict[str, list[str]]) -> Iterator[str]:
    if controls := there["controls"]:
        yield "## Controls\n"
        yield CONTROLS
        yield tables.arms_table(results, controls)
    if erring := there["erring"]:
        yield "## A verifier that errs\n"
        yield ERRING
        yield tables.arms_table(results, erring)


def spoken(results: Results, arms: Sequence[str]) -> Iterator[str]:
    """The verdicts that some arms take part in, a line each, for who has just run them.

    Args:
        results: every run that there is.
        arms: by name.
    """
    for one in evidence.judged(results):
        if one.verdict != NOT_RUN and set(arms) & set(one.arms):
            yield f"{_verdict(one)}: {one.says} ({one.figures})"
