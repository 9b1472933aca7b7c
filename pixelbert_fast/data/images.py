"""Anything that holds a picture -> uint8 RGB: every source, every mode, every orientation."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import UserError
from .colours import narrowed, over_white, pil_colours, transparent_value
from .image_bounds import FORMATS, MAX_BYTES, MAX_PIXELS, closed_to, most_pixels, opened, undecoded
from .orientation import orientation_of

# Room for the rounding of an interpolation, an eighth of a grey level.
_FLOAT_SLACK = 0.0005


def to_rgb(image: Any, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the picture as a new uint8 array ``[H, W, 3]``, RGB, the right way up.

    `image` may be:

    - a PIL image of any mode;
    - an array, ``[H, W]``, ``[H, W, C]`` or ``[C, H, W]`` with C of 1, 3 (RGB) or 4 (RGBA): uint8, uint16
      (65535 is white), bool, floats in 0..1, or other integers in 0..255. Where both layouts are possible
      the last axis is the channel;
    - a torch tensor, likewise, but the first axis is the channel where both are possible;
    - bytes of an encoded file, a path to one, or a binary file object (read from where it stands).

    Transparency is laid over white. EXIF orientation is applied, to a PIL image too. Of an animation or a
    multi-page file the first picture is read. 16 bits are scaled to 8. PIL's mode I holds 8 bits where no
    value exceeds 255 and 16 bits else (always 16 in a PGM file); mode F is 0..1 where no value exceeds 1 and
    0..255 else. CMYK is converted without a colour profile, in a JPEG by Adobe's inverted convention; other
    embedded colour profiles are ignored too.

    Raises UserError for anything else, a broken file, a URL, or more than `max_pixels` pixels, and for what
    exceeds the bounds of `image_bounds`; the size is read from the header, before anything is decoded
    (Pillow's own limit on the size holds as well).
    """
    if isinstance(image, Image.Image):
        return _from_pil(image, f"a PIL image of mode {image.mode}", max_pixels)
    if isinstance(image, (bytes, bytearray, memoryview)):
        content = bytes(image)  # a view with steps between its bytes has no buffer to read from
        return _from_encoded(content, _encoded_name(content), max_pixels)
    if isinstance(image, (str, os.PathLike)):
        return _from_path(image, max_pixels)
    torch = sys.modules.get("torch")  # a tensor cannot exist unless torch was imported
    if torch is not None and isinstance(image, torch.Tensor):
        name = f"tensor of shape {list(image.shape)}"
        try:
            image = image.detach().cpu()
            # Of the narrow floats NumPy knows only float16.
            narrow = image.is_floating_point() and image.element_size() < 4
            array = (image.float() if narrow else image).numpy()
        except (NotImplementedError, RuntimeError, TypeError) as error:  # meta, sparse, quantised
            raise UserError(f"image {name} cannot be read: {_reason(error)}") from error
        return _from_array(array, name, channels_first=True)
    if isinstance(image, np.ndarray) or hasattr(image, "__array__"):
        array = np.asarray(image)
        return _from_array(array, f"array of shape {list(array.shape)}", channels_first=False)
    if callable(getattr(image, "read", None)):
        return _from_stream(image, max_pixels)
    raise UserError(
        f"a {type(image).__name__} is not an image: give a PIL image, an array, a tensor, bytes, a path or "
        "a binary file object"
    )


@dataclass(frozen=True)
class ImageHeader:
    """What an encoded image says of itself before anything is decoded.

    `height` and `width` are those stored, `orientation` (EXIF's 1 to 8) not yet applied; it is read of JPEGs
    alone, and 1 elsewhere. `file_format` and `mode` are Pillow's names.
    """

    file_format: str
    mode: str
    height: int
    width: int
    orientation: int


def read_header(encoded: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """The header of an encoded image, at the cost of some microseconds.

    Raises UserError, in the words of `to_rgb`, for what is no image and for more than `max_pixels` pixels.
    """
    name = _encoded_name(encoded)
    with _opened(encoded, name, max_pixels) as image:
        _check_bounds(image, name, max_pixels, encoded)
        # Pillow looks for a PNG's orientation behind its pixels, and would decode them.
        orientation = orientation_of(image) if image.format in ("JPEG", "MPO") else 1
        return ImageHeader(image.format or "", image.mode, image.height, image.width, orientation)


def _from_path(path: str | os.PathLike, max_pixels: int) -> np.ndarray:
    text = os.fsdecode(path)
    name = f"image file {_shortened(text)}"
    if re.match(r"[a-z][a-z0-9+.-]+://|data:", text, re.IGNORECASE):
        raise UserError(
            f"{name} is a URL, which is never fetched: download it and give the path or the bytes"
        )
    try:
        file = Path(text).expanduser()
        if not file.is_file():
            raise UserError(
                f"{name} is {'not a file' if file.exists() else 'missing'}: give the path of an image"
            )
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{name} cannot be read: {_reason(error)}") from error
    return _from_encoded(content, name, max_pixels)


def _from_stream(stream: Any, max_pixels: int) -> np.ndarray:
    name = f"image file object {_shortened(str(getattr(stream, 'name', type(stream).__name__)))}"
    try:
        content = stream.read()
    except Exception as error:
        raise UserError(f"{name} cannot be read: {_reason(error)}") from error
    if not isinstance(content, bytes):
        raise UserError(f"{name} does not yield bytes: open it in binary mode")
    return _from_encoded(content, name, max_pixels)


def _from_encoded(content: bytes, name: str, max_pixels: int) -> np.ndarray:
    with _opened(content, name, max_pixels) as image:
        return _from_pil(image, name, max_pixels, content)


@contextmanager
def _opened(content: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    if reason := closed_to(content):
        raise UserError(f"{name} {reason}")
    try:
        with opened(content) as image:
            yield image
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{name} is not an image that can be read (formats: {', '.join(FORMATS)})") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{name} has more than the {max_pixels:,} pixels that are decoded") from error
    except Exception as error:  # decoders raise nearly everything on broken input
        raise UserError(f"{name} is broken: {_reason(error)}") from error


def _encoded_name(encoded: bytes) -> str:
    return f"encoded image of {len(encoded)} bytes"


def _check_bounds(image: Image.Image, name: str, max_pixels: int, encoded: bytes | None = None) -> None:
    most = most_pixels(image, encoded, max_pixels)
    if image.width * image.height > most:
        kind = f" of a {image.format}" if most < max_pixels else ""
        raise UserError(
            f"{name} has {image.width} x {image.height} pixels, more than the {most:,} that are decoded{kind}"
        )
    if not image.width or not image.height:
        raise UserError(f"{name} has no pixels: its size is {image.width} x {image.height}")
    if reason := undecoded(image, encoded, max_pixels):
        raise UserError(f"{name} {reason}")


def _from_pil(image: Image.Image, name: str, max_pixels: int, encoded: bytes | None = None) -> np.ndarray:
    _check_bounds(image, name, max_pixels, encoded)
    try:
        transparent = transparent_value(image)  # before load(), which forgets how samples are packed
        image.load()
        return pil_colours(image, transparent, image.format, name, orientation_of(image))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{name} is broken: {_reason(error)}") from error


def _from_array(array: np.ndarray, name: str, *, channels_first: bool) -> np.ndarray:
    name = f"image {name}"
    if array.ndim == 2:
        array, channels_first = array[..., None], False
    first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
    last = array.ndim == 3 and array.shape[-1] in (1, 3, 4)
    if not (first or last):
        raise UserError(
            f"{name} is not one picture: expected [H, W], [H, W, C] or [C, H, W] with C 1, 3 or 4"
        )
    if first and (channels_first or not last):
        array = np.moveaxis(array, 0, -1)
    if not array.size:
        raise UserError(f"{name} has no pixels")
    array = _eight_bits(array, name)
    if array.shape[-1] == 4:
        return over_white(array)
    return np.array(np.broadcast_to(array, (*array.shape[:2], 3)), order="C")


def _eight_bits(array: np.ndarray, name: str) -> np.ndarray:
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * 255
    if kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        return narrowed(array)
    if kind in "iu":
        if array.min() < 0 or array.max() > 255:
            raise UserError(
                f"{name} ({array.dtype}) has values outside 0..255: use uint16 for 16-bit samples"
            )
        return array.astype(np.uint8)
    if kind == "f":
        if not (array.min() >= -_FLOAT_SLACK and array.max() <= 1 + _FLOAT_SLACK):  # false for NaN too
            raise UserError(
                f"{name} ({array.dtype}) has values outside 0..1 or NaN: divide 0..255 by 255 first"
            )
        return np.rint(np.clip(array, 0, 1) * np.float32(255)).astype(np.uint8)
    raise UserError(f"{name} has dtype {array.dtype}: expected uint8, uint16, bool or floats in 0..1")


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:80]}...")


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the file's name, which may be as long as what was given
    return str(error).partition("\n")[0] or type(error).__name__
