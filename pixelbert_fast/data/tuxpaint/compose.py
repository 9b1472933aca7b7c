"""Composing cut-outs into a scene: how large, where, and drawing it."""

import io
from dataclasses import dataclass
from itertools import combinations
from random import Random

from PIL import Image, ImageEnhance

from pixelbert_fast.data.truth import RELATION_MARGIN, offset
from pixelbert_fast.data.tuxpaint.collection import Stamp
from pixelbert_fast.data.tuxpaint.cutouts import pixels
from pixelbert_fast.data.tuxpaint.ground import Ground, draw_ground

# The longest side of a cut-out as a share of the image's, by the number of cut-outs.
SHARES = {1: (0.36, 0.60), 2: (0.32, 0.50), 3: (0.30, 0.42)}
BRIGHTNESS = (0.85, 1.15)

# Columns and rows of the 3 x 3 grid of places, by the centre of an object's box as a share of the side. No
# centre lies in the gaps, so that no place is borderline.
_BANDS = ((0.0, 0.32), (0.39, 0.61), (0.68, 1.0))
_COLUMNS = ("left", "middle", "right")
_ROWS = ("top", "middle", "bottom")

# Two objects are clearly beside each other or clearly level: no offset lies between this and the relations'
# margin.
_LEVEL = 0.12

_TRIES = 40


@dataclass(frozen=True, slots=True)
class Placed:
    """A cut-out in a scene: `box` (x0, y0, x1, y1) in whole pixels of the image, `brightness` a factor."""

    stamp: Stamp
    box: tuple[int, int, int, int]
    mirrored: bool
    brightness: float

    def attributes(self, size: int) -> dict[str, str]:
        """What is known of it in an image of `size` x `size` pixels."""
        x0, y0, x1, y1 = self.box
        column = _COLUMNS[_band((x0 + x1) / 2 / size)]
        row = _ROWS[_band((y0 + y1) / 2 / size)]
        place = "middle" if column == row else f"{row} {column}"
        stamp = self.stamp
        return {
            "object": stamp.name,
            "concept": stamp.concept,
            "category": stamp.category,
            "column": column,
            "row": row,
            "place": place,
        }


@dataclass(frozen=True, slots=True)
class Picture:
    """A whole scene ready to be drawn; `size` is the side in pixels."""

    size: int
    things: tuple[Placed, ...]
    ground: Ground

    def scene(self) -> dict:
        """The scene as `truth` reads it."""
        return {
            "objects": [{"attributes": t.attributes(self.size), "box": list(t.box)} for t in self.things],
            "ground": {"colour": self.ground.colour, "texture": self.ground.texture},
        }


def _band(share: float) -> int:
    """Which third; a centre in a gap counts to the nearer band, which happens to single objects only."""
    low = (_BANDS[0][1] + _BANDS[1][0]) / 2
    high = (_BANDS[1][1] + _BANDS[2][0]) / 2
    return (share >= low) + (share >= high)


def place(rng: Random, stamps: list[Stamp], size: int) -> tuple[Placed, ...] | None:
    """Scale and place the cut-outs without overlap, each in a clear place, beside or level with others.

    None when no arrangement was found; calling again goes on with the stream of `rng`.
    """
    boxes: list[tuple[int, int, int, int]] = []
    for stamp in stamps:
        box = _free_box(rng, stamp, SHARES[len(stamps)], size, boxes)
        if box is None:
            return None
        boxes.append(box)
    return tuple(placed(rng, stamp, box) for stamp, box in zip(stamps, boxes, strict=True))


def placed(rng: Random, stamp: Stamp, box: tuple[int, int, int, int]) -> Placed:
    """The cut-out in its box, with a chance to be flipped where it may be and a mild change of brightness."""
    mirrored = stamp.mirror and rng.random() < 0.5
    return Placed(stamp, box, mirrored, round(rng.uniform(*BRIGHTNESS), 3))


def extent(stamp: Stamp, side: float) -> tuple[int, int]:
    """Width and height in pixels of the cut-out when its longest side has `side` pixels."""
    aspect = stamp.cutout.aspect
    width, height = (side, side / aspect) if aspect >= 1 else (side * aspect, side)
    return max(1, round(width)), max(1, round(height))


def _free_box(rng: Random, stamp: Stamp, shares: tuple[float, float], size: int, taken: list):
    width, height = extent(stamp, rng.uniform(*shares) * size)
    for _ in range(_TRIES):
        x, y = rng.randint(0, size - width), rng.randint(0, size - height)
        box = (x, y, x + width, y + height)
        if _clearly_placed(box, size) and all(_clearly_apart(box, other) for other in taken):
            return box
    return None


def _clearly_placed(box: tuple, size: int) -> bool:
    x0, y0, x1, y1 = box
    centres = ((x0 + x1) / 2 / size, (y0 + y1) / 2 / size)
    return all(any(low <= centre <= high for low, high in _BANDS) for centre in centres)


def _clearly_apart(box: tuple, other: tuple) -> bool:
    if box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]:
        return False
    offsets = (abs(offset({"box": box}, {"box": other}, relation)) for relation in ("left of", "above"))
    return all(not _LEVEL < distance < RELATION_MARGIN for distance in offsets)


def draw(picture: Picture, root: str) -> Image.Image:
    """The picture as an RGB image, from the stamps folder `root`. Raises BadCutout or OSError."""
    canvas = draw_ground(picture.ground, picture.size)
    for thing in picture.things:
        x0, y0, x1, y1 = thing.box
        # Well above any size it is drawn at, so that scaling again shows no trace, and one cached copy
        # serves all.
        source = pixels(root, thing.stamp.path, thing.stamp.cutout.box, 2 * picture.size)
        image = source.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("RGBA")
        if thing.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        lit = ImageEnhance.Brightness(image).enhance(thing.brightness)
        canvas.paste(lit, (x0, y0), image)
    return canvas


def encode(image: Image.Image, quality: int) -> bytes:
    """The image as a JPEG file of this quality (1 to 100)."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def clashes(stamps: list[Stamp]) -> bool:
    """Whether two of them could be called by one name: then a caption would not say which is meant."""
    return any(a.concept == b.concept for a, b in combinations(stamps, 2))
