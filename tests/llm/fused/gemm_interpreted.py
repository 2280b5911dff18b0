"""The gemm backend with Triton's row kernel under the interpreter; `test_fused_triton.py` runs this file.

As for the other Triton kernels, these tests have a process of their own, and shapes are small.
"""

import gemm_checks as checks
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from split_vocabulary import split_over

from aepo.llm.fused import backends, gemm_backend, triton_rows

DTYPES = (torch.float32, *checks.HALF)


@settings(max_examples=15)
@given(checks.calls, st.sampled_from(checks.BUDGETS), st.sampled_from(DTYPES))
def test_values_and_gradients_are_those_of_whole_logits(one, block_bytes, dtype):
    checks.assert_statistics_agree(one, block_bytes, dtype)


@settings(max_examples=15)
@given(checks.calls, st.sampled_from(checks.BUDGETS), st.sampled_from(DTYPES), st.booleans())
def test_the_policy_loss_is_that_of_whole_logits_with_its_gradients(one, block_bytes, dtype, dead):
    checks.assert_loss_agrees(one, block_bytes, dtype, dead=dead)


# One column, a whole block of the kernel's, and several with a part of one.
@pytest.mark.parametrize(("columns", "stride"), [(1, 1), (64, 64), (201, 201), (202, 205)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_may_lie_over_its_logits(columns, stride, dtype):
    checks.assert_a_gradient_may_lie_over_its_logits(triton_rows, columns, dtype, stride=stride)


def test_half_precision_sums_are_rounded_once():
    checks.assert_half_precision_sums_are_rounded_once()


def test_edges_are_the_torch_backends():
    checks.assert_edges_are_the_torch_backends()


def test_equal_logits_of_minus_infinity_are_the_uniform_distribution():
    # 70 columns: a block is not full, and what stands for its other columns must not count.
    label = torch.tensor([0, 69])
    question = checks.Question(temperature=torch.full((2, 1), 0.5), entropy=True, entropy_tempered=False)
    sums = triton_rows.row_sums(torch.full((2, 70), -torch.inf), None, label, question)
    assert sums[1, 0].tolist() == sums[2, 0].tolist() == [70.0, 70.0]


@pytest.mark.parametrize("block_bytes", [4000, None])
def test_equal_calls_give_equal_bits(block_bytes):
    checks.assert_equal_calls_give_equal_bits(block_bytes)


def test_two_processes_with_a_part_of_the_vocabulary_each_agree_with_whole_logits(tmp_path):
    options = {
        "rows": 17, "width": 19, "vocabulary": 83, "bias": True, "temperature": "per token", "ignored": 1,
        "softcap": 3.0,
    }  # fmt: skip
    close, close_gradients = {"rtol": 1e-5, "atol": 3e-5}, {"rtol": 1e-4, "atol": 1e-4}
    arguments = (2, str(tmp_path), options, [0, 30, 83], torch.float32, "gemm", close, close_gradients)
    mp.spawn(split_over, args=arguments, nprocs=2)
    assert sorted(p.name for p in tmp_path.glob("agrees_*")) == ["agrees_0", "agrees_1"]


def test_the_interpreter_is_for_tests_only():
    value = torch.zeros(1, 1)
    assert backends.chosen("auto", value, value) is not gemm_backend
    assert backends.chosen("gemm", value, value) is gemm_backend
    assert gemm_backend.row_kernel(value.device) is triton_rows
    with pytest.raises(ValueError, match="sums all rows in order: index must be None"):
        triton_rows.row_sums(
            value,
            torch.tensor([0]),
            torch.tensor([0]),
            checks.Question(temperature=None, entropy=True, entropy_tempered=False),
        )
