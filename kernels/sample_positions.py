"""`sample_positions`: Philox 4x32-10 and threshold selection, one program a row."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox_first_word(c0, c1, c2, c3, k0, k1):
    """First output word of Philox 4x32-10 (Salmon et al., SC 2011); every argument is uint32."""
    for _ in tl.static_range(10):
        product0 = c0.to(tl.uint64) * 0xD2511F53
        product1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = product1.to(tl.uint32)
        c3 = product0.to(tl.uint32)
        k0 = (k0.to(tl.uint64) + 0x9E3779B9).to(tl.uint32)
        k1 = (k1.to(tl.uint64) + 0xBB67AE85).to(tl.uint32)
    return c0


@triton.jit
def sample_positions_kernel(
    valid_grid, keys, seed, out, height, width, count, KEYED: tl.constexpr, BLOCK: tl.constexpr
):
    """Row `program_id(0)`: the `count` places of smallest words, ascending, then -1.

    `BLOCK` is at least `height * width`; `valid_grid [N, 2]`, `keys [N]` and `out [N, count]` are contiguous.
    """
    row_of_batch = tl.program_id(0).to(tl.int64)
    valid_rows = tl.load(valid_grid + 2 * row_of_batch).to(tl.int64)
    valid_columns = tl.load(valid_grid + 2 * row_of_batch + 1).to(tl.int64)
    key = row_of_batch
    if KEYED:
        key = tl.load(keys + row_of_batch).to(tl.int64)
    seed_bits = tl.load(seed).to(tl.uint64)
    key_bits = key.to(tl.uint64)

    place = tl.arange(0, BLOCK)
    row = place // width
    column = place % width
    valid = (place < height * width) & (row < valid_rows) & (column < valid_columns)
    nothing = tl.zeros([BLOCK], tl.uint32)
    word = philox_first_word(
        row.to(tl.uint32),
        column.to(tl.uint32),
        nothing + key_bits.to(tl.uint32),
        nothing + (key_bits >> 32).to(tl.uint32),
        nothing + seed_bits.to(tl.uint32),
        nothing + (seed_bits >> 32).to(tl.uint32),
    )

    # The wanted-th smallest word, bit by bit from the top: the largest with fewer than `wanted` words below.
    wanted = tl.minimum(tl.sum(valid.to(tl.int32), 0), count)
    threshold = tl.full([], 0, tl.uint32)
    bit = tl.full([], 1 << 31, tl.uint32)
    for _ in range(32):
        below = tl.sum((valid & (word < (threshold | bit))).to(tl.int32), 0)
        threshold = tl.where(below < wanted, threshold | bit, threshold)
        bit = bit >> 1

    smaller = valid & (word < threshold)
    equal = (valid & (word == threshold)).to(tl.int32)
    left_for_equal = wanted - tl.sum(smaller.to(tl.int32), 0)
    chosen = smaller | ((equal == 1) & (tl.cumsum(equal, 0) <= left_for_equal))
    rank = tl.cumsum(chosen.to(tl.int32), 0) - 1
    out_row = out + row_of_batch * count
    tl.store(out_row + rank, place, mask=chosen)
    for start in range(0, count, BLOCK):
        index = start + place
        tl.store(out_row + index, tl.full([BLOCK], -1, tl.int32), mask=(index >= wanted) & (index < count))
