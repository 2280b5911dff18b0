"""The claims of a protocol as it writes them: which arms, by which metric, in which direction."""

import itertools
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from aepo.llm.settings import Section


@dataclass(frozen=True)
class Metric:
    """pass@k at a temperature, in points.

    >>> Metric.named("pass@1 T=0.1"), Metric.named("pass@256")
    (Metric(k=1, temperature=0.1), Metric(k=256, temperature=1.0))
    """

    k: int
    temperature: float

    @classmethod
    def named(cls, name: str) -> "Metric":
        """The metric of a name: `pass@K T=TEMPERATURE`, at T = 1 where the second part is left out.

        Raises:
            ValueError: a name of another form.
        """
        found = re.fullmatch(r"pass@([1-9]\d*)(?: T=(\d+(?:\.\d+)?))?", name)
        if found is None:
            raise ValueError(f"a metric must be pass@K or pass@K T=TEMPERATURE, got {name!r}")
        return cls(int(found[1]), float(found[2] or 1.0))


class _Test(BaseModel):
    """What a claim is decided by. Each combination of its lists is a claim of its own."""

    # Not a Section, whose checks of values pydantic does not allow on the field that tells the kinds apart.
    model_config = Section.model_config

    arms: tuple[str, ...] = Field(min_length=1)

    def needed(self) -> Iterator[tuple[str, str | None]]:
        """Every arm that it needs, with the metric of it; None: its curve alone."""
        return ((arm, None) for arm in self.arms)

    @abstractmethod
    def single(self) -> Iterator["_Test"]:
        """Tests whose lists have one entry each."""


class Collapses(_Test):
    """The mean entropy of an arm's last steps is below a share of its first one, in every seed."""

    test: Literal["collapses"]
    below: float = Field(gt=0, lt=1)

    def single(self) -> Iterator["Collapses"]:
        return (self.model_copy(update={"arms": (arm,)}) for arm in self.arms)


class Holds(_Test):
    """An arm's mean |H - H*| over the last half is at most a share of H*."""

    test: Literal["holds"]
    within: float = Field(gt=0)

    def single(self) -> Iterator["Holds"]:
        return (self.model_copy(update={"arms": (arm,)}) for arm in self.arms)


class Misses(_Test):
    """An arm's mean |H - H*| over the last half is above a share of H*."""

    test: Literal["misses"]
    within: float = Field(gt=0)

    def single(self) -> Iterator["Misses"]:
        return (self.model_copy(update={"arms": (arm,)}) for arm in self.arms)


class _Compared(_Test):
    """An arm and another one, seed by seed."""

    than: tuple[str, ...] = Field(min_length=1)
    metrics: tuple[str, ...] = Field(min_length=1)

    def needed(self) -> Iterator[tuple[str, str | None]]:
        return itertools.product((*self.arms, *self.than), self.metrics)

    def single(self) -> Iterator["_Compared"]:
        for metric, arm, other in itertools.product(self.metrics, self.arms, self.than):
            yield self.model_copy(update={"arms": (arm,), "than": (other,), "metrics": (metric,)})


class Above(_Compared):
    """An arm has more of a metric than another one."""

    test: Literal["above"]
    than_metric: str | None = None
    """Of the other arm, where it is not the same."""

    def needed(self) -> Iterator[tuple[str, str | None]]:
        other = self.metrics if self.than_metric is None else (self.than_metric,)
        return itertools.chain(itertools.product(self.arms, self.metrics), itertools.product(self.than, other))


class Differs(_Compared):
    """An arm has more or less of a metric than another one."""

    test: Literal["differs"]


class Beyond(_Compared):
    """An arm solves, in k samples, more than the smallest share of prompts that another one solves in none of its most
    samples."""

    test: Literal["beyond"]


class Inner(_Test):
    """Of the arms between two ends, the one that is best on the choosing seeds has more of a metric than both ends."""

    test: Literal["inner"]
    arms: tuple[str, ...] = Field(min_length=1, alias="among")
    ends: tuple[str, str]
    metrics: tuple[str, ...] = Field(min_length=1)

    def needed(self) -> Iterator[tuple[str, str | None]]:
        return itertools.product((*self.arms, *self.ends), self.metrics)

    def single(self) -> Iterator["Inner"]:
        return (self.model_copy(update={"metrics": (metric,)}) for metric in self.metrics)


class NoSetPoint(_Test):
    """No arm's mean entropy of the last steps is within a share of a level in every seed, for any of the levels."""

    test: Literal["no_set_point"]
    levels: tuple[float, ...] = Field(min_length=1)
    within: float = Field(gt=0)

    def single(self) -> Iterator["NoSetPoint"]:
        yield self


Test = Annotated[
    Collapses | Holds | Misses | Above | Differs | Beyond | Inner | NoSetPoint, Field(discriminator="test")
]


class Claim(Section):
    """A sentence of the paper, and what decides it."""

    says: str
    tests: tuple[Test, ...] = Field(min_length=1)


def every_test(claims: Sequence[Claim]) -> list[tuple[int, Test]]:
    """Every test with one combination of its lists, and the number of its claim, from 1."""
    return [(number, one) for number, claim in enumerate(claims, 1) for test in claim.tests for one in test.single()]
