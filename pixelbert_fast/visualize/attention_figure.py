"""The paper's figure: an image, and beside it the map of each word of a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.attending import AttentionMaps
from pixelbert_fast.visualize.heat import coloured, spread_out

_MARGIN = 12
_HIGHEST = 4
"""Panels: what a figure of a narrow column would otherwise be high has no bound."""
_TITLE, _NOTE = 18, 14
"""Font sizes in pixels."""
_INK, _FAINT = (27, 29, 32), (97, 102, 109)


def draw(
    maps: AttentionMaps,
    image: Any,
    *,
    layer: int | None = 0,
    head: int | None = None,
    rollout: bool = False,
    words: Sequence[int] | None = None,
    opacity: float = 0.6,
    smooth: bool = True,
    common: bool = False,
    panel: int = 192,
    columns: int | None = None,
) -> Image.Image:
    """A figure of `image` and its word maps, side by side, each with its word as title.

    Args:
        maps: of `image`, which may be larger than the model read it.
        image: as `data.images.to_rgb` takes it.
        layer, head: counted from 0, negative ones from the end; None: the mean of all. The paper shows the
            first layer.
        rollout: attention followed through all layers instead, for which `maps` must have been computed.
        words: which words, by number; None: all.
        opacity: of a map over the image, 0..1.
        smooth: bilinear between the cells' centres; False: cells as they are.
        common: one scale for all words drawn; False: the largest value of each map is its lightest colour.
        panel: width of one picture, in pixels; of an image over four times as high as wide it is less, and
            the picture four panels high.
        columns: pictures in a row at most; None: 6.

    Raises:
        UserError: `rollout` where none was computed, an image that cannot be read, or an option of no use.
        IndexError: a layer, head or word that is not there.
    """
    if rollout and maps.rollout is None:
        raise UserError("these maps hold no rollout: ask attention_maps for it with rollout=True")
    if not 0 <= opacity <= 1 or panel < 16 or (columns is not None and columns < 1):
        raise UserError(
            f"opacity must lie in 0..1, panel be at least 16 and columns at least 1, not {opacity}, {panel} "
            f"and {columns}"
        )
    found = maps.rollout if rollout else maps.of(layer, head)
    chosen = list(range(len(maps.words)) if words is None else words)
    shown = found[chosen]
    rgb = to_rgb(image)
    scale = min(panel / rgb.shape[1], _HIGHEST * panel / rgb.shape[0])
    size = tuple(max(1, round(scale * side)) for side in rgb.shape[:2])
    ground = np.asarray(Image.fromarray(rgb).resize(size[::-1], Image.Resampling.LANCZOS))
    pictures = [(Image.fromarray(ground), "image", f"read as {maps.grid[0]} x {maps.grid[1]} cells")]
    for number, one in zip(chosen, shown, strict=True):
        most = float(shown.max() if common else one.max())
        values, covered = spread_out(one, size, maps, smooth=smooth)
        over = opacity * covered[..., None]
        mixed = ground * (1 - over) + coloured(values / most if most > 0 else values) * over
        picture = Image.fromarray(np.floor(mixed + 0.5).astype(np.uint8))
        pictures.append((picture, maps.words[number], f"up to {percent(float(one.max()))}"))
    about = f"{described(maps, layer, head, rollout)}, {'one scale' if common else 'each on its own scale'}"
    return _sheet(pictures, maps.text, about, min(columns or 6, len(pictures)), panel)


def described(maps: AttentionMaps, layer: int | None, head: int | None, rollout: bool) -> str:
    """Which layer and head, counted from 1, in words."""
    layers, heads = maps.maps.shape[:2]
    if rollout:
        return f"rollout through {layers} layers"
    which = "mean of all layers" if layer is None else f"layer {layer % layers + 1} of {layers}"
    return f"{which}, " + ("mean of all heads" if head is None else f"head {head % heads + 1} of {heads}")


def percent(share: float) -> str:
    """Two significant digits."""
    value = 100 * share
    if 0 < value < 0.01:
        return "under 0.01 %"
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"


def _sheet(
    pictures: Sequence[tuple[Image.Image, str, str]], text: str, about: str, columns: int, width: int
) -> Image.Image:
    height = pictures[0][0].height
    titles = 2 * _MARGIN + _TITLE + _NOTE
    rows = -(-len(pictures) // columns)
    across = columns * (width + _MARGIN) + _MARGIN
    head = _MARGIN + _TITLE + _NOTE + 10
    sheet = Image.new("RGB", (across, head + rows * (titles + height) + _MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    _write(pen, (_MARGIN, _MARGIN), text, _TITLE, _INK, across - 2 * _MARGIN)
    _write(pen, (_MARGIN, _MARGIN + _TITLE + 6), about, _NOTE, _FAINT, across - 2 * _MARGIN)
    for place, (picture, title, note) in enumerate(pictures):
        row, column = divmod(place, columns)
        left, top = _MARGIN + column * (width + _MARGIN), head + row * (titles + height)
        _write(pen, (left, top + _MARGIN), title, _TITLE, _INK, width)
        _write(pen, (left, top + _MARGIN + _TITLE + 4), note, _NOTE, _FAINT, width)
        sheet.paste(picture, (left, top + titles))
    return sheet


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, fill, width: int) -> None:
    """One line, shortened where it is too long."""
    text = " ".join(text.split())
    font = _font(size, text.isascii())
    if pen.textlength(text, font) > width:
        while text and pen.textlength(f"{text}...", font) > width:
            text = text[:-1]
        text += "..."
    pen.text(place, text, fill, font)


@cache
def _font(size: int, plain: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own, the same everywhere; where it may lack a letter, one with more of them, if any."""
    if not plain:
        for name in ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial Unicode.ttf"):
            try:
                return ImageFont.truetype(name, size)
            except OSError:
                continue
    return ImageFont.load_default(size)
