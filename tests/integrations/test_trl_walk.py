"""The walk task in TRL's trainer: a target is held that TRL's own GRPO falls past."""

import contextlib
import io

import pytest
import trl_world  # noqa: F401  It keeps trl from the network.
from running import WARM_STARTS
from trl_walk import trainer

from aepo.llm.settings import load

STEPS, LAST, TARGET, NEAR, COLLAPSED = 160, 40, 1.0, 0.1, 0.9
# Enough for GRPO to fall past the target within the steps, one optimizer step each.
LR = 2e-3


def entropy(method: str | None, **more) -> float:
    """The mean H of the last steps."""
    settings = load("demo_cpu", [f"warm_start.cache={WARM_STARTS.name}"])
    made = trainer(settings, method, steps=STEPS, prompts_per_step=64, learning_rate=LR, **more)
    with contextlib.redirect_stdout(io.StringIO()):
        made.train()
    found = [row["entropy"] for row in made.state.log_history if "entropy" in row]
    assert len(found) == STEPS
    return sum(found[-LAST:]) / LAST


@pytest.mark.slow
def test_a_target_is_held_that_trls_own_grpo_falls_past():
    assert entropy(None) < COLLAPSED
    assert entropy("aepo_adaptive", target=TARGET) == pytest.approx(TARGET, abs=NEAR)
