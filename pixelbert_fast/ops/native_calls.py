"""Calls of the native operators that have a kernel for CPUs and one for CUDA; the tensors' device chooses.

Nothing here waits for the device, so that calls can be captured in a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pool_gather_forward(
    features: Tensor,
    positions: Tensor,
    embedding: Tensor | None,
    image_index: Tensor | None,
    save_winners: bool = True,
) -> tuple[Tensor, Tensor]:
    """See `backends`."""
    shape = (*positions.shape, features.shape[1])
    out = features.new_empty(shape)
    winners = features.new_empty(shape if save_winners else 0, dtype=torch.uint8)
    if embedding is not None:
        embedding = embedding.to(torch.promote_types(features.dtype, torch.float32)).contiguous()
    torch.ops.pixelbert_fast_native.pool_gather_forward(
        features, positions, embedding, image_index, out, winners if save_winners else None
    )
    return out, winners


def pool_gather_backward(
    grad: Tensor,
    winners: Tensor,
    positions: Tensor,
    image_index: Tensor | None,
    shape: list[int],
    channels_last: bool,
) -> Tensor:
    """See `backends`."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    grad_features = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=layout)
    torch.ops.pixelbert_fast_native.pool_gather_backward(
        grad.contiguous(), winners, positions, image_index, grad_features
    )
    return grad_features


def sample_positions(
    valid_grid: Tensor, grid: tuple[int, int], count: int, seed: Tensor, keys: Tensor
) -> Tensor:
    """See `backends`."""
    out = torch.empty(valid_grid.shape[0], count, dtype=torch.int32, device=valid_grid.device)
    torch.ops.pixelbert_fast_native.sample_positions(valid_grid, seed, keys, *grid, out)
    return out
