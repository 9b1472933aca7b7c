"""Flash attention's two private operators on a CPU, so that the code around them runs without a GPU.

PyTorch's own schema and derivative stay; only the kernels are here, sequence by sequence in plain PyTorch.
They refuse what the real ones refuse, and draw dropout from a state that the forward returns and the
backward reads, as the real ones do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def dropout_factor(shape: tuple[int, ...], p: float, rng_state: Tensor, sequence: int) -> Tensor:
    """``[heads, Q, K]``: 0 where a probability is dropped, else 1 / (1 - p)."""
    generator = torch.Generator().manual_seed(int(rng_state[0]) + sequence)
    kept = torch.rand(shape, generator=generator, dtype=torch.float64) >= p
    return kept / (1 - p)


def bounds(starts: Tensor, rows: int, longest: int) -> list[tuple[int, int]]:
    assert starts.dtype == torch.int32 and starts.dim() == 1 and starts.is_contiguous()
    pairs = list(zip(starts.tolist()[:-1], starts.tolist()[1:], strict=True))
    assert starts[0] == 0 and starts[-1] == rows and pairs
    assert longest == max(end - start for start, end in pairs) > 0
    return pairs


def sequences(query, key, value, starts_q, starts_k, longest_q, longest_k):
    for rows in (query, key, value):
        assert rows.dim() == 3 and rows.stride(-1) == 1 and rows.shape[1:] == query.shape[1:]
        assert rows.shape[2] % 8 == 0 and rows.stride(0) % 8 == 0
    spans_q = bounds(starts_q, query.shape[0], longest_q)
    spans_k = bounds(starts_k, key.shape[0], longest_k)
    for number, (q, k) in enumerate(zip(spans_q, spans_k, strict=True)):
        yield number, slice(*q), slice(*k)


class Emulation:
    """What the two kernels were called with, as ``calls``: (operator, dropout, requires a scale)."""

    def __init__(self):
        self.calls: list[tuple[str, float]] = []

    def forward(
        self, query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask,
        *, scale=None, window_size_left=None, window_size_right=None, **others,
    ):  # fmt: skip
        assert not is_causal and not return_debug_mask and not any(v is not None for v in others.values())
        assert window_size_left in (None, -1) and window_size_right in (None, -1)
        self.calls.append(("forward", dropout_p))
        rng_state = torch.zeros(2, dtype=torch.uint64)
        if dropout_p:
            rng_state[0] = int(torch.randint(2**40, ()))  # from the default generator, as Flash does
        out = torch.full_like(query, torch.nan)
        sums = query.new_full((query.shape[1], query.shape[0]), torch.nan, dtype=torch.float64)
        for number, q, k in sequences(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k):
            scores = torch.einsum("qhd,khd->hqk", query[q].double(), key[k].double()) * scale
            probabilities = scores.softmax(-1)
            if dropout_p:
                probabilities *= dropout_factor(scores.shape, dropout_p, rng_state, number)
            out[q] = torch.einsum("hqk,khd->qhd", probabilities, value[k].double()).to(out.dtype)
            sums[:, q] = scores.logsumexp(-1)
        return out, sums, rng_state, torch.zeros((), dtype=torch.uint64), query.new_empty(0)

    def backward(
        self, grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p,
        is_causal, rng_state, unused, *, scale=None, window_size_left=None, window_size_right=None,
    ):  # fmt: skip
        assert not is_causal and grad_out.shape == query.shape
        self.calls.append(("backward", dropout_p))
        grads = [torch.full_like(rows, torch.nan) for rows in (query, key, value)]
        for number, q, k in sequences(query, key, value, cum_seq_q, cum_seq_k, max_q, max_k):
            scores = torch.einsum("qhd,khd->hqk", query[q].double(), key[k].double()) * scale
            probabilities = (scores - logsumexp[:, q, None]).exp()
            factor = dropout_factor(scores.shape, dropout_p, rng_state, number) if dropout_p else 1.0
            grad = grad_out[q].double()
            inner = torch.einsum("qhd,khd->hqk", grad, value[k].double()) * factor
            dot = (grad * out[q].double()).sum(-1).T[..., None]
            grad_scores = probabilities * (inner - dot) * scale
            grads[0][q] = torch.einsum("hqk,khd->qhd", grad_scores, key[k].double()).to(query.dtype)
            grads[1][k] = torch.einsum("hqk,qhd->khd", grad_scores, query[q].double()).to(query.dtype)
            grads[2][k] = torch.einsum("hqk,qhd->khd", probabilities * factor, grad).to(query.dtype)
        return tuple(grads)


@contextmanager
def emulated_flash() -> Iterator[Emulation]:
    """Inside, PyTorch's Flash operators run on CPU tensors of any floating dtype."""
    emulation = Emulation()
    library = torch.library.Library("aten", "IMPL")
    try:
        library.impl("_flash_attention_forward", emulation.forward, "CPU")
        library.impl("_flash_attention_backward", emulation.backward, "CPU")
        yield emulation
    finally:
        library._destroy()
