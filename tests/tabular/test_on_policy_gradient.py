"""The simulator's closed-form gradient of an on-policy step is the autograd of the shared loss, for every method."""

import pytest
import torch

from aepo import zoo
from aepo.categorical import mean_effect
from aepo.controller import Loop
from aepo.method import assemble
from aepo.tabular.train import Policy, gradient, on_policy_gradient
from aepo.tabular.worlds.contextual import contextual
from aepo.tabular.worlds.ladder import ladder
from aepo.tabular.worlds.sequences import sequences
from aepo.tabular.worlds.world import looked_up, prompts_of_step, tempered_log_probs

SEEDS = [3, 8]
WORLDS = {
    "contextual": lambda: contextual(SEEDS, states=12, held_out=4),
    "sequences": lambda: sequences(SEEDS, correct=128),
    "ladder": lambda: ladder(SEEDS, hops=5, length=2, trained=10, held_out=4),
    "ragged": lambda: sequences(SEEDS, correct=60, ends=True),
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("world_name", WORLDS)
@pytest.mark.parametrize("name", sorted(zoo.METHODS))
def test_the_closed_form_is_the_gradient_of_the_shared_loss(name, world_name, exact):
    world, method = WORLDS[world_name](), zoo.build(name)
    assert method.surrogate.plain_on_policy
    leaf = world.parameters.clone().requires_grad_()
    policy = Policy.of(leaf, world.table(leaf))
    table = policy.table.detach()
    prompts = prompts_of_step(0, training=world.training, count=world.training)
    generator = torch.Generator().manual_seed(1)

    def rollouts(temperature, count):
        chosen = prompts[:count]
        if exact:
            rows = world.enumerate(table, chosen, temperature=temperature)
        else:
            size = (len(SEEDS), len(chosen) * 8 * world.length)
            uniforms = torch.rand(size, generator=generator, dtype=torch.float64)
            rows = world.sample(tempered_log_probs(table, temperature).exp(), chosen, uniforms, n=8)
        logp, entropy = policy.stats(world.state(rows.prompt, rows.token), rows.token)
        return rows.replace(old_logp=logp.detach(), entropy=entropy.detach())

    main = rollouts(torch.ones(2, dtype=torch.float64), len(prompts))
    loop = Loop.start(method.controller, leaf.new_zeros(2))
    _, control = loop.decide(method.controller, entropy=main.mean_entropy(), target=0.9, sees="current")
    second = None
    if method.tempered is not None:
        second = rollouts(control.temperature, method.tempered.prompt_count(len(prompts)))
    if method.needs_logp_t:
        log_probs = tempered_log_probs(table, control.temperature)
        main = main.replace(logp_t=looked_up(log_probs, world.state(main.prompt, main.token), main.token))
    if method.needs_mean_effect:
        state = world.state(main.prompt, main.token)
        by_state = mean_effect(policy.log_probs.detach())
        main = main.replace(mean_effect=by_state.gather(1, state.flatten(1)).view(state.shape))
    batch = assemble(method, control, main, second)
    state = world.state(batch.prompt, batch.token)
    want = gradient(policy, state, batch, method)
    got = on_policy_gradient(Policy.of(leaf, world.table(leaf), graph=False), state, batch, method)
    assert want.abs().max() > 1e-4
    # Sums of at most a few thousand terms of size 1e-2: rounding of 1e-13.
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
