"""The authors' entropy estimate: its value on a mixed batch, and the controller that sees it a step late."""

import pytest
import torch
from running import trained, weights, without_times

from aepo import zoo
from aepo.batch import Rollouts
from aepo.controller import Control
from aepo.llm.settings import SettingsError, load
from aepo.method import assemble


def scored(reward: list[float], old_logp: list[list[float]], mask: list[list[float]]) -> Rollouts:
    old_logp = torch.tensor(old_logp, dtype=torch.float64)
    return Rollouts(
        prompt=torch.zeros(len(reward), dtype=torch.long), token=torch.zeros_like(old_logp, dtype=torch.long),
        mask=torch.tensor(mask, dtype=torch.float64), reward=torch.tensor(reward, dtype=torch.float64), group_size=2,
        old_logp=old_logp, entropy=torch.full_like(old_logp, 9.0),
    )  # fmt: skip


MAIN = ([1.0, 0.0, 0.0, 1.0], [[-1.0, -2.0], [-3.0, 7.0], [-4.0, -5.0], [-6.0, 7.0]], [[1, 1], [1, 0], [1, 1], [1, 0]])
SECOND = ([1.0, 0.0], [[-10.0, -20.0, -30.0], [-100.0, 7.0, 7.0]], [[1, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("method", "tokens"),
    [
        # One kept sample takes the place of the first row; the wrong one takes no part.
        (zoo.build("aepo", normalizer="replace", average="token", select="advantage"), [3, 4, 5, 6, 10, 20, 30]),
        (zoo.build("aepo"), [1, 2, 3, 4, 5, 6, 10, 20, 30]),
        # Eq. 3 keeps wrong samples too.
        (zoo.build("aepo_eq3"), [1, 2, 3, 4, 5, 6, 10, 20, 30, 100]),
        (zoo.build("grpo"), [1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_estimate_is_the_mean_over_the_tokens_that_take_part(method, tokens):
    main, second = scored(*MAIN), None if method.tempered is None else scored(*SECOND)
    control = Control(temperature=torch.tensor(1.2), raise_entropy=torch.tensor(True))
    batch = assemble(method, control, main, second)
    assert batch.sampled_nll().item() == pytest.approx(sum(tokens) / len(tokens), rel=1e-12)


def test_runs_side_by_side_have_an_estimate_each():
    main, control = scored(*MAIN), Control(temperature=torch.ones(2), raise_entropy=torch.ones(2, dtype=torch.bool))
    names = ("prompt", "token", "mask", "reward", "entropy", "old_logp")
    both = main.replace(**{n: torch.stack([getattr(main, n), getattr(main, n)]) for n in names})
    both = both.replace(old_logp=both.old_logp * torch.tensor([1.0, 2.0])[:, None, None])
    estimate = assemble(zoo.build("grpo"), control, both).sampled_nll()
    assert estimate.tolist() == pytest.approx([3.5, 7.0])


def test_the_estimate_of_a_batch_cannot_be_seen_before_its_update():
    with pytest.raises(SettingsError, match="controller: estimator=sampled_nll needs sees=previous, got sees=current"):
        load(None, ["controller.estimator=sampled_nll"])


@pytest.mark.slow
def test_the_controller_follows_the_last_steps_estimate_and_resumes_bit_for_bit(tmp_path):
    # A target between the estimates that this run meets, so that the decisions go both ways.
    chosen = ("--controller.sees=previous", "--controller.estimator=sampled_nll", "--method.average=token")
    probe = [row["entropy_estimate"] for row in trained(tmp_path / "probe", "--train.steps=4", *chosen)]
    target = sum(sorted(probe[:3])[:2]) / 2
    whole = trained(tmp_path / "whole", "--train.steps=4", f"--target.value={target}", *chosen)
    trained(tmp_path / "parts", "--train.steps=2", f"--target.value={target}", *chosen)
    parts = trained(tmp_path / "parts", "--train.steps=4", f"--target.value={target}", *chosen, "--resume")
    assert without_times(whole) == without_times(parts)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole[0]["raise_entropy"] and whole[0]["temperature"] == 1.5
    estimates = [row["entropy_estimate"] for row in whole]
    assert [row["raise_entropy"] for row in whole[1:]] == [e < target for e in estimates[:-1]]
    assert len({row["raise_entropy"] for row in whole[1:]}) == 2
    # Sampled and exact agree on what they estimate, not to the digit.
    assert all(0 < abs(row["entropy_estimate"] - row["entropy"]) < 0.5 for row in whole)
