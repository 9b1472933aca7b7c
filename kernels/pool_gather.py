"""`pool_gather`: the maximum of each sampled 2x2 window, and its gradient."""

from __future__ import annotations

import triton
import triton.language as tl

from .windows import challenge, locate, window_offset


@triton.jit
def pool_gather_forward_kernel(
    features,
    positions,
    image_index,
    embedding,
    out,
    winners,
    rows_total,
    count,
    channels,
    places,
    width,
    batch,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    INDEXED: tl.constexpr,
    EMBEDDED: tl.constexpr,
    SAVE_WINNERS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """One program: `BLOCK_ROWS` rows of the flattened `[S, K]` by `BLOCK_CHANNELS` channels.

    `out` and `winners` are `[S, K, C]`, contiguous; `width` is the pooled grid's.
    """
    rows = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    live = rows < rows_total
    position, image, inside = locate(rows, live, positions, image_index, count, places, batch, INDEXED)
    base = window_offset(position, image, inside, width, stride_b, stride_h, stride_w)

    window = features + base[:, None] + channel.to(tl.int64)[None, :] * stride_c
    held = channel < channels
    read = inside[:, None] & held[None, :]
    first = tl.load(window, mask=read, other=0.0)
    second = tl.load(window + stride_w, mask=read, other=0.0)
    third = tl.load(window + stride_h, mask=read, other=0.0)
    fourth = tl.load(window + stride_h + stride_w, mask=read, other=0.0)

    best = first.to(WIDE)
    winner = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], tl.int32)
    best, winner = challenge(best, winner, second.to(WIDE), 1)
    best, winner = challenge(best, winner, third.to(WIDE), 2)
    best, winner = challenge(best, winner, fourth.to(WIDE), 3)
    if EMBEDDED:
        best += tl.load(embedding + channel, mask=held, other=0.0).to(WIDE)[None, :]
    best = tl.where(inside[:, None], best, tl.where(position == -1, 0.0, float("nan")).to(WIDE)[:, None])

    target = rows[:, None] * channels + channel[None, :]
    write = live[:, None] & held[None, :]
    tl.store(out + target, best.to(out.dtype.element_ty), mask=write)
    if SAVE_WINNERS:
        tl.store(winners + target, winner.to(tl.uint8), mask=write)


@triton.jit
def pool_gather_backward_kernel(
    grad_out,
    winners,
    readers,
    starts,
    grad_features,
    channels,
    height,
    width,
    tiles,
    stride_out_s,
    stride_out_k,
    stride_out_c,
    count,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    WIDE: tl.constexpr,
    BLOCK_WINDOWS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """One program writes all pixels of `BLOCK_WINDOWS` windows of one image, `BLOCK_CHANNELS` channels.

    The windows cover the whole map, an odd last row and column too, which nobody reads. `readers` lists
    rows of the flattened `[S, K]` by the place they read, `starts [B * places + 1]` where each list begins.
    """
    image = tl.program_id(0) // tiles
    window = (tl.program_id(0) % tiles) * BLOCK_WINDOWS + tl.arange(0, BLOCK_WINDOWS)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    held = channel < channels
    across = (width + 1) // 2
    row = window // across
    column = window % across

    pooled_width = width // 2
    pooled = (row < height // 2) & (column < pooled_width)
    slot = image.to(tl.int64) * (height // 2 * pooled_width) + row * pooled_width + column
    start = tl.load(starts + slot, mask=pooled, other=0)
    readers_here = tl.load(starts + slot + 1, mask=pooled, other=0) - start

    top_left = tl.zeros([BLOCK_WINDOWS, BLOCK_CHANNELS], WIDE)
    top_right = tl.zeros([BLOCK_WINDOWS, BLOCK_CHANNELS], WIDE)
    bottom_left = tl.zeros([BLOCK_WINDOWS, BLOCK_CHANNELS], WIDE)
    bottom_right = tl.zeros([BLOCK_WINDOWS, BLOCK_CHANNELS], WIDE)
    for reader in range(tl.max(readers_here, 0)):
        reads = reader < readers_here
        source = tl.load(readers + start + reader, mask=reads, other=0)
        mask = reads[:, None] & held[None, :]
        grad_row = grad_out + (source // count) * stride_out_s + (source % count) * stride_out_k
        grad = tl.load(
            grad_row[:, None] + channel.to(tl.int64)[None, :] * stride_out_c, mask=mask, other=0.0
        ).to(WIDE)
        winner = tl.load(winners + source[:, None] * channels + channel[None, :], mask=mask, other=0)
        top_left += tl.where(winner == 0, grad, 0.0)
        top_right += tl.where(winner == 1, grad, 0.0)
        bottom_left += tl.where(winner == 2, grad, 0.0)
        bottom_right += tl.where(winner == 3, grad, 0.0)

    y = row.to(tl.int64) * 2
    x = column.to(tl.int64) * 2
    pixel = image.to(tl.int64) * stride_b + y * stride_h + x * stride_w
    target = grad_features + pixel[:, None] + channel.to(tl.int64)[None, :] * stride_c
    kind = grad_features.dtype.element_ty
    here = (y < height)[:, None] & held[None, :]
    below = (y + 1 < height)[:, None] & held[None, :]
    right = (x + 1 < width)[:, None]
    tl.store(target, top_left.to(kind), mask=here)
    tl.store(target + stride_w, top_right.to(kind), mask=here & right)
    tl.store(target + stride_h, bottom_left.to(kind), mask=below)
    tl.store(target + stride_h + stride_w, bottom_right.to(kind), mask=below & right)
