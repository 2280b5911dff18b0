"""The experiment in small: what it types, what it concludes from data made to be concluded from, and the real thing."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from running import ROOT

from aepo.llm.evaluation.reporting import estimates, tables
from aepo.llm.evaluation.reporting.estimates import summary
from aepo.llm.experiment import arms, figures, reading, report
from aepo.llm.experiment.__main__ import main
from aepo.llm.experiment.runs import BASE, Plan
from aepo.llm.settings import load

TARGETS = (0.5, 1.0, 1.5)
STEPS, PROBLEMS, SEEDS = 40, 20, 3


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Intervals are not what is looked at here."""
    monkeypatch.setattr(estimates, "RESAMPLES", 99)


def plan_of(out: Path) -> Plan:
    return Plan(out=out, arms=arms.every(TARGETS), seeds=SEEDS, steps=STEPS, curves_at=(20,), samples=4)


@pytest.mark.parametrize("preset", ["experiment_cpu", "experiment_gpu"])
def test_every_arm_is_a_method_with_its_options_and_target(preset):
    plan = plan_of(Path("out"))
    assert len({arm.slug for arm in plan.arms}) == len(plan.arms) == len({arm.label for arm in plan.arms})
    for job in plan.jobs():
        load(ROOT / "configs" / f"{preset}.yaml", [typed.removeprefix("--") for typed in job.arguments])
    asked = {arm.label: load(ROOT / "configs" / f"{preset}.yaml", [a[2:] for a in arm.arguments]) for arm in plan.arms}
    built = {label: settings.method.build() for label, settings in asked.items()}
    assert [asked[f"AEPO H*={t:g}"].target.build()(0) for t in TARGETS] == list(TARGETS)
    assert {built[f"AEPO H*={t:g}"].label for t in TARGETS} == {built["AEPO H*=0.5"].label}
    controller = built["DCPO H*=0.5"].controller
    assert (controller.t_low, controller.t_high) == (0.67, 1.5) and "T 0.5/2" in built["Reweighting H*=0.5"].label
    assert [built[f"REINFORCE T={t:g}"].controller.temperature for t in (0.67, 1.5)] == [0.67, 1.5]
    assert not built["GRPO"].controlled and built["Eq. 2 H*=0.5"].name == "aepo_eq2"
    coefficients = [built[arm.label].label for arm in (arms.ENTROPY_REG, *arms.bonuses())]
    assert coefficients == ["coef=0.015", "coef=0.15"]


def made(plan: Plan, *, ends: dict[str, float], right: dict[str, float], entropy: dict[str, float]) -> None:
    """Runs and evaluations whose entropies end, and whose samples are right, as told; deterministic but for a seed's
    small offset."""
    for arm in plan.arms:
        for seed in range(plan.seeds):
            folder = plan.folder(arm, seed)
            folder.mkdir(parents=True)
            curve = np.linspace(2.0, ends[arm.label] + 0.001 * seed, 10).tolist() + [ends[arm.label]] * (STEPS - 10)
            rows = [{"step": step, "entropy": value} for step, value in enumerate(curve)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            late = np.array(curve[STEPS // 2 :])
            error = float(np.abs(late - (arm.target or 0)).mean())
            found = {
                "label": arm.method, "steps": STEPS, "entropy_first": 2.0, "entropy_last": curve[-1], "duty_up": 0.5,
                "entropy_last_half": float(late.mean()), "tracking_error": error, "reward_last_100": 0.9,
            }  # fmt: skip
            (folder / "summary.json").write_text(json.dumps(found))
            if arm.evaluated:
                for name, step in (("evaluation", STEPS), ("evaluation_20", 20)):
                    evaluated(folder / name, arm.label, seed, step, right[arm.label], entropy[arm.label])
    for seed in range(plan.seeds):
        evaluated(plan.out / BASE / f"evaluation_{seed}", BASE, seed, 0, right[BASE], entropy[BASE])


def evaluated(folder: Path, label: str, seed: int, step: int, right: float, entropy: float) -> None:
    rows = [
        {
            "benchmark": "walk", "mode": mode, "problem": problem, "sample": sample, "seed": sample, "extracted": "1",
            "reward": float((problem * 4 + sample + seed) % 80 < 80 * right), "reason": "exact", "response_tokens": 5,
            "ended": True, "mean_entropy": entropy, "temperature": 1.0,
        }
        for mode in ("pass@1", "pass@k") for problem in range(PROBLEMS) for sample in range(4)
    ]  # fmt: skip
    folder.mkdir(parents=True)
    frame = pd.DataFrame(rows)
    frame.to_parquet(folder / "samples.parquet")
    results = {"model": "m", "label": label, "step": step, "seed": seed, "benchmarks": summary(frame)}
    (folder / "results.json").write_text(json.dumps(results))


def as_the_paper_says(plan: Plan) -> dict[str, dict[str, float]]:
    ends = {arm.label: arm.target or 0.1 for arm in plan.arms}
    ends |= {"Eq. 2 H*=0.5": 0.05, "Eq. 3 H*=0.5": 0.05, "REINFORCE T=1.5": 2.4, "Entropy-Reg 0.15": 3.0}
    right = {label: 0.5 for label in (*ends, BASE)} | {
        BASE: 0.4,
        "AEPO H*=0.5": 0.6,
        "AEPO H*=1": 0.8,
        "AEPO H*=1.5": 0.6,
    }
    return {"ends": ends, "right": right, "entropy": {label: ends.get(label, 2.0) for label in right}}


def verdicts(plan: Plan) -> dict[str, str]:
    last = {method.label: method for method in tables.latest(plan.methods())}
    return {claim.text: claim.verdict for claim in reading.read(plan, last, TARGETS)}


def of(found: dict[str, str], start: str) -> str:
    (text,) = [text for text in found if text.startswith(start)]
    return found[text]


def test_data_as_the_paper_says_is_read_as_such_and_each_turned_round_is_read_so(tmp_path):
    plan = plan_of(tmp_path / "one")
    world = as_the_paper_says(plan)
    made(plan, **world)
    found = verdicts(plan)
    start = (
        "GRPO's entropy collapses", "AEPO H*=1 holds", "A higher target", "REINFORCE on samples", "No coefficient",
        "The ablation Eq. 2", "The ablation Eq. 3", "DCPO H*=0.5 holds", "AEPO H*=1, the best",
        "GRPO has a higher pass@1 than base (T = 0.1)", "GRPO has a higher pass@1 than base at T = 1",
        "Accuracy rises and then falls",
        "AEPO H*=0.5 has a higher pass@1 than its ablation Eq. 2",
        "AEPO H*=0.5 has a higher pass@1 than its ablation Eq. 3",
    )  # fmt: skip
    assert [of(found, one) for one in start] == ["holds"] * len(start)

    other = plan_of(tmp_path / "other")
    ends = world["ends"] | {
        "GRPO": 1.0, "AEPO H*=1": 1.2, "REINFORCE T=1.5": 1.9, "Entropy-Reg 0.15": 0.5, "Eq. 2 H*=0.5": 0.5,
        "Eq. 3 H*=0.5": 0.5, "DCPO H*=0.5": 0.2,
    }  # fmt: skip
    right = world["right"] | {"AEPO H*=0.5": 0.3, "AEPO H*=1": 0.2, "AEPO H*=1.5": 0.1, BASE: 0.7}
    made(other, ends=ends, right=right, entropy=world["entropy"] | {"AEPO H*=1.5": 0.1})
    found = verdicts(other)
    start = tuple("AEPO H*=0.5, the best" if one.startswith("AEPO H*=1, ") else one for one in start)
    assert [of(found, one) for one in start] == ["does not hold"] * len(start)


def test_what_seeds_cannot_tell_apart_is_not_shown(tmp_path):
    plan = plan_of(tmp_path)
    world = as_the_paper_says(plan)
    made(plan, **world | {"right": {label: 0.5 for label in world["right"]}})
    assert of(verdicts(plan), "GRPO has a higher pass@1 than base (") == "not shown"


def test_the_report_has_three_tables_and_every_figure(tmp_path):
    plan = plan_of(tmp_path)
    made(plan, **as_the_paper_says(plan))
    text = report.write(plan, TARGETS).read_text()
    pictures = set(re.findall(r"\]\((\w+\.png)\)", text))
    assert pictures == {f"fig{i}.png" for i in range(1, 5)} | {
        "pass_at_k.png",
        "pass_by_step.png",
        "accuracy_by_entropy.png",
    }
    assert all((tmp_path / name).stat().st_size > 5000 for name in pictures)
    one, two, three, training = (text.split(f"## {title}")[1].split("\n## ")[0] for title in
                                 ("Table 1", "Table 2", "Table 3", "In training"))  # fmt: skip
    assert "| AEPO H*=1 | 3 | 80.0 [" in one and "(+40.0, p 0.0" in one and "DCPO" not in one
    assert "walk pass@4" in two and "| DCPO H*=0.5 |" in two and "| Eq. 3 H*=0.5 |" in three
    assert re.search(r"\| Eq. 2 H\*=0.5 \| aepo_eq2 \| 2.000 ± 0.000 \| 0.050 ± .* \| 0.450 ± 0.000", training)


def test_a_curve_is_averaged_over_a_window_and_no_value_is_lost_or_doubled():
    values = np.arange(12.0).reshape(2, 6)
    assert figures.smoothed(values, window=3).tolist() == [[1, 2, 3, 4], [7, 8, 9, 10]]
    assert figures.smoothed(values, window=10).tolist() == [[2.5], [8.5]]


def command(*typed: str) -> list[str]:
    return [sys.executable, "-m", "aepo.llm.experiment", *typed]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ({"targets": "0.5,nan"}, "--targets must be finite, got '0.5,nan'"),
        ({"targets": "1,0.5"}, "--targets must be above 0 and rise, got '1,0.5'"),
        ({"targets": "low"}, "--targets must be numbers with commas between them, got 'low'"),
        ({"config": ROOT / "configs/aepo_qwen3_4b.yaml"}, "data.train must be walk, got 'dapo_math_17k'"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(tmp_path, capsys, typed, told):
    with pytest.raises(typer.Exit) as ended:
        main(out=tmp_path / "out", **typed)
    assert ended.value.exit_code == 2 and told in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_an_experiment_that_is_killed_goes_on_and_another_is_refused_in_its_folder(tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(
        f"extends: {ROOT / 'configs/experiment_cpu.yaml'}\n"
        f"warm_start: {{steps: 20, rows: 16, cache: {tmp_path / 'warm'}}}\n"
        "train: {prompts_per_step: 4}\nrollout: {group_size: 2}\nmethod: {cap_up: 2, cap_down: 1}\n"
    )
    out = tmp_path / "out"
    asked = command(f"--config={config}", f"--out={out}", "--steps=2", "--seeds=1", "--samples=2", "--targets=0.5,1.5")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(asked, cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
    record = out / "grpo" / "seed_0.settings.json"
    while not (record.exists() and json.loads(record.read_text())["finished"]):
        assert first.poll() is None
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = subprocess.run(asked, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 1 <= done.stdout.count("done before") < 5 and "report.md" in done.stdout
    text = (out / "report.md").read_text()
    assert all(f"| {arm.label} |" in text for arm in arms.every((0.5, 1.5)))
    other = subprocess.run([*asked, "--steps=3"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert other.returncode == 2 and "holds an experiment with other settings" in other.stderr
