"""How often is a wrong answer rewarded, and a right one refused, by ours, math-verify alone and another public checker?

On labelled answers of 71 kinds (`answer_pairs`): half of them equal to the reference in another form, half wrong in one
place. The ideal is none of either. Each checker runs in a process of its own with a deadline; what comes too late is a
refusal. Times are processor times of one answer. verl's prime_math takes part where verl and pylatexenc are installed
(`pip install --no-deps verl pylatexenc`).

    python benchmarks/answers.py              # a table, and benchmarks/results/answers.json
    python benchmarks/answers.py --kind sets --misses    # only these, with each answer that was misjudged
"""

import argparse
import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from answer_pairs import KINDS, Pair, checkers, pairs

from aepo.llm.grading import Verdict
from aepo.llm.grading.pool import GradingPool

RESULT = Path(__file__).parent / "results" / "answers.json"
OURS = ("training", "evaluation")
# math-verify gives up by itself after five seconds for each text and each comparison.
DEADLINE_SECONDS = 20.0
# Seeds of measurements are small; these pairs only load what the first formula of a kind needs.
WARM_UP_SEED = 10**6


def measured() -> dict[str, Any]:
    """The checkers by the name that tables give them."""
    found = {
        "training": checkers.training,
        "evaluation": checkers.evaluation,
        "math-verify": checkers.math_verify_alone,
    }
    if checkers.peer() is None:
        print("verl is not installed, so its prime_math is not measured")
    else:
        found["prime_math"] = checkers.verl_prime_math
    return found


def graded(checker: Any, chosen: list[Pair], *, deadline_seconds: float) -> list[Verdict]:
    """A checker's verdicts in the order of the pairs."""
    warm_up = pairs(WARM_UP_SEED, values=1, answers=1, kinds=sorted({pair.kind for pair in chosen}))
    with GradingPool(checker, workers=1, deadline_seconds=deadline_seconds) as pool:
        pool.grade([(pair.response, pair.reference) for pair in warm_up])
        return pool.grade([(pair.response, pair.reference) for pair in chosen])


def summary(chosen: list[Pair], verdicts: list[Verdict]) -> dict[str, Any]:
    """Counts of one checker, and its milliseconds for the answers that it came back from."""
    wrongly = [bool(verdict.reward) != pair.right for pair, verdict in zip(chosen, verdicts, strict=True)]
    late = [verdict.reason == "timeout" for verdict in verdicts]
    broken = [verdict.reason.startswith("error") for verdict in verdicts]
    back = [verdict for verdict, left in zip(verdicts, map(max, late, broken), strict=True) if not left]
    milliseconds = 1e3 * np.array([float(verdict.reason) for verdict in back])
    count = lambda right: sum(miss for pair, miss in zip(chosen, wrongly, strict=True) if pair.right is right)  # noqa: E731
    return {
        "false_rewards": count(False),
        "false_refusals": count(True),
        "timeouts": sum(late),
        "errors": sum(broken),
        "milliseconds": {
            "median": round(float(np.median(milliseconds)), 3),
            "quantile_95": round(float(np.quantile(milliseconds, 0.95)), 3),
            "worst": round(float(milliseconds.max()), 1),
        },
    }


def misses(chosen: list[Pair], verdicts: dict[str, list[Verdict]]) -> list[dict[str, Any]]:
    """The pairs that ours misjudges in training or evaluation, and who else does."""
    found = []
    for i, pair in enumerate(chosen):
        by = [name for name, given in verdicts.items() if bool(given[i].reward) != pair.right]
        if set(OURS) & set(by):
            found.append(
                {
                    "kind": pair.kind,
                    "reference": pair.reference,
                    "response": pair.response,
                    "right": pair.right,
                    "changed": pair.change,
                    "misjudged_by": by,
                }
            )
    return found


def show(chosen: list[Pair], verdicts: dict[str, list[Verdict]], totals: dict[str, Any]) -> None:
    """The table for people: false rewards and false refusals of each kind, 0 as a dot."""
    by_kind = kinds(chosen, verdicts)
    print(f"{len(chosen):,} answers, half of them wrong. Of each checker: false rewards, false refusals.\n")
    print(f"{'kind':28}{'wrong':>6}{'right':>6}  " + "".join(f"{name:>14}" for name in verdicts))
    for kind, row in by_kind.items():
        cells = "".join(f"{a or '.':>8}{b or '.':>6}" for a, b in (row[name] for name in verdicts))
        print(f"{kind:28}{row['wrong']:6}{row['right']:6}  {cells}")
    wrong, right = (sum(pair.right is label for pair in chosen) for label in (False, True))
    print(
        f"{'all':28}{wrong:6}{right:6}  "
        + "".join(f"{one['false_rewards']:>8}{one['false_refusals']:>6}" for one in totals.values())
    )
    for title, key in (("ms: median", "median"), ("95 % quantile", "quantile_95"), ("worst", "worst")):
        print(f"{title:42}" + "".join(f"{one['milliseconds'][key]:14.2f}" for one in totals.values()))
    for key in ("timeouts", "errors"):
        print(f"{key:42}" + "".join(f"{one[key]:14}" for one in totals.values()))


def markdown(chosen: list[Pair], verdicts: dict[str, list[Verdict]], totals: dict[str, Any]) -> str:
    """The table of docs/answers.md: false rewards + false refusals of each kind, 0 as a dash."""
    cell = lambda a, b: f"{a or '–'} + {b or '–'}" if a or b else "–"  # noqa: E731
    lines = [f"| kind | {' | '.join(verdicts)} |", "|---|" + "---|" * len(verdicts)]
    for kind, row in kinds(chosen, verdicts).items():
        lines.append(f"| {kind} | {' | '.join(cell(*row[name]) for name in verdicts)} |")
    whole = (cell(one["false_rewards"], one["false_refusals"]) for one in totals.values())
    lines.append(f"| **all {len(chosen):,}** | {' | '.join(f'**{one}**' for one in whole)} |")
    for title, key in (("median", "median"), ("95 % quantile", "quantile_95"), ("longest", "worst")):
        row = " | ".join(f"{one['milliseconds'][key]:.1f}" for one in totals.values())
        lines.append(f"| ms for an answer, {title} | {row} |")
    return "\n".join(lines)


def kinds(chosen: list[Pair], verdicts: dict[str, list[Verdict]]) -> dict[str, dict[str, Any]]:
    """[false rewards, false refusals] of each checker, and how many there could be, by kind."""
    table: dict[str, dict[str, Any]] = {}
    for i, pair in enumerate(chosen):
        row = table.setdefault(pair.kind, {"wrong": 0, "right": 0, **{name: [0, 0] for name in verdicts}})
        row["right" if pair.right else "wrong"] += 1
        for name, given in verdicts.items():
            row[name][int(pair.right)] += bool(given[i].reward) != pair.right
    return table


def versions() -> dict[str, str]:
    """Of what decides about answers, as far as it is installed."""
    found = {}
    for name in ("math-verify", "latex2sympy2_extended", "sympy", "antlr4-python3-runtime", "verl", "pylatexenc"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    parser.add_argument("--values", type=int, default=4, help="references of each kind")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="only this kind; may be given again")
    parser.add_argument("--misses", action="store_true", help="print each answer that ours misjudges")
    parser.add_argument("--markdown", action="store_true", help="print the table as docs/answers.md has it")
    parser.add_argument("--deadline-seconds", type=float, default=DEADLINE_SECONDS, help="for one answer")
    parser.add_argument("--out", type=Path, default=RESULT, help="file of the results, if no --kind is given")
    options = parser.parse_args()
    chosen = pairs(options.seed, values=options.values, kinds=options.kind or list(KINDS))
    load = os.getloadavg()[0]
    verdicts = {
        name: graded(checker, chosen, deadline_seconds=options.deadline_seconds) for name, checker in measured().items()
    }
    totals = {name: summary(chosen, given) for name, given in verdicts.items()}
    if options.markdown:
        print(markdown(chosen, verdicts, totals))
    else:
        show(chosen, verdicts, totals)
    missed = misses(chosen, verdicts)
    if options.misses:
        for one in missed:
            verdict = "refused though right" if one["right"] else f"rewarded though wrong ({one['changed']})"
            print(f"\n{one['kind']}: {verdict} by {', '.join(one['misjudged_by'])}")
            print(f"  reference {one['reference']}\n  response  {one['response']!r}")
    result = {
        "command": " ".join(["python", "benchmarks/answers.py", *sys.argv[1:]]),
        "device": f"CPU, {platform.machine()}, {os.cpu_count()} cores, load {load:.1f} at the start",
        "python": platform.python_version(),
        "versions": versions(),
        "seed": options.seed,
        "pairs": len(chosen),
        "checkers": totals,
    }
    if not options.kind:
        whole = result | {"kinds": kinds(chosen, verdicts), "misjudged": missed}
        options.out.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
