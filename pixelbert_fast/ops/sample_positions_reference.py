"""`sample_positions` in plain PyTorch: sorts random words where the kernels select by threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox_reference import WORD, philox_4x32

NEVER = WORD + 1
"""Sorts behind every 32-bit word: what a place outside the valid grid draws."""


def sample_positions_reference(
    valid_grid: Tensor, grid: tuple[int, int], count: int, *, seed: int | Tensor, keys: Tensor | None = None
) -> Tensor:
    """See :func:`pixelbert_fast.ops.sample_positions`."""
    device = valid_grid.device
    rows, (h, w) = valid_grid.shape[0], grid
    places = h * w
    if keys is None:
        keys = torch.arange(rows, device=device)
    keys = keys.to(torch.int64)
    seed = torch.as_tensor(signed_64(seed), dtype=torch.int64, device=device)

    place = torch.arange(places, device=device)
    row, column = place // max(w, 1), place % max(w, 1)
    counter = (row[None], column[None], (keys & WORD)[:, None], ((keys >> 32) & WORD)[:, None])
    word = philox_4x32(counter, (seed & WORD, (seed >> 32) & WORD))[0]

    valid = (row < valid_grid[:, :1]) & (column < valid_grid[:, 1:])
    word = torch.where(valid, word, NEVER)
    # A stable sort breaks ties between equal words by the lower place.
    chosen = word.argsort(dim=1, stable=True)[:, :count]
    chosen = torch.where(word.gather(1, chosen) == NEVER, places, chosen).sort(dim=1).values
    positions = torch.full((rows, count), -1, dtype=torch.int32, device=device)
    positions[:, : chosen.shape[1]] = torch.where(chosen == places, -1, chosen).to(torch.int32)
    return positions


def signed_64(seed: int | Tensor) -> int | Tensor:
    """The int64 with the same 64 bits as `seed`, so that any Python integer is a seed."""
    if isinstance(seed, Tensor):
        return seed
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (1 << 64) if seed >> 63 else seed
