"""Drawing a scene: antialiased shapes with their textures on a ground, as JPEG."""

from io import BytesIO
from math import ceil, cos, floor, pi, sin
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from pixelbert_fast.data.scenes.layout import CANVAS, OBJECT_CANVAS, Picture, Thing
from pixelbert_fast.data.scenes.lexicon import COLOURS, GROUND_COLOURS
from pixelbert_fast.data.scenes.shapes import outline

SUPERSAMPLING = 4
# In pixels of a 96-pixel image, like the lengths of layout.
STRIPE_PERIOD = {"small": 5.6, "large": 8.0}
DOT_SPACING = {"small": 6.0, "large": 7.5}
DOT_RADIUS = {"small": 1.7, "large": 2.2}
RIM = 1.0
# The most that the noise of a noisy ground adds to or takes from a channel.
GRAIN = 38


def _shifted(colour: tuple[int, int, int], by: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(min(255, max(0, value + step)) for value, step in zip(colour, by, strict=True))


def _contrast(colour: tuple[int, ...]) -> tuple[int, ...]:
    """The second tone of a texture: the same hue, darker for a light colour and lighter for a dark one."""
    light = 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]
    if light < 100:
        return tuple(round(value + 0.5 * (255 - value)) for value in colour)
    # White needs the darkest one: a grey stripe on a white object looks like the ground behind it.
    return tuple(round((0.3 if min(colour) > 200 else 0.45) * value) for value in colour)


def _stripes(draw: ImageDraw.ImageDraw, side: int, scale: float, thing: Thing, tone: tuple) -> None:
    direction, phase = thing.pattern
    period = STRIPE_PERIOD[thing.attributes["size"]] * scale
    angle = direction * pi / 4
    nx, ny = cos(angle), sin(angle)
    middle, reach = side / 2, side
    for i in range(-ceil(side / period), ceil(side / period) + 1):
        at = (i + phase) * period
        x, y = middle + at * nx, middle + at * ny
        ends = (x - reach * ny, y + reach * nx, x + reach * ny, y - reach * nx)
        draw.line(ends, fill=tone, width=max(1, round(period * 0.45)))


def _dots(draw: ImageDraw.ImageDraw, side: int, scale: float, thing: Thing, tone: tuple) -> None:
    direction, phase = thing.pattern
    spacing = DOT_SPACING[thing.attributes["size"]] * scale
    radius = DOT_RADIUS[thing.attributes["size"]] * scale
    rows = ceil(side / spacing) + 1
    for row in range(-1, rows):
        for column in range(-1, rows):
            x = (column + phase + 0.5 * (row % 2)) * spacing
            y = (row + direction / 4) * spacing
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tone)


def _draw_thing(image: Image.Image, thing: Thing, unit: float) -> None:
    x0, y0, x1, y1 = thing.box
    left, top = floor(x0), floor(y0)
    side = max(ceil(x1) - left, ceil(y1) - top)
    fine = side * SUPERSAMPLING

    def placed(points):
        return [
            (
                (thing.x + x * thing.diameter - left) * SUPERSAMPLING,
                (thing.y + y * thing.diameter - top) * SUPERSAMPLING,
            )
            for x, y in points
        ]

    points, hole = outline(thing.attributes["shape"], thing.rotation)
    mask = Image.new("L", (fine, fine), 0)
    draw = ImageDraw.Draw(mask)
    draw.polygon(placed(points), fill=255)
    if hole:
        draw.polygon(placed(hole), fill=0)

    colour = _shifted(COLOURS[thing.attributes["colour"]], thing.jitter)
    texture = thing.attributes["texture"]
    if texture == "plain":
        paint = Image.new("RGB", (side, side), colour)
    else:
        paint = Image.new("RGB", (fine, fine), colour)
        pattern = _stripes if texture == "striped" else _dots
        brush = ImageDraw.Draw(paint)
        pattern(brush, fine, unit * SUPERSAMPLING, thing, _contrast(colour))
        # The second tone may be that of the ground: a rim of the first keeps the outline whole.
        for edge in (points, hole):
            if edge:
                width = round(2 * RIM * unit * SUPERSAMPLING)
                brush.line(placed((*edge, edge[0])), fill=colour, width=width)
        paint = paint.reduce(SUPERSAMPLING)
    image.paste(paint, (left, top), mask.reduce(SUPERSAMPLING))


def _draw_ground(picture: Picture) -> Image.Image:
    colour = _shifted(GROUND_COLOURS[picture.ground["colour"]], picture.jitter)
    size = picture.size
    if picture.ground["texture"] == "plain":
        return Image.new("RGB", (size, size), colour)
    # Python's generator gives the same bytes in every version; numpy's streams make no such promise.
    noise = np.frombuffer(Random(picture.grain).randbytes(2 * size * size), dtype=np.uint8).reshape(
        2, size, size, 1
    )
    grain = (noise[0].astype(np.int32) + noise[1] - 255) * GRAIN // 255
    return Image.fromarray(np.clip(np.asarray(colour) + grain, 0, 255).astype(np.uint8))


def draw_picture(picture: Picture) -> Image.Image:
    """Draw a scene: RGB, `picture.size` pixels a side."""
    image = _draw_ground(picture)
    unit = picture.size / (CANVAS if "place" in picture.things[0].attributes else OBJECT_CANVAS)
    for thing in picture.things:
        _draw_thing(image, thing, unit)
    return image


def encode(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes with full colour resolution: halved, it would smear the colour of 20-pixel objects."""
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
