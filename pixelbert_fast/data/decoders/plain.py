"""The decoder that needs nothing: simplejpeg for JPEGs if installed, Pillow for the rest, torch's resize.

simplejpeg calls libjpeg-turbo, as Pillow does, without Pillow's rows of four bytes a pixel; the pictures are
the same to the bit. torch's antialiased bilinear resize of 8-bit pixels is Pillow's, vectorised, where each
pixel's channels lie together. Decoding at a smaller scale (libjpeg's own) or with its faster transforms was
4 to 24 levels off, and gained a twentieth at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import UserError
from ..images import read_header, to_rgb, turned
from .buffers import Buffers
from .contract import Broken, DecodedBatch, check_request, sizes_tensor
from .normalising import Normalisation

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

NAME = "plain"


def why_not(device_type: str) -> str | None:
    """See `choice`."""
    return None


class PlainDecoder:
    """See `contract.Decoder`. Pictures are decoded side by side by threads; batches are on the CPU.

    Args:
        normalisation: of the image processor.
        threads: None: as many as torch uses, which is this process's share of the machine.
    """

    name = NAME

    def __init__(self, normalisation: Normalisation, threads: int | None = None) -> None:
        self._normalisation = normalisation
        self._buffers = Buffers()
        self._pool = ThreadPoolExecutor(threads or torch.get_num_threads(), thread_name_prefix="decode")

    def decode(
        self, encoded: Sequence[bytes], sizes: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float32
    ) -> DecodedBatch:
        sizes, largest = check_request(encoded, sizes, dtype)
        values = self._buffers.empty((len(sizes), *largest, 3), dtype)
        if any(size != largest for size in sizes):
            values.zero_()
        reasons = list(self._pool.map(self._decode_into, values, encoded, sizes))
        broken = tuple(Broken(place, reason) for place, reason in enumerate(reasons) if reason is not None)
        return DecodedBatch(values.permute(0, 3, 1, 2), sizes_tensor(sizes), broken)

    def readable(self, encoded: Sequence[bytes]) -> list[bool]:
        """Of each image whether it can be decoded."""
        return list(self._pool.map(_is_readable, encoded))

    def close(self) -> None:
        self._pool.shutdown()

    def _decode_into(self, out: Tensor, encoded: bytes, size: tuple[int, int]) -> str | None:
        """Decode one image to the upper left of `out`, ``[H, W, 3]``; the reason where it is broken."""
        try:
            picture = resized(decode_rgb(encoded), size)
        except UserError as error:
            out.zero_()
            return str(error)
        self._normalisation.into(out[: size[0], : size[1]], picture)
        return None


def decode_rgb(encoded: bytes) -> np.ndarray:
    """An encoded image -> uint8 ``[H, W, 3]``, the same as `images.to_rgb`, which decides whatever is odd.

    Raises UserError for a broken image, and for a larger one than is decoded.
    """
    header = read_header(encoded)
    plain_jpeg = header.file_format in ("JPEG", "MPO") and header.mode in ("L", "RGB")
    if simplejpeg is None or not plain_jpeg:
        return to_rgb(encoded)
    try:
        # Before anything is decoded: of a file with two headers the one that was checked must hold.
        height, width, *_ = simplejpeg.decode_jpeg_header(encoded)
        if (height, width) != (header.height, header.width):
            return to_rgb(encoded)
        rgb = simplejpeg.decode_jpeg(encoded, "RGB")
    except (ValueError, MemoryError):  # whatever libjpeg complains of; Pillow forgives some of it
        return to_rgb(encoded)
    return rgb if header.orientation == 1 else np.ascontiguousarray(turned(rgb, header.orientation))


def _is_readable(encoded: bytes) -> bool:
    try:
        decode_rgb(encoded)
    except UserError:
        return False
    return True


def resized(rgb: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Resize uint8 ``[H, W, 3]`` to a contiguous uint8 tensor ``[h, w, 3]``: bilinear, antialiased."""
    picture = torch.from_numpy(rgb)
    if rgb.shape[:2] == size:
        return picture
    # The batch axis comes before the permutation: only then does torch see channels_last, and not copy.
    source = picture[None].permute(0, 3, 1, 2)
    result = F.interpolate(source, size, mode="bilinear", antialias=True)
    return result.permute(0, 2, 3, 1)[0].contiguous()
