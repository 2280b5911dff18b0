"""report.md: the reading, Tables 1 to 3 in small, what the controllers did in training, and the figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aepo.llm.evaluation.reporting import figures as evaluated
from aepo.llm.evaluation.reporting import tables
from aepo.llm.evaluation.reporting.report import NOTES
from aepo.llm.evaluation.reporting.tables import EvaluatedMethod
from aepo.llm.experiment import arms, figures, reading
from aepo.llm.experiment.runs import BASE, Plan
from aepo.over_seeds import estimate

CAPTIONS = {
    "fig1": "**Fig. 1.** Entropy under AEPO at each target.",
    "fig2": "**Fig. 2.** REINFORCE on samples of one temperature above and one below 1, GRPO beside them.",
    "fig3": "**Fig. 3.** Entropy regularization at two coefficients and at none (GRPO), AEPO beside it.",
    "fig4": "**Fig. 4.** AEPO, GRPO, Entropy-Reg and Entropy-Adv.",
    "pass_at_k": "pass@k of the trained models and of the model before RL.",
    "pass_by_step": "pass@k of checkpoints against the training step; step 0 is the model before RL.",
    "accuracy_by_entropy": "Pass@1 (T = 0.1) against the entropy measured on held-out prompts at T = 1.",
}


def write(plan: Plan, targets: Sequence[float]) -> Path:
    """The report with its pictures, under the plan's folder."""
    every = plan.methods()
    last = {method.label: method for method in tables.latest(every)}
    claims = reading.read(plan, last, targets)
    held, rest = arms.aepo(targets), arms.ablations(targets[0])
    shown = list(last.values())
    pictures = [
        *figures.draw(plan, targets),
        evaluated.pass_curves(shown, plan.out / "pass_at_k.png"),
        evaluated.pass_by_step(_some(every, [arms.GRPO, *held]), plan.out / "pass_by_step.png"),
        evaluated.accuracy_by_entropy(shown, plan.out / "accuracy_by_entropy.png"),
    ]
    first = plan.summaries(arms.GRPO)[0]
    problems = len(last[BASE].accuracy("walk", "pass@1"))
    parts = [
        "# The paper's experiment in small\n",
        f"Written by `python -m aepo.llm.experiment`: {len(plan.arms)} methods, {plan.seeds} seeds, {first['steps']} "
        f"steps on the walk task, all from one model; evaluated on its {problems} held-out prompts. Pass@1 is avg@32 "
        "at T = 0.1, pass@k at T = 1, top-p 0.95, as in the paper. What a tiny model on one task shows need not be so "
        "on a large one.\n",
        "## The paper's claims, and what these runs say\n",
        tables.markdown(
            ["claim", "here", "figures (seed by seed, or with 95 % t intervals over seeds)"],
            [[claim.text, f"**{claim.verdict}**", claim.figures] for claim in claims],
        ).replace("|H - H*|", "\\|H - H*\\|"),
        "`not shown`: the interval of the difference, paired by seed, contains zero. No correction for the number of "
        "claims; the best target and the inner one are picked by the figures they are then judged by, which favours "
        "them.\n",
        "## Table 1: pass@1\n",
        NOTES.format(baseline=BASE),
        tables.table_1(_some(shown, [BASE, arms.GRPO, arms.ENTROPY_REG, arms.ENTROPY_ADV, *held]), BASE),
        "## Table 2: pass@k\n",
        tables.table_2(shown, largest=4),
        "## Table 3: targets, ablations, and the entropy that was measured\n",
        tables.table_3(_some(shown, [*held, *rest])),
        "## In training\n",
        "Entropies in nats, mean ± 95 % t interval over seeds; the last three columns over the last half of the run, "
        "reward over its last 100 steps. Up: share of the steps in which the controller raised entropy; near 0 or 1 it "
        "has too little authority.\n",
        _training(plan),
        "## Figures\n",
        *(f"{CAPTIONS[path.stem]}\n\n![{path.stem}]({path.name})\n" for path in pictures if path is not None),
    ]
    path = plan.out / "report.md"
    path.write_text("\n".join(parts))
    return path


def _some(methods: Sequence[EvaluatedMethod], those: Sequence[arms.Arm | str]) -> list[EvaluatedMethod]:
    labels = [one if isinstance(one, str) else one.label for one in those]
    return [method for method in methods if method.label in labels]


def _training(plan: Plan) -> str:
    columns: Mapping[str, str] = {
        "entropy_first": "H first",
        "entropy_last": "H last",
        "reward_last_100": "reward",
        "entropy_last_half": "mean H",
        "tracking_error": "mean abs(H - H*)",
        "duty_up": "up",
    }
    rows = []
    for arm in plan.arms:
        cells = []
        for figure in columns:
            values = plan.of_training(arm, figure)
            followed = arm.target is not None or figure not in ("tracking_error", "duty_up")
            cells.append(f"{estimate(values):.3f}" if followed and not np.isnan(values).all() else "")
        rows.append([arm.label, plan.summaries(arm)[0]["label"], *cells])
    return tables.markdown(["method", "options", *columns.values()], rows)
