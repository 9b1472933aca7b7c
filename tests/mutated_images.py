"""Files as data sets hold them: whole ones of many kinds, and broken ones, each from its number alone."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.errors import UserError

HEIGHT, WIDTH = 40, 56
BROKEN_KINDS = ("truncated", "empty", "html", "cut in the header", "huge jpeg", "huge png", "broken png")
WHOLE_KINDS = (
    "jpeg", "grey jpeg", "progressive jpeg", "turned jpeg", "turned by xmp", "cmyk jpeg", "grey 16-bit png",
    "palette png", "animated gif", "transparent png", "webp", "no end",
)  # fmt: skip
KINDS = (*WHOLE_KINDS, *BROKEN_KINDS, "flipped bits")
"""Of flipped bits nobody knows before whether the file can still be read."""


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Slow colours under fine grain, uint8 ``[H, W, 3]``."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [
        128 + 80 * np.sin(draw.normal(0, 0.1) * x + draw.normal(0, 0.1) * y + draw.uniform(0, 6))
        for _ in "RGB"
    ]
    return np.clip(np.stack(waves, axis=2) + draw.normal(0, 6, (height, width, 1)), 0, 255).astype(np.uint8)


def encoded(image: Image.Image, file_format: str = "JPEG", **options) -> bytes:
    """The file's bytes."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def mutated(kind: str, seed: int) -> bytes:
    """A file of that kind."""
    draw = np.random.default_rng((seed, KINDS.index(kind)))
    rgb = Image.fromarray(picture(seed))
    jpeg = encoded(rgb, quality=90)
    if kind in ("jpeg", "grey jpeg", "cmyk jpeg"):
        return encoded(rgb.convert({"jpeg": "RGB", "grey jpeg": "L", "cmyk jpeg": "CMYK"}[kind]), quality=90)
    if kind == "progressive jpeg":
        return encoded(rgb, quality=90, progressive=True)
    if kind == "turned jpeg":
        exif = Image.Exif()
        exif[0x0112] = 1 + seed % 8
        return encoded(rgb, quality=90, exif=exif)
    if kind == "turned by xmp":
        return encoded(rgb, quality=90, xmp=b'<x:xmpmeta tiff:Orientation="6"></x:xmpmeta>')
    if kind == "grey 16-bit png":
        return encoded(Image.fromarray(picture(seed)[..., 0].astype(np.uint16) * 257), "PNG")
    if kind == "palette png":
        return encoded(rgb.quantize(16), "PNG", transparency=seed % 16)
    if kind == "animated gif":
        frames = [Image.fromarray(picture(seed + number)) for number in range(1, 4)]
        return encoded(rgb, "GIF", save_all=True, append_images=frames)
    if kind == "transparent png":
        rgb.putalpha(Image.fromarray(picture(seed + 1)[..., 0]))
        return encoded(rgb, "PNG")
    if kind == "webp":
        return encoded(rgb, "WEBP", lossless=True)
    if kind == "no end":
        return jpeg + b"\0" * 7  # bytes behind the end of the picture are common, and harmless
    if kind == "truncated":
        return jpeg[: int(draw.integers(len(jpeg) // 2, len(jpeg) - 40))]
    if kind == "cut in the header":
        return jpeg[: int(draw.integers(1, 160))]
    if kind == "empty":
        return b""
    if kind == "html":
        return b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 20
    if kind == "huge jpeg":
        return resized_header(jpeg, 30_000, 30_000)
    if kind == "huge png":
        return png_header(30_000, 30_000)
    if kind == "broken png":
        png = bytearray(encoded(rgb, "PNG"))
        place = len(png) // 2
        png[place : place + 64] = bytes(64)
        return bytes(png)
    if kind == "flipped bits":
        flipped = bytearray(jpeg)
        for place in draw.integers(2, len(jpeg), 5).tolist():
            flipped[place] ^= 1 << int(draw.integers(8))
        return bytes(flipped)
    raise ValueError(kind)


def files(count: int) -> list[tuple[str, bytes]]:
    """(kind, bytes) of `count` files, every kind as often as any other."""
    return [
        (KINDS[number % len(KINDS)], mutated(KINDS[number % len(KINDS)], number)) for number in range(count)
    ]


def is_broken(content: bytes) -> bool:
    """Whether the image processor refuses it, which is what says so."""
    try:
        to_rgb(content)
    except UserError:
        return True
    return False


def resized_header(jpeg: bytes, height: int, width: int) -> bytes:
    """A baseline JPEG whose header declares another size."""
    place = jpeg.index(b"\xff\xc0")
    return jpeg[: place + 5] + struct.pack(">HH", height, width) + jpeg[place + 9 :]


def png_header(height: int, width: int) -> bytes:
    """A PNG that declares this size, with some pixels behind it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
