"""The committed runs of the ladder experiment, the page written from them, and the rules of the task's design."""

from functools import cache

import numpy as np
import pytest

from aepo.llm.experiment.ladder import evidence, outcome, protocol, report, results
from aepo.llm.experiment.ladder.command import AGAIN, made_again, report_folder, results_folder
from aepo.llm.experiment.ladder.outcome import LARGEST
from aepo.llm.experiment.ladder.results import Results

FOLDER = results_folder(protocol.PROTOCOL)
PAGE = report_folder() / report.NAME


@cache
def committed() -> Results:
    return results.read(protocol.read(), FOLDER)


def test_every_file_is_small_and_is_of_a_run_that_the_protocol_has():
    again = FOLDER.with_name(FOLDER.name + AGAIN)
    for folder, found in ((FOLDER, committed()), (again, results.read(committed().protocol, again))):
        there = {path: path.stat().st_size for path in folder.iterdir()}
        assert there and max(there.values()) <= LARGEST
        assert set(there) == {outcome.path_of(folder, arm, seed) for arm, seed in found.outcomes}


def test_with_other_rounding_no_sign_of_a_comparison_changes():
    """Of the arms that were made again, on their two seeds."""
    again = made_again(committed().protocol, FOLDER)
    assert again is not None
    found = evidence.repeated(committed(), again)
    assert len(found) >= 9 and all(one.seeds == 2 and one.same for one in found)
    made_on = [{one.outcomes[run].about["capability"] for run in again.outcomes} for one in (committed(), again)]
    assert not made_on[0] & made_on[1]


def test_the_task_meets_the_rules_of_its_design():
    """Of the model before RL and of GRPO alone, on every judging seed that has both: rules (c), (d), the frontier."""
    found = committed()
    seeds = found.seeds("base", "grpo")
    if not seeds:
        pytest.skip("no judging seed has both runs yet")
    low, high, wide = ("pass@1 T=0.1", "pass@1 T=1", "pass@256")
    before, after = (
        {metric: found.points(arm, metric, seeds) for metric in (low, high, wide)} for arm in ("base", "grpo")
    )
    assert before[low].mean() < 20
    for metric in (low, high):
        assert (after[metric] - before[metric]).mean() >= 40
    assert 30 <= before[wide].mean() <= 70
    first, last = (found.figures("grpo", name) for name in ("entropy_first", "entropy_last"))
    assert np.all(last < first / 4)


def test_the_page_is_what_the_files_say(tmp_path):
    if not PAGE.exists():
        pytest.skip("the page is written when the runs are whole")
    again = made_again(committed().protocol, FOLDER)
    assert report.write(committed(), tmp_path, again=again).read_text() == PAGE.read_text()
