"""The small ladder: its start, its prompts, its verdicts by brute force, and its closed forms against samples."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from strategies import double

from aepo.schedule import Constant
from aepo.tabular.settings import Settings
from aepo.tabular.train import train
from aepo.tabular.worlds.ladder import EASY_SHARES, Ladder, ladder, start_shares
from aepo.tabular.worlds.world import prompts_of_step, tempered_log_probs
from aepo.zoo import build

SMALL = {"hops": 5, "length": 2, "trained": 12, "held_out": 8}
FEW = settings(max_examples=15)
run_seeds = st.integers(0, 10_000)
features = st.sampled_from([24, 32, None])
temperatures = st.sampled_from([0.1, 0.5, 1.0, 2.0])


def hop_shares(world: Ladder, run: int, instruction: int, temperature: float = 1.0) -> list[float]:
    """pi^T of an instruction's hops, by loops."""
    phi, w = world.features[run, instruction].tolist(), world.parameters[run].tolist()
    logits = [sum(f * row[a] for f, row in zip(phi, w, strict=True)) for a in range(len(w[0]))]
    powers = [math.exp((z - max(logits)) / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


def by_brute_force(world: Ladder, run: int, prompt: list[int], temperature: float = 1.0) -> dict[tuple, tuple]:
    """Response -> its probability, and whether it is right."""
    shares = [hop_shares(world, run, instruction, temperature) for instruction in prompt]
    right = [world.right[run, instruction].tolist() for instruction in prompt]
    return {
        response: (
            math.prod(share[hop] for share, hop in zip(shares, response, strict=True)),
            all(allowed[hop] for allowed, hop in zip(right, response, strict=True)),
        )
        for response in itertools.product(range(world.right.shape[-1]), repeat=len(prompt))
    }


def success_by_brute_force(world: Ladder, run: int, prompt: list[int], temperature: float = 1.0) -> float:
    return sum(p for p, right in by_brute_force(world, run, prompt, temperature).values() if right)


# -- the start --


@FEW
@given(run_seeds, features)
def test_every_instruction_starts_with_its_share_of_right_hops(seed, d):
    world = ladder([seed, seed + 1], features=d)
    probs = torch.softmax(world.table(world.parameters), -1)
    shares = start_shares()
    # Rounding of logits below 10, times the features' condition, some ten to thirty.
    precise = 1e-12
    assert (world.right.sum(-1) == 2).all()
    torch.testing.assert_close((probs * world.right).sum(-1), shares.expand(2, -1), rtol=0, atol=precise)
    # The two right hops share it evenly; of the others two have nearly all that is left, evenly.
    assert (probs.masked_fill(~world.right, 0).max(-1).values - shares / 2).abs().max() < precise
    misread = probs.masked_fill(world.right, 0).sort(-1, descending=True).values[..., :3]
    want = (1 - shares).unsqueeze(-1) * double([0.49, 0.49, 0.005])
    torch.testing.assert_close(misread, want.expand(2, -1, -1), rtol=0, atol=precise)


def test_the_shares_fall_from_easy_to_hard():
    shares = start_shares().tolist()
    assert tuple(shares[:8]) == EASY_SHARES
    assert (shares[8], shares[15]) == (pytest.approx(0.05, rel=1e-12), pytest.approx(1e-4, rel=1e-12))
    ratios = [after / before for before, after in itertools.pairwise(shares[8:])]
    assert ratios == pytest.approx([ratios[0]] * 7, rel=1e-9) and ratios[0] < 1


@FEW
@given(run_seeds, st.sampled_from([{}, SMALL, {"length": 1, "trained": 6, "held_out": 4}]))
def test_no_prompt_is_asked_twice_and_the_levels_have_their_shares(seed, sizes):
    world = ladder([seed], **sizes)
    seen, out = (list(map(tuple, prompts[0].tolist())) for prompts in (world.prompts, world.held_out))
    assert (len(seen), len(out)) == (sizes.get("trained", 1024), sizes.get("held_out", 256))
    assert len({*seen, *out}) == len(seen) + len(out)
    levels = [sum(i >= 8 for i in prompt) for prompt in out]
    assert world.levels[0].tolist() == levels
    if not sizes:
        assert [levels.count(level) for level in range(4)] == [64, 77, 64, 51]
        trained = [sum(i >= 8 for i in prompt) for prompt in seen]
        assert [trained.count(level) for level in range(4)] == [256, 307, 256, 205]


def test_a_seed_gives_its_world_whatever_seeds_stand_beside_it():
    alone, beside = ladder([7], **SMALL), ladder([3, 7], **SMALL)
    for name in ("parameters", "features", "right", "hard", "prompts", "held_out"):
        assert torch.equal(getattr(alone, name)[0], getattr(beside, name)[1]), name
    assert not torch.equal(beside.right[0], beside.right[1])
    assert not torch.equal(beside.prompts[0], beside.prompts[1])


# -- responses --


@FEW
@given(run_seeds, features, temperatures)
def test_enumerated_responses_have_their_probabilities_and_verdicts(seed, d, temperature):
    world = ladder([seed, seed + 1], features=d, **SMALL)
    prompts = torch.tensor([5, 0])
    rows = world.enumerate(world.table(world.parameters), prompts, temperature=double([temperature] * 2))
    assert rows.share is not None and rows.group_size == 25 and rows.full
    assert rows.share.view(2, 2, 25).sum(-1).flatten().tolist() == pytest.approx([1.0] * 4, abs=1e-12)
    for run, place in itertools.product(range(2), range(2)):
        part = slice(25 * place, 25 * place + 25)
        want = by_brute_force(world, run, world.prompts[run, prompts[place]].tolist(), temperature)
        responses = list(map(tuple, rows.token[run, part].tolist()))
        assert responses == list(want)
        assert rows.share[run, part].tolist() == pytest.approx([p for p, _ in want.values()], abs=1e-12)
        assert rows.reward[run, part].tolist() == [float(right) for _, right in want.values()]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_samples_follow_the_tempered_policy_and_no_other(temperature):
    world, n = ladder([5], **SMALL), 20_000
    # One prompt without and one with hard instructions.
    prompts = torch.tensor([0, 11])
    uniforms = torch.rand(1, 2 * 2 * n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    at = double([temperature])
    drawn = world.sample(tempered_log_probs(world.table(world.parameters), at).exp(), prompts, uniforms, n=n)
    assert drawn.prompt[0].tolist() == [0] * n + [11] * n
    for place, prompt in enumerate(prompts.tolist()):
        part = slice(n * place, n * place + n)
        code = drawn.token[0, part, 0] * 5 + drawn.token[0, part, 1]
        counts = torch.bincount(code, minlength=25)
        instructions = world.prompts[0, prompt].tolist()
        p_values = []
        for t in (temperature, 1.2 * temperature):
            want = by_brute_force(world, 0, instructions, t)
            shares = torch.tensor([p for p, _ in want.values()], dtype=torch.float64)
            # Responses that are expected less than five times are one class.
            often = n * shares >= 5
            seen = [*counts[often].tolist(), int(counts[~often].sum())]
            expected = [*(n * shares[often]).tolist(), n * float(shares[~often].sum())]
            if not expected[-1]:
                seen, expected = seen[:-1], expected[:-1]
            p_values.append(chisquare(seen, expected, sum_check=False).pvalue)
        assert p_values[0] > 1e-3 and p_values[1] < 1e-6
        right = [right for _, right in want.values()]
        assert drawn.reward[0, part].tolist() == [float(right[int(one)]) for one in code]


@FEW
@given(run_seeds, features)
def test_evaluation_is_a_loop_over_prompts_and_responses(seed, d):
    world = ladder([seed], features=d, **SMALL)
    seen, out, cold = (
        [success_by_brute_force(world, 0, prompt, t) for prompt in prompts[0].tolist()]
        for prompts, t in ((world.prompts, 1.0), (world.held_out, 1.0), (world.held_out, 0.1))
    )
    want = {
        "reward_train": sum(seen) / 12,
        "reward_held_out": sum(out) / 8,
        "cold_held_out": sum(cold) / 8,
    } | {f"pass@{k}": sum(1 - (1 - p) ** k for p in out) / 8 for k in (1, 4, 16, 64, 256)}
    got = {name: value.item() for name, value in world.evaluate(world.parameters).items()}
    assert got == pytest.approx(want, abs=1e-11)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_closed_form_of_success_is_what_samples_come_to(temperature):
    world, n = ladder([2], features=32), 4000
    # Halfway to a policy that has learnt: no prompt is certain, none is hopeless.
    taught = world.table(world.parameters) * 0.3 + 1.5 * world.right
    parameters = torch.linalg.pinv(world.features) @ taught
    prompts = torch.arange(0, 1024, 64)
    probs = tempered_log_probs(world.table(parameters), double([temperature])).exp()
    uniforms = torch.rand(1, 16 * n * 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = world.sample(probs, prompts, uniforms, n=n).reward.view(16, n).mean(-1)
    exact = world.success(parameters, world.prompts[:, prompts], temperature=temperature)[0]
    assert exact.min() < 0.5 < exact.max()
    # Five deviations of a share, and of one that is next to certain a few responses.
    assert ((found - exact).abs() < 5 * (exact * (1 - exact) / n).sqrt() + 5 / n).all()


def test_a_prompt_by_hand():
    # Two instructions of two hops each, 0.8/0.2 and 0.5/0.5; the first allows hop 0, the second hop 1: 0.8 x 0.5.
    world = Ladder(
        parameters=torch.tensor([[[0.8, 0.2], [0.5, 0.5]]]).double().log(),
        features=torch.eye(2).double()[None],
        right=torch.tensor([[[True, False], [False, True]]]),
        hard=torch.tensor([[False, True]]),
        prompts=torch.tensor([[[0, 1]]]),
        held_out=torch.tensor([[[1, 0], [1, 1], [0, 0]]]),
    )
    assert world.levels.tolist() == [[1, 2, 0]]
    evaluation = world.evaluate(world.parameters)
    assert evaluation["reward_train"].item() == pytest.approx(0.4, abs=1e-15)
    assert world.success(world.parameters, world.held_out)[0].tolist() == pytest.approx([0.4, 0.25, 0.64], abs=1e-15)
    # 1 - (1 - p)^4 of 0.4, 0.25, 0.64: 0.8704, 0.68359375, 0.98320384.
    assert evaluation["pass@4"].item() == pytest.approx((0.8704 + 0.68359375 + 0.98320384) / 3, abs=1e-14)
    # At T = 0.1 powers of ten: 0.8^10 / (0.8^10 + 0.2^10) = 1 / (1 + 4^-10) of the first.
    cold = 1 / (1 + 4**-10)
    assert evaluation["cold_held_out"].item() == pytest.approx((cold / 2 + 0.25 + cold**2) / 3, abs=1e-14)
    rows = world.enumerate(world.table(world.parameters), torch.tensor([0]), temperature=double([1.0]))
    assert rows.reward.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert rows.share is not None and rows.share[0].tolist() == pytest.approx([0.4, 0.4, 0.1, 0.1], abs=1e-15)


# -- training --


@pytest.mark.parametrize("exact", [False, True])
def test_only_the_instructions_that_were_asked_move_in_a_table(exact):
    world = ladder([4, 9], features=None, **SMALL)
    chosen = Settings(steps=1, exact=exact, group_size=64, states_per_step=2)
    after = train(world, build("reinforce"), Constant(0.5), [4, 9], chosen).parameters
    taken = prompts_of_step(0, training=12, count=2)
    for run in range(2):
        moved = (after[run] != world.parameters[run]).any(-1).nonzero().flatten().tolist()
        asked = set(world.prompts[run, taken].flatten().tolist())
        # With samples a hard instruction may have had no right hop.
        assert set(moved) <= asked and (not exact or set(moved) == asked)


def test_shared_features_move_the_other_instructions_along_their_cosine():
    world = ladder([4], features=32, **SMALL)
    chosen = Settings(steps=1, exact=True, states_per_step=1)
    after = train(world, build("reinforce"), Constant(0.5), [4], chosen).parameters
    moved = world.table(after) - world.table(world.parameters)
    alone = ladder([4], features=None, **SMALL)
    # The same start, hence the same gradient by the logits of the one prompt's instructions.
    start = alone.table(alone.parameters)
    assert torch.allclose(world.table(world.parameters), start, atol=1e-12)
    # The features are drawn last of a run's numbers: its prompts are those without them.
    assert torch.equal(world.prompts, alone.prompts)
    by_logits = train(alone, build("reinforce"), Constant(0.5), [4], chosen).parameters - start
    cosines = world.features[0] @ world.features[0].T
    torch.testing.assert_close(moved[0], cosines @ by_logits[0], rtol=0, atol=1e-12)


def test_an_exact_step_raises_the_reward_it_is_taken_on():
    world = ladder([1, 2], **SMALL)
    chosen = Settings(steps=1, lr=0.1, exact=True)
    after = train(world, build("reinforce"), Constant(0.5), [1, 2], chosen).parameters
    before = world.evaluate(world.parameters)["reward_train"]
    assert (world.evaluate(after)["reward_train"] > before).all()


def test_same_seed_same_bits():
    chosen = Settings(steps=5, group_size=8, lr=30.0, states_per_step=6)
    first, again = (train(ladder([3], **SMALL), build("aepo"), Constant(0.4), [3], chosen) for _ in range(2))
    assert torch.equal(first.parameters, again.parameters) and torch.equal(first.entropy, again.entropy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": 15}, "features must be at least 16, one for each instruction, got 15"),
        ({"hops": 4}, "hops must be at least 5, got 4"),
        ({"length": 0}, r"length must be in \[1, 4\], got 0"),
        ({"trained": 0}, "trained must be at least 1, got 0"),
        ({"length": 1}, "ask for 581 prompts of level 0, of which there are 8"),
    ],
)
def test_impossible_ladders_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ladder([0], **changes)
