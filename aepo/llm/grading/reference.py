"""What a right answer to a benchmark's question is, as a text that the workers of a `GradingPool` are given."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a right answer is."""

    answers: tuple[str, ...]
    """One, or all of several, which count in any order."""
    published: str
    """The answer as its publisher has it, for a person to compare."""
    unit: str = ""
    """That the answers are in, LaTeX; "" where the publisher states none, or it is in the answers."""
    absolute: float = 0.0
    """How far from the answer a number may be, in its unit; >= 0."""
    relative: float = 0.0
    """The same as a fraction of the answer; >= 0."""

    def __post_init__(self) -> None:
        if not self.answers or not all(answer.strip() for answer in self.answers):
            raise ValueError(f"answers must hold at least one text and no empty ones, got {self.answers!r}")
        if not (0 <= self.absolute < float("inf") and 0 <= self.relative < 1):
            raise ValueError(
                f"absolute must be >= 0 and finite, relative in [0, 1), got {self.absolute} and {self.relative}"
            )

    def to_json(self) -> str:
        """As `check` takes it."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> "Reference":
        """The inverse of `to_json`."""
        values = json.loads(text)
        return Reference(**{**values, "answers": tuple(values["answers"])})
