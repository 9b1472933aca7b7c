"""What the kernels that read sampled 2x2 windows share: finding a row's window, and the maximum of four."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def locate(rows, live, positions, image_index, count, places, batch, INDEXED: tl.constexpr):
    """The place and image that each of `rows` of the flattened `[S, K]` asks for, and whether both exist.

    Rows that are not `live` ask for -1.
    """
    sequence = rows // count
    position = tl.load(positions + rows, mask=live, other=-1).to(tl.int64)
    image = sequence
    if INDEXED:
        image = tl.load(image_index + sequence, mask=live, other=0).to(tl.int64)
    inside = (position >= 0) & (position < places) & (image >= 0) & (image < batch)
    return position, image, inside


@triton.jit
def window_offset(position, image, inside, width, stride_b, stride_h, stride_w):
    """Offset in elements of the top left pixel of each window; 0 where there is none."""
    place = tl.where(inside, position, 0).to(tl.int32)
    y = (place // width * 2).to(tl.int64)
    x = (place % width * 2).to(tl.int64)
    return tl.where(inside, image, 0) * stride_b + y * stride_h + x * stride_w


@triton.jit
def challenge(best, winner, value, index: tl.constexpr):
    """Folds pixel `index` of a window into its maximum, as max_pool2d does.

    The first maximum wins a tie; NaN beats everything, and a later NaN an earlier one.
    """
    wins = (value > best) | (value != value)
    return tl.where(wins, value, best), tl.where(wins, index, winner)
