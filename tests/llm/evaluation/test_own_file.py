"""A data file as a suite of its own: asked, ended and judged as in the run that trained the model, or as typed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from aepo.llm.evaluation.options import parse
from aepo.llm.evaluation.runner import run
from aepo.llm.policy.model import from_scratch
from aepo.llm.questions.small_tokenizers import byte_tokenizer
from aepo.llm.settings import SettingsError, load

JUDGE = """
def even(response, answer, level):
    assert all(one not in response for one in "abcdefgh")
    return float(level) if len(response) % 2 == 0 else 0.0

def odd(response, answer):
    return float(len(response) % 2)
"""


@pytest.fixture
def trained(tmp_path, monkeypatch) -> Path:
    """What a run leaves: its model, and its settings beside it."""
    (tmp_path / "own_judge.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(tmp_path)
    tokenizer = byte_tokenizer()
    settings = load(
        None,
        [
            f"out={tmp_path / 'run'}", "data.train=q.jsonl", "data.template=raw", "rollout.max_response_tokens=6",
            'rollout.stop=["a", "b", "c", "d", "e", "f", "g", "h"]', "reward.function=own_judge:even",
        ],
    )  # fmt: skip
    folder = tmp_path / "run" / "final"
    from_scratch(settings, SimpleNamespace(tokenizer=tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (tmp_path / "run" / "settings.yaml").write_text(settings.dump())
    rows = [{"question": f"Say {i}:", "answer": str(i), "level": i % 2} for i in range(6)]
    (tmp_path / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def evaluated(tmp_path: Path, model: Path, *typed: str) -> tuple[dict, pd.DataFrame]:
    out = tmp_path / f"evaluation_{len(list(tmp_path.iterdir()))}"
    results = run(parse([f"--model={model}", f"--suite={tmp_path / 'words.jsonl'}", f"--out={out}", *typed]))
    return results, pd.read_parquet(out / "samples.parquet")


def test_a_file_is_asked_ended_and_judged_as_in_the_run(trained, tmp_path):
    results, rows = evaluated(tmp_path, trained, "--samples=8")
    assert set(rows.benchmark) == {"words.jsonl"} and len(rows) == 6 * 8 * 2
    protocol = results["protocol"]["words.jsonl"]
    assert {mode: (p["n"], p["temperature"], p["top_p"], p["max_tokens"]) for mode, p in protocol.items()} == {
        "pass@1": (8, 0.1, 1.0, 6), "pass@k": (8, 1.0, 1.0, 6)
    }  # fmt: skip
    assert protocol["pass@1"]["template"] == "raw"
    # The row's column decides, and a response that ends by a text is judged without it, or `even` would fail.
    assert not rows.reason.str.contains("error").any()
    assert (rows[rows.problem % 2 == 0].reward == 0).all() and rows[rows.problem % 2 == 1].reward.max() == 1
    by_text = rows[rows.response.str.contains("[a-h]") & (rows.response_tokens < 6)]
    assert len(by_text) > 2 and by_text.ended.all()
    assert (rows.response_tokens <= 6).all() and not rows[~rows.response.str.contains("[a-h]")].ended.all()


def test_what_is_typed_goes_before_the_runs(trained, tmp_path):
    typed = ("--samples=4", "--mode=pass@1", "--reward=own_judge:odd", "--stop=[]", "--max-tokens=3", "--rows=2")
    _, rows = evaluated(tmp_path, trained, *typed)
    assert len(rows) == 8 and set(rows.problem) == {0, 1} and (rows.response_tokens <= 3).all()
    judged = rows[~rows.ended]
    assert len(judged) and (judged.reward == judged.response.str.len() % 2).all()


def test_an_evaluation_with_another_reward_or_stop_is_another_one(trained, tmp_path):
    out = f"--out={tmp_path / 'evaluation'}"
    base = [f"--model={trained}", f"--suite={tmp_path / 'words.jsonl'}", "--samples=1", "--mode=pass@1", out]
    run(parse(base))
    for other in ("--reward=own_judge:odd", "--stop=[x]"):
        with pytest.raises(SettingsError, match=f"holds samples of another evaluation: {other.partition('=')[0]}"):
            run(parse([*base, other]))


@pytest.mark.parametrize("name", ["reward", "question-column", "answer-column"])
def test_what_is_of_a_file_alone_is_refused_for_the_benchmarks(name):
    with pytest.raises(SettingsError, match=f"--{name}: is of a file of one's own, got --suite=gsm8k"):
        parse(["--model=m", "--suite=gsm8k", f"--{name}=x"])
