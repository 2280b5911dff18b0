"""What a sweep runs and which figure shows it: the paper's figures, or the methods asked for."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from aepo.controller import BangBang
from aepo.method import NORMALIZERS, Method
from aepo.tabular.options import Options
from aepo.tabular.settings import ACTIONS, CORRECT, Settings
from aepo.zoo import METHODS, build
from aepo.zoo import options as zoo_options

NAMES = {
    "adaptive_bonus": "Skywork-OR1 bonus",
    "aepo": "AEPO",
    "aepo_adaptive": "AEPO, adaptive strength (ours)",
    "aepo_pi": "AEPO, PI temperature",
    "aepo_reach": "AEPO, widening reach (ours)",
    "ce_gppo": "CE-GPPO",
    "clip_b": "Clip_B",
    "clip_cov": "Clip-Cov",
    "clip_higher": "Clip-higher",
    "clip_v": "Clip_V",
    "dcpo": "DCPO",
    "dr_grpo": "Dr. GRPO",
    "dual_bonus": "SAC-style dual",
    "e3": "E3, main temperature",
    "entrocraft": "Entrocraft",
    "entropic": "EntroPIC",
    "entropy_ratio_clip": "Entropy-ratio clipping",
    "entropy_reg_nll": "Entropy-Reg (sampled NLL)",
    "kl_cov": "KL-Cov",
    "pi_bonus": "PI bonus",
    "quantile": "Quantile advantage",
    "repo_r": "REPO-R",
    "reweighting": "Reweighting (ours)",
    "shorter": "Shorter but right",
    "siren": "SIREN",
    "stare": "STARE",
    "steer": "STEER",
    "top_entropy": "80/20",
    "aepo_eq2": "Eq. 2",
    "aepo_eq3": "Eq. 3",
    "entropy_adv": "Entropy-Adv",
    "entropy_reg": "Entropy-Reg",
    "grpo": "GRPO",
    "reinforce": "REINFORCE",
    "reinforce_tempered": "REINFORCE",
}
"""The names that the papers use."""

COEFFICIENTS = (0.003, 0.015, 0.03, 0.1, 0.3)
"""lambda of Fig. 3: from collapse to explosion, the paper's 0.015 among them."""

HEAD_START = 4.0
"""Puts some 98 % of the probability on A*: a policy that knows what is right, its entropy free to move."""

SLOPE_RUN_STEPS = 500
"""Fig. 2 is over long before the other figures' runs end."""

HIGH_TARGETS = (1.25, 1.5, 1.75, 2.0)
"""Targets towards ln 8 = 2.08, where few correct answers are left to add."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One method on one kind of bandit, run over all seeds and targets in one batch."""

    method: str
    """Name in the zoo."""
    overrides: tuple[tuple[str, object], ...] = ()
    """The zoo's options that differ from its defaults, the paper's values."""
    targets: tuple[float, ...] = ()
    """Entropy targets, nats; empty for a method that follows none."""
    actions: int = ACTIONS
    correct: int = CORRECT
    head_start: float = 0.0
    environment: str = "bandit"
    """Name in `ENVIRONMENTS`; `actions`, `correct` and `head_start` belong to the bandit alone."""
    schedule: tuple[str, tuple[tuple[str, float], ...]] | None = None
    """A moving target by name and arguments (see `aepo.schedule`), in place of constant `targets`."""
    floor: bool = False
    """Whether to measure the error that noise alone leaves, see `aepo.tabular.floor`."""
    settings: Settings

    def build(self) -> Method:
        """The method as a value."""
        return build(self.method, **dict(self.overrides))

    @property
    def name(self) -> str:
        """The method as the paper calls it."""
        return NAMES.get(self.method, self.method)

    @property
    def setting(self) -> str:
        """What a reported number must name: normalizer, strength, temperatures, whatever is unusual."""
        method = self.build()
        parts = [method.label] if method.label else []
        if isinstance(method.controller, BangBang):
            parts.append(f"T {method.controller.t_low:g}/{method.controller.t_high:g}")
        if self.environment == "bandit" and (self.correct != CORRECT or self.actions != ACTIONS):
            parts.append(f"|A*|={self.correct} of {self.actions}")
        if self.schedule is not None:
            arguments = " ".join(f"{name}={value:g}" for name, value in self.schedule[1])
            parts.append(f"H* {self.schedule[0]} {arguments}")
        if self.head_start:
            parts.append(f"head start {self.head_start:g}")
        return ", ".join(parts)

    @property
    def title(self) -> str:
        """Name and setting."""
        return f"{self.name} ({self.setting})" if self.setting else self.name


Shows = Literal["entropy", "reward", "reward_held_out", "pass@64"]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a panel."""

    configuration: Configuration
    target: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of axes."""

    title: str
    curves: tuple[Curve, ...]
    shows: Shows = "entropy"
    """Curves over steps, or a number of the trained policy against its entropy."""
    slopes: bool = False
    """Whether the title ends with the measured initial slopes."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One PNG."""

    name: str
    """File name without suffix; also the `experiment` of the configurations that appear here first."""
    title: str
    panels: tuple[Panel, ...]


def configurations(figures: Sequence[Figure]) -> dict[Configuration, str]:
    """Every configuration once, in order, with the name of the figure that shows it first."""
    found: dict[Configuration, str] = {}
    for figure in figures:
        for panel in figure.panels:
            for curve in panel.curves:
                found.setdefault(curve.configuration, figure.name)
    return found


def follows_target(method: Method) -> bool:
    """Whether the method does anything else under another entropy target."""
    tempered = method.tempered
    return method.controlled or (tempered is not None and tempered.cap_up != tempered.cap_down)


def configuration(options: Options, method: str, **changes) -> Configuration:
    """The method under the command line's options; `changes` to the method's own options come last."""
    known = zoo_options(method)
    strengths = dict(options.where.strengths.get(method, {}))
    values = {name: value for name, value in (strengths | options.overrides | changes).items() if name in known}
    base = Configuration(
        method=method,
        overrides=tuple(sorted((name, value) for name, value in values.items() if value != known[name])),
        actions=options.actions,
        correct=options.correct,
        environment=options.where.name,
        settings=options.training,
    )
    built = base.build()
    if not follows_target(built):
        return base
    # Exact expectations have no noise, and a method without a controller nothing to compare with.
    measured = options.floor and built.controlled and not options.exact
    return dataclasses.replace(base, targets=options.targets, floor=measured)


def curves(*configurations: Configuration) -> tuple[Curve, ...]:
    """Every target of every configuration."""
    return tuple(Curve(configuration=one, target=target) for one in configurations for target in one.targets or (None,))


def chosen_methods(options: Options) -> tuple[Figure, ...]:
    """Exactly the methods asked for, in one figure of entropy and reward."""
    lines = curves(*(configuration(options, name) for name in options.methods))
    return (Figure(name="methods", title="The methods chosen", panels=_entropy_and_reward(lines)),)


def paper_figures(options: Options) -> tuple[Figure, ...]:
    """Figs. 1 to 4 on the bandit, the ablations, the paper's exact values, and where the method fails."""
    fig1, *others = _common_figures(options)
    fig2 = Figure(
        name="fig2",
        title="Fig. 2: REINFORCE alone, on samples of a fixed temperature",
        panels=tuple(
            Panel(title=title, curves=curves(*_fixed_temperatures(options, head)), slopes=True)
            for title, head in (("start: A* already learnt", HEAD_START), ("start: untrained", 0.0))
        ),
    )
    return (
        fig1,
        fig2,
        *others,
        Figure(
            name="paper_values",
            title="The paper's exact values, T 0.8/1.2, alpha 1",
            panels=_paper_values(options),
        ),
        Figure(
            name="failures",
            title="Hard cases: few correct actions, too little and too much authority",
            panels=_failures(options),
        ),
    )


def _common_figures(options: Options) -> tuple[Figure, ...]:
    """Figs. 1, 3 and 4 and the ablations, wherever they are run."""
    aepo, grpo = configuration(options, "aepo"), configuration(options, "grpo")
    middle = options.targets[len(options.targets) // 2]
    aepo_middle = Curve(configuration=aepo, target=middle)
    four = (
        Curve(configuration=grpo),
        Curve(configuration=configuration(options, "entropy_reg")),
        Curve(configuration=configuration(options, "entropy_adv")),
        aepo_middle,
    )
    ablations = (
        aepo_middle,
        *curves(configuration(options, "aepo_eq2")),
        Curve(configuration=configuration(options, "aepo_eq3"), target=middle),
    )
    return (
        Figure(
            name="fig1",
            title="Fig. 1: AEPO at each entropy target, GRPO as the fifth run",
            panels=(Panel(title=f"{aepo.title}{_not_the_papers(aepo)}", curves=curves(aepo, grpo)),),
        ),
        Figure(
            name="fig3",
            title="Fig. 3: Entropy-Reg over its coefficient, AEPO over its target",
            panels=(
                Panel(title="Entropy-Reg over its coefficient", curves=curves(*_regularised(options))),
                Panel(title=aepo.title, curves=curves(aepo)),
            ),
        ),
        Figure(name="fig4", title="Fig. 4: the four methods together", panels=_entropy_and_reward(four)),
        Figure(
            name="ablations",
            title="Ablations: without temperature (Eq. 2), without REINFORCE (Eq. 3)",
            panels=_entropy_and_reward(ablations),
        ),
    )


def _regularised(options: Options) -> list[Configuration]:
    return [configuration(options, "entropy_reg", coef=coefficient) for coefficient in COEFFICIENTS]


def _entropy_and_reward(lines: tuple[Curve, ...]) -> tuple[Panel, ...]:
    return (Panel(title="Entropy", curves=lines), Panel(title="Reward", curves=lines, shows="reward"))


UNCONTROLLED_ROW = 6
"""Curves in one panel of methods without a target: more cannot be told apart."""


def arena(options: Options) -> tuple[Figure, ...]:
    """Every method at every target: a panel per method that follows one, the rest together, and what entropy buys."""
    every = [configuration(options, name) for name in METHODS if name not in LEFT_OUT]
    following = [one for one in every if one.targets]
    rest = [one for one in every if not one.targets]
    groups = [rest[i : i + UNCONTROLLED_ROW] for i in range(0, len(rest), UNCONTROLLED_ROW)]
    frontier = curves(*following, *rest)
    return (
        Figure(
            name="controlled",
            title=f"Methods that follow a target, on {options.where.name}",
            panels=tuple(Panel(title=f"{one.title}{_not_the_papers(one)}", curves=curves(one)) for one in following),
        ),
        Figure(
            name="uncontrolled",
            title=f"Methods without a target, on {options.where.name}",
            panels=tuple(Panel(title="Entropy", curves=curves(*group)) for group in groups),
        ),
        moving_targets(options),
        _frontier(frontier),
    )


MOVING: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "A ramp": ("linear", (("start", 1.0), ("end", 0.5), ("steps", 1000.0))),
    "A step": ("step", (("before", 1.0), ("after", 0.5), ("at", 700.0))),
    "A sinusoid": ("sinusoid", (("mean", 0.75), ("amplitude", 0.2), ("period", 500.0))),
}
"""Targets that move, by name; steps and levels that the default 1,000 steps can show."""


def moving_targets(options: Options) -> Figure:
    """Bang-bang and adaptive strength following targets that are functions of the step."""
    return Figure(
        name="moving",
        title="Targets that move",
        panels=tuple(
            Panel(
                title=title,
                curves=tuple(
                    Curve(
                        configuration=dataclasses.replace(configuration(options, name), targets=(), schedule=schedule)
                    )
                    for name in ("aepo", "aepo_adaptive")
                ),
            )
            for title, schedule in MOVING.items()
        ),
    )


def _frontier(lines: tuple[Curve, ...]) -> Figure:
    return Figure(
        name="frontier",
        title="What a level of entropy is worth",
        panels=(
            Panel(title="Reward on held-out prompts", curves=lines, shows="reward_held_out"),
            Panel(title="pass@64 on held-out prompts", curves=lines, shows="pass@64"),
        ),
    )


LEFT_OUT = ("reinforce_tempered", "entropy_reg_nll", "shorter")
"""Not in the arena: half of a method; a bonus whose gradient is noise; one that steers lengths, not entropy."""


def paper_tables(options: Options) -> tuple[Figure, ...]:
    """Figs. 1, 3 and 4, the ablations, and Tables 2 and 3 as the frontier, on an environment with held-out prompts."""
    aepo, grpo, shaped, eq2, eq3 = (
        configuration(options, name) for name in ("aepo", "grpo", "entropy_adv", "aepo_eq2", "aepo_eq3")
    )
    return (
        *_common_figures(options),
        moving_targets(options),
        _frontier(curves(aepo, grpo, shaped, *_regularised(options), eq2, eq3)),
    )


def figures(options: Options) -> tuple[Figure, ...]:
    """What the options ask for."""
    if options.methods:
        return chosen_methods(options)
    if options.preset == "arena":
        return arena(options)
    return paper_figures(options) if options.where.name == "bandit" else paper_tables(options)


def _fixed_temperatures(options: Options, head_start: float) -> list[Configuration]:
    low, high = (
        value if value is not None else zoo_options("aepo")[name]
        for name, value in (("t_low", options.t_low), ("t_high", options.t_high))
    )
    shorter = dataclasses.replace(options, steps=min(options.training.steps, SLOPE_RUN_STEPS))
    # A dict drops the repetition when a temperature is 1 itself.
    return [
        dataclasses.replace(
            configuration(shorter, "reinforce_tempered", temperature=temperature), head_start=head_start
        )
        for temperature in dict.fromkeys((high, low, 1.0))
    ]


def _paper_values(options: Options) -> tuple[Panel, ...]:
    paper = dataclasses.replace(options, alpha=None, t_low=None, t_high=None, normalizer=None)
    # Exact expectations have no rows to replace.
    names = [name for name in NORMALIZERS if not (options.exact and name == "replace")]
    shown = [configuration(paper, "aepo", normalizer=name) for name in names]
    panels = [Panel(title=one.title, curves=curves(one)) for one in shown]
    high = tuple(target for target in HIGH_TARGETS if target <= math.log(options.actions))
    if high:
        towards_limit = dataclasses.replace(configuration(paper, "aepo"), targets=high)
        title = f"{towards_limit.title}, targets near ln |A*| = {math.log(options.correct):.3g}"
        panels.append(Panel(title=title, curves=curves(towards_limit)))
    return tuple(panels)


def _failures(options: Options) -> tuple[Panel, ...]:
    aepo = configuration(options, "aepo")
    single = dataclasses.replace(aepo, correct=1)
    shown = {
        "One correct action": single,
        "Two correct actions": dataclasses.replace(aepo, correct=2),
        "Narrow temperature range": configuration(options, "aepo", t_low=0.95, t_high=1.05),
        "Large alpha": configuration(dataclasses.replace(options, normalizer=None), "aepo", alpha=16.0),
    }
    return tuple(
        Panel(title=f"{why}: {one.setting}{_not_the_papers(one)}", curves=curves(one)) for why, one in shown.items()
    )


def _not_the_papers(one: Configuration) -> str:
    names = ", ".join(name for name, _ in one.overrides)
    return f"\n(overridden: {names})" if names else ""
