"""A run's file: small whatever is in it, read back as it was, refused where it is of other settings; and its counts."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_protocols import small

from aepo.llm import seeds
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.experiment.ladder import counting, outcome
from aepo.llm.experiment.ladder import protocol as protocols
from aepo.llm.experiment.ladder.claims import Metric
from aepo.llm.experiment.ladder.finishing import summarized, thinned
from aepo.llm.experiment.ladder.outcome import LARGEST, Counts, Outcome, packed, unpacked
from aepo.llm.policy.model import from_scratch
from aepo.llm.questions.ladder import LEVELS, ladder_task
from aepo.llm.settings import SettingsError, load
from aepo.passk import pass_at_k

COMMITTED = protocols.read()


# Packed counts.


@given(st.integers(1, 5000).flatmap(lambda most: st.tuples(st.just(most), st.lists(st.integers(0, most)))))
def test_packed_counts_are_read_back_and_as_long_as_their_largest_could_be(found):
    most, counts = found
    text = packed(np.array(counts, dtype=np.int64), most=most)
    assert unpacked(text, most=most).tolist() == counts
    assert len(text) == len(counts) * math.ceil(math.log(most + 1, 16) - 1e-12)


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"counts must be in 0 \.\. 4, got 0 \.\. 5"):
        packed(np.array([0, 5]), most=4)
    with pytest.raises(ValueError, match="2 hexadecimal digits a count, got 3"):
        unpacked("123", most=32)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 9))
def test_pass_at_k_of_counts_is_the_share_of_draws_with_a_right_one(right, k):
    # Independent of it: every choice of k of the nine samples.
    counts = Counts(samples=9, right=np.array(right))
    for found, count in zip(counts.pass_at(k), right, strict=True):
        draws = list(itertools.combinations(range(9), k))
        assert found == pytest.approx(sum(min(draw) < count for draw in draws) / len(draws), abs=1e-12)
    assert counts.pass_at(k).tolist() == pass_at_k(torch.tensor(right), samples=9, k=k).tolist()


# Samples as counts.


def test_counts_are_those_of_every_sample_judged_by_itself():
    task = ladder_task()
    model = from_scratch(load("ladder_cpu", ["warm_start.seed=3"]), task)
    prompts, n = list(task.held_out[:6]), 400
    # A random model has too little right: the first token decides.
    lenient = Lenient(**{field.name: getattr(task, field.name) for field in dataclasses.fields(task)})
    found = counting.drawn(model, lenient, prompts, samples=n, temperature=1.0, top_p=1.0, seed=7)
    engine = EmbeddedEngine(model=model, end_ids=task.end_ids, pad_id=task.tokenizer.pad_token_id, max_tokens=5)
    drawn = seeds.row_seeds(7, 0, "ladder T=1 top-p=1", np.arange(len(prompts)), n)
    sampled = engine.sample([task.prompts[p] for p in prompts], n=n, temperature=1.0, row_seeds=drawn)
    said = [tuple(t[: int(m)]) for t, m in zip(sampled.token.tolist(), sampled.mask.sum(1), strict=True)]
    right = [verdict.right for verdict in lenient.grade(np.repeat(prompts, n).tolist(), said)]
    assert 0 < sum(right) < len(right)
    counts = found.counts(n)
    for row in range(len(prompts)):
        here = slice(row * n, (row + 1) * n)
        correct = [response for response, is_right in zip(said[here], right[here], strict=True) if is_right]
        assert counts.right[row] == len(correct) and counts.different[row] == len(set(correct))
    levels = [task.levels[prompt] for prompt in prompts]
    surprise = found.surprise(levels, n)
    assert set(surprise) == set(levels) <= set(LEVELS)
    nats, tokens = -sampled.logp.double().sum(1), sampled.mask.sum(1)
    mine = torch.tensor(right) & torch.tensor([levels[0] == level for level in np.repeat(levels, n)])
    mean, count = surprise[levels[0]]["right"]
    assert count == int(tokens[mine].sum()) and mean == pytest.approx(float(nats[mine].sum() / count), abs=1e-4)


class Lenient(type(ladder_task())):
    """A ladder whose responses are right if their first token is an even one."""

    def grade(self, prompts, responses):
        verdicts = super().grade(prompts, responses)
        return [
            dataclasses.replace(verdict, reward=float(response[0] % 2 == 0))
            for verdict, response in zip(verdicts, responses, strict=True)
        ]


def test_of_more_samples_the_first_are_the_same_and_arms_of_a_seed_share_their_draws():
    task = ladder_task()
    model = from_scratch(load("ladder_cpu", ["warm_start.seed=3"]), task)
    asked = {"temperature": 1.0, "top_p": 1.0, "seed": 7}
    few = counting.drawn(model, task, [0, 1], samples=20, **asked)
    many = counting.drawn(model, task, [0, 1], samples=50, **asked)
    assert np.allclose(few.nats, many.nats[:, :20], atol=1e-5)
    other = counting.drawn(model, task, [0, 1], samples=20, **asked | {"seed": 8})
    later = counting.drawn(model, task, [0, 1], samples=20, **asked, step=60)
    assert not np.allclose(few.nats, other.nats) and not np.allclose(few.nats, later.nats)


def test_the_first_samples_counts_are_of_the_first():
    drawn = counting.Drawn(
        right=np.array([[True, True, False, True], [False, False, True, True]]),
        response=np.array([[4, 4, 5, 6], [7, 8, 9, 9]]),
        nats=np.array([[1.0, 1.0, 4.0, 2.0], [3.0, 3.0, 1.0, 1.0]]),
        tokens=np.array([[5, 5, 2, 5], [5, 1, 5, 5]]),
    )
    whole, first = drawn.counts(4), drawn.counts(2)
    assert (whole.right.tolist(), whole.different.tolist()) == ([3, 2], [2, 1])
    assert (first.right.tolist(), first.different.tolist()) == ([2, 0], [1, 0])
    # By hand: right of "a": (1 + 1 + 2) / 15; wrong of "b" among the first two: (3 + 3) / 6.
    assert drawn.surprise(["a", "b"], 4)["a"] == {"right": [round(4 / 15, 4), 15], "wrong": [2.0, 2]}
    assert drawn.surprise(["a", "b"], 2)["b"] == {"right": [0.0, 0], "wrong": [1.0, 6]}


# Figures of a training.


def rows(entropy: list[float], **more: list) -> list[dict]:
    return [
        {
            "entropy": value,
            "reward": 0.01 * step,
            **{name.replace("__", "/"): given[step] for name, given in more.items()},
        }
        for step, value in enumerate(entropy)
    ]


def test_figures_are_of_every_step_and_the_curve_of_every_fifth():
    settings = load("ladder_cpu", ["target.value=0.5"])
    entropy = [2.0] * 20 + [0.4, 0.6] * 10
    raised = [step % 4 == 0 for step in range(40)]
    authority = [None if step % 2 else float(step) for step in range(40)]
    found = rows(entropy, raise_entropy=raised, control__authority=authority)
    summary = summarized(settings, found, follows=True, last=20)
    assert summary["entropy_first"] == 2.0 and summary["entropy_last"] == pytest.approx(0.5)
    assert summary["tracking_error"] == pytest.approx(0.1) and summary["duty_up"] == 0.25
    # Of the last half's even steps, 20 .. 38.
    assert summary["authority"] == 29.0 and summary["authority_measured"] == 0.5
    assert summary["reward"] == pytest.approx(0.01 * np.mean(range(40)))
    curve = thinned(settings, found, follows=True)
    assert curve["step"] == list(range(0, 40, 5)) and curve["entropy"] == entropy[::5]
    assert curve["raise_entropy"][:2] == [0.4, 0.2] and curve["control/authority"][0] == 2.0
    assert curve["target"] == [0.5] * 8


def test_a_method_without_a_target_has_no_error_and_one_without_a_controller_no_duty():
    settings = load("ladder_cpu", ["method.name=grpo"])
    found = rows([1.0] * 10, raise_entropy=[None] * 10)
    summary, curve = summarized(settings, found, follows=False, last=4), thinned(settings, found, follows=False)
    assert summary["tracking_error"] is summary["duty_up"] is summary["authority"] is None
    assert set(curve) == {"step", "entropy", "reward"}
    # Eq. 2 is given a target that it does not follow.
    told = summarized(load("ladder_cpu", ["method.name=aepo_eq2"]), found, follows=True, last=4)
    assert told["tracking_error"] == pytest.approx(0.5) and told["duty_up"] is None


# The file.


def largest(rng: np.random.Generator) -> Outcome:
    """As much as a run of the committed protocol can leave, its numbers as long as they are in runs."""
    chosen = COMMITTED.evaluation
    prompts = chosen.prompts

    def counts(samples: int, *, different: bool = False) -> Counts:
        right = rng.integers(0, samples + 1, prompts)
        return Counts(samples=samples, right=right, different=right if different else None)

    points = COMMITTED.steps // 5
    curve = {"step": list(range(0, COMMITTED.steps, 5))}
    for name, digits in (("entropy", 4), ("reward", 3), ("target", 4), ("raise_entropy", 1), ("control/authority", 2)):
        curve[name] = (10 * rng.random(points)).round(digits).tolist()
    text = "w" * 200
    versions = {name: "10.100.1000+cpu" for name in ("python", "aepo", "torch", "transformers", "deepspeed", "numpy")}
    return Outcome(
        arm="aepo_reach_0.5_errs_more", seed=123, digest="0123456789abcdef",
        about={
            "command": "aepo experiment --task ladder --stage A --arms aepo_reach_0.5_errs_more",
            "settings": {name: str(v) for name, v in COMMITTED.arms["aepo_reach_0.5_errs_more"].settings.items()},
            "device": "CPU, x86_64, 128 cores, one thread a run", "capability": "AVX512", "versions": versions,
            "said": [text, text, text], "evaluation_cpu_seconds": 1000.5, "training_cpu_seconds": 1000.5,
            "training_seconds": 1000.5,
        },
        summary={name: 0.12345 for name in summarized(load("ladder_cpu"), rows([1.0] * 4), follows=False, last=2)},
        curve=curve,
        counts={
            "whole": counts(256, different=True), "narrow": counts(32),
            "more": counts(1024), "whole_nucleus": counts(256), "narrow_nucleus": counts(32),
        },
        checkpoints={step: counts(64) for step in range(60, 300, 60)},
        surprise={level: {"right": [1.2345, 123456], "wrong": [1.2345, 123456]} for level in LEVELS},
    )  # fmt: skip


def test_the_largest_file_of_the_protocol_is_small_enough_and_read_back_as_it_was(tmp_path):
    made = largest(np.random.default_rng(0))
    path = outcome.write(tmp_path / "new", made)
    assert 10_000 < path.stat().st_size <= LARGEST == 20_000
    assert [name.name for name in path.parent.iterdir()] == ["aepo_reach_0.5_errs_more_seed123.json"]
    found = outcome.read(path)
    assert found.as_text() == made.as_text()
    assert (found.counts["more"].right == made.counts["more"].right).all()
    assert (found.checkpoints[60].right == made.checkpoints[60].right).all()
    # One that would be larger is not written at all.
    with pytest.raises(ValueError, match="more than 20000"):
        outcome.write(tmp_path / "other", dataclasses.replace(made, about={"said": ["w" * 20_000]}))
    assert list((tmp_path / "other").iterdir()) == []


def test_a_metric_is_of_the_evaluation_that_has_its_samples():
    made = largest(np.random.default_rng(1))
    found = {
        name: made.passes(Metric.named(name), COMMITTED.evaluation)
        for name in ("pass@1 T=0.1", "pass@256", "pass@1024")
    }
    assert np.allclose(found["pass@1 T=0.1"], made.counts["narrow"].right / 32)
    # Of 256 samples, pass@256 is whether any is right.
    assert np.allclose(found["pass@256"], made.counts["whole"].right > 0)
    assert np.allclose(found["pass@1024"], made.counts["more"].right > 0)
    few = dataclasses.replace(made, counts={"narrow": made.counts["narrow"]})
    assert few.passes(Metric.named("pass@16"), COMMITTED.evaluation) is None


def test_a_file_of_other_settings_or_of_no_run_is_refused_by_name(tmp_path):
    small_one = small(tmp_path)
    kept = dataclasses.replace(
        largest(np.random.default_rng(2)), arm="grpo", seed=100, digest=small_one.digests["grpo"]
    )
    assert outcome.known(small_one, tmp_path, "grpo", 100) is None
    path = outcome.write(tmp_path, kept)
    assert outcome.known(small_one, tmp_path, "grpo", 100).seed == 100
    outcome.write(tmp_path, dataclasses.replace(kept, digest="0" * 16))
    with pytest.raises(SettingsError, match=r"grpo_seed100\.json: was made with other settings .* for grpo .*0{16}"):
        outcome.known(small_one, tmp_path, "grpo", 100)
    path.with_name("grpo_seed101.json").write_text(path.read_text())
    with pytest.raises(SettingsError, match="holds grpo, seed 100"):
        outcome.known(small_one, tmp_path, "grpo", 101)
    for text in ("", "[]", json.dumps({"arm": "grpo"})):
        path.write_text(text)
        with pytest.raises(SettingsError, match=r"grpo_seed100\.json: is no file of a run"):
            outcome.known(small_one, tmp_path, "grpo", 100)
