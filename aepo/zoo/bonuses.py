"""An entropy bonus whose coefficient a controller moves: adaptive, dual, PI, and SIREN's squared distance."""

import dataclasses

from torch import Tensor

from aepo.batch import Rollouts
from aepo.controller import Control, Controller, Dual, Proportional, ProportionalIntegral, Staircase
from aepo.method import Method
from aepo.weights import top_share
from aepo.zoo.grpo import grpo


def _push(control: Control) -> Tensor:
    return control.strength


def _controlled_bonus(name: str, controller: Controller, label: str, **grpo_options) -> Method:
    return dataclasses.replace(grpo(**grpo_options), name=name, controller=controller, entropy_coef=_push, label=label)


def adaptive_bonus(*, step: float = 1e-4, low: float = 0.0, high: float = 5e-3, **grpo_options) -> Method:
    """A bonus whose coefficient climbs while H < H* and descends otherwise, acting only below H* (Skywork-OR1).

    A floor, not a set-point: it cannot lower entropy. The source measures minus the mean log-prob of the sampled tokens
    and is one step late (`sees="previous"`); here it is the exact entropy. TRL's version also acts at H = H*, and its
    steps are 0.005, up to 1.

    Args:
        step: 1e-4 a step.
        low, high: limits of the coefficient, 0 and 5e-3 (the source's 7B script; its settings file has 1e-3 and 0.5).
        grpo_options: as for `grpo`.
    """
    controller = Staircase(step=step, low=low, high=high)
    return _controlled_bonus("adaptive_bonus", controller, f"step={step:g}, coef {low:g}/{high:g}", **grpo_options)


def dual_bonus(
    *, rate: float = 0.1, low: float = 1e-4, high: float = 10.0, start: float = 0.01, **grpo_options
) -> Method:
    """A bonus whose log-coefficient follows the error, as SAC's temperature does (Haarnoja et al. 2018).

    Positive by construction, so it never pushes entropy down.

    Args:
        rate: of ln c per nat and step. SAC's 3e-4 is for a million steps; runs here have a thousand.
        low, high: limits of the coefficient.
        start: the first coefficient.
        grpo_options: as for `grpo`.
    """
    controller = Dual(rate=rate, low=low, high=high, start=start)
    return _controlled_bonus("dual_bonus", controller, f"rate={rate:g}, coef {low:g}/{high:g}", **grpo_options)


def pi_bonus(
    *, gain: float = 1.0, rate: float = 0.05, limit: float = 2.0, within: float = 0.3, **grpo_options
) -> Method:
    """A bonus of either sign under proportional-integral control: the fair opponent of temperature control.

    Args:
        gain, rate: of the proportional and the integral part, per nat.
        limit: the coefficient stays in [-limit, limit].
        within: the integral moves while |H - H*| is below this.
        grpo_options: as for `grpo`.
    """
    controller = ProportionalIntegral(gain=gain, rate=rate, low=-limit, high=limit, within=within)
    return _controlled_bonus("pi_bonus", controller, f"gain={gain:g}, rate={rate:g}", **grpo_options)


def siren(*, coef: float = 5e-3, share: float = 0.2, limit: float = 10.0, **grpo_options) -> Method:
    """SIREN: minus coef x (H_masked - H*)^2, on the tokens of highest entropy (arXiv 2509.25133).

    Its gradient is that of an entropy bonus on their mean with coefficient 2 coef (H* - H): a two-sided proportional
    controller. The source anchors at the masked entropy of its first step, chooses the tokens within each response, and
    restricts each token's entropy to the top-p 0.8 nucleus, which needs the whole distribution; here the anchor is the
    target, the tokens are the batch's, the distance is that of the mean over all tokens, which the target is about, and
    the entropy is the exact one. The source's script sets a clip of 0.28, but its settings file's 0.2 and 0.2 win; its
    advantage and its mean are Dr. GRPO's.

    Args:
        coef: weight of the squared distance, 5e-3.
        share: of the tokens, those of highest entropy: 0.2.
        limit: bound on the bonus coefficient.
        grpo_options: as for `grpo`.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    if not coef > 0:
        raise ValueError(f"coef must be > 0, got {coef}")

    def tokens(rollouts: Rollouts) -> Tensor:
        return top_share(rollouts.scored("entropy"), rollouts.mask, share)

    base = _controlled_bonus(
        "siren",
        Proportional(gain=2 * coef, low=-limit, high=limit),
        f"coef={coef:g}, share={share:g}",
        **grpo_options,
    )
    return dataclasses.replace(base, entropy_tokens=tokens)
