"""Reports of made-up samples: figures by hand, pairs by problem, refusals."""

import json

import numpy as np
import pandas as pd
import pytest

from aepo.llm.evaluation.reporting import report, tables
from aepo.llm.evaluation.reporting.estimates import summary
from aepo.llm.evaluation.reporting.figures import _styles

N = {"pass@1": 8, "pass@k": 16}


def evaluated(folder, label: str, accuracy: float, *, seed: int = 0, step: int | None = None, problems: int = 12):
    """A run folder as an evaluation leaves it, of random verdicts."""
    rng = np.random.default_rng([seed, step or 0, int(1000 * accuracy)])
    rows = []
    for benchmark in ("aime24", "minerva"):
        for mode, n in N.items():
            for problem in range(problems):
                chance = np.clip(accuracy + 0.5 * np.sin(problem), 0, 1)
                for sample in range(n):
                    right = rng.random() < chance
                    rows.append(
                        {
                            "benchmark": benchmark, "problem": problem, "mode": mode, "sample": sample,
                            "seed": np.uint64(sample), "reward": float(right), "extracted": str(int(right)),
                            "reason": "exact" if right else "wrong", "response": "", "response_tokens": 10,
                            "ended": True, "mean_entropy": accuracy, "temperature": 1.0,
                        }
                    )  # fmt: skip
    folder.mkdir(parents=True)
    frame = pd.DataFrame(rows)
    frame.to_parquet(folder / "samples.parquet")
    results = {"model": "tiny", "label": label, "step": step, "seed": seed, "benchmarks": summary(frame)}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_a_report_has_every_table_and_picture_and_its_numbers_are_the_samples(tmp_path, capsys):
    base = evaluated(tmp_path / "base", "base", 0.3)
    seeds = [evaluated(tmp_path / f"aepo{seed}", "aepo", 0.7, seed=seed, step=100) for seed in range(2)]
    before = evaluated(tmp_path / "before", "aepo", 0.4, step=50)
    out = tmp_path / "report"
    folders = [str(f) for f in [base, *seeds, before]]
    assert report.main([*folders, "--out", str(out), "--baseline", "base"]) == 0
    text = (out / "report.md").read_text()
    assert {p.name for p in out.iterdir()} == {
        "report.md", "pass_at_k.png", "pass_by_step.png", "accuracy_by_entropy.png"
    }  # fmt: skip
    frames = [pd.read_parquet(f / "samples.parquet") for f in seeds]
    share = [(f[(f.benchmark == "aime24") & (f["mode"] == "pass@1")].reward > 0).mean() for f in frames]
    line = next(line for line in text.splitlines() if line.startswith("| aepo | 2 |"))
    assert f"| {100 * np.mean(share):.1f} [" in line
    first = pd.read_parquet(base / "samples.parquet")
    alone = (first[(first.benchmark == "aime24") & (first["mode"] == "pass@1")].reward > 0).mean()
    assert f"({100 * (np.mean(share) - alone):+.1f}, p 0.0" in line
    assert "aime24 pass@8 | aime24 pass@16" in text and "not measured here" in text and "37.66" in text
    assert capsys.readouterr().out.splitlines()[0].endswith("report.md")


def test_pass_at_k_of_a_table_is_the_mean_over_problems_and_seeds(tmp_path):
    runs = [tables.read(evaluated(tmp_path / str(seed), "m", 0.2, seed=seed)) for seed in range(2)]
    (method,) = tables.methods(runs)
    by_hand = []
    for run in runs:
        rows = run.samples[(run.samples.benchmark == "minerva") & (run.samples["mode"] == "pass@k")]
        by_hand.append((rows[rows.reward > 0].groupby("problem").size() > 0).sum() / 12)
    assert method.pass_at("minerva", "pass@k", 16).mean() == pytest.approx(np.mean(by_hand))
    assert method.ks("minerva", "pass@k") == [1, 2, 4, 8, 16]


def test_what_cannot_be_reported_is_refused_by_name(tmp_path, capsys):
    one = evaluated(tmp_path / "one", "one", 0.5)
    other = evaluated(tmp_path / "other", "other", 0.5, problems=11)
    twin = evaluated(tmp_path / "twin", "one", 0.5)
    (tmp_path / "empty").mkdir()
    broken = evaluated(tmp_path / "broken", "broken", 0.5)
    (broken / "results.json").write_text("{")
    cases = [
        ([tmp_path / "empty"], [], "empty: no results.json; finish the evaluation"),
        ([broken], [], "broken: not readable as an evaluation"),
        ([one, other], ["--baseline", "one"], "other: its problems of aime24 are not those of"),
        ([one, twin], [], "have the same label 'one' and seed 0: give one another --label"),
        ([one], ["--baseline", "ona"], "--baseline ona: no run has this label, there are one"),
    ]
    for folders, options, said in cases:
        assert report.main([*map(str, folders), "--out", str(tmp_path / "out"), *options]) == 2
        assert said in capsys.readouterr().out


def test_thirty_methods_look_different_and_a_repeated_label_looks_as_it_did():
    labels = [f"method {i}" for i in range(30)]
    looks = _styles([*labels, "method 3"])
    assert list(looks) == labels
    assert len({(look["color"], look["ls"]) for look in looks.values()}) == 30
    assert looks == _styles(labels)
