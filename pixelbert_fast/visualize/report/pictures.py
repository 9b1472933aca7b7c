"""The images of a report: small, each in the page once, with maps laid over it as often as wanted."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from pixelbert_fast.data.images import to_rgb
from pixelbert_fast.data.resizing import resize
from pixelbert_fast.errors import UserError
from pixelbert_fast.tasks.examples import Picture, WordMap
from pixelbert_fast.visualize.markup import escaped

# A report has some 40 images; at five to ten kB each they are a quarter of what a page may weigh.
_LONGEST = 192
_QUALITY = 80
# What the least attended place keeps of its light: the picture below must still be seen.
_DARKEST = 0.82
# Attention is a probability, mostly of a few places: its root shows the next ones too, in the same order.
_SHADE = 0.5

STYLE = """
.shots { display: flex; flex-wrap: wrap; gap: .5rem .35rem; margin: .4rem 0; }
.shots figure { margin: 0; width: calc((100% - 1rem) / 3); max-width: 7.8rem; min-width: 0; }
.shots figure.small { width: calc((100% - 1.5rem) / 4); max-width: 4.1rem; }
.shots figcaption { font-size: .72rem; color: var(--faint); margin-top: .15rem; }
.shot { position: relative; overflow: hidden; background: var(--line) center / 100% 100% no-repeat;
  border-radius: 4px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.shot img { position: absolute; left: 0; top: 0; max-width: none; image-rendering: pixelated; }
.meant .shot { outline: 3px solid var(--mark); outline-offset: 1px; }
"""


class Album:
    """Collects the images of a page; `style()` holds them, to be put into the page's style."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._uris: list[str] = []
        self._shapes: list[tuple[int, int]] = []

    def figures(self, picture: Picture, *, small: bool = False) -> str:
        """The picture, and itself again under each of its maps, as HTML figures."""
        try:
            number = self._number(picture.image)
        except UserError as error:
            return f"<figure><figcaption>{escaped(picture.name)}: {escaped(error)}</figcaption></figure>"
        kinds = [name for name, given in (("small", small), ("meant", picture.right)) if given]
        note = picture.note + (", the one meant" if picture.right else "")
        found = self._figure(number, kinds, picture.name, note, "")
        for one in picture.maps:
            found += self._figure(
                number, kinds, f"where {one.word} looks in {picture.name}", one.word, _over(one)
            )
        return found

    def style(self) -> str:
        """The rules that show each image."""
        return "".join(
            f'.p{number}{{background-image:url("{uri}");aspect-ratio:{width}/{height}}}\n'
            for number, (uri, (height, width)) in enumerate(zip(self._uris, self._shapes, strict=True))
        )

    def _figure(self, number: int, kinds: list[str], name: str, note: str, over: str) -> str:
        kind = f' class="{" ".join(kinds)}"' if kinds else ""
        caption = f'<figcaption dir="auto">{escaped(note)}</figcaption>' if note else ""
        shot = f'<div class="shot p{number}" role="img" aria-label="{escaped(name)}">{over}</div>'
        return f"<figure{kind}>{shot}{caption}</figure>"

    def _number(self, image: bytes) -> int:
        if image not in self._numbers:
            rgb = to_rgb(image)
            height, width = rgb.shape[:2]
            if max(height, width) > _LONGEST:
                scale = _LONGEST / max(height, width)
                rgb = resize(rgb, (max(1, round(height * scale)), max(1, round(width * scale))))
            buffer = io.BytesIO()
            Image.fromarray(rgb).save(buffer, "JPEG", quality=_QUALITY)
            self._numbers[image] = len(self._uris)
            self._uris.append(_uri(buffer, "jpeg"))
            self._shapes.append((height, width))
        return self._numbers[image]


def _over(one: WordMap) -> str:
    """A map as darkness: the most attended place keeps its light, the others lose it."""
    most = float(one.map.max())
    light = (one.map / most) ** _SHADE if most > 0 else np.zeros_like(one.map)
    alpha = np.round(255 * _DARKEST * (1 - light)).astype(np.uint8)
    shade = np.stack([np.zeros_like(alpha), alpha], axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(shade, "LA").save(buffer, "PNG", optimize=True)
    height, width = (f"{100 * share:.2f}%" for share in one.covers)
    return f'<img src="{_uri(buffer, "png")}" alt="" style="width:{width};height:{height}">'


def _uri(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()
