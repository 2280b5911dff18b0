"""What scoring many rows costs beside the model: the results are written where they belong, pass after pass."""

import torch
from tiny_models import PROMPTS, ROLLOUTS, model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.scorer import Scorer


class Whole(TorchDispatchMode):
    """Counts the results of operations that have a shape and storage of their own."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.storages = shape, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.shape == self.shape:
            storage = out.untyped_storage()
            self.storages[storage.data_ptr()] = storage
        return out


def test_more_passes_make_no_more_copies_of_all_rows():
    module = ResponseStats(model("qwen3"))
    made, found = [], []
    for token_budget in (10_000, 1):
        scorer = Scorer(module, PROMPTS, pad_id=0, token_budget=token_budget)
        # Beyond the longest response, so that no pass has this shape.
        wide = ROLLOUTS.replace(
            token=torch.nn.functional.pad(ROLLOUTS.token, (0, 30)), mask=torch.nn.functional.pad(ROLLOUTS.mask, (0, 30))
        )
        assert (len(scorer.plan(wide.prompt, wide.mask, world=1).micros[0]) > 5) == (token_budget == 1)
        with Whole(wide.token.shape) as seen:
            found.append(scorer.score(wide, effects=True))
        made.append(len(seen.storages))
    assert 0 < made[1] <= made[0]
    for name in ("old_logp", "entropy", "mean_effect"):
        torch.testing.assert_close(getattr(found[0], name), getattr(found[1], name))
        assert not (getattr(found[1], name) * (1 - wide.mask)).any()
