"""`pixel_embed`: the projection of sampled 2x2 windows, read where they lie in the backbone's map."""

from __future__ import annotations

import triton
import triton.language as tl

from .windows import challenge, locate, window_offset


@triton.jit
def pixel_embed_forward_kernel(
    features,
    positions,
    weight,
    vector,
    image_index,
    out,
    winners,
    rows_total,
    count,
    channels,
    dimensions,
    places,
    width,
    batch,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    stride_weight_d,
    stride_weight_c,
    INDEXED: tl.constexpr,
    PROJECT_FIRST: tl.constexpr,
    PRECISION: tl.constexpr,
    FACTOR: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_DIMENSIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """One program: `BLOCK_ROWS` rows of the flattened `[S, K]` by `BLOCK_DIMENSIONS` of the output.

    `out` is `[S, K, D]`, contiguous. With `PROJECT_FIRST` ("project_pool") four products share each block of
    the weight, and the maximum is taken over their accumulators; `winners` is `[S, K, D]`. Otherwise
    ("pool_project") the window's maximum is multiplied; `winners` is `[S, K, C]`. Factors are of type
    `FACTOR`, sums of type `WIDE`.
    """
    # Programs of the same rows are neighbours: the windows, larger than the weight, stay in the cache.
    column_blocks = tl.cdiv(dimensions, BLOCK_DIMENSIONS)
    row_block = tl.program_id(0) // column_blocks
    column_block = tl.program_id(0) % column_blocks
    rows = row_block.to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    dimension = column_block * BLOCK_DIMENSIONS + tl.arange(0, BLOCK_DIMENSIONS)
    block = tl.arange(0, BLOCK_CHANNELS)
    live = rows < rows_total
    position, image, inside = locate(rows, live, positions, image_index, count, places, batch, INDEXED)
    base = features + window_offset(position, image, inside, width, stride_b, stride_h, stride_w)

    weight_rows = weight + dimension.to(tl.int64) * stride_weight_d
    within = dimension < dimensions
    total = tl.zeros([BLOCK_ROWS, BLOCK_DIMENSIONS], WIDE)
    if PROJECT_FIRST:
        total1 = tl.zeros([BLOCK_ROWS, BLOCK_DIMENSIONS], WIDE)
        total2 = tl.zeros([BLOCK_ROWS, BLOCK_DIMENSIONS], WIDE)
        total3 = tl.zeros([BLOCK_ROWS, BLOCK_DIMENSIONS], WIDE)
    for start in range(0, channels, BLOCK_CHANNELS):
        channel = start + block
        held = channel < channels
        read = inside[:, None] & held[None, :]
        wide_channel = channel.to(tl.int64)
        window = base[:, None] + wide_channel[None, :] * stride_c
        first = tl.load(window, mask=read, other=0.0)
        second = tl.load(window + stride_w, mask=read, other=0.0)
        third = tl.load(window + stride_h, mask=read, other=0.0)
        fourth = tl.load(window + stride_h + stride_w, mask=read, other=0.0)
        factors = tl.load(
            weight_rows[None, :] + wide_channel[:, None] * stride_weight_c,
            mask=held[:, None] & within[None, :],
            other=0.0,
        ).to(FACTOR)
        if PROJECT_FIRST:
            total = tl.dot(first.to(FACTOR), factors, total, input_precision=PRECISION, out_dtype=WIDE)
            total1 = tl.dot(second.to(FACTOR), factors, total1, input_precision=PRECISION, out_dtype=WIDE)
            total2 = tl.dot(third.to(FACTOR), factors, total2, input_precision=PRECISION, out_dtype=WIDE)
            total3 = tl.dot(fourth.to(FACTOR), factors, total3, input_precision=PRECISION, out_dtype=WIDE)
        else:
            best = first.to(WIDE)
            winner = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], tl.int32)
            best, winner = challenge(best, winner, second.to(WIDE), 1)
            best, winner = challenge(best, winner, third.to(WIDE), 2)
            best, winner = challenge(best, winner, fourth.to(WIDE), 3)
            total = tl.dot(best.to(FACTOR), factors, total, input_precision=PRECISION, out_dtype=WIDE)
            if column_block == 0:
                target = winners + rows[:, None] * channels + channel[None, :]
                tl.store(target, winner.to(tl.uint8), mask=live[:, None] & held[None, :])

    target = rows[:, None] * dimensions + dimension[None, :]
    write = live[:, None] & within[None, :]
    if PROJECT_FIRST:
        winner = tl.zeros([BLOCK_ROWS, BLOCK_DIMENSIONS], tl.int32)
        total, winner = challenge(total, winner, total1, 1)
        total, winner = challenge(total, winner, total2, 2)
        total, winner = challenge(total, winner, total3, 3)
        tl.store(winners + target, winner.to(tl.uint8), mask=write)
    total += tl.load(vector + dimension, mask=within, other=0.0).to(WIDE)[None, :]
    total = tl.where(inside[:, None], total, tl.where(position == -1, 0.0, float("nan")).to(WIDE)[:, None])
    tl.store(out + target, total.to(out.dtype.element_ty), mask=write)
