"""One quantity, three ways: the closed form's competitors, from the shared loss and from steps of the simulator.

Letters: n instances, K actions. The loss is the one that the LLM trainer minimises, on rows that `assemble` weighs; the
step is the tabular trainer's. Both see every action with its probability, an exact expectation.
"""

import numpy as np
import torch
from strategies import EPS, assert_every
from torch import Tensor

from aepo import categorical, zoo
from aepo.batch import Rollouts
from aepo.controller import Control
from aepo.loss import ScoreFunction, policy_loss
from aepo.method import Method, Tempered, assemble
from aepo.tabular.train import score, update
from aepo.tabular.worlds.bandit import Bandit
from aepo.theory import mean_logit, tempered

PAPER = zoo.build("reinforce_tempered")
"""Eq. 4: the tempered term alone, averaged over all samples."""
NORMALISED = Method(
    name="normalised", advantage=None, tempered=Tempered(normalizer="positives", prompt_fraction=1.0),
    surrogate=ScoreFunction(),
)  # fmt: skip
"""The same, averaged over the correct samples."""

RELATIVE_TO_AUTOGRAD = 1e-8
RELATIVE_TO_STEPS = 1e-5
H = 2.0**-8
"""How far the simulator's steps go, as the size of the logits' change."""


def every_action(z: Tensor, reward: Tensor, temperature: Tensor) -> Rollouts:
    """All actions of each state, (n, K, 1), with their probabilities pi^T, scored at T = 1."""
    n, actions = z.shape
    token = torch.arange(actions).expand(n, actions).unsqueeze(-1)
    logp, h = categorical.token_stats(z.detach().unsqueeze(1).unsqueeze(1).expand(n, actions, 1, actions), token)
    return Rollouts(
        prompt=torch.zeros(n, actions, dtype=torch.int64),
        token=token,
        mask=torch.ones(n, actions, 1, dtype=z.dtype),
        reward=reward.to(z.dtype),
        group_size=actions,
        share=categorical.log_softmax(z.detach(), temperature).exp(),
        old_logp=logp,
        entropy=h,
    )


def ascent(method: Method, z: Tensor, reward: Tensor, temperature: Tensor) -> Tensor:
    """(n, K): minus the gradient of the method's loss by the logits; differentiable by the temperature."""
    leaf = z.detach().requires_grad_()
    n, actions = z.shape
    control = Control(temperature=temperature, raise_entropy=torch.ones(n, dtype=torch.bool))
    second = every_action(z, reward, temperature) if method.tempered else None
    batch = assemble(method, control, every_action(z, reward, torch.ones(n, dtype=z.dtype)), second)
    rows = batch.token.shape[-2]
    logp, h = categorical.token_stats(leaf.unsqueeze(1).unsqueeze(1).expand(n, rows, 1, actions), batch.token)
    loss, _ = policy_loss(logp, method.bonus(logp, h), batch, method.surrogate)
    return -torch.autograd.grad(loss.sum(), leaf, create_graph=temperature.requires_grad)[0]


def direction(batch, reward=None, *, temperature=None, method: Method = PAPER) -> np.ndarray:
    """(n, K): the shared loss's direction, as an array."""
    t = batch.temperature if temperature is None else temperature
    return ascent(method, *_tensors(batch, reward, t)).numpy()


def entropy_gradient(logits: np.ndarray) -> np.ndarray:
    """(n, K): autograd of the shared core's entropy by the logits."""
    leaf = torch.tensor(logits).requires_grad_()
    return torch.autograd.grad(categorical.entropy(leaf).sum(), leaf)[0].numpy()


def drift_by_autograd(batch, reward=None, *, temperature=None, method: Method = PAPER) -> np.ndarray:
    """(n,): the entropy's gradient times the loss's direction, at lr = 1."""
    return (entropy_gradient(batch.logits) * direction(batch, reward, temperature=temperature, method=method)).sum(-1)


def slope_by_autograd(batch, reward=None, *, temperature=None, method: Method = PAPER) -> np.ndarray:
    """(n,): the derivative of `drift_by_autograd` by the temperature, through the rows' probabilities."""
    t = batch.temperature if temperature is None else temperature
    z, r, leaf = _tensors(batch, reward, t)
    leaf.requires_grad_()
    drift = (torch.tensor(entropy_gradient(batch.logits)) * ascent(method, z, r, leaf)).sum()
    return torch.autograd.grad(drift, leaf)[0].numpy()


def drift_by_steps(batch, reward=None, *, temperature=None, method: Method = PAPER, size=None) -> np.ndarray:
    """(n,): how the exact entropy changes along the simulator's update, at lr = 1, by differences of fourth order.

    Args:
        batch: the instances.
        reward: (n, K) in place of A*.
        temperature: (n,) in place of the batch's.
        method: whose update.
        size: (n,), the size of the update's direction, which the steps are scaled by; pi^T(A*) if not given.
    """
    t = batch.temperature if temperature is None else temperature
    z, r, t = _tensors(batch, reward, t)
    world = Bandit(logits=z.unsqueeze(1), correct=(r > 0).unsqueeze(1))
    at_one = torch.ones(len(z), dtype=z.dtype)
    main, second = (
        score(world.logits, world.enumerate(world.logits, world.prompts, temperature=heat).replace(reward=r))
        for heat in (at_one, t)
    )
    control = Control(temperature=t, raise_entropy=at_one > 0)
    rows = assemble(method, control, main, second)
    size = pushed(batch, reward, temperature=temperature) if size is None else size

    def change(steps: float) -> np.ndarray:
        lr = torch.tensor(steps * H / size)
        up, down = (update(world.logits, rows, method, lr=sign * lr) for sign in (1, -1))
        return (categorical.entropy(up) - categorical.entropy(down)).squeeze(1).numpy()

    return size * (8 * change(1) - change(2)) / (12 * H)


def slope_by_steps(batch, reward=None, *, temperature=None, method: Method = PAPER) -> tuple[np.ndarray, np.ndarray]:
    """(n,) twice: the derivative of `drift_by_steps` by the temperature, and the most that it can be off by.

    The differences are of fourth order. With steps twice as long they are off by 16 times as much, so that what lies
    between the two is 15 times the truncation.
    """
    t = batch.temperature if temperature is None else temperature
    size = pushed(batch, reward, temperature=t)

    def change(steps: int) -> np.ndarray:
        up, down = (
            drift_by_steps(batch, reward, temperature=t + sign * steps * HEAT, method=method, size=size)
            for sign in (1, -1)
        )
        return up - down

    once, twice, four_times = (change(steps) for steps in (1, 2, 4))
    fine, coarse = (8 * once - twice) / (12 * HEAT), (8 * twice - four_times) / (24 * HEAT)
    return fine, np.abs(fine - coarse) + 3 * steps_rounding(batch, reward, temperature=t) / HEAT


HEAT = 2.0**-8
"""How far the temperature moves for `slope_by_steps`."""


# -- how closely the three can agree --


def rounding(batch, weight: np.ndarray, *, temperature=1.0) -> np.ndarray:
    """(n,): the most that float64 can be off by in sum_a weight_a (d_a - C), to first order.

    Logits as large as A are known to A EPS and A EPS / T, so probabilities to u = (A (1 + 1/T) + K + 4) EPS of
    themselves; then z_a - m is off by less than u (1 + 2 A), d_a by that and |z_a - m| u, both times pi_a. The
    competitors round as often, on another path.
    """
    z, pi = batch.logits, tempered(batch.logits)
    largest = np.abs(z).max(-1)
    u = EPS * (largest * (1 + 1 / np.asarray(temperature)) + z.shape[-1] + 4)
    return 2 * u * (1 + 4 * largest) * (np.abs(weight) * (pi + (pi**2).sum(-1, keepdims=True))).sum(-1)


def drift_rounding(batch, reward=None, *, temperature=None) -> np.ndarray:
    """(n,): of Delta H at lr = 1."""
    t = batch.temperature if temperature is None else np.asarray(temperature)
    r = batch.correct if reward is None else reward
    return rounding(batch, tempered(batch.logits, t) * r, temperature=t)


def slope_rounding(batch, reward=None, *, temperature=None) -> np.ndarray:
    """(n,): of its derivative by the temperature, whose weights are pi^T_a (z_a - E_{pi^T} z) / T^2."""
    t = batch.temperature if temperature is None else np.asarray(temperature)
    r = batch.correct if reward is None else reward
    far = np.abs(batch.logits - mean_logit(batch.logits, t)[:, np.newaxis])
    return rounding(batch, tempered(batch.logits, t) * r * (1 + far), temperature=t) / t**2


def steps_rounding(batch, reward=None, *, temperature=None) -> np.ndarray:
    """(n,): of `drift_by_steps`: entropies and moved logits are known to their last places, over H."""
    z = batch.logits
    last = EPS * (1 + np.log(z.shape[-1]) + np.abs(z).max(-1))
    return 2 * pushed(batch, reward, temperature=temperature) * last / H


def steps_error(batch, reward=None, *, temperature=None) -> np.ndarray:
    """(n,): the most that `drift_by_steps` can be off by.

    What is left out is H^4 / 30 times the entropy's fifth derivative along a direction of length 1 (sum |v_a| <= 2),
    a mixed cumulant of numbers in [-1, 1] that stays below 20.
    """
    truncation = 20 * H**4 / 30 * pushed(batch, reward, temperature=temperature)
    return truncation + steps_rounding(batch, reward, temperature=temperature)


def assert_agree(batch, got: np.ndarray, want: np.ndarray, *, relative: float, floor: np.ndarray) -> int:
    """got = want up to `relative`, or up to `floor` where cancellation leaves less; how often `relative` decides."""
    assert_every(np.abs(got - want) <= relative * np.abs(want) + floor, batch, got=got, want=want, floor=floor)
    return int((floor <= relative * np.abs(want)).sum())


def pushed(batch, reward=None, *, temperature=None) -> np.ndarray:
    """(n,): the mean reward of a tempered sample, the size of Eq. 4's direction."""
    t = batch.temperature if temperature is None else temperature
    return (tempered(batch.logits, t) * (batch.correct if reward is None else reward)).sum(-1)


def _tensors(batch, reward, temperature) -> tuple[Tensor, Tensor, Tensor]:
    r = batch.correct if reward is None else reward
    t = np.broadcast_to(np.asarray(temperature, dtype=np.float64), len(batch.logits)).copy()
    return torch.tensor(batch.logits), torch.tensor(np.asarray(r, dtype=np.float64)), torch.tensor(t)
