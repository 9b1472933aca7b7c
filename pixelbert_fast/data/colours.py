"""The colours of a PIL image of any mode -> uint8 RGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from .orientation import as_stored, swaps_sides

Convert = Callable[[Image.Image], np.ndarray]
"""A strip -> uint8 ``[H, W, 3]``, or ``[H, W, 1]`` of a grey one."""

# What a sample of a PNG is multiplied by when Pillow widens it to 8 bits; the transparent value in the
# file's header is not widened with it.
_PNG_WIDENING = {"L;2": 85, "L;4": 17}

# Pixels that are converted at a time: the steps of a conversion take up to 25 bytes a pixel.
_STRIP = 1 << 20


def transparent_value(image: Image.Image) -> Any:
    """What `info["transparency"]` should say, in the samples that Pillow decodes to."""
    value = image.info.get("transparency")
    tile = getattr(image, "tile", None)
    if image.format != "PNG" or value is None or not tile:
        return value
    packing = tile[0][3] if isinstance(tile[0][3], str) else tile[0][3][0]
    if packing == "RGB;16B":
        return tuple(sample >> 8 for sample in value)
    if packing == "1":
        return 255 if value else 0
    return value * _PNG_WIDENING.get(packing, 1) if isinstance(value, int) else value


def pil_colours(
    image: Image.Image, transparent: Any, file_format: str | None, name: str, orientation: int = 1
) -> np.ndarray:
    """uint8 ``[H, W, 3]`` of a decoded image, transparency over white, turned by an EXIF orientation.

    `transparent` is its `transparent_value`, and `name` what errors call it. Beside the image and the result
    little memory is taken, whatever the mode.

    Raises UserError for samples of which nobody can say what is white.
    """
    width, height = image.size
    colours = _deep_colours if image.mode in ("I", "F") or image.mode.startswith("I;16") else _colours
    convert = colours(image, transparent, file_format, name)
    sides = (width, height) if swaps_sides(orientation) else (height, width)
    rgb = np.empty((*sides, 3), dtype=np.uint8)
    stored = as_stored(rgb, orientation)
    for rows, strip in _strips(image):
        stored[rows] = convert(strip)
    return rgb


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """The rows of each strip, and the strip."""
    width, height = image.size
    rows = max(_STRIP // width, 1)
    if height <= rows:
        yield slice(None), image
        return
    for top in range(0, height, rows):
        end = min(top + rows, height)
        yield slice(top, end), image.crop((0, top, width, end))


def _colours(image: Image.Image, transparent: Any, file_format: str | None, name: str) -> Convert:
    if image.mode == "LAB":
        return _from_lab()
    return lambda strip: _eight_bit_colours(strip, transparent)


def _deep_colours(image: Image.Image, transparent: Any, file_format: str | None, name: str) -> Convert:
    """Of one channel of more than 8 bits."""
    grey = _deep_grey(image, file_format, name)

    def convert(strip: Image.Image) -> np.ndarray:
        samples = np.asarray(strip)
        levels = grey(samples)
        if isinstance(transparent, int):
            levels = np.where(samples == transparent, np.uint8(255), levels)
        return levels[..., None]

    return convert


def _eight_bit_colours(image: Image.Image, transparent: Any) -> np.ndarray:
    if image.mode in ("1", "L", "RGB"):
        rgb = np.array(image.convert("RGB"))
        if isinstance(transparent, (int, tuple)):  # one colour (or grey level) stands for "nothing here"
            rgb[(rgb == np.asarray(transparent, dtype=np.int64)).all(axis=-1)] = 255
        return rgb
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # premultiplied grey has no way to RGBA
        return over_white(np.array(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _deep_grey(image: Image.Image, file_format: str | None, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """From samples to grey levels, by the least and the largest of all."""
    mode, low, top = image.mode, np.inf, -np.inf
    for _, strip in _strips(image):
        samples = np.asarray(strip)
        low, top = np.minimum(low, samples.min()), np.maximum(top, samples.max())  # NaN stays
    if mode == "F":
        if not (low >= 0 and top <= 255):  # false for NaN too
            raise UserError(f"{name} (mode F) has values outside 0..255 or NaN: scale it to 0..1 first")
        scale = np.float32(255 if top <= 1 else 1)
        return lambda samples: np.rint(samples * scale).astype(np.uint8)
    if low < 0 or top > 65535:
        raise UserError(f"{name} (mode {mode}) has values outside 0..65535: scale it to 8 or 16 bits first")
    if mode == "I" and top <= 255 and file_format != "PPM":
        return lambda samples: samples.astype(np.uint8)
    return narrowed


def _from_lab() -> Convert:
    try:
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    except ImportError as error:
        raise UserError(
            "a LAB image needs a Pillow built with LittleCMS: convert the image to RGB first"
        ) from error
    transform = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    return lambda strip: np.asarray(ImageCms.applyTransform(strip, transform))


def narrowed(samples: np.ndarray) -> np.ndarray:
    """16 bits -> 8, to the nearest: 0 stays black and 65535 becomes 255."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def over_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 ``[H, W, 4]`` -> uint8 ``[H, W, 3]``, to the nearest; the sum stays below 2**16."""
    alpha = rgba[..., 3:].astype(np.uint16)
    return ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
