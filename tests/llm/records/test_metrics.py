"""The one list of a step's numbers: what is written, shown and documented comes from it."""

import json
from typing import get_args

import pytest
from running import ROOT

from aepo.llm.engines.start import ENGINES, PACKAGES
from aepo.llm.records import console_row, metrics, verl_names
from aepo.llm.records.metrics import METRICS, ordered
from aepo.llm.settings.fields import EngineName

DOCS = ROOT / "docs"
NAMES = [metric.name for metric in METRICS]


def test_every_metric_has_a_name_of_its_own_and_one_sentence():
    assert len(set(NAMES)) == len(NAMES)
    for metric in METRICS:
        assert metric.meaning[0].isupper() or metric.meaning[0] == "|", metric.name
        assert not metric.meaning.endswith("."), metric.name


def test_the_documentation_has_the_table_of_the_list():
    assert metrics.table() in (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in metrics.table() for name in NAMES if name != "eta")


def test_numbers_come_in_the_order_of_the_list_and_unknown_ones_are_refused():
    assert list(ordered({"loss": 1.0, "step": 3, "reward": 0.5})) == ["step", "reward", "loss"]
    with pytest.raises(ValueError, match="the metrics loss_typo are not in"):
        ordered({"loss_typo": 1.0})
    with pytest.raises(ValueError, match="eta"):
        ordered({"eta": 1.0})


def test_each_reward_function_has_a_number_of_its_own_at_its_place():
    found = {"time/push": 1.0, "reward/m:g": 0.5, "step": 0, "reward/a.b:f": 1.0, "reward/timeouts": 0}
    assert list(ordered(found)) == ["step", "reward/timeouts", "reward/m:g", "reward/a.b:f", "time/push"]
    with pytest.raises(ValueError, match="the metrics reward/g are not in"):
        ordered({"reward/g": 1.0})


def test_each_k_of_an_evaluation_has_a_number_of_its_own_at_its_place():
    found = {"held_out/pass@16": 1.0, "held_out/pass@1": 0.5, "time/evaluate": 2.0, "step": 0, "reward/timeouts": 0}
    order = ["step", "reward/timeouts", "held_out/pass@16", "held_out/pass@1", "time/evaluate"]
    assert list(ordered(found)) == order
    with pytest.raises(ValueError, match="the metrics held_out/entropy, held_out/pass@, pass@1 are not in"):
        ordered({"held_out/entropy": 1.0, "held_out/pass@": 1.0, "pass@1": 1.0})


def test_console_and_verls_names_show_metrics_of_the_list():
    assert [name for name, _ in console_row.SHOWN] == [metric.name for metric in METRICS if metric.column is not None]
    assert set(verl_names.ALIASES.values()) <= set(NAMES)


def test_what_a_run_writes_is_in_the_list_and_in_its_order(tmp_path):
    # The list is read with a run's own rows in the tests of the command; here, that no order but the list's passes.
    row = dict.fromkeys(reversed([name for name in NAMES if name != "eta"]), 0)
    assert list(json.loads(json.dumps(ordered(row)))) == [name for name in NAMES if name != "eta"]


def test_every_engine_that_a_setting_names_can_be_started():
    assert set(get_args(EngineName)) == set(ENGINES) >= set(PACKAGES)
