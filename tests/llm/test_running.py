"""What two runs that are equal up to rounding may differ by, and that nothing else passes for it."""

import pytest
import torch
from running import assert_trained_alike

LR = 4.5e-4


def model() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {"embedding": torch.randn(160, 64), "norm": torch.ones(64)}


def test_a_weight_whose_gradient_is_rounding_may_lie_apart():
    trained = model()
    trained["embedding"][15, 8] += 1.2e-5
    trained["norm"][3] -= LR / 2
    assert_trained_alike(trained, model(), LR)


@pytest.mark.parametrize(
    "changed",
    [
        {"norm": LR / 10},
        {"norm": 2e-5},
        {"embedding": 5e-6},
        {"embedding": -LR},
    ],
)
def test_a_part_that_is_trained_otherwise_is_seen(changed):
    trained = model()
    for name, by in changed.items():
        trained[name] += by
    with pytest.raises(AssertionError):
        assert_trained_alike(trained, model(), LR)


def test_one_weight_that_lies_many_steps_apart_and_other_names_are_seen():
    trained = model()
    trained["embedding"][0, 0] += 3 * LR
    with pytest.raises(AssertionError):
        assert_trained_alike(trained, model(), LR)
    with pytest.raises(AssertionError):
        assert_trained_alike({"norm": torch.ones(64)}, model(), LR)
