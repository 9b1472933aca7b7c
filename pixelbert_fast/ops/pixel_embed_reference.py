"""`pixel_embed` in plain PyTorch: the paper's chain of convolution, pooling, sampling and type embedding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .pool_gather_reference import pool_gather_reference


def pixel_embed_reference(
    features: Tensor,
    positions: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    embedding: Tensor,
    *,
    image_index: Tensor | None = None,
    order: str = "project_pool",
) -> Tensor:
    """See :func:`pixelbert_fast.ops.pixel_embed`."""
    # The bias is the same at all four pixels of a window, so it commutes with the maximum.
    vector = embedding if bias is None else embedding + bias
    if order == "project_pool":
        if features.numel() and weight.numel():
            projected = F.conv2d(features, weight[:, :, None, None])
        else:  # which a convolution refuses
            projected = F.linear(features.permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)
        return pool_gather_reference(projected, positions, vector, image_index=image_index)
    pixels = F.linear(pool_gather_reference(features, positions, image_index=image_index), weight) + vector
    return torch.where((positions == -1)[..., None], 0, pixels).to(features.dtype)
