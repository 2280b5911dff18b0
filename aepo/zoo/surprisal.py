"""Methods that weigh a token's advantage by its surprisal -ln pi: no second sampling, and no more passes."""

import dataclasses
from typing import Literal

from torch import Tensor

from aepo.batch import Rollouts
from aepo.controller import Control, Doubling, Gate
from aepo.method import Method
from aepo.weights import top_share
from aepo.zoo.grpo import grpo

Variant = Literal["O1", "C2"]


def stare(
    *,
    share: float = 0.1,
    strength: float = 0.1,
    variant: Variant = "O1",
    step: float = 0.0,
    high: float = 0.5,
    **grpo_options,
) -> Method:
    """STARE: while H < H*, the most surprising right tokens weigh more (arXiv 2606.19236, Sections 4.1 to 4.4).

    L+ are the tokens with A > 0 of largest -ln pi, L- those with A < 0. Below the target the advantage is multiplied by
    W = 1 + w on L+ and, in variant C2, by M = 1 - w on L-; above it this is GRPO. With a step, w climbs by it below the
    target and falls above it. A floor, not a set-point: it cannot lower entropy. The source ranks under the current
    policy within a micro-batch; here it is done once, before the update, over the global batch. It has W and M as
    settings of their own; in all of its scripts W - 1 = 1 - M.

    Args:
        share: of the tokens of one sign, those of largest surprisal, rounded up: 0.1.
        strength: w at the start, 0.1 (0.05 for the source's 14B and 32B models).
        variant: `O1` amplifies L+ alone, the source's default; `C2` weakens L-, too.
        step: 0, as in the source's scripts; its settings have 0.01 where the schedule is on.
        high: most that w becomes, 0.5.
        grpo_options: as for `grpo`.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    if variant not in ("O1", "C2"):
        raise ValueError(f"variant must be 'O1' or 'C2', got {variant!r}")
    if variant == "C2" and high > 1:
        raise ValueError(f"high must be at most 1 with variant='C2', where 1 - w is a weight, got {high}")

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        surprisal, on, w = -rollouts.scored("old_logp"), weight != 0, control.strength[..., None, None]
        factor = 1 + w * top_share(surprisal, on & (advantage > 0), share, upwards=True)
        if variant == "C2":
            factor = factor - w * top_share(surprisal, on & (advantage < 0), share, upwards=True)
        return advantage * factor

    return dataclasses.replace(
        grpo(**grpo_options),
        name="stare",
        controller=Gate(start=strength, step=step, high=high),
        shape=shape,
        label=f"{variant}, share={share:g}, w={strength:g}" + (f" to {high:g} by {step:g}" if step else ""),
    )


# The source's: a token rarer than e^-20 is one of e^-20.
LEAST_LOGP = -20.0


def repo_r(*, start: float = 1e-3, lowest: float = 1e-4, limit: float = 1.0, **grpo_options) -> Method:
    """REPO-R: A max(1 - zeta ln pi, 0) where A > 0, A max(1 + zeta ln pi, 0) where A < 0 (arXiv 2603.11682, App. D.2).

    zeta > 0 raises entropy: rare right tokens gain most, and rare wrong ones lose least. A controller doubles |zeta|
    while its sign is the wanted one and halves it while it is not, until the sign turns at `lowest`. No second
    sampling, no bonus, and it acts on both sides of the target. After SkyRL's code (pull request 1896), since the
    paper's is not public. There ln pi is that of the current policy, and zeta answers the entropy of the step before
    (`sees="previous"`); here ln pi is taken once, before the update.

    Args:
        start: the first zeta, 1e-3.
        lowest, limit: least and largest |zeta|, 1e-4 and 1 as in SkyRL's first version. The paper's limit, which SkyRL
            has now, is 0.05; where -ln pi is 3 at most, as on Env A, that is too little to hold any target.
        grpo_options: as for `grpo`.
    """

    def shape(advantage: Tensor, rollouts: Rollouts, control: Control, weight: Tensor) -> Tensor:
        logp = rollouts.scored("old_logp").clamp(min=LEAST_LOGP)
        return advantage * (1 - advantage.sign() * control.strength[..., None, None] * logp).clamp(min=0)

    return dataclasses.replace(
        grpo(**grpo_options),
        name="repo_r",
        controller=Doubling(start=start, lowest=lowest, limit=limit),
        shape=shape,
        label=f"zeta {lowest:g}/{limit:g}",
    )
