"""Small files that would take much memory or time, or that hide a larger picture than they declare."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

from tests.mutated_images import encoded, png_header, resized_header

SHORT, LONG = 3, 4  # types of a TIFF's values


def webp(side: int) -> bytes:
    """A lossless WebP of that size, cut off behind its header."""
    header = b"\x2f" + struct.pack("<L", (side - 1) | (side - 1) << 14)
    return (
        b"RIFF"
        + struct.pack("<L", 12 + len(header) + 1)
        + b"WEBPVP8L"
        + struct.pack("<L", len(header))
        + header
        + b"\0"
    )


def progressive(side: int = 16, scans: int | None = None) -> bytes:
    """A progressive JPEG of four samples a pixel; its last scan repeated until there are so many."""
    content = encoded(Image.new("CMYK", (16, 16), (9, 99, 0, 0)), progressive=True, quality=90)
    place = content.index(b"\xff\xc2") + 5
    content = content[:place] + struct.pack(">HH", side, side) + content[place + 4 :]
    if scans is not None:
        last = content.rindex(b"\xff\xda")
        missing = scans - content.count(b"\xff\xda")
        content = content[:-2] + content[last:-2] * missing + content[-2:]
    return content


def tiff(side: int, bits: tuple[int, ...] = (8,), **more: tuple[int, int, int]) -> bytes:
    """A TIFF of one deflated strip and no pixels. more: further tags, or others: (tag, type, value)."""
    tags = {
        256: (LONG, 1, side),
        257: (LONG, 1, side),
        258: (SHORT, len(bits), bits[0] if len(bits) == 1 else 8 + 2 + 12 * 9 + 4 + 2),
        259: (SHORT, 1, 8),
        262: (SHORT, 1, 1 if len(bits) == 1 else 2),
        273: (LONG, 1, 8),
        277: (SHORT, 1, len(bits)),
        278: (LONG, 1, side),
        279: (LONG, 1, 4),
    }
    for tag, kind, value in more.values():
        count = value if kind == 0 else 1
        tags[tag] = (kind or LONG, count, 8 if kind == 0 else value)
    entries = b"".join(struct.pack("<HHLL", tag, *tags[tag]) for tag in sorted(tags))
    body = struct.pack("<H", len(tags)) + entries + struct.pack("<L", 0) + b"\0\0"
    return b"II*\0" + struct.pack("<L", 8) + body + struct.pack(f"<{len(bits)}H", *bits) + bytes(64)


def ico(side: int) -> bytes:
    """An icon of 16 x 16 pixels whose picture is a PNG of `side` x `side`."""
    inner = png_header(side, side)
    return struct.pack("<3H4B2H2L", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def jpeg_2000(side: int) -> bytes:
    """A codestream of that size, cut off behind its header."""
    size = struct.pack(">HHLLLLLLLLH", 41, 0, side, side, 0, 0, side, side, 0, 0, 1) + b"\7\1\1"
    return b"\xff\x4f\xff\x51" + size + bytes(64)


def bmp_rle(side: int) -> bytes:
    """A BMP of run lengths, which Pillow decodes by Python."""
    small = encoded(Image.fromarray(np.zeros((4, 4), np.uint8)), "BMP")
    return small[:18] + struct.pack("<ll", side, side) + small[26:30] + struct.pack("<L", 1) + small[34:]


def bombs() -> dict[str, tuple[bytes, str]]:
    """By name: the file, and a pattern of what is said of it."""
    grey = Image.fromarray(np.zeros((3000, 3000), np.uint8))
    levels = encoded(grey, "PPM").replace(b"\n255\n", b"\n254\n", 1)
    jpeg = encoded(Image.new("RGB", (16, 16)))
    return {
        "webp": (webp(9459), r"9459 x 9459 pixels, more than the [\d,]+ that are decoded of a WEBP"),
        "largest webp": (webp(16383), r"has (16383 x 16383 pixels, )?more than the"),
        "progressive jpeg": (progressive(9000), "9000 x 9000 pixels, more than the .* of a JPEG"),
        "many scans": (progressive(scans=2000), "is a JPEG of more than 64 scans"),
        "jpeg": (resized_header(jpeg, 9460, 9460), "9460 x 9460 pixels, more than the 89,478,485 that"),
        "deep tiff": (tiff(9000, (16, 16, 16)), "9000 x 9000 pixels, more than the .* of a TIFF"),
        "large tile": (tiff(16, w=(322, LONG, 60000), h=(323, LONG, 60000)), "tiles of 60000 x 60000 pixels"),
        "lzma": (tiff(16, c=(259, SHORT, 34925)), "is a TIFF compressed by lzma, which is not decoded"),
        "many strips": (tiff(16, s=(273, 0, 2**19)), "more than 262,144 values of one tag"),
        "slow ppm": (levels, "3000 x 3000 pixels, more than the 2,097,152 that are decoded of a PPM"),
        "slow bmp": (bmp_rle(3000), "3000 x 3000 pixels, more than the 2,097,152 that are decoded of a BMP"),
        "icon": (ico(13000), "is not an image that can be read"),
        "jpeg 2000": (jpeg_2000(9459), "is not an image that can be read"),
        "png": (png_header(9460, 9460), "9460 x 9460 pixels, more than the 89,478,485 that"),
    }
