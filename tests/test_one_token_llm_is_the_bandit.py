"""The crown test: an LLM whose responses have one token *is* the bandit, and one with more is the tabular chain.

The trainer's own scoring, assembly, micro-batches and optimizer step run on a causal LM whose next-token logits are a
table; the simulator's run on the table. From the same samples both must reach the same table, to 1e-10 in float64.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from aepo import zoo
from aepo.batch import Rollouts
from aepo.controller import Loop
from aepo.llm.policy.policy import Policy
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.policy.stepper import TorchStepper
from aepo.llm.policy.update import update as llm_update
from aepo.method import assemble
from aepo.tabular import train as tabular

STATES, LR, GROUP, PROMPTS = 7, 0.7, 4, 6
TOLERANCE = 1e-10
OPTIONS = {
    "clip_b": [{"mu": 0.5}],
    "clip_v": [{"mu": 0.5, "share": 0.2}],
    "clip_cov": [{"low": -0.5, "ratio": 0.3}],
    "entropy_ratio_clip": [{"low": 0.95, "high": 1.05}],
    "kl_cov": [{"ratio": 0.05}, {"ratio": 0.9, "coef": 0.5}],
    "repo_r": [{"start": 0.5}],
    "reweighting": [{"scope": scope} for scope in ("group", "position", "batch", "sequence")],
    "siren": [{"coef": 5.0}],
    "stare": [{"variant": "C2"}],
    "aepo": [
        {"alpha": 3.0},
        {"alpha": 0.3, "normalizer": "positives", "average": "token"},
        {"normalizer": "replace", "cap_up": 3, "cap_down": 2},
        {"alpha": 3.0, "select": "advantage", "average": "token"},
    ],
    "aepo_eq2": [{"alpha": 3.0}],
    "aepo_eq3": [{"alpha": 3.0}, {"alpha": 0.4, "dual_clip": 3.0}],
    "entropy_reg": [{"coef": 0.4}, {"coef": 0.4, "coef_schedule": "linear"}],
    "entropy_reg_nll": [{"coef": 0.4, "average": "token"}],
}
# A target that the table's entropy is below, where it is above that of all others.
TARGETS = {"stare": 3.0}
CASES = [(name, options) for name in sorted(zoo.METHODS) for options in OPTIONS.get(name, [{}])]


class TableLM(nn.Module):
    """A causal LM in transformers' calling convention: the next token's logits are the current token's row.

    A token's hidden state is its unit vector, and the head's weight is the table.
    """

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.config = SimpleNamespace()
        self.head = nn.Linear(*table.shape, bias=False, dtype=table.dtype)
        self.head.weight.data = table.T.clone()

    @property
    def table(self) -> torch.Tensor:
        return self.head.weight.T

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def base_model(self, input_ids, attention_mask=None, position_ids=None):
        hidden = nn.functional.one_hot(input_ids, self.head.in_features).to(self.head.weight.dtype)
        return SimpleNamespace(last_hidden_state=hidden)

    def forward(self, input_ids):
        return SimpleNamespace(logits=self.head(self.base_model(input_ids).last_hidden_state))


def responses(tokens: int, prompts: int, seed: int) -> Rollouts:
    """Random graded responses of 1 to `tokens` tokens; one group all wrong, one all right."""
    generator = torch.Generator().manual_seed(seed)
    rows = prompts * GROUP
    length = torch.randint(1, tokens + 1, (rows,), generator=generator)
    reward = torch.randint(0, 2, (rows,), generator=generator).double()
    reward[:GROUP] = 0.0
    reward[GROUP : 2 * GROUP] = 1.0
    return Rollouts(
        prompt=torch.randint(0, STATES, (prompts,), generator=generator).repeat_interleave(GROUP),
        token=torch.randint(0, STATES, (rows, tokens), generator=generator),
        mask=(torch.arange(tokens) < length.unsqueeze(-1)).double(),
        reward=reward,
        group_size=GROUP,
    )


def one_run(rollouts: Rollouts) -> Rollouts:
    """The same rows as the only run of a simulation."""
    return Rollouts(
        prompt=rollouts.prompt[None],
        token=rollouts.token[None],
        mask=rollouts.mask[None],
        reward=rollouts.reward[None],
        group_size=rollouts.group_size,
    )


def both_steps(
    name: str, options: dict, *, tokens: int, token_budget: int, parts: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The table after the trainer's step, after the simulator's, and before both, from the same samples."""
    method = zoo.build(name, **options)
    table = torch.randn(STATES, STATES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    main = responses(tokens, PROMPTS, seed=2)
    second = responses(tokens, 3, seed=3) if method.tempered is not None else None

    stepper_model = ResponseStats(TableLM(table))
    stepper = TorchStepper(
        stepper_model, torch.optim.SGD(stepper_model.parameters(), lr=LR), max_grad_norm=float("inf")
    )
    policy = Policy(stepper, [(s,) for s in range(STATES)], pad_id=0, token_budget=token_budget, lr=LR)
    effects = method.needs_mean_effect
    scored, scored_second = policy.score(main, effects=effects), second and policy.score(second)
    entropy = scored.mean_entropy()
    loop, control = Loop.start(method.controller, torch.zeros((), dtype=torch.float64)).decide(
        method.controller, entropy=entropy, target=TARGETS.get(name, 1.2), sees="current"
    )
    if method.needs_logp_t:
        scored = policy.tempered_score(scored, float(control.temperature))
    llm_update(policy, assemble(method, control, scored, scored_second), method, parts=parts)

    rows, rows_second = tabular.score(table[None], one_run(main)), None
    if second is not None:
        rows_second = tabular.score(table[None], one_run(second))
    run_entropy = rows.mean_entropy()
    _, run_control = Loop.start(method.controller, torch.zeros(1, dtype=torch.float64)).decide(
        method.controller, entropy=run_entropy, target=TARGETS.get(name, 1.2), sees="current"
    )
    if method.needs_logp_t:
        rows = tabular.tempered_score(table[None], rows, run_control.temperature)
    if method.needs_mean_effect:
        rows = tabular.effect_score(table[None], rows)
    batch = assemble(method, run_control, rows, rows_second)
    expected = tabular.update(table[None], batch, method, lr=LR, parts=parts)[0]

    assert abs(float(entropy - run_entropy[0])) < TOLERANCE
    assert float(loop.previous_entropy) == float(entropy)
    return stepper_model.model.table, expected, table


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("token_budget", [5, 10**6])
@pytest.mark.parametrize("tokens", [1, 4])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_trainer_step_equals_simulator_step(name, options, tokens, token_budget, parts):
    got, expected, before = both_steps(name, options, tokens=tokens, token_budget=token_budget, parts=parts)
    assert (got - expected).abs().max() < TOLERANCE
    assert (expected - before).abs().max() > 1e-3, "the step must move the table, or the comparison is empty"
