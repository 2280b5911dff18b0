"""The page from files of runs alone: what it says of numbers that are known, and what it names as missing."""

import dataclasses
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from made_outcomes import made

from aepo.llm.experiment.__main__ import Task, main
from aepo.llm.experiment.ladder import outcome, pictures, report, tables
from aepo.llm.experiment.ladder import protocol as protocols
from aepo.llm.experiment.ladder import results as files
from aepo.llm.experiment.ladder.outcome import Counts
from aepo.llm.experiment.ladder.results import Results
from aepo.llm.settings import SettingsError

COMMITTED = protocols.read()
ARMS = {
    "base": {"whole": 0.1, "narrow": 0.12, "solved": 0.5, "error": None},
    "grpo": {"whole": 0.7, "narrow": 0.8, "solved": 0.9, "entropy": (1.2, 0.1), "error": None},
    "aepo_0.5": {"whole": 0.6, "narrow": 0.9},
    "entropy_reg_0.005": {"error": None},
    "grpo_errs_less": {"error": None},
    "grpo_easy": {"error": None},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A handful of files: six arms on two judging seeds, two of them on the choosing ones."""
    found = tmp_path_factory.mktemp("results")
    for arm, numbers in ARMS.items():
        for seed in (100, 101):
            outcome.write(found, made(COMMITTED, arm, seed, **numbers))
    for arm, share in (("grpo", 0.5), ("grpo_lr4.5e-4", 0.4), ("grpo_lr1.2e-3", 0.6)):
        for seed in range(4):
            outcome.write(found, made(COMMITTED, arm, seed, whole=share, narrow=share, error=None))
    return found


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory) -> Path:
    return report.write(files.read(COMMITTED, folder), tmp_path_factory.mktemp("page"))


def section(page: Path, title: str) -> str:
    return page.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(text: str, start: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_verdicts_come_first_and_each_test_of_the_protocol_has_one(page):
    text = page.read_text()
    assert text.index("## Verdicts") < text.index("## What the task was made to show") < text.index("## Arms")
    for title, count in (("Verdicts", len(COMMITTED.claims)), ("Every test", 44)):
        rows = [line for line in section(page, title).splitlines() if line.startswith("| ")]
        assert len(rows) == 1 + count
    assert row(section(page, "Verdicts"), "3")[1:] == [COMMITTED.claims[2].says, "**holds** 1, **not run** 1"]
    above = row(section(page, "Every test"), "3 | AEPO 0.5: pass@1 T=0.1 is above GRPO")
    assert above[2:] == ["holds, so far", "90.0 against 72.0: +18.0 ± 0.0 points; p below 0.0001", "2"]
    assert row(section(page, "Every test"), "8 | Eq. 2 0.5 misses its target by more than 10% of H*")[2] == "not run"


def test_what_is_missing_is_named(page):
    text = section(page, "Verdicts")
    assert "Not run: AEPO 0.75, adaptive 0.5," in text and "REPO-R 0.5" in text
    assert "Not all seeds: before RL (2 of 16 seeds), GRPO (2 of 16 seeds)" in text
    assert re.search(r"\d+ of 44 tests wait for these", text)
    # Left out of the tables, too.
    assert "AEPO 0.75" not in section(page, "Arms")


def test_the_tables_say_what_the_files_hold(page, folder):
    arms = section(page, "Arms").split("Less GRPO")[0]
    grpo = row(arms, "GRPO")
    # Nine prompts in ten are solved: of these 80 % at T = 0.1 and 70 % at T = 1.
    assert [cell.split(" ±")[0] for cell in grpo[1:]] == [
        "2", "0.100", "", "0.50", "72.0", "63.0", "90.0", "90.0", "9.0", "30"
    ]  # fmt: skip
    assert row(arms, "before RL")[2:5] == ["", "", ""]
    less = row(section(page, "Arms").split("Less GRPO")[1].split("With more")[0], "AEPO 0.5")
    assert less[2].startswith("+18.0 ± 0.0, p 0")
    assert "| GRPO, errs 2/10 % | 2 |" in section(page, "A verifier that errs")
    assert "| GRPO (easy) | 2 |" in section(page, "Controls")
    assert "0 hard (512)" not in section(page, "Arms"), "the main task has four levels"
    chosen = section(page, "What was chosen, on seeds that judge nothing")
    assert "best learning rate by its pass@1 T=0.1 is 0.0012; the other arms have 0.0008" in chosen
    authority = row(section(page, "Why").split("Authority")[1], "AEPO 0.5")
    assert authority[1] == "0.600" and float(authority[2]) > 1 and authority[3].startswith("1.50")


def test_the_rules_of_the_design_are_met_or_not_by_the_numbers(page):
    text = section(page, "What the task was made to show")
    found = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in text.splitlines() if "± " in line}
    assert list(found.values()) == ["yes"] * 5 and len(found) == 5
    results = Results(
        protocol=COMMITTED,
        outcomes={
            **{("base", seed): made(COMMITTED, "base", seed, whole=0.5, narrow=0.5, error=None) for seed in (100, 101)},
            **{("grpo", seed): made(COMMITTED, "grpo", seed, entropy=(1, 0.5), error=None) for seed in (100, 101)},
        },
    )
    assert tables.rules_table(results, base="base", trained="grpo").count("**no**") == 5
    assert tables.rules_table(results, base="base", trained="aepo_0.5") is None


def test_what_was_lost_and_won_is_counted_prompt_by_prompt():
    # Eight prompts by hand, of which the committed protocol's evaluation knows the first eight levels.
    def run(arm: str, right: list[int], *, more: list[int] | None = None, before: list[int] | None = None):
        kept = made(COMMITTED, arm, 100, error=None)
        counts = {"whole": Counts(samples=256, right=np.array(right))}
        if more is not None:
            counts["more"] = Counts(samples=1024, right=np.array(more))
        checkpoints = {} if before is None else {60: Counts(samples=64, right=np.array(before))}
        return dataclasses.replace(kept, counts=counts, checkpoints=checkpoints)

    few = COMMITTED.model_copy(update={"evaluation": COMMITTED.evaluation.model_copy(update={"prompts": 8})})
    results = Results(
        protocol=few,
        outcomes={
            ("base", 100): run("base", [1, 1, 1, 1, 0, 0, 0, 0], more=[1, 1, 1, 1, 1, 0, 0, 0]),
            # Loses the second and the third, of which a checkpoint had solved the third; wins the sixth.
            ("grpo", 100): run("grpo", [1, 0, 0, 1, 1, 1, 0, 0], before=[0, 0, 1, 0, 0, 0, 0, 0]),
            # Loses the first, wins the seventh and the eighth, and has four that GRPO has not.
            ("kl_cov", 100): run("kl_cov", [0, 1, 1, 1, 0, 0, 1, 1]),
        },
    )
    found = tables.frontier_table(results, ["grpo", "kl_cov"], than="grpo", base="base").splitlines()[2:]
    cells = {tuple(line.strip("| ").split(" | ")[:2]): float(line.strip("| ").split(" | ")[2]) for line in found}
    assert cells == {
        ("GRPO", "lost"): 12.5, ("GRPO", "won"): 12.5,
        ("KL-Cov", "lost (last model alone)"): 12.5, ("KL-Cov", "won"): 25.0, ("KL-Cov", "beyond GRPO"): 50.0,
    }  # fmt: skip


def test_surprise_is_weighted_by_tokens():
    kept = dataclasses.replace(
        made(COMMITTED, "grpo", 100, error=None),
        surprise={
            "0 hard": {"right": [1.0, 30], "wrong": [2.0, 10]},
            "1 hard": {"right": [0.0, 0], "wrong": [4.0, 30]},
        },
    )
    results = Results(protocol=COMMITTED, outcomes={("grpo", 100): kept})
    cells = tables.surprise_table(results, ["grpo"]).splitlines()[2].strip("|").split("|")
    # (2 x 10 + 4 x 30) / 40 of the wrong ones; of the second level's right ones there is none.
    assert [cell.strip() for cell in cells] == ["GRPO", "1.000", "1.000", "", "3.500", "2.000", "4.000"]


def test_every_picture_lies_beside_the_page_and_nothing_else_does(page):
    named = set(re.findall(r"\]\((\w+\.png)\)", page.read_text()))
    assert named == {f"ladder_{name}.png" for name in ("entropy", "pass_at_k", "pass_by_step", "by_level")}
    assert {path.name for path in page.parent.iterdir()} == named | {"ladder.md"}
    assert all((page.parent / name).stat().st_size > 10_000 for name in named)


def test_the_page_is_the_same_from_the_same_files_and_needs_seconds(page, folder, tmp_path, capsys):
    began = time.monotonic()
    main(task=Task.ladder, report=True, results=folder, out=tmp_path)
    # Of a minute for all files.
    assert time.monotonic() - began < 20
    assert capsys.readouterr().out == f"{tmp_path / 'ladder.md'}\n"
    assert (tmp_path / "ladder.md").read_text() == page.read_text()


def test_runs_that_were_made_once_more_are_held_against_the_first_ones(folder, tmp_path):
    results = tmp_path / "runs"
    shutil.copytree(folder, results)
    again = results.with_name("runs_other_rounding")
    # AEPO is below GRPO this time at T = 1, as the first time, and below at T = 0.1, which it was not.
    for arm, numbers in (("grpo", ARMS["grpo"]), ("aepo_0.5", {"whole": 0.5, "narrow": 0.6})):
        outcome.write(again, made(COMMITTED, arm, 101, **numbers))
    main(task=Task.ladder, report=True, results=results, out=tmp_path / "page")
    text = section(tmp_path / "page" / "ladder.md", "Other rounding")
    narrow = row(text, "AEPO 0.5: pass@1 T=0.1 is above GRPO")
    assert narrow[1].startswith("90.0 against 72.0") and narrow[2].startswith("60.0 against 72.0")
    assert narrow[3:] == ["**no**", "1"]
    assert row(text, "AEPO 0.5: pass@1 T=1 is above GRPO")[3:] == ["yes", "1"]
    assert row(text, "AEPO 0.5 holds its target within 10% of H*")[3] == "yes"
    assert "Entropy-Reg" not in text and "before RL" not in text, "these were made once"
    # Everything else on the page is as before.
    assert (tmp_path / "page" / "ladder.md").read_text().replace(f"## Other rounding\n{text}\n", "") == report.write(
        files.read(COMMITTED, folder), tmp_path / "without"
    ).read_text()


def test_one_arm_alone_gives_a_page(tmp_path):
    outcome.write(tmp_path / "results", made(COMMITTED, "kl_cov", 100, error=None))
    text = report.write(files.read(COMMITTED, tmp_path / "results"), tmp_path / "page").read_text()
    assert "| KL-Cov | 1 |" in text and "44 of 44 tests wait for these" in text


def test_no_file_and_a_file_of_other_settings_are_refused(tmp_path, capsys):
    with pytest.raises(SettingsError, match="no file of a run on a judging seed"):
        report.write(files.read(COMMITTED, tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []
    outcome.write(tmp_path, dataclasses.replace(made(COMMITTED, "grpo", 100, error=None), digest="0" * 16))
    with pytest.raises(typer.Exit) as ended:
        main(task=Task.ladder, report=True, results=tmp_path, out=tmp_path / "page")
    assert ended.value.exit_code == 2 and "was made with other settings" in capsys.readouterr().err


def test_who_has_run_some_arms_is_told_the_verdicts_that_they_take_part_in(folder):
    said = list(report.spoken(files.read(COMMITTED, folder), ["aepo_0.5"]))
    assert "holds, so far: AEPO 0.5: pass@1 T=0.1 is above GRPO (90.0 against 72.0" in "\n".join(said)
    assert not any("Entropy-Reg" in line or line.startswith("not run") for line in said)


def test_an_arm_has_one_colour_in_all_pictures_and_no_other_of_its_stage_has_it(folder):
    results = files.read(COMMITTED, folder)
    for stage in COMMITTED.stages.values():
        if stage.judges:
            colours = pictures._colours(results, stage.arms)
            assert len(set(colours.values())) == len(stage.arms)
            assert all(pictures._colours(results, [arm])[arm] == colour for arm, colour in colours.items())
