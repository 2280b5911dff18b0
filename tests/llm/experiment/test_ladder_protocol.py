"""The committed protocol: every arm can be run, no seed both chooses and judges, every claim can be decided by it."""

import csv
import itertools
import re
from pathlib import Path

import pytest

from aepo.llm.experiment.ladder import claims
from aepo.llm.experiment.ladder.plan import runs_of
from aepo.llm.experiment.ladder.protocol import PROTOCOL, read
from aepo.llm.settings import SettingsError, load

COMMITTED = read()


@pytest.mark.parametrize("arm", COMMITTED.arms)
def test_every_arm_has_settings_that_load_and_a_method_that_is_built(arm):
    settings = COMMITTED.settings(arm, 103)
    assert settings.seed == settings.warm_start.seed == 103 and settings.train.steps == 300
    assert settings.evaluation.samples == 0, "the experiment evaluates by itself"
    # Of a run that is cut off no more is lost than since its last checkpoint.
    assert settings.checkpoint.every == COMMITTED.evaluation.checkpoints.every
    settings.method.build()


def test_arms_differ_in_settings_and_labels_and_in_nothing_that_nobody_named():
    typed = {arm: tuple(COMMITTED.typed(arm)) for arm in COMMITTED.arms}
    assert len(set(typed.values())) == len(typed)
    assert len({arm.label for arm in COMMITTED.arms.values()}) == len(typed)
    digests = {arm: COMMITTED.digests[arm] for arm in COMMITTED.arms}
    assert len(set(digests.values())) == len(digests)
    built = {arm: COMMITTED.settings(arm, 0).method.build() for arm in COMMITTED.arms}
    assert {built[f"aepo_{level}"].label for level in (0.1, 0.25, 0.5, 0.75, 1)} == {"normalizer=all, alpha=4"}
    assert {COMMITTED.settings(arm, 0).train.lr for arm in COMMITTED.arms if "lr" not in arm} == {8e-4}
    assert built["aepo_reach_0.5"].tempered.alpha == 1, "its own default, not the preset's of AEPO"
    assert (built["dcpo_0.5"].controller.t_low, built["dcpo_0.5"].controller.t_high) == (0.5, 2.0)
    assert not built["grpo"].controlled and built["repo_r_0.5"].controlled


def test_every_method_that_is_given_a_level_follows_it():
    for arm, chosen in COMMITTED.arms.items():
        settings = COMMITTED.settings(arm, 0)
        if (level := re.match(r".*_([\d.]+)(_|$)", arm)) and settings.method.build().controlled:
            assert settings.target.build()(0) == float(level[1]), arm
        assert chosen.trained or not arm.startswith(("grpo", "aepo"))


def test_the_release_holds_and_then_falls():
    target = COMMITTED.settings("release", 100).target.build()
    assert [round(float(target(step)), 3) for step in (0, 180, 230, 280, 299)] == [0.75, 0.75, 0.4, 0.05, 0.05]
    rows = list(csv.reader(PROTOCOL.with_name("release.csv").open()))
    assert rows[0] == ["step", "target"]
    assert not any("release.csv" in typed and "/" not in typed for typed in COMMITTED.typed("release"))


def test_no_seed_that_chooses_judges():
    assert COMMITTED.choosing == [0, 1, 2, 3]
    assert list(COMMITTED.judging(24)) == list(range(100, 124))
    of_stage = {name: list(stage.seeds) for name, stage in COMMITTED.stages.items()}
    assert [len(of_stage[name]) for name in "LABCD"] == [4, 16, 8, 4, 4]
    assert set(itertools.chain(*(of_stage[name] for name in "ABCD"))) == set(range(100, 116))


def test_as_many_samples_a_step_as_aepo_draws():
    aepo, grpo = (COMMITTED.settings(arm, 0) for arm in ("aepo_0.5", "grpo_80_prompts"))
    method = aepo.method.build()
    drawn = aepo.train.prompts_per_step * (1 + method.tempered.prompt_fraction)
    assert drawn == grpo.train.prompts_per_step and aepo.rollout.group_size == grpo.rollout.group_size


def test_every_claim_has_its_arms_and_metrics_and_each_combination_is_one():
    every = claims.every_test(COMMITTED.claims)
    assert {number for number, _ in every} == set(range(1, 13))
    assert len(every) == 44 and len({repr(test) for _, test in every}) == 44
    for _, test in every:
        for arm, metric in test.needed():
            assert arm in COMMITTED.arms and (metric is None or COMMITTED.has(arm, metric))
            assert COMMITTED.stages["C"].arms.count(arm) == COMMITTED.stages["D"].arms.count(arm) == 0


def test_the_precision_is_that_of_the_plan():
    asked = {name: (one.smallest, one.wanted) for name, one in COMMITTED.metrics.items()}
    assert asked == {"pass@1 T=0.1": (2, 4), "pass@1 T=1": (2, 4), "pass@256": (1.5, 2.5)}


def test_a_digest_is_of_the_numbers_and_not_of_seeds_or_folders(tmp_path):
    text = PROTOCOL.read_text()
    for name in ("protocol.yaml", "release.csv"):
        (tmp_path / name).write_text(PROTOCOL.with_name(name).read_text())
    elsewhere = read(tmp_path / "protocol.yaml")
    assert all(elsewhere.digests[arm] == COMMITTED.digests[arm] for arm in COMMITTED.arms)

    def changed(before: str, after: str) -> set[str]:
        assert text.count(before) == 1
        (tmp_path / "protocol.yaml").write_text(text.replace(before, after))
        other = read(tmp_path / "protocol.yaml")
        return {arm for arm in COMMITTED.arms if other.digests[arm] != COMMITTED.digests[arm]}

    assert changed("samples: 64", "samples: 65") == {"grpo", "aepo_0.5", "aepo_0.75", "release"}
    # How often a run saves changes no number of it, only which of them are looked at.
    assert changed("every: 60", "every: 30") == {"grpo", "aepo_0.5", "aepo_0.75", "release"}
    assert changed("top_p: 0.95", "top_p: 0.9") == {"base", "grpo", "aepo_0.5"}
    assert changed("method.coef: 0.005", "method.coef: 0.006") == {"entropy_reg_0.005"}
    trained = {arm for arm, chosen in COMMITTED.arms.items() if chosen.trained}
    assert changed("steps: 300", "steps: 301") == trained
    (tmp_path / "release.csv").write_text("step,target\n0,0.75\n")
    assert changed("smallest: 1.5", "smallest: 1") == {"release"}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("count: 8}", "count: 0}", "stages.B.seeds.count: Input should be greater than or equal to 1"),
        ("arms: [grpo], below", "arms: [grppo], below", "claim 1: unknown arm 'grppo'; did you mean 'grpo'?"),
        ("than_metric: pass@1024", "than_metric: pass@2048", "base is not evaluated with as many samples as pass@2048"),
        ("{first: 0, count: 4}", "{first: 98, count: 4}", "the seeds [100, 101] choose and judge"),
        ("test: collapses", "test: collapse", "Input tag 'collapse' found using 'test' does not match"),
        ("  kl_cov: {label: KL-Cov, settings", "  kl_cov: {label: KL-Cov, setings", "arms.kl_cov.setings: Extra"),
        ("aepo_0.625, aepo_1]\n  C:", "aepo_0.625]\n  C:", "arms.aepo_1: must be in one stage that judges, got none"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused_with_its_place(tmp_path, before, after, told):
    text = PROTOCOL.read_text()
    assert text.count(before) == 1
    (tmp_path / "p.yaml").write_text(text.replace(before, after))
    with pytest.raises(SettingsError) as refused:
        read(tmp_path / "p.yaml")
    assert told in str(refused.value) and str(tmp_path / "p.yaml") in str(refused.value)


def test_what_is_no_file_or_no_yaml_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="not readable"):
        read(tmp_path / "none.yaml")
    (tmp_path / "p.yaml").write_text("[1, 2")
    with pytest.raises(SettingsError, match="not readable"):
        read(tmp_path / "p.yaml")


# What is asked for.


def test_a_stage_is_its_arms_on_its_seeds_one_seed_after_the_other():
    runs = runs_of(COMMITTED, stage="A", arms=[], seeds=None)
    assert len(runs) == 160 and [seed for _, seed in runs] == sorted(seed for _, seed in runs)
    assert {arm for arm, _ in runs[:10]} == set(COMMITTED.stages["A"].arms)
    assert [runs_of(COMMITTED, stage="L", arms=[], seeds=1)[0]] == [("grpo", 0)]
    assert max(seed for _, seed in runs_of(COMMITTED, stage="B", arms=["kl_cov"], seeds=24)) == 123


def test_the_quick_form_takes_short_names():
    runs = runs_of(COMMITTED, stage=None, arms=["grpo", "aepo", "aepo_eq2"], seeds=2)
    assert runs == [(arm, seed) for seed in (100, 101) for arm in ("grpo", "aepo_0.5", "aepo_eq2_0.5")]
    assert len(runs_of(COMMITTED, stage=None, arms=["grpo", "kl_cov"], seeds=None)) == 16 + 8


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"stage": "E"}, "--stage: must be one of L, A, B, C, D, got 'E'"),
        ({}, "name what to run"),
        ({"arms": ["grop"]}, "--arms: unknown arm 'grop'; did you mean 'grpo'?"),
        ({"stage": "B", "arms": ["grpo"]}, "--arms: grpo is not in stage B"),
        ({"stage": "A", "seeds": 25}, "--seeds: must be in 1 .. 24, got 25"),
        ({"stage": "L", "seeds": 5}, "--seeds: must be in 1 .. 4, got 5"),
    ],
)
def test_what_is_not_there_is_refused(asked, told):
    with pytest.raises(SettingsError) as refused:
        runs_of(COMMITTED, **{"stage": None, "arms": [], "seeds": None, **asked})
    assert told in str(refused.value)


def test_the_preset_is_the_ladders():
    settings = load(COMMITTED.config)
    assert settings.data.train == "ladder" and COMMITTED.evaluation.prompts == 512
    assert Path(COMMITTED.config).name == "ladder_cpu.yaml"
