"""The paper's size rule, and the resize itself."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..errors import UserError


def target_size(
    height: int, width: int, short_side: int, long_side: int, divisor: int = 1, least_side: int = 1
) -> tuple[int, int]:
    """Return the (height, width) in pixels that an image of `height` x `width` is resized to.

    Pixel-BERT's rule (800 and 1333 for ResNet-50, 600 and 1000 for ResNeXt-152): the shorter side becomes
    `short_side`, unless the longer one would then pass `long_side`; then the longer one becomes `long_side`.
    The other side keeps the proportion, its fraction dropped, as in torchvision and transformers:
    480 x 640 -> 800 x 1066. Small images grow.

    A `divisor` above 1 then rounds each side to its nearest multiple, halves up, at least one multiple; this
    may pass `long_side` by up to half a divisor. No side becomes less than `least_side` (rounded up to a
    multiple), what a model needs to find one place in an image: 3 x 1000 is made thicker, not refused.

    Raises UserError for a size or an option that is not a positive integer, or for sides that are not in the
    order `least_side` <= `short_side` <= `long_side`.
    """
    check_size_options(short_side, long_side, divisor, least_side)
    if height < 1 or width < 1:
        raise UserError(
            f"an image of {height} x {width} pixels cannot be resized: both sides must be at least 1"
        )
    short, long = min(height, width), max(height, width)
    # Integers throughout: a float quotient can fall just below the whole number it should be.
    new_short, new_long = short_side, short_side * long // short
    if new_long > long_side:
        new_short, new_long = max(1, long_side * short // long), long_side
    size = (new_short, new_long) if height <= width else (new_long, new_short)
    fewest = -(-least_side // divisor)
    return tuple(max(fewest, (2 * side + divisor) // (2 * divisor)) * divisor for side in size)


def check_size_options(short_side: int, long_side: int, divisor: int, least_side: int = 1) -> None:
    """Raise UserError, naming the option, unless they are positive whole numbers in the right order."""
    options = {
        "short_side": short_side,
        "long_side": long_side,
        "size_divisor": divisor,
        "least_side": least_side,
    }
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise UserError(f"{name} is {value!r}: it must be a positive whole number of pixels")
    if long_side < short_side:
        raise UserError(f"long_side ({long_side}) is less than short_side ({short_side}): raise long_side")
    if short_side < least_side:
        raise UserError(
            f"short_side ({short_side}) is less than least_side ({least_side}), the fewest pixels that the "
            "model finds a place in: raise short_side"
        )


def resize(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 ``[H, W, 3]`` to uint8 ``[h, w, 3]``, ``size = (h, w)``: bilinear, antialiased.

    Pillow's filter, whose support widens with the reduction. The same size returns the array itself.
    """
    if rgb.shape[:2] == tuple(size):
        return rgb
    resized = Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(resized)
