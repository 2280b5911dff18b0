r"""Every published answer given back as the response: `python -m aepo.llm.evaluation.self_check --data DIR`.

An answer that its own check turns away would cost every model a point; so such rows are listed, with the reason.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from aepo.errors import AepoError
from aepo.llm.evaluation.suite import BENCHMARKS, CORRECTIONS, Question, load
from aepo.llm.grading.benchmark_check import check
from aepo.llm.grading.pool import GradingPool
from aepo.llm.grading.reference import Reference

# Reading a formula takes milliseconds; what takes this long never ends.
DEADLINE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A published answer that is not right when it is given as the response."""

    benchmark: str
    index: int
    published: str
    reason: str


def self_check(questions: Sequence[Question], *, workers: int = 1) -> list[Failure]:
    r"""The questions whose published answer, in a \boxed{}, is not judged right, with the reason.

    Args:
        questions: of any benchmarks.
        workers: processes, >= 1.
    """
    items = [(rf"\boxed{{{Reference.from_json(q.reference).published}}}", q.reference) for q in questions]
    with GradingPool(check, workers=workers, deadline_seconds=DEADLINE_SECONDS) as pool:
        verdicts = pool.grade(items)
    return [
        Failure(
            benchmark=question.benchmark,
            index=question.index,
            published=Reference.from_json(question.reference).published,
            reason=_reason(Reference.from_json(question.reference).published, verdict.reason),
        )
        for question, verdict in zip(questions, verdicts, strict=True)
        if verdict.reward != 1.0
    ]


def _reason(published: str, reason: str) -> str:
    return f"it is read as {CORRECTIONS[published]} (CORRECTIONS)" if published in CORRECTIONS else reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, per benchmark, how many published answers are right when given back, and those that are not."""
    parser = argparse.ArgumentParser(prog="python -m aepo.llm.evaluation.self_check", description=main.__doc__)
    parser.add_argument("--data", required=True, metavar="DIR", help="folder with the benchmarks' files")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("benchmarks", nargs="*", default=list(BENCHMARKS), help=f"of {', '.join(BENCHMARKS)}")
    options = parser.parse_args(arguments)
    try:
        suite = {name: load(name, options.data) for name in options.benchmarks}
    except AepoError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    failures = [f for questions in suite.values() for f in self_check(questions, workers=options.workers)]
    for name, questions in suite.items():
        wrong = [failure for failure in failures if failure.benchmark == name]
        print(f"{name}: {len(questions) - len(wrong)} of {len(questions)} published answers are right when given back")
        for failure in wrong:
            print(f"  row {failure.index + 1}: {failure.published!r}: {failure.reason}")
    return int(any(failure.published not in CORRECTIONS for failure in failures))


if __name__ == "__main__":
    sys.exit(main())
