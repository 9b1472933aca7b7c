"""What a map says of a target: whether its maximum falls there, and how much of it lies there."""

from __future__ import annotations

import numpy as np


def hits(maps: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """How far the maximum of each map falls on a target, the pointing game of Zhang et al. 2016.

    Of several maxima each counts its part, as if one of them were drawn.

    Args:
        maps: ``[..., N]`` of N cells.
        cells: bool or float ``[..., N]``: which are the target's, or in how many of several targets each is.

    Returns:
        float64 ``[...]``, 0 to 1 (the mean over the targets).
    """
    top = maps == maps.max(axis=-1, keepdims=True)
    return (top * cells).sum(axis=-1, dtype=np.float64) / top.sum(axis=-1)


def shares(maps: np.ndarray, share: np.ndarray) -> np.ndarray:
    """How much of each map's sum lies on a target, by the share of each cell's area that belongs to it.

    Args:
        maps: ``[..., N]``, not negative.
        share: float ``[..., N]``.

    Returns:
        float64 ``[...]``; of a map of nothing but zeros, that of an even one.
    """
    total = maps.sum(axis=-1, dtype=np.float64)
    found = (maps * share).sum(axis=-1, dtype=np.float64)
    even = np.broadcast_to(np.mean(share, axis=-1, dtype=np.float64), total.shape)
    return np.where(total > 0, found / np.where(total > 0, total, 1), even)
