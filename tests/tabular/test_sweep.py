"""The sweep as a user meets it: its files, their agreement with each other, and what it refuses."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aepo.errors import NOT_FINITE, NOT_WRITTEN
from aepo.tabular.options import Options, problems
from aepo.tabular.plan import configurations, paper_figures
from aepo.tabular.sweep import app
from aepo.tracking import last_half, tracking_error

TINY = ["--methods", "grpo,aepo", "--targets", "0.3,0.6", "--seeds", "3", "--steps", "30", "--workers", "1"]


def invoke(*words: str):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "deep" / "folder"
    result = invoke(*TINY, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_a_sweep_leaves_its_files_and_nothing_half_written(tiny):
    names = sorted(path.name for path in tiny.iterdir())
    assert names == ["cache", "methods.png", "report.md", "runs.parquet", "summary.json"]
    assert all(path.suffix == ".run" for path in (tiny / "cache").iterdir())
    assert (tiny / "methods.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_has_every_step_of_every_run(tiny):
    table = pd.read_parquet(tiny / "runs.parquet")
    # GRPO follows no target and runs once: 3 seeds x 30 steps; AEPO 2 targets x 3 x 30.
    assert table.groupby("method", observed=True).size().to_dict() == {"grpo": 90, "aepo": 180}
    keys = ["method", "label", "target", "seed", "step"]
    assert not table.duplicated(keys).any()
    grpo, aepo = (table[table.method == name] for name in ("grpo", "aepo"))
    assert grpo.target.isna().all() and grpo.temperature.isna().all()
    assert set(aepo.target) == {0.3, 0.6} and set(aepo.temperature) <= {0.8, 1.2}
    assert set(aepo.normalizer) == {"all"}
    below = aepo.entropy < aepo.target
    assert ((aepo.temperature == 1.2) == below).all()


def test_the_summary_is_computed_from_the_table(tiny):
    table = pd.read_parquet(tiny / "runs.parquet")
    summary = json.loads((tiny / "summary.json").read_text())
    assert len(summary["configurations"]) == 3
    for one in summary["configurations"]:
        rows = table[(table.method == one["method"]) & (table.label == one["label"])]
        if one["target"] is not None:
            rows = rows[rows.target == one["target"]]
        entropy = rows.pivot(index="seed", columns="step", values="entropy").to_numpy()
        reward = rows.pivot(index="seed", columns="step", values="reward").to_numpy()
        assert one["entropy_final"]["mean"] == pytest.approx(entropy[:, -1].mean())
        assert one["entropy_last_half"]["mean"] == pytest.approx(entropy[:, 15:].mean())
        assert one["reward_last_half"]["mean"] == pytest.approx(last_half(reward).mean())
        if one["target"] is None:
            assert one["tracking_error"] is None and one["duty_up"] is None
            assert one["floor"] is one["floor_low"] is one["error_over_floor"] is None
            continue
        errors = tracking_error(entropy, one["target"])
        assert one["tracking_error"]["mean"] == pytest.approx(errors.mean())
        # Student's t at 97.5 % with 2 degrees of freedom is 4.3027.
        half_width = 4.3027 * errors.std(ddof=1) / np.sqrt(3)
        assert one["tracking_error"]["half_width_95"] == pytest.approx(half_width, rel=1e-4)
        assert 0 < one["floor_low"]["mean"] <= one["floor"]["mean"] < errors.mean()
        assert one["error_over_floor"] == pytest.approx(errors.mean() / one["floor"]["mean"])
        pushed = last_half(entropy) < one["target"]
        assert one["duty_up"]["mean"] == pytest.approx(pushed.mean())
        assert one["duty_down"]["mean"] == pytest.approx(1 - pushed.mean())


def test_the_summary_says_how_to_get_it_again(tiny):
    summary = json.loads((tiny / "summary.json").read_text())
    words = summary["command"].split()
    assert words[:3] == ["python", "-m", "aepo.tabular.sweep"]
    assert words[3:] == [*TINY, "--out", str(tiny)]
    assert summary["seeds"] == [0, 1, 2]
    assert {"aepo", "python", "torch", "numpy"} <= set(summary["versions"])
    assert summary["settings"]["steps"] == 30
    assert [figure["file"] for figure in summary["figures"]] == ["methods.png"]


def test_the_report_names_the_normalizer_of_every_aepo_number(tiny):
    report = (tiny / "report.md").read_text()
    board = [line for line in report.splitlines() if line.startswith("| methods")]
    assert len(board) == 3
    assert all("normalizer=all" in line for line in board if "AEPO" in line)


def test_the_same_command_gives_the_same_bits_on_one_process_or_two(tiny, tmp_path):
    result = invoke(*TINY[:-1], "2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(
        pd.read_parquet(tiny / "runs.parquet"), pd.read_parquet(tmp_path / "runs.parquet"), check_exact=True
    )
    numbers = [json.loads((folder / "summary.json").read_text())["configurations"] for folder in (tiny, tmp_path)]
    assert numbers[0] == numbers[1]
    assert (tiny / "methods.png").read_bytes()[-2000:] == (tmp_path / "methods.png").read_bytes()[-2000:]


def test_the_scoreboard_shows_the_error_in_units_of_the_floor(tiny):
    summary = json.loads((tiny / "summary.json").read_text())
    want = [one["error_over_floor"] for one in summary["configurations"]]
    head, _, *lines = (tiny / "report.md").read_text().split("## Scoreboard\n\n")[1].split("\n\n")[0].splitlines()
    place = head.split(" | ").index("error / floor")
    shown = [line.split(" | ")[place] for line in lines]
    assert shown == ["" if ratio is None else f"{ratio:.1f}" for ratio in want]


def test_a_sweep_without_floors_says_so_and_measures_none(tmp_path):
    result = invoke(*TINY, "--no-floor", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "--no-floor" in summary["command"].split() and summary["settings"]["floor"] is False
    assert all(one["floor"] is one["error_over_floor"] is None for one in summary["configurations"])


def test_the_default_plan_draws_every_figure_of_the_paper(tmp_path):
    result = invoke("--seeds", 2, "--steps", 3, "--workers", 1, "--alpha", 2, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    assert pictures == {"fig1", "fig2", "fig3", "fig4", "ablations", "paper_values", "failures"}
    table = pd.read_parquet(tmp_path / "runs.parquet")
    labels = set(table[table.method == "aepo"].label)
    # The override reaches Fig. 1 and leaves the panel of the paper's values alone.
    assert "normalizer=all, alpha=2, T 0.8/1.2" in labels
    assert "normalizer=all, alpha=1, T 0.8/1.2" in labels
    assert any("|A*|=1 of 16" in label for label in labels)


def test_exact_expectations_leave_row_replacement_out():
    def normalizers(options: Options) -> set[str]:
        tempered = [one.build().tempered for one in configurations(paper_figures(options))]
        return {one.normalizer for one in tempered if one is not None}

    assert normalizers(Options()) == {"all", "positives", "replace"}
    assert normalizers(Options(exact=True)) == {"all", "positives"}


def test_one_seed_has_no_interval_and_json_no_nan(tmp_path):
    words = ["--methods", "aepo", "--exact", "--seeds", 1, "--steps", 2, "--workers", 1, "--out", tmp_path]
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert all(one["entropy_final"]["half_width_95"] is None for one in summary["configurations"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "aepoo"], "--methods: unknown method 'aepoo', did you mean 'aepo'?"),
        (["--methods", "grpo,grpo"], "--methods must each be given once, got grpo again"),
        (["--targets", "0"], "--targets must be in (0, ln K = 2.773] nats, got 0"),
        (["--targets", "0.5,2.8"], "--targets must be in (0, ln K = 2.773] nats, got 2.8"),
        (["--targets", "nan"], "--targets must be in (0, ln K = 2.773] nats, got nan"),
        (["--targets", ","], "--targets needs at least one entropy target"),
        (["--targets", "0.5,x"], "must be numbers with commas between"),
        (["--targets", "1.2", "--actions", "3", "--correct", "2"], "(0, ln K = 1.099]"),
        (["--t-low", "0"], "--t-low must be > 0, got 0.0"),
        (["--t-high", "-1"], "--t-high must be > 0, got -1.0"),
        (["--t-low", "1.5"], "--t-low must not exceed t_high, got t_low=1.5, t_high=1.2"),
        (["--alpha", "0"], "--alpha must be > 0, got 0.0"),
        (["--alpha", "2", "--normalizer", "replace"], "--alpha must be 1 with normalizer='replace', got 2.0"),
        (["--normalizer", "some"], "--normalizer must be one of all, positives, replace, got 'some'"),
        (["--normalizer", "replace", "--exact"], "--normalizer replace swaps sampled rows"),
        (["--methods", "grpo", "--alpha", "2"], "--alpha 2.0 is no option of the methods given (grpo)"),
        (["--correct", "17"], "--correct must be in [1, K = 16], got 17"),
        (["--correct", "0"], "--correct must be in [1, K = 16], got 0"),
        (["--actions", "1", "--correct", "1"], "--actions must be at least 2, got 1"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--group-size", "0"], "--group-size must be at least 1, got 0"),
        (["--lr", "0"], "--lr must be > 0, got 0.0"),
        (["--lr", "inf"], "--lr must be a finite number, got inf"),
        (["--t-high", "1e999"], "--t-high must be a finite number, got inf"),
        (["--sees", "next"], "--sees must be 'current' or 'previous', got 'next'"),
        (["--states-per-step", "0"], "--states-per-step must be at least 1 or None, got 0"),
        (["--states-per-step", "2"], "--states-per-step must be at most 1, the prompts of bandit, got 2"),
        (["--environment", "env_a", "--states-per-step", "65"], "--states-per-step must be at most 64, the prompts of"),
        (["--minibatches", "0"], "--minibatches must be at least 1, got 0"),
        (["--group-size", "8", "--minibatches", "9"], "--minibatches must be at most 8, the responses of a step"),
        (["--workers", "0"], "--workers must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused_before_any_work(words, message, tmp_path):
    folder = tmp_path / "out"
    result = invoke(*words, "--out", folder)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not folder.exists()


def test_every_wrong_option_is_named_at_once():
    found = problems(Options(seeds=0, lr=-1.0, targets=(9.0,)))
    assert [line.split()[0] for line in found] == ["--seeds", "--targets", "--lr"]


def test_an_output_folder_that_is_a_file_ends_with_the_code_of_what_could_not_be_written(tmp_path):
    taken = tmp_path / "file"
    taken.touch()
    result = invoke(*TINY, "--out", taken)
    assert result.exit_code == NOT_WRITTEN and result.output.startswith("error: ") and str(taken) in result.output


def test_a_run_that_diverged_ends_with_its_code_and_is_named(tmp_path):
    result = invoke(*TINY, "--lr", "1e3", "--alpha", "1e307", "--out", tmp_path / "out")
    assert result.exit_code == NOT_FINITE and "left non-finite logits; lower lr" in result.output


def test_help_loads_none_of_the_heavy_packages():
    code = (
        "import sys\n"
        "from aepo.tabular.sweep import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'scipy', 'pyarrow'} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--targets" in shown and shown.rstrip().endswith("[]")
