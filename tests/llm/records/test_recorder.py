"""What a run leaves, without a run: rows go to a Recorder as the loop sends them, parts are cut off and go on."""

import dataclasses
import importlib.util
import json
import math
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aepo import zoo
from aepo.batch import Rollouts
from aepo.llm.grading import Verdict
from aepo.llm.questions.walk import walk_task
from aepo.llm.records import console_row, wandb_run
from aepo.llm.records import recorder as record
from aepo.llm.records.entropy_plot import entropy_figure
from aepo.llm.records.recorder import (
    DUTY_STEPS,
    Recorder,
    in_words,
    metrics_path,
    read,
    samples_path,
    summarize,
)
from aepo.llm.records.samples import chosen_rows, console_line, samples
from aepo.llm.records.usage import Memory, extremes
from aepo.llm.records.verl_names import ALIASES, aliases
from aepo.llm.settings import Settings, SettingsError, load
from aepo.llm.train import main

UP = np.random.default_rng(0).random(200) < 0.5


def chosen(out: Path, *overrides: str) -> Settings:
    return load(None, [f"out={out}", "train.steps=200", "log.plot_every=0", "method.t_high=1.5", *overrides])


def metrics(step: int, *, up: bool | None = None) -> dict:
    raised = bool(UP[step]) if up is None else up
    return {
        "step": step, "reward": 0.25, "entropy": 0.5 + step / 100, "target": 0.5, "error": step / 100,
        "temperature": 1.5 if raised else 0.67, "raise_entropy": raised, "mismatch/kl": 1e-7, "clip_fraction": 0.01,
        "response_length": 5.0, "grad_norm": 0.3, "normalizer": None, "ended": 0.75, "time/step": 0.5,
    }  # fmt: skip


def sample(step: int, text: str = "+1 +2", branch: str = "main") -> dict:
    return {
        "step": step, "branch": branch, "temperature": 1.0, "prompt": "1 4", "response": text, "answer": "4",
        "extracted": "4", "reason": "exact", "reward": 1.0, "length": 2, "ended": True, "mean_logp": -1.0,
        "tokens": [text[:2], text[2:]], "entropy": [0.5, 1.5], "logp": [-0.25, -1.75],
    }  # fmt: skip


def recorded(settings: Settings, first: int, last: int, **kinds: bool) -> None:
    recorder = Recorder(settings, first_step=first)
    for step in range(first, last):
        recorder.write(metrics(step, **kinds))
        if recorder.wants_samples(step):
            recorder.write_samples([sample(step)])
    recorder.close()


def events(out: Path) -> EventAccumulator:
    found = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    return found.Reload()


# Metrics


@pytest.mark.parametrize("torn", [b"", b'{"step": 7, "rew', b'{"step": 7, "text": "\xe2\x80', b'{"step": 7}'])
def test_a_part_that_was_cut_off_and_its_resume_leave_what_an_uninterrupted_run_leaves(tmp_path, torn):
    whole, parts = chosen(tmp_path / "whole"), chosen(tmp_path / "parts", "log.samples_every=2")
    recorded(whole, 0, 120)
    recorded(parts, 0, 67)
    for path in (metrics_path(parts), samples_path(parts)):
        with path.open("ab") as file:
            file.write(torn)
    # The last checkpoint was after step 59, so seven steps are made again.
    recorded(parts, 60, 120)
    assert metrics_path(whole).read_text() == metrics_path(parts).read_text()
    assert [row["step"] for row in read(metrics_path(parts))] == list(range(120))
    assert [row["step"] for row in read(samples_path(parts))] == list(range(0, 120, 2))
    shown = events(tmp_path / "parts").Scalars("entropy")
    assert [event.step for event in shown] == list(range(120))


def test_a_run_that_starts_anew_keeps_nothing_of_the_one_before(tmp_path):
    settings = chosen(tmp_path)
    recorded(settings, 0, 4)
    recorded(settings, 0, 2)
    assert [row["step"] for row in read(metrics_path(settings))] == [0, 1]
    assert [row["step"] for row in read(samples_path(settings))] == [0]


def test_every_row_is_on_disk_before_the_next_step_begins(tmp_path):
    settings = chosen(tmp_path)
    recorder = Recorder(settings, first_step=0)
    for step in range(3):
        recorder.write(metrics(step))
        recorder.write_samples([sample(step)])
        assert [row["step"] for row in read(metrics_path(settings))] == list(range(step + 1))
        assert [row["step"] for row in read(samples_path(settings))] == list(range(step + 1))
        assert [event.step for event in events(tmp_path).Scalars("reward")] == list(range(step + 1))
    recorder.close()


def test_the_files_are_json_that_any_reader_takes(tmp_path):
    def refuse(name: str):
        raise AssertionError(name)

    settings = load(None, [f"out={tmp_path}", "method.name=grpo", "log.plot_every=0"])
    recorder = Recorder(settings, first_step=0)
    recorder.write({**metrics(0), "target": None, "error": None, "mismatch/worst_ratio": math.inf, "kl": math.nan})
    recorder.write_samples([{**sample(0), "mean_logp": -math.inf, "logp": [-0.5, -math.inf], "entropy": [math.nan]}])
    recorder.close()
    Recorder(settings, first_step=1).close()
    summarize(settings, settings.method.build(), {"pass@1": 0.5})
    files = [metrics_path(settings), samples_path(settings), tmp_path / "summary.json"]
    row, shown, summary = (json.loads(path.read_text(), parse_constant=refuse) for path in files)
    assert (row["target"], row["mismatch/worst_ratio"], row["kl"], shown["mean_logp"]) == (None,) * 4
    assert (shown["logp"], shown["entropy"]) == ([-0.5, None], [None])
    assert (summary["target"], summary["tracking_error"], summary["pass@1"]) == (None, None, 0.5)


def test_texts_with_any_line_end_stay_one_row(tmp_path):
    settings = chosen(tmp_path)
    text = "a\nb\u2028c\x85d\x0be \u4f60 \r\n"
    recorder = Recorder(settings, first_step=0)
    recorder.write_samples([sample(0, text), sample(0, "x")])
    recorder.close()
    Recorder(settings, first_step=1).close()
    assert [row["response"] for row in read(samples_path(settings))] == [text, "x"]


# The duty cycle


@pytest.mark.parametrize("resumed_at", [None, 10, 75])
def test_duty_up_is_the_share_of_the_last_50_steps_also_after_a_resume(tmp_path, resumed_at):
    settings = chosen(tmp_path)
    if resumed_at is not None:
        recorded(settings, 0, resumed_at)
    recorded(settings, resumed_at or 0, 120)
    found = [row["duty_up"] for row in read(metrics_path(settings))]
    assert found == pytest.approx([UP[max(0, n - DUTY_STEPS) : n].mean() for n in range(1, 121)])


def test_a_method_that_follows_no_target_has_no_duty_cycle(tmp_path, caplog):
    settings = load(None, [f"out={tmp_path}", "method.name=grpo", "log.plot_every=0"])
    recorded(settings, 0, 50, up=True)
    assert all(row["duty_up"] is None for row in read(metrics_path(settings)))
    assert not caplog.records


@pytest.mark.parametrize("name", ["grpo", "aepo_eq2", "aepo"])
def test_only_a_method_that_follows_a_target_has_its_columns_and_its_summary(tmp_path, capsys, name):
    settings = load(None, [f"out={tmp_path}", f"method.name={name}", "log.plot_every=0"])
    recorded(settings, 0, 2)
    header, row, *_ = capsys.readouterr().out.splitlines()
    summary = summarize(settings, settings.method.build(), {})
    of_target = ("target", "tracking_error", "duty_up")
    follows = name == "aepo"
    assert all((title in header.split()) == follows for title in ("H*", "|err|", "up")) and len(header) == len(row)
    assert all((summary[one] is not None) == follows for one in of_target)
    assert all((one in in_words(summary)) == follows for one in of_target)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


# The console


LARGEST = {
    "step": 999_999, "reward": -1.0, "entropy": 12.345, "target": 10.0, "error": 2.345, "temperature": 10.0,
    "duty_up": 1.0, "mismatch/kl": 1.2e-10, "clip_fraction": 1.0, "response_length": 32768.0, "grad_norm": 99.999,
    "perf/tokens_per_second": 1_234_567.8, "time/push": 123.4, "time/generate": 3456.7, "time/reward": 900.0,
    "time/score": 1234.0, "time/update": 3600.0, "time/step": 86399.0, "perf/memory_gib": 139.99, "eta": 86_399.0,
}  # fmt: skip


@pytest.mark.parametrize("shown", [LARGEST, {"step": 0, "target": float("nan"), "duty_up": None}, metrics(3)])
def test_the_row_stays_under_its_titles_and_within_160_columns(shown):
    header, row = console_row.header(), console_row.row(shown)
    assert len(header) == len(row) <= 160
    assert row.isprintable() and len(row.split()) == len(console_row.SHOWN)
    for title in ("step", "reward", "H", "H*", "|err|", "T", "mism.kl", "clip", "|o|", "tok/s", "gen s", "GiB", "ETA"):
        assert title in header


def test_the_row_shows_the_metrics_and_how_long_it_still_takes(tmp_path, capsys, monkeypatch):
    recorder = Recorder(chosen(tmp_path), first_step=0)
    began = recorder.started
    for step in range(51):
        # Ten seconds a step, however busy the machine is.
        monkeypatch.setattr(record, "time", SimpleNamespace(monotonic=lambda at=began + 10 * (step + 1): at))
        recorder.write(metrics(step, up=step == 0))
    recorder.close()
    lines = capsys.readouterr().out.splitlines()
    assert [i for i, line in enumerate(lines) if line == console_row.header()] == [0, 51]
    cells = dict(zip([column.title for _, column in console_row.SHOWN], lines[4].split(), strict=True))
    assert (cells["step"], cells["H"], cells["T"], cells["up"]) == ("3", "0.530", "0.67", "25%")
    # Four steps took ten seconds each, and 196 are left.
    assert cells["ETA"] == "32:40"


# Samples


@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_the_chosen_rows_are_the_first_of_the_first_groups_and_both_kinds_if_there_are_both(groups, size, data):
    right = data.draw(st.lists(st.booleans(), min_size=groups * size, max_size=groups * size))
    count = data.draw(st.integers(1, 40))
    rows = chosen_rows(right, group_size=size, count=count)
    assert len(rows) == len(set(rows)) == min(count, len(right))
    assert set(rows) <= set(range(len(right)))
    if len(rows) >= 2:
        assert {right[row] for row in rows} == set(right)
    first = min(len(rows), groups)
    assert rows[: first - 1] == [group * size for group in range(first - 1)]


def test_samples_say_what_was_asked_answered_and_judged():
    task = walk_task()
    prompts = torch.tensor([task.train[0]] * 2 + [task.train[1]] * 2)
    texts = [["+1", "+1", "+1", "+1", "<eos>"], ["+1", "+2"], ["+9", "-9", "+1", "-1", "<eos>"], ["+3"]]
    vocabulary = task.tokenizer.get_vocab()
    token, mask = torch.zeros(4, 5, dtype=torch.int64), torch.zeros(4, 5)
    for row, words in enumerate(texts):
        token[row, : len(words)] = torch.tensor([vocabulary[word] for word in words], dtype=torch.int64)
        mask[row, : len(words)] = 1
    responses = [t[: int(m)] for t, m in zip(token.tolist(), mask.sum(1), strict=True)]
    verdicts = task.grade(prompts.tolist(), responses)
    rollouts = Rollouts(
        prompt=prompts,
        token=token,
        mask=mask,
        # What is trained on need not be the verdict's own reward.
        reward=torch.tensor([-0.5, 0.0, 0.0, 0.0]),
        group_size=2,
        old_logp=-torch.arange(20.0).reshape(4, 5),
        # What stands on padding is nobody's.
        entropy=torch.where(mask != 0, torch.arange(20.0).reshape(4, 5) / 7, math.nan),
    )
    found = samples(rollouts, verdicts, task, step=7, branch="tempered", temperature=1.5, count=9)
    start, goal = task.pairs[task.train[0]]
    assert found[0] == {
        "step": 7, "branch": "tempered", "temperature": 1.5, "prompt": f"{start} {goal}", "answer": str(goal),
        "response": "+1 +1 +1 +1 <eos>", "extracted": str(start + 4), "reason": verdicts[0].reason, "reward": -0.5,
        "length": 5, "ended": True, "mean_logp": -2.0, "tokens": ["+1", " +1", " +1", " +1", " <eos>"],
        "logp": [-0.0, -1.0, -2.0, -3.0, -4.0], "entropy": [0.0, 0.1429, 0.2857, 0.4286, 0.5714],
    }  # fmt: skip
    assert [row["response"] for row in found] == [" ".join(texts[row]) for row in (0, 2, 1, 3)]
    assert [row["ended"] for row in found] == [True, True, False, False]
    assert [row["mean_logp"] for row in found] == [-2.0, -12.0, -5.5, -15.0]
    assert [row["entropy"] for row in found[2:]] == [[0.7143, 0.8571], [2.1429]]
    assert all("".join(row["tokens"]) == row["response"] for row in found)


def test_samples_of_several_functions_say_what_each_gave_and_show_a_right_and_a_wrong_one():
    task = dataclasses.replace(walk_task(), parts=("m:f", "m:g"))
    token = torch.full((4, 1), task.tokenizer.eos_token_id)
    rollouts = Rollouts(
        prompt=torch.tensor([task.train[0]] * 4), token=token, mask=torch.ones(4, 1), reward=torch.full((4,), 0.2),
        group_size=4, old_logp=torch.zeros(4, 1), entropy=torch.zeros(4, 1),
    )  # fmt: skip
    # All have a positive reward, one is right; one could not be judged.
    verdicts = [
        Verdict(reward=0.2, extracted=None, reason="custom", parts=(right, 0.2), right_by=right)
        for right in (0.0, 0.0, 1.0)
    ] + [Verdict(reward=0.0, extracted=None, reason="error: x")]
    found = samples(rollouts, verdicts, task, step=0, branch="main", temperature=1.0, count=2)
    assert [row["right"] for row in found] == [False, True]
    assert found[1]["rewards"] == {"m:f": 1.0, "m:g": 0.2}
    last = samples(rollouts, verdicts, task, step=0, branch="main", temperature=1.0, count=9)[-1]
    assert (last["rewards"], last["right"]) == ({}, False)


def test_rows_of_other_ranks_are_not_shown():
    task = walk_task()
    token = torch.full((4, 1), task.tokenizer.eos_token_id)
    rollouts = Rollouts(
        prompt=torch.tensor([task.train[0]] * 4), token=token, mask=torch.ones(4, 1), reward=torch.zeros(4),
        group_size=2, old_logp=torch.zeros(4, 1), entropy=torch.zeros(4, 1),
    )  # fmt: skip
    verdicts = task.grade([task.train[0]] * 2, token[:2].tolist())
    assert len(samples(rollouts, verdicts, task, step=0, branch="main", temperature=1.0, count=9)) == 2


@given(st.lists(st.text(max_size=20), min_size=4, max_size=4), st.integers(1, 40), st.booleans())
def test_a_sample_is_one_line_of_at_most_160_characters(texts, times, has_answer):
    prompt, response, reason, answer = (text * times for text in texts)
    answer = answer if has_answer else None
    line = console_line({**sample(0), "prompt": prompt, "response": response, "answer": answer, "reason": reason})
    assert len(line) <= 160 and len(line.splitlines()) == 1 and line.isprintable()


def test_a_long_sample_shows_how_the_prompt_begins_and_how_the_response_ends():
    line = console_line({**sample(0), "prompt": "begin " + "p " * 500, "response": "r " * 5000 + "the end"})
    assert ": begin p" in line and line.endswith("the end  [answer 4]") and "… -> …" in line


def test_samples_are_asked_for_by_the_step_and_shown_in_every_place(tmp_path, capsys):
    settings = chosen(tmp_path, "log.samples_every=3")
    recorder = Recorder(settings, first_step=2)
    assert [step for step in range(8) if recorder.wants_samples(step)] == [0, 3, 6]
    recorder.write_samples([sample(3, "+1"), sample(3, "+2"), sample(3, "+3", "tempered")])
    recorder.close()
    assert [row["response"] for row in read(samples_path(settings))] == ["+1", "+2", "+3"]
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and "main T=1.00 reward 1 (exact): 1 4 -> +1" in said[0] and "tempered" in said[1]
    found = events(tmp_path)
    (event,) = found.Tensors("samples/main/text_summary")
    assert event.step == 3 and b"+1" in event.tensor_proto.string_val[0] and b"+2" in event.tensor_proto.string_val[0]
    assert "samples/tempered/text_summary" in found.Tags()["tensors"]
    # A long response's numbers would bury it there.
    assert b"reward 1.0" in event.tensor_proto.string_val[0] and b"entropy" not in event.tensor_proto.string_val[0]
    assert not Recorder(chosen(tmp_path / "none", "log.samples=0"), first_step=0).wants_samples(0)


# The picture


@pytest.mark.parametrize(("name", "panels"), [("aepo", 3), ("grpo", 2)])
def test_the_picture_shows_entropy_target_reward_and_temperature(name, panels):
    rows = [metrics(step) for step in range(30)]
    figure = entropy_figure(rows, zoo.build(name))
    drawn = {axes.get_ylabel(): [line.get_ydata() for line in axes.get_lines()] for axes in figure.axes}
    assert len(drawn) == panels
    assert list(drawn["entropy (nats)"][0]) == [row["entropy"] for row in rows]
    assert list(drawn["reward"][0]) == [0.25] * 30
    if name == "aepo":
        assert list(drawn["entropy (nats)"][1]) == [0.5] * 30
        assert list(drawn["T"][0]) == [row["temperature"] for row in rows]


def evaluated(step: int) -> dict:
    """Metrics of a run that evaluates every tenth step, from some step on with another k."""
    found = {"held_out/pass@1": 0.3 + step / 100, f"held_out/pass@{4 if step < 20 else 8}": 0.6 + step / 100}
    return {**metrics(step), **({} if step % 10 else {**found, "time/evaluate": 12.345})}


def test_the_picture_shows_held_out_passes_where_they_were_measured():
    figure = entropy_figure([evaluated(step) for step in range(30)], zoo.build("grpo"))
    (axes,) = [axes for axes in figure.axes if axes.get_ylabel() == "reward"]
    curves = {line.get_label().removeprefix("held-out "): line.get_xydata().tolist() for line in axes.get_lines()}
    assert curves["pass@1"] == [[0, 0.3], [10, 0.4], [20, 0.5]]
    assert curves["pass@4"] == [[0, 0.6], [10, 0.7]] and curves["pass@8"] == [[20, pytest.approx(0.8)]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [f"held-out pass@{k}" for k in (1, 4, 8)]
    assert len({line.get_color() for line in axes.get_lines()}) == 4


def test_evaluations_are_in_every_place_also_after_a_resume(tmp_path, capsys):
    settings = chosen(tmp_path)
    for first, last in ((0, 15), (10, 21)):
        recorder = Recorder(settings, first_step=first)
        for step in range(first, last):
            recorder.write(evaluated(step))
        recorder.plot()
        recorder.close()
    at = [0, 10, 20]
    assert [row["step"] for row in read(metrics_path(settings)) if "held_out/pass@1" in row] == at
    assert [event.step for event in events(tmp_path).Scalars("held_out/pass@1")] == at
    assert [row["step"] for row in recorder.plotted if "held_out/pass@1" in row] == at
    said = [line for line in capsys.readouterr().out.splitlines() if "held out" in line]
    # Step 10 was made twice.
    assert said[0] == "  held out: pass@1 0.300, pass@4 0.600 (12.3 s)" and said[1] == said[2] and len(said) == 4


def test_the_picture_is_drawn_while_the_run_goes_on_and_covers_what_was_before_a_resume(tmp_path):
    picture = tmp_path / "entropy.png"
    settings = chosen(tmp_path, "log.plot_every=4")
    recorded(settings, 0, 3)
    assert not picture.exists()
    recorder = Recorder(settings, first_step=2)
    recorder.write(metrics(2))
    assert not picture.exists()
    recorder.write(metrics(3))
    with Image.open(picture) as image:
        assert image.format == "PNG" and image.width > 500
    assert [row["step"] for row in recorder.plotted] == [0, 1, 2, 3]
    recorder.close()
    assert not list(tmp_path.glob(".*"))


# Names and numbers


def test_verls_names_go_to_tensorboard_when_asked_and_never_to_jsonl(tmp_path):
    recorded(chosen(tmp_path / "plain"), 0, 2)
    recorded(chosen(tmp_path / "verl", "log.verl_names=true"), 0, 2)
    plain, verl = (set(events(tmp_path / name).Tags()["scalars"]) for name in ("plain", "verl"))
    expected = {"actor/entropy", "critic/score/mean", "response_length/mean", "response_length/clip_ratio"}
    assert plain < verl and expected <= verl - plain
    assert read(metrics_path(chosen(tmp_path / "plain"))) == read(metrics_path(chosen(tmp_path / "verl")))
    assert not set(read(metrics_path(chosen(tmp_path / "verl")))[0]) & set(ALIASES)


def test_an_alias_is_the_same_number():
    row = {name: float(i) for i, name in enumerate(sorted(set(ALIASES.values()) | {"ended"}))}
    assert {theirs: row[ours] for theirs, ours in ALIASES.items()}.items() <= aliases(row).items()
    assert aliases({}) == {}


def test_memory_is_the_largest_the_process_ever_held():
    status = Path("/proc/self/status")
    if torch.cuda.is_available() or not status.is_file():
        pytest.skip("the oracle is Linux's own, for a process without a GPU")
    memory = Memory()
    before = memory.look()
    block = np.ones(1 << 25)
    with_block = memory.look()
    del block
    kernel = int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
    assert with_block >= before and memory.look() >= with_block
    assert memory.look() == pytest.approx(kernel, rel=0.02)


def test_extremes_leave_padding_out():
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0]])
    rollouts = Rollouts(
        prompt=torch.zeros(2).long(), token=torch.zeros(2, 3).long(), mask=mask, reward=torch.tensor([0.5, -1.0]),
        group_size=2,
    )  # fmt: skip
    expected = {"response_length_min": 1, "response_length_max": 3, "reward_min": -1.0, "reward_max": 0.5}
    assert extremes(rollouts) == expected


# Weights & Biases


def wandb_is_installed() -> bool:
    spec = importlib.util.find_spec("wandb")
    return spec is not None and spec.origin is not None


@pytest.mark.skipif(wandb_is_installed(), reason="wandb is installed")
def test_a_run_that_asks_for_wandb_without_it_is_refused_before_anything_is_built(tmp_path, capsys, monkeypatch):
    # The package leaves a folder of its name where it ran, which Python takes for a package.
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main([f"--out={tmp_path / 'run'}", "--log.wandb_project=p"]) == 2
    said = capsys.readouterr().err
    assert "log.wandb_project=p needs the package wandb" in said and "pip install 'aepo-rl[wandb]'" in said
    assert not (tmp_path / "run").exists()


def test_a_name_at_wandb_needs_a_project():
    with pytest.raises(SettingsError, match=r"wandb_name='n' needs wandb_project"):
        load(None, ["log.wandb_name=n"])


@pytest.fixture
def wandb_offline(tmp_path, monkeypatch):
    """W&B without a network and without an account; it reads its environment once, until it is torn down."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    wandb.teardown()
    yield
    wandb.teardown()


def test_wandb_without_an_api_key_is_refused_with_what_to_do(tmp_path, monkeypatch, wandb_offline):
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(SettingsError, match=r"WANDB_API_KEY.*WANDB_MODE=offline"):
        wandb_run.check_wandb(chosen(tmp_path, "log.wandb_project=p"))


def logged_steps(path: Path) -> list[int]:
    """The steps in an offline run's file: LevelDB's log format of protobuf records, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, place, records, record = path.read_bytes(), 7, [], b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        # 1 is a whole record, 4 the last part of one.
        if kind in (1, 4):
            records.append(record)
            record = b""
    steps = []
    for text in records:
        parsed = wandb_internal_pb2.Record()
        parsed.ParseFromString(text)
        if parsed.WhichOneof("record_type") == "history":
            steps.append(parsed.history.step.num)
    return steps


def test_a_resumed_run_goes_on_at_wandb_and_sends_no_step_twice(tmp_path, wandb_offline):
    settings = chosen(tmp_path, "log.wandb_project=p", "log.wandb_name=n")
    wandb_run.check_wandb(settings)
    recorded(settings, 0, 7)
    identity = (tmp_path / wandb_run.ID_FILE).read_text()
    recorded(settings, 4, 10)
    files = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{identity}.wandb"), key=lambda p: p.stat().st_mtime_ns)
    assert [step for file in files for step in logged_steps(file)] == list(range(10))
    assert [row["step"] for row in read(metrics_path(settings))] == list(range(10))
    recorded(settings, 0, 2)
    other = (tmp_path / wandb_run.ID_FILE).read_text()
    assert other != identity
    (file,) = (tmp_path / "wandb").glob(f"offline-run-*/run-{other}.wandb")
    assert logged_steps(file) == [0, 1]


def test_wandb_that_is_asked_for_at_a_resume_gets_a_run_of_what_follows(tmp_path, wandb_offline):
    recorded(chosen(tmp_path), 0, 5)
    recorded(chosen(tmp_path, "log.wandb_project=p"), 3, 6)
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert logged_steps(file) == [3, 4, 5]
    assert json.loads(metrics_path(chosen(tmp_path)).read_text().splitlines()[-1])["step"] == 5
