"""Nucleus sampling against its definition, and what the embedded engine says of samples from it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_models import tiny

from aepo.llm import seeds
from aepo.llm.engines.embedded import EmbeddedEngine, nucleus
from aepo.llm.settings import SettingsError, load


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.floats(0.01, 1.0))
def test_the_nucleus_is_the_fewest_most_probable_tokens_that_hold_the_mass(weights, top_p):
    probability = [w / sum(weights) for w in weights]
    log_probs = torch.tensor([probability], dtype=torch.float64).log()
    kept, mass = [], 0.0
    for token in sorted(range(len(weights)), key=lambda t: (-weights[t], t)):
        if kept and mass >= top_p - 1e-12:
            break
        kept.append(token)
        mass += probability[token]
    found = nucleus(log_probs, top_p).exp()[0]
    inside = set(found.nonzero().flatten().tolist())
    # At a boundary of exactly top_p rounding decides about one token.
    if abs(mass - probability[kept[-1]] - top_p) > 1e-9 and abs(mass - top_p) > 1e-9:
        assert inside == set(kept)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    total = sum(probability[t] for t in inside)
    for token in inside:
        assert found[token] == pytest.approx(probability[token] / total, rel=1e-9)


def test_the_whole_mass_keeps_every_token():
    log_probs = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    torch.testing.assert_close(nucleus(log_probs, 1.0), log_probs)


def test_samples_have_the_frequencies_of_the_tempered_nucleus_and_its_log_probs():
    model, count, top_p, temperature = tiny(), 4000, 0.8, 1.3
    engine = EmbeddedEngine(model=model, end_ids=[1], pad_id=0, max_tokens=3, rows_at_once=5000)
    rows = seeds.row_seeds(0, 0, "main", np.arange(1), count)
    said = engine.sample([[2, 3, 4]], n=count, temperature=temperature, row_seeds=rows, top_p=top_p)
    with torch.no_grad():
        logits = model(torch.tensor([[2, 3, 4]])).logits[0, -1].double() / temperature
    probability = logits.softmax(-1)
    order = probability.argsort(descending=True)
    size = int((probability[order].cumsum(-1) < top_p).sum()) + 1
    assert 1 < size < 12
    inside = order[:size]
    want = probability[inside] / probability[inside].sum()
    found = torch.bincount(said.token[:, 0], minlength=12).double()
    assert found[inside].sum() == count
    assert chisquare(found[inside].numpy(), (want * count).numpy()).pvalue > 1e-3
    for row in range(0, 40):
        place = (inside == said.token[row, 0]).nonzero().item()
        assert float(said.logp[row, 0]) == pytest.approx(float(want[place].log()), abs=1e-4)


def test_the_whole_mass_is_what_no_nucleus_gives():
    engine = EmbeddedEngine(model=tiny(), end_ids=[1], pad_id=0, max_tokens=3)
    rows = seeds.row_seeds(0, 0, "main", np.arange(2), 50)
    plain = engine.sample([[2], [3]], n=50, temperature=0.9, row_seeds=rows)
    whole = engine.sample([[2], [3]], n=50, temperature=0.9, row_seeds=rows, top_p=1.0)
    assert torch.equal(plain.token, whole.token) and torch.equal(plain.logp, whole.logp)
    with pytest.raises(ValueError, match=r"top_p must be in \(0, 1\], got 0"):
        engine.sample([[2]], n=1, temperature=1.0, row_seeds=rows[:1], top_p=0.0)


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (["rollout.top_p=0.99", "rollout.engine=vllm"], "top_p=0.99 needs correction='none', got 'auto'"),
        (["rollout.top_p=0.99", "rollout.correction=truncated"], "top_p=0.99 needs correction='none', got 'truncated'"),
        (["rollout.tensor_parallel=2"], "tensor_parallel=2 needs engine='vllm', got 'embedded'"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(typed, named):
    with pytest.raises(SettingsError) as refused:
        load(None, typed)
    assert named in str(refused.value)
    assert load(None, ["rollout.top_p=0.99", "rollout.correction=none"]).rollout.top_p == 0.99
