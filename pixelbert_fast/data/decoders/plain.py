"""The decoder that needs nothing: simplejpeg for JPEGs if installed, Pillow for the rest, an own resize.

simplejpeg calls libjpeg-turbo, as Pillow does, without Pillow's rows of four bytes a pixel; the pictures are
the same to the bit. They are resized and normalised in one pass by `ops.resize_picture`, or by PyTorch where
that library was not built. Decoding at a smaller scale (libjpeg's own) or with its faster transforms was 4 to
24 levels off, and gained a twentieth at most.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ..images import read_header, to_rgb
from ..orientation import turned
from .buffers import Buffers
from .contract import Broken, DecodedBatch, check_request, sizes_tensor
from .normalising import Normalisation

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

NAME = "plain"

Result = TypeVar("Result")

# A larger picture's memory is given back.
_KEPT_BYTES = 16 * 2**20


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
        self._memory = _OwnMemory()
        self._threads = threads or torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="decode")

    def decode(
        self, encoded: Sequence[bytes], sizes: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float32
    ) -> DecodedBatch:
        sizes, largest = check_request(encoded, sizes, dtype)
        values = self._buffers.empty((len(sizes), *largest, 3), dtype)
        reasons = self._by_all(self._decode_into, values, encoded, sizes)
        broken = tuple(Broken(place, reason) for place, reason in enumerate(reasons) if reason is not None)
        return DecodedBatch(values.permute(0, 3, 1, 2), sizes_tensor(sizes), broken)

    def readable(self, encoded: Sequence[bytes]) -> list[bool]:
        """Of each image whether it can be decoded."""
        return self._by_all(_is_readable, encoded)

    def close(self) -> None:
        self._pool.shutdown()

    def _by_all(self, function: Callable[..., Result], *arguments: Sequence) -> list[Result]:
        """What `map` gives, by all threads. Each takes the next place when it is done with one: a task for
        every image would wake a thread every time.
        """
        places, results = deque(range(len(arguments[0]))), {}

        def work() -> None:
            while places:
                try:
                    place = places.popleft()
                except IndexError:  # another thread was faster
                    return
                results[place] = function(*(each[place] for each in arguments))

        workers = [self._pool.submit(work) for _ in range(min(self._threads, len(places)))]
        for worker in workers:
            worker.result()
        return [results[place] for place in range(len(results))]

    def _decode_into(self, out: Tensor, encoded: bytes, size: tuple[int, int]) -> str | None:
        """Decode one image to the upper left of `out`, ``[H, W, 3]``; the reason where it is broken."""
        try:
            picture = torch.from_numpy(decode_rgb(encoded, self._memory))
        except UserError as error:
            _clear(out)
            return str(error)
        height, width = size
        self._normalisation.into(out[:height, :width], picture)
        _clear(out[height:])
        _clear(out[:height, width:])
        return None


def _clear(part: Tensor) -> None:
    # Not by torch, which would start its own threads from each of the decoder's.
    part.view(torch.uint8).numpy()[...] = 0


class _OwnMemory(threading.local):
    """Of each thread, for the picture it decodes: fresh pages cost some 3 % of all it takes."""

    kept: np.ndarray | None = None

    def of(self, size: int) -> np.ndarray | None:
        """At least `size` bytes, overwritten by the next; None for what is too large to keep."""
        if size > _KEPT_BYTES:
            return None
        if self.kept is None or self.kept.nbytes < size:
            self.kept = np.empty(size, dtype=np.uint8)
        return self.kept


def decode_rgb(encoded: bytes, memory: _OwnMemory | None = None) -> np.ndarray:
    """An encoded image -> uint8 ``[H, W, 3]``, the same as `images.to_rgb`, which decides whatever is odd.

    With `memory`, the picture may be lost when the same thread decodes the next one. Raises UserError for a
    broken image, and for a larger one than is decoded.
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
        buffer = memory.of(3 * height * width) if memory is not None else None
        rgb = simplejpeg.decode_jpeg(encoded, "RGB", buffer=buffer)
    except (ValueError, MemoryError):  # whatever libjpeg complains of; Pillow forgives some of it
        return to_rgb(encoded)
    return rgb if header.orientation == 1 else np.ascontiguousarray(turned(rgb, header.orientation))


def _is_readable(encoded: bytes) -> bool:
    try:
        decode_rgb(encoded)
    except UserError:
        return False
    return True
