"""Which way up a picture is: EXIF's orientation, 1 to 8."""

from __future__ import annotations

import numpy as np
from PIL import Image

_TAG = 0x0112
_BACK = {6: 8, 8: 6}


def orientation_of(image: Image.Image) -> int:
    """1 where an image says none, or nothing that has a meaning."""
    try:
        orientation = image.getexif().get(_TAG)
    except Exception:  # broken metadata must not cost the picture
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def swaps_sides(orientation: int) -> bool:
    """Whether height and width of the picture are those stored the other way round."""
    return orientation >= 5


def turned(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """A view of ``[H, W, C]`` with an orientation applied, ``[W, H, C]`` for 5 to 8."""
    if swaps_sides(orientation):
        rgb = rgb.swapaxes(0, 1)
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return rgb[rows, columns]


def as_stored(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """A view of an upright picture as it is stored: what `turned` turns back."""
    return turned(rgb, _BACK.get(orientation, orientation))
