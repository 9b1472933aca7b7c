"""What every decoder takes and gives.

A decoder turns encoded images into one batch of a given plan of sizes. The result is that of the image
processor within `TOLERANCE`: decoded by the rules of `images.to_rgb` (the picture upright, transparency over
white, of an animation the first picture), resized by the bilinear filter whose support widens with the
reduction ("antialiased"), rounded to 8 bits, normalised.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..loader import Prefetched, prefetch


class Tolerance(NamedTuple):
    """How far values may lie from the image processor's, in grey levels of 255: the most, and on average."""

    most: float
    mean: float


TOLERANCE = {"plain": Tolerance(2, 0.3), "dali": Tolerance(24, 0.5)}
"""What holds on a CPU for images of at least 8 pixels a side after the resize.

Decoding and normalising are the same to the bit; only the resizes differ, all of them bilinear and
antialiased. `plain` is the processor's to the bit where the C++ library was built (seen with Pillow 13 on
x86-64); otherwise torch weighs 8-bit pixels by 16-bit fractions, Pillow by 22-bit ones; both round after each
of the two directions. `dali` takes its weights from a table of the filter and rounds once: at most 2
levels on photographs, up to 22 where black and white pixels alternate at random.
"""

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)
"""What `pixel_values` may be of; uint8 is the resized picture, not normalised."""


class Broken(NamedTuple):
    """An image that could not be decoded: its place in the batch, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class DecodedBatch:
    """Images as a model reads them.

    Attributes:
        pixel_values: ``[B, 3, H, W]``, channels_last in memory, H and W the largest of the sizes; 0 at the
            right and the bottom of smaller images, and all over a broken one.
        pixel_size: ``[B, 2]`` int32 on the CPU, the height and width that were asked for.
        broken: the images that could not be decoded, in the order of their places.
    """

    pixel_values: Tensor
    pixel_size: Tensor
    broken: tuple[Broken, ...]


class Decoder(Protocol):
    """A way to decode; may be called from any thread, by one at a time."""

    name: str

    def decode(
        self, encoded: Sequence[bytes], sizes: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float32
    ) -> DecodedBatch:
        """Decode each image to its own (height, width) in pixels.

        A broken image, or one whose header declares more pixels than `images.MAX_PIXELS`, costs no other: it
        is told in `broken`. Raises ValueError for a dtype that is none of `DTYPES`, or lists that do not fit.
        """
        ...

    def close(self) -> None:
        """End the decoder's threads. It is not used afterwards."""
        ...


def decode_ahead(
    decoder: Decoder, requests: Iterable[tuple[Sequence[bytes], Sequence[tuple[int, int]]]], depth: int = 2
) -> Prefetched[DecodedBatch]:
    """The batches of `requests`, (encoded, sizes) each, decoded in a thread that stays `depth` ahead."""
    return prefetch((decoder.decode(encoded, sizes) for encoded, sizes in requests), depth)


def check_request(
    encoded: Sequence[bytes], sizes: Sequence[tuple[int, int]], dtype: torch.dtype
) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """The sizes as pairs of int, the largest height and width; raises ValueError, see `Decoder.decode`."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype}")
    if len(encoded) != len(sizes):
        raise ValueError(f"there must be one size for each of {len(encoded)} images, got {len(sizes)}")
    pairs = [(int(height), int(width)) for height, width in sizes]
    if any(min(pair) < 1 for pair in pairs):
        raise ValueError(f"both sides of an image must be at least 1, got {min(pairs, key=min)}")
    largest = tuple(max(side) for side in zip(*pairs, strict=True)) if pairs else (0, 0)
    return pairs, largest


def sizes_tensor(sizes: Sequence[tuple[int, int]]) -> Tensor:
    """``[B, 2]`` int32."""
    return torch.tensor(sizes, dtype=torch.int32).reshape(-1, 2)
