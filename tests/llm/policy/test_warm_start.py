"""Where the warm start computes: on this rank's device, whichever that is."""

import pytest
import torch

from aepo.llm.policy import warm_start
from aepo.llm.policy.model import from_scratch
from aepo.llm.questions.walk import walk_task
from aepo.llm.settings import load


def test_it_teaches_on_the_ranks_device_and_leaves_the_model_on_the_cpu(monkeypatch):
    settings, task = load("demo_cpu", ["warm_start.steps=2", "warm_start.rows=4"]), walk_task()
    model = from_scratch(settings, task)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert warm_start._teach(model, settings, task, None) > 0
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    # Another device that every machine has: all steps compute there, shapes alone, and the loss's value is asked last.
    steps = []
    monkeypatch.setattr(warm_start, "own_device", lambda: torch.device("meta"))
    monkeypatch.setattr(warm_start, "TOLD_EVERY", 1)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        warm_start._teach(from_scratch(settings, task), settings, task, lambda done, _: steps.append(done))
    assert steps == [1, 2]
