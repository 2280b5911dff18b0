"""The paper's tables against themselves."""

import statistics

import pytest

from aepo.llm.evaluation.reporting.published import (
    AVERAGES_THAT_DO_NOT_ADD_UP,
    BENCHMARKS,
    TABLE_1,
    TABLE_2,
    TABLE_3,
)

ROWS = [("Table 1", row) for row in TABLE_1] + [("Table 3", row) for row in TABLE_3]


@pytest.mark.parametrize(("table", "row"), ROWS, ids=lambda x: x if isinstance(x, str) else f"{x.model} {x.method}")
def test_an_average_is_the_mean_of_its_row_or_is_listed(table, row):
    assert len(row.values) == len(BENCHMARKS)
    # Entries are rounded to 0.1 (0.01 where below 10), and the average was taken before rounding.
    off = abs(statistics.mean(row.values) - row.average)
    assert (off > 0.06) == ((table, row.model, row.method) in AVERAGES_THAT_DO_NOT_ADD_UP), off


def test_what_two_tables_say_of_one_run_agrees():
    first = {row.method: row.values for row in TABLE_1 if row.model == "Qwen2.5-Math-7B"}
    third = {row.method: row.values for row in TABLE_3}
    assert first["base"] == third["base"] and first["aepo"] == third["aepo H*=0.5"]


def test_more_samples_never_have_a_lower_pass_rate():
    for values in TABLE_2.values():
        for benchmark in ("aime24", "aime25"):
            assert values[(benchmark, 512)] <= values[(benchmark, 1024)]
