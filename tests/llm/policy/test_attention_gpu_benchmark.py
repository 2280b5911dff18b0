"""The benchmark of attention runs on a CPU, and its floors are those that are counted by hand."""

import json
from dataclasses import replace

import attention_gpu
import pytest
import torch

from aepo.batch import Rollouts
from aepo.llm.gpu_check import sizes

SMALL = replace(attention_gpu.TINY, tokens=200, longest=30)


def test_floors_by_hand():
    work = sizes.Work(
        prompts=[(1, 2)],
        rollouts=Rollouts(
            prompt=torch.tensor([0, 0]),
            token=torch.tensor([[3, 4, 5], [6, 0, 0]]),
            mask=torch.tensor([[1.0, 1, 1], [1, 0, 0]]),
            reward=torch.zeros(2),
            group_size=2,
        ),
    )
    net = sizes.random_model(SMALL, "meta")
    layers = sum(p.numel() for p in net.model.layers.parameters() if p.dim() == 2)
    head, pair = SMALL.vocabulary * SMALL.width, 4 * SMALL.layers * SMALL.width
    # Rows of 5 and 3 tokens, of which 4 are answers: 15 + 6 pairs of a token with what it sees.
    apart = attention_gpu.floor(work, net, shared=False)
    assert apart["products"] == 2 * (8 * layers + 4 * head)
    assert (apart["attention"], apart["attention of all pairs"]) == (21 * pair, 64 * pair)
    # The prompt once, 3 pairs; then the two tokens of the first answer that predict something, which see 3 and 4.
    once = attention_gpu.floor(work, net, shared=True)
    assert once["products"] == 2 * (4 * layers + 4 * head)
    assert once["attention"] == 10 * pair


@pytest.mark.parametrize("group", [1, 8])
def test_as_many_rows_as_the_micro_batch_holds(group):
    work = attention_gpu.drawn(SMALL, group=group)
    tokens = sum(len(work.prompts[p]) for p in work.rollouts.prompt.tolist()) + int(work.rollouts.mask.sum())
    assert SMALL.tokens / 2 < tokens <= SMALL.tokens
    assert len(work.rollouts.mask) == group * len(work.prompts)


def test_it_runs_at_a_tiny_size_and_ends_with_one_line_for_programs(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(attention_gpu, "TINY", SMALL)
    monkeypatch.setattr("sys.argv", ["x", "--tiny", "--rounds", "1", "--out", str(tmp_path / "found.json")])
    assert attention_gpu.main() == 0
    said = capsys.readouterr().out.splitlines()
    assert set(json.loads(said[-1])) == {"device", "goal", "packed gradient, times as fast as with a mask"}
    cases = json.loads((tmp_path / "found.json").read_text())["cases"]
    assert set(cases) == set(attention_gpu.WAYS)
    for case, found in cases.items():
        assert set(found["ways"]) == {way.name for way in attention_gpu.WAYS[case]}
        ran = [one for one in found["ways"].values() if "left out" not in one]
        assert len(ran) >= 4 and all(one["score s"] > 0 and one["gradient s"] > 0 for one in ran)
