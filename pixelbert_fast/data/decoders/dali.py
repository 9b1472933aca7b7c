"""The decoder of NVIDIA DALI: nvImageCodec on a GPU, libjpeg-turbo on a CPU.

DALI loses a whole batch to one broken image. So headers are read first, only pictures that it decodes as the
processor does are given to it (JPEG, grey or colour), and the plain decoder takes the others; in DALI's batch
a placeholder stands for each of those. Where a run fails all the same, the plain decoder finds the culprits
and DALI runs once more without them: broken images cost at most that, however many they are.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import UserError
from ..images import read_header
from .contract import Broken, DecodedBatch, check_request, sizes_tensor
from .normalising import Normalisation
from .plain import PlainDecoder

NAME = "dali"

_logger = logging.getLogger(__name__)

# A grey JPEG of 8 x 8 pixels.
_PLACEHOLDER = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300100b0c0e0c0a100e0d0e1211101318281a181616183123251d"
    "283a333d3c3933383740485c4e404457453738506d51575f626768673e4d71797064785c656763ffc0000b08000800080101"
    "1100ffc40014000100000000000000000000000000000000ffc40014100100000000000000000000000000000000ffda0008"
    "010100003f003fffd9"
)


def why_not(device_type: str) -> str | None:
    """See `choice`."""
    if device_type not in ("cpu", "cuda"):
        return f"it decodes to the CPU or to an NVIDIA GPU, not to {device_type}."
    return _why_not_installed()


@cache
def _why_not_installed() -> str | None:
    # Looked for, not imported: the import takes a second, and `pixelbert env` only asks.
    vendor = importlib.util.find_spec("nvidia")
    places = (vendor and vendor.submodule_search_locations) or ()
    found = any(Path(place, "dali", "__init__.py").is_file() for place in places)
    return None if found else "DALI is not installed; the package's extra `dali` brings it."


@cache
def _say_once() -> None:
    _logger.warning(
        "DALI fails on images that the plain decoder reads, which now decodes their batches;"
        " reasons are logged at level DEBUG"
    )


class DaliDecoder:
    """See `contract.Decoder`. On a CPU, batches of one size are DALI's own memory, without a copy.

    On a GPU they are copies, in torch's memory: DALI would use its own again as soon as the tensor is gone,
    when what was asked of the device with it may not have been done yet.

    Args:
        normalisation: of the image processor.
        device: where decoding ends, and where the batches are.
        threads: of DALI; None: as many as torch uses.
    """

    name = NAME

    def __init__(
        self, normalisation: Normalisation, device: torch.device, threads: int | None = None
    ) -> None:
        self._normalisation = normalisation
        self._device = device
        self._threads = threads or torch.get_num_threads()
        self._plain = PlainDecoder(normalisation, self._threads)
        self._pipelines: dict[torch.dtype, tuple[int, Any]] = {}
        self._lock = threading.Lock()
        # Beside the training's work on a GPU; None on a CPU.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._builds = True

    def decode(
        self, encoded: Sequence[bytes], sizes: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float32
    ) -> DecodedBatch:
        sizes, largest = check_request(encoded, sizes, dtype)
        mine = [self._builds and _suits(image) for image in encoded]
        images = self._run(encoded, mine, sizes, dtype)
        if images is None and self._builds and any(mine):
            # Without what the plain decoder refuses as well: then the others are what they would have been.
            whole = self._plain.readable(encoded)
            mine = [suits and read for suits, read in zip(mine, whole, strict=True)]
            images = self._run(encoded, mine, sizes, dtype)
            if images is None and self._builds and any(mine):
                _say_once()
        if images is None:
            mine = [False] * len(mine)
        others = [place for place, suits in enumerate(mine) if not suits]
        plain = self._plain.decode([encoded[n] for n in others], [sizes[n] for n in others], dtype)
        broken = tuple(Broken(others[place], reason) for place, reason in plain.broken)
        with torch.cuda.stream(self._stream):
            if len(others) == len(mine):
                values = plain.pixel_values.to(self._device)
            else:
                values = self._joined(images, sizes, largest, dtype)
                for place, picture in zip(others, plain.pixel_values.permute(0, 2, 3, 1), strict=True):
                    height, width = sizes[place]
                    values[place, :height, :width].copy_(picture[:height, :width])
                values = values.permute(0, 3, 1, 2)
        if self._stream is not None:
            self._stream.synchronize()
            # Torch must not use this memory again before what its reader asked of the device is done.
            values.record_stream(torch.cuda.default_stream(self._device))
        return DecodedBatch(values, sizes_tensor(sizes), broken)

    def close(self) -> None:
        self._pipelines.clear()
        self._plain.close()

    def _run(
        self, encoded: Sequence[bytes], mine: list[bool], sizes: list[tuple[int, int]], dtype: torch.dtype
    ) -> Any:
        """DALI's images, placeholders where they are not `mine`; None where there are none, or it fails."""
        if not any(mine):
            return None
        given = [image if suits else _PLACEHOLDER for image, suits in zip(encoded, mine, strict=True)]
        with self._lock:
            capacity, pipeline = self._pipelines.get(dtype, (0, None))
            if len(given) > capacity:
                try:
                    capacity, pipeline = len(given), self._pipeline(len(given), dtype)
                except RuntimeError as error:  # a driver that is too old for it, say
                    _logger.warning("DALI does not start, the plain decoder takes its place: %s", error)
                    self._builds = False
                    return None
                self._pipelines[dtype] = capacity, pipeline
            pipeline.feed_input("encoded", [np.frombuffer(image, dtype=np.uint8) for image in given])
            pipeline.feed_input("sizes", [np.array(size, dtype=np.float32) for size in sizes])
            try:
                return pipeline.run()[0]
            except RuntimeError as error:
                _logger.debug("DALI failed on a batch of %d: %s", len(given), error)
                return None

    def _pipeline(self, capacity: int, dtype: torch.dtype) -> Any:
        from nvidia.dali import fn, pipeline_def, types

        on_gpu = self._device.type == "cuda"
        device_id = (self._device.index or 0) if on_gpu else None

        # One batch in flight: what runs ahead is the thread that calls `decode`.
        @pipeline_def(
            batch_size=capacity, num_threads=self._threads, device_id=device_id, prefetch_queue_depth=1
        )
        def graph():
            encoded = fn.external_source(name="encoded", dtype=types.UINT8, ndim=1)
            sizes = fn.external_source(name="sizes", dtype=types.FLOAT, ndim=1)
            images = fn.decoders.image(
                encoded,
                device="mixed" if on_gpu else "cpu",
                output_type=types.RGB,
                # Off, a GPU would repeat the colours of neighbours where a CPU interpolates them.
                jpeg_fancy_upsampling=True,
            )
            # subpixel_scale would move the picture's borders; every size here is whole already.
            images = fn.resize(
                images, size=sizes, interp_type=types.INTERP_LINEAR, antialias=True, subpixel_scale=False
            )
            if dtype == torch.uint8:
                return images
            return fn.crop_mirror_normalize(
                images,
                # It knows no bfloat16.
                dtype=types.FLOAT16 if dtype == torch.float16 else types.FLOAT,
                mean=[255 * mean for mean in self._normalisation.mean],
                std=[255 * std for std in self._normalisation.std],
                output_layout="HWC",
            )

        pipeline = graph()
        pipeline.build()
        return pipeline

    def _joined(
        self, images: Any, sizes: list[tuple[int, int]], largest: tuple[int, int], dtype: torch.dtype
    ) -> Tensor:
        """DALI's images as one tensor ``[B, H, W, 3]``; on a CPU a copy only where sizes or dtypes differ."""
        if all(size == largest for size in sizes):
            return torch.from_dlpack(images.as_tensor()).to(dtype, copy=self._stream is not None)
        values = torch.zeros(len(sizes), *largest, 3, dtype=dtype, device=self._device)
        for place, (height, width) in enumerate(sizes):
            values[place, :height, :width].copy_(torch.from_dlpack(images[place]))
        return values


def _suits(encoded: bytes) -> bool:
    """Whether DALI decodes the image as `images.to_rgb` does, as far as its header tells."""
    try:
        header = read_header(encoded)
    except UserError:
        return False
    if header.file_format not in ("JPEG", "MPO") or header.mode not in ("L", "RGB"):
        return False
    # Of the orientation DALI reads the EXIF form alone; XMP has another.
    return header.orientation == 1 or b"tiff:Orientation" not in encoded
