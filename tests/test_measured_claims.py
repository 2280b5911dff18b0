"""Figures of docs/simulator.md and docs/getting_started.md, measured by their commands. Minutes: slow."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from aepo.llm.demo import STEPS_OF_MORE, STEPS_OF_ONE_SEED, every_run
from aepo.llm.records.recorder import read

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """runs.parquet and summary.json of the sweep in its default setting."""
    out = tmp_path_factory.mktemp("sweep")
    subprocess.run([sys.executable, "-m", "aepo.tabular.sweep", "--out", str(out)], check=True)
    return pd.read_parquet(out / "runs.parquet"), json.loads((out / "summary.json").read_text())


def curves(summary: dict, experiment: str, method: str) -> list[dict]:
    """The configurations of one method in one figure."""
    found = [c for c in summary["configurations"] if c["experiment"] == experiment and c["method"] == method]
    assert found, f"no {method} in {experiment}"
    return found


def test_the_sweep_has_sixteen_seeds_and_every_step(sweep):
    runs, summary = sweep
    assert len(summary["seeds"]) >= 16
    assert {"method", "target", "seed", "step", "entropy", "reward", "temperature"} <= set(runs.columns)
    sizes = runs.groupby(["experiment", "method", "label", "target", "seed"], dropna=False, observed=True).step.agg(
        ["nunique", "size"]
    )
    assert (sizes["nunique"] == sizes["size"]).all(), "no step of a run is there twice or shared"


def test_grpo_collapses(sweep):
    (grpo,) = curves(sweep[1], "fig1", "grpo")
    assert grpo["entropy_final"]["mean"] < 0.1


def test_aepo_holds_each_target(sweep):
    aepo = curves(sweep[1], "fig1", "aepo")
    assert sorted(c["target"] for c in aepo) == [0.25, 0.5, 0.75, 1.0]
    assert all(c["tracking_error"]["mean"] <= 0.05 for c in aepo)


def test_the_tracking_error_is_that_of_the_table(sweep):
    # An independent reading of the tidy table: mean over the last half's steps, then over seeds.
    runs, summary = sweep
    for c in curves(summary, "fig1", "aepo"):
        mine = runs[(runs.experiment == "fig1") & (runs.method == "aepo") & (runs.target == c["target"])]
        late = mine[mine.step >= mine.step.max() + 1 - (mine.step.max() + 1) // 2]
        by_seed = (late.entropy - late.target).abs().groupby(late.seed).mean()
        assert by_seed.mean() == pytest.approx(c["tracking_error"]["mean"], rel=1e-6)


@pytest.mark.parametrize("method", ["aepo_eq2", "aepo_eq3"])
def test_the_ablations_collapse(sweep, method):
    assert all(c["entropy_final"]["mean"] < 0.15 for c in curves(sweep[1], "ablations", method))


def test_with_one_correct_action_aepo_collapses_and_the_report_says_so(sweep):
    _, summary = sweep
    single = [c for c in curves(summary, "failures", "aepo") if c["correct"] == 1]
    assert len(single) == 4 and all(c["entropy_final"]["mean"] < 0.1 for c in single)
    said = [f for f in summary["findings"] if f["verdict"] == "fails" and "|A*|=1 of" in f["claim"]]
    assert len(said) == 1 and "AEPO collapses too" in said[0]["evidence"]


# Three seeds take a quarter of an hour where one takes minutes, and what they measure changes with the trainer alone.
THREE_SEEDS = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A row per run of `make demo SEEDS=3`: GRPO and AEPO at two targets on three seeds."""
    out = tmp_path_factory.mktemp("demo")
    subprocess.run([sys.executable, "-m", "aepo.llm.demo", "--seeds=3", "--out", str(out)], check=True, cwd=ROOT)
    assert (out / "entropy.png").stat().st_size > 10_000 and (out / "table.md").exists()
    assert len(list(out.glob("*/metrics.jsonl"))) == 9
    table = pd.read_csv(out / "table.csv")
    assert (table.steps == STEPS_OF_MORE).all() and STEPS_OF_MORE == 450
    return table, out


@THREE_SEEDS
def test_the_demo_grpo_collapses_on_every_seed(demo):
    table, _ = demo
    grpo = table[table.method == "grpo"]
    assert len(grpo) == 3 and (grpo.entropy_last < grpo.entropy_first / 4).all()


@THREE_SEEDS
def test_the_demo_aepo_holds_both_targets_without_losing_accuracy(demo):
    table, _ = demo
    baseline = table[table.method == "grpo"].reward_last_100.mean()
    aepo = table[table.method == "aepo"]
    assert len(aepo) == 6 and aepo.target.nunique() == 2
    for target, runs in aepo.groupby("target"):
        assert runs.tracking_error.mean() <= 0.05, f"H* = {target}"
        assert runs.reward_last_100.mean() >= baseline - 0.02, f"H* = {target}"


def test_one_seed_shows_the_collapse_and_two_held_targets(tmp_path):
    # What `make demo` draws.
    subprocess.run([sys.executable, "-m", "aepo.llm.demo", "--out", str(tmp_path)], check=True, cwd=ROOT)
    assert (tmp_path / "entropy.png").stat().st_size > 10_000 and (tmp_path / "table.md").exists()
    grpo, *aepo = (
        np.array([row["entropy"] for row in read(run.folder(tmp_path) / "metrics.jsonl")])
        for run in every_run(1, (0.5, 1.0))
    )
    assert len(grpo) == STEPS_OF_ONE_SEED and grpo[-50:].mean() < 0.25 * grpo[0]
    for entropy, target in zip(aepo, (0.5, 1.0), strict=True):
        assert np.abs(entropy[-100:] - target).mean() <= 0.05, f"H* = {target}"
