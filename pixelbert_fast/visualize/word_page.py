"""One self-contained HTML page on which a reader points at words and sees where each looks."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.resizing import resize
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.attending import AttentionMaps
from pixelbert_fast.visualize.heat import colours
from pixelbert_fast.visualize.markup import escaped, security_policy

LONGEST_SIDE = 960
"""Of the image on the page, in pixels."""
CANVAS = 512
"""Longest side of the map that is drawn, in pixels."""
_LOSSLESS = 40_000
"""Bytes up to which the image is kept as a PNG: drawings of few colours, which JPEG would blur."""
_QUALITY = 88


def attention_page(
    maps: Sequence[AttentionMaps],
    image: Any,
    *,
    title: str = "Where each word looks",
    about: Sequence[str] = (),
    layer: int | None = 0,
    head: int | None = None,
    rollout: bool = False,
    opacity: float = 0.6,
) -> str:
    """The page of one image and its texts: every layer and head is in it, nothing is loaded, no text can run.

    Args:
        maps: of one image and one model, each computed with ``rollout=True``.
        image: as `data.images.to_rgb` takes it.
        about: lines under the title, as the image's name.
        layer, head, rollout: what is shown first; as `draw` takes them.
        opacity: of the map over the image at first, 0..1.

    Raises:
        UserError: maps of different images or models, or without rollout; an image that cannot be read.
        IndexError: a layer or head that is not there.
    """
    first = maps[0]
    first.of(layer, head)
    if any(one.rollout is None for one in maps):
        raise UserError("the page shows rollout too: ask attention_maps for it with rollout=True")
    shapes = {(one.grid, one.image_size, one.window, one.maps.shape[:2]) for one in maps}
    if len(shapes) > 1:
        raise UserError("the maps are of different images or models: make a page of each")
    layers, heads = first.maps.shape[:2]
    rgb = to_rgb(image)
    sides = _scaled(rgb.shape[:2], CANVAS, grow=True)
    data = {
        "grid": first.grid,
        "size": first.image_size,
        "window": first.window,
        "layers": layers,
        "heads": heads,
        "start": _strongest(first, layer, head, rollout),
        "captions": [_packed(one) for one in maps],
        "colours": _base64(colours()),
    }
    numbers = [0 if one is None else one % count + 1 for one, count in ((layer, layers), (head, heads))]
    script, style = (_shipped(f"word_page.{kind}") for kind in ("js", "css"))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{security_policy(script, style)}">
<title>{escaped(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{escaped(title)}</h1>
{"".join(f"<p>{escaped(line)}</p>" for line in about)}
</header>
<main>
<section aria-label="Image and map">
<figure id="stage">
<img id="image" alt="The image" src="{_uri(rgb)}">
<canvas id="map" width="{sides[1]}" height="{sides[0]}" tabindex="0" role="img" aria-label="Attention"
 aria-describedby="reading"></canvas>
<div id="cell" hidden></div>
</figure>
<div class="legend"><span>0</span><canvas id="bar" width="256" height="1" aria-hidden="true"></canvas>
<span id="high"></span></div>
<output id="reading"></output>
</section>
<section aria-label="Words and settings">
{"".join(_caption(one, number) for number, one in enumerate(maps))}
<p class="said" aria-live="polite">“<strong id="which"></strong>” gives <strong id="share"></strong> of its
attention to the image, the rest to the text.</p>
<fieldset>
<legend>What is drawn</legend>
{_slider("layer", "Layer", 0, layers, numbers[0])}
{_slider("head", "Head", 0, heads, numbers[1])}
{_switch("rollout", "Rollout: attention followed through all layers", rollout)}
{_slider("opacity", "Opacity", 0, 100, round(100 * opacity))}
{_switch("common", "One scale for all words (else each word's own)", False)}
{_switch("smooth", f"Smooth (else the {first.grid[0]} x {first.grid[1]} cells that the model reads)", True)}
</fieldset>
</section>
</main>
<h2>All words</h2>
<div id="strip" aria-hidden="true"></div>
<noscript><p>The maps are drawn by a script in this page, which this browser does not run.</p></noscript>
<footer>
<p>Hover, tap or tab to a word; arrow keys move between words. A map shows how one word, as the query of
softmax(QKᵀ/√d), shares its attention among the cells of the image, with the word's pieces averaged.</p>
<p>It says where a head reads from, not why the model decides as it does.</p>
</footer>
<script type="application/json" id="data">{_json(data)}</script>
<script>{script}</script>
</body>
</html>
"""


def _strongest(maps: AttentionMaps, layer: int | None, head: int | None, rollout: bool) -> int:
    """The word whose map stands out most: the page opens with something to see."""
    found = (maps.rollout if rollout else maps.of(layer, head)).reshape(len(maps.words), -1)
    return int((found.max(axis=1) / found.sum(axis=1).clip(min=1e-30)).argmax())


def _packed(maps: AttentionMaps) -> dict[str, Any]:
    """A byte a value: 255 is the largest of its map, so that an error is at most a 510th of that."""
    names = {"maps": ("maps", "scales"), "rollout": ("rollout", "rolloutScales")}
    packed: dict[str, Any] = {"words": len(maps.words)}
    for field, (name, scales) in names.items():
        values = getattr(maps, field).astype(np.float64)
        # Four digits, and the bytes are counted in what is written.
        most = [float(f"{one:.4g}") for one in values.max(axis=(-2, -1)).ravel()]
        unit = np.array(most).reshape(values.shape[:-2])[..., None, None].clip(min=1e-300) / 255
        packed[name] = _base64(np.floor(values / unit + 0.5).clip(0, 255).astype(np.uint8))
        packed[scales] = most
    return packed


def _caption(maps: AttentionMaps, number: int) -> str:
    parts, at = [], 0
    for word, (start, end) in enumerate(maps.spans):
        parts.append(escaped(maps.text[at:start]))
        parts.append(
            f'<button type="button" class="word" data-caption="{number}" data-word="{word}" '
            f'aria-pressed="false">{escaped(maps.text[start:end])}</button>'
        )
        at = end
    rest = maps.text[at:]
    note = ""
    if any(character.isalnum() for character in rest):
        note = '<p class="note">What is crossed out was cut off: the model never read it.</p>\n'
        parts.append(f'<span class="unread">{escaped(rest)}</span>')
    else:
        parts.append(escaped(rest))
    return f'<p class="caption" dir="auto">{"".join(parts)}</p>\n{note}'


def _slider(name: str, label: str, low: int, high: int, value: int) -> str:
    return (
        f'<div class="slider"><label for="{name}">{label}</label>'
        f'<input type="range" id="{name}" min="{low}" max="{high}" value="{value}" autocomplete="off">'
        f'<span id="{name}-said" aria-hidden="true"></span></div>'
    )


def _switch(name: str, label: str, on: bool) -> str:
    checked = " checked" if on else ""
    return (
        f'<label class="switch"><input type="checkbox" id="{name}" autocomplete="off"{checked}>'
        f"<span>{label}</span></label>"
    )


def _uri(rgb: np.ndarray) -> str:
    if max(rgb.shape[:2]) > LONGEST_SIDE:
        rgb = resize(rgb, _scaled(rgb.shape[:2], LONGEST_SIDE))
    kind, content = "png", _encoded(rgb, "PNG", optimize=True)
    if len(content) > _LOSSLESS:
        kind, content = "jpeg", _encoded(rgb, "JPEG", quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _encoded(rgb: np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def _scaled(size: tuple[int, int], longest: int, *, grow: bool = False) -> tuple[int, int]:
    scale = longest / max(size)
    scale = scale if grow else min(scale, 1)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shipped(name: str) -> str:
    return files("pixelbert_fast.visualize").joinpath(name).read_text(encoding="utf-8")


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _json(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
