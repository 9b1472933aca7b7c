"""One cut-out photograph: is it usable, where in its picture does it lie, and its pixels at a wanted size."""

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

# Alpha from which a pixel counts as part of the object: fainter ones are the feathered edge or a shadow.
_VISIBLE = 24
_SOLID = 128
# Below this many pixels the longest side is too blurred when scaled up into a scene.
_MIN_SIDE = 40
# Thinner than this, or with less solid area in its box, an object a third of the image long is stray pixels.
_MAX_ASPECT = 6.0
_MIN_SOLID_SHARE = 0.1
_MAX_PIXELS = 50_000_000


class BadCutout(ValueError):
    """The picture cannot serve as a cut-out; the message is the reason."""


@dataclass(frozen=True)
class Cutout:
    """Where the object is in its picture: `box` (x0, y0, x1, y1) in pixels, tight around what is visible."""

    box: tuple[int, int, int, int]

    @property
    def aspect(self) -> float:
        """Width over height of the box."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) / (y1 - y0)


def read_cutout(content: bytes) -> Cutout:
    """Decode a picture fully and find its object. Raises BadCutout."""
    alpha = _decode(content).getchannel("A")
    if alpha.getextrema()[0] == 255:
        raise BadCutout("no transparent ground")
    box = alpha.point(lambda value: 255 * (value >= _VISIBLE)).getbbox()
    if box is None:
        raise BadCutout("nothing visible")
    width, height = box[2] - box[0], box[3] - box[1]
    if max(width, height) < _MIN_SIDE:
        raise BadCutout(f"smaller than {_MIN_SIDE} pixels")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise BadCutout("too thin to be seen in a scene")
    solid = sum(alpha.crop(box).histogram()[_SOLID:])
    if solid < _MIN_SOLID_SHARE * width * height:
        raise BadCutout("too thin to be seen in a scene")
    return Cutout(box)


def _decode(content: bytes) -> Image.Image:
    """The picture as RGBA, whatever its mode. Raises BadCutout."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: the bound below is ours
            image = Image.open(io.BytesIO(content), formats=["PNG"])
            if image.width * image.height > _MAX_PIXELS:
                raise BadCutout("picture is too large")
            # A palette's or a single transparent colour is in the info, an alpha channel among the bands.
            transparent = "transparency" in image.info or "A" in image.getbands()
            image = image.convert("RGBA")
    except BadCutout:
        raise
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise BadCutout("picture is corrupt") from error
    if not transparent:
        raise BadCutout("no transparent ground")
    return image


@lru_cache(maxsize=1024)
def pixels(root: str, path: str, box: tuple[int, int, int, int], side: int) -> Image.Image:
    """The object with premultiplied alpha (mode RGBa), its longest side at most `side`.

    Cached in each process. Raises BadCutout, or OSError when the file is gone.
    """
    image = _decode(Path(root, path).read_bytes()).crop(box).convert("RGBa")
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX, reducing_gap=None)
