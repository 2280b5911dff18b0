"""What is trained: the paper's methods, its targets and ablations, and the curves of its figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aepo.llm.settings import SettingsError

TARGETS = (0.5, 0.75, 1.0, 1.5)
"""AEPO's entropy targets in nats; the walk task's start has about 2."""
REINFORCE_TEMPERATURES = (0.67, 1.5)
"""Of Fig. 2: those between which the preset's AEPO switches."""
REINFORCE_SHARE = 1 / 3
"""Of the steps: which way entropy goes shows early."""
BONUSES = (0.15,)
"""Coefficients of Fig. 3 beside the paper's 0.015, and GRPO's 0."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is trained over several seeds."""

    label: str
    method: str
    target: float | None = None
    """H* in nats, of methods that are given one."""
    options: tuple[tuple[str, float], ...] = ()
    """Of the method, beside the preset's."""
    evaluated: bool = True
    """Whether it is in the tables, or only a curve of a figure."""
    followed: bool = False
    """Whether its checkpoints are evaluated too, for pass@k against the training step."""
    share: float = 1.0
    """Of the experiment's steps that it takes, in (0, 1]."""

    @property
    def slug(self) -> str:
        """The label as a folder's name."""
        kept = "".join(c if c.isalnum() or c == "." else "_" for c in self.label.lower().replace("*=", ""))
        return "_".join(part for part in kept.split("_") if part)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What is typed for it."""
        typed = [f"--method.name={self.method}", *(f"--method.{name}={value:g}" for name, value in self.options)]
        return (*typed, *(() if self.target is None else (f"--target.value={self.target:g}",)))


GRPO = Arm(label="GRPO", method="grpo", followed=True)
ENTROPY_REG = Arm(label="Entropy-Reg", method="entropy_reg", options=(("coef", 0.015),))
ENTROPY_ADV = Arm(label="Entropy-Adv", method="entropy_adv", options=(("beta", 0.4), ("kappa", 2.0)))


def aepo(targets: Sequence[float]) -> tuple[Arm, ...]:
    """AEPO at each target (Fig. 1, the first rows of Table 3)."""
    return tuple(Arm(label=f"AEPO H*={target:g}", method="aepo", target=target, followed=True) for target in targets)


def ablations(target: float) -> tuple[Arm, ...]:
    """The other rows of Table 3, the authors' follow-up, and ours, whose options are its own."""
    named = (("Eq. 2", "aepo_eq2"), ("Eq. 3", "aepo_eq3"), ("DCPO", "dcpo"))
    ours = Arm(
        label=f"Reweighting H*={target:g}",
        method="reweighting",
        target=target,
        options=(("t_low", 0.5), ("t_high", 2.0)),
    )
    return (*(Arm(label=f"{label} H*={target:g}", method=method, target=target) for label, method in named), ours)


def reinforce() -> tuple[Arm, ...]:
    """REINFORCE on tempered samples (Fig. 2); not evaluated."""
    return tuple(
        Arm(
            label=f"REINFORCE T={t:g}", method="reinforce_tempered", options=(("temperature", t),), evaluated=False,
            share=REINFORCE_SHARE,
        )
        for t in REINFORCE_TEMPERATURES
    )  # fmt: skip


def bonuses() -> tuple[Arm, ...]:
    """Entropy regularization at other coefficients (Fig. 3); not evaluated."""
    return tuple(
        Arm(label=f"Entropy-Reg {coef:g}", method="entropy_reg", options=(("coef", coef),), evaluated=False)
        for coef in BONUSES
    )


def every(targets: Sequence[float] = TARGETS) -> tuple[Arm, ...]:
    """All arms, in the order of the tables; ablations at the first target."""
    return (
        GRPO, ENTROPY_REG, ENTROPY_ADV, *aepo(targets), *ablations(targets[0]), *reinforce(), *bonuses(),
    )  # fmt: skip


def levels(targets: str) -> list[float]:
    """Entropy targets as they are typed, in nats.

    Raises:
        SettingsError: no numbers, or none that are above 0 and rise.

    >>> levels("0.5,1.0")
    [0.5, 1.0]
    """
    try:
        found = [float(level) for level in targets.split(",")]
    except ValueError:
        raise SettingsError(f"--targets must be numbers with commas between them, got {targets!r}") from None
    if not all(map(math.isfinite, found)):
        raise SettingsError(f"--targets must be finite, got {targets!r}")
    if sorted(set(found)) != found or found[0] <= 0:
        raise SettingsError(f"--targets must be above 0 and rise, got {targets!r}")
    return found
