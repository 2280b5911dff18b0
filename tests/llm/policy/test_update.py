"""Optimizer steps: the learning rate of each, those left out for a gradient that is not finite, and what is refused."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import PROMPTS, batch, model

from aepo import zoo
from aepo.llm.policy import policy as policy_module
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import FATAL_SKIPS, update
from aepo.llm.settings import SettingsError, TrainSettings, load
from aepo.loss import policy_loss

METHOD = zoo.build("entropy_reg", coef=0.4)


def policy(settings: TrainSettings) -> Policy:
    wrapped = ResponseStats(model("qwen3"))
    stepper = TorchStepper(wrapped, torch.optim.AdamW(wrapped.parameters()), max_grad_norm=1.0)
    return Policy(
        stepper, PROMPTS, pad_id=0, token_budget=10**6, lr=settings.lr, warmup_steps=settings.warmup_steps,
        decay=settings.lr_decay,
    )  # fmt: skip


def rates(settings: TrainSettings) -> list[float]:
    chosen = policy(settings)
    found = []
    for chosen.updates in range(settings.steps * settings.minibatches + 2):
        found.append(chosen.learning_rate)
    return found


@pytest.mark.parametrize(
    ("schedule", "warmup", "want"),
    [
        # Six optimizer steps; the two after them stay at the end.
        ("constant", 0, [8, 8, 8, 8, 8, 8, 8, 8]),
        ("constant", 3, [2, 4, 6, 8, 8, 8, 8, 8]),
        ("linear", 1, [4, 8, 6.5, 5, 3.5, 2, 2, 2]),
        # 2 + 6 (1 + cos(pi k / 4)) / 2, k = 0 to 4
        ("cosine", 1, [4, 8, 5 + 3 * 2**-0.5 * 1, 5, 5 - 3 * 2**-0.5, 2, 2, 2]),
    ],
)
def test_the_rate_rises_to_lr_and_falls_to_its_share_at_the_last_step(schedule, warmup, want):
    settings = TrainSettings(
        steps=3, minibatches=2, lr=8.0, warmup_steps=warmup, lr_schedule=schedule, lr_final_share=0.25
    )
    assert rates(settings) == pytest.approx(want, rel=1e-12)


@given(
    steps=st.integers(2, 20),
    minibatches=st.integers(1, 3),
    share=st.floats(0, 1),
    schedule=st.sampled_from(["linear", "cosine"]),
    data=st.data(),
)
def test_every_schedule_peaks_once_and_ends_where_it_is_told(steps, minibatches, share, schedule, data):
    total = steps * minibatches
    warmup = data.draw(st.integers(0, total - 2))
    settings = TrainSettings(
        steps=steps, minibatches=minibatches, lr=0.5, warmup_steps=warmup, lr_schedule=schedule, lr_final_share=share
    )
    decay = settings.lr_decay
    shares = [float(decay(k)) for k in range(total - warmup)]
    assert shares[0] == 1 and shares[-1] == pytest.approx(share, abs=1e-12)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(shares))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offload_optimizer": True}, "offload_optimizer=true needs zero_stage 1, 2 or 3, got zero_stage=0"),
        ({"release_buffers": True, "zero_stage": 2}, "it needs zero_stage=3, got 2"),
        ({"dtype": "float16"}, "train.dtype: Input should be 'float32' or 'bfloat16'"),
        (
            {"lr_schedule": "cosine", "warmup_steps": 5, "steps": 3, "minibatches": 2},
            "below steps x minibatches - 1 = 5",
        ),
        ({"lr_final_share": 1.5}, "train.lr_final_share"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(SettingsError) as refused:
        load(None, [f"train.{name}={value}" for name, value in changes.items()])
    assert message in str(refused.value)


def broken(monkeypatch, when) -> None:
    """The loss is nan in the mini-batches, counted from 0 over all updates, for which `when` says so."""
    count = iter(range(1000))

    def loss_and_sums(*args, **kwargs):
        loss, sums = policy_loss(*args, **kwargs)
        return loss * (math.nan if when(next(count)) else 1.0), sums

    monkeypatch.setattr("aepo.llm.policy.update.policy_loss", loss_and_sums)


def snapshot(chosen: Policy) -> list[torch.Tensor]:
    state = chosen.stepper.optimizer.state
    moments = [v for p in chosen.stepper.module.parameters() for v in state[p].values()] if state else []
    return [t.detach().clone() for t in [*chosen.stepper.module.parameters(), *moments]]


def test_a_mini_batch_with_a_nan_changes_nothing_and_is_counted(monkeypatch, caplog):
    chosen = policy(TrainSettings(lr=1e-2, warmup_steps=4))
    first = update(chosen, batch(), METHOD, parts=2, step=6)
    assert (first.skipped, len(first.norms), chosen.updates) == (0, 2, 2)
    before = snapshot(chosen)
    broken(monkeypatch, lambda n: True)
    second = update(chosen, batch(), METHOD, parts=2, step=7)
    assert all(torch.equal(a, b) for a, b in zip(snapshot(chosen), before, strict=True))
    assert (second.skipped, second.norms, chosen.updates, chosen.skipped_in_a_row) == (2, [], 2, 2)
    assert second.sums["loss"] == second.sums["tokens"] == 0, "what was left out is in no mean"
    assert "step 7, mini-batch 2 of 2: the gradient's norm is nan, the loss is not finite on rank 0" in caplog.text
    assert all(p.grad is None for p in chosen.stepper.module.parameters())
    broken(monkeypatch, lambda n: False)
    third = update(chosen, batch(), METHOD, parts=2)
    assert (third.skipped, chosen.skipped_in_a_row, chosen.updates) == (0, 0, 4)
    # Two steps were taken before: the rates go on from there.
    assert third.lr == pytest.approx(1e-2 * 4 / 5)


def test_three_in_a_row_end_the_run_also_across_updates(monkeypatch):
    chosen = policy(TrainSettings(lr=1e-2))
    broken(monkeypatch, lambda n: n % 3 != 2)
    for _ in range(2):
        # Two left out and one taken: never three in a row.
        assert update(chosen, batch(), METHOD, parts=3).skipped == 2
    assert (chosen.updates, chosen.skipped_in_a_row) == (2, 0)
    broken(monkeypatch, lambda n: True)
    update(chosen, batch(), METHOD, parts=FATAL_SKIPS - 1, step=3)
    with pytest.raises(FloatingPointError, match=r"step 4, mini-batch 1 of 2: the gradient's norm is nan, the loss is"):
        update(chosen, batch(), METHOD, parts=2, step=4)


class MovesTheHead(torch.optim.Optimizer):
    """Every number of the head, and no other; a step that is left out moves nothing."""

    def __init__(self, head, parameters) -> None:
        super().__init__(parameters, {"lr": 1.0})
        self.head = head

    @torch.no_grad()
    def step(self) -> None:
        self.head += 1


@pytest.mark.parametrize("looked_at", [10**6, 200])
def test_the_share_of_weights_that_a_step_changed_is_counted_in_some_of_them(monkeypatch, looked_at):
    monkeypatch.setattr(policy_module, "LOOKED_AT", looked_at)
    wrapped = ResponseStats(model("qwen3"))
    head = wrapped.model.lm_head.weight
    stepper = TorchStepper(wrapped, MovesTheHead(head, wrapped.parameters()), max_grad_norm=1.0)
    chosen = Policy(stepper, PROMPTS, pad_id=0, token_budget=10**6, lr=1.0)
    total = sum(p.numel() for p in wrapped.model.parameters())
    looked = chosen.looked_at()
    apart = -(-total // looked_at)
    assert torch.equal(looked, torch.cat([p.detach().flatten() for p in wrapped.model.parameters()])[::apart])
    # Numbers of the head among those that are looked at: one more or less than its share.
    found = update(chosen, batch(), METHOD, parts=2).changed
    assert found == pytest.approx(head.numel() / total, abs=0 if apart == 1 else 1 / len(looked))
    assert 0 < found < 1
    broken = dataclasses.replace(batch(), weight=batch().weight * float("nan"))
    assert update(chosen, broken, METHOD, parts=1).changed == 0
