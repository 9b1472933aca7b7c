"""What tests and benchmarks feed the ops: maps, places, projections, grids; the same for the same arguments.

A benchmark puts the repository root on `sys.path` and imports from here as a test does: `from tests.op_inputs
import gather_inputs`. Values are drawn on the CPU, so that every device gets the same.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS = ["contiguous", "channels_last", "sliced", "sliced_channels_last", "stepped", "transposed"]
KINDS = ["normal", "halves", "ties", "special"]
# (B, C, H, W): one vector and a tail, whole vectors, odd sides, one pooled row, one window, one channel.
SHAPES = [(2, 129, 6, 8), (3, 64, 7, 5), (2, 151, 3, 9), (1, 37, 2, 3), (2, 1, 4, 4), (1, 300, 8, 6)]
# For what goes window by window or is interpreted: even, odd sides, one window, channels over a block.
SMALL_SHAPES = [(2, 5, 6, 8), (3, 7, 5, 9), (1, 3, 2, 3), (2, 129, 7, 4)]
# NaN of both signs, infinities, and a number that is subnormal in float16.
SPECIALS = [math.nan, math.copysign(math.nan, -1.0), math.inf, -math.inf, 6e-8]


class GatherInputs(NamedTuple):
    """Arguments of `pool_gather`: ``[B, C, H, W]``, ``[S, K]`` int32, ``[C]``, ``[S]`` int64."""

    features: Tensor
    positions: Tensor
    embedding: Tensor
    image_index: Tensor


class Projection(NamedTuple):
    """What `pixel_embed` takes besides: ``[D, C]``, ``[D]``, ``[D]``."""

    weight: Tensor
    bias: Tensor
    embedding: Tensor


class Draws(NamedTuple):
    """Arguments of `sample_positions`: ``[N, 2]`` int32 and ``[N]`` int64."""

    valid_grid: Tensor
    keys: Tensor


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, *, seed: int = 0) -> Tensor:
    """Standard normal numbers: a gradient, a vector, a matrix."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.randn(shape, generator=generator(seed), dtype=wide).to(dtype)


def map_values(
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    kind: str = "normal",
    *,
    seed: int | None = None,
) -> Tensor:
    """A map's numbers, contiguous.

    Args:
        kind: "normal"; "halves", normal numbers rounded to halves, of which few windows are without a tie;
            "ties", -1, 0, -0 and 1; "special", normal numbers with one of `SPECIALS` in five of eight places.
        seed: by default one that depends on the shape.
    """
    seed = sum(shape) if seed is None else seed
    if kind == "normal":
        return normal(shape, dtype, seed=seed)
    if kind == "halves":
        return ((normal(shape, torch.float64, seed=seed) * 2).round() / 2).to(dtype)
    source = generator(seed)
    if kind == "ties":
        drawn = torch.randint(-1, 2, shape, generator=source).to(torch.float64)
        return torch.where(torch.rand(shape, generator=source) < 0.3, -0.0, drawn).to(dtype)
    if kind != "special":
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    drawn = torch.randn(shape, generator=source, dtype=torch.float64)
    choice = torch.randint(0, 8, shape, generator=source)
    for number, special in enumerate(SPECIALS):
        drawn = torch.where(choice == number, special, drawn)
    return drawn.to(dtype)


def in_layout(values: Tensor, layout: str) -> Tensor:
    """`values` ``[B, C, H, W]`` in a memory layout.

    "sliced" and "sliced_channels_last" are windows of a larger map, "stepped" is every second channel and
    column of one; what lies around is NaN. "transposed" has neighbouring rows next to each other in memory.
    """
    batch, channels, height, width = values.shape
    if layout == "contiguous":
        return values.contiguous()
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "transposed":
        return values.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == "stepped":
        larger = values.new_full((batch, 2 * channels + 2, height + 2, 2 * width), math.nan)
        inner = larger[:, 1:-1:2, 1:-1, ::2]
    elif layout in ("sliced", "sliced_channels_last"):
        larger = values.new_full((batch + 1, channels + 3, height + 2, width + 1), math.nan)
        if layout == "sliced_channels_last":
            larger = larger.contiguous(memory_format=torch.channels_last)
        inner = larger[1:, 2:-1, 1:-1, :-1]
    else:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    return inner.copy_(values)


def random_places(
    sequences: int,
    count: int,
    places: int,
    *,
    lowest: int = -1,
    dtype: torch.dtype = torch.int32,
    seed: int = 0,
) -> Tensor:
    """``[sequences, count]`` places with repetition, -1 (no place) among them unless `lowest` is 0.

    Without places all are -1.
    """
    if places == 0:
        return torch.full((sequences, count), -1, dtype=dtype)
    return torch.randint(lowest, places, (sequences, count), generator=generator(seed), dtype=dtype)


def unordered_images(sequences: int, batch: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """``[sequences]``: images in no order, as 1, 0, 1, 0, 1; of three or more nobody reads the last."""
    read = batch - 1 if batch > 2 else batch
    return (read - 1 - torch.arange(sequences) % max(read, 1)).to(dtype)


def grouped_images(batch: int, each: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """``[batch * each]``: every image read by `each` sequences in a row, as by several captions."""
    return torch.arange(batch, dtype=dtype).repeat_interleave(each)


def gather_inputs(
    shape: tuple[int, int, int, int],
    dtype: torch.dtype = torch.float32,
    layout: str = "contiguous",
    kind: str = "normal",
    *,
    sequences: int = 5,
    count: int = 9,
) -> GatherInputs:
    """A case of `pool_gather`: more sequences than images, in no order; repeated places, -1 among them."""
    seed = sum(shape)
    return GatherInputs(
        in_layout(map_values(shape, dtype, kind, seed=seed), layout),
        random_places(sequences, count, (shape[2] // 2) * (shape[3] // 2), seed=seed + 1),
        normal((shape[1],), dtype, seed=seed + 2),
        unordered_images(sequences, shape[0]),
    )


def projection(
    channels: int, dimensions: int, dtype: torch.dtype = torch.float32, *, seed: int = 0
) -> Projection:
    """A case's weight, bias and type embedding; the weight keeps the variance of what it multiplies."""
    weight = normal((dimensions, channels), torch.float64, seed=seed) / math.sqrt(max(channels, 1))
    vectors = (normal((dimensions,), dtype, seed=seed + number) for number in (1, 2))
    return Projection(weight.to(dtype), *vectors)


def ragged_draws(rows: int, grid: tuple[int, int], *, seed: int = 0) -> Draws:
    """Images of every size from nothing to the whole grid, and keys of both signs beyond 32 bits."""
    source = generator(seed)
    sides = [torch.randint(0, side + 1, (rows,), generator=source, dtype=torch.int32) for side in grid]
    return Draws(torch.stack(sides, dim=1), torch.randint(-(2**62), 2**62, (rows,), generator=source))
