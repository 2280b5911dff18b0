"""The demo on a real model: its runs, what it counts, its table and picture; the trainings themselves are not made."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

from aepo.llm.settings import load

FOLDER = Path(__file__).parents[1] / "examples" / "words"


def loaded(name):
    spec = importlib.util.spec_from_file_location(f"words_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo():
    return loaded("demo")


def test_every_run_is_one_that_the_trainer_takes(demo, tmp_path):
    runs = demo.every_run(2)
    assert [run.curve for run in runs[:4]] == ["grpo", "aepo H*=1.5", "aepo H*=2", "aepo_reach H*=2"]
    assert len({run.folder(tmp_path) for run in runs}) == len(runs) == 8
    for run in runs:
        job = run.job(tmp_path, model=tmp_path, steps=7, dtype="bfloat16")
        settings = load(demo.CONFIG, [one.removeprefix("--") for one in job.arguments])
        method = settings.method.build()
        assert (method.name, settings.train.steps, settings.seed) == (run.method, 7, run.seed)
        assert settings.train.dtype == "bfloat16"
        if run.method == "aepo_reach":
            law = method.controller
            assert (law.t_lowest, law.t_low, law.t_high, law.t_highest, law.speed) == (0.67, 0.67, 1.5, 1.5, 0.1)
            assert method.tempered.prompt_fraction == method.tempered.widest_fraction == 1


def test_the_weights_are_of_the_dtype_that_is_faster_here_and_of_the_runs_that_are_there(demo, tmp_path, monkeypatch):
    runs, slower = demo.every_run(2), []
    monkeypatch.setattr(demo.half_precision, "times_slower", lambda: slower[-1])
    for ratio, dtype in ((0.5, "bfloat16"), (1.5, "float32"), (130, "float32")):
        slower.append(ratio)
        assert demo.dtype_of(runs, tmp_path) == dtype
    record = runs[1].job(tmp_path, model=tmp_path, steps=1, dtype="float32").record
    record.write_text(json.dumps({"settings": {"train": {"dtype": "bfloat16"}}}))
    assert demo.dtype_of(runs, tmp_path) == "bfloat16"


def test_variety_counts_right_words_that_differ_and_the_commonest_ones_share(demo):
    answers = [
        (0, 1.0, " art\n"), (0, 1.0, "art\nwith b"), (0, 1.0, " ant"), (0, 0.0, " box\n"),
        (1, 0.0, " zzz\n"), (1, 0.0, "\n"), (1, 0.0, " art\n"), (1, 0.0, " a"),
    ]  # fmt: skip
    found = demo.variety(pd.DataFrame(answers, columns=["problem", "reward", "response"]))
    assert found == pytest.approx({"right": 3 / 8, "different": 1.0, "commonest": 2 / 3})


def test_without_a_models_folder_the_words_are_not_made_and_it_says_how(tmp_path, monkeypatch):
    script = loaded("make_words")
    monkeypatch.setattr(script, "HERE", tmp_path)
    for given in ([], [str(tmp_path / "none")]):
        monkeypatch.setattr("sys.argv", ["make_words.py", *given])
        with pytest.raises(SystemExit, match="aepo model smollm2-135m"):
            script.main()
    assert not list(tmp_path.iterdir())


def test_each_letter_has_its_first_prompt(demo):
    rows = loaded("make_words").rows()
    chosen = demo.one_of_each_letter(rows)
    assert "".join(row["answer"] for row in chosen) == loaded("make_words").LETTERS
    assert all(row == next(one for one in rows if one["answer"] == row["answer"]) for row in chosen)


def test_the_table_and_the_picture_are_of_the_runs_metrics(demo, tmp_path):
    runs, rows = demo.every_run(1), []
    for run in runs:
        target = run.target
        folder = run.folder(tmp_path)
        folder.mkdir()
        steps = [
            {"entropy": 3.0 - 0.1 * k, "reward": 0.5, "raise_entropy": None if target is None else k % 2 == 0}
            for k in range(12)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": k, **s}) + "\n" for k, s in enumerate(steps)))
        answers = {"right": 0.5, "different": 9.0, "commonest": 0.25}
        rows.append({**demo.figures(run, tmp_path), "seed": 0, **answers})
    table = demo.write_table(pd.DataFrame(rows), tmp_path).set_index("curve")
    # Entropies of steps 8 to 11: 2.2, 2.1, 2.0, 1.9.
    assert table.loc["grpo", "entropy_last_third"] == pytest.approx(2.05)
    assert table.loc["aepo H*=2", "error_last_third"] == pytest.approx(0.1)
    assert table.loc["aepo H*=2", "duty_up"] == 0.5
    assert pd.isna(table.loc["grpo", "error_last_third"]) and pd.isna(table.loc["grpo", "duty_up"])
    demo.plot(runs, pd.DataFrame(rows), tmp_path)
    assert (tmp_path / "words.png").stat().st_size > 10_000
    assert "| grpo |" in (tmp_path / "table.md").read_text()


def test_answers_end_with_their_line_where_they_are_measured(demo, tmp_path, monkeypatch):
    from aepo.llm.evaluation.options import parse

    asked = []
    monkeypatch.setattr(demo, "_command", lambda module, *arguments: asked.extend(map(str, arguments)))
    monkeypatch.setattr(demo.pd, "read_parquet", lambda path: None)
    monkeypatch.setattr(demo, "variety", lambda samples: {})
    demo.measured(tmp_path, tmp_path / "out", letters=tmp_path / "letters.jsonl")
    assert parse(asked).stop == ("\n",)
