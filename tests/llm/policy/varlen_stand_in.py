"""The two varlen kernels in plain torch, with the arguments of the real ones: what a CPU can check of their use.

Each sequence is computed by an explicit softmax; what the real kernels would take on trust is checked here.
"""

import torch
from torch import Tensor


def varlen_attn(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.attention.varlen.varlen_attn`."""
    assert enable_gqa or query.shape[1] == key.shape[1], "heads that share keys have to be asked for"
    return _computed(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window_size, cap=0.0)


def varlen_attn_of_torch_2_10(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: None = None,
    scale: float | None = None,
) -> Tensor:
    """The same of the version in which it came."""
    window = (-1, 0) if is_causal else (-1, -1)
    return _computed(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, scale, window, cap=0.0)


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> Tensor:
    """`flash_attn.flash_attn_varlen_func`."""
    assert dropout_p == 0
    window = (window_size[0], 0) if causal else window_size
    return _computed(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, softmax_scale, window, cap=softcap
    )


def _computed(q, k, v, q_ends, k_ends, most_q, most_k, scale, window, *, cap: float) -> Tensor:
    assert q_ends.dtype == k_ends.dtype == torch.int32 and q_ends[0] == k_ends[0] == 0
    assert len(q_ends) == len(k_ends) and q_ends[-1] == len(q) and k_ends[-1] == len(k) == len(v)
    assert most_q == q_ends.diff().max() and most_k == k_ends.diff().max()
    assert q_ends.diff().min() > 0
    group, scale = q.shape[1] // k.shape[1], q.shape[-1] ** -0.5 if scale is None else scale
    found = []
    for i in range(len(q_ends) - 1):
        mine, keys, values = (
            x[ends[i] : ends[i + 1]].transpose(0, 1) for x, ends in ((q, q_ends), (k, k_ends), (v, k_ends))
        )
        scores = scale * mine @ keys.repeat_interleave(group, 0).transpose(1, 2)
        if cap:
            scores = cap * torch.tanh(scores / cap)
        asked, seen = scores.shape[1:]
        ahead = torch.arange(seen) - (torch.arange(asked).unsqueeze(-1) + seen - asked)
        hidden = torch.zeros_like(ahead, dtype=torch.bool)
        for side, width in ((-ahead, window[0]), (ahead, window[1])):
            hidden |= (side > width) & (width >= 0)
        weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        found.append((weights @ values.repeat_interleave(group, 0)).transpose(0, 1))
    return torch.cat(found)
