"""`pool_gather` in plain PyTorch: pool the whole map, then pick the places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pool_gather_reference(
    features: Tensor, positions: Tensor, embedding: Tensor | None = None, *, image_index: Tensor | None = None
) -> Tensor:
    """See :func:`pixelbert_fast.ops.pool_gather`."""
    batch, channels, height, width = features.shape
    h, w = height // 2, width // 2
    if image_index is None:
        image_index = torch.arange(batch, device=features.device)
    positions, image_index = positions.long(), image_index.long()[:, None]
    # Sums (places read more than once, the embedding) are taken in float32, or float64 for float64.
    wide = torch.float64 if features.dtype == torch.float64 else torch.float32

    inside = (positions >= 0) & (positions < h * w) & (image_index >= 0) & (image_index < batch)
    if h * w * batch * channels == 0:
        # The sum of nothing, so that a gradient of zeros flows all the same.
        pixels = features.new_zeros(*positions.shape, channels, dtype=wide) + features[:0].sum()
    else:
        pooled = F.max_pool2d(features, 2).permute(0, 2, 3, 1).reshape(batch * h * w, channels).to(wide)
        pixels = pooled[torch.where(inside, image_index * (h * w) + positions, 0)]
    if embedding is not None:
        pixels = pixels + embedding.to(wide)
    # -1 gives zeros; an index that no check may read (on a GPU) gives NaN rather than somebody else's row.
    missing = torch.where(positions == -1, 0.0, torch.nan).to(wide)
    return torch.where(inside[..., None], pixels, missing[..., None]).to(features.dtype)
