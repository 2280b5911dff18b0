"""Where the float32 weights behind bfloat16 ones start: everywhere that rounds to the weight, evenly."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import model

from aepo.llm.policy import masters
from aepo.llm.policy.masters import dithered, own_values, serves, start

# Any finite bfloat16, by its bits: both zeros, the smallest and the largest among them.
PATTERNS = st.integers(0, 0xFFFF).filter(lambda bits: (bits >> 7) & 0xFF != 0xFF)


def from_bits(bits: list[int]) -> torch.Tensor:
    return torch.tensor([b - 0x10000 if b >= 0x8000 else b for b in bits], dtype=torch.int16).view(torch.bfloat16)


def interval(weight: float) -> tuple[float, float]:
    """The numbers around a weight that are nearer to it than to its neighbours, by the neighbours' middles."""
    fraction, exponent = math.frexp(abs(weight))
    above = 2.0 ** (exponent - 8)
    below = above / 2 if fraction == 0.5 else above
    ends = (abs(weight) - below / 2, abs(weight) + above / 2)
    return ends if weight > 0 else (-ends[1], -ends[0])


@given(bits=st.lists(PATTERNS, min_size=1, max_size=50), seed=st.integers(0, 5))
def test_every_master_rounds_to_its_weight(bits, seed):
    weight = from_bits(bits)
    master = dithered(weight, seed=seed, name="w")
    assert master.dtype == torch.float32 and master.shape == weight.shape
    assert torch.equal(master.bfloat16().view(torch.int16), weight.view(torch.int16))
    assert (master[weight == 0] == 0).all()


@pytest.mark.parametrize("weight", [0.75, -0.75, 1.0, -1.0, 0.0078125, 1.9921875, 3e38, -0.02, 2.0**-120])
def test_masters_lie_evenly_between_the_middles_to_both_neighbours(weight):
    rounded = torch.full((40_000,), weight, dtype=torch.bfloat16)
    low, high = interval(float(rounded[0]))
    place = (dithered(rounded, seed=0, name="w").double() - low) / (high - low)
    assert 0 < place.min() < 0.001 and 0.999 < place.max() < 1
    # Of 20 bins of 2,000 each, whose counts have a standard deviation of 44.
    counts = torch.histc(place, bins=20, min=0, max=1)
    assert (counts - 2000).abs().max() < 5 * 44


def test_an_update_smaller_than_the_interval_is_seen_in_expectation_and_one_from_the_middle_is_not():
    weight = torch.full((200_000,), 0.75, dtype=torch.bfloat16)
    step = 2.0**-8
    update = 0.1 * step
    moved = (dithered(weight, seed=0, name="w") + update).bfloat16().double() - 0.75
    # 200,000 draws of a step with probability 0.1: five standard deviations are 0.0034 of a step.
    assert abs(float(moved.mean()) - update) < 0.0034 * step
    assert float((weight.float() + update).bfloat16().double().sub(0.75).abs().max()) == 0


def test_masters_are_a_function_of_seed_name_and_place(monkeypatch):
    weight = torch.randn(300, generator=torch.Generator().manual_seed(0)).bfloat16()
    one = dithered(weight, seed=0, name="a")
    assert torch.equal(one, dithered(weight.view(3, 100), seed=0, name="a").view(-1))
    monkeypatch.setattr(masters, "BLOCK", 7)
    assert torch.equal(one, dithered(weight, seed=0, name="a"))
    other = weight.clone()
    other[100:] = 1.0
    assert torch.equal(one[:100], dithered(other, seed=0, name="a")[:100])
    for different in (dithered(weight, seed=1, name="a"), dithered(weight, seed=0, name="b")):
        assert (one != different).float().mean() > 0.99
    assert torch.equal(weight, torch.randn(300, generator=torch.Generator().manual_seed(0)).bfloat16()), "left alone"


def around(weight: torch.Tensor, worn: int, lower: int) -> torch.Tensor:
    """Values that round to the weights, `worn` of which have these lower bits."""
    values = dithered(weight, seed=3, name="file")
    # None by chance.
    bits = values.view(torch.int32)
    bits[(bits & 0xFFFF == 0) | (bits & 0xFFFF == 0x8000)] += 1
    bits[:worn] = (weight[:worn].float().view(torch.int32)) + lower
    return values


def test_a_files_values_serve_unless_a_hundredth_lies_on_weights_or_on_ties():
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    # An even last digit, so that a tie above rounds to the weight.
    weight.view(torch.int16).bitwise_and_(~1)
    for lower in (0, 0x8000):
        assert serves(around(weight, 9, lower), weight)
        assert not serves(around(weight, 10, lower), weight)
    values = around(weight, 0, 0)
    assert serves(values, weight) and torch.equal(start(weight, seed=0, name="w", own=values), values)
    worn = start(weight, seed=0, name="w", own=around(weight, 500, 0x8000))
    assert torch.equal(worn, dithered(weight, seed=0, name="w"))
    assert not serves(values.half(), weight) and not serves(values[:10], weight)
    # Of another model.
    assert not serves(values + 1, weight)
    assert not serves(torch.zeros(5), torch.zeros(5, dtype=torch.bfloat16))


@pytest.mark.parametrize("shard", ["10GB", "5KB"])
def test_the_values_of_a_folder_are_found_by_name_whatever_files_they_are_in(tmp_path, shard):
    from transformers import AutoModelForCausalLM

    made = model("llama", torch.float32)
    made.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "5KB")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    own, truth = own_values(loaded), dict(made.named_parameters())
    assert set(truth) == {name for name, _ in loaded.named_parameters()}
    for name, weight in loaded.named_parameters():
        assert torch.equal(own(name), truth[name])
        if weight.dim() > 1:
            assert torch.equal(start(weight.detach(), seed=0, name=name, own=own(name)), truth[name])
    assert own("another") is None and own_values(made)("lm_head.weight") is None


def test_a_folder_of_bfloat16_has_no_values_to_offer(tmp_path):
    from transformers import AutoModelForCausalLM

    model("llama", torch.bfloat16).save_pretrained(tmp_path)
    own = own_values(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16))
    assert own("lm_head.weight") is None
