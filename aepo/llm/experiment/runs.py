"""What the experiment leaves on the disk, and where: training runs, evaluations, and these read back."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aepo.llm.evaluation.reporting import tables
from aepo.llm.experiment.arms import Arm
from aepo.llm.experiment.side_by_side import Job
from aepo.llm.records.recorder import read
from aepo.over_seeds import Array
from aepo.tracking import tracking_error

BASE = "base"
"""Label of the model before RL."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The arms, their seeds and their folders."""

    out: Path
    arms: Sequence[Arm]
    seeds: int
    steps: int
    curves_at: Sequence[int]
    """Training steps before the last whose checkpoints are evaluated, of the arms that are followed."""
    samples: int | None
    """Per problem, in either mode; None: as the evaluation's protocol has it."""

    @property
    def evaluated(self) -> list[Arm]:
        """The arms of the tables."""
        return [arm for arm in self.arms if arm.evaluated]

    def folder(self, arm: Arm, seed: int) -> Path:
        """Of a training run."""
        return self.out / arm.slug / f"seed_{seed}"

    def jobs(self) -> list[Job]:
        """All training runs, one seed after the other: what is cut short has whole seeds."""
        return [
            Job(
                title=f"{arm.label}, seed {seed}",
                folder=self.folder(arm, seed),
                arguments=(*arm.arguments, f"--seed={seed}", f"--train.steps={self._steps(arm)}"),
            )
            for seed in range(self.seeds)
            for arm in self.arms
        ]

    def _steps(self, arm: Arm) -> int:
        return max(2, round(arm.share * self.steps))

    def commands(self, base: Path) -> list[list[str]]:
        """All evaluations: both modes of the last model, pass@k of checkpoints before, the base with every seed."""
        found = []
        for seed in range(self.seeds):
            found.append(self._command(base, BASE, seed, 0, self._of_base(seed)))
            for arm in self.evaluated:
                run = self.folder(arm, seed)
                found.append(self._command(run / "final", arm.label, seed, self.steps, run / "evaluation"))
                found += [
                    [
                        *self._command(
                            run / "checkpoints" / f"step_{step:06d}", arm.label, seed, step, run / f"evaluation_{step}"
                        ),
                        "--mode=pass@k",
                    ]
                    for step in self._curve_steps(arm)
                ]
        return found

    def _curve_steps(self, arm: Arm) -> Sequence[int]:
        return self.curves_at if arm.followed else ()

    def _of_base(self, seed: int) -> Path:
        return self.out / BASE / f"evaluation_{seed}"

    def _command(self, model: Path, label: str, seed: int, step: int, out: Path) -> list[str]:
        return [
            f"--model={model}", f"--label={label}", f"--seed={seed}", f"--step={step}", f"--out={out}", "--suite=walk",
            *([] if self.samples is None else [f"--samples={self.samples}"]),
        ]  # fmt: skip

    def methods(self) -> list[tables.EvaluatedMethod]:
        """All evaluations as the report takes them, the base first; each arm's curve starts at the base."""
        base = [tables.read(self._of_base(seed)) for seed in range(self.seeds)]
        runs = list(base)
        for arm in self.evaluated:
            runs += [dataclasses.replace(run, label=arm.label, step=0) for run in base]
            for step in self._curve_steps(arm):
                runs += [tables.read(self.folder(arm, s) / f"evaluation_{step}") for s in range(self.seeds)]
            runs += [tables.read(self.folder(arm, s) / "evaluation") for s in range(self.seeds)]
        return tables.methods(runs)

    def summaries(self, arm: Arm) -> list[dict[str, Any]]:
        """summary.json of each seed's training."""
        return [json.loads((self.folder(arm, s) / "summary.json").read_text()) for s in range(self.seeds)]

    def of_training(self, arm: Arm, figure: str) -> Array:
        """(seeds,): a figure of the summaries; nan where a run has it not."""
        if figure == "tracking_error" and arm.target is not None:
            # Of Eq. 2 too, whose runs follow no target and keep no error.
            return tracking_error(self.curve(arm), arm.target)
        return np.array([summary[figure] for summary in self.summaries(arm)], dtype=float)

    def curve(self, arm: Arm, metric: str = "entropy") -> Array:
        """(seeds, steps): a metric over training."""
        return np.array([list(self._metric(arm, seed, metric)) for seed in range(self.seeds)], dtype=float)

    def _metric(self, arm: Arm, seed: int, metric: str) -> Iterator[float]:
        return (row[metric] for row in read(self.folder(arm, seed) / "metrics.jsonl"))
