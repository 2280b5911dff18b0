"""What is kept of a run: one small file with its settings' digest, its thinned curve, its figures and its counts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aepo import atomic
from aepo.llm.experiment.ladder.claims import Metric
from aepo.llm.experiment.ladder.protocol import Evaluation, Protocol
from aepo.llm.settings import SettingsError
from aepo.passk import pass_at_k

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

LARGEST = 20_000
"""Bytes of a file: hundreds are committed, and a person may read one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """How many samples of each prompt were right."""

    samples: int
    """Of each prompt."""
    right: Ints
    """(P,)."""
    different: Ints | None = None
    """(P,): how many of the right ones differ from each other."""

    def pass_at(self, k: int) -> Floats:
        """(P,): unbiased pass@k of each prompt, in [0, 1]."""
        return pass_at_k(torch.from_numpy(self.right), samples=self.samples, k=k).numpy()

    def as_json(self) -> dict[str, Any]:
        """Each list as one text."""
        found = {"samples": self.samples, "right": packed(self.right, most=self.samples)}
        return found if self.different is None else {**found, "different": packed(self.different, most=self.samples)}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Counts":
        """What `as_json` made."""
        samples, different = found["samples"], found.get("different")
        return cls(
            samples=samples,
            right=unpacked(found["right"], most=samples),
            different=None if different is None else unpacked(different, most=samples),
        )


def packed(counts: Ints, *, most: int) -> str:
    """Whole numbers of 0 .. most as hexadecimal digits, for each as many as the largest has.

    >>> packed(np.array([0, 255, 256]), most=256)
    '0000ff100'
    """
    if len(counts) and not 0 <= counts.min() <= counts.max() <= most:
        raise ValueError(f"counts must be in 0 .. {most}, got {counts.min()} .. {counts.max()}")
    return "".join(f"{count:0{len(f'{most:x}')}x}" for count in counts.tolist())


def unpacked(text: str, *, most: int) -> Ints:
    """What `packed` made.

    >>> unpacked("0000ff100", most=256).tolist()
    [0, 255, 256]
    """
    digits = len(f"{most:x}")
    if len(text) % digits:
        raise ValueError(f"must have {digits} hexadecimal digits a count, got {len(text)} in all")
    return np.array([int(text[at : at + digits], 16) for at in range(0, len(text), digits)], dtype=np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """A run's file."""

    arm: str
    seed: int
    digest: str
    """`aepo.llm.experiment.ladder.protocol.Protocol.digests` of its arm."""
    about: Mapping[str, Any]
    """Command, settings, device, versions, what it took."""
    summary: Mapping[str, float | None]
    """Figures of every step of its training; none of a model before RL."""
    curve: Mapping[str, Sequence[float | None]]
    """Every fifth step or so of its training."""
    counts: Mapping[str, Counts]
    """Of the last model: `narrow`, `whole`, and where they were made `narrow_nucleus`, `whole_nucleus`, `more`."""
    checkpoints: Mapping[int, Counts]
    """By step."""
    surprise: Mapping[str, Mapping[str, Sequence[float]]]
    """Level -> `right`, `wrong` -> mean -log p per token of these samples at T = 1 in nats, and their tokens."""

    def passes(self, metric: Metric, evaluation: Evaluation) -> Floats | None:
        """(P,): a metric of each prompt, in [0, 1]; None where the run was not evaluated so."""
        asked = ["narrow"] if metric.temperature == evaluation.narrow.temperature else ["whole", "more"]
        found = [self.counts[name] for name in asked if name in self.counts and self.counts[name].samples >= metric.k]
        return found[0].pass_at(metric.k) if found else None

    def as_text(self) -> str:
        """The file.

        Raises:
            ValueError: it would be larger than `LARGEST`.
        """
        found = {
            "arm": self.arm,
            "seed": self.seed,
            "digest": self.digest,
            "about": self.about,
            "summary": self.summary,
            "surprise": self.surprise,
            "curve": self.curve,
            "counts": {name: counts.as_json() for name, counts in self.counts.items()},
            "checkpoints": {str(step): counts.as_json() for step, counts in self.checkpoints.items()},
        }
        # A line for each entry: readable, and no line for each number.
        parts = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in found.items())
        text = "{\n" + ",\n".join(parts) + "\n}\n"
        if (size := len(text.encode())) > LARGEST:
            raise ValueError(f"the file of {self.arm}, seed {self.seed} would have {size} bytes, more than {LARGEST}")
        return text


def path_of(folder: Path, arm: str, seed: int) -> Path:
    """Where a run's file is."""
    return folder / f"{arm}_seed{seed}.json"


def write(folder: Path, outcome: Outcome) -> Path:
    """The file of a run, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = path_of(folder, outcome.arm, outcome.seed)
    atomic.write_text(path, outcome.as_text(), durable=True)
    return path


def read(path: Path) -> Outcome:
    """The run of a file.

    Raises:
        SettingsError: a file that is none of a run.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Outcome(
            arm=found["arm"],
            seed=found["seed"],
            digest=found["digest"],
            about=found["about"],
            summary=found["summary"],
            curve=found["curve"],
            counts={name: Counts.of_json(counts) for name, counts in found["counts"].items()},
            checkpoints={int(step): Counts.of_json(counts) for step, counts in found["checkpoints"].items()},
            surprise=found["surprise"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path}: is no file of a run ({type(error).__name__}: {error}); remove it") from error


def known(protocol: Protocol, folder: Path, arm: str, seed: int) -> Outcome | None:
    """The run of this arm and seed that a folder holds, if there is one.

    Raises:
        SettingsError: its file is of other settings or another evaluation than the protocol's.
    """
    path = path_of(folder, arm, seed)
    if not path.exists():
        return None
    outcome = read(path)
    if (outcome.arm, outcome.seed) != (arm, seed):
        raise SettingsError(f"{path}: holds {outcome.arm}, seed {outcome.seed}; rename or remove it")
    if outcome.digest != (wanted := protocol.digests[arm]):
        raise SettingsError(
            f"{path}: was made with other settings or evaluations than the protocol has for {arm} (digests "
            f"{outcome.digest} and {wanted}); remove it to make it anew, or name another --results"
        )
    return outcome
