"""A run's own evaluation on held-out prompts: what it measures, and that it changes nothing else."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from running import assert_learned, trained, weights, without_times

from aepo.controller import Loop
from aepo.llm import seeds
from aepo.llm.engines.embedded import EmbeddedEngine
from aepo.llm.engines.engine import Sampled
from aepo.llm.evaluation.held_out import held_out_passes, shorter_evaluation
from aepo.llm.grading import Verdict
from aepo.llm.policy.model import from_scratch
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.processes.watchdog import Phases
from aepo.llm.questions.walk import WalkTask, walk_task
from aepo.llm.settings import EvaluationSettings, Settings, SettingsError, load
from aepo.llm.train import main, train_step
from aepo.llm.trainer import Request, Trainer


class Even(WalkTask):
    """A walk whose response is right if its first token is an even one: a random model earns some reward at once."""

    def grade(self, prompts, responses):
        found = [float(response[0] % 2 == 0) for response in responses]
        return [Verdict(reward=reward, extracted=None, reason="custom") for reward in found]


def even_task() -> Even:
    walk = walk_task()
    return Even(**{field.name: getattr(walk, field.name) for field in dataclasses.fields(walk)})


class Noted(EmbeddedEngine):
    """Keeps what it was asked and what it sampled."""

    def sample(self, prompts, **asked):
        sampled = super().sample(prompts, **asked)
        self.__dict__.setdefault("calls", []).append((prompts, asked, sampled))
        return sampled

    def rest(self):
        self.__dict__.setdefault("calls", []).append("rest")


BASE = ("train.prompts_per_step=8", "train.minibatches=2", "train.lr=3e-3", "rollout.group_size=4", "model.layers=1",
        "model.hidden_size=16", "model.heads=2", "model.kv_heads=1", "data.max_prompt_tokens=8")  # fmt: skip


def a_trainer(*chosen: str) -> Trainer:
    """A run in this process, without DeepSpeed."""
    settings = load(None, [*BASE, *chosen])
    task = even_task()
    model = from_scratch(settings, task)
    module = ResponseStats(model)
    stepper = TorchStepper(module, torch.optim.AdamW(module.parameters()), max_grad_norm=1.0)
    pad = task.tokenizer.pad_token_id
    return Trainer(
        settings=settings,
        task=task,
        data="",
        engine=Noted(model=model, end_ids=task.end_ids, pad_id=pad, max_tokens=settings.rollout.max_response_tokens),
        policy=Policy(stepper, task.prompts, pad_id=pad, token_budget=4096, lr=settings.train.lr),
        method=settings.method.build(),
        phases=Phases(settings.watchdog.model_dump()),
        canary=None,
    )


def run(trainer: Trainer, steps: int) -> list[dict]:
    """The metrics of the first steps."""
    loop, rows = Loop.start(trainer.method.controller, torch.zeros(())), []
    for step in range(steps):
        loop, record = train_step(trainer, loop, step=step)
        rows.append(record.metrics)
    return rows


def bits(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.policy.stepper.weights()}


def without_evaluation(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.startswith("held_out/")} for row in without_times(rows)]


def passed(row: dict) -> dict[str, float]:
    return {k: v for k, v in row.items() if k.startswith("held_out/")}


ON = ("evaluation.samples=3", "evaluation.ks=[1,2]")


# What it changes: nothing.


@pytest.mark.parametrize("method", ["aepo", "grpo", "e3"])
@pytest.mark.parametrize("sees", ["current", "previous"])
def test_with_and_without_evaluations_the_weights_and_every_other_number_are_the_same(method, sees):
    chosen = (f"method.name={method}", f"controller.sees={sees}", *ON)
    plain, evaluated = a_trainer(*chosen), a_trainer(*chosen, "evaluation.every=2")
    start = bits(plain)
    one, other = run(plain, 4), run(evaluated, 4)
    assert [bool(passed(row)) for row in other] == [True, False, True, False]
    assert not any(passed(row) or "time/evaluate" in row for row in one)
    assert without_times(one) == without_evaluation(other)
    before, after = bits(plain), bits(evaluated)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(before["lm_head.weight"], start["lm_head.weight"])
    # The end of the run has draws of its own, which do not depend on how often there were others.
    assert plain.evaluate(None) == evaluated.evaluate(None)


def test_a_step_measures_the_policy_before_its_update_whoever_asks():
    there = run(a_trainer(*ON, "evaluation.every=1"), 4)
    for step in range(4):
        plain = a_trainer(*ON)
        run(plain, step)
        again = plain.evaluate(step)
        assert passed(there[step]) == {f"held_out/{name}": value for name, value in again.items()}
    assert len({row["held_out/pass@1"] for row in there}) > 2, "it changes with the weights"


@pytest.mark.parametrize(("sees", "calls"), [("current", 2), ("previous", 1)])
def test_an_evaluation_is_the_engines_last_work_before_it_rests(sees, calls):
    # Whatever an engine keeps of it, such as prefixes in a cache, the next push of weights drops.
    trainer = a_trainer(*ON, f"controller.sees={sees}", "evaluation.every=1")
    run(trainer, 1)
    *sampled, rests = trainer.engine.calls
    held_out = [trainer.task.prompts[p] for p in trainer.task.held_out]
    assert rests == "rest" and [prompts == held_out for prompts, *_ in sampled] == [False] * calls + [True]


def test_an_evaluation_counts_for_its_own_time_and_not_for_the_throughput(monkeypatch):
    trainer, clock = a_trainer(*ON, "evaluation.every=1"), itertools.count()
    # Every look at the clock is a second later, and an evaluation takes a thousand.
    asked = held_out_passes

    def slowly(*args, **kwargs):
        for _ in range(1000):
            next(clock)
        return asked(*args, **kwargs)

    monkeypatch.setattr("aepo.llm.trainer.held_out_passes", slowly)
    monkeypatch.setattr("aepo.llm.processes.watchdog.time.monotonic", lambda: float(next(clock)))
    (row,) = run(trainer, 1)
    assert 1000 <= row["time/evaluate"] < row["time/step"]
    assert row["perf/tokens"] / row["perf/throughput"] < 100


# What it measures.


def test_pass_at_k_is_the_share_of_k_samples_with_a_right_one_among_them():
    trainer = a_trainer("evaluation.samples=5", "evaluation.ks=[1,2,5]")
    found = trainer.evaluate(3)
    ((prompts, asked, sampled),) = trainer.engine.calls
    task = trainer.task
    assert prompts == [task.prompts[p] for p in task.held_out] and not set(task.held_out) & set(task.train)
    assert asked.get("temperature") == 1.0 and asked.get("top_p", 1.0) == 1.0
    right = (sampled.token[:, 0] % 2 == 0).reshape(len(task.held_out), 5)
    for k in (1, 2, 5):
        # Every choice of k of the five samples, of every prompt.
        shares = [
            np.mean([bool(row[list(some)].any()) for some in itertools.combinations(range(5), k)]) for row in right
        ]
        assert found[f"pass@{k}"] == pytest.approx(np.mean(shares), abs=1e-12)
    assert 0 < found["pass@1"] < found["pass@2"] < found["pass@5"] < 1 or found["pass@5"] == 1


def test_every_evaluation_has_draws_of_its_own_and_none_is_a_training_samples():
    trainer = a_trainer(*ON)
    for step in (0, 1, 7, None):
        trainer.evaluate(step)
    drawn = [set(asked["row_seeds"].tolist()) for _, asked, _ in trainer.engine.calls]
    slots = np.arange(len(trainer.task.held_out))
    training = set(seeds.row_seeds(0, 0, "main", slots, 3).tolist()) | set(
        seeds.row_seeds(0, 0, "tempered", slots, 3).tolist()
    )
    assert all(len(one) == 3 * len(slots) for one in drawn)
    assert sum(map(len, [*drawn, training])) == len(set().union(*drawn, training))
    # The figures of the end are those that runs have had before evaluations went on beside them.
    assert drawn[-1] == set(seeds.row_seeds(0, 0, "evaluation", slots, 3).tolist())


def test_without_samples_or_prompts_there_is_nothing_to_say():
    trainer = a_trainer("evaluation.samples=0")
    assert trainer.evaluate(None) == {}
    task = dataclasses.replace(even_task(), held_out=())
    assert held_out_passes(trainer.engine, task, EvaluationSettings(samples=1, ks=(1,)), seed=0, step=0) == {}
    assert not hasattr(trainer.engine, "calls")


@pytest.mark.parametrize("every", [0, 1, 3, 7])
def test_an_evaluation_is_due_every_so_many_steps_from_the_first(every):
    due = [step for step in range(20) if EvaluationSettings(every=every).due(step)]
    assert due == (list(range(0, 20, every)) if every else [])


# How long it may be.


@given(
    st.integers(0, 300), st.integers(1, 64), st.sets(st.integers(1, 16), min_size=1), st.integers(1, 10**5),
    st.floats(0.01, 10),
)  # fmt: skip
def test_the_evaluation_at_the_end_is_no_longer_than_its_share_and_whole_where_it_fits(prompts, n, ks, trained, share):
    ks = {min(k, n) for k in ks}
    chosen = EvaluationSettings(samples=n, ks=tuple(ks), most_share=share)
    count, samples = chosen.at_the_end(prompts=prompts, trained=trained)
    if prompts * n <= share * trained:
        assert (count, samples) == (prompts, n)
        return
    # One prompt with the samples that pass@k needs is left even where that is more.
    assert count * samples <= share * trained or (count, samples) == (1, max(ks))
    assert 1 <= count <= prompts and max(ks) <= samples <= n
    # And no more is left out than that: another prompt, or another sample of each, would be too many.
    assert (count + 1) * samples > share * trained or count == prompts
    assert count < prompts or count * (samples + 1) > share * trained
    for asked in (EvaluationSettings(samples=n, ks=tuple(ks), most_share=None), chosen.model_copy(update={"every": 3})):
        assert asked.at_the_end(prompts=prompts, trained=trained) == (prompts, n)


def test_an_evaluation_that_is_cut_says_so_and_samples_no_more():
    # Two steps of 8 x 4 responses, and the walk task holds out 56 prompts: 56 x 3 = 168 > 64 = 21 x 3.
    trainer = a_trainer(*ON, "train.steps=2")
    assert "would sample 168 responses (3 to each of 56 held-out prompts), the training 64: cut to 2 to each of 32" in (
        shorter_evaluation(trainer.settings, len(trainer.task.held_out))
    )
    trainer.evaluate(None)
    trainer.evaluate(1)
    (last, _, sampled), (during, *_) = trainer.engine.calls
    assert (len(last), len(sampled.token), len(during)) == (32, 64, 56)
    assert shorter_evaluation(load(None, [*BASE, *ON, "train.steps=2", "evaluation.most_share=null"]), 56) is None


# What is refused.


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["evaluation.every=-1"], "evaluation.every: .*greater than or equal to 0, got -1"),
        (["evaluation.every=1.5"], "evaluation.every: .*valid integer.*got 1.5"),
        (["evaluation.every=null"], "evaluation.every: .*got None"),
        (
            ["evaluation.every=5", "evaluation.samples=0"],
            "evaluation: every=5 needs samples of at least 1, got samples=0",
        ),
        (
            ["evaluation.every=5", "data.train=questions.jsonl", "data.held_out_problems=0"],
            r"evaluation\.every=5 needs prompts to evaluate on, got data\.held_out_problems=0",
        ),
        (["checkpoint.best_by=pass@1"], "checkpoint.best_by: .*'reward' or 'held_out', got 'pass@1'"),
        (
            ["checkpoint.best_by=held_out"],
            r"best_by=held_out needs checkpoint\.every=100 to be a multiple of evaluation\.every, got 0, which "
            "evaluates at the end only",
        ),
        (["checkpoint.best_by=held_out", "evaluation.every=30"], r"checkpoint\.every=100 to be a multiple .* got 30$"),
        (
            ["checkpoint.best_by=held_out", "evaluation.every=50", "evaluation.ks=[4]"],
            r"goes by pass@1 and needs 1 in evaluation\.ks, got \(4,\)",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused_by_name_with_code_2_before_anything_is_read(typed, told, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["--config=demo_cpu", f"--out={out}", *(f"--{one}" for one in typed)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and not out.exists()
    with pytest.raises(SettingsError, match=told):
        load("demo_cpu", typed)


def test_what_can_be_evaluated_is_taken():
    chosen = ["evaluation.every=50", "checkpoint.best_by=held_out", "checkpoint.every=100", "checkpoint.keep_best=1"]
    assert isinstance(load("demo_cpu", chosen), Settings)
    assert (
        load("demo_cpu", ["evaluation.every=0", "data.held_out_problems=0", "data.train=x.jsonl"]).evaluation.every == 0
    )


# The real command.


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_real_runs_with_and_without_evaluations_and_resumed_are_the_same_to_the_bit(tmp_path, ranks):
    chosen = ("--controller.sees=previous",)
    on = (*chosen, "--evaluation.every=1")
    plain = trained(tmp_path / "plain", "--train.steps=4", *chosen, ranks=ranks)
    whole = trained(tmp_path / "whole", "--train.steps=4", *on, ranks=ranks)
    trained(tmp_path / "parts", "--train.steps=2", *on, ranks=ranks)
    parts = trained(tmp_path / "parts", "--train.steps=4", *on, "--resume", ranks=ranks)
    assert_learned(plain)
    assert without_times(plain) == without_evaluation(whole)
    assert without_times(whole) == without_times(parts)
    assert all(set(passed(row)) == {"held_out/pass@1", "held_out/pass@4"} for row in whole)
    assert all(0 < row["held_out/pass@1"] < row["held_out/pass@4"] for row in whole)
    first = weights(tmp_path / "plain")
    for other in (weights(tmp_path / "whole"), weights(tmp_path / "parts")):
        assert all(torch.equal(first[name], other[name]) for name in first)
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("plain", "whole", "parts")]
    assert summaries[0] == summaries[1] == summaries[2] and 0 < summaries[0]["pass@1"] < 1


@pytest.mark.slow
def test_two_ranks_measure_what_one_measures(tmp_path):
    on = ("--train.steps=2", "--evaluation.every=1")
    one, two = (trained(tmp_path / f"{ranks}", *on, ranks=ranks) for ranks in (1, 2))
    # Before the first update both have the same weights, and every prompt the same draws, whoever asks it.
    assert passed(one[0]) == passed(two[0]) != {}


# A verifier that errs in training.


class Repeating:
    """The engine that samples one response, whatever is asked."""

    def __init__(self, response: list[int]) -> None:
        self.response = response

    def sample(self, prompts, *, n, **asked):
        token = torch.tensor([self.response] * (len(prompts) * n))
        return Sampled(token=token, mask=torch.ones(token.shape), logp=torch.zeros(token.shape))


@pytest.mark.parametrize(("named", "move", "true"), [("false_positives", "+9", 0.0), ("false_negatives", "+2", 1.0)])
def test_training_has_the_verifiers_errors_and_evaluation_has_not(named, move, true):
    walk = walk_task()
    ids = walk.tokenizer.get_vocab()
    # Of eight places, where four moves of 2 are right.
    asked = [p for p, (start, goal) in enumerate(walk.pairs) if goal - start == 8]
    trainer = dataclasses.replace(
        a_trainer(*ON, f"reward.{named}=0.3"),
        task=dataclasses.replace(walk, held_out=asked),
        engine=Repeating([*[ids[move]] * 4, walk.tokenizer.eos_token_id]),
    )
    for step in (None, 0):
        assert trainer.evaluate(step) == {"pass@1": true, "pass@2": true}
    request = Request(branch="main", prompts=np.array(asked), temperature=1.0)
    (graded,) = trainer.rollouts(0, request)
    by_prompt = graded.rollouts.reward.view(len(asked), -1)
    # 22 prompts, each with one verdict for all of its equal responses; a run that goes on has the same.
    assert (by_prompt == by_prompt[:, :1]).all() and 0 < (by_prompt != true).float().mean() < 0.7
    assert (trainer.rollouts(7, request)[0].rollouts.reward == graded.rollouts.reward).all()
