"""A map on the model's grid as a picture over the image: where a cell lies, what colour a value has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelbert_fast.tasks.attending import AttentionMaps

# Ever lighter from night to pale yellow, so that the order survives print in grey and colour blindness.
_STOPS = (
    (14, 12, 38),
    (72, 22, 104),
    (150, 38, 110),
    (216, 72, 72),
    (246, 140, 42),
    (252, 208, 82),
    (255, 250, 205),
)


def colours() -> np.ndarray:
    """uint8 ``[256, 3]``: RGB of the values 0..1 in steps of 1/255."""
    places = np.linspace(0, 1, len(_STOPS))
    channels = [np.interp(np.arange(256) / 255, places, channel) for channel in zip(*_STOPS, strict=True)]
    return np.floor(np.stack(channels, axis=1) + 0.5).astype(np.uint8)


def coloured(values: np.ndarray) -> np.ndarray:
    """uint8 ``[..., 3]`` of values, those outside 0..1 as the nearest."""
    return colours()[np.floor(values.clip(0, 1) * 255 + 0.5).astype(np.int64)]


def spread_out(
    values: np.ndarray, size: tuple[int, int], maps: AttentionMaps, *, smooth: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A map laid over the image at `size`.

    Args:
        values: ``[rows, columns]``, of `maps`.
        size: (height, width) of the picture that the image is shown as.
        smooth: bilinear between the cells' centres; False: cells as they are.

    Returns:
        float64 ``[height, width]``, and bool of that shape: False on what no cell stands for.
    """
    axes = [
        _places(pixels, read, maps.window, cells)
        for pixels, read, cells in zip(size, maps.image_size, maps.grid, strict=True)
    ]
    (low_row, high_row, down, known_row), (low, high, right, known) = axes
    covered = known_row[:, None] & known[None, :]
    if not smooth:
        row, column = (np.where(share < 0.5, a, b) for a, b, share, _ in axes)
        return values.astype(np.float64)[row[:, None], column], covered
    values = values.astype(np.float64)
    along = values[:, low] * (1 - right) + values[:, high] * right
    return along[low_row] * (1 - down[:, None]) + along[high_row] * down[:, None], covered


def _places(pixels: int, read: int, window: int, cells: int) -> Sequence[np.ndarray]:
    """Of each pixel of an axis: the cells whose centres lie before and behind it, the share of the latter,
    and whether any cell stands for it."""
    at = (np.arange(pixels) + 0.5) / pixels * (read / window)
    between = (at - 0.5).clip(0, cells - 1)
    before = np.floor(between).astype(np.int64)
    return before, (before + 1).clip(max=cells - 1), between - before, at < cells
