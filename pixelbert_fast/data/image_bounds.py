"""What of an encoded image is decoded: so many pixels, and so much memory and time, that no file is a bomb.

All of it is read from headers, before anything is decoded. One decode takes at most `MAX_MEMORY` beside the
bytes of the file itself.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from itertools import islice

from PIL import Image

MAX_PIXELS = 89_478_485
"""Largest picture that is decoded, in pixels: a quarter of a GiB at three bytes each, Pillow's own bound."""

MAX_MEMORY = 768 * 2**20
"""What decoding one image may take, in bytes: kinds that take more a pixel may have fewer of them."""

MAX_BYTES = 128 * 2**20
"""Largest file that is read: far above any photograph, and a bound on what a record costs."""

MAX_SCANS = 64
"""Most passes of a JPEG over its picture, each of which costs time: programs write a dozen at most."""

MAX_PIXELS_IN_PYTHON = 2**21
"""Largest picture of the kinds that Pillow decodes by Python, at more than a second for a million pixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Those whose header holds for what is decoded, by decoders in this process.

Pillow hands EPS and WMF to other programs; an ICO, ICNS or AVIF may hide a larger picture than it declares;
JPEG 2000 takes 19 bytes a pixel, from a file of a kilobyte.
"""

# Strips of a conversion (`colours`), and what decoders keep however small the picture.
_BESIDE = 64 * 2**20
_BYTES_OF_MODE = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
_RGB = 3
# Two canvases of libwebp, and what it hands over.
_WEBP_BYTES = 12
_IN_PYTHON = ("ppm", "ppm_plain", "bmp_rle")
# Of the others libtiff has, lzma and zstd take what memory the file says.
_TIFF_COMPRESSIONS = (
    "raw", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_jpeg", "jpeg", "tiff_adobe_deflate",
    "tiff_deflate", "packbits",
)  # fmt: skip
_TIFF_BITS, _TIFF_TILE = 258, (322, 323)
# Pillow makes an object of every strip and of every number, hundreds of bytes each.
_MOST_VALUES = 2**18
_TIFF_BYTES = (1, 2, 6, 7)
_SCAN = b"\xff\xda"
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")


def closed_to(encoded: bytes) -> str | None:
    """Why an encoded image is not even opened, to stand behind its name; None where it is."""
    if len(encoded) > MAX_BYTES:
        return f"is larger than {MAX_BYTES >> 20} MiB"
    if encoded[:2] in (b"II", b"MM") and _tiff_values(encoded) > _MOST_VALUES:
        return f"is a TIFF with more than {_MOST_VALUES:,} values of one tag"
    return None


def most_pixels(image: Image.Image, encoded: bytes | None = None, most: int = MAX_PIXELS) -> int:
    """How many pixels an image of this kind may have, at most `most`.

    image: opened, not decoded. encoded: its bytes; None of an image that the caller opened.
    """
    codecs = {tile[0] for tile in getattr(image, "tile", None) or ()}
    if codecs & set(_IN_PYTHON):
        most = min(most, MAX_PIXELS_IN_PYTHON)
    return min(most, (MAX_MEMORY - _BESIDE) // _bytes_a_pixel(image, encoded))


def undecoded(image: Image.Image, encoded: bytes | None = None, most: int = MAX_PIXELS) -> str | None:
    """Why an opened image is not decoded, whatever its size; to stand behind its name. None where it is."""
    if image.format == "TIFF":
        compression = image.info.get("compression", "raw")
        if compression not in _TIFF_COMPRESSIONS:
            return f"is a TIFF compressed by {compression}, which is not decoded"
        height, width = (_whole(image.tag_v2.get(tag)) for tag in _TIFF_TILE)
        if height * width > most_pixels(image, encoded, most):
            return f"is a TIFF of tiles of {height} x {width} pixels, more than are decoded"
    if image.format in ("JPEG", "MPO") and encoded is not None and _keeps_coefficients(image, encoded):
        # Counting is fast, and enough for most: in the data no marker can stand, in a preview it can.
        many = encoded.count(_SCAN) > MAX_SCANS
        if many and sum(1 for _ in islice(_scans(encoded), MAX_SCANS + 1)) > MAX_SCANS:
            return f"is a JPEG of more than {MAX_SCANS} scans"
    return None


def opened(encoded: bytes) -> Image.Image:
    """The image, by its header alone. Raises what Pillow raises."""
    Image.init()  # registers every format; some are missing from some builds of Pillow
    return Image.open(io.BytesIO(encoded), formats=[known for known in FORMATS if known in Image.OPEN])


def _bytes_a_pixel(image: Image.Image, encoded: bytes | None) -> int:
    """An upper bound: the picture as Pillow holds it, and beside it what the decoder takes or the result."""
    return _BYTES_OF_MODE.get(image.mode, 4) + max(_RGB, _decoder_bytes(image, encoded))


def _decoder_bytes(image: Image.Image, encoded: bytes | None) -> int:
    if image.format == "WEBP":
        return _WEBP_BYTES
    if image.format == "TIFF":  # a strip or tile, which is at most the picture
        bits = image.tag_v2.get(_TIFF_BITS, 1)
        return -(-sum(bits if isinstance(bits, tuple) else (_whole(bits),)) // 8)
    if image.format in ("JPEG", "MPO") and encoded is not None and _keeps_coefficients(image, encoded):
        return 2 * image.layers
    return 0


def _keeps_coefficients(image: Image.Image, encoded: bytes) -> bool:
    """Whether a JPEG is read in several passes: else libjpeg keeps a row of blocks, and allows one scan."""
    return bool(image.info.get("progressive")) or next(_scans(encoded), image.layers) < image.layers


def _scans(encoded: bytes) -> Iterator[int]:
    """The number of components of each scan of a JPEG."""
    place = 2
    while found := _JPEG_MARKER.search(encoded, place):
        marker, place = found[1][0], found.end()
        if marker == 0xD9:
            return
        if marker in (0x01, 0xD8):
            continue
        if marker == 0xDA and place + 2 < len(encoded):
            yield encoded[place + 2]
        place += int.from_bytes(encoded[place : place + 2])


def _tiff_values(encoded: bytes) -> int:
    """The most values that a tag of the first directory has, those of bytes left out."""
    order = "<" if encoded[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(f"{order}H", encoded, 2)[0] == 43
        (place,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", encoded, 8 if big else 4)
        (entries,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", encoded, place)
        place += 8 if big else 2
        most = 0
        for _ in range(entries):
            _, kind, count = struct.unpack_from(f"{order}HH{'Q' if big else 'L'}", encoded, place)
            most = max(most, 0 if kind in _TIFF_BYTES else count)
            place += 20 if big else 12
        return most
    except struct.error:  # cut off, which the decoder says
        return 0


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
