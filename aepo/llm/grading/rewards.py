"""Reward functions: found by their names, weighed, called with the columns that they take, and their results read."""

import importlib
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Complex, Real
from typing import Any

from aepo.llm.grading import Verdict, math_reward
from aepo.llm.grading.extraction import MAX_ANSWER_CHARACTERS
from aepo.number_text import vanishes

LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
"""Kinds of functions that return before they have a result."""
Reward = Callable[..., Any]
"""(response, answer), and columns of the row by their names -> its reward, a finite number, or a Verdict."""
DEFAULT = "aepo.llm.grading:math_reward"
"""What judges where no function is named, as the metrics call it beside others."""
# A message of this size is one write: whoever waits for verdicts never waits for the rest of one.
MAX_REASON_CHARACTERS = 300


def unhurried_math_reward(response: str, answer: str) -> Verdict:
    """`math_reward` without a deadline of its own: the pool kills what hangs.

    >>> unhurried_math_reward("#### 1/2", "0.5").reason
    'exact'
    """
    return math_reward(response, answer, timeout_seconds=None)


def load_reward(name: str) -> Reward:
    """The function that a setting names as 'package.module:function', imported; what it must return says `judged`.

    What takes long to import belongs at the top of that module: inside the function it counts as an item's time.

    Raises:
        ValueError: no such form, the module cannot be imported, or it has no such callable.

    >>> load_reward("aepo.llm.grading:math_reward")("#### 42", "42").reward
    1.0
    >>> load_reward("aepo.llm.grading")
    Traceback (most recent call last):
    ...
    ValueError: a reward must be named as 'package.module:function', got 'aepo.llm.grading'
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute or ":" in attribute:
        raise ValueError(f"a reward must be named as 'package.module:function', got {name!r}")
    try:
        module = importlib.import_module(module_name)
    # Somebody else's module may raise anything while it is imported, and a script without a guard may end the process.
    except (Exception, SystemExit) as problem:
        raise ValueError(
            f"reward {name!r}: importing {module_name!r} failed with {told(problem)} "
            "(a module of your own is found in a folder that PYTHONPATH names)"
        ) from problem
    try:
        reward = operator.attrgetter(attribute)(module)
    except AttributeError:
        raise ValueError(f"reward {name!r}: {module_name!r} has no {attribute!r}") from None
    # A module or an object may make its attributes when they are asked for.
    except Exception as problem:
        raise ValueError(f"reward {name!r}: {attribute!r} cannot be had: {told(problem)}") from problem
    if not callable(reward):
        raise ValueError(f"reward {name!r} must be a function, got {type(reward).__name__}")
    called = reward if inspect.isroutine(reward) else getattr(reward, "func", type(reward).__call__)
    if any(gives_no_number(one) for one in (reward, called) for gives_no_number in LATER):
        raise ValueError(f"reward {name!r} is async or yields, which gives no number; return it from a plain function")
    return reward


def told(problem: BaseException) -> str:
    """What was raised, on one line.

    >>> told(ValueError("a\\n b"))
    'ValueError: a b'
    """
    try:
        return f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    # Somebody else's exception, whose text is somebody else's code.
    except Exception:
        return type(problem).__name__


@dataclass(frozen=True, kw_only=True)
class RewardFunction:
    """A function with what it takes beside response and answer."""

    name: str
    """As it was typed."""
    function: Reward
    needed: tuple[str, ...] = ()
    """Columns without which it cannot be called: its further parameters that have no default."""
    optional: tuple[str, ...] = ()
    """Columns that it is given where a row has them."""
    takes_all: bool = False
    """Whether it is given every column of the row (`**columns`)."""
    own: tuple[str, ...] = ()
    """Names of its first two parameters, which no column can be given as."""

    @property
    def takes_columns(self) -> bool:
        """Whether it wants more than response and answer."""
        return self.takes_all or bool(self.needed or self.optional)

    def columns(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Of a row, what the function is given."""
        if self.takes_all:
            return {name: value for name, value in row.items() if name not in self.own}
        return {name: row[name] for name in (*self.needed, *self.optional) if name in row}

    def __call__(self, response: str, answer: str, row: Mapping[str, Any]) -> Any:
        return self.function(response, answer, **self.columns(row))


def described_function(name: str, function: Reward) -> RewardFunction:
    """A function and, from its signature, what it takes.

    Args:
        name: of the function, for messages.
        function: any callable.

    Raises:
        ValueError: it cannot be called with response and answer first and columns by name.

    >>> def bonus(response, answer, level, *, scale=1.0): ...
    >>> found = described_function("m:bonus", bonus)
    >>> found.needed, found.optional, found.takes_all
    (('level',), ('scale',), False)
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    # Functions of C have none that Python could see.
    except (ValueError, TypeError):
        return RewardFunction(name=name, function=function)
    by_place = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_place) < 2 and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ValueError(
            f"reward {name!r} takes {inspect.signature(function)}; it is called with response and answer first, and "
            "with columns of the row by their names"
        )
    further = [*by_place[2:], *(p for p in parameters if p.kind is p.KEYWORD_ONLY)]
    needed = [p for p in further if p.default is p.empty]
    for parameter in needed:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ValueError(f"reward {name!r}: {parameter.name!r} cannot be given by name; put it behind the '/'")
    return RewardFunction(
        name=name,
        function=function,
        needed=tuple(p.name for p in needed),
        optional=tuple(p.name for p in further if p.default is not p.empty and p.kind is not p.POSITIONAL_ONLY),
        takes_all=any(p.kind is p.VAR_KEYWORD for p in parameters),
        own=tuple(p.name for p in by_place[:2] if p.kind is p.POSITIONAL_OR_KEYWORD),
    )


@dataclass(frozen=True, kw_only=True)
class RewardSum:
    """Several functions: what each gives is multiplied by its weight and added up."""

    functions: tuple[RewardFunction, ...]
    weights: tuple[float, ...]
    right: int
    """Which of them says whether a response is right, by a reward above 0."""

    def verdict(self, response: str, answer: str, row: Mapping[str, Any]) -> Verdict:
        """The sum, with the answer and the reason of the function that says what is right.

        One that fails makes the whole an error: a sum without it would be another reward.
        """
        found = []
        for function in self.functions:
            found.append(judged(function, response, answer, row))
            if found[-1].reason.startswith("error"):
                return failed(f"{found[-1].reason.removeprefix('error: ')} (in {function.name})")
        decides = found[self.right]
        total = sum(weight * one.reward for weight, one in zip(self.weights, found, strict=True))
        if not math.isfinite(total):
            return failed(f"the sum of the rewards is {total}")
        return Verdict(
            reward=total,
            extracted=decides.extracted,
            reason=decides.reason,
            parts=tuple(one.reward for one in found),
            right_by=decides.reward,
        )


def weighed(text: str) -> list[tuple[float, str]]:
    """The weights and names in a setting such as 'm:f, 0.2*m:g'.

    Raises:
        ValueError: a part without a name, a weight that is no finite number, a name that is there twice.

    >>> weighed("m:f, 0.2*m:g")
    [(1.0, 'm:f'), (0.2, 'm:g')]
    """
    found: list[tuple[float, str]] = []
    for part in text.split(","):
        before, times, behind = (piece.strip() for piece in part.partition("*"))
        name = behind if times else before
        if not name:
            raise ValueError(f"expected functions as 'm:f, 0.2*m:g', got {text!r}: a name is missing")
        try:
            weight = float(before) if times else 1.0
        except ValueError:
            weight = math.nan
        # Python reads digits of any script, which no setting has.
        if not math.isfinite(weight) or (times and (vanishes(before) or not before.isascii())):
            raise ValueError(f"the weight of {name!r} must be a finite number, got {before!r} in {text!r}")
        if name in (other for _, other in found):
            raise ValueError(f"{name!r} is there twice in {text!r}; add up its weights")
        found.append((weight, name))
    return found


def chosen_reward(function: str | None, right: str | None = None) -> Reward | RewardFunction | RewardSum:
    """What judges a run's responses.

    Args:
        function: the setting: one function, or several with weights; None for `math_reward`.
        right: the function that says what is right; None for the first.

    Returns:
        The function itself where one of two parameters is all there is.

    Raises:
        ValueError: a function that cannot be had or called.
    """
    terms = [(1.0, DEFAULT)] if function is None else weighed(function)
    if right is not None and right.strip() not in (name for _, name in terms):
        terms.append((0.0, right.strip()))
    if len(terms) == 1 and terms[0][0] == 1:
        found = _found(terms[0][1], is_default=function is None)
        return found if found.takes_columns else found.function
    functions = tuple(_found(name, is_default=function is None and name == DEFAULT) for _, name in terms)
    decides = 0 if right is None else [name for _, name in terms].index(right.strip())
    return RewardSum(functions=functions, weights=tuple(weight for weight, _ in terms), right=decides)


def _found(name: str, *, is_default: bool) -> RewardFunction:
    if is_default:
        return RewardFunction(name=name, function=unhurried_math_reward)
    return described_function(name, load_reward(name))


def functions_of(reward: Reward | RewardFunction | RewardSum) -> tuple[RewardFunction, ...]:
    """The functions that a reward is made of."""
    if isinstance(reward, RewardSum):
        return reward.functions
    return (reward if isinstance(reward, RewardFunction) else RewardFunction(name=str(reward), function=reward),)


def names_of_parts(reward: Reward | RewardFunction | RewardSum) -> tuple[str, ...]:
    """What the numbers of `Verdict.parts` are called; () for a reward that has no parts."""
    return tuple(function.name for function in reward.functions) if isinstance(reward, RewardSum) else ()


def judged(
    reward: Reward | RewardFunction | RewardSum, response: str, answer: str, row: Mapping[str, Any] | None = None
) -> Verdict:
    """The reward's verdict, whatever it returns or raises.

    A number of any library is wrapped, with "custom" as its reason. An exception, and a result that is
    neither a finite number nor a Verdict with one, is reward 0 with an "error: ..." reason.

    >>> judged(lambda response, answer: len(response) / 10, "12345", "")
    Verdict(reward=0.5, extracted=None, reason='custom')
    >>> judged(lambda response, answer: float("nan"), "", "").reason
    'error: the reward must return a finite number or a Verdict, got nan'
    """
    if isinstance(reward, RewardSum):
        return reward.verdict(response, answer, row or {})
    try:
        result: Any = (
            reward(response, answer, row or {}) if isinstance(reward, RewardFunction) else reward(response, answer)
        )
        number = as_number(result.reward if isinstance(result, Verdict) else result)
        if number is None:
            return failed(f"the reward must return a finite number or a Verdict, got {result!r}")
    # The reward is somebody else's code on a model's text: sys.exit() in it must not end the worker either.
    except BaseException as problem:
        return failed(told(problem))
    if not isinstance(result, Verdict):
        return Verdict(reward=number, extracted=None, reason="custom")
    extracted = None if result.extracted is None else _writable(str(result.extracted))[:MAX_ANSWER_CHARACTERS]
    return Verdict(reward=number, extracted=extracted, reason=_writable(str(result.reason))[:MAX_REASON_CHARACTERS])


def as_number(value: Any) -> float | None:
    """A finite number of Python, or of any library that has numbers; None for anything else.

    >>> import numpy as np
    >>> from decimal import Decimal
    >>> as_number(np.bool_(True)), as_number(Decimal("0.5")), as_number(np.array([1.0])), as_number(1j)
    (1.0, 0.5, 1.0, None)
    """
    # Numbers and arrays of one element: numpy, torch, jax; with more of them they raise.
    item = getattr(value, "item", None)
    value = item() if callable(item) else value
    if isinstance(value, str | bytes | bytearray) or (isinstance(value, Complex) and not isinstance(value, Real)):
        return None
    if not hasattr(value, "__float__"):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def failed(detail: str) -> Verdict:
    """That of an item which could not be judged."""
    return Verdict(reward=0.0, extracted=None, reason=_writable(f"error: {detail}")[:MAX_REASON_CHARACTERS])


def _writable(text: str) -> str:
    """Half of a surrogate pair is nothing that the files of a run could hold."""
    return text.encode("utf-8", "replace").decode()


def troubles(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """reward/timeouts and reward/errors: how many of the verdicts have these reasons."""
    reasons = [verdict.reason for verdict in verdicts]
    return {
        "reward/timeouts": reasons.count("timeout"),
        "reward/errors": sum(reason.startswith("error") for reason in reasons),
    }
