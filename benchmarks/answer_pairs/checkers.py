"""The checkers that are measured, each as a reward for the workers of a `GradingPool`.

A module of its own, which workers import before their time runs: sympy takes a second. Each verdict's reason is the
processor time in seconds, so that a busy machine does not matter.
"""

import importlib.util
import resource
import sys
import time
from collections.abc import Callable
from functools import wraps
from importlib.machinery import ModuleSpec
from pathlib import Path

import math_verify

from aepo.llm.grading import Verdict, math_reward
from aepo.llm.grading.benchmark_check import check
from aepo.llm.grading.reference import Reference

Judge = Callable[[str, str], bool]


def timed(judge: Judge) -> Callable[[str, str], Verdict]:
    """A judge of (response, reference) whose verdict tells the seconds it took."""

    @wraps(judge)
    def verdict(response: str, reference: str) -> Verdict:
        began = _seconds()
        right = judge(response, reference)
        return Verdict(reward=float(right), extracted=None, reason=f"{_seconds() - began:.7f}")

    return verdict


def _seconds() -> float:
    """Of this process and of those that it waited for: prime_math compares formulas in processes of its own."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@timed
def training(response: str, reference: str) -> bool:
    """Ours, as a training run rewards. Without a deadline of its own: the pool has one."""
    return math_reward(response, reference, timeout_seconds=None).reward > 0


@timed
def evaluation(response: str, reference: str) -> bool:
    """Ours, as a benchmark whose publisher gives one answer is graded."""
    return check(response, Reference(answers=(reference,), published=reference).to_json()).reward > 0


@timed
def math_verify_alone(response: str, reference: str) -> bool:
    """math-verify as its README calls it; the reference stands between dollar signs, as that asks of LaTeX."""
    return math_verify.verify(math_verify.parse(f"${reference}$"), math_verify.parse(response))


def peer() -> ModuleSpec | None:
    """Where verl is installed, whose prime_math is the other checker; None if it is not."""
    return importlib.util.find_spec("verl")


@timed
def verl_prime_math(response: str, reference: str) -> bool:
    """verl's checker for mathematics with sympy (`verl.utils.reward_score.prime_math`)."""
    return bool(_prime_math().compute_score(response, reference)[0])


def _prime_math():
    """verl's module without the rest of verl, which would load ray and all of its trainer."""
    name = "verl.utils.reward_score.prime_math"
    if name not in sys.modules:
        found = peer()
        if found is None or found.origin is None:
            raise ModuleNotFoundError("verl is not installed")
        for package in ("verl", "verl.utils", "verl.utils.reward_score"):
            spec = ModuleSpec(package, None, is_package=True)
            spec.submodule_search_locations = [str(Path(found.origin).parent.joinpath(*package.split(".")[1:]))]
            sys.modules[package] = importlib.util.module_from_spec(spec)
    return importlib.import_module(name)


if peer() is not None:
    # Before its first item's time runs.
    _prime_math()
