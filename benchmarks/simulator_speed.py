"""How many policy updates per second does the simulator make, against a NumPy loop and a torch loop over seeds?

One update is one step of GRPO on Env A: 64 states x 8 samples, a linear policy of 16 x 16. All three do the same work:
sample, grade, group advantages, clipped surrogate's gradient, one SGD step. One thread each.

    pytest benchmarks/simulator_speed.py --benchmark-json=benchmarks/results/simulator_speed.json
"""

import numpy as np
import pytest
import torch

from aepo import zoo
from aepo.controller import Loop
from aepo.tabular.memory import keep_freed_memory
from aepo.tabular.settings import Settings
from aepo.tabular.train import Noise, train_step
from aepo.tabular.worlds.contextual import Contextual, contextual

STATES, GROUP, LR = 64, 8, 3.0


def numpy_update(w: np.ndarray, phi: np.ndarray, accepted: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """One run's step in closed form: on-policy the clipped surrogate's gradient is the advantage times the score."""
    z = phi @ w
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    action = (uniforms[:, :, None] > p.cumsum(-1)[:, None, :]).sum(-1).clip(max=p.shape[-1] - 1)
    reward = np.take_along_axis(accepted, action, -1).astype(float)
    centred = reward - reward.mean(-1, keepdims=True)
    advantage = centred / (reward.std(-1, ddof=1, keepdims=True) + 1e-6)
    pushed = np.zeros_like(p)
    np.add.at(pushed, (np.arange(len(p))[:, None], action), advantage)
    score = (pushed - advantage.sum(-1, keepdims=True) * p) / (len(p) * GROUP)
    return w + LR * phi.T @ score


def torch_update(w: torch.Tensor, phi: torch.Tensor, accepted: torch.Tensor) -> torch.Tensor:
    """One run's step as one writes it first: logits, a categorical, autograd."""
    w = w.detach().requires_grad_()
    policy = torch.distributions.Categorical(logits=phi @ w)
    action = policy.sample((GROUP,))
    reward = accepted.gather(1, action.T).double()
    advantage = (reward - reward.mean(-1, keepdim=True)) / (reward.std(-1, keepdim=True) + 1e-6)
    logp = policy.log_prob(action).T
    ratio = (logp - logp.detach()).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
    (gradient,) = torch.autograd.grad(-surrogate.mean(), w)
    return (w - LR * gradient).detach()


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def world(runs: int, *, states: int = STATES, actions: int = 16) -> Contextual:
    """Env A's runs; few seeds repeated, since only their number matters here."""
    return contextual(range(min(runs, 8)), states=states, actions=actions).repeated(max(1, runs // 8))


def stepper(runs: int, method: str = "grpo", **sizes):
    """A function that makes one step of all runs, and how many updates that is."""
    keep_freed_memory()  # as `train` does
    w, built = world(runs, **sizes), zoo.build(method)
    settings = Settings(steps=1, group_size=GROUP, lr=LR)
    noise = Noise(list(range(8)) * max(1, runs // 8))
    state = {"parameters": w.parameters, "loop": Loop.start(built.controller, w.parameters.new_zeros(runs)), "step": 0}

    def step():
        state["parameters"], state["loop"], _ = train_step(
            state["parameters"],
            w,
            built,
            state["loop"],
            noise,
            step=state["step"],
            target=0.5,
            settings=settings,
        )
        state["step"] += 1

    return step


def report(benchmark, updates: int) -> None:
    """Updates per second from the median, beside the benchmark's own numbers."""
    benchmark.extra_info["updates_per_second"] = round(updates / benchmark.stats.stats.median)
    benchmark.extra_info["torch"] = torch.__version__
    print(f"\n{benchmark.name}: {benchmark.extra_info['updates_per_second']:,} updates per second and core")


def test_numpy_loop(benchmark):
    w = world(1)
    phi, accepted = w.features[0].numpy(), w.accepted[0].numpy()
    rng, state = np.random.default_rng(0), [w.parameters[0].numpy()]

    def step():
        state[0] = numpy_update(state[0], phi, accepted, rng.random((STATES, GROUP)))

    benchmark(step)
    report(benchmark, 1)


def test_torch_loop_over_seeds(benchmark):
    w = world(1)
    phi, accepted, state = w.features[0], w.accepted[0], [w.parameters[0]]

    def step():
        state[0] = torch_update(state[0], phi, accepted)

    benchmark(step)
    report(benchmark, 1)


@pytest.mark.parametrize("runs", [8, 32, 128, 512])
def test_simulator(benchmark, runs):
    benchmark.pedantic(stepper(runs), rounds=60, warmup_rounds=5)
    report(benchmark, runs)


@pytest.mark.parametrize("method", ["aepo", "aepo_adaptive", "reweighting", "pi_bonus"])
def test_simulator_methods(benchmark, method):
    benchmark.pedantic(stepper(128, method), rounds=60, warmup_rounds=5)
    report(benchmark, 128)


@pytest.mark.parametrize("sizes", [{"states": 16}, {"states": 256}, {"actions": 64}, {"actions": 256}], ids=str)
def test_simulator_sizes(benchmark, sizes):
    benchmark.pedantic(stepper(128, **sizes), rounds=20, warmup_rounds=3)
    report(benchmark, 128)


def test_the_three_make_the_same_step_in_expectation():
    """Not a timing: on equal samples the NumPy step and the simulator's agree to rounding."""
    w = world(1)
    settings = Settings(steps=1, group_size=GROUP, lr=LR)
    noise = Noise([0])
    built = zoo.build("grpo")
    after, _, _ = train_step(
        w.parameters,
        w,
        built,
        Loop.start(built.controller, w.parameters.new_zeros(1)),
        noise,
        step=0,
        target=0.5,
        settings=settings,
    )
    from aepo.tabular.worlds.world import prompts_of_step

    order = prompts_of_step(0, training=STATES, count=STATES)
    uniforms = noise("main", 0, STATES * GROUP)[0].view(STATES, GROUP).numpy()
    phi, accepted = w.features[0][order].numpy(), w.accepted[0][order].numpy()
    want = numpy_update(w.parameters[0].numpy(), phi, accepted, uniforms)
    np.testing.assert_allclose(after[0].numpy(), want, rtol=0, atol=1e-12)
