"""Every ZeRO stage in both dtypes, offloaded or not: the same training, written by hand in plain torch beside it.

Two real ranks over gloo; all cases of one test share a pair of processes.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import ROOT
from stepper_ranks import LR, MICROS, STEPS, TRAIN, model, objective

from aepo.llm.policy.masters import dithered
from aepo.llm.policy.response_stats import ResponseStats
from aepo.llm.processes.ports import free_port

STAGES = [
    {"zero_stage": 0},
    {"zero_stage": 1},
    {"zero_stage": 2},
    {"zero_stage": 3},
    {"zero_stage": 1, "offload_optimizer": True},
    {"zero_stage": 2, "offload_optimizer": True},
    {"zero_stage": 3, "offload_optimizer": True},
    {"zero_stage": 3, "release_buffers": True},
    {"zero_stage": 3, "gradient_checkpointing": True},
]
pytestmark = pytest.mark.slow


def two_ranks(out: Path, cases: list[dict], *, world: int = 2) -> list[dict]:
    """What the ranks found, which must be the same."""
    port = str(free_port())
    environment = os.environ | {
        "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore",
    }  # fmt: skip
    command = [sys.executable, str(Path(__file__).with_name("stepper_ranks.py")), str(out), json.dumps(cases)]
    both = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL, text=True,
        )
        for r in range(world)
    ]  # fmt: skip
    said = [running.communicate(timeout=600)[1] for running in both]
    assert [running.returncode for running in both] == [0] * world, said[0][-3000:] + said[-1][-3000:]
    first, second = (torch.load(f"{out}.{rank}.pt") for rank in (0, world - 1))
    for a, b in zip(first, second, strict=True):
        assert a["norms"] == b["norms"]
        assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"])
    return first


def by_hand(
    dtype: torch.dtype, kept: torch.dtype = torch.float32, shared: bool | None = None
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """One process with all rows: float32 weights and gradients beside those that compute, and AdamW on the former.

    `kept` is the dtype of the latter and their moments, where it is not to be float32.
    """
    wrapped = ResponseStats(model(dtype))
    master = {name: p.detach().to(kept, copy=True).requires_grad_() for name, p in wrapped.model.named_parameters()}
    optimizer = torch.optim.AdamW(master.values(), weight_decay=TRAIN["weight_decay"])
    norms = []
    for step in range(STEPS):
        total = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in master.items()}
        for rank in range(2):
            for micro in range(MICROS):
                objective(wrapped, rank, micro, step, shared).backward()
                for name, p in wrapped.model.named_parameters():
                    total[name] += p.grad.float()
                    p.grad = None
        norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in total.values())))
        optimizer.param_groups[0]["lr"] = LR * (step + 1) / STEPS
        for name, value in master.items():
            value.grad = (total[name] * min(1.0, TRAIN["max_grad_norm"] / norms[-1])).to(kept)
        optimizer.step()
        with torch.no_grad():
            for name, p in wrapped.model.named_parameters():
                p.copy_(master[name])
    return norms, {name: p.detach() for name, p in wrapped.model.named_parameters()}


def distance(a: dict, b: dict) -> float:
    return math.sqrt(sum(float((a[name].double() - b[name].double()).square().sum()) for name in a))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_stage_takes_the_steps_of_plain_torch(tmp_path, dtype):
    norms, weights = by_hand(getattr(torch, dtype))
    assert min(norms) < TRAIN["max_grad_norm"] < max(norms), "some steps are clipped and some are not"
    start = {name: p.detach() for name, p in model(getattr(torch, dtype)).named_parameters()}
    travelled = distance(start, weights)
    # In bfloat16 gradients round apart, and then some weights by a last digit, of which a step is only a few; what
    # forgets small steps is beyond.
    tolerance, of_norms = (1e-5, 1e-5) if dtype == "float32" else (0.06, 0.01)
    if dtype == "bfloat16":
        _, forgetful = by_hand(torch.bfloat16, torch.bfloat16)
        assert distance(forgetful, weights) > 1.5 * tolerance * travelled
    for case, found in zip(
        STAGES, two_ranks(tmp_path / "x", [{"dtype": dtype, **case} for case in STAGES]), strict=True
    ):
        assert all(value.dtype == getattr(torch, dtype) for value in found["weights"].values())
        assert found["norms"] == pytest.approx(norms, rel=of_norms), case
        assert distance(found["weights"], weights) <= tolerance * travelled, case
        if dtype == "float32":
            for name, value in weights.items():
                torch.testing.assert_close(found["weights"][name], value, rtol=0, atol=1e-5)
        assert found["released"] == [0] * STEPS * case.get("release_buffers", False)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.exhaustive), "bfloat16"])
def test_a_gradient_that_is_not_finite_on_one_rank_leaves_no_trace(tmp_path, dtype):
    cases = [{"dtype": dtype, **case, **bad} for case in STAGES for bad in ({}, {"bad": 0}, {"bad": 2})]
    found = two_ranks(tmp_path / "x", cases)
    for i in range(0, len(found), 3):
        whole, *others = found[i : i + 3]
        for other in others:
            assert len(other["skipped"]) == 1 and not math.isfinite(other["skipped"][0]), cases[i]
            assert other["kept"], cases[i]
            # Moments and their count of steps too: what comes after is the same to the last bit.
            assert other["norms"] == whole["norms"], cases[i]
            assert all(torch.equal(whole["weights"][n], other["weights"][n]) for n in whole["weights"]), cases[i]


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.exhaustive), "bfloat16"])
def test_steps_after_a_checkpoint_are_those_without_it_bit_for_bit(tmp_path, dtype):
    cases = [{"dtype": dtype, **case, "halfway": STEPS // 2} for case in STAGES]
    whole = two_ranks(tmp_path / "x", cases)
    loads = [{"dtype": dtype, **case, "load": f"{tmp_path / 'x'}.saved{i}"} for i, case in enumerate(STAGES)]
    for case, a, b in zip(STAGES, whole, two_ranks(tmp_path / "y", loads), strict=True):
        assert a["norms"][STEPS // 2 :] == b["norms"], case
        assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"]), case


def test_every_stage_takes_the_same_steps_with_prompts_that_are_computed_once(tmp_path):
    norms, weights = by_hand(torch.float32, shared=False)
    start = {name: p.detach() for name, p in model().named_parameters()}
    travelled = distance(start, weights)
    cases = [{"zero_stage": stage, "shared": True} for stage in range(4)]
    for case, found in zip(cases, two_ranks(tmp_path / "x", cases), strict=True):
        assert found["norms"] == pytest.approx(norms, rel=1e-5), case
        # Sums in another order, which AdamW makes much of where a gradient is nearly 0; a pass too few is beyond.
        assert distance(found["weights"], weights) <= 1e-4 * travelled, case


def test_dithered_masters_are_the_same_bits_on_every_stage_and_rank_and_go_on_exactly(tmp_path):
    kinds = [{"zero_stage": stage} for stage in range(4)] + [{"zero_stage": 2, "offload_optimizer": True}]
    cases = [{"dtype": "bfloat16", "dither": True, **kind} for kind in kinds]
    whole = two_ranks(tmp_path / "x", [{**case, "halfway": STEPS // 2} for case in cases])
    alone = two_ranks(tmp_path / "alone", cases, world=1)
    weights = {name: p.detach() for name, p in model(torch.bfloat16).named_parameters()}
    want = {name: dithered(weight, seed=0, name=name) for name, weight in weights.items()}
    assert sum(bool((want[name] != weights[name].float()).any()) for name in want) == len(want)
    for case, found in zip(cases * 2, whole + alone, strict=True):
        assert found["started"].keys() == want.keys()
        for name, master in want.items():
            assert torch.equal(found["started"][name].view(master.shape), master), (case, name)
            assert torch.equal(found["computed"][name], weights[name]), (case, name)
    # The start's dither is not what a resumed run goes on from.
    loads = [{**case, "load": f"{tmp_path / 'x'}.saved{i}"} for i, case in enumerate(cases)]
    for case, a, b in zip(cases, whole, two_ranks(tmp_path / "y", loads), strict=True):
        assert a["norms"][STEPS // 2 :] == b["norms"], case
        assert all(torch.equal(a["weights"][name], b["weights"][name]) for name in a["weights"]), case
