"""The walk task in TRL's trainer: a target is held that TRL's own GRPO falls past."""

import contextlib
import io

import pytest
import trl_world  # noqa: F401  It keeps trl from the network.
from running import WARM_STARTS
from trl_walk import trainer

from aepo.llm.settings import load

STEPS, LAST, TARGET, NEAR, COLLAPSED = 160, 40, 1.0, 0.1, 0.9
# As the demo, whose 4.5e-4 is for 450 steps; each step is four mini-batches.
LR, MINIBATCHES = 6e-4, 4
# The demo's own, for AEPO.
OPTIONS = {"t_low": 0.67, "t_high": 1.5, "normalizer": "replace", "cap_up": 64, "cap_down": 32}


def entropy(method: str | None, **more) -> float:
    """The mean H of the last steps."""
    settings = load("demo_cpu", [f"warm_start.cache={WARM_STARTS.name}"])
    made = trainer(
        settings,
        method,
        steps=STEPS * MINIBATCHES,
        prompts_per_step=64,
        steps_per_generation=MINIBATCHES,
        learning_rate=LR,
        **more,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        made.train()
    # TRL's own is of every mini-batch, ours of a step.
    found = [row["entropy"] for row in made.state.log_history if "entropy" in row]
    last = found[-len(found) * LAST // STEPS :]
    return sum(last) / len(last)


@pytest.mark.slow
def test_a_target_is_held_that_trls_own_grpo_falls_past():
    assert entropy(None) < COLLAPSED
    assert entropy("aepo", target=TARGET, method_options=OPTIONS) == pytest.approx(TARGET, abs=NEAR)
